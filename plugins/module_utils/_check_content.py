# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hash the blobs of a store and compare each with its name, side by side with a working registry.

Private to the collection: no stable interface.

What a blob's file looked like when it was last read (size, times, inode) can be kept in a state file, so that a
later run reads only what changed since. A disk that loses bits does not change these: read all now and then.
"""

from __future__ import annotations

import os
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ._errors import RegistryError
from ._files import atomic_write, read_file
from ._progress import Progress, silent
from ._reference import Digest
from ._storage import Blob, Code, Problem, Storage, StorageError, is_damage, is_recent, unreadable

PIECE = 1024 * 1024
# So many blobs are put into the order in which they lie on the disk.
_BATCH = 4096
_QUEUE_FACTOR = 4
# Registries up to 3.0 write manifests in place: what makes no sense and may be in writing is read again.
_ATTEMPTS = 10
_PAUSE_SECONDS = 0.02
# A file that was changed so shortly before it was read may change again without it showing in its times.
_RACY_SECONDS = 2.0


class Rate:
    """At most so many bytes a second, over all threads; 0 for as many as there are."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._free = time.monotonic()

    @property
    def piece(self) -> int:
        """How much to read at once, so that the flow is even."""
        return PIECE if not self.limit else max(4096, min(PIECE, self.limit // 8))

    def take(self, count: int) -> None:
        """Wait until it is this many bytes' turn."""
        if not self.limit:
            return
        with self._lock:
            turn = max(self._free, time.monotonic())
            self._free = turn + count / self.limit
        time.sleep(max(0.0, turn - time.monotonic()))


class Fingerprint(NamedTuple):
    """What changes when somebody writes to a file or puts another one in its place."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Fingerprint:
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


class Seen(NamedTuple):
    """A blob as it was read."""

    fingerprint: Fingerprint
    corrupt: bool


class State:
    """What was read of which blob: the state file, and its content in memory."""

    _HEADER = b"dockyard.registry check-state 1\n"
    _RECORD = struct.Struct(">64s?Qqq Q")

    def __init__(self, path: Path | None = None) -> None:
        self._seen: dict[bytes, bytes] = {}
        body = self._read(path) if path else b""
        for start in range(0, len(body), self._RECORD.size):
            record = body[start : start + self._RECORD.size]
            self._seen[record[:64]] = record[64:]

    def _read(self, path: Path) -> bytes:
        """The records; none where there is no state, an older kind of it, or a damaged one."""
        found = read_file(path)
        if found is None or not found[0].startswith(self._HEADER):
            return b""
        body = found[0][len(self._HEADER) : -4]
        whole = found[0][-4:] == struct.pack(">I", zlib.crc32(body)) and not len(body) % self._RECORD.size
        return body if whole else b""

    def get(self, digest: Digest) -> Seen | None:
        rest = self._seen.get(_raw(digest))
        if rest is None:
            return None
        _digest, corrupt, *fingerprint = self._RECORD.unpack(_raw(digest) + rest)
        return Seen(Fingerprint(*fingerprint), corrupt)

    def put(self, digest: Digest, seen: Seen) -> None:
        self._seen[_raw(digest)] = self._RECORD.pack(_raw(digest), seen.corrupt, *seen.fingerprint)[64:]

    def add(self, other: State) -> None:
        """Take over what another one has seen."""
        self._seen.update(other._seen)

    def write(self, path: Path) -> None:
        """Replace the state file."""
        path.parent.mkdir(mode=0o700, exist_ok=True)
        body = b"".join(digest + rest for digest, rest in self._seen.items())
        atomic_write(path, self._HEADER + body + struct.pack(">I", zlib.crc32(body)), mode=0o600)


def _raw(digest: Digest) -> bytes:
    return bytes.fromhex(digest.hex).ljust(64, b"\0")


class Content(NamedTuple):
    """What reading the blobs has found."""

    problems: list[Problem]
    hashed_blobs: int
    hashed_bytes: int
    #: Blobs that were not read, because they have not changed since they were.
    unchanged_blobs: int


class Reader:
    """Reads the blobs of a store with several threads; `limit` is in bytes a second, 0 for none."""

    def __init__(
        self, storage: Storage, *, threads: int = 2, limit: int = 0, progress: Progress = silent
    ) -> None:
        if threads < 1 or limit < 0:
            raise RegistryError(f"check: {threads} threads and a rate of {limit}; both must be positive")
        self._storage = storage
        self._threads = threads
        self._rate = Rate(limit)
        self._progress = progress
        self._lock = threading.Lock()
        self._done = 0
        self._total = 0

    def read(self, before: State, after: State, *, total: int = 0) -> Content:
        """Read all blobs but those that are as `before` has seen them, and write down in `after` what they are.

        `total` is how many bytes are expected, for the progress.
        """
        self._done, self._total = 0, total
        problems: list[Problem] = []
        hashed = hashed_bytes = unchanged = 0
        for blob, known, seen in self._side_by_side(self._to_read(before)):
            if isinstance(seen, Problem):
                problems.append(seen)
                continue
            if seen is None:
                continue
            if known:
                unchanged += 1
            else:
                hashed += 1
                hashed_bytes += seen.fingerprint.size
            if seen.corrupt:
                problems.append(self._corrupt(blob.digest, seen.fingerprint.size))
            if known or time.time() - seen.fingerprint.mtime_ns / 1e9 > _RACY_SECONDS:
                after.put(blob.digest, seen)
        return Content(problems, hashed, hashed_bytes, unchanged)

    def look_at(self, digest: Digest) -> Seen | Problem | None:
        """Read one blob; None where there is none, or somebody is writing it."""
        seen = self._read_once(digest)
        for _attempt in range(_ATTEMPTS):
            if not isinstance(seen, Seen) or not seen.corrupt:
                return seen
            status = self._storage.blob_status(digest)
            if status is None:
                return None
            written = Fingerprint.of(status) != seen.fingerprint
            if not written and not is_recent(status):
                return seen
            time.sleep(_PAUSE_SECONDS)
            if written:
                seen = self._read_once(digest)
        return None if written else seen

    def _corrupt(self, digest: Digest, size: int) -> Problem:
        path = self._storage.blob_path(digest)
        if size == 0:
            return Problem(Code.BLOB_EMPTY, path, "the blob has 0 bytes", digest=digest)
        return Problem(Code.BLOB_CORRUPT, path, "its content is not what its digest says", digest=digest)

    def _to_read(self, before: State) -> Iterator[tuple[Blob, Seen | None]]:
        """The blobs, and what is known of those that need no reading, roughly as they lie on the disk."""
        blobs = (blob for blob in self._storage.blobs() if not isinstance(blob, Problem))
        while batch := list(islice(blobs, _BATCH)):
            found = []
            for blob in batch:
                status = self._storage.blob_status(blob.digest)
                if status is not None:
                    known = before.get(blob.digest)
                    if known is not None and known.fingerprint != Fingerprint.of(status):
                        known = None
                    found.append((status.st_ino, blob, known))
            found.sort(key=lambda item: item[0])
            yield from ((blob, known) for _inode, blob, known in found)

    def _side_by_side(
        self, items: Iterable[tuple[Blob, Seen | None]]
    ) -> Iterator[tuple[Blob, bool, Seen | Problem | None]]:
        with ThreadPoolExecutor(self._threads) as executor:
            waiting: deque[tuple[Blob, Future[Seen | Problem | None]]] = deque()
            try:
                for blob, known in items:
                    if known is not None:
                        self._advance(blob.size)
                        yield blob, True, known
                        continue
                    waiting.append((blob, executor.submit(self.look_at, blob.digest)))
                    if len(waiting) > self._threads * _QUEUE_FACTOR:
                        yield _result(waiting.popleft())
                while waiting:
                    yield _result(waiting.popleft())
            finally:
                for _blob, future in waiting:
                    future.cancel()

    def _read_once(self, digest: Digest) -> Seen | Problem | None:
        try:
            file = self._storage.open_blob(digest)
        except StorageError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and is_damage(cause):
                return unreadable(self._storage.blob_path(digest), cause)._replace(digest=digest)
            if self._storage.blob_status(digest) is None:
                return None
            raise
        with file:
            try:
                status = os.fstat(file.fileno())
                same = self._hash(file, digest, status.st_size)
            except OSError as error:
                return unreadable(self._storage.blob_path(digest), error)._replace(digest=digest)
            return Seen(Fingerprint.of(status), corrupt=not same)

    def _hash(self, file: BinaryIO, digest: Digest, size: int) -> bool:
        """Whether a file's content is that of the digest. The system's cache is afterwards as it was before."""
        descriptor = file.fileno()
        hasher = digest.hasher()
        piece = self._rate.piece
        starts = range(0, size, PIECE)
        # Or a look at one place would read many.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        cached = [_is_cached(descriptor, start) for start in starts]
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        buffer = bytearray(min(piece, max(size, 1)))
        view = memoryview(buffer)
        place = 0
        while True:
            self._rate.take(min(len(buffer), size - place))
            count = os.preadv(descriptor, [buffer], place)
            if not count:
                break
            hasher.update(view[:count])
            place += count
            self._advance(count)
        for start, was_cached in zip(starts, cached):
            if not was_cached:
                os.posix_fadvise(descriptor, start, PIECE, os.POSIX_FADV_DONTNEED)
        return hasher.hexdigest() == digest.hex

    def _advance(self, count: int) -> None:
        with self._lock:
            self._done += count
            self._progress("read blobs", self._done, max(self._total, self._done))


def _result(
    waiting: tuple[Blob, Future[Seen | Problem | None]],
) -> tuple[Blob, bool, Seen | Problem | None]:
    blob, future = waiting
    return blob, False, future.result()


def _is_cached(descriptor: int, place: int) -> bool:
    """Whether the system has this place of a file in memory, perhaps because clients pull it again and again."""
    try:
        return bool(os.preadv(descriptor, [bytearray(1)], place, os.RWF_NOWAIT))
    except OSError:  # not in memory, or a file system that does not say
        return False
