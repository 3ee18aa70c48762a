# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""site.yml brought the registry back after it had been taken away."""

from __future__ import annotations

from tests.support.hosts import DeployedRegistry, Engine


def test_images_pushed_before_are_there(engine: Engine, registry: DeployedRegistry, generated: str) -> None:
    assert engine.login(registry.address, generated, registry.generated_password(generated))
    engine.pull(f"{registry.address}/team/app:1")


def test_users_that_users_yml_added_are_there(registry: DeployedRegistry) -> None:
    assert registry.status("carol", "a password for carol") == 200
