# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Patterns for the names of repositories and tags: globs, and regular expressions behind `regex:`.

    Pattern.of("ci/**", REPOSITORY).matches("ci/app/web")
    Pattern.of(r"regex:^pr-\\d+$", TAG).matches("pr-17")

A pattern always covers the whole name. One that could match no name is refused: where patterns protect, a
slip would silently protect nothing.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ._errors import RegistryError

_REGEX = "regex:"
_CLASS = re.compile(r"\[(!?)([A-Za-z0-9._-]+)\]")


class InvalidPattern(RegistryError):
    """No pattern, or one that matches no name; the message says why and what to write."""


class Kind(NamedTuple):
    """What the names are that a pattern is for."""

    name: str
    #: Characters that such names consist of, as in a regular expression's class.
    characters: str
    #: A name begins with one of these.
    first: str


REPOSITORY = Kind("repository", "a-z0-9._/-", "a-z0-9")
TAG = Kind("tag", "A-Za-z0-9._-", "A-Za-z0-9_")


class Pattern(NamedTuple):
    text: str
    expression: re.Pattern[str]

    @classmethod
    def of(cls, text: str, kind: Kind) -> Pattern:
        """Parse a pattern. Raises InvalidPattern."""
        if text.startswith(_REGEX):
            return cls(text, _regex(text[len(_REGEX) :]))
        return cls(text, _glob(text, kind))

    def matches(self, name: str) -> bool:
        return self.expression.fullmatch(name) is not None

    def is_everything(self, kind: Kind) -> bool:
        return self.text == "**" or (kind is TAG and self.text == "*")


def matches_any(patterns: Iterable[Pattern], name: str) -> bool:
    return any(pattern.matches(name) for pattern in patterns)


def is_pattern(text: str) -> bool:
    """Whether it stands for any number of names, rather than being one."""
    return text.startswith(_REGEX) or any(wild in text for wild in "*?[")


def _regex(text: str) -> re.Pattern[str]:
    try:
        expression = re.compile(text)
    except re.error as error:
        raise InvalidPattern(f"{_REGEX}{text}: no regular expression: {error}") from None
    # Tools differ in whether an expression covers the whole name; said in full, it can only mean one thing.
    if not (text.startswith("^") and text.endswith("$") and not text.endswith(r"\$")):
        whole = f"^{text.removeprefix('^')}"
        raise InvalidPattern(
            f"{_REGEX}{text}: it must cover the whole name and say so; write {_REGEX}{whole}$, or "
            f"{_REGEX}{whole}.*$ where anything may follow"
        )
    return expression


def _glob(text: str, kind: Kind) -> re.Pattern[str]:
    if not text:
        raise InvalidPattern("it is empty, which matches nothing")
    literal = _CLASS.sub("", text).translate({ord(wild): None for wild in "*?"})
    foreign = sorted(set(re.sub(f"[{kind.characters}]", "", literal)))
    if foreign:
        raise InvalidPattern(f"{text}: {_advice(foreign, kind)}")
    if not re.match(f"[{kind.first}*?\\[]", text):
        raise InvalidPattern(
            f"{text}: it matches nothing, since no {kind.name} begins with {text[0]!r}. "
            f"A regular expression begins with {_REGEX}"
        )
    try:
        return re.compile(_translated(text))
    except re.error:
        raise InvalidPattern(f"{text}: the brackets hold a range that ends before it begins") from None


def _advice(foreign: list[str], kind: Kind) -> str:
    if "{" in foreign or "," in foreign:
        return "alternatives in braces are not supported; write one pattern for each"
    if "[" in foreign or "]" in foreign:
        return "the brackets are not closed, or empty; [abc] is one of three characters"
    if any(character in foreign for character in "^$\\+()|"):
        return f"it looks like a regular expression; write {_REGEX}^…$"
    if kind is REPOSITORY and any(character.isupper() for character in foreign):
        return "it matches nothing, since repositories have no capital letters"
    if kind is REPOSITORY and ":" in foreign:
        return "it is a pattern for repositories, without a tag"
    if kind is TAG and "/" in foreign:
        return "it matches nothing, since tags have no '/'; a path belongs to the repository"
    return f"it matches nothing, since no {kind.name} has {' or '.join(map(repr, foreign))} in it"


def _translated(text: str) -> str:
    """A glob as a regular expression."""
    parts = text.split("/")
    expression = []
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            expression.append(".+" if last else "(?:.*/)?")
        elif not part:
            raise InvalidPattern(f"{text}: it matches nothing, since no part between two '/' is empty")
        elif "**" in part:
            raise InvalidPattern(f"{text}: ** stands for whole parts of a path; inside one write *")
        else:
            expression.append(_translated_part(part) + ("" if last else "/"))
    return "".join(expression)


def _translated_part(part: str) -> str:
    expression = []
    position = 0
    while position < len(part):
        group = _CLASS.match(part, position)
        if group:
            expression.append(f"[{'^/' if group[1] else ''}{group[2]}]")
            position = group.end()
        else:
            character = part[position]
            expression.append({"*": "[^/]*", "?": "[^/]"}.get(character, re.escape(character)))
            position += 1
    return "".join(expression)
