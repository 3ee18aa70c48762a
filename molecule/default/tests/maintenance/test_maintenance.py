# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Garbage was collected on both hosts; then one got all that the other has, from a backup."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from tests.support.hosts import DeployedRegistry, Engine


@pytest.mark.parametrize("image", ["team/app:1", "carol/app:1", "contents/app:1.2", "only/here:1"])
def test_everything_can_be_pulled(host: Host, engine: Engine, registry: DeployedRegistry, image: str) -> None:
    password = host.check_output("cat /opt/registry/secrets/users/maintenance.password")
    assert engine.login(registry.address, "maintenance", password)
    assert engine.pull(f"{registry.address}/{image}").startswith("sha256:")


def test_nothing_is_left_half_done(host: Host) -> None:
    assert host.run("ls /opt/registry/maintenance/*.json").failed
    assert host.check_output("ls -A /run/dockyard.registry/jobs") == ""


def test_backups_are_for_root_only(host: Host) -> None:
    folder = host.file("/var/backups/registry")
    assert (folder.user, folder.mode) == ("root", 0o700)
    for name in host.check_output("ls /var/backups/registry").split():
        assert host.file(f"/var/backups/registry/{name}").mode == 0o600
