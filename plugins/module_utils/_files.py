# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small files that must never be seen half written: atomic replacement, owner and mode, a lock for writers.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import pwd
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ._errors import RegistryError

# A new file lies beside the old one under ".<name>.<random><suffix>" until it is whole.
_NEW_SUFFIX = ".dockyard-new"

# What to add to a timestamp so that it moves on file systems that keep nanoseconds, microseconds,
# milliseconds, seconds, and two seconds (FAT).
_TIMESTAMP_STEPS_NS = (1, 1_000, 1_000_000, 1_000_000_000, 2_000_000_000)

_LOCK_POLL_SECONDS = 0.02


class FileError(RegistryError):
    """A file could not be read, written or locked."""


class LockTimeout(FileError):
    """Another process held a lock for longer than we were told to wait."""


class Attributes(NamedTuple):
    """Who a file belongs to and who may read it. None leaves the owner or group as it is."""

    mode: int
    uid: int | None = None
    gid: int | None = None

    def __str__(self) -> str:
        owner = "" if self.uid is None else f", owner {self.uid}"
        group = "" if self.gid is None else f", group {self.gid}"
        return f"mode {self.mode:04o}{owner}{group}"


def parse_mode(value: str | int) -> int:
    """A mode as people write it: "0640", "640", or the number that an unquoted 0640 is in YAML."""
    try:
        mode = value if isinstance(value, int) else int(value, 8)
    except ValueError:
        mode = -1
    if isinstance(value, bool) or not 0 <= mode <= 0o7777:
        raise FileError(f'mode {value!r}: not an octal file mode; write it quoted, like "0640"')
    return mode


def attributes_from(mode: str | int, owner: str | None, group: str | None) -> Attributes:
    """Mode, owner and group as people write them, the last two by name or number. Raises FileError."""
    return Attributes(
        parse_mode(mode),
        _number(owner, "owner", lambda name: pwd.getpwnam(name).pw_uid),
        _number(group, "group", lambda name: grp.getgrnam(name).gr_gid),
    )


def _number(name: str | None, what: str, look_up: Callable[[str], int]) -> int | None:
    if name is None:
        return None
    if name.isdecimal():
        return int(name)
    try:
        return look_up(name)
    except KeyError:
        raise FileError(f"{what} {name!r}: not known on this host") from None


def read_file(path: str | os.PathLike[str]) -> tuple[bytes, os.stat_result] | None:
    """The content of a regular file and the stat that belongs to it; None where there is no file."""
    try:
        with _opened(path) as descriptor:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise FileError(f"read {os.fspath(path)}: not a regular file")
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(), status
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _failed("read", path, error) from error


def require_folder(path: str | os.PathLike[str]) -> None:
    """Raise a FileError unless the folder that `path` lies in exists."""
    folder = Path(path).parent
    if not folder.is_dir():
        raise FileError(f"write {os.fspath(path)}: the folder {folder} does not exist; create it first")


def attributes_of(status: os.stat_result) -> Attributes:
    """The owner and mode that a file has."""
    return Attributes(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def ensure_attributes(path: str | os.PathLike[str], wanted: Attributes, *, check_mode: bool = False) -> bool:
    """Give an existing file its owner and mode; in check mode only look. Returns whether they differ(ed)."""
    try:
        with _opened(path) as descriptor:
            differ = _differ(os.fstat(descriptor), wanted)
            if differ and not check_mode:
                _set_attributes(descriptor, wanted)
            return differ
    except OSError as error:
        raise _failed("set owner and mode of", path, error) from error


def atomic_write(
    path: str | os.PathLike[str],
    data: bytes,
    *,
    mode: int,
    uid: int | None = None,
    gid: int | None = None,
    newer_than_ns: int | None = None,
) -> int:
    """Replace or create a file: whoever opens it sees the old or the new content, whole, with its last owner.

    A killed run and a power cut leave the old or the new file, too; what a killed run left beside it is
    removed by the next call for the same path. With `newer_than_ns` the file's mtime is later than that,
    whatever the clock and the file system's resolution. A symbolic link is replaced, not followed.

    Returns the file's mtime in nanoseconds. Raises FileError; the old file is untouched then, unless it was
    only the last step, syncing the folder, that failed.
    """
    target = Path(path)
    require_folder(target)
    try:
        remove_leftovers(target)
        new, descriptor = _create_beside(target)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                _set_attributes(descriptor, Attributes(mode, uid, gid))
                if newer_than_ns is not None:
                    _move_mtime_past(descriptor, newer_than_ns)
                os.fsync(descriptor)
                mtime_ns = os.fstat(descriptor).st_mtime_ns
                # Renamed while still open: the flock on it says until then that its writer lives.
                new.replace(target)
        except BaseException:
            with suppress(FileNotFoundError):
                new.unlink()
            raise
        sync_folder(target.parent)
        return mtime_ns
    except OSError as error:
        raise _failed("write", target, error) from error


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Have the disk keep which names a folder holds. Raises OSError."""
    with _opened(path, os.O_DIRECTORY) as descriptor:
        os.fsync(descriptor)


@contextmanager
def locked(path: str | os.PathLike[str], *, timeout: float) -> Iterator[None]:
    """Hold an exclusive flock(2) on the lock file `path`, which is created and stays; its folder must exist.

    Waits up to `timeout` seconds, then raises LockTimeout. The kernel frees the lock when its holder dies.
    """
    try:
        descriptor = _acquire(path, timeout)
    except OSError as error:
        raise _failed("lock", path, error) from error
    try:
        # Only for the message of whoever waits in vain: the lock is the kernel's, and works on a full disk.
        with suppress(OSError):
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        os.ftruncate(descriptor, 0)
        os.close(descriptor)


def _acquire(path: str | os.PathLike[str], timeout: float) -> int:
    deadline = time.monotonic() + timeout
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            while not _try_lock(descriptor):
                if time.monotonic() >= deadline:
                    raise LockTimeout(
                        f"lock {os.fspath(path)}: still held{_holder(descriptor)} after {timeout:g} s; "
                        "wait for that run to end, or allow more time"
                    )
                time.sleep(_LOCK_POLL_SECONDS)
            if _is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        # Somebody removed the file while we waited: others lock a new one by now.
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    """` by process N` where the lock file names a living process, else nothing."""
    text = os.pread(descriptor, 32, 0).strip()
    if not text.isdigit() or not Path(f"/proc/{int(text)}").exists():
        return ""
    return f" by process {int(text)}"


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: str | os.PathLike[str]) -> bool:
    """Whether `path` still names the file that is open."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _create_beside(target: Path) -> tuple[Path, int]:
    """A new empty file, mode 0600, locked for as long as it is open."""
    while True:
        new = target.with_name(f".{target.name}.{secrets.token_hex(4)}{_NEW_SUFFIX}")
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue
        # Another writer may take it for a leftover in the moment before it is locked.
        if _try_lock(descriptor) and _is_at(descriptor, new):
            return new, descriptor
        os.close(descriptor)


def remove_leftovers(target: Path) -> None:
    """Remove new files beside `target` whose writers are dead, told by their lock being free."""
    with os.scandir(target.parent) as entries:
        leftovers = [
            Path(entry.path)
            for entry in entries
            if entry.name.startswith(f".{target.name}.") and entry.name.endswith(_NEW_SUFFIX)
        ]
    for leftover in leftovers:
        with suppress(FileNotFoundError), _opened(leftover, os.O_NOFOLLOW) as descriptor:
            if _try_lock(descriptor):
                leftover.unlink()


def _differ(status: os.stat_result, wanted: Attributes) -> bool:
    return any(want not in (None, have) for want, have in zip(wanted, attributes_of(status)))


def _set_attributes(descriptor: int, wanted: Attributes) -> None:
    # By descriptor: whoever may write in the folder could put a link in the place of a path.
    uid, gid = (-1 if number is None else number for number in (wanted.uid, wanted.gid))
    # First the owner: chown clears set-user-ID and set-group-ID bits.
    os.fchown(descriptor, uid, gid)
    os.fchmod(descriptor, wanted.mode)


def _move_mtime_past(descriptor: int, earlier_ns: int) -> None:
    for step in (None, *_TIMESTAMP_STEPS_NS):
        if step is not None:
            os.utime(descriptor, ns=(time.time_ns(), earlier_ns + step))
        if os.fstat(descriptor).st_mtime_ns > earlier_ns:
            return
    raise OSError(errno.EINVAL, "the file system does not keep a later modification time")


@contextmanager
def _opened(path: str | os.PathLike[str], flags: int = 0) -> Iterator[int]:
    """A descriptor for reading."""
    # Without O_NONBLOCK, opening a pipe would wait for its other end.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _failed(operation: str, path: str | os.PathLike[str], error: OSError) -> FileError:
    hint = "; free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return FileError(f"{operation} {os.fspath(path)}: {error.strerror or error}{hint}")
