# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What garbage collection may take: found while the registry works, and looked at again once it has stopped.

Private to the collection: no stable interface.

Whatever is needed is needed by a manifest. So when the registry has stopped, only manifests that were not there
before are read, and links to what is about to go are asked for their times. That takes as long as listing folders.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

from ._graph import Graph, ManifestName
from ._manifest import parse_manifest
from ._reference import Digest
from ._storage import Code, Link, Problem, Storage, StorageError
from ._walk import State

# Seconds by which the clocks of a file system and of this process may differ.
_SLACK_SECONDS = 1.0

_DAMAGE = frozenset(
    {Code.BLOB_MISSING, Code.MANIFEST_MISSING, Code.CHILD_MISSING, Code.CHILD_UNLINKED, Code.LAYER_UNLINKED}
)

NEEDED_SINCE = "pushed, or needed by a push, while this ran"
YOUNG = "younger than the least age, so that a push under way may need it"
KEPT_BY_REGISTRY = "the registry's own dry run keeps it"
BY_SHA512 = "people pull it by its SHA-512; the registry's own garbage collection would destroy it"
UNCERTAIN = (
    "a repository with damage, or a tag or an index whose manifest the repository does not have, may need it; "
    "run the check (check.yml)"
)


class Kept:
    """Blobs that stay although something says that they are unused, by reason."""

    def __init__(self) -> None:
        self._blobs: dict[str, dict[Digest, int]] = defaultdict(dict)

    def add(self, reason: str, digest: Digest, size: int) -> None:
        self._blobs[reason][digest] = size

    def as_list(self) -> list[dict[str, Any]]:
        """For each reason: how many blobs and bytes, and the first few of them."""
        return [
            {
                "reason": reason,
                "blobs": len(blobs),
                "bytes": sum(blobs.values()),
                "examples": sorted(blobs)[:3],
            }
            for reason, blobs in sorted(self._blobs.items())
        ]


class Unused:
    """What nothing needs, as far as is known: blobs with their sizes, links of repositories to blobs, repositories."""

    def __init__(
        self, graph: Graph, frees: frozenset[Digest] | None, *, remove_empty: bool, kept: Kept
    ) -> None:
        """`frees` is what the registry's own dry run would free, None where it could not say."""
        orphans = graph.orphans()
        self.blobs: dict[Digest, int] = {}
        for digest, size in orphans.blobs:
            if frees is None or digest in frees:
                self.blobs[digest] = size
            else:
                kept.add(KEPT_BY_REGISTRY, digest, size)
        self._explain(graph, (frees or frozenset()).difference(self.blobs), kept)
        self.links: set[ManifestName] = set(orphans.links)
        self.repositories = {name for name in graph.repositories() if remove_empty and _is_empty(graph, name)}

    def __bool__(self) -> bool:
        return bool(self.blobs or self.links or self.repositories)

    @property
    def bytes(self) -> int:
        return sum(self.blobs.values())

    def keep_blob(self, digest: Digest, reason: str, kept: Kept) -> None:
        size = self.blobs.pop(digest, None)
        if size is not None:
            kept.add(reason, digest, size)

    def keep_links(self, repository: str, digests: Iterable[Digest]) -> None:
        self.links.difference_update((repository, digest) for digest in digests)

    def take(self, storage: Storage) -> None:
        """Move it all out of the registry's sight."""
        for repository in sorted(self.repositories):
            storage.take_repository(repository)
        storage.take_layers(link for link in sorted(self.links) if link[0] not in self.repositories)
        storage.take_blobs(sorted(self.blobs))

    def damage(self, before: Graph, after: Graph) -> list[Problem]:
        """What is broken because this was taken."""
        known = {(problem.code, problem.path, problem.digest) for problem in before.problems}
        return [
            problem
            for problem in after.problems
            if problem.code in _DAMAGE
            and (problem.code, problem.path, problem.digest) not in known
            and self._concerns(problem, after)
        ]

    def _concerns(self, problem: Problem, graph: Graph) -> bool:
        if problem.digest is None:
            return True
        return (
            graph.served_as(problem.digest) in self.blobs
            or (problem.repository, problem.digest) in self.links
            or problem.repository in self.repositories
        )

    def _explain(self, graph: Graph, others: Collection[Digest], kept: Kept) -> None:
        """What the registry would free and we do not."""
        by_sha512 = graph.served_for_others()
        for digest in others:
            size = graph.blob_size(digest)
            if size is not None:
                kept.add(BY_SHA512 if digest in by_sha512 else UNCERTAIN, digest, size)


def _is_empty(graph: Graph, repository: str) -> bool:
    nothing = graph.state(repository) in (State.EMPTIED, State.UNFINISHED)
    return nothing and not graph.is_uncertain(repository) and not graph.blind


class Watch:
    """Looks for what has come to be needed since a graph was read, or is younger than `min_age` seconds."""

    def __init__(self, storage: Storage, graph: Graph, min_age: float) -> None:
        self._storage = storage
        self._graph = graph
        self._known = {name: frozenset(graph.manifests(name)) for name in graph.repositories()}
        self._latest = graph.started - max(min_age, _SLACK_SECONDS)

    def keep_needed(self, unused: Unused, kept: Kept) -> None:
        """Take from `unused` what must stay. Raises StorageError where that cannot be found out."""
        for found in self._storage.repositories():
            if not isinstance(found, Problem):
                self._look_at_manifests(found.name, unused, kept)
                self._look_at_links(found.name, unused, kept)
                self._look_at_uploads(found.name, unused)
        for digest in list(unused.blobs):
            if self._is_young(self._storage.blob_path(digest)):
                unused.keep_blob(digest, YOUNG, kept)

    def _is_young(self, path: str) -> bool:
        written = self._storage.written(path)
        return written is not None and written > self._latest

    def _look_at_manifests(self, repository: str, unused: Unused, kept: Kept) -> None:
        known = self._known.get(repository, frozenset())
        for digest in self._storage.revision_folders(repository):
            if (
                digest in known
                or self._storage.written(self._storage.revision_path(repository, digest)) is None
            ):
                continue
            unused.repositories.discard(repository)
            needed = self._needs(digest)
            unused.keep_links(repository, needed)
            for blob in needed:
                unused.keep_blob(self._served(repository, blob), NEEDED_SINCE, kept)

    def _needs(self, digest: Digest) -> set[Digest]:
        body = self._storage.read_manifest(digest)
        if isinstance(body, Problem):
            raise StorageError(
                f"garbage collection: a manifest that came while this ran cannot be read: "
                f"{body.path}: {body.detail}; run this again"
            )
        return {digest, *parse_manifest(body).blobs}

    def _served(self, repository: str, digest: Digest) -> Digest:
        """The blob that is served for a digest."""
        if digest.algorithm == "sha256":
            return digest
        link = self._storage.layer(repository, digest)
        return link.target if isinstance(link, Link) else digest

    def _look_at_links(self, repository: str, unused: Unused, kept: Kept) -> None:
        for digest in self._storage.layer_folders(repository):
            link = (repository, digest)
            blob = self._served(repository, digest)
            if (
                link not in unused.links
                and blob not in unused.blobs
                and repository not in unused.repositories
            ):
                continue
            path = self._storage.layer_path(repository, digest)
            if self._is_young(path) or (link not in unused.links and self._storage.written(path) is not None):
                unused.links.discard(link)
                unused.repositories.discard(repository)
                unused.keep_blob(blob, YOUNG, kept)

    def _look_at_uploads(self, repository: str, unused: Unused) -> None:
        if repository in unused.repositories:
            uploads = self._storage.uploads(repository)
            if any(isinstance(each, Problem) or each.changed > self._latest for each in uploads):
                unused.repositories.discard(repository)
