# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress as a line for people, with rate and remaining time.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from ansible_collections.dockyard.registry.plugins.module_utils._progress import State
from ansible_collections.dockyard.registry.plugins.module_utils._table import size

# Below this a number counts things; what engines count in bytes is more as soon as it takes time.
_LEAST_BYTES = 1 << 20
_RATE_SECONDS = 1.0


class Meter:
    """Looks at one state after the other and remembers when each phase began."""

    def __init__(self) -> None:
        self._first: State | None = None

    def line(self, state: State) -> str:
        """Such as "hash blobs 1.2 GiB of 5.0 GiB, 210 MiB/s, 18 s left"."""
        if self._first is None or self._first.phase != state.phase:
            self._first = state
        in_bytes = max(state.done, state.total) >= _LEAST_BYTES
        parts = [" ".join(filter(None, (state.phase or "starting", _amount(state, in_bytes))))]
        elapsed = state.time - self._first.time
        gained = state.done - self._first.done
        if elapsed >= _RATE_SECONDS and gained > 0:
            rate = gained / elapsed
            parts.append(f"{size(int(rate))}/s" if in_bytes else f"{rate:.0f}/s")
            if state.total > state.done:
                parts.append(f"{duration((state.total - state.done) / rate)} left")
        return ", ".join(parts)


def _amount(state: State, in_bytes: bool) -> str:
    def number(value: int) -> str:
        return size(value) if in_bytes else str(value)

    if state.total:
        return f"{number(state.done)} of {number(state.total)}"
    return number(state.done) if state.done else ""


def duration(seconds: float) -> str:
    """`18 s`, `3 min 20 s`, `2 h 5 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
