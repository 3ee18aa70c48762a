# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backup takes of a registry: the closure of its tags, as it is at one moment, and the small files beside.

Private to the collection: no stable interface.

One walk decides; links are written from what it saw, not read again, so whatever is pushed, moved or deleted
meanwhile, the backup is what the registry was when the walk was through. Blobs stay until the next garbage collection,
which the storage lock keeps out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ._archive import DATA
from ._errors import RegistryError
from ._files import read_file
from ._graph import Graph, Reach, UnknownContent, read_graph
from ._reference import Digest
from ._source import DiskSource
from ._storage import Blob, Code, Problem, Storage, Tag

#: The parts of a backup beside its data, and where they are below the registry's root.
_SMALL = {
    "config": ("compose.yml", "config"),
    "users": ("auth",),
    "secrets": ("secrets",),
    "proxy": ("proxy",),
    "certificates": ("certs",),
}
# What lies beside such files while somebody writes them.
_UNFINISHED = (".lock", ".guard", ".tmp", ".dockyard-new")
_SMALL_LIMIT = 16 * 1024 * 1024

# What says nothing about what can be pulled.
_UNIMPORTANT = frozenset({Code.STRAY, Code.LEFTOVER, Code.TAG_DANGLING, Code.UPLOAD_INVALID})


class BackupError(RegistryError):
    """No backup can be made. What there was before is there."""


class Layer(NamedTuple):
    """A link of a repository to a blob."""

    digest: Digest
    #: What the link says.
    target: Digest
    #: Unix time at which it was written.
    pushed: float


class Holding(NamedTuple):
    """What is taken of a repository."""

    name: str
    tags: list[Tag]
    #: Each manifest, and the Unix time of its last push.
    manifests: list[tuple[Digest, float]]
    layers: list[Layer]


class Entry(NamedTuple):
    """A small file of an archive."""

    path: str
    content: bytes
    mtime: float
    mode: int


class Contents:
    """What is taken of a registry; read_contents() makes it.

    Attributes: `repositories`, `blobs` (in order, manifests included), `dropped` (tags that lead nowhere, as
    `repository:tag`), `problems` (damage that the walk met, for people).
    """

    def __init__(self, storage: Storage, graph: Graph, reach: Reach) -> None:
        self._storage = storage
        self._graph = graph
        self._moment = graph.started
        self.dropped: list[str] = []
        self.problems = [str_of(problem) for problem in graph.problems if problem.code not in _UNIMPORTANT]
        holdings = (self._holding(name, reach) for name in graph.repositories())
        self.repositories = [holding for holding in holdings if holding.manifests]
        self.blobs = sorted(Blob(blob.digest, self._size(blob)) for blob in reach.blobs())

    def leave_out(self, digests: Iterable[Digest]) -> None:
        """Do without these blobs, though manifests need them."""
        gone = set(digests)
        self.blobs = [blob for blob in self.blobs if blob.digest not in gone]

    def needed_by(self, digest: Digest) -> list[str]:
        """The tags that cannot be pulled without a blob, and the manifests without a tag."""
        found: set[str] = set()
        for repository, manifest in self._graph.manifests_needing([digest])[digest]:
            holders = self._graph.holders(repository, manifest)
            tags = set(holders.tags)
            for index in holders.indexes:
                tags.update(self._graph.holders(repository, index).tags)
            found.update({f"{repository}:{tag}" for tag in tags} or {f"{repository}@{manifest}"})
        return sorted(found)

    def inventory(self) -> dict[str, Any]:
        """All of it, as archives record it."""
        return {
            "repositories": {
                holding.name: {
                    "tags": {tag.name: {"digest": tag.digest, "pushed": tag.pushed} for tag in holding.tags},
                    "manifests": [digest for digest, _pushed in holding.manifests],
                    "layers": [layer.digest for layer in holding.layers],
                }
                for holding in self.repositories
            },
            "blobs": dict(self.blobs),
        }

    def counts(self) -> dict[str, int]:
        """How much it is."""
        return {
            "repositories": len(self.repositories),
            "tags": sum(len(holding.tags) for holding in self.repositories),
            "manifests": len(
                {digest for holding in self.repositories for digest, _pushed in holding.manifests}
            ),
            "blobs": len(self.blobs),
            "bytes": sum(blob.size for blob in self.blobs),
        }

    def link_count(self) -> int:
        """How many links there are, about."""
        return sum(
            2 * len(holding.tags) + len(holding.manifests) + len(holding.layers)
            for holding in self.repositories
        )

    def links(self) -> Iterator[Entry]:
        """Every link, and the note of deleted tags."""
        notes = "".join(map(str, self._storage.deleted_tags()))
        if notes:
            yield Entry(f"{DATA}.dockyard-deleted-tags", notes.encode(), self._moment, 0o644)
        for holding in self.repositories:
            yield from self._links_of(holding)

    def _links_of(self, holding: Holding) -> Iterator[Entry]:
        storage, name = self._storage, holding.name
        for layer in holding.layers:
            # Nobody asks when a layer was pushed, and whole seconds need half the space.
            yield self._link(storage.layer_path(name, layer.digest), layer.target, int(layer.pushed))
        for digest, pushed in holding.manifests:
            yield self._link(storage.revision_path(name, digest), digest, pushed)
        kept = {digest for digest, _pushed in holding.manifests}
        for tag in holding.tags:
            pushed = self._moment if tag.pushed is None else tag.pushed
            # A tag that is deleted at this moment has lost its history.
            former = {tag.digest: pushed}
            for link in storage.history(name, tag.name):
                if not isinstance(link, Problem) and link.digest in kept and link.pushed is not None:
                    former[link.digest] = link.pushed
            for digest, when in sorted(former.items()):
                yield self._link(storage.history_path(name, tag.name, digest), digest, when)
            yield self._link(storage.tag_path(name, tag.name), tag.digest, pushed)

    def _link(self, path: str, target: Digest, mtime: float) -> Entry:
        return Entry(f"{DATA}{self._storage.place_below(path)}", target.encode(), mtime, 0o644)

    def _holding(self, name: str, reach: Reach) -> Holding:
        graph = self._graph
        manifests = reach.manifests(name)
        kept = set(manifests)
        tags = []
        for tag in graph.tags(name):
            if tag.digest in kept:
                tags.append(tag)
            else:
                self.dropped.append(f"{name}:{tag.name}")
        pushed = ((digest, graph.pushed(name, digest)) for digest in manifests)
        known = [(digest, graph.started if when is None else when) for digest, when in pushed]
        return Holding(name, tags, known, list(self._layers(name, manifests)))

    def _layers(self, name: str, manifests: list[Digest]) -> Iterator[Layer]:
        """The links to what the manifests need; all where it is not certain what that is."""
        graph, storage = self._graph, self._storage
        if graph.is_uncertain(name):
            needed = set(storage.layer_folders(name))
        else:
            needed = {digest for manifest in manifests for digest in _blobs_in(graph, manifest)}
            needed.update([graph.served_as(digest) for digest in needed])
        for digest in sorted(needed):
            pushed = storage.written(storage.layer_path(name, digest))
            if pushed is not None and graph.blob_size(digest) is not None:
                yield Layer(digest, graph.served_as(digest), pushed)

    def _size(self, blob: Blob) -> int:
        try:
            # A manifest that was just being written when the sizes were read was read again until it was whole.
            return self._graph.manifest_size(blob.digest)
        except UnknownContent:
            return blob.size


def read_contents(storage: Storage, *, untagged: bool) -> Contents:
    """Walk through a registry that may go on working. `untagged` takes manifests without a tag, too.

    Blobs that no manifest needs are left out: those of pushes under way. Raises BackupError, StorageError.
    """
    graph = read_graph(DiskSource(storage))
    if graph.blind:
        links = [problem.path for problem in graph.problems if problem.code is Code.SYMLINK]
        raise BackupError(
            f"back up {storage.root}: {links[0]} is a symbolic link, which is not followed, so that something "
            "would be missing; mount what it leads to there instead"
        )
    return Contents(storage, graph, graph.reachable(untagged=untagged, unlinked=False))


def _blobs_in(graph: Graph, manifest: Digest) -> Iterator[Digest]:
    try:
        found = graph.manifest(manifest)
    except UnknownContent:
        return
    if found.config is not None:
        yield found.config.digest
    yield from (layer.digest for layer in found.layers)


def str_of(problem: Problem) -> str:
    """A problem in one line."""
    return f"{problem.path}: {problem.detail} ({problem.code.value})"


def small_files(root: str | os.PathLike[str], *, certificates: bool) -> tuple[list[str], list[Entry]]:
    """The parts that there are beside the data, and their files. Raises BackupError, FileError."""
    parts, entries = [], []
    for part, places in _SMALL.items():
        if part == "certificates" and not certificates:
            continue
        found = [entry for place in places for entry in _files_at(Path(root), place)]
        if found:
            parts.append(part)
            entries += found
    return parts, sorted(entries)


def _files_at(root: Path, place: str) -> Iterator[Entry]:
    top = root / place
    if top.is_file():
        yield _entry(root, top)
        return
    for folder, folders, names in os.walk(top, onerror=_refuse):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            # A lock, a pipe or a link is nothing to be kept; what a link leads to may be anywhere.
            if path.is_file() and not path.is_symlink() and not name.endswith(_UNFINISHED):
                yield _entry(root, path)


def _entry(root: Path, path: Path) -> Entry:
    found = read_file(path)
    if found is None:
        raise BackupError(f"read {path}: it was removed at this moment; run the backup again")
    content, status = found
    if len(content) > _SMALL_LIMIT:
        raise BackupError(
            f"read {path}: {len(content)} bytes are too many for a file beside the data; move it"
        )
    return Entry(path.relative_to(root).as_posix(), content, status.st_mtime, status.st_mode & 0o777)


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise BackupError(f"read {error.filename}: {error.strerror}; run this as root") from error
