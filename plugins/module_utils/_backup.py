# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Back up a registry that goes on working: all of it, or what is new since the last backup.

    run(Request(data="/opt/registry/data", root="/opt/registry", folder="/var/backups/registry", ...))

Private to the collection: no stable interface.

The archive gets its name only when all of it is on the disk, and is then read again. Nothing of the registry is
touched. Whoever runs this holds the storage lock, since a garbage collection takes blobs away.
"""

from __future__ import annotations

import enum
import hashlib
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ._archive import (
    INVENTORY,
    Archive,
    ArchiveError,
    ArchiveWriter,
    Compression,
    Encryption,
    Written,
    archive_suffix,
    blob_of,
)
from ._archive_format import PIECE, require_tool
from ._archive_write import require_encryption
from ._backup_contents import BackupError, Contents, Entry, read_contents, small_files
from ._backup_folder import (
    Keep,
    Listed,
    choose_removed,
    clean,
    list_backups,
    newest_chain,
    read_blob_list,
    remove,
    write_blob_list,
)
from ._errors import RegistryError
from ._journal import Journal
from ._progress import Progress, silent
from ._reference import Digest
from ._storage import MANIFEST_LIMIT, Blob, Problem, Storage
from ._table import counted, size

# What a file takes in an archive beside its content: its header, perhaps a second one, and what fills its block.
_FILE_OVERHEAD = 2048
# Left free beside the archive.
_RESERVE = 16 * 1024 * 1024
_UNDER_WAY = {"garbage-collection": "a garbage collection", "restore": "a restore"}
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class Kind(str, enum.Enum):
    """Which blobs are carried."""

    #: Those that are new since the newest backup; all where there is none that can be built on.
    AUTO = "auto"
    FULL = "full"
    INCREMENTAL = "incremental"


class Request(NamedTuple):
    """What is wanted of run()."""

    #: The folder that is mounted at /var/lib/registry.
    data: str
    #: Where the archive goes.
    folder: str
    #: The registry's own folder, with compose.yml and others; None backs up the data alone.
    root: str | None = None
    kind: Kind = Kind.FULL
    #: The name of the archive to build on; None takes the newest.
    parent: str | None = None
    #: Where a chain has so many archives, the next is a full one. None makes it as long as it gets.
    longest_chain: int | None = None
    #: Read the archives that this one builds on first, and refuse damaged ones.
    verify_parent: bool = False
    #: Take manifests without a tag.
    untagged: bool = True
    certificates: bool = False
    compression: Compression = Compression.NONE
    encryption: Encryption | None = None
    #: Do without blobs that cannot be read or are corrupt, and name them.
    leave_out: bool = False
    #: Read the archive again.
    verify: bool = True
    keep: Keep = Keep()
    registry_version: str = ""
    collection_version: str = ""
    check_mode: bool = False


class _Base(NamedTuple):
    """What a backup builds on."""

    parent: Listed | None
    #: The blobs that need not be carried.
    blobs: set[Digest]
    #: Why it is a full one though an incremental one was wanted.
    reason: str = ""


def run(request: Request, progress: Progress = silent) -> dict[str, Any]:
    """Back up, or in check mode say what would be. Returns the result of the module `backup`.

    Raises RegistryError; what is in the folder is as it was then.
    """
    began = time.monotonic()
    folder = Path(request.folder)
    _require_sense(request)
    leftovers = [] if request.check_mode else _prepare(folder)
    storage = Storage(request.data)
    progress("read the registry")
    contents = read_contents(storage, untagged=request.untagged)
    parts, files = small_files(request.root, certificates=request.certificates) if request.root else ([], [])
    listed = list_backups(folder)
    base = _choose_base(request, listed, progress)
    carried = [blob for blob in contents.blobs if blob.digest not in base.blobs]
    left_out = _find_unreadable(storage, contents, carried, progress) if request.leave_out else []
    if left_out:
        gone = {Digest(one["digest"]) for one in left_out}
        contents.leave_out(gone)
        carried = [blob for blob in carried if blob.digest not in gone]
    _require_space(folder, contents, carried, files)

    work = _Work(request, storage, contents, carried, ["data", *parts], files, base)
    result: dict[str, Any] = {
        "changed": True,
        "kind": work.header["kind"],
        "parent": work.header["parent"],
        **work.header["counts"],
        "dropped": contents.dropped,
        "left_out": left_out,
        "problems": contents.problems,
        "leftovers": leftovers,
        "notes": [base.reason] if base.reason else [],
    }
    if request.check_mode:
        would = _would_be(work, listed)
        result.update(file=os.fspath(would.path), size=None, sha256=None, verified=False)
        result["removed"] = [one.name for one in _superfluous(request, [*listed, would], would.name)]
    else:
        written = work.write(progress)
        result.update(file=os.fspath(written.path), size=written.size, sha256=written.sha256)
        result["verified"] = request.verify
        superfluous = _superfluous(request, list_backups(folder), written.path.name)
        for one in superfluous:
            remove(one)
        result["removed"] = [one.name for one in superfluous]
    result["seconds"] = round(time.monotonic() - began, 3)
    return result


class _Work:
    """One archive to be written."""

    def __init__(
        self,
        request: Request,
        storage: Storage,
        contents: Contents,
        carried: list[Blob],
        parts: list[str],
        files: list[Entry],
        base: _Base,
    ) -> None:
        self._request = request
        self._storage = storage
        self._contents = contents
        self._carried = carried
        self._files = files
        self._bytes = sum(blob.size for blob in carried)
        self.created, self._name = _new_name(request, "incremental" if base.parent else "full")
        self.header: dict[str, Any] = {
            "name": self._name,
            "kind": "incremental" if base.parent else "full",
            "parent": base.parent.name if base.parent else None,
            "collection_version": request.collection_version,
            "registry_version": request.registry_version,
            "hostname": os.uname().nodename,
            "root": _identity(request),
            "parts": parts,
            "counts": {
                **contents.counts(),
                "carried_blobs": len(carried),
                "carried_bytes": self._bytes,
            },
        }

    @property
    def path(self) -> Path:
        return Path(self._request.folder) / self._name

    def write(self, progress: Progress) -> Written:
        try:
            written = self._write(progress)
        except BaseException:
            with suppress(RegistryError):
                clean(self._request.folder)
            raise
        if self._request.verify:
            self._verify(written, progress)
        return written

    def _write(self, progress: Progress) -> Written:
        request = self._request
        with ArchiveWriter(
            request.folder,
            self._name,
            self.header,
            created=self.created,
            compression=request.compression,
            encryption=request.encryption,
        ) as writer:
            writer.add_json(INVENTORY, self._contents.inventory())
            progress("write", 0, self._bytes)
            for entry in (*self._files, *self._contents.links()):
                writer.add_file(*entry)
            self._write_blobs(writer, progress)
            write_blob_list(self.path, (blob.digest for blob in self._contents.blobs))
            progress("wait for the disk")
            return writer.finish({"dropped": self._contents.dropped}, {})

    def _write_blobs(self, writer: ArchiveWriter, progress: Progress) -> None:
        done = 0
        for blob in self._carried:
            mtime = self._storage.written(self._storage.blob_path(blob.digest))
            if blob.size <= MANIFEST_LIMIT:
                # It may be a manifest, which a registry up to 3.0 writes in place.
                body = self._storage.read_manifest(blob.digest)
                if isinstance(body, Problem):
                    raise BackupError(_unreadable(body, self._contents.needed_by(blob.digest)))
                writer.add_small_blob(blob.digest, body, self.created if mtime is None else int(mtime))
            else:
                with self._storage.open_blob(blob.digest) as file:
                    writer.add_blob(
                        blob.digest, blob.size, file, self.created if mtime is None else int(mtime)
                    )
            done += blob.size
            progress("write", done, self._bytes)

    def _verify(self, written: Written, progress: Progress) -> None:
        """Read the archive as it is on the disk; a damaged one is removed."""
        _forget_pages(written.path)
        try:
            if self._request.encryption is not None:
                # Its key is not here, and should not be.
                verify_sum(written.path, written.sha256, written.size, progress)
            else:
                self._verify_content(written, progress)
        except RegistryError as error:
            for listed in list_backups(written.path.parent):
                if listed.path == written.path:
                    remove(listed)
            raise BackupError(f"{error}; it is removed, see what the disk says") from error

    def _verify_content(self, written: Written, progress: Progress) -> None:
        expected = {blob.digest for blob in self._carried}
        done = 0
        with Archive.open(written.path) as archive:
            if archive.inventory() != self._contents.inventory():
                raise ArchiveError(f"read {written.path}: its inventory is not what was written")
            for member in archive.members():
                digest = blob_of(member.path)
                if digest is not None:
                    expected.discard(digest)
                    done += member.size
                    progress("verify", done, self._bytes)
        if expected:
            raise ArchiveError(f"read {written.path}: {counted(len(expected), 'blob')} are not in it")


def verify_sum(path: Path, sha256: str, length: int, progress: Progress = silent) -> None:
    """Raise ArchiveError unless a file has this SHA-256 (hexadecimal) and length."""
    hasher, done = hashlib.sha256(), 0
    try:
        with path.open("rb", buffering=0) as file:
            while piece := file.read(PIECE):
                hasher.update(piece)
                done += len(piece)
                progress("verify", done, length)
    except OSError as error:
        raise ArchiveError(f"read {path}: {error.strerror or error}") from error
    if (hasher.hexdigest(), done) != (sha256, length):
        raise ArchiveError(f"read {path}: it is not what its sum says; it is damaged")


def refuse_while_under_way(root: str | None) -> None:
    """Raise BackupError where a garbage collection or a restore of this registry was broken off."""
    for operation, words in _UNDER_WAY.items():
        if root is not None and Journal(root, operation).read() is not None:
            raise BackupError(
                f"back up {root}: {words} was broken off, so that something may be missing; run any playbook of the "
                "collection on this host, for example check.yml: it finishes that or takes it back"
            )


def _require_sense(request: Request) -> None:
    folder, data = os.path.realpath(request.folder), os.path.realpath(request.data)
    if not os.path.isabs(request.folder):  # noqa: PTH117 (a text until here)
        raise BackupError(f"back up to {request.folder}: name the folder by its whole path")
    if os.path.commonpath([folder, data]) == data:
        raise BackupError(
            f"back up to {request.folder}: it is inside the registry's data, {request.data}; choose a folder "
            "elsewhere, best on another disk"
        )
    if request.root is not None and not Path(request.root).is_dir():
        raise BackupError(f"back up {request.root}: there is no such folder")
    if request.compression is Compression.ZSTD:
        require_tool("zstd")
    if request.encryption is not None:
        require_encryption(request.encryption)
    if request.parent is not None and request.kind is Kind.FULL:
        raise BackupError(f"build on {request.parent}: a full backup builds on nothing; leave out its name")
    refuse_while_under_way(request.root)


def _prepare(folder: Path) -> list[str]:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BackupError(f"make the folder {folder}: {error.strerror or error}") from error
    return clean(folder)


def _identity(request: Request) -> str:
    """What tells one registry of a host from another."""
    return os.path.realpath(request.root or request.data)


def _new_name(request: Request, kind: str) -> tuple[float, str]:
    """The Unix time of a backup that begins now, and its name."""
    title = _UNSAFE.sub("-", Path(_identity(request)).name).lstrip("._-") or "registry"
    suffix = archive_suffix(request.compression, request.encryption)
    created = int(time.time())
    while True:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(created))
        # Names sort by time: no two of the same second.
        if not any(Path(request.folder).glob(f"{title}-{stamp}-*")):
            return float(created), f"{title}-{stamp}-{kind}{suffix}"
        created += 1
        if not request.check_mode:
            time.sleep(max(0.0, created - time.time()))


# What it builds on


def _choose_base(request: Request, listed: list[Listed], progress: Progress) -> _Base:
    if request.parent is not None:
        return _named_base(request, request.parent, listed, progress)
    if request.kind is Kind.FULL:
        return _Base(None, set())
    reason = "there is no backup of this registry that it could build on"
    for candidate in newest_chain(listed, os.uname().nodename, _identity(request)):
        if request.longest_chain is not None and len(candidate.chain) >= request.longest_chain:
            reason = f"{candidate.name} is number {len(candidate.chain)} of its chain already"
            break
        try:
            return _base_on(request, candidate, progress)
        except RegistryError as error:
            reason = str(error)
    if request.kind is Kind.INCREMENTAL:
        raise BackupError(f"back up {_identity(request)}: {reason}; make a full backup")
    return _Base(None, set(), f"a full backup, since {reason}")


def _named_base(request: Request, name: str, listed: list[Listed], progress: Progress) -> _Base:
    found = next((one for one in listed if one.name == name), None)
    if found is None:
        names = ", ".join(one.name for one in reversed(listed)) or "none"
        raise BackupError(f"build on {name}: there is no such backup in {request.folder}; there are: {names}")
    if found.problem:
        raise BackupError(f"build on {name}: {found.problem}; leave out its name, or make a full backup")
    if (found.hostname, found.root) != (os.uname().nodename, _identity(request)):
        raise BackupError(f"build on {name}: it is of another registry, {found.root} on {found.hostname}")
    return _base_on(request, found, progress)


def _base_on(request: Request, parent: Listed, progress: Progress) -> _Base:
    if request.verify_parent:
        for name in parent.chain:
            _verify_archive(Path(request.folder), name, progress)
    blobs = read_blob_list(parent.path)
    if blobs is None:
        raise BackupError(
            f"build on {parent.name}: the list of its blobs, {parent.name}.blobs, is missing or damaged"
        )
    return _Base(parent, blobs)


def _verify_archive(folder: Path, name: str, progress: Progress) -> None:
    listed = next(one for one in list_backups(folder) if one.name == name)
    verify_sum(listed.path, listed.sha256, listed.size, progress)


# Before it is written


def _find_unreadable(
    storage: Storage, contents: Contents, blobs: list[Blob], progress: Progress
) -> list[dict[str, Any]]:
    """The blobs that cannot be backed up, and which tags need them."""
    total, done, found = sum(blob.size for blob in blobs), 0, []
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        for blob, reason in zip(blobs, executor.map(lambda blob: _fault(storage, blob), blobs)):
            done += blob.size
            progress("look at blobs", done, total)
            if reason:
                found.append(
                    {
                        "digest": blob.digest,
                        "path": storage.blob_path(blob.digest),
                        "reason": reason,
                        "needed_by": contents.needed_by(blob.digest),
                    }
                )
    return found


def _fault(storage: Storage, blob: Blob) -> str:
    """What is wrong with a blob; empty where nothing is."""
    if blob.size <= MANIFEST_LIMIT:
        body = storage.read_manifest(blob.digest)
        return body.detail if isinstance(body, Problem) else ""
    hasher = blob.digest.hasher()
    try:
        with storage.open_blob(blob.digest) as file:
            while piece := file.read(PIECE):
                hasher.update(piece)
    except (RegistryError, OSError) as error:
        return str(error)
    return "" if hasher.hexdigest() == blob.digest.hex else "its content is not what its digest says"


def _unreadable(problem: Problem, needed_by: list[str]) -> str:
    return (
        f"read {problem.path}: {problem.detail}. It is needed by {', '.join(needed_by) or 'nothing known'}. "
        "Repair it with check.yml, delete what needs it, or back up without it (corrupt_blobs=leave_out)"
    )


def _require_space(folder: Path, contents: Contents, carried: list[Blob], files: list[Entry]) -> None:
    blobs, links = len(contents.blobs), contents.link_count()
    small = sum(len(entry.content) for entry in files)
    # In the inventory and the list of blobs, each is a line.
    records = 200 * (blobs + links)
    needed = (
        sum(blob.size for blob in carried)
        + _FILE_OVERHEAD * (len(carried) + links + len(files))
        + small
        + records
        + _RESERVE
    )
    place = folder
    while not place.exists():
        place = place.parent
    status = os.statvfs(place)
    free = status.f_bavail * status.f_frsize
    if needed > free:
        raise BackupError(
            f"back up to {folder}: it takes {size(needed)} ({needed} bytes) and {size(free)} ({free} bytes) are free; "
            "free some space, keep fewer backups, or build on an earlier one (incremental)"
        )


def _would_be(work: _Work, listed: list[Listed]) -> Listed:
    """What list_backups() would say of an archive that check mode does not write."""
    parent = next((one for one in listed if one.name == work.header["parent"]), None)
    return Listed(
        work.path.name,
        work.path,
        work.header["kind"],
        work.header["parent"] or "",
        work.created,
        0,
        "",
        work.header["hostname"],
        work.header["root"],
        {},
        False,
        chain=(*(parent.chain if parent else ()), work.path.name),
    )


# After it was written


def _superfluous(request: Request, listed: list[Listed], new: str) -> list[Listed]:
    """What is not kept of the backups of this registry; others in the same folder have rules of their own."""
    mine = [one for one in listed if (one.hostname, one.root) == (os.uname().nodename, _identity(request))]
    # Whatever the clock said when the others were made.
    needed = next((one.chain for one in mine if one.name == new), ())
    removed = choose_removed(mine, request.keep, time.time())
    return [one for one in removed if one.name not in needed]


def _forget_pages(path: Path) -> None:
    """Make the next reader get a file from the disk."""
    with path.open("rb") as file, suppress(OSError):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
