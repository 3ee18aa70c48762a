# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a proxy costs, and what TLS does: pushing and pulling one large layer, direct and through each proxy.

    DOCKYARD_LAYER_MIB=1024 python tests/bench/bench_proxy.py [PROXY...]

The client is curl, on the same two cores; so its own TLS counts as well. CPU is what the containers of the stack used
(cgroup), in seconds. `direct` is plain HTTP to a registry behind nothing but the engine's port, which checks the
password itself (one bcrypt of cost 10 a request). `plain` is the proxy with TLS taken out of its configuration, which
only a bench does: same port, same gate, same rules. Traefik is measured where there is one. Best of three
layers, each pulled three times; each proxy and the direct registry take turns, so that a machine that gets slower
meanwhile does so for both.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".ansible" / "collections"))

from tests.support.proxied import ProxiedSite
from tests.support.site import Site
from tests.support.store import write_layer
from tests.support.traefik import proxies

MIB = int(os.environ.get("DOCKYARD_LAYER_MIB", "1024"))
ROUNDS = 3
PULLS = 3
ROW = "{:16}{:>8}{:>10}{:>8}{:>10}{:>10}"


class Layer(NamedTuple):
    path: Path
    digest: str


class Took(NamedTuple):
    push: float
    pull: float
    cpu: float


class Target(NamedTuple):
    """A registry, and how curl reaches it."""

    site: Site
    url: str
    options: list[str]


def make_layer(folder: Path) -> Layer:
    """Another one each time: what a registry has is not sent again."""
    path = folder / "layer"
    return Layer(path, write_layer(path, MIB))


def cpu_seconds(site: Site) -> float:
    """What all containers of the stack have used so far."""
    label = f"label=com.docker.compose.project={site.project}"
    total = 0.0
    for container in site.docker("ps", "--quiet", "--no-trunc", "--filter", label).stdout.split():
        one = Path("/sys/fs/cgroup/cpuacct/docker", container, "cpuacct.usage")
        two = Path("/sys/fs/cgroup/system.slice", f"docker-{container}.scope", "cpu.stat")
        if one.exists():
            total += int(one.read_text()) / 1e9
        else:
            total += int(two.read_text().split()[1]) / 1e6
    return total


def curl(*arguments: str) -> str:
    return subprocess.run(
        ["curl", "-sS", "--fail", *arguments], capture_output=True, text=True, check=True
    ).stdout


def pull(target: Target, layer: Layer) -> float:
    """Seconds that it takes."""
    begun = time.monotonic()
    curl(*target.options, "-o", "/dev/null", f"{target.url}/v2/big/blobs/{layer.digest}")
    return time.monotonic() - begun


def measure(targets: tuple[Target, ...], folder: Path) -> list[Took]:
    """What the best of the rounds took, for each of those that take turns."""
    best = [Took(float("inf"), float("inf"), float("inf")) for _target in targets]
    for _round in range(ROUNDS):
        layer = make_layer(folder)
        first = [push_and_pull(target, layer) for target in targets]
        layer.path.unlink()
        # The first pull competes with what the push still has to write.
        again = [[pull(target, layer) for target in targets] for _again in range(PULLS - 1)]
        for place, took in enumerate(first):
            took = took._replace(pull=min(took.pull, *(pulls[place] for pulls in again)))
            best[place] = Took(*(min(pair) for pair in zip(best[place], took, strict=True)))
    return best


def push_and_pull(target: Target, layer: Layer) -> Took:
    begun_cpu = cpu_seconds(target.site)
    begun = time.monotonic()
    head = curl(*target.options, "-X", "POST", "-D", "-", f"{target.url}/v2/big/blobs/uploads/")
    place = next(
        line.split(": ", 1)[1].strip() for line in head.splitlines() if line.lower().startswith("location")
    )
    # What the proxy calls itself has https in it, whether or not TLS was taken out.
    place = target.url + urlsplit(place)._replace(scheme="", netloc="").geturl()
    octets = ("-H", "Content-Type: application/octet-stream", "-H", "Expect:")
    curl(*target.options, *octets, "-X", "PUT", "-T", str(layer.path), f"{place}&digest={layer.digest}")
    push = time.monotonic() - begun
    return Took(push, pull(target, layer), cpu_seconds(target.site) - begun_cpu)


def take_out_tls(site: ProxiedSite) -> None:
    """Let the proxy speak plain HTTP where it spoke HTTPS."""
    folder = site.root / "proxy"
    if site.proxy == "nginx":
        _change(folder / "nginx.conf", r"(listen \S+) ssl http2", r"\1")
    elif site.proxy == "caddy":
        # Otherwise a port of HTTPS, on which Caddy insists.
        _change(folder / "Caddyfile", r"https_port (\d+)", "https_port 1")
        _change(folder / "Caddyfile", r"(?m)^https://:", "http://:")
        _change(folder / "Caddyfile", r"(?ms)^\ttls .*?^\t}\n", "")
    else:
        path = folder / "dynamic.yml"
        settings = yaml.safe_load(path.read_text())
        for router in settings["http"]["routers"].values():
            router.pop("tls", None)
        path.write_text(yaml.safe_dump(settings))
    done = site.docker("exec", f"{site.project}-proxy-1", "sh", "/proxy/reload")
    assert done.returncode == 0, done.stderr


def _change(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, path.read_text())
    assert count, f"{path}: there is no {pattern}"
    path.write_text(text)


@contextmanager
def direct(folder: Path) -> Iterator[Target]:
    site = Site(folder)
    site.variables["registry_image_source"] = "packages"
    try:
        site.play().ok()
        yield Target(site, site.url, ["--user", f"admin:{site.password('admin')}"])
    finally:
        site.remove()


def through(proxy: str, base: Target, folder: Path) -> Iterator[tuple[str, list[Took]]]:
    """With TLS and without, each beside the direct registry."""
    site = ProxiedSite(folder, proxy)
    try:
        site.play().ok()
        login = ["--user", f"admin:{site.password('admin')}"]
        # As docker and skopeo do.
        options = ["--http1.1", "--resolve", f"registry.test:{site.port}:127.0.0.1", *login]
        secure = Target(site, site.url, [*options, "--cacert", str(site.ca)])
        yield proxy, measure((base, secure), folder)
        take_out_tls(site)
        plain = Target(site, site.url.replace("https:", "http:"), options)
        yield f"{proxy}, plain", measure((base, plain), folder)
    finally:
        site.remove()


def main() -> None:
    print(ROW.format(f"{MIB} MiB", "push s", "of direct", "pull s", "of direct", "CPU s"), flush=True)
    with tempfile.TemporaryDirectory() as base_folder, direct(Path(base_folder)) as base:
        for proxy in sys.argv[1:] or proxies():
            with tempfile.TemporaryDirectory() as folder:
                for name, (alone, took) in through(proxy, base, Path(folder)):
                    tell("direct", alone, alone)
                    tell(name, took, alone)
    print("goal: a pull through a plain proxy takes at most 1.15 of direct; the rest is what TLS costs")


def tell(name: str, took: Took, base: Took) -> None:
    print(
        ROW.format(
            *(name, f"{took.push:.2f}", f"{took.push / base.push:.2f}"),
            *(f"{took.pull:.2f}", f"{took.pull / base.pull:.2f}", f"{took.cpu:.2f}"),
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
