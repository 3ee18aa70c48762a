# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is reachable from where."""

from __future__ import annotations

from testinfra.host import Host

from tests.support.hosts import DeployedRegistry


def test_nothing_listens_beyond_loopback_that_was_not_asked_for(host: Host, published: set[str]) -> None:
    listening = [
        line.split()[3]
        for line in host.check_output("ss --no-header --listening --tcp --numeric").splitlines()
    ]
    assert listening
    assert {address for address in listening if not address.startswith(("127.", "[::1]"))} == published


def test_defaults_cannot_be_reached_from_the_other_host(bookworm: Host, trixie: Host) -> None:
    address = trixie.check_output("hostname --ip-address").split()[0]
    assert DeployedRegistry(trixie, f"{address}:5000").status(seen_from=bookworm) == 0
