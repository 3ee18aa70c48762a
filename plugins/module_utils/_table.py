# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables, sizes and times for people to read.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_DIGITS = re.compile(r"([0-9]+)")
_LONG_HEX = re.compile(r"[0-9a-f]{64,}")


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[str] = ()) -> str:
    """Aligned columns below a header, those named in `right` to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    rights = set(right)

    def aligned(line: list[str]) -> str:
        cells = (
            cell.rjust(width) if name in rights else cell.ljust(width)
            for name, cell, width in zip(header, line, widths)
        )
        return "  ".join(cells).rstrip()

    return "\n".join(map(aligned, lines))


def size(count: int) -> str:
    """A number of bytes: `0 B`, `1.5 MiB`."""
    value = float(count)
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{value:.1f} {unit}" if 0 < value < 100 and unit != "B" else f"{value:.0f} {unit}"


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 tag`, `2 tags`."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def timestamp(seconds: float | None) -> str | None:
    """A Unix time in UTC as programs read it: `2026-01-31T12:00:00Z`."""
    if seconds is None:
        return None
    time = datetime.fromtimestamp(seconds, timezone.utc)
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")


def minute(text: str | None) -> str:
    """The same as people read it: `2026-01-31 12:00`."""
    return "" if text is None else text[: len("2026-01-31T12:00")].replace("T", " ")


def short(digest: str) -> str:
    """Enough of a digest to tell it from others: `sha256:` and twelve digits."""
    algorithm, _colon, value = digest.partition(":")
    return f"{algorithm}:{value[:12]}"


def shortened(tag: str) -> str:
    """A tag, of one that holds a digest only its beginning: `sha256-0123456789ab….sig`."""
    return _LONG_HEX.sub(lambda match: f"{match[0][:12]}…", tag)


def natural(name: str) -> tuple[Any, ...]:
    """A key that sorts as people count: 1.9 before 1.10."""
    # Texts and numbers take turns, so that like is compared with like.
    return tuple(int(part) if index % 2 else part for index, part in enumerate(_DIGITS.split(name)))
