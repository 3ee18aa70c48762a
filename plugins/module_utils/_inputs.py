# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role says about its inputs before it touches a host.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from . import _permissions, _users
from ._errors import RegistryError


def unknown_names(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """A message for each name that is not known, with the known name that is most like it."""
    candidates = sorted(known)
    messages = []
    for name in sorted(set(names) - set(candidates)):
        similar = difflib.get_close_matches(name, candidates)
        # Two letters the wrong way round are the commonest slip.
        similar.sort(key=lambda candidate: sorted(candidate) != sorted(name))
        hint = f"Did you mean {similar[0]}?" if similar else "Remove it, or see the role's defaults."
        messages.append(f"{name}: the role has no such variable. {hint}")
    return messages


def user_problems(entries: Sequence[Mapping[str, Any]], *, reserved: Iterable[str] = ()) -> list[str]:
    """What is wrong with a list of users. `reserved` names are not for people to use."""
    taken = set(reserved)
    problems = [
        f"users[{index}] ({entry['name']}): the collection keeps this name for itself; choose another"
        for index, entry in enumerate(entries)
        if entry.get("name") in taken
    ]
    try:
        _users.read_users(entries, listed=True)
    except RegistryError as error:
        problems.append(str(error))
    return problems


def complete_users(entries: Iterable[Mapping[str, Any]], folder: str, cost: int) -> list[dict[str, Any]]:
    """Users as module htpasswd_user takes them: a bcrypt cost for passwords that people chose, and for users
    without one a file below `folder` that keeps a generated password."""
    completed = []
    for entry in entries:
        # What they may do, the gate asks for: the users file only says who they are.
        user = {key: value for key, value in entry.items() if key not in _permissions.KEYS}
        if user.get("password"):
            user.setdefault("cost", cost)
        elif not user.get("password_file"):
            user["password_file"] = password_file(folder, str(user.get("name", "")))
        completed.append(user)
    return completed


def password_file(folder: str, name: str) -> str:
    """Where a user's generated password is kept. Names may hold slashes, file names may not."""
    return f"{folder}/{quote(name, safe='')}.password"
