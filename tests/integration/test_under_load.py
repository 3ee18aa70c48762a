# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Maintenance while people push and pull: nothing that was acknowledged is lost, and behind a proxy no pull fails."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils._reference import Digest
from ansible_collections.dockyard.registry.plugins.module_utils._stack import Stack
from ansible_collections.dockyard.registry.plugins.module_utils._storage import Storage

from tests.support.images import BASE
from tests.support.load import load_on
from tests.support.processes import wait_for
from tests.support.proxied import Podman, ProxiedSite, Puller
from tests.support.site import Site

pytestmark = pytest.mark.slow

GARBAGE = 24


def collect(site: Site) -> dict[str, Any]:
    """Garbage collection that has something to do. Returns what it says."""
    run = site.play("gc", registry_gc_untagged="1h").ok()
    result = run.result("garbage_collect | Free what nothing needs")
    assert result["blobs"] > 0
    assert result["manifests"] > 0
    return result


def backup(site: Site, kind: str) -> str:
    """The name of a new backup."""
    written = site.play("backup", registry_backup_kind=kind).ok().result("backup | Write it")
    assert written["kind"] == kind
    return Path(written["file"]).name


def test_without_a_proxy(deployed: Site) -> None:
    deployed.variables["registry_backup_dir"] = str(deployed.root.parent / "backups")
    load = load_on(deployed)
    load.leave_garbage(GARBAGE, deployed.root / "data")
    with load:
        backups = [backup(deployed, "full"), backup(deployed, "incremental")]
        assert deployed.play("check").ok().result("check | Look at everything")["healthy"]
        assert load.failed_pulls == []
        assert load.failed_pushes == []
        result = collect(deployed)
        pulls = load.pulls
        time.sleep(1)
    print(load.summary())
    assert load.pulls > pulls, "they go on afterwards"
    assert load.verify() > GARBAGE
    # A request that failed ended after the registry had stopped, and had begun before it answered again.
    for failures in (load.failed_pulls, load.failed_pushes):
        if failures:
            last, first = max(each.begun for each in failures), min(each.ended for each in failures)
            assert last - first <= result["seconds_stopped"], failures
    for name in backups:
        drill = deployed.play("restore", backup=name, verify="true").ok().result("restore | Restore it")
        assert drill["drill"]["tags"] > 3
    assert deployed.play("check").ok().result("check | Look at everything")["healthy"]
    assert load.verify() > GARBAGE


def upgrade(site: ProxiedSite) -> None:
    """The registry's container is made anew, and the proxy gets another configuration."""
    before = site.service("registry")["Id"]
    run = site.play(
        registry_config={"http": {"headers": {"X-Release": ["next"]}}},
        registry_proxy_connections_per_client=300,
    ).ok()
    assert "stack | Pulls go to the reader meanwhile" in run.changed
    assert site.service("registry")["Id"] != before
    assert site.services() == ["gate", "network", "proxy", "registry"], "the reader ends"


def restart(site: ProxiedSite) -> None:
    """As modules do it."""
    stack = Stack(site.root, url=site.url)
    stack.stop()
    stack.start()


def test_behind_a_proxy(proxied: ProxiedSite) -> None:
    load = load_on(proxied)
    load.leave_garbage(GARBAGE, proxied.root / "data")
    steps: tuple[Callable[[ProxiedSite], object], ...] = (collect, upgrade, restart)
    always = load.push("always/there", "1")
    # The load speaks HTTP/1.1, as Docker does.
    with load, Puller(proxied, f"/v2/always/there/blobs/{Digest.of(always.blobs[0])}") as http2:
        for step in steps:
            failed = len(load.failed_pulls)
            step(proxied)
            assert load.failed_pulls[failed:] == [], step.__name__
        wait_for("a push was told to wait and went through", lambda: load.delayed_pushes > 0, pause=0.5)
    print(load.summary())
    assert load.pulls > 20
    assert load.failed_pulls == []
    assert http2.count > 20
    assert http2.failures == []
    assert load.failed_pushes == []
    assert set(load.waits) == {429, 503}, "each client got what it understands"
    assert load.delayed_pushes > 0
    assert load.verify() > 3


#: What each understands: podman and skopeo are on containers/image.
TOLD = {"docker": 503, "podman": 429, "skopeo": 429}


def test_clients_wait_for_the_end_of_a_window(proxied: ProxiedSite, tmp_path: Path) -> None:
    """Each pushes while the registry is away, is told to come back in its own way, and goes through later."""
    assert proxied.login()
    images = {client: f"{proxied.address}/clients/{client}:1" for client in TOLD}
    assert proxied.docker("tag", BASE, images["docker"]).returncode == 0
    archive = tmp_path / "image.tar"
    assert proxied.docker("save", "-o", str(archive), BASE).returncode == 0
    podman = Podman(proxied)
    podman.load(archive)
    pushes: dict[str, Callable[[], subprocess.CompletedProcess[str]]] = {
        "docker": lambda: proxied.docker("push", images["docker"]),
        "podman": lambda: podman.push(BASE, images["podman"]),
        "skopeo": lambda: proxied.skopeo(
            *("copy", f"docker-archive:{archive}", f"docker://{images['skopeo']}"),
            more=("--retry-times=10",),
        ),
    }
    before = len(proxied.log())

    def told() -> set[tuple[str, int]]:
        """Which client got which status, by the repository that it pushes to."""
        entries = [entry for entry in proxied.log()[before:] if entry["path"].startswith("/v2/clients/")]
        return {(entry["path"].split("/")[3], entry["status"]) for entry in entries}

    proxied.switch("maintenance")
    try:
        with ThreadPoolExecutor(len(pushes)) as executor:
            under_way = {client: executor.submit(push) for client, push in pushes.items()}
            try:
                wait_for(
                    "each client was told to come back in its own way",
                    lambda: set(TOLD.items()) <= told(),
                    pause=0.5,
                )
            finally:
                proxied.switch("normal")
            for client, push in under_way.items():
                assert push.result().returncode == 0, (client, push.result().stdout + push.result().stderr)
    finally:
        proxied.switch("normal")
        proxied.docker("image", "rm", images["docker"])
        podman.remove()
    for client, image in images.items():
        copied = proxied.skopeo("copy", f"docker://{image}", f"dir:{tmp_path / client}")
        assert copied.returncode == 0, copied.stderr


def push_while_away(site: ProxiedSite, *pushes: Callable[[], subprocess.CompletedProcess[str]]) -> None:
    """Stop the registry, push, and start it again: each push waits for that, and goes through."""
    stack = Stack(site.root, url=site.url)
    stack.stop()
    try:
        with ThreadPoolExecutor(len(pushes)) as executor:
            under_way = [executor.submit(push) for push in pushes]
            time.sleep(4)
            held = [not push.done() for push in under_way]
            stack.start()
            for push in under_way:
                assert push.result().returncode == 0, push.result().stdout + push.result().stderr
    finally:
        stack.start()
    assert all(held), held


def test_containerd_is_held(proxied: ProxiedSite, tmp_path: Path) -> None:
    """It never waits for a registry: one that answers 429 it asks five times at once, and 503 it takes for an end."""
    image = f"{proxied.address}/clients/containerd:1"
    hosts = tmp_path / "hosts" / proxied.address
    hosts.mkdir(parents=True)
    # As clients.yml writes it, but for the name, which leads nowhere here.
    (hosts / "hosts.toml").write_text(
        f'server = "https://{proxied.address}"\n[host."https://{proxied.address}"]\nskip_verify = true\n'
    )
    archive = tmp_path / "image.tar"
    assert proxied.docker("save", "-o", str(archive), BASE).returncode == 0
    namespace = f"dockyard-test-{proxied.port}"
    # Its own, or the one that the engine has started.
    sockets = ("/run/containerd/containerd.sock", "/run/docker/containerd/containerd.sock")
    address = next(path for path in sockets if Path(path).is_socket())

    def ctr(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ctr", "--address", address, "-n", namespace, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    login = f"admin:{proxied.password()}"
    try:
        imported = ctr("images", "import", str(archive))
        assert imported.returncode == 0, imported.stderr
        assert ctr("images", "tag", f"docker.io/{BASE}", image).returncode == 0
        push_while_away(
            proxied,
            lambda: ctr("images", "push", "--hosts-dir", str(hosts.parent), "--user", login, image),
        )
    finally:
        for name in ctr("images", "ls", "-q").stdout.split():
            ctr("images", "rm", name)
        ctr("namespaces", "rm", namespace)
    assert proxied.headers("/v2/clients/containerd/manifests/1")[0] == 200


def test_the_end_of_a_push_is_held(proxied: ProxiedSite, tmp_path: Path) -> None:
    """No client repeats the request that stores the manifest, whatever it is told."""
    assert proxied.login()
    images = [f"{proxied.address}/held:{tag}" for tag in ("1", "2", "3")]
    for image in images:
        assert proxied.docker("tag", BASE, image).returncode == 0
    assert proxied.docker("push", images[0]).returncode == 0
    pulled = f"dir:{tmp_path / 'image'}"
    assert proxied.skopeo("copy", f"docker://{images[0]}", pulled).returncode == 0
    try:
        push_while_away(
            proxied,
            lambda: proxied.docker("push", images[1]),
            lambda: proxied.skopeo("copy", pulled, f"docker://{images[2]}"),
        )
    finally:
        for image in images:
            proxied.docker("image", "rm", image)
    for tag in ("2", "3"):
        assert proxied.headers(f"/v2/held/manifests/{tag}")[0] == 200


@pytest.mark.parametrize("proxied", ["nginx"], indirect=True)
def test_restore_and_repair_behind_a_proxy(proxied: ProxiedSite) -> None:
    """The registry is stopped for both, and pulls of what is sound go on."""
    proxied.variables["registry_backup_dir"] = str(proxied.root.parent / "backups")
    load = load_on(proxied, pushers=0)
    load.leave_garbage(6, proxied.root / "data")
    names = load.verify()
    name = backup(proxied, "full")
    load_on(proxied).push("later", "1")
    with load:
        drill = proxied.play("restore", backup=name, verify="true").ok().result("restore | Restore it")
        assert drill["drill"]["tags"] >= names
        restored = proxied.play("restore", backup=name).ok().result("restore | Restore it")
        assert "later:1" in restored["difference"]["removed"]
    print(load.summary())
    assert load.failed_pulls == []
    assert load.pulls > 0
    assert load.verify() == names

    broken, *_rest = load.acknowledged.values()
    sound = load_on(proxied, pushers=0)
    sound.acknowledged = {name: image for name, image in load.acknowledged.items() if image is not broken}
    blob = Path(Storage(proxied.root / "data").blob_path(Digest.of(broken.blobs[1])))
    blob.write_bytes(b"damage")
    started = proxied.service("registry")["State"]["StartedAt"]
    with sound:
        proxied.play("check", repair="true").ok()
    print(sound.summary())
    assert proxied.service("registry")["State"]["StartedAt"] != started
    assert sound.failed_pulls == []
    assert sound.pulls > 0
    assert load.verify() == names
