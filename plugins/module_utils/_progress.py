# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long work says how far it is: a callable that engines are given.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import atexit
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from ._lock import process

_WRITE_SECONDS = 0.25


class Progress(Protocol):
    """Called often; whoever listens limits what is shown."""

    def __call__(self, phase: str, done: int = 0, total: int = 0) -> None:
        """`phase` is a short text such as "hash blobs"; done and total are in bytes or things, 0 where unknown."""


class State(NamedTuple):
    """How far some work was, when it said so last."""

    #: Empty before the first phase.
    phase: str
    done: int
    total: int
    #: Unix time in seconds, by the clock of the machine that works.
    time: float
    #: The process that works, and its start in clock ticks after boot.
    pid: int
    started: int


def silent(phase: str, done: int = 0, total: int = 0) -> None:
    """Nobody listens."""


class FileProgress:
    """Keeps the state in a small file, for another process to read with read().

    Replaced at most 4 times a second and when the phase changes, never synced; gone when this process ends. Without
    a path nothing is kept. A file that cannot be written never fails the work.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._path = Path(path) if path else None
        self._process = process(os.getpid())
        self._phase = ""
        self._next = 0.0
        if self._path:
            with suppress(OSError):
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write("", 0, 0)
            atexit.register(self._remove)

    def __call__(self, phase: str, done: int = 0, total: int = 0) -> None:
        now = time.monotonic()
        if self._path and (phase != self._phase or now >= self._next):
            self._phase, self._next = phase, now + _WRITE_SECONDS
            self._write(phase, done, total)

    def _write(self, phase: str, done: int, total: int) -> None:
        if self._path is None:
            return
        state = State(phase, done, total, time.time(), self._process.pid, self._process.started)
        fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            fresh.write_text(json.dumps(state._asdict()), encoding="utf-8")
            fresh.replace(self._path)
        except OSError:
            self._path = None

    def _remove(self) -> None:
        # A forked child that ends is not the work's end.
        if self._path and os.getpid() == self._process.pid:
            with suppress(OSError):
                self._path.unlink()


def read(path: str | os.PathLike[str]) -> State | None:
    """What FileProgress wrote last; None where there is nothing to read."""
    try:
        return State(**json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
