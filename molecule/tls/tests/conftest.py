# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stages of this scenario share. A test that takes testinfra's `host` runs once on each of the two.

`host` is the client, and its `peer` the registry that it was set up for. That one runs on the other host.
"""

from __future__ import annotations

import pytest
import testinfra
from testinfra.host import Host

from tests.support.hosts import Engine, TlsRegistry

NAMES = {"dockyard-bookworm": "bookworm.registry.test", "dockyard-trixie": "trixie.registry.test"}


@pytest.fixture
def own(host: Host) -> TlsRegistry:
    """The registry that runs on the host under test."""
    return TlsRegistry(host, NAMES[host.check_output("hostname")])


@pytest.fixture
def peer(host: Host) -> TlsRegistry:
    """The registry on the other host, which this one is a client of."""
    (other,) = set(NAMES) - {host.check_output("hostname")}
    return TlsRegistry(testinfra.get_host(f"docker://{other}"), NAMES[other])


@pytest.fixture
def engine(host: Host) -> Engine:
    return Engine(host)
