# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Semantic versions (semver.org 2.0) as tags carry them, and which of many count as the newest.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

_NUMBER = r"0|[1-9]\d*"
_IDENTIFIER = rf"(?:{_NUMBER}|\d*[A-Za-z-][0-9A-Za-z-]*)"
# A tag cannot hold the + before build metadata; Helm and others write _ in its place.
_VERSION = re.compile(
    rf"v?({_NUMBER})\.({_NUMBER})\.({_NUMBER})"
    rf"(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?"
    r"(?:_[0-9A-Za-z._-]+)?",
    re.ASCII,
)

Core = tuple[int, int, int]
# Numbers come before words, fewer identifiers before more.
_Identifier = tuple[int, int, str]


class Version(NamedTuple):
    """Versions compare by precedence: 1.0.0-rc.1 < 1.0.0-rc.10 < 1.0.0 < 1.0.1. Build metadata is ignored."""

    core: Core
    is_release: bool
    prerelease: tuple[_Identifier, ...]


@cache
def parse(text: str) -> Version | None:
    """The version that a tag stands for, with or without a leading v; None where it is none (1.2, latest)."""
    match = _VERSION.fullmatch(text)
    if match is None:
        return None
    major, minor, patch, prerelease = match.groups()
    identifiers = prerelease.split(".") if prerelease else []
    return Version(
        (int(major), int(minor), int(patch)), not identifiers, tuple(map(_identifier, identifiers))
    )


def _identifier(text: str) -> _Identifier:
    return (0, int(text), "") if text.isdecimal() else (1, 0, text)


class Levels(NamedTuple):
    """How many to keep: majors, in each of them minors, in each of those patches. None is all."""

    major: int | None = None
    minor: int | None = None
    patch: int | None = None


class Newest:
    """Answers whether a version is among the newest of all that are counted, by levels."""

    def __init__(self, levels: Levels, counted: Iterable[Version]) -> None:
        self._levels = levels
        #: By the numbers before it ((), (major,), (major, minor)): the numbers at the next level.
        self._next: dict[tuple[int, ...], set[int]] = {}
        for version in counted:
            for depth in range(3):
                self._next.setdefault(version.core[:depth], set()).add(version.core[depth])
        self._least: dict[tuple[int, ...], int] = {}

    def has(self, version: Version) -> bool:
        """Also for one that was not counted: whether it would be if it were there beside the others."""
        return all(
            version.core[depth] >= self._cutoff(version.core[:depth], self._levels[depth])
            for depth in range(3)
        )

    def _cutoff(self, before: tuple[int, ...], keep: int | None) -> int:
        """The least number that is kept among those that follow these."""
        if keep is None:
            return 0
        if before not in self._least:
            numbers = sorted(self._next.get(before, ()), reverse=True)
            self._least[before] = numbers[keep - 1] if len(numbers) >= keep else 0
        return self._least[before]
