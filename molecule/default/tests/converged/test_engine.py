# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine that the collection installed."""

from __future__ import annotations

from testinfra.host import Host


def test_runs_now_and_after_a_boot(host: Host) -> None:
    service = host.service("docker")
    assert service.is_running
    assert service.is_enabled


def test_compose_is_version_2(host: Host) -> None:
    assert host.check_output("docker compose version --short").lstrip("v").startswith("2.")


def test_its_configuration_is_as_the_operator_left_it(host: Host) -> None:
    # prepare.yml wrote it last, and then this mark.
    configuration, mark = host.file("/etc/docker/daemon.json"), host.file("/var/tmp/bare")
    assert configuration.content_string.startswith('{"insecure-registries"')
    assert configuration.mtime <= mark.mtime


def test_debian_12_takes_nothing_but_compose_from_the_next_suite(bookworm: Host) -> None:
    installed = bookworm.check_output("apt list --installed").splitlines()
    assert len(installed) > 100
    # Where a package is in both suites, both are named: "docker.io/oldstable,now 20.10…".
    foreign = [line for line in installed if line.partition("/")[2].split(",")[0] in ("trixie", "stable")]
    assert [line.partition("/")[0] for line in foreign] == ["docker-compose"]
