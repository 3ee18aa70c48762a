# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the contents of a backup into a folder of its own, every blob checked, and see whether all came.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ._archive import DATA, Member
from ._graph import Graph, read_graph
from ._progress import Progress
from ._reference import Digest, InvalidReference
from ._restore_backup import Backup, Inventory
from ._restore_swap import RestoreError, SmallFile
from ._source import DiskSource
from ._storage import Code, Kind, Place, Problem, Storage, deleted_tags_of, place_of

# The folder of archives that is mounted at /var/lib/registry.
_MOUNTED = "data/"

_CHUNK = 1024 * 1024
_LINK_LIMIT = 256
_SMALL_FILE_LIMIT = 4 * 1024 * 1024
_FOLDER_MODE = 0o755
_FILE_MODE = 0o644
# What a file system may need for a link: its block, that of its folder, and what these cost elsewhere.
_LINK_BYTES = 8192
_BLOCK = 4096
# Left free beside what is restored.
_RESERVE = 16 * 1024 * 1024

#: What keeps people from pulling.
_DAMAGE = frozenset(
    {
        Code.TAG_DANGLING,
        Code.TAG_WITHOUT_CURRENT,
        Code.LINK_TORN,
        Code.LINK_MISMATCH,
        Code.BLOB_MISSING,
        Code.BLOB_EMPTY,
        Code.BLOB_SIZE,
        Code.MANIFEST_MISSING,
        Code.MANIFEST_CORRUPT,
        Code.MANIFEST_INVALID,
        Code.CHILD_MISSING,
        Code.CHILD_UNLINKED,
        Code.LAYER_UNLINKED,
    }
)


class Filled(NamedTuple):
    """What fill() has written."""

    storage: Storage
    files: list[SmallFile]
    damage: list[str]
    notes: list[str]
    blobs: int
    bytes: int


class Unpacked(NamedTuple):
    """What was written, and what it is worth."""

    graph: Graph
    #: Everything beside the data: users, configuration, …
    files: list[SmallFile]
    #: What is damaged or missing, and what people cannot pull therefore.
    damage: list[str]
    #: What the backup has besides, and what was in a bad state before it was made.
    notes: list[str]
    blobs: int
    bytes: int


def require_space(folder: Path, inventory: Inventory) -> None:
    """Raise RestoreError unless the file system of a folder has room for all of it."""
    blobs = sum(-(-size // _BLOCK) * _BLOCK for size in inventory.blobs.values())
    links = sum(
        len(one.manifests) + len(one.layers) + 2 * len(one.tags) for one in inventory.repositories.values()
    )
    needed = blobs + (links + len(inventory.blobs)) * _LINK_BYTES + _RESERVE
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise RestoreError(f"restore to {folder}: {error.strerror or error}") from error
    if needed > free:
        raise RestoreError(
            f"restore to {folder}: it needs {needed} bytes beside what is there, and {free} are free; "
            "make room, or name another folder"
        )


def unpack(backup: Backup, folder: Path, like: Path, progress: Progress) -> Unpacked:
    """Fill a new folder, whose owner and mode will be those of `like`. Raises RegistryError; it stays then."""
    writer = fill(backup, folder, like, progress)
    progress("check what was unpacked")
    graph = read_graph(DiskSource(writer.storage))
    lost, notes = _compare(graph, writer.storage, backup.inventory)
    return Unpacked(
        graph, writer.files, [*writer.damage, *lost], [*writer.notes, *notes], writer.blobs, writer.bytes
    )


def fill(
    backup: Backup,
    folder: Path,
    like: Path,
    progress: Progress,
    wanted: Callable[[Place], bool] = lambda _place: True,
) -> Filled:
    """Write what is wanted of a backup into a folder, which may hold other parts of it already."""
    writer = _Writer(folder, like, has_to_hash=not backup.is_checked)
    try:
        writer.make_root()
        for member in backup.members():
            if member.path.startswith(DATA):
                writer.add_member(member, wanted)
                progress("unpack", writer.bytes, backup.inventory.bytes)
            else:
                writer.files.append(read_small(member))
        progress("write to disk")
        writer.sync()
    except OSError as error:
        place_of_error = f" ({os.fsdecode(error.filename)})" if error.filename else ""
        raise RestoreError(
            f"restore to {folder}: {error.strerror or error}{place_of_error}; nothing was changed"
        ) from error
    finally:
        writer.close()
    return Filled(writer.storage, writer.files, writer.damage, writer.notes, writer.blobs, writer.bytes)


def read_small(member: Member) -> SmallFile:
    """A file beside the data. Raises RestoreError where it is too large to be one."""
    if member.size > _SMALL_FILE_LIMIT:
        raise RestoreError(f"restore {member.path}: {member.size} bytes are too many for such a file")
    return SmallFile(member.path, member.stream.read(), member.mode & 0o777)


class _Writer:
    """Writes a store that no registry uses yet, without waiting for the disk until sync()."""

    def __init__(self, folder: Path, like: Path, *, has_to_hash: bool) -> None:
        self._folder = folder
        self._like = like.stat()
        self._is_mine = (self._like.st_uid, self._like.st_gid) == (os.geteuid(), os.getegid())
        self._made = {os.path.realpath(folder)}
        self._hashing = ThreadPoolExecutor(1) if has_to_hash else None
        self.files: list[SmallFile] = []
        self.damage: list[str] = []
        self.notes: list[str] = []
        self.blobs = 0
        self.bytes = 0

    def make_root(self) -> None:
        if not self._folder.is_dir():
            self._folder.mkdir(mode=0o700)
            self._give(self._folder)
            self._folder.chmod(self._like.st_mode & 0o7777)
            # An empty registry has it, too; in a data folder that is a file system, it is what changes places.
            self._make_folder(f"{os.path.realpath(self._folder)}/docker")
        self.storage = Storage(self._folder)

    def close(self) -> None:
        if self._hashing is not None:
            self._hashing.shutdown()

    def add_member(self, member: Member, wanted: Callable[[Place], bool]) -> None:
        below = member.path[len(DATA) :]
        place = place_of(below)
        if place is not None:
            if wanted(place):
                self._add(place, member)
            return
        deleted = deleted_tags_of(below, member.stream.read(_SMALL_FILE_LIMIT))
        if deleted:
            self._make_folder(f"{os.path.realpath(self._folder)}/{DATA[len(_MOUNTED) :].rstrip('/')}")
            self.storage.note_deleted_tags(deleted)
        elif deleted is None:
            self.notes.append(f"{member.path}: not restored: a registry keeps nothing there")

    def _add(self, place: Place, member: Member) -> None:
        path = self.storage.path_of(place)
        if place.kind is Kind.BLOB and place.digest is not None:
            self._add_blob(path, place.digest, member)
        else:
            # Archives have no folders, and the garbage collection of registry 3.x ends where this one is missing.
            self._make_folder(self.storage.layers_path(place.repository))
            self._add_link(path, member)

    def sync(self) -> None:
        """Have the disk keep all of it."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        finally:
            os.close(descriptor)

    def _add_link(self, path: str, member: Member) -> None:
        content = member.stream.read(_LINK_LIMIT + 1)
        try:
            Digest(content.decode("ascii"))
        except (UnicodeDecodeError, InvalidReference):
            # As it is, it would stop the registry's garbage collection.
            self.damage.append(f"{member.path}: {len(content)} bytes that are no digest")
            return
        with self._new_file(path) as file:
            file.write(content)
        os.utime(path, (member.mtime, member.mtime))

    def _add_blob(self, path: str, digest: Digest, member: Member) -> None:
        hasher = digest.hasher() if self._hashing else None
        with self._new_file(path) as file:
            while chunk := member.stream.read(_CHUNK):
                hashed = self._hashing.submit(hasher.update, chunk) if self._hashing and hasher else None
                file.write(chunk)
                if hashed is not None:
                    hashed.result()
                self.bytes += len(chunk)
        if hasher is None or hasher.hexdigest() == digest.hex:
            os.utime(path, (member.mtime, member.mtime))
            self.blobs += 1
            return
        # A registry never replaces a blob that it has; one that is missing comes back with the next push.
        Path(path).unlink()
        Path(path).parent.rmdir()
        self._made.discard(os.fspath(Path(path).parent))
        self.damage.append(f"blob {digest}: its content in the backup is not what its digest says")

    def _new_file(self, path: str) -> BinaryIO:
        self._make_folder(path.rpartition("/")[0])
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
        self._give(descriptor)
        return open(descriptor, "wb")

    def _make_folder(self, path: str) -> None:
        if path in self._made:
            return
        self._make_folder(path.rpartition("/")[0])
        with suppress(FileExistsError):
            os.mkdir(path, _FOLDER_MODE)  # noqa: PTH102 (once for every link)
            self._give(path)
        self._made.add(path)

    def _give(self, path: Path | str | int) -> None:
        if not self._is_mine:
            os.chown(path, self._like.st_uid, self._like.st_gid)


def _compare(graph: Graph, storage: Storage, inventory: Inventory) -> tuple[list[str], list[str]]:
    """What should be there and is not; what was not in order when the backup was made."""
    lost = list(_lost(graph, storage, inventory))
    notes = []
    for problem in graph.problems:
        line = f"{_where(problem)}: {problem.detail}"
        if problem.code in _DAMAGE and not _was_so(problem, inventory):
            lost.append(line)
        else:
            notes.append(f"{line} (as when the backup was made)")
    return lost, notes


def _lost(graph: Graph, storage: Storage, inventory: Inventory) -> Iterator[str]:
    present = set(graph.repositories())
    for name, wanted in inventory.repositories.items():
        if name not in present:
            if wanted.tags or wanted.manifests or wanted.layers:
                yield f"{name}: the repository is not in the backup"
            continue
        tags = {tag.name: tag.digest for tag in graph.tags(name)}
        for tag, (digest, _pushed) in wanted.tags.items():
            if tags.get(tag) != digest:
                yield f"{name}:{tag}: it should point to {digest}, not to {tags.get(tag, 'nothing')}"
        manifests = set(graph.manifests(name))
        yield from (f"{name}@{one}: its link is not in the backup" for one in wanted.manifests - manifests)
        yield from (
            f"{name}: the link to the blob {one} is not in the backup"
            for one in wanted.layers
            if storage.layer(name, one) is None
        )
    for digest, size in inventory.blobs.items():
        found = storage.blob_size(digest)
        if found != size:
            have = "it is not in the backup" if found is None else f"it has {found} bytes"
            yield f"blob {digest} of {size} bytes: {have}"


def _was_so(problem: Problem, inventory: Inventory) -> bool:
    """Whether the backup's own list says that it is missing."""
    if problem.digest is None or not inventory.is_recorded:
        return False
    repository = inventory.repositories.get(problem.repository)
    if problem.code in (Code.CHILD_UNLINKED, Code.TAG_DANGLING):
        return repository is not None and problem.digest not in repository.manifests
    if problem.code is Code.LAYER_UNLINKED:
        return repository is not None and problem.digest not in repository.layers
    if problem.code in (Code.BLOB_MISSING, Code.CHILD_MISSING, Code.MANIFEST_MISSING):
        return problem.digest not in inventory.blobs
    # The blobs are what their digests say, so that is what was pushed.
    return problem.code in (Code.BLOB_SIZE, Code.MANIFEST_INVALID)


def _where(problem: Problem) -> str:
    if problem.repository:
        return problem.repository + (f"@{problem.digest}" if problem.digest else "")
    return problem.path
