# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input gets a message that a person can act on, before anything changes."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.site import Site

USER = {"name": "alice", "password": "secret-of-alice"}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"registry_prot": 5001},
            "registry_prot: the role has no such variable. Did you mean registry_port?",
        ),
        ({"registry_port": 70000}, "70000 is not a TCP port"),
        (
            {"registry_port": "many"},
            "argument 'registry_port' is of type str and we were unable to convert to int",
        ),
        ({"registry_state": "there"}, "value of registry_state must be one of: present, absent, got: there"),
        ({"registry_root": "relative"}, "must be an absolute path"),
        ({"registry_root": "/opt/../etc/registry"}, "must be an absolute path"),
        ({"registry_root": "/etc"}, "belongs to the system"),
        ({"registry_bind": "192.0.2.1"}, "registry_allow_insecure: true"),
        ({"registry_bind": "0.0.0.0"}, "registry_allow_insecure: true"),
        ({"registry_bind": "localhost"}, "localhost is not an IP address"),
        ({"registry_uid": 0}, "must not run as root"),
        ({"registry_version": "latest"}, "latest is not a version of the registry"),
        ({"registry_image": "registry@sha256:abc"}, "is not a digest"),
        ({"registry_image_source": "archive"}, "registry_image_archive: name the file"),
        ({"registry_remove_data": True}, "only goes with registry_state: absent"),
        ({"registry_memory_limit": "much"}, "is not a size such as"),
        ({"registry_config": {"htpp": {}}}, "registry_config: htpp"),
        ({"registry_config": {"storage": {"delete": {"enabled": "yes"}}}}, "storage.delete.enabled"),
        ({"registry_config": {"storage": {"delete": {"enabled": "true"}}}}, "storage.delete.enabled"),
        ({"registry_config": {"redis": {"addrs": ["127.0.0.1:6379"]}}}, "redis.addrs"),
        ({"registry_users": [{"name": "a:b", "password": "x"}]}, "registry_users[0]"),
        ({"registry_users": [{"password": "x"}]}, "missing required arguments: name"),
        ({"registry_users": [USER, USER]}, "the same name as users[0]"),
        ({"registry_users": [{"name": "alice", "password": "x" * 73}]}, "72"),
        ({"registry_users": [{"name": "maintenance"}]}, "the collection keeps this name for itself"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_inputs(site: Site, variables: dict[str, Any], message: str) -> None:
    run = site.play(**variables).failed()
    assert message in run.message
    assert "secret-of-alice" not in run.output
    assert run.changed == []
    assert not site.root.exists()


def test_every_problem_is_listed(site: Site) -> None:
    message = site.play(registry_port=0, registry_uid=0, registry_version="x").failed().message
    assert len(message.splitlines()) == 3


def test_a_port_in_use(site: Site) -> None:
    with socket.create_server(("127.0.0.1", site.port)):
        run = site.play().failed()
    assert f"port {site.port} on 127.0.0.1 is in use by process" in run.message
    assert "choose another registry_port" in run.message
    assert not site.root.exists()


def test_a_port_in_use_by_a_container(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = Site(tmp_path_factory.mktemp("other"))
    try:
        other.play().ok()
        run = site.play(registry_port=other.port).failed()
        assert f"in use by container {other.project}-registry-1" in run.message
    finally:
        other.remove()


def test_a_full_disk(site: Site) -> None:
    site.root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(site.root)], check=True)
    try:
        run = site.play(registry_minimum_free_mib=1024).failed()
        assert "only 3 MiB are free" in run.message
        assert list(site.root.iterdir()) == []
    finally:
        subprocess.run(["umount", str(site.root)], check=True)


def test_a_disk_that_fills_while_it_runs(site: Site) -> None:
    """The data folder takes the configuration but no push: the check after the start says so."""
    data = site.root / "data"
    data.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k,uid=65532,gid=65532", "tmpfs", str(data)], check=True
    )
    try:
        ballast = data / "docker" / "ballast"
        ballast.parent.mkdir()
        os.chown(ballast.parent, 65532, 65532)
        subprocess.run(["dd", "if=/dev/zero", f"of={ballast}"], check=False, capture_output=True)
        run = site.play().failed()
        assert "no space left on device" in run.message
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=16m", str(data)], check=True)
        site.play().ok()
    finally:
        site.remove()
        subprocess.run(["umount", str(data)], check=True)


def test_an_engine_that_does_not_answer(site: Site, tmp_path: Path) -> None:
    run = site.play(
        environment={"DOCKER_HOST": f"unix://{tmp_path}/nobody.sock"}, registry_manage_docker=False
    ).failed()
    assert "the Docker Engine does not answer" in run.message
    assert "nobody.sock" in run.message
    assert "registry_manage_docker" in run.message
    assert not site.root.exists()


def test_a_malformed_users_file_is_left_alone(site: Site) -> None:
    site.play().ok()
    file = site.root / "auth" / "htpasswd"
    damaged = file.read_bytes() + b"bob\n"
    file.write_bytes(damaged)
    run = site.play(registry_users=[{"name": "admin"}, USER], registry_secure_logging=False).failed()
    assert "line 3" in run.message
    assert file.read_bytes() == damaged


def test_users_of_a_registry_that_is_not_there(site: Site) -> None:
    run = site.play("users", user="alice").failed()
    assert f"there is no registry in {site.root}" in run.message
    assert not site.root.exists()
