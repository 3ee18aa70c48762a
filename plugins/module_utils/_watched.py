# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small file that is read again as soon as it changes.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from ._errors import RegistryError

T = TypeVar("T")

# A file can change twice within one tick of the clock that stamps it.
_TICK_NS = 50_000_000

_Stamp = tuple[int, int, int, int]


class Unreadable(RegistryError):
    """The file is not there, or not what it should be."""


class Watched(Generic[T]):
    """What `parse` makes of a file. get() asks the file system each time, and reads only what is new.

    A file that cannot be read is an error each time: what it said before no longer counts.
    """

    def __init__(self, path: str, parse: Callable[[bytes], T]) -> None:
        self._path = Path(path)
        self._parse = parse
        self._stamp: _Stamp | None = None
        self._value: T | None = None
        self._problem = ""

    def get(self) -> T:
        """Raises Unreadable."""
        try:
            stamp = _stamp(self._path.stat())
            if stamp != self._stamp:
                self._read()
        except OSError as error:
            self._forget(error.strerror or str(error))
        if self._value is None:
            raise Unreadable(f"read {self._path}: {self._problem}")
        return self._value

    def _read(self) -> None:
        with self._path.open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read()
        try:
            self._value = self._parse(data)
        except (RegistryError, ValueError) as error:
            self._forget(str(error))
        # One that changed just now may change again without looking different.
        settled = abs(time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns)) > _TICK_NS
        self._stamp = _stamp(status) if settled else None

    def _forget(self, problem: str) -> None:
        self._stamp, self._value, self._problem = None, None, problem


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size
