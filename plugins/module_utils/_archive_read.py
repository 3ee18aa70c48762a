# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a backup archive as a stream, and trust nothing in it.

Private to the collection: no stable interface. _archive.py describes the format.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import stat
import subprocess
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, cast

from ._archive_format import (
    BLOBS,
    DATA,
    END,
    HEADER,
    INVENTORY,
    PIECE,
    ArchiveError,
    Worker,
    blob_of,
    check_program,
    require_tool,
)

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_AGE_MAGICS = (b"age-encryption.org/v1", b"-----BEGIN AGE")
_MAGIC_LENGTH = 32

# An archive can claim any size for what has to be held in memory.
_HEADER_LIMIT = 1024 * 1024
_RECORD_LIMIT = 1024 * 1024 * 1024
_NAME_LIMIT = 1024 * 1024

# From this size on a blob is worth a thread that hashes it.
_LARGE = 4 * PIECE
_SMALL_FILES = ("compose.yml", "config/", "auth/", "secrets/", "certs/", "proxy/")


class Stream(Protocol):
    """Bytes to be read once."""

    def read(self, size: int = -1, /) -> bytes: ...


class Member(NamedTuple):
    """A file in an archive. Its stream is to be read before the next member is asked for, or left."""

    path: str
    size: int
    #: Unix time, with fractions where the archive has them.
    mtime: float
    mode: int
    stream: Stream


class Archive:
    """A backup of ours that is being read; Archive.open() makes it.

    `header` is the first record; inventory() and members() go on from there, in this order, each once.
    `end` is the last record, empty until members() is through. Everything raises ArchiveError.
    """

    def __init__(self, path: str, stream: Stream) -> None:
        self.path = path
        self.end: dict[str, Any] = {}
        self._stream = stream
        self._members = safe_members(path, stream)
        self._sums: dict[str, str] = {}
        self._files = 0
        self._last_blob = ""
        self.header = self._record(HEADER, _HEADER_LIMIT)
        check_program(path, self.header)
        self._inventory: dict[str, Any] | None = None

    @staticmethod
    @contextmanager
    def open(path: str | os.PathLike[str], *, identity: str | None = None) -> Iterator[Archive]:
        """`identity` is the file with the key of an archive that was encrypted with age."""
        with ExitStack() as opened:
            stream = opened.enter_context(open_stream(path, identity=identity))
            yield Archive(os.fspath(path), stream)

    def inventory(self) -> dict[str, Any]:
        """All that the chain of archives restores, which is the second record."""
        if self._inventory is None:
            self._inventory = self._record(INVENTORY, _RECORD_LIMIT)
        return self._inventory

    def members(self) -> Iterator[Member]:
        """The files after the inventory.

        A blob is checked when it has been read, the others at the end: nothing may be used before that.
        What the consumer does not read is read and checked all the same.
        """
        self.inventory()
        for member in self._members:
            if member.path == END:
                self._end(member)
                return
            if blob_of(member.path) is None:
                yield from self._small(member)
            else:
                yield from self._blob(member)
        raise ArchiveError(f"read {self.path}: it is cut off: its end record is missing; use another backup")

    def _record(self, expected: str, limit: int) -> dict[str, Any]:
        member = next(self._members, None)
        if member is None or member.path != expected:
            if expected == HEADER:
                raise ArchiveError(f"read {self.path}: it is no backup of this collection")
            raise ArchiveError(f"read {self.path}: {expected} is not where it should be")
        return self._json(member, limit)

    def _json(self, member: Member, limit: int) -> dict[str, Any]:
        if member.size > limit:
            raise ArchiveError(f"read {self.path}: {member.path} is larger than {limit} bytes")
        body = member.stream.read()
        self._note(member.path, hashlib.sha256(body).hexdigest())
        try:
            content = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ArchiveError(f"read {self.path}: {member.path} is no JSON ({error})") from error
        if not isinstance(content, dict):
            raise ArchiveError(f"read {self.path}: {member.path} is JSON, but no object")
        return content

    def _note(self, path: str, sha256: str) -> None:
        if path in self._sums:
            raise ArchiveError(f"read {self.path}: {path} is in it twice")
        self._sums[path] = sha256
        self._files += 1

    def _small(self, member: Member) -> Iterator[Member]:
        path = member.path
        if path.startswith(BLOBS) or not path.startswith((DATA, *_SMALL_FILES)):
            raise ArchiveError(f"read {self.path}: it holds {path!r}, which no backup does")
        if self._last_blob:
            raise ArchiveError(f"read {self.path}: {path} comes after blobs, where none should be")
        hasher = hashlib.sha256()
        checked = _Hashed(member.stream, hasher)
        yield member._replace(stream=checked)
        checked.drain()
        self._note(path, hasher.hexdigest())

    def _blob(self, member: Member) -> Iterator[Member]:
        digest = blob_of(member.path)
        if digest is None:
            raise ArchiveError(f"read {self.path}: {member.path} is no blob")
        if member.path <= self._last_blob:
            raise ArchiveError(f"read {self.path}: {member.path} is not in its order, or in it twice")
        self._last_blob = member.path
        self._files += 1
        hasher = digest.hasher()
        if member.size < _LARGE:
            checked = _Hashed(member.stream, hasher)
            yield member._replace(stream=checked)
            checked.drain()
        else:
            worker: Worker[bytes] = Worker(hasher.update)
            try:
                threaded = _Hashed(member.stream, _Threaded(worker))
                yield member._replace(stream=threaded)
                threaded.drain()
            finally:
                worker.stop()
        if hasher.hexdigest() != digest.hex:
            raise ArchiveError(
                f"read {self.path}: the content of {member.path} is not what its digest says; use another backup"
            )

    def _end(self, member: Member) -> None:
        end = self._json(member, _RECORD_LIMIT)
        del self._sums[END]
        stated = _mapping(end.get("sums"))
        for path in sorted(self._sums.keys() | stated.keys()):
            if self._sums.get(path) != stated.get(path):
                raise ArchiveError(
                    f"read {self.path}: {path} is not what its sum at the end says; use another backup"
                )
        if end.get("files") != self._files - 1:
            raise ArchiveError(
                f"read {self.path}: it holds {self._files - 1} files and says {end.get('files')}"
            )
        if next(self._members, None) is not None:
            raise ArchiveError(f"read {self.path}: something comes after its end record")
        # To its end, so that what packed or encrypted it finds its own sums.
        _drain(self.path, self._stream)
        self.end = end


def iterate(path: str | os.PathLike[str], *, identity: str | None = None) -> Iterator[Member]:
    """The files of a backup after its inventory, checked as Archive.members() says."""
    with Archive.open(path, identity=identity) as archive:
        yield from archive.members()


def read_header(path: str | os.PathLike[str], *, identity: str | None = None) -> dict[str, Any]:
    """The first record of a backup. Raises ArchiveError where it is none."""
    with Archive.open(path, identity=identity) as archive:
        return archive.header


def read_inventory(path: str | os.PathLike[str], *, identity: str | None = None) -> dict[str, Any]:
    """The inventory of a backup, unchecked: the sum of it is at the end."""
    with Archive.open(path, identity=identity) as archive:
        return archive.inventory()


def safe_members(path: str, stream: Stream) -> Iterator[Member]:
    """The files of any tar archive (`path` is for messages); folders are left out.

    Raises ArchiveError for paths that are absolute or lead upwards, links, devices, sparse files, and for
    what is no tar archive.
    """
    try:
        with tarfile.open(
            fileobj=cast("IO[bytes]", stream), mode="r|", bufsize=PIECE, tarinfo=_Info, errorlevel=2
        ) as tar:
            for info in tar:
                # It would keep all of them.
                tar.members = []  # type: ignore[attr-defined]
                if not info.isdir():
                    yield _member(path, tar, info)
                else:
                    _check_path(path, info.name)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ArchiveError(f"read {path}: it is damaged, or no tar archive ({error})") from error
    except OSError as error:
        raise ArchiveError(f"read {path}: {error.strerror or error}") from error


def _member(path: str, tar: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    _check_path(path, info.name)
    if not info.isreg() or info.issparse() or info.size < 0 or not math.isfinite(info.mtime):
        kind = "a link" if info.issym() or info.islnk() else "no plain file"
        raise ArchiveError(f"read {path}: it holds {info.name!r}, which is {kind}; nothing of it is used")
    content = cast("IO[bytes]", tar.extractfile(info))
    return Member(info.name, info.size, info.mtime, info.mode, _Translated(path, content))


def _check_path(path: str, name: str) -> None:
    parts = name.split("/")
    # `./` before a path and `/` after a folder are what tar itself writes.
    inner = parts[1:] if parts[0] == "." else parts
    is_safe = name.isprintable() and "\\" not in name
    if not is_safe or any(part in ("", ".", "..") for part in inner):
        raise ArchiveError(f"read {path}: it holds {name!r}, which is no safe path; nothing of it is used")


class _Info(tarfile.TarInfo):
    """A header that does not make us read names without an end into memory, and whose damage is no end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Info:
        try:
            info = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            # After the first header, tarfile takes this for the end of the archive.
            raise tarfile.ReadError(str(error)) from error
        is_for_name = info.type in (
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.SOLARIS_XHDTYPE,
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
        )
        if is_for_name and not 0 <= info.size <= _NAME_LIMIT:
            raise tarfile.ReadError(f"a name of {info.size} bytes")
        return info


class _Translated:
    """A file in an archive; what goes wrong while it is read is an ArchiveError."""

    def __init__(self, path: str, stream: Stream) -> None:
        self._path = path
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._stream.read(size)
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ArchiveError(f"read {self._path}: it is cut off or damaged ({error})") from error
        except OSError as error:
            raise ArchiveError(f"read {self._path}: {error.strerror or error}") from error


class _Updatable(Protocol):
    def update(self, data: bytes, /) -> object: ...


class _Threaded:
    """A hash that is fed in another thread."""

    def __init__(self, worker: Worker[bytes]) -> None:
        self._worker = worker

    def update(self, data: bytes, /) -> None:
        self._worker.put(data)


class _Hashed:
    """A stream that is hashed as it is read."""

    def __init__(self, stream: Stream, hasher: _Updatable) -> None:
        self._stream = stream
        self._hasher = hasher

    def read(self, size: int = -1, /) -> bytes:
        piece = self._stream.read(size)
        if piece:
            self._hasher.update(piece)
        return piece

    def drain(self) -> None:
        while self.read(PIECE):
            pass


@contextmanager
def open_stream(path: str | os.PathLike[str], *, identity: str | None = None) -> Iterator[Stream]:
    """A file unpacked and decrypted, as its first bytes (for gpg its name) say. Raises ArchiveError.

    That a packed or encrypted file is damaged may show only at its end: read to that.
    """
    name = os.fspath(path)
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ArchiveError(f"read {name}: there is no such file") from None
    except OSError as error:
        raise ArchiveError(f"read {name}: {error.strerror or error}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ArchiveError(f"read {name}: it is no file")
    with open(descriptor, "rb", buffering=0) as file:
        with suppress(OSError):  # not every file system knows it
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        magic = os.pread(descriptor, _MAGIC_LENGTH, 0)
        commands = _commands(name, magic, identity)
        is_gzip = magic.startswith(_GZIP_MAGIC) or (commands and name.endswith((".gz.age", ".gz.gpg")))
        with _through(name, commands, file) as stream:
            if is_gzip:
                with gzip.GzipFile(fileobj=cast("IO[bytes]", stream)) as unpacked:
                    yield cast("Stream", unpacked)
            else:
                yield stream


def _commands(name: str, magic: bytes, identity: str | None) -> list[list[str]]:
    """What decrypts and unpacks the file, in this order."""
    commands: list[list[str]] = []
    if magic.startswith(_AGE_MAGICS) or name.endswith(".age"):
        if identity is None:
            raise ArchiveError(
                f"read {name}: it is encrypted with age; name the file with the key (identity)"
            )
        commands.append([require_tool("age"), "--decrypt", f"--identity={identity}"])
    elif name.endswith(".gpg"):
        commands.append([require_tool("gpg"), "--batch", "--quiet", "--decrypt"])
    if magic.startswith(_ZSTD_MAGIC) or (commands and name.endswith((".zst.age", ".zst.gpg"))):
        commands.append([require_tool("zstd"), "-d", "-q", "-c"])
    return commands


@contextmanager
def _through(name: str, commands: list[list[str]], file: IO[bytes]) -> Iterator[Stream]:
    """The file through a chain of programs. What they complain about is raised when it was read to the end."""
    if not commands:
        yield file
        return
    processes: list[subprocess.Popen[bytes]] = []
    source = file
    for command in commands:
        process = subprocess.Popen(command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if source is not file:
            source.close()
        source = cast("IO[bytes]", process.stdout)
        processes.append(process)
    output = _Watched(name, source, commands, processes)
    try:
        yield output
    finally:
        source.close()
        for process in processes:
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()


class _Watched:
    """The output of a chain of programs, whose end is one only where all of them ended well."""

    def __init__(
        self,
        name: str,
        output: Stream,
        commands: list[list[str]],
        processes: list[subprocess.Popen[bytes]],
    ) -> None:
        self._name = name
        self._output = output
        self._commands = commands
        self._processes = processes

    def read(self, size: int = -1, /) -> bytes:
        piece = self._output.read(size)
        if not piece and size:
            self._check()
        return piece

    def _check(self) -> None:
        for command, process in zip(self._commands, self._processes):
            if process.poll() is None:
                process.wait()
            if process.returncode:
                errors = process.stderr.read().decode(errors="replace").strip() if process.stderr else ""
                reason = errors or f"exit code {process.returncode}"
                raise ArchiveError(f"read {self._name}: {Path(command[0]).name}: {reason}")


def _drain(path: str, stream: Stream) -> None:
    rest = _Translated(path, stream)
    while rest.read(PIECE):
        pass


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
