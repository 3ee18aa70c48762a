# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many tries of passwords an address has.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple


class Limits(NamedTuple):
    #: Failed tries in a window: of one address for one user, and of one address for all.
    for_user: int = 10
    for_address: int = 60
    #: Seconds, from the first failure on.
    window: float = 60
    #: Addresses, and pairs of address and user, that are remembered.
    remembered: int = 20_000


class Throttle:
    """A try is counted when it begins, so that many at once are no way around; a success takes it back."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._users = _Counters(limits)
        self._addresses = _Counters(limits)

    def begin(self, address: str, user: str, now: float) -> int:
        """Count a try. The seconds to wait where there were too many already: then it must not be made."""
        place = network(address)
        wait = max(
            self._users.wait((place, user), self._limits.for_user, now),
            self._addresses.wait(place, self._limits.for_address, now),
        )
        if not wait:
            self._users.add((place, user), now)
            self._addresses.add(place, now)
        return math.ceil(wait)

    def succeed(self, address: str, user: str) -> None:
        """The try that was counted last was none to count."""
        place = network(address)
        self._users.forget((place, user))
        self._addresses.take_back(place)


def network(address: str) -> str:
    """What one client can change about its address does not make another client of it: a /64 of IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))


class _Counters:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # Number of tries, and when they are forgotten. The one that was touched last is last.
        self._counts: OrderedDict[Hashable, tuple[int, float]] = OrderedDict()

    def wait(self, key: Hashable, limit: int, now: float) -> float:
        count, end = self._counts.get(key, (0, now))
        return max(end - now, 0) if count >= limit else 0

    def add(self, key: Hashable, now: float) -> None:
        count, end = self._counts.pop(key, (0, now))
        self._counts[key] = (count + 1, end) if end > now else (1, now + self._limits.window)
        if len(self._counts) > self._limits.remembered:
            self._counts.popitem(last=False)

    def take_back(self, key: Hashable) -> None:
        count, end = self._counts.get(key, (0, 0.0))
        if count > 1:
            self._counts[key] = (count - 1, end)
        else:
            self.forget(key)

    def forget(self, key: Hashable) -> None:
        self._counts.pop(key, None)
