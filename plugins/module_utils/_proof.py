# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask a running registry whether it goes by its new users file.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from ._client import RegistryClient
from ._errors import RegistryError
from ._http import ClientError

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0

_LET_IN = 200
_TURNED_AWAY = 401


class Proof(NamedTuple):
    """The registry to ask, and how."""

    url: str
    ca_file: str | None = None
    validate_certs: bool = True
    #: Seconds until it must have answered as it should.
    timeout: float = 10
    #: An address to connect to instead of the one that the URL's host stands for.
    connect_to: str | None = None


class WrongAnswer(RegistryError):
    """The registry does not answer as its users file demands."""


class Witness:
    """Logs in to a registry as one user after the other and keeps the answers.

    Attributes: `answers`, a list of mappings `user`, `password` (which one, in words) and `status`.
    """

    def __init__(self, proof: Proof) -> None:
        """Raises RegistryError for an address or a CA file that cannot be used; asks nothing yet."""
        self._proof = proof
        self.answers: list[dict[str, Any]] = []
        with self._client("nobody", "nothing"):
            pass

    def expect_let_in(self, user: str, password: str, which: str) -> None:
        """Raises WrongAnswer unless the registry lets this user in before the time is over."""
        self._expect(_LET_IN, user, password, which)

    def expect_turned_away(self, user: str, password: str, which: str) -> None:
        """Raises WrongAnswer unless the registry refuses this user before the time is over."""
        self._expect(_TURNED_AWAY, user, password, which)

    def _expect(self, expected: int, user: str, password: str, which: str) -> None:
        deadline = time.monotonic() + self._proof.timeout
        pause = _FIRST_PAUSE_SECONDS
        # A registry reads the file again at the next request; a network file system may show it later.
        while True:
            status, cause = self._ask(user, password)
            if status == expected:
                self.answers.append({"user": user, "password": which, "status": status})
                return
            if time.monotonic() + pause > deadline:
                raise WrongAnswer(
                    f"ask {self._proof.url} for {user} with {which}: {cause or f'it answers {status}'} "
                    f"instead of {expected} after {self._proof.timeout:g} s{_hint(status)}"
                )
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _ask(self, user: str, password: str) -> tuple[int, str]:
        """The HTTP status, 0 without one, and the cause where that is an error."""
        try:
            with self._client(user, password) as client:
                return client.ping(), ""
        except ClientError as error:
            return error.status, str(error)

    def _client(self, user: str, password: str) -> RegistryClient:
        proof = self._proof
        return RegistryClient(
            proof.url,
            username=user,
            password=password,
            ca_file=proof.ca_file,
            verify=proof.validate_certs,
            connect_to=proof.connect_to,
            timeout=max(proof.timeout, 1),
            retries=0,
        )


def _hint(status: int) -> str:
    if status == _TURNED_AWAY:
        return (
            ": it does not read this users file. A container must mount the file's folder: a file mounted by "
            "itself is never seen again once it is replaced"
        )
    if status == _LET_IN:
        return ": it has another users file, or lets everybody in"
    if status in (400, 500):
        return ": it cannot read its users file; look at its log, and at the file's owner and mode"
    return ""
