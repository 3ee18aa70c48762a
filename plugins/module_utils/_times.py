# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Times as people write them in options: seconds, or a number with a unit.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import re

from ._errors import RegistryError

_TIME = re.compile(r"([0-9]+(?:[.][0-9]+)?)([smhdw]?)")
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def seconds_in(text: str) -> float | None:
    """How many seconds `90`, `90m`, `12h`, `7d` or `2w` are; None where it is no time."""
    match = _TIME.fullmatch(text)
    return float(match[1]) * _UNITS[match[2]] if match else None


def parse_time(text: str | None, option: str) -> float | None:
    """Seconds, from a number of them or a time such as `90m`, `12h`, `7d`, `2w`; None from None.

    Raises RegistryError.
    """
    if text is None:
        return None
    seconds = seconds_in(text.strip())
    if seconds is None:
        raise RegistryError(f"{option}: {text!r} is no time; write seconds, or 90m, 12h, 7d or 2w")
    return seconds
