# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host went down and came up, with nobody there to start anything."""

from __future__ import annotations

from testinfra.host import Host

from tests.support.hosts import DeployedRegistry, Engine


def test_registry_is_back_with_its_users_and_images(
    host: Host, engine: Engine, registry: DeployedRegistry, generated: str
) -> None:
    assert host.file("/root/before-reboot").exists
    assert not host.file("/run/before-reboot").exists, "the host did not go down"
    registry.wait()
    password = registry.generated_password(generated)
    assert registry.status(generated, password) == 200
    assert engine.login(registry.address, generated, password)
    engine.pull(f"{registry.address}/team/app:1")
