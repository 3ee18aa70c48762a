# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may do what: rights of users on repositories, as the gate in front of the registry enforces them.

The role writes a policy with build_document(), the gate reads it with Policy.of():

    {"format": 1,
     "users": {"alice": {"permissions": ["pull", "push"], "repositories": ["team/**"]}},
     "default": {"permissions": [], "repositories": ["**"]},
     "anonymous": ["public/**"]}

`default` is for users of the users file that `users` does not name; `anonymous` is what may be pulled by anybody.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ._errors import RegistryError
from ._patterns import REPOSITORY, InvalidPattern, Pattern, matches_any
from ._request import DELETE, LOOK, PULL, PUSH, Need, Request

PERMISSIONS = (PULL, PUSH, DELETE)
EVERYTHING = ["**"]
FORMAT = 1

#: What the gate needs to know about a user; the users file does not.
KEYS = ("permissions", "repositories")


class InvalidPolicy(RegistryError):
    """A policy that the gate cannot read."""


class Grant(NamedTuple):
    """Rights on the repositories that match one of the patterns."""

    permissions: frozenset[str]
    repositories: tuple[Pattern, ...]

    @classmethod
    def of(cls, data: Any) -> Grant:
        """Raises InvalidPolicy."""
        permissions, repositories = data["permissions"], data["repositories"]
        problems = [*_problems_of_permissions(permissions), *_problems_of_repositories(repositories)]
        if problems:
            raise InvalidPolicy("; ".join(problems))
        return cls(frozenset(permissions), tuple(Pattern.of(text, REPOSITORY) for text in repositories))

    def allows(self, need: Need) -> bool:
        if self.permissions.isdisjoint({PULL, PUSH} if need.permission == LOOK else {need.permission}):
            return False
        if need.repository is None:
            return any(pattern.is_everything(REPOSITORY) for pattern in self.repositories)
        return matches_any(self.repositories, need.repository)


class Policy(NamedTuple):
    users: Mapping[str, Grant]
    default: Grant
    anonymous: Grant

    @classmethod
    def of(cls, document: Any) -> Policy:
        """Read what build_document() made. Raises InvalidPolicy: a policy that is not understood allows nothing."""
        try:
            if document["format"] != FORMAT:
                raise InvalidPolicy(f"policy: format {document['format']!r} is not {FORMAT}")
            return cls(
                {name: Grant.of(grant) for name, grant in document["users"].items()},
                Grant.of(document["default"]),
                Grant.of({"permissions": [PULL], "repositories": document["anonymous"]}),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidPolicy(f"policy: not of the shape that the role writes ({error!r})") from None

    def allows(self, user: str | None, request: Request) -> bool:
        """Whether this user (None: anybody) may make the request."""
        if user is None:
            return request.open or (bool(request.needs) and all(map(self.anonymous.allows, request.needs)))
        grant = self.users.get(user, self.default)
        return request.open or all(map(grant.allows, request.needs))


def build_document(
    entries: Sequence[Mapping[str, Any]],
    *,
    anonymous_pull: Any = False,
    default: Sequence[str] | None = None,
    superuser: str | None = None,
) -> dict[str, Any]:
    """The policy for users as in `registry_users`.

    An entry without `permissions` has all, one without `repositories` has them everywhere. `default` are the
    permissions of users that no entry names. None: all of them as long as no entry is limited; none from then
    on, so that an entry that is taken out of the inventory never gives a user more than it had.
    """
    anonymous_pull = _truth(anonymous_pull)
    absent = {entry["name"] for entry in entries if entry.get("state") == "absent"}
    present = [entry for entry in entries if entry["name"] not in absent]
    if default is None:
        default = [] if any(is_limited(entry) for entry in present) else PERMISSIONS
    # Until the users file is written, those that go have what is written here.
    users = {name: _grant({"permissions": []}) for name in absent}
    users.update((entry["name"], _grant(entry)) for entry in present)
    if superuser is not None:
        users[superuser] = _grant({})
    anonymous = EVERYTHING if anonymous_pull is True else list(anonymous_pull or [])
    return {
        "format": FORMAT,
        "users": dict(sorted(users.items())),
        "default": _grant({"permissions": list(default)}),
        "anonymous": anonymous,
    }


def is_limited(entry: Mapping[str, Any]) -> bool:
    """Whether a user may do less than everything, which takes the gate to enforce."""
    grant = _grant(entry)
    return set(grant["permissions"]) != set(PERMISSIONS) or "**" not in grant["repositories"]


def find_problems(
    entries: Iterable[Mapping[str, Any]],
    *,
    anonymous_pull: Any = False,
    default: Any = None,
    enforced: bool = True,
) -> list[str]:
    """What is wrong with rights as people wrote them. `enforced`: whether a gate stands before the registry."""
    entries, anonymous_pull = list(entries), _truth(anonymous_pull)
    problems = [
        f"users[{index}] ({entry.get('name')}): {problem}"
        for index, entry in enumerate(entries)
        for problem in problems_of_user(entry)
    ]
    if anonymous_pull not in (True, False):
        problems += [f"anonymous_pull: {problem}" for problem in _problems_of_repositories(anonymous_pull)]
    if default is not None:
        problems += [f"default_permissions: {problem}" for problem in _problems_of_permissions(default)]
    if not problems and not enforced:
        problems += _unenforced(entries, anonymous_pull, default)
    return problems


def problems_of_user(entry: Mapping[str, Any]) -> list[str]:
    """What is wrong with the rights of one user."""
    problems = []
    permissions, repositories = entry.get("permissions"), entry.get("repositories")
    if permissions is not None:
        problems += _problems_of_permissions(permissions)
    if permissions == []:
        problems.append(
            "permissions is empty, which is a user that may do nothing: "
            "give at least one of pull, push, delete, or take the user away with state: absent"
        )
    if repositories is not None:
        problems += _problems_of_repositories(repositories)
    if repositories == []:
        problems.append("repositories is empty, which matches none: name some, or leave the key out for all")
    return problems


def _unenforced(entries: Sequence[Mapping[str, Any]], anonymous_pull: Any, default: Any) -> list[str]:
    """The registry itself knows users, not rights: whoever it lets in may do everything."""
    remedy = "needs registry_proxy (nginx, caddy or traefik): the registry itself cannot limit anybody"
    problems = [
        f"users[{index}] ({entry['name']}): a user with limits {remedy}"
        for index, entry in enumerate(entries)
        if is_limited(entry)
    ]
    if anonymous_pull:
        problems.append(
            "anonymous_pull: needs registry_proxy: the registry itself asks everybody for a password"
        )
    if default is not None and set(default) != set(PERMISSIONS):
        problems.append(f"default_permissions: {remedy}")
    return problems


def _grant(entry: Mapping[str, Any]) -> dict[str, list[str]]:
    permissions = entry.get("permissions")
    repositories = entry.get("repositories")
    return {
        "permissions": [
            name for name in PERMISSIONS if name in (PERMISSIONS if permissions is None else permissions)
        ],
        "repositories": list(EVERYTHING if repositories is None else repositories),
    }


def _problems_of_permissions(permissions: Any) -> list[str]:
    if not _is_list_of_text(permissions):
        return ["permissions must be a list of pull, push, delete"]
    return [
        f"{name!r} is no permission; there are {', '.join(PERMISSIONS)}{_meant(name)}"
        for name in permissions
        if name not in PERMISSIONS
    ]


def _problems_of_repositories(patterns: Any) -> list[str]:
    if not _is_list_of_text(patterns):
        return ["the repositories must be a list of patterns"]
    problems = []
    for text in patterns:
        try:
            Pattern.of(text, REPOSITORY)
        except InvalidPattern as error:
            problems.append(f"no pattern for repositories: {error}")
    return problems


def _truth(value: Any) -> Any:
    """A boolean from the command line is a string."""
    words = {
        "true": True,
        "yes": True,
        "on": True,
        "1": True,
        "false": False,
        "no": False,
        "off": False,
        "0": False,
    }
    return words.get(value.lower(), value) if isinstance(value, str) else value


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


def _meant(name: str) -> str:
    aliases = {"read": PULL, "write": PUSH, "admin": DELETE, "remove": DELETE}
    similar = difflib.get_close_matches(name.lower(), PERMISSIONS)
    meant = similar[0] if similar else aliases.get(name.lower())
    return f". Did you mean {meant}?" if meant else ""
