# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore single repositories or tags into a registry that goes on working: what it lacks is pushed to it.

Private to the collection: no stable interface.

Blobs first, then manifests, each after those that it lists, and tags last, so that whatever breaks off leaves a
registry in which nothing is half there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ._client import NotFound, RegistryClient
from ._graph import Graph, read_graph
from ._progress import Progress
from ._reference import Digest, Reference
from ._restore_backup import Backup, Inventory
from ._restore_scratch import require_undamaged, scratch_folder
from ._restore_swap import RestoreError
from ._restore_unpack import fill, require_space
from ._source import DiskSource
from ._storage import Kind, Link, Place, Problem, Storage

# How much is sent in one request.
_PIECE = 8 * 1024 * 1024
_SHOWN = 20
# How many repositories are asked whether they have a blob already.
_MOUNT_SOURCES = 3


class Wish(NamedTuple):
    """What is to be restored."""

    #: Whole repositories, with their untagged manifests.
    repositories: Sequence[str]
    #: Single tags.
    images: Sequence[Reference]
    #: Another name for the only repository that is restored; empty for its own.
    as_repository: str
    #: Whether tags that point to something else by now are moved.
    overwrite: bool


class Restored(NamedTuple):
    """What was done, or in check mode would be; tags as `repository:tag`."""

    tags: list[str]
    unchanged: list[str]
    #: Tags that point to something else, and stay as they are.
    kept: list[str]
    manifests: int
    blobs: int
    bytes: int
    mounted: int
    notes: list[str]


class _Job(NamedTuple):
    """One repository."""

    source: str
    target: str
    manifests: list[Digest]
    #: Those that are wanted.
    tags: dict[str, Digest]
    #: Those of signatures and other things about the images.
    about: dict[str, Digest]


def restore_partly(
    backup: Backup,
    wish: Wish,
    client: RegistryClient,
    scratch_dir: Path,
    progress: Progress,
    *,
    check_mode: bool,
) -> Restored:
    """Raises RegistryError; before anything was pushed where a tag is in the way or the backup lacks something."""
    names = _names(backup, wish)
    with scratch_folder(scratch_dir) as folder:
        inventory = backup.inventory
        small = {digest for name in names for digest in inventory.repositories[name].manifests}
        links_and_manifests = partial(_is_of, names=names, blobs=small)
        filled = fill(backup, folder, scratch_dir, progress, links_and_manifests)
        require_undamaged(backup, filled.damage)
        work = _Work(backup, filled.storage, client, wish, progress)
        work.plan(read_graph(DiskSource(filled.storage, only=names)))
        work.look_for_blobs(check_mode=check_mode)
        if not check_mode:
            missing = work.stored_missing()
            if missing:
                size = sum(inventory.blobs[digest] for digest in missing)
                require_space(folder.parent, Inventory({}, {Digest.of(b""): size}, is_recorded=True))
                more = fill(backup, folder, scratch_dir, progress, partial(_is_blob, blobs=missing - small))
                require_undamaged(backup, more.damage)
            work.push()
        return work.restored


class _Work:
    def __init__(
        self, backup: Backup, storage: Storage, client: RegistryClient, wish: Wish, progress: Progress
    ) -> None:
        self._backup = backup
        self._storage = storage
        self._client = client
        self._wish = wish
        self._progress = progress
        self._jobs: list[_Job] = []
        self._media_types: dict[Digest, str] = {}
        self._present: dict[tuple[str, str], Digest | None] = {}
        #: (source, target, digest) of what the registry lacks.
        self._missing: list[tuple[str, str, Digest]] = []
        self._needed: list[tuple[str, str, Digest]] = []
        self.restored = Restored([], [], [], 0, 0, 0, 0, [])

    def plan(self, graph: Graph) -> None:
        """What belongs to the wish, and what is in its way."""
        for name in _names(self._backup, self._wish):
            self._jobs.append(self._job(graph, name))
        for job in self._jobs:
            self._note_needs(graph, job)
        conflicts = [
            f"{job.target}:{tag} points to {present}, in the backup to {digest}"
            for job in self._jobs
            for tag, digest, present in self._present_tags(job, job.tags)
            if present not in (None, digest)
        ]
        if conflicts and not self._wish.overwrite:
            raise RestoreError(
                f"restore from {self._backup.name}: these tags are there and point to something else; "
                "overwrite=true moves them, as_repository restores beside them:\n"
                + "\n".join(conflicts[:_SHOWN])
            )

    def look_for_blobs(self, *, check_mode: bool) -> None:
        """Ask the registry for every blob, and mount what other repositories have."""

        def lacks(item: tuple[str, str, Digest]) -> bool:
            source, target, digest = item
            try:
                self._client.blob_size(target, digest)
            except NotFound:
                return check_mode or not self._mount(source, target, digest)
            return False

        answers = self._client.map(lacks, self._needed)
        self._missing = [item for item, is_lacking in zip(self._needed, answers) if is_lacking]
        lacking = [item for item in self._missing if self._stored(item) not in self._backup.inventory.blobs]
        if lacking:
            raise RestoreError(
                f"restore from {self._backup.name}: neither the backup nor the registry has "
                + ", ".join(f"{source}@{digest}" for source, _target, digest in lacking[:_SHOWN])
            )
        if check_mode:
            size = sum(self._backup.inventory.blobs[digest] for digest in self.stored_missing())
            tags = [
                (f"{job.target}:{tag}", present == digest, present is not None and tag in job.about)
                for job in self._jobs
                for tag, digest, present in self._present_tags(job, {**job.about, **job.tags})
            ]
            self.restored = self.restored._replace(
                tags=[name for name, is_same, is_kept in tags if not is_same and not is_kept],
                unchanged=[name for name, is_same, _kept in tags if is_same],
                kept=[name for name, is_same, is_kept in tags if is_kept and not is_same],
                blobs=len(self._missing),
                bytes=size,
            )

    def stored_missing(self) -> set[Digest]:
        """The blobs that have to come from the backup, as they are stored."""
        return {self._stored(item) for item in self._missing}

    def push(self) -> None:
        """Send everything, tags last."""
        for count, _done in enumerate(self._client.map(self._push_blob, self._missing), start=1):
            self._progress("push blobs", count, len(self._missing))
        manifests = 0
        for job in self._jobs:
            for digest in job.manifests:
                manifests += self._push_manifest(job.target, digest)
        for job in self._jobs:
            for tag, digest in {**job.about, **job.tags}.items():
                self._push_tag(job, tag, digest)
        sizes = (self._backup.inventory.blobs[self._stored(item)] for item in self._missing)
        self.restored = self.restored._replace(
            manifests=manifests, blobs=len(self._missing), bytes=sum(sizes)
        )

    # Below this line: how

    def _job(self, graph: Graph, name: str) -> _Job:
        holding = self._backup.inventory.repositories[name]
        every = {tag: digest for tag, (digest, _pushed) in holding.tags.items()}
        if name in self._wish.repositories:
            tags, manifests = every, set(holding.manifests)
        else:
            wanted = [image.tag for image in self._wish.images if image.repository == name]
            tags = {tag: every[tag] for tag in wanted if tag is not None}
            manifests = set(graph.reachable([(name, digest) for digest in tags.values()]).manifests(name))
        about: dict[str, Digest] = {}
        for found in graph.referrer_tags(name):
            if found.subject in manifests and found.tag not in tags and found.tag in every:
                about[found.tag] = every[found.tag]
        if about:
            manifests.update(graph.reachable([(name, one) for one in about.values()]).manifests(name))
        target = self._wish.as_repository or name
        return _Job(name, target, list(_in_order(graph, manifests)), tags, about)

    def _note_needs(self, graph: Graph, job: _Job) -> None:
        needed: dict[Digest, None] = {}
        for digest in job.manifests:
            manifest = graph.manifest(digest)
            self._media_types[digest] = manifest.media_type
            needed.update((one.digest, None) for one in manifest.layers if not one.elsewhere)
            if manifest.config:
                needed[manifest.config.digest] = None
        self._needed += [(job.source, job.target, digest) for digest in needed]

    def _present_tags(
        self, job: _Job, tags: dict[str, Digest]
    ) -> Iterator[tuple[str, Digest, Digest | None]]:
        """Each tag with what it points to in the backup, and in the registry when first asked."""
        unknown = [tag for tag in tags if (job.target, tag) not in self._present]
        for tag, present in zip(unknown, self._client.map(partial(self._resolve, job.target), unknown)):
            self._present[job.target, tag] = present
        for tag, digest in tags.items():
            yield tag, digest, self._present[job.target, tag]

    def _resolve(self, repository: str, reference: str) -> Digest | None:
        try:
            return self._client.resolve(repository, reference).digest
        except NotFound:
            return None

    def _stored(self, item: tuple[str, str, Digest]) -> Digest:
        """The digest by which a blob is stored, which for SHA-512 is another one."""
        source, _target, digest = item
        link = self._storage.layer(source, digest)
        return link.target if isinstance(link, Link) else digest

    def _mount(self, source: str, target: str, digest: Digest) -> bool:
        others = [
            name
            for name, holding in self._backup.inventory.repositories.items()
            if digest in holding.layers and name != target
        ]
        others.sort(key=lambda name: name != source)
        for name in others[:_MOUNT_SOURCES]:
            if self._client.mount_blob(target, digest, name):
                self.restored = self.restored._replace(mounted=self.restored.mounted + 1)
                return True
        return False

    def _push_blob(self, item: tuple[str, str, Digest]) -> None:
        _source, target, digest = item
        stored = self._stored(item)
        self._client.upload_blob(target, digest, lambda: self._pieces(stored))

    def _pieces(self, digest: Digest) -> Iterator[bytes]:
        with self._storage.open_blob(digest) as file:
            while piece := file.read(_PIECE):
                yield piece

    def _push_manifest(self, target: str, digest: Digest) -> bool:
        if self._resolve(target, digest) is not None:
            return False
        self._client.put_manifest(target, digest, self._body(digest), self._media_types[digest])
        return True

    def _push_tag(self, job: _Job, tag: str, digest: Digest) -> None:
        name = f"{job.target}:{tag}"
        # Somebody may have pushed it since we first asked.
        present = self._resolve(job.target, tag)
        if present == digest:
            self.restored.unchanged.append(name)
        elif present is not None and (tag in job.about or not self._wish.overwrite):
            self.restored.kept.append(name)
        else:
            self._client.put_manifest(job.target, tag, self._body(digest), self._media_types[digest])
            self.restored.tags.append(name)

    def _body(self, digest: Digest) -> bytes:
        body = self._storage.read_manifest(digest)
        if isinstance(body, Problem):
            raise RestoreError(f"restore {digest} from {self._backup.name}: {body.detail}")
        return body


def _names(backup: Backup, wish: Wish) -> list[str]:
    """The repositories of the wish. Raises RestoreError where the backup has not all of it."""
    known = backup.inventory.repositories
    names = list(dict.fromkeys([*wish.repositories, *(image.repository for image in wish.images)]))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise RestoreError(
            f"restore from {backup.name}: it has no repository {', '.join(unknown)}; "
            f"it has: {', '.join(sorted(known)[:_SHOWN]) or 'none'}"
        )
    for image in wish.images:
        tags = known[image.repository].tags
        if image.tag not in tags:
            raise RestoreError(
                f"restore {image} from {backup.name}: there is no such tag in it; {image.repository} has: "
                f"{', '.join(sorted(tags)[:_SHOWN]) or 'none'}"
            )
        if image.digest is not None and tags[image.tag][0] != image.digest:
            raise RestoreError(
                f"restore {image} from {backup.name}: in it, that tag points to {tags[image.tag][0]}"
            )
    if wish.as_repository and len(names) != 1:
        raise RestoreError("restore: as_repository is for one repository at a time")
    return names


def _in_order(graph: Graph, manifests: Iterable[Digest]) -> Iterator[Digest]:
    """Each manifest after those that it lists or is about."""
    wanted = set(manifests)
    waiting = sorted(wanted, reverse=True)
    begun: set[Digest] = set()
    done: set[Digest] = set()
    while waiting:
        digest = waiting[-1]
        manifest = graph.manifest(digest)
        before = {child.digest for child in manifest.children}
        before.update([manifest.subject] if manifest.subject else [])
        pending = [] if digest in begun else sorted((before & wanted) - done - begun)
        begun.add(digest)
        waiting += pending
        if not pending:
            waiting.pop()
            if digest not in done:
                done.add(digest)
                yield digest


def _is_of(place: Place, names: Sequence[str], blobs: set[Digest]) -> bool:
    """Whether it is a link of one of these repositories, or one of these blobs."""
    return place.digest in blobs if place.kind is Kind.BLOB else place.repository in names


def _is_blob(place: Place, blobs: set[Digest]) -> bool:
    return place.kind is Kind.BLOB and place.digest in blobs
