# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Long work on a host, looked at from outside: how far it is, whether it still lives, whom it waits for.

Private to the collection: no stable interface.

Everything about it is in one folder beside the locks, for the work's user only: the result file of Ansible's async
wrapper, named by the job, and the progress file of each process at work.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from . import _lock, _progress

_FOLDER = "jobs"
_PROGRESS = ".progress"
# A control process that lost its connection comes back for the result within minutes.
_KEPT_SECONDS = 3600.0


class Waiting(NamedTuple):
    """Somebody else who holds a lock."""

    holder: _lock.Holder
    #: How far that one is, where it says so.
    progress: _progress.State | None


class Status(NamedTuple):
    """One look at a job."""

    finished: bool
    #: Whether its process was there; None where it had not said anything yet, or does no more.
    alive: bool | None
    progress: _progress.State | None


class Jobs:
    """The jobs beside the lock `lock`."""

    def __init__(self, lock: str) -> None:
        self._locks = (lock, _lock.storage_lock(lock))
        self.folder = Path(lock).parent / _FOLDER

    def prepare(self, known_dead: Iterable[str] = ()) -> None:
        """Make the folder, throw away what ended jobs left, and free locks whose holder (named by its token) the
        caller, elsewhere, knows to have ended."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in self.folder.iterdir():
            if self._is_left_over(file):
                with suppress(OSError):
                    file.unlink()
        for token in known_dead:
            for path in self._locks:
                _lock.release(path, token)

    def _is_left_over(self, file: Path) -> bool:
        try:
            if time.time() - file.stat().st_mtime < _KEPT_SECONDS:
                return False
        except OSError:
            return False
        if file.suffix == _PROGRESS:
            state = _progress.read(file)
            return state is None or not _lock.is_running(state.pid, state.started)
        return _is_finished(file)

    def waits_for(self, job: str = "") -> Waiting | None:
        """The living holder of one of the locks, unless that is the job itself."""
        own = self.progress(job)
        for path in self._locks:
            holder = _lock.holder_of(path)
            if holder is None or _lock.is_dead(holder) or (own and own.pid == holder.pid):
                continue
            return Waiting(holder, self._progress_of(holder))
        return None

    def _progress_of(self, holder: _lock.Holder) -> _progress.State | None:
        states = (_progress.read(file) for file in self.folder.glob(f"*{_PROGRESS}"))
        return next((state for state in states if state and state.pid == holder.pid), None)

    def progress_file(self, job: str) -> Path:
        """Where the work says how far it is."""
        return self.folder / f"{job}{_PROGRESS}"

    def progress(self, job: str) -> _progress.State | None:
        return _progress.read(self.progress_file(job)) if job else None

    def status(self, job: str, wrapper: str) -> Status:
        """`job` is our name of it, `wrapper` that of the async wrapper."""
        state = self.progress(job)
        alive = _lock.is_running(state.pid, state.started) if state else None
        # Last: what has ended since then is finished, and not merely dead.
        return Status(_is_finished(self.folder / wrapper), alive, state)

    def remove(self, job: str, wrapper: str) -> None:
        """Forget an ended job."""
        for file in (self.progress_file(job), self.folder / wrapper):
            file.unlink(missing_ok=True)


def _is_finished(result: Path) -> bool:
    try:
        told: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(told.get("finished", True)) or "started" not in told
