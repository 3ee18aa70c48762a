# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the writer and the reader of backup archives have in common: names, the sidecar, threads.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import enum
import json
import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

from ._errors import RegistryError
from ._files import read_file
from ._reference import HEX_LENGTHS, Digest, InvalidReference

PROGRAM = "dockyard.registry"
FORMAT = 1

HEADER = "dockyard-backup.json"
INVENTORY = "inventory.json"
END = "dockyard-backup.end.json"
#: Where the registry's own data is in an archive, below the root as on the host.
DATA = "data/docker/registry/v2/"
BLOBS = f"{DATA}blobs/"

#: How much is read, hashed and written at a time.
PIECE = 512 * 1024

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.tar(?:\.gz|\.zst)?(?:\.age|\.gpg)?")
_PIECES_UNDER_WAY = 16

_Job = TypeVar("_Job")


class ArchiveError(RegistryError):
    """An archive cannot be written, or is not one that may be restored."""


class Compression(str, enum.Enum):
    NONE = "none"
    GZIP = "gzip"
    #: By the program `zstd`.
    ZSTD = "zstd"


class Encryption(NamedTuple):
    """For whom an archive is encrypted, by the program `age` or `gpg`."""

    tool: str
    recipients: tuple[str, ...]


def archive_suffix(compression: Compression, encryption: Encryption | None) -> str:
    """The end of an archive's name: `.tar`, `.tar.gz`, `.tar.zst.age` …"""
    packed = {Compression.NONE: "", Compression.GZIP: ".gz", Compression.ZSTD: ".zst"}[compression]
    return f".tar{packed}{f'.{encryption.tool}' if encryption else ''}"


def is_archive_name(name: str) -> bool:
    """Whether a file may be an archive by its name."""
    return _NAME.fullmatch(name) is not None


def sidecar_of(path: str | os.PathLike[str]) -> Path:
    """The small file beside an archive that says what is in it, and its SHA-256."""
    return Path(f"{os.fspath(path)}.json")


def read_sidecar(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What the sidecar of the archive `path` says; None where there is none. Raises ArchiveError."""
    sidecar = sidecar_of(path)
    found = read_file(sidecar)
    if found is None:
        return None
    try:
        fields = json.loads(found[0])
    except ValueError as error:
        raise ArchiveError(f"read {sidecar}: it is no JSON ({error}); remove it") from error
    check_program(os.fspath(sidecar), fields)
    return dict(fields)


def check_program(path: str, fields: Any) -> None:
    """Raise ArchiveError unless a header or sidecar is of this program and a format that it knows."""
    if not isinstance(fields, dict) or fields.get("program") != PROGRAM:
        raise ArchiveError(f"read {path}: it was not written by {PROGRAM}")
    if fields.get("format") != FORMAT:
        raise ArchiveError(
            f"read {path}: its format is {fields.get('format')}, and this version of the collection reads "
            f"{FORMAT}; use the collection's version {fields.get('collection_version') or 'that wrote it'}"
        )


def blob_of(path: str) -> Digest | None:
    """The digest of the blob that is at a path of an archive; None where another file is."""
    if not path.startswith(BLOBS):
        return None
    algorithm, _slash, rest = path[len(BLOBS) :].partition("/")
    shard, _slash, rest = rest.partition("/")
    value, _slash, name = rest.partition("/")
    if algorithm not in HEX_LENGTHS or name != "data" or value[:2] != shard:
        return None
    try:
        return Digest(f"{algorithm}:{value}")
    except InvalidReference:
        return None


def require_tool(name: str) -> str:
    """The path of a program that packs or encrypts. Raises ArchiveError where there is none."""
    found = shutil.which(name)
    if found is None:
        raise ArchiveError(f"run {name}: this host has no such program; install the package {name}")
    return found


class Worker(Generic[_Job]):
    """A thread that works on what it is given, in order, a few pieces behind."""

    def __init__(self, work: Callable[[_Job], object]) -> None:
        self._work = work
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._room = threading.BoundedSemaphore(_PIECES_UNDER_WAY)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, job: _Job) -> None:
        """Hand it over, and wait while too much is under way. Raises what the work has raised."""
        if self._error is not None:
            raise self._error
        self._room.acquire()
        self._jobs.put(job)

    def close(self) -> None:
        """Wait until all is done. Raises what the work has raised."""
        self.stop()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Wait until all is done, whatever became of it."""
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            # After an error the rest is thrown away, so that nobody waits for room.
            if self._error is None:
                try:
                    self._work(job)
                except BaseException as error:  # raised again in the other thread
                    self._error = error
            self._room.release()
