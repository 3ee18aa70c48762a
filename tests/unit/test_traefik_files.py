# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Traefik's files as the role writes them: whole, consistent, and taken by Traefik itself where there is one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.modules import CHECKOUT
from tests.support.registry import free_port
from tests.support.tls import make_certificates
from tests.support.traefik import needs_traefik_binary, traefik_binary

ROLE = CHECKOUT / "roles" / "registry"
EXTRA = (
    "http:\n"
    "  routers:\n"
    "    hello: {entryPoints: [websecure], rule: Path(`/hello`), middlewares: [mode], service: gate, tls: {}}\n"
)
VARIANTS: dict[str, dict[str, Any]] = {
    "selfsigned": {"registry_tls": "selfsigned"},
    "files": {"registry_tls": "files", "registry_https_port": 8443},
    "acme": {"registry_tls": "acme", "registry_acme_email": "ops@example.org"},
    "acme of one's own": {"registry_tls": "acme", "registry_acme_ca_file": "/ca.crt"},
    "more": {"registry_tls": "selfsigned", "registry_proxy_config_extra": EXTRA},
}
PLAY = [
    {
        "hosts": "all",
        "gather_facts": False,
        "vars": {"role_path": str(ROLE)},
        "tasks": [
            {"ansible.builtin.include_vars": {"file": f"{ROLE}/defaults/main.yml"}},
            {"ansible.builtin.include_vars": {"file": f"{ROLE}/vars/main.yml"}},
            {"ansible.builtin.include_vars": {"file": "{{ folder }}/variables.json"}},
            {
                "ansible.builtin.template": {
                    "src": f"{ROLE}/templates/proxy/traefik/{{{{ item }}}}.j2",
                    "dest": "{{ folder }}/{{ item }}",
                    "mode": "0644",
                },
                "loop": "{{ __registry_proxy_files.traefik }}",
            },
        ],
    }
]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each variant, by one run: each is a host."""
    base = tmp_path_factory.mktemp("traefik")
    for name, variables in VARIANTS.items():
        (base / name).mkdir()
        own = {"registry_proxy": "traefik", "registry_hostname": "registry.test", **variables}
        (base / name / "variables.json").write_text(json.dumps(own), encoding="utf-8")
    common = {"ansible_python_interpreter": sys.executable, "ansible_connection": "local"}
    hosts = {name: {**common, "folder": str(base / name)} for name in VARIANTS}
    (base / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}), encoding="utf-8")
    (base / "play.yml").write_text(json.dumps(PLAY), encoding="utf-8")
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible-playbook"),
            *("-i", str(base / "hosts.json"), str(base / "play.yml")),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".ansible" / "collections")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return base


@pytest.fixture(params=VARIANTS)
def folder(request: pytest.FixtureRequest, rendered: Path) -> Path:
    """The files of one variant."""
    found: Path = rendered / request.param
    return found


def read(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / name).read_text(encoding="utf-8"))
    return found


def both(folder: Path, mode: str) -> dict[str, dict[str, Any]]:
    """Routers, middlewares and services as Traefik puts them together."""
    parts = [read(folder, name)["http"] for name in ("dynamic.yml", f"{mode}.yml")]
    kinds = ("routers", "middlewares", "services", "serversTransports")
    return {kind: {name: one for part in parts for name, one in part.get(kind, {}).items()} for kind in kinds}


@pytest.mark.parametrize("mode", ["normal", "maintenance"])
def test_what_is_named_is_there(folder: Path, mode: str) -> None:
    static, http = read(folder, "traefik.yml"), both(folder, mode)
    resolvers = static.get("certificatesResolvers", {})
    for name, router in http["routers"].items():
        assert set(router["entryPoints"]) <= set(static["entryPoints"]), name
        assert set(router.get("middlewares", [])) <= set(http["middlewares"]), name
        assert router["service"] in http["services"], name
        # A router without `tls` answers plain HTTP there.
        assert ("tls" in router) is ("websecure" in router["entryPoints"]), name
        resolver = router.get("tls", {}).get("certResolver")
        assert resolver is None or resolver in resolvers, name
    for name, service in http["services"].items():
        assert service["loadBalancer"]["serversTransport"] in http["serversTransports"], name
        for server in service["loadBalancer"]["servers"]:
            assert server["url"].startswith("http://127.0.0.1:"), name
    assert http["middlewares"]["mode"]["replacePath"]["path"] == f"/mode/{mode}"


@pytest.mark.parametrize("mode", ["normal", "maintenance"])
def test_nothing_of_the_registry_goes_around_the_gate(folder: Path, mode: str) -> None:
    http = both(folder, mode)
    assert http["middlewares"]["gate"]["forwardAuth"]["trustForwardHeader"] is False
    for name, router in http["routers"].items():
        if router["service"] in ("pulls", "writer") and "/v2/" in router["rule"]:
            assert {"gate", "closed"} & set(router["middlewares"]), name
        elif router["service"] == "pulls":
            assert {"root", "redirect"} & set(router["middlewares"]), name
    for name in ("writes", "manifests"):
        assert (name in http["routers"]) is (mode == "maintenance")
    held = http["routers"].get("manifests", {"middlewares": ["hold", "gate"]})["middlewares"]
    assert held.index("hold") < held.index("gate")
    # The client's own must not reach the gate, or it holds whatever a client likes.
    assert http["middlewares"]["question"]["headers"]["customRequestHeaders"]["X-Hold"] == ""
    assert "question" not in held or held.index("question") < held.index("hold")


def test_the_log_keeps_no_secret(folder: Path) -> None:
    fields = read(folder, "traefik.yml")["accessLog"]["fields"]
    assert fields["defaultMode"] == fields["headers"]["defaultMode"] == "drop"
    assert fields["queryParameters"] == {"defaultMode": "drop"}
    assert set(fields["headers"]["names"]) == {"User-Agent"}


def test_an_upload_may_take_its_time(folder: Path) -> None:
    points = read(folder, "traefik.yml")["entryPoints"]
    for name in ("web", "websecure"):
        assert points[name]["transport"]["respondingTimeouts"]["readTimeout"] == "24h"
        assert points[name]["http"]["sanitizePath"] is False, "the gate judges what the client sent"
    assert points["inside"]["address"].startswith("127.0.0.1:")


@needs_traefik_binary
@pytest.mark.parametrize("mode", ["normal", "maintenance"])
def test_traefik_takes_them(folder: Path, mode: str, tmp_path: Path) -> None:
    """By the role's own `check`, moved out of the container's folders."""
    folder = Path(shutil.copytree(folder, tmp_path / "files"))
    (folder / "switch.yml").symlink_to(f"{mode}.yml")
    (folder / "bin").mkdir()
    (folder / "bin" / "traefik").symlink_to(traefik_binary())
    files = make_certificates(folder / "bin", "registry.test")
    script = (folder / "check").read_text(encoding="utf-8").replace(":8082", f":{free_port()}")
    script = script.replace("/tmp/check", str(folder / "checked")).replace("/proxy/", f"{folder}/")

    def check(text: str) -> subprocess.CompletedProcess[str]:
        text = text.replace("/certs/server.crt", str(files.certificate))
        (folder / "candidate").write_text(text.replace("/certs/server.key", str(files.key)), encoding="utf-8")
        return subprocess.run(
            ["/bin/sh", "-c", script, "check", str(folder / "candidate")],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"},
        )

    good = (folder / "dynamic.yml").read_text(encoding="utf-8")
    taken = check(good)
    assert taken.returncode == 0, taken.stderr
    if mode == "maintenance" or "hello" not in good:
        return  # once is enough for what it refuses
    for right, wrong, message in (
        ("trustForwardHeader", "trustForwardHeadr", "field not found, node: trustForwardHeadr"),
        ("- limit", "- nolimit", "does not exist"),
        ("Path(`/switch`)", "Pth(`/switch`)", "error while parsing rule"),
    ):
        refused = check(good.replace(right, wrong))
        assert refused.returncode == 1
        assert message in refused.stderr
