# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode ran on a machine that has nothing yet, and must have left it alone."""

from __future__ import annotations

from testinfra.host import Host

# What the connection itself and a running system write.
_NOT_OURS = ("/root/.ansible/", "/var/lib/systemd/", "/var/log/journal/")


def test_check_mode_changed_no_file(host: Host) -> None:
    changed = host.check_output(
        "find / -xdev -path /proc -prune -o -cnewer /var/tmp/bare -not -type d -print"
    ).splitlines()
    assert [path for path in changed if not path.startswith(_NOT_OURS)] == []


def test_the_host_is_still_bare(host: Host) -> None:
    assert not host.exists("docker")
    assert not host.file("/opt/registry").exists
