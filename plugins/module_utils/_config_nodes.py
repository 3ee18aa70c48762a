# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of places in a registry configuration, and how a value there is checked.

Private to the collection: no stable interface. `_config.py` builds the configuration's schema of them.
Every check yields complete messages: the dotted path, what is wrong, what the registry would do, what to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NamedTuple

from ._version import Version, parse

NO_START = "the registry would not start"
IGNORED = "would silently ignore it"

_GO_DURATION = re.compile(r"[+-]?(0|((\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))+)")
_DAYS = re.compile(r"(\d+) ?(d|days?|w|weeks?)")
_SIZE = re.compile(r"(\d+) ?([kmgt])i?b?", re.IGNORECASE)
_SHOWN_LENGTH = 60


class Place(NamedTuple):
    """A place in the configuration of a registry of that version.

    `path` is dotted ("" for the whole); `homes` maps each key name to the paths where the version reads it.
    """

    path: str
    version: Version
    homes: Mapping[str, list[str]]

    def below(self, key: str) -> Place:
        return self._replace(path=join(self.path, key))

    def item(self, index: int) -> Place:
        return self._replace(path=f"{self.path}[{index}]")

    def says(self, text: str) -> str:
        return f"{self.path or 'the configuration'}: {text}"


@dataclass(frozen=True)
class Node:
    """One place of the configuration.

    It is read by the versions `since` <= version < `until` ("" is no bound); `instead` says what to do in
    the others. `required` says what goes wrong without it; "" makes it optional. `otherwise` says what the
    registry does with a wrong value. The value of a `secret` never gets into a message.
    """

    since: str = ""
    until: str = ""
    instead: str = ""
    required: str = ""
    otherwise: str = ""
    secret: bool = False

    def is_read_by(self, version: Version) -> bool:
        after = not self.since or parse(self.since) <= version
        before = not self.until or version < parse(self.until)
        return after and before

    def check(self, value: Any, at: Place) -> Iterator[str]:
        """Yield a message for everything wrong with `value`."""
        raise NotImplementedError

    def wrong(self, at: Place, wanted: str, value: Any, remedy: str) -> str:
        """The message that a value of another kind is wanted."""
        got = describe(value, self.secret)
        return at.says(f"the registry wants {wanted}, got {got}{self.consequence}. {remedy}")

    @property
    def consequence(self) -> str:
        return f": {self.otherwise}" if self.otherwise else ""


@dataclass(frozen=True)
class Anything(Node):
    """A place that the registry hands on as it is."""

    def check(self, value: Any, at: Place) -> Iterator[str]:  # noqa: ARG002  there is nothing to look at
        yield from ()


@dataclass(frozen=True)
class Exactly(Node):
    """A place with one possible value, which YAML may read as text or as a number."""

    value: str = ""

    def check(self, value: Any, at: Place) -> Iterator[str]:
        if isinstance(value, (bool, list, Mapping)) or str(value) != self.value:
            yield self.wrong(at, self.value, value, f"Write {at.path}: {self.value}")


@dataclass(frozen=True)
class Text(Node):
    """Text: any, one of `choices` (in any case with `any_case`), or of a form that `pattern` matches whole.

    `form` describes the pattern to a person; `empty` says what goes wrong when the text is empty.
    """

    choices: tuple[str, ...] = ()
    any_case: bool = False
    pattern: str = ""
    form: str = ""
    empty: str = ""

    def check(self, value: Any, at: Place) -> Iterator[str]:
        if not isinstance(value, str):
            yield self.wrong(at, "text", value, _text_remedy(value))
        elif self.empty and not value:
            yield at.says(f"it is empty: {self.empty}. Give a value")
        elif self.choices and not self._is_choice(value):
            got, choices = describe(value, self.secret), ", ".join(self.choices)
            yield at.says(f"{got} is none of {choices}{self.consequence}. Use one of these")
        elif self.pattern and not re.fullmatch(self.pattern, value):
            yield self.wrong(at, self.form, value, "Correct it")

    def _is_choice(self, value: str) -> bool:
        if self.any_case:
            return value.lower() in (choice.lower() for choice in self.choices)
        return value in self.choices


@dataclass(frozen=True)
class Flag(Node):
    """A boolean. In most places the registry does not start with anything else."""

    otherwise: str = NO_START

    def check(self, value: Any, at: Place) -> Iterator[str]:
        if isinstance(value, bool):
            return
        meant = str(value).strip().lower()
        if meant in ("true", "yes", "on", "y", "t", "1"):
            remedy = "Write true without quotes"
        elif meant in ("false", "no", "off", "n", "f", "0"):
            remedy = "Write false without quotes"
        else:
            remedy = "Write true or false"
        yield self.wrong(at, "a boolean", value, remedy)


@dataclass(frozen=True)
class Whole(Node):
    """A whole number from `least` to `most`, a multiple of `step`; `size` makes it a number of bytes.

    `outside` says what the registry does with another number.
    """

    least: int | None = None
    most: int | None = None
    step: int = 1
    size: bool = False
    outside: str = ""

    def check(self, value: Any, at: Place) -> Iterator[str]:
        consequence = f": {self.outside}" if self.outside else ""
        if isinstance(value, bool) or not isinstance(value, int):
            wanted = "a number of bytes" if self.size else "a whole number"
            yield self.wrong(at, wanted, value, self._remedy(value))
        elif self.least is not None and value < self.least:
            yield at.says(f"{value} is too small{consequence}. The least is {self.least}")
        elif self.most is not None and value > self.most:
            yield at.says(f"{value} is too large{consequence}. The most is {self.most}")
        elif value % self.step:
            yield at.says(f"{value} is no multiple of {self.step}{consequence}. Round it to one")

    def _remedy(self, value: Any) -> str:
        text = str(value).strip()
        if isinstance(value, str) and re.fullmatch(r"[+-]?\d+", text):
            return f"Write {text} without quotes"
        size = _SIZE.fullmatch(text) if self.size else None
        if size:
            power = "kmgt".index(size[2].lower()) + 1
            return f"The registry knows no units: write {int(size[1]) * 1024**power}"
        return "Write a number"


@dataclass(frozen=True)
class Duration(Node):
    """A Go duration like "24h" or "1m30s". A plain number would be taken as nanoseconds, if at all.

    With `text_only` the registry does not start with a number, not even 0; `signed` allows less than 0.
    """

    text_only: bool = False
    signed: bool = False

    def check(self, value: Any, at: Place) -> Iterator[str]:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and value == 0 and not self.text_only:
            return
        got = describe(value, self.secret)
        if is_number:
            consequence = NO_START if self.text_only else "it would be that many nanoseconds"
            remedy = f'Write "{value}s" if you mean seconds'
            yield at.says(f'the registry wants a duration like "60s", got {got}: {consequence}. {remedy}')
        elif not isinstance(value, str) or not _GO_DURATION.fullmatch(value):
            remedy = self._remedy(value)
            yield at.says(f'the registry wants a duration like "60s", got {got}: {NO_START}. {remedy}')
        elif value.startswith("-") and not self.signed:
            yield at.says(f"{got} is negative. Give a positive duration")

    def _remedy(self, value: Any) -> str:
        text = str(value).strip()
        days = _DAYS.fullmatch(text)
        if days:
            hours = int(days[1]) * (24 if days[2].startswith("d") else 7 * 24)
            return f'The longest unit is the hour: write "{hours}h"'
        if re.fullmatch(r"\d+", text):
            return f'Add the unit: "{text}s" if you mean seconds'
        if _GO_DURATION.fullmatch(text.replace(" ", "")):
            return f'Write "{text.replace(" ", "")}"'
        return "The units are ms, s, m and h"


@dataclass(frozen=True)
class Items(Node):
    """A list, each item of which is an `of`."""

    of: Node = field(default_factory=Text)
    otherwise: str = NO_START
    secret: bool = True  # what stands there instead of a list may be one

    def check(self, value: Any, at: Place) -> Iterator[str]:
        if not isinstance(value, (list, tuple)):
            is_one_item = isinstance(value, str) and isinstance(self.of, Text)
            remedy = "Write it as a list of one: [value]" if is_one_item else "Write a list"
            yield self.wrong(at, "a list", value, remedy)
            return
        for index, item in enumerate(value):
            yield from self.of.check(item, at.item(index))


Rule = Callable[[Mapping[str, Any], Place], Iterator[str]]


@dataclass(frozen=True)
class Section(Node):
    """A mapping of `keys` to nodes; several nodes of one key are for different versions.

    `others` is what any other key holds; without it an unknown key is an error, and `unknown` says what the
    registry does with one. `hints` answers keys that documentation or habit suggests and no version reads.
    `rules` check what only several keys together show; they run when the section is a mapping.
    `null` says what goes wrong when the section is there without a value; "" allows that.
    """

    keys: Mapping[str, Node | tuple[Node, ...]] = field(default_factory=dict)
    others: Node | None = None
    unknown: str = IGNORED
    hints: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    null: str = ""
    otherwise: str = NO_START
    secret: bool = True  # what stands there instead of a mapping may be one

    def check(self, value: Any, at: Place) -> Iterator[str]:
        if value is None:
            if self.null:
                yield at.says(f"it has no value: {self.null}. Give its keys or leave it out")
                return
            value = {}
        if not isinstance(value, Mapping):
            yield self.wrong(at, "a mapping", value, "Write its keys below it, each on a line")
            return
        for key, inner in value.items():
            yield from self._check_key(key, inner, at)
        for key in self.keys:
            node = self.node(key, at.version)
            if node and node.required and key not in value:
                yield at.below(key).says(f"it is missing: {node.required}. Add it")
        for rule in self.rules:
            yield from rule(value, at)

    def node(self, key: str, version: Version) -> Node | None:
        """What `key` holds in that version; None when it does not read the key."""
        return next((node for node in self.nodes(key) if node.is_read_by(version)), None)

    def nodes(self, key: str) -> tuple[Node, ...]:
        """What `key` holds, in all versions."""
        entry = self.keys.get(key, ())
        return entry if isinstance(entry, tuple) else (entry,)

    def resembles_a_key(self, key: str, at: Place) -> bool:
        """Whether `key` is a key of this section, or a mistake for one, rather than one of the `others`."""
        return key in self.keys or key in self.hints or bool(self._meant(key, at))

    def _check_key(self, key: Any, value: Any, at: Place) -> Iterator[str]:
        if not isinstance(key, str):
            yield at.says(f"the key {describe(key)} is no text. {_text_remedy(key)}")
            return
        node = self.node(key, at.version)
        if node is None and self.others is not None and not self.resembles_a_key(key, at):
            node = self.others
        if node is None:
            yield at.below(key).says(self._unknown(key, at))
        elif value is None and not isinstance(node, (Section, Anything)):
            yield at.below(key).says("it has no value. Give one or leave the key out")
        else:
            yield from node.check(value, at.below(key))

    def _unknown(self, key: str, at: Place) -> str:
        if key in self.hints:
            return f"no registry reads this key. {self.hints[key]}"
        if key in self.keys:
            return f"registry {at.version} {_other_version(self.nodes(key), at.version, self.unknown)}"
        problem = f"registry {at.version} knows no such key and {self.unknown}"
        meant = self._meant(key, at)
        if meant:
            return f"{problem}; did you mean {' or '.join(meant)}?"
        return f"{problem}. Remove it, or use one of: {', '.join(self._known(at.version))}"

    def _meant(self, key: str, at: Place) -> list[str]:
        """The paths that a mistyped or misplaced key may have been meant for; the likely ones only."""
        known = self._known(at.version)
        lower = key.lower().replace("_", "").replace("-", "")
        shortened = [name for name in known if len(lower) > 3 and name.startswith(lower)]
        local = shortened[:1] or get_close_matches(lower, known, n=1, cutoff=0.75)
        if local:
            return [join(at.path, local[0])]
        # Where other keys are allowed too, only what is clearly a mistake is taken for one.
        is_open = self.others is not None
        elsewhere = [
            home for home in at.homes.get(lower, []) if not is_open or home.startswith(f"{at.path}.")
        ]
        depth = min((home.count(".") for home in elsewhere), default=0)
        nearest = [home for home in elsewhere if home.count(".") == depth]
        if 1 <= len(nearest) <= 2:
            return nearest
        similar = [] if is_open else get_close_matches(lower, known, n=1, cutoff=0.6)
        return [join(at.path, name) for name in similar]

    def _known(self, version: Version) -> list[str]:
        return [key for key in self.keys if self.node(key, version)]


def join(path: str, key: str) -> str:
    """The dotted path of `key` below `path`."""
    return f"{path}.{key}" if path else key


def describe(value: Any, secret: bool = False) -> str:
    """A value as a person calls it, short; of a secret only the type."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "a boolean" if secret else f"the boolean {str(value).lower()}"
    if isinstance(value, (int, float)):
        return "a number" if secret else f"the number {value}"
    if isinstance(value, str):
        shown = value if len(value) <= _SHOWN_LENGTH else f"{value[:_SHOWN_LENGTH]}…"
        return "a string" if secret else f'the string "{shown}"'
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, (list, tuple)) else f"a value of type {type(value).__name__}"


def homes(section: Section, version: Version, path: str = "") -> Iterator[tuple[str, str]]:
    """Every key that the version reads below `section`, and its dotted path; [] stands for a list item."""
    for key in section.keys:
        node = section.node(key, version)
        if node is None:
            continue
        here = join(path, key)
        yield key, here
        inner = node.of if isinstance(node, Items) else node
        if isinstance(inner, Section):
            yield from homes(inner, version, f"{here}[]" if isinstance(node, Items) else here)


def _other_version(nodes: tuple[Node, ...], version: Version, unknown: str) -> str:
    later = [node for node in nodes if node.since and version < parse(node.since)]
    node = (later or nodes)[0]
    if later:
        reach = "only 3.x does" if node.since == "3.0.0" else f"only {node.since} and later do"
    else:
        reach = "only 2.8 does" if node.until == "3.0.0" else f"only versions before {node.until} do"
    remedy = f"{node.instead[0].upper()}{node.instead[1:]}" if node.instead else "Remove it"
    return f"does not know this key ({reach}) and {unknown}. {remedy}"


def _text_remedy(value: Any) -> str:
    if isinstance(value, bool):
        return "YAML reads an unquoted yes, no, on and off as a boolean: put it in quotes"
    return "Write text" if value is None or isinstance(value, (list, Mapping)) else "Put it in quotes"
