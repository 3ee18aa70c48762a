# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a backup archive: every byte is read once and hashed twice, for its blob and for the archive.

Private to the collection: no stable interface. _archive.py describes the format.
"""

from __future__ import annotations

import errno
import fcntl
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple, cast

from ._archive_format import (
    BLOBS,
    END,
    FORMAT,
    HEADER,
    PIECE,
    PROGRAM,
    ArchiveError,
    Compression,
    Encryption,
    Worker,
    require_tool,
    sidecar_of,
)
from ._files import atomic_write, sync_folder
from ._reference import Digest
from ._table import timestamp

_ZEROS = bytes(tarfile.RECORDSIZE)
_GZIP_LEVEL = 6
#: The disk is given work each time so many bytes have gathered, rather than all of it at the end.
_WRITE_BACK = 256 * 1024**2


class Written(NamedTuple):
    """A finished archive."""

    path: Path
    #: Of the file: bytes, and its SHA-256 in hexadecimal digits.
    size: int
    sha256: str


class ArchiveWriter:
    """Writes `folder`/`name`, which is there only when all of it is.

    Until finish() the file is called `.<name>.partial`. As a context manager it removes that after an error.
    `header` is completed by the program, the format, and `created` (a Unix time). Methods raise ArchiveError,
    with the operating system's reason.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        name: str,
        header: Mapping[str, Any],
        *,
        created: float,
        compression: Compression = Compression.NONE,
        encryption: Encryption | None = None,
    ) -> None:
        self._created = created
        self.path = Path(folder) / name
        self._partial = self.path.with_name(f".{name}.partial")
        self._header = {"program": PROGRAM, "format": FORMAT, **header, "created": timestamp(created)}
        self._sums: dict[str, str] = {}
        self._waiting = bytearray()
        self._position = 0
        self._files = 0
        try:
            self._file = _File(self._partial)
            try:
                self._sink = _sink(self._file, compression, encryption)
            except BaseException:
                self._file.abandon()
                self._partial.unlink()
                raise
        except OSError as error:
            raise self._failed(error) from error
        self._hashing: Worker[tuple[Any, bytes]] = Worker(_call)
        self.add_json(HEADER, self._header)

    def __enter__(self) -> ArchiveWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_details: object) -> None:
        if kind is not None:
            self.abandon()

    def add_json(self, path: str, content: Any) -> None:
        """Add a file of ours."""
        self.add_file(path, json.dumps(content, separators=(",", ":")).encode(), self._created)

    def add_file(self, path: str, content: bytes, mtime: float, mode: int = 0o600) -> None:
        """Add a small file; its sum is among those at the end. `mtime` is a Unix time."""
        if path in self._sums:
            raise ArchiveError(f"write {self.path}: {path} is in it already")
        self._sums[path] = hashlib.sha256(content).hexdigest()
        self._add(_head(path, len(content), mtime, mode), content)

    def add_blob(self, digest: Digest, size: int, file: BinaryIO, mtime: float, mode: int = 0o644) -> None:
        """Add a blob of `size` bytes from a file. That its content is another one shows there or later."""
        hasher, name = digest.hasher(), _name_of(file)
        self._put(_head(_place_of(digest), size, mtime, mode))
        left = size
        while left:
            try:
                piece = file.read(min(left, PIECE))
            except OSError as error:
                raise ArchiveError(
                    f"read {name}: {error.strerror or error}; see what the disk says"
                ) from error
            if not piece:
                break
            self._guard(self._hashing, (hasher.update, piece))
            self._put(piece)
            left -= len(piece)
        if left or file.read(1):
            raise ArchiveError(f"read {name}: it has not the {size} bytes that it had")

        def check(_nothing: bytes) -> None:
            if hasher.hexdigest() != digest.hex:
                raise ArchiveError(
                    f"read {name}: its content is not what its digest says; check.yml tells which "
                    "tags need it, and how it is repaired"
                )

        self._guard(self._hashing, (check, b""))
        self._put(_ZEROS[: -size % tarfile.BLOCKSIZE])
        self._files += 1

    def add_small_blob(self, digest: Digest, content: bytes, mtime: float, mode: int = 0o644) -> None:
        """Add a blob whose content the caller has checked."""
        self._add(_head(_place_of(digest), len(content), mtime, mode), content)

    def finish(self, end: Mapping[str, Any], sidecar: Mapping[str, Any]) -> Written:
        """Write the end record and the sidecar, and give the file its name once it is on the disk."""
        self._guard_close(self._hashing)
        content = {**end, "files": self._files, "sums": self._sums}
        body = json.dumps(content, separators=(",", ":")).encode()
        self._add(_head(END, len(body), self._created, 0o600), body)
        self._put(_ZEROS[: 2 * tarfile.BLOCKSIZE])
        self._put(_ZEROS[: -self._position % tarfile.RECORDSIZE])
        try:
            self._flush()
            self._sink.close()
            size, sha256 = self._file.close()
            # First the sidecar: with the archive there, all is there.
            fields = {**self._header, **sidecar, "sha256": sha256, "size": size}
            atomic_write(sidecar_of(self.path), json.dumps(fields, indent=1).encode(), mode=0o600)
            self._partial.replace(self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise self._failed(error) from error
        return Written(self.path, size, sha256)

    def abandon(self) -> None:
        """Give it up; nothing is left behind."""
        self._hashing.stop()
        self._sink.abandon()
        self._file.abandon()
        with suppress(FileNotFoundError):
            self._partial.unlink()

    def _add(self, head: bytes, content: bytes) -> None:
        self._put(head)
        self._put(content)
        self._put(_ZEROS[: -len(content) % tarfile.BLOCKSIZE])
        self._files += 1

    def _put(self, piece: bytes) -> None:
        """Small pieces are gathered into large ones."""
        self._position += len(piece)
        if len(piece) < PIECE // 4:
            self._waiting += piece
            if len(self._waiting) < PIECE:
                return
            piece = b""
        try:
            self._flush()
            if piece:
                self._sink.write(piece)
        except OSError as error:
            raise self._failed(error) from error

    def _flush(self) -> None:
        if self._waiting:
            self._sink.write(bytes(self._waiting))
            self._waiting.clear()

    def _guard(self, worker: Worker[tuple[Any, bytes]], job: tuple[Any, bytes]) -> None:
        try:
            worker.put(job)
        except OSError as error:
            raise self._failed(error) from error

    def _guard_close(self, worker: Worker[tuple[Any, bytes]]) -> None:
        try:
            worker.close()
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> ArchiveError:
        hint = "; free some space, or keep fewer backups" if error.errno in _FULL else ""
        return ArchiveError(f"write {self._partial}: {error.strerror or error}{hint}")


_FULL = (errno.ENOSPC, errno.EDQUOT)


class _File:
    """The archive itself: one thread writes it, another one hashes it."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        # It says that its writer lives, so that nobody takes it for the leftover of a killed one.
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._hasher = hashlib.sha256()
        self._size = 0
        self._handed_over = 0
        self._writing: Worker[bytes] = Worker(self._write)
        self._hashing: Worker[bytes] = Worker(self._hasher.update)

    def write(self, piece: bytes) -> None:
        self._writing.put(piece)
        self._hashing.put(piece)

    def close(self) -> tuple[int, str]:
        """Returns its size and SHA-256 once it is on the disk."""
        self._writing.close()
        self._hashing.close()
        os.fsync(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
        return self._size, self._hasher.hexdigest()

    def abandon(self) -> None:
        self._writing.stop()
        self._hashing.stop()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, piece: bytes) -> None:
        self._size += len(piece)
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        gathered = self._size - self._handed_over
        if gathered >= _WRITE_BACK:
            # Linux begins to write what it is told that nobody needs, without waiting for it; and what a backup
            # writes does not push what the registry serves out of memory.
            with suppress(OSError):
                os.posix_fadvise(self._descriptor, self._handed_over, gathered, os.POSIX_FADV_DONTNEED)
            self._handed_over = self._size


class _Plain:
    """What is written goes to the archive as it is."""

    def __init__(self, file: _File) -> None:
        self._file = file

    def write(self, piece: bytes) -> None:
        self._file.write(piece)

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass


class _Gzip:
    """What is written is packed in a thread."""

    def __init__(self, target: _Plain | _Programs) -> None:
        self._target = target
        # No time and no name in it: the same content gives the same archive.
        adapter: Any = target
        self._packer = gzip.GzipFile("", "wb", _GZIP_LEVEL, adapter, mtime=0)
        self._packing: Worker[bytes] = Worker(self._packer.write)

    def write(self, piece: bytes) -> None:
        self._packing.put(piece)

    def close(self) -> None:
        self._packing.close()
        self._packer.close()
        self._target.close()

    def abandon(self) -> None:
        # Programs first: they may be what the thread waits for.
        self._target.abandon()
        self._packing.stop()


class _Programs:
    """What is written goes through a chain of programs, and what comes out of the last to the archive."""

    def __init__(self, commands: list[list[str]], file: _File) -> None:
        self._commands = commands
        self._file = file
        self._processes: list[subprocess.Popen[bytes]] = []
        source: IO[bytes] | int = subprocess.PIPE
        for command in commands:
            process = subprocess.Popen(
                command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
            )
            if isinstance(source, io.IOBase):
                source.close()
            source = cast("IO[bytes]", process.stdout)
            self._processes.append(process)
        self._input = cast("IO[bytes]", self._processes[0].stdin)
        self._feeding: Worker[bytes] = Worker(self._feed)
        # One job: to copy until the end.
        self._draining: Worker[IO[bytes]] = Worker(self._drain)
        self._draining.put(cast("IO[bytes]", self._processes[-1].stdout))

    def write(self, piece: bytes) -> None:
        try:
            self._feeding.put(piece)
        except BrokenPipeError:
            self._finish()
            raise

    def close(self) -> None:
        with suppress(BrokenPipeError):
            self._feeding.close()
        self._finish()

    def abandon(self) -> None:
        for process in self._processes:
            process.kill()
        self._feeding.stop()
        self._input.close()
        self._draining.stop()
        for process in self._processes:
            process.wait()

    def _finish(self) -> None:
        self._input.close()
        self._draining.close()
        for command, process in zip(self._commands, self._processes):
            errors = process.stderr.read().decode(errors="replace").strip() if process.stderr else ""
            if process.wait():
                raise ArchiveError(f"run {command[0]}: {errors or f'exit code {process.returncode}'}")

    def _feed(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            rest = rest[self._input.write(rest) :]

    def _drain(self, output: IO[bytes]) -> None:
        while piece := output.read(PIECE):
            self._file.write(piece)


def _sink(file: _File, compression: Compression, encryption: Encryption | None) -> _Plain | _Gzip | _Programs:
    commands = []
    if compression is Compression.ZSTD:
        commands.append([require_tool("zstd"), "-q", "-c"])
    if encryption is not None:
        commands.append(require_encryption(encryption))
    target = _Programs(commands, file) if commands else _Plain(file)
    return _Gzip(target) if compression is Compression.GZIP else target


def require_encryption(encryption: Encryption) -> list[str]:
    """The command that encrypts. Raises ArchiveError where it cannot."""
    if not encryption.recipients:
        raise ArchiveError(f"encrypt with {encryption.tool}: there are no recipients; name at least one")
    if encryption.tool == "age":
        options = [f"--recipient={recipient}" for recipient in encryption.recipients]
        return [require_tool("age"), "--encrypt", *options]
    if encryption.tool == "gpg":
        options = [f"--recipient={recipient}" for recipient in encryption.recipients]
        return [require_tool("gpg"), "--batch", "--yes", "--trust-model=always", *options, "--encrypt"]
    raise ArchiveError(f"encrypt with {encryption.tool}: use age or gpg")


def _head(path: str, size: int, mtime: float, mode: int) -> bytes:
    """The header of a file in the archive: nobody's, so that root's `tar -x` gives it to root."""
    info = tarfile.TarInfo(path)
    info.size, info.mode = size, mode
    info.mtime = int(mtime) if mtime == int(mtime) else mtime  # pax keeps fractions
    if isinstance(info.mtime, int):
        # Long paths fit into it where they can be split, which saves half of what a link needs.
        with suppress(ValueError):
            return info.tobuf(tarfile.USTAR_FORMAT)
    return info.tobuf(tarfile.PAX_FORMAT)


def _place_of(digest: Digest) -> str:
    return f"{BLOBS}{digest.algorithm}/{digest.hex[:2]}/{digest.hex}/data"


def _call(job: tuple[Any, bytes]) -> None:
    function, argument = job
    function(argument)


def _name_of(file: BinaryIO) -> str:
    name = getattr(file, "name", "")
    if isinstance(name, int):
        with suppress(OSError):
            return str(Path(f"/proc/self/fd/{name}").readlink())
    return str(name)
