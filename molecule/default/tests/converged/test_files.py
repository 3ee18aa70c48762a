# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may read what on the host."""

from __future__ import annotations

import stat

import pytest
from testinfra.host import Host

_GROUP = 65532


@pytest.mark.parametrize(
    ("path", "mode", "uid", "gid"),
    [
        ("", 0o755, 0, 0),
        ("/compose.yml", 0o640, 0, 0),
        ("/config", 0o750, 0, _GROUP),
        ("/config/config.yml", 0o640, 0, _GROUP),
        ("/auth", 0o750, 0, _GROUP),
        ("/auth/htpasswd", 0o640, 0, _GROUP),
        ("/data", 0o750, _GROUP, _GROUP),
        ("/secrets", 0o700, 0, 0),
        ("/secrets/users", 0o700, 0, 0),
    ],
)
def test_mode_and_owner(host: Host, path: str, mode: int, uid: int, gid: int) -> None:
    file = host.file(f"/opt/registry{path}")
    assert (oct(stat.S_IMODE(file.mode)), file.uid, file.gid) == (oct(mode), uid, gid)


def test_every_secret_is_for_root_only(host: Host, generated: str) -> None:
    found = host.check_output("find /opt/registry/secrets -type f -printf '%p %m %U:%G\\n'").splitlines()
    assert set(found) >= {
        "/opt/registry/secrets/http.secret 600 0:0",
        "/opt/registry/secrets/users/maintenance.password 600 0:0",
        f"/opt/registry/secrets/users/{generated}.password 600 0:0",
    }
    assert [line for line in found if not line.endswith(" 600 0:0")] == []


def test_given_passwords_are_kept_nowhere(bookworm: Host, given: tuple[str, str]) -> None:
    def files_with(text: str) -> list[str]:
        return bookworm.run(
            "grep --recursive --fixed-strings --files-with-matches --no-messages --devices=skip -- %s"
            " /etc /opt /root /run /tmp /var/log /var/tmp",
            text,
        ).stdout.splitlines()

    user, password = given
    assert "/opt/registry/auth/htpasswd" in files_with(user)
    assert files_with(password) == []


def test_passwords_are_hashed_with_bcrypt(host: Host, generated: str) -> None:
    lines = host.file("/opt/registry/auth/htpasswd").content_string.splitlines()
    users = dict(line.split(":", 1) for line in lines if line and not line.startswith("#"))
    assert {"maintenance", generated} <= set(users)
    assert [name for name, hashed in users.items() if not hashed.startswith("$2")] == []
