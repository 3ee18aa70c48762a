# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Of contents/app, 1.0 was deleted by delete.yml and 1.1 by retention.yml. Everything else stays."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from tests.support.hosts import DeployedRegistry, Engine


@pytest.fixture
def login(host: Host, engine: Engine, registry: DeployedRegistry) -> None:
    password = host.check_output("cat /opt/registry/secrets/users/maintenance.password")
    assert engine.login(registry.address, "maintenance", password)


@pytest.mark.usefixtures("login")
def test_the_newest_is_kept(engine: Engine, registry: DeployedRegistry) -> None:
    assert engine.pull(f"{registry.address}/contents/app:1.2").startswith("sha256:")


@pytest.mark.usefixtures("login")
@pytest.mark.parametrize("tag", ["1.0", "1.1"])
def test_the_others_are_gone(host: Host, registry: DeployedRegistry, tag: str) -> None:
    pulled = host.run("docker pull %s", f"{registry.address}/contents/app:{tag}")
    assert pulled.failed
    assert "not found" in pulled.stderr or "manifest unknown" in pulled.stderr


@pytest.mark.usefixtures("login")
def test_other_repositories_are_as_they_were(engine: Engine, registry: DeployedRegistry) -> None:
    """carol pushed it in an earlier stage, and no policy is about it."""
    assert engine.pull(f"{registry.address}/carol/app:1").startswith("sha256:")
