# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""users.yml: add, change, remove; in effect at once, without a restart."""

from __future__ import annotations

from tests.support.site import Run, Site


def summary(run: Run) -> dict[str, object]:
    said = run.ok().result("users | Say what was done")["msg"]
    assert isinstance(said, dict)
    return said


def test_one_user(deployed: Site) -> None:
    started = deployed.container()["State"]["StartedAt"]

    foreseen = deployed.play("users", check=True, diff=True, user="alice").ok()
    assert foreseen.changed == ["htpasswd | Write the users file"]
    assert "alice" not in (deployed.root / "auth" / "htpasswd").read_text(encoding="utf-8")

    said = summary(deployed.play("users", user="alice"))
    assert said["added"] == ["alice"]
    password = said["generated passwords, shown this once"]["alice"]  # type: ignore[index]
    assert deployed.login("alice", password)

    again = deployed.play("users", user="alice").ok()
    assert again.changed == []
    assert password not in again.output, "shown once only"

    reset = summary(deployed.play("users", user="alice", reset=True))
    fresh = reset["generated passwords, shown this once"]["alice"]  # type: ignore[index]
    assert not deployed.login("alice", password)
    assert deployed.login("alice", fresh)

    assert summary(deployed.play("users", user="alice", password="chosen-by-alice"))["updated"] == ["alice"]
    assert deployed.login("alice", "chosen-by-alice")
    assert deployed.play("users", user="alice", password="chosen-by-alice").ok().changed == []

    assert summary(deployed.play("users", user="alice", state="absent"))["removed"] == ["alice"]
    assert not deployed.login("alice", "chosen-by-alice")
    assert deployed.play("users", user="alice", state="absent").ok().changed == []

    assert deployed.container()["State"]["StartedAt"] == started


def test_all_users(deployed: Site) -> None:
    bob = {"name": "bob", "password": "secret-of-bob", "cost": 4}
    users = [{"name": "admin"}, {"name": "ci"}, bob]
    said = summary(deployed.play("users", registry_users=users))
    assert said["added"] == ["ci", "bob"]
    assert deployed.login("ci"), "its password is kept on the host"
    assert deployed.login("bob", "secret-of-bob")
    assert deployed.play("users", registry_users=users).ok().changed == []

    deployed.play("users", user="stranger", password="secret-of-stranger").ok()
    assert deployed.play("users", registry_users=users).ok().changed == [], "not exclusive: strangers stay"
    gone = summary(deployed.play("users", registry_users=users, registry_users_exclusive=True))
    assert gone["removed"] == ["stranger"]
    assert not deployed.login("stranger", "secret-of-stranger")

    back = [{"name": "admin"}, {"name": "ci", "state": "absent"}, {"name": "bob", "state": "absent"}]
    assert summary(deployed.play("users", registry_users=back))["removed"] == ["ci", "bob"]
    assert summary(deployed.play("users", registry_users=back))["users"] == ["maintenance", "admin"]


def test_a_password_is_not_printed(deployed: Site) -> None:
    run = deployed.play(
        "users", user="carol", password="secret-of-carol", arguments=("-vvv",), diff=True
    ).ok()
    # Ansible itself echoes extra variables nowhere; tasks and differences must not either.
    assert "secret-of-carol" not in run.output
    assert "$2y$" not in run.output
    deployed.play("users", user="carol", state="absent").ok()
