# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stages of this scenario share. A test that takes testinfra's `host` runs once on each of the two.

The registry of `bookworm` is published on the host's address, for both hosts; that of `trixie` on loopback.
"""

from __future__ import annotations

import pytest
import testinfra
from testinfra.host import Host

from tests.support.hosts import DeployedRegistry, Engine


@pytest.fixture(scope="session")
def bookworm() -> Host:
    return testinfra.get_host("docker://dockyard-bookworm")


@pytest.fixture(scope="session")
def trixie() -> Host:
    return testinfra.get_host("docker://dockyard-trixie")


def _is_open(host: Host) -> bool:
    return host.check_output("hostname") == "dockyard-bookworm"


def _own_address(host: Host) -> str:
    return host.check_output("hostname --ip-address").split()[0]


@pytest.fixture(scope="session")
def open_registry(bookworm: Host) -> DeployedRegistry:
    """The registry that both hosts reach."""
    return DeployedRegistry(bookworm, f"{_own_address(bookworm)}:5000")


@pytest.fixture
def registry(host: Host, open_registry: DeployedRegistry) -> DeployedRegistry:
    """The registry of the host under test."""
    return open_registry if _is_open(host) else DeployedRegistry(host, "127.0.0.1:5000")


@pytest.fixture
def published(host: Host) -> set[str]:
    """Addresses with port, beyond loopback, that the host under test should listen on."""
    return {f"{_own_address(host)}:5000"} if _is_open(host) else set()


@pytest.fixture
def generated(host: Host) -> str:
    """The user of this host whose password the collection made."""
    return "ci" if _is_open(host) else "admin"


@pytest.fixture
def given() -> tuple[str, str]:
    """A user of the open registry and the password that molecule.yml gives."""
    return "alice", "correct horse battery staple"


@pytest.fixture
def engine(host: Host) -> Engine:
    return Engine(host)
