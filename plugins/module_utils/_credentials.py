# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and passwords against the users file, with bcrypt as seldom as can be.

What was verified is remembered for some minutes, under a keyed hash of user, password and the user's hash in the
file. So a user that was removed, or has a new password, is out with the next request: nothing has to be told to
forget. Passwords are kept nowhere.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from . import _passwords
from ._bcrypt import Verify
from ._errors import RegistryError
from ._htpasswd import usable_hashes
from ._throttle import Throttle
from ._watched import Watched

# A hash of no password, in each cost: what unknown users are compared with.
_NOBODY = "$2b${:02d}$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"


class TooMany(RegistryError):
    """Too many tries, or too many at a time; `seconds` to wait."""

    def __init__(self, seconds: int) -> None:
        super().__init__("too many tries of passwords")
        self.seconds = seconds


class Settings(NamedTuple):
    #: Seconds that a verified password, and a wrong one, are remembered.
    good_for: float = 300
    bad_for: float = 30
    remembered: int = 10_000
    #: bcrypts at a time, and waiting for their turn.
    threads: int = 2
    waiting: int = 64


class Users(NamedTuple):
    hashes: dict[str, str]
    costs: tuple[int, ...]

    @classmethod
    def parse(cls, data: bytes) -> Users:
        hashes = usable_hashes(data)
        return cls(hashes, tuple(_passwords.cost_of(value) or 0 for value in hashes.values()))


class Credentials:
    """Who somebody is. For one event loop; only bcrypt runs in threads of its own."""

    def __init__(self, file: Watched[Users], verify: Verify, throttle: Throttle, settings: Settings) -> None:
        self._file = file
        self._verify = verify
        self._throttle = throttle
        self._settings = settings
        self._key = secrets.token_bytes(32)
        # Keyed hash -> when to forget it, and whether the password was right. The oldest is first.
        self._known: OrderedDict[bytes, tuple[float, bool]] = OrderedDict()
        self._running: dict[bytes, asyncio.Future[bool]] = {}
        self._pool = ThreadPoolExecutor(settings.threads, "bcrypt")

    def hash_of(self, user: str) -> str | None:
        """The user's hash as it is in the file now. Raises Unreadable."""
        return self._file.get().hashes.get(user)

    def sign(self, *parts: str) -> str:
        """A signature that only this process can make."""
        return self._digest(*parts).hex()

    def recall(self, user: str, password: str) -> bool | None:
        """Whether the password is right, where that is known; None where it takes bcrypt. Raises Unreadable."""
        found = self._known.get(self._digest(user, password, self.hash_of(user) or ""))
        return found[1] if found is not None and found[0] > time.monotonic() else None

    async def check(self, user: str, password: str, address: str) -> bool:
        """Whether the password is right, by bcrypt. Raises TooMany, Unreadable."""
        wait = self._throttle.begin(address, user, time.monotonic())
        if wait:
            raise TooMany(wait)
        right = await self._check(user, password)
        if right:
            self._throttle.succeed(address, user)
        return right

    async def _check(self, user: str, password: str) -> bool:
        while True:
            users = self._file.get()
            password_hash = users.hashes.get(user)
            right = await self._compute(user, password, password_hash, users.costs)
            # The user may be another one, or none, by now.
            if self.hash_of(user) == password_hash:
                return right

    async def _compute(
        self, user: str, password: str, password_hash: str | None, costs: tuple[int, ...]
    ) -> bool:
        key = self._digest(user, password, password_hash or "")
        if key not in self._running:
            if len(self._running) >= self._settings.waiting:
                raise TooMany(1)
            compared = password_hash or self._nobody(user, costs)
            loop = asyncio.get_running_loop()
            self._running[key] = loop.run_in_executor(self._pool, self._is_right, password, compared)
            self._running[key].add_done_callback(lambda _done: self._running.pop(key))
        # Several clients, or layers, at once need it computed once; one that hangs up takes it from nobody.
        right = await asyncio.shield(self._running[key]) and password_hash is not None
        self._remember(key, right)
        return right

    def _is_right(self, password: str, password_hash: str) -> bool:
        # As long as everybody else's, also where bcrypt would look at a part of it only.
        return self._verify(password.replace("\0", ""), password_hash) and not _passwords.problem_of(password)

    def _nobody(self, user: str, costs: tuple[int, ...]) -> str:
        """Unknown users take as long as known ones do: each has the cost of one of them, always the same."""
        if not costs:
            return _NOBODY.format(_passwords.CHOSEN_COST)
        choice = int.from_bytes(self._digest(user, "cost")[:4], "big") % len(costs)
        return _NOBODY.format(costs[choice])

    def _remember(self, key: bytes, right: bool) -> None:
        keep = self._settings.good_for if right else self._settings.bad_for
        self._known.pop(key, None)
        self._known[key] = (time.monotonic() + keep, right)
        if len(self._known) > self._settings.remembered:
            self._known.popitem(last=False)

    def _digest(self, *parts: str) -> bytes:
        # Each with its length: "a", "bc" is not "ab", "c".
        text = "".join(f"{len(part)}:{part}" for part in parts)
        return hmac.digest(self._key, text.encode("utf-8", "surrogatepass"), "sha256")
