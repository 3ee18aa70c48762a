# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container is closed, as its engine and as the kernel see it."""

from __future__ import annotations

import json

from testinfra.host import Host

from tests.support.hosts import DeployedRegistry

_UID = 65532


def test_kernel_sees_an_unprivileged_process(host: Host, registry: DeployedRegistry) -> None:
    pid = registry.container()["State"]["Pid"]
    lines = host.file(f"/proc/{pid}/status").content_string.splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)

    assert status["Uid"].split() == [str(_UID)] * 4
    assert status["Gid"].split() == [str(_UID)] * 4
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


def test_root_file_system_cannot_be_written(host: Host, registry: DeployedRegistry) -> None:
    container = registry.container()
    assert container["HostConfig"]["ReadonlyRootfs"]
    write = host.run("docker exec --user 0 %s sh -c '>/probe'", container["Id"])
    assert write.failed
    assert "Read-only file system" in write.stderr


def test_only_its_data_can_be_written(registry: DeployedRegistry) -> None:
    assert {mount["Destination"]: mount["RW"] for mount in registry.container()["Mounts"]} == {
        "/etc/registry": False,
        "/auth": False,
        "/var/lib/registry": True,
    }


def test_memory_processes_and_log_are_limited(registry: DeployedRegistry) -> None:
    settings = registry.container()["HostConfig"]
    assert settings["Memory"] == 1024**3
    assert settings["PidsLimit"] == 512
    assert settings["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}


def test_is_healthy_and_comes_back_by_itself(registry: DeployedRegistry) -> None:
    container = registry.container()
    assert container["State"]["Health"]["Status"] == "healthy"
    assert container["HostConfig"]["RestartPolicy"]["Name"] == "always"


def test_gets_longer_to_stop_than_it_takes_to_drain(registry: DeployedRegistry) -> None:
    assert registry.container()["Config"]["StopTimeout"] > 60


def test_environment_holds_no_secret(host: Host, registry: DeployedRegistry) -> None:
    secret = host.file("/opt/registry/secrets/http.secret").content_string.strip()
    assert secret
    assert secret not in json.dumps(registry.container())
