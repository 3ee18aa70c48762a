# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry's users file (htpasswd): parse, change, print.

Private to the collection: no stable interface. Reads each line exactly as the registry does, and refuses what
the registry would refuse, or would accept and never let in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ._errors import RegistryError
from ._passwords import cost_of, kind_of, split
from ._secrets import has_control_characters

#: The registry's scanner gives up on longer lines, and with that on the whole file.
MAX_LINE_BYTES = 65_535

# What Go's strings.TrimSpace removes; Python's str.strip would remove more.
_BLANKS = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)

# More do not help anybody who has to correct them.
_PROBLEMS_SHOWN = 10


class UsersFileError(RegistryError):
    """A users file that the registry cannot use as it is meant."""


def problem_of(name: str) -> str | None:
    """Why the registry cannot have a user of this name; None where it can."""
    if not name:
        return "the user name is empty"
    if has_control_characters(name):
        return "the user name holds control characters"
    if not name.isprintable():
        return "the user name holds invisible characters"
    if name != name.strip():
        return "the user name begins or ends with a blank"
    if name.startswith("#"):
        return "the user name begins with #, which makes the line a comment"
    if ":" in name:
        return "the user name holds a colon, which ends it"
    return None


class Line:
    """One line as it is in the file, and the entry that the registry sees in it, if it sees one."""

    __slots__ = ("hash", "name", "number", "raw", "remark")

    def __init__(self, number: int, raw: bytes, name: str | None = None, field: str = "") -> None:
        #: Counted from 1; 0 for a line that is not in the file yet.
        self.number = number
        #: With its line end, which the last line of a file may lack.
        self.raw = raw
        self.name = name
        self.hash, ignored = split(field)
        #: With its colon: a third field, which the registry ignores.
        self.remark = ignored if ignored.startswith(":") else ""


class UsersFile:
    """The lines of a users file. Comments, blank lines, the order, and untouched lines stay byte for byte."""

    def __init__(self, path: str, lines: Iterable[Line]) -> None:
        self._path = path
        self._lines: dict[int, Line] = dict(enumerate(lines))
        self._next = len(self._lines)
        # User name -> keys of its lines. The registry takes the last one.
        self._places: dict[str, list[int]] = defaultdict(list)
        for place, line in self._lines.items():
            if line.name is not None:
                self._places[line.name].append(place)

    @classmethod
    def parse(cls, data: bytes, path: str) -> UsersFile:
        """Read a users file's content; `path` is for messages. Raises UsersFileError naming each bad line."""
        raws = data.split(b"\n")
        lines, problems = [], []
        for number, raw in enumerate(raws, start=1):
            ended = raw + b"\n" if number < len(raws) else raw
            if not ended:
                continue
            try:
                lines.append(_read_line(number, ended))
            except ValueError as error:
                problems.append(f"line {number}: {error}")
        _raise_problems(path, problems, "correct or remove it")
        return cls(path, lines)

    def to_bytes(self) -> bytes:
        """The content of the file."""
        return b"".join(line.raw for line in self._lines.values())

    def names(self) -> list[str]:
        """All user names, in the order of the lines that count."""
        return sorted(self._places, key=lambda name: self._places[name][-1])

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def hash_of(self, name: str) -> str:
        """The hash that the registry compares with; KeyError where there is no such user."""
        if name not in self._places:
            raise KeyError(name)
        return self._lines[self._places[name][-1]].hash

    def duplicates(self) -> dict[str, list[int]]:
        """The users that have several lines, and their line numbers. The registry takes the last one."""
        return {
            name: [self._lines[place].number for place in places]
            for name, places in self._places.items()
            if len(places) > 1
        }

    def set(self, name: str, password_hash: str) -> None:
        """Give a user this hash, in the line where the registry looks; its other lines are removed."""
        if name not in self._places:
            self._end_last_line()
            self._places[name] = [self._next]
            self._lines[self._next] = Line(0, b"")
            self._next += 1
        *others, place = self._places[name]
        for other in others:
            del self._lines[other]
        old = self._lines[place]
        field = password_hash + old.remark
        self._lines[place] = Line(old.number, f"{name}:{field}\n".encode(), name, field)
        self._places[name] = [place]

    def remove(self, name: str) -> None:
        """Remove all lines of a user; nothing happens where there are none."""
        for place in self._places.pop(name, ()):
            del self._lines[place]

    def require_usable(self, *, except_for: Iterable[str] = ()) -> None:
        """Raise UsersFileError where a user has no bcrypt hash: the registry never lets it in.

        `except_for` names users that are about to be removed or to get a new hash.
        """
        ignored = set(except_for)
        problems = [
            f"line {self._lines[places[-1]].number}: {name!r} has {kind_of(self.hash_of(name))}"
            for name, places in self._places.items()
            if name not in ignored and cost_of(self.hash_of(name)) is None
        ]
        _raise_problems(
            self._path, problems, "the registry knows bcrypt only: give a new password or remove the user"
        )

    def kinds(self) -> dict[str, str]:
        """What each user's hash is, in words: "bcrypt, cost 10"."""
        return {name: kind_of(self.hash_of(name)) for name in self.names()}

    def has_crlf(self) -> bool:
        """Whether any line ends in CR LF."""
        return any(line.raw.endswith(b"\r\n") for line in self._lines.values())

    def _end_last_line(self) -> None:
        """A file that somebody else wrote may lack its last line end; the registry writes such a file."""
        if self._lines:
            last = next(reversed(self._lines.values()))
            if not last.raw.endswith(b"\n"):
                last.raw += b"\n"


def usable_hashes(data: bytes) -> dict[str, str]:
    """User names and bcrypt hashes of a users file, line by line: what is no user is passed over.

    The registry would serve the list that it read before, with users that are gone since.
    """
    hashes: dict[str, str] = {}
    for number, raw in enumerate(data.split(b"\n"), start=1):
        try:
            line = _read_line(number, raw)
        except ValueError:
            continue
        if line.name is not None and cost_of(line.hash) is not None:
            hashes[line.name] = line.hash
        elif line.name is not None:
            # The last line of a user counts, and with that one nobody gets in.
            hashes.pop(line.name, None)
    return hashes


def _read_line(number: int, raw: bytes) -> Line:
    """Raises ValueError with the cause, which never shows the line: it may be a password."""
    if len(raw.rstrip(b"\n")) > MAX_LINE_BYTES:
        raise ValueError(f"longer than {MAX_LINE_BYTES} bytes, where the registry stops reading")
    # Bytes that are no UTF-8 may stay in a comment; in a name they count as control characters.
    text = raw.decode("utf-8", "surrogateescape").strip(_BLANKS)
    if not text or text.startswith("#"):
        return Line(number, raw)
    name, colon, field = text.partition(":")
    if not colon:
        raise ValueError("no colon between user name and hash")
    problem = problem_of(name)
    if problem is not None:
        raise ValueError(problem)
    if has_control_characters(field):
        raise ValueError("the hash holds control characters")
    return Line(number, raw, name, field)


def _raise_problems(path: str, problems: list[str], remedy: str) -> None:
    if not problems:
        return
    shown = "; ".join(problems[:_PROBLEMS_SHOWN])
    more = len(problems) - _PROBLEMS_SHOWN
    rest = f"; and {more} more" if more > 0 else ""
    raise UsersFileError(f"users file {path}: {shown}{rest}; {remedy}. The file was left alone")
