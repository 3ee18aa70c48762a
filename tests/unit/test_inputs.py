# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role says about its inputs."""

from __future__ import annotations

from ansible_collections.dockyard.registry.plugins.module_utils import _inputs


def test_unknown_names_get_the_most_similar_one() -> None:
    known = ["registry_port", "registry_root", "registry_bind"]
    assert _inputs.unknown_names(["registry_port", "registry_prot", "registry_rot"], known) == [
        "registry_prot: the role has no such variable. Did you mean registry_port?",
        "registry_rot: the role has no such variable. Did you mean registry_root?",
    ]
    assert _inputs.unknown_names(["registry_something_else_entirely"], known) == [
        "registry_something_else_entirely: the role has no such variable."
        " Remove it, or see the role's defaults."
    ]
    assert _inputs.unknown_names(known, known) == []


def test_users_that_cannot_be() -> None:
    problems = _inputs.user_problems(
        [{"name": "maintenance"}, {"name": "a:b"}, {"name": "alice", "password": "x" * 73}],
        reserved=["maintenance"],
    )
    assert len(problems) == 2
    assert problems[0].startswith("users[0] (maintenance)")
    assert "users[1]" in problems[1]
    assert "users[2] (alice)" in problems[1]
    assert "x" * 10 not in problems[1]
    assert _inputs.user_problems([{"name": "alice", "password": "fine"}, {"name": "ci"}]) == []


def test_users_are_completed() -> None:
    given = [
        {"name": "alice", "password": "chosen"},
        {"name": "bob", "password": "chosen", "cost": 12},
        {"name": "team/ci"},
        {"name": "kept", "password_file": "/elsewhere", "permissions": ["pull"], "repositories": ["a/*"]},
    ]
    assert _inputs.complete_users(given, "/secrets", 10) == [
        {"name": "alice", "password": "chosen", "cost": 10},
        {"name": "bob", "password": "chosen", "cost": 12},
        {"name": "team/ci", "password_file": "/secrets/team%2Fci.password"},
        {"name": "kept", "password_file": "/elsewhere"},
    ]
    assert given[0] == {"name": "alice", "password": "chosen"}, "the input is left as it is"
