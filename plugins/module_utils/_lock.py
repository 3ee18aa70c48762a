# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One lock per registry that outlives a single process: a play takes it in one task and gives it back in another.

Private to the collection: no stable interface.

The lock is a small JSON file. Whoever holds it is named by process (boot, PID namespace, process ID, start time), so
that a dead holder is recognised at once by whoever shares its machine, and by everybody else when the lease ends.
The file is only read and replaced under flock(2) on a sibling file, so two runs never both believe they hold it.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ._errors import RegistryError

_POLL_SECONDS = 0.2
# A lease only matters to machines that cannot see whether the holder lives.
_WHILE_ALIVE_SECONDS = 7 * 86400.0


class LockHeld(RegistryError):
    """Somebody else is at work."""

    def __init__(self, path: str, holder: Holder) -> None:
        super().__init__(
            f"lock {path}: held by {holder.operation} (process {holder.pid} on {holder.node}, "
            f"since {_when(holder.since)}); wait for it to end, or remove that file if you know it is dead"
        )
        self.holder = holder


class Process(NamedTuple):
    """A process that can be told from every other one, also after a reboot and across containers."""

    node: str
    #: Boot ID and PID namespace: two processes with the same can look each other up under /proc.
    machine: str
    pid: int
    #: Start time in clock ticks after boot: a process ID is used again, the pair is not.
    started: int


class Holder(NamedTuple):
    """Who holds a lock, as its file says it."""

    token: str
    operation: str
    node: str
    machine: str
    pid: int
    started: int
    #: Unix times in seconds.
    since: float
    expires: float


def _when(timestamp: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(timestamp))


def _start_time(pid: int) -> int | None:
    """Start time of a process in clock ticks; None where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field, the name, may hold blanks and brackets: count from behind its end.
    return int(stat.rpartition(")")[2].split()[19])


def machine() -> str:
    """What two processes share when each sees the other under the same process ID."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"


def process(pid: int) -> Process:
    """Describe a living process of this machine. Raises RegistryError where there is none."""
    started = _start_time(pid)
    if started is None:
        raise RegistryError(f"lock: process {pid} is not there")
    return Process(os.uname().nodename, machine(), pid, started)


def is_running(pid: int, started: int) -> bool:
    """Whether the process of this machine that had this ID and start time is still there."""
    return _start_time(pid) == started


def is_dead(holder: Holder) -> bool:
    """Whether this machine knows that the holder has ended. False also where it cannot know."""
    return holder.machine == machine() and not is_running(holder.pid, holder.started)


def storage_lock(path: str) -> str:
    """The lock of the blobs, beside the registry's lock: "x.lock" has "x.storage.lock".

    A run that needs both takes the registry's lock first.
    """
    name = Path(path)
    return str(name.with_name(f"{name.stem}.storage{name.suffix}"))


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(f"{path}.guard", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(path: Path) -> Holder | None:
    try:
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Holder(**fields)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise RegistryError(
            f"lock {path}: not a lock file of this collection ({error}); remove it"
        ) from error


def _write(path: Path, holder: Holder) -> None:
    fresh = path.with_name(f".{path.name}.{holder.token}")
    fresh.write_text(json.dumps(holder._asdict()), encoding="utf-8")
    fresh.replace(path)


def acquire(
    path: str, operation: str, owner: Process, *, lease: float, known_dead: str = ""
) -> tuple[Holder, Holder | None]:
    """Take the lock for `lease` seconds, or raise LockHeld. Never waits.

    `known_dead` is the token of a holder that the caller, elsewhere, knows to have ended. Returns the new holder,
    and the stale one that it replaced, if any.
    """
    file = Path(path)
    with _guarded(file):
        held = _read(file)
        now = time.time()
        if held and held.expires > now and held.token != known_dead and not is_dead(held):
            raise LockHeld(path, held)
        holder = Holder(secrets.token_hex(16), operation, *owner, since=now, expires=now + lease)
        _write(file, holder)
        return holder, held


def holder_of(path: str) -> Holder | None:
    """Who holds the lock, dead or alive; None where it is free."""
    file = Path(path)
    if not file.exists():
        return None
    with _guarded(file):
        return _read(file)


def release(path: str, token: str) -> bool:
    """Give the lock back. False where it is no longer ours: its lease ended and another run took it."""
    file = Path(path)
    with _guarded(file):
        held = _read(file)
        if held is None or held.token != token:
            return False
        file.unlink()
        return True


@contextmanager
def held(paths: Iterable[str], operation: str, *, wait: float = 0.0) -> Iterator[None]:
    """Hold locks for as long as this process works, in the order given; each is waited for `wait` seconds.

    A process that dies gives them back: whoever comes next sees that it is dead.
    """
    me = process(os.getpid())
    taken: list[tuple[str, str]] = []
    try:
        for path in paths:
            taken.append((path, _wait_for(path, operation, me, wait).token))
        yield
    finally:
        for path, token in reversed(taken):
            release(path, token)


def _wait_for(path: str, operation: str, owner: Process, wait: float) -> Holder:
    deadline = time.monotonic() + wait
    while True:
        try:
            return acquire(path, operation, owner, lease=_WHILE_ALIVE_SECONDS)[0]
        except LockHeld:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_POLL_SECONDS)
