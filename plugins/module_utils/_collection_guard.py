# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the registry's own garbage collection would free, compared with what our graph says is needed.

Private to the collection: no stable interface.

Two readers that disagree about what people can pull mean that one of them is wrong: the registry's own takes a
manifest that it fails to find for one that was deleted, and everything after it in that repository for unused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ._errors import RegistryError
from ._graph import Graph, ManifestName, UnknownContent, read_graph
from ._reference import Digest
from ._service import Ran, Service, ServiceError
from ._source import DiskSource
from ._storage import Storage

_ATTEMPTS = 3
_SHOWN = 5

_FREED = re.compile(r"^blob eligible for deletion: (sha(?:256|512):[0-9a-f]+)\s*$", re.MULTILINE)
_COUNTED = re.compile(r"^\d+ blobs marked, (\d+) blobs and \d+ manifests eligible for deletion", re.MULTILINE)
_STOPPED = re.compile(r"^.*?(failed to garbage collect:.*|panic:.*)$", re.MULTILINE)


class Endangered(NamedTuple):
    """A blob that people need, and that the registry's own garbage collection would free."""

    digest: Digest
    repository: str
    #: The manifest that needs it.
    manifest: Digest
    #: The tags that lead to that; none where it is untagged.
    tags: tuple[str, ...]

    def __str__(self) -> str:
        tags = f" (tags {', '.join(self.tags)})" if self.tags else " (no tag)"
        return f"{self.digest}, which {self.repository}@{self.manifest}{tags} needs"

    def as_dict(self) -> dict[str, Any]:
        return {
            "digest": self.digest,
            "repository": self.repository,
            "manifest": self.manifest,
            "tags": list(self.tags),
        }


class GuardTripped(RegistryError):
    """The registry's own garbage collection would free what people can pull. `endangered` names it."""

    def __init__(self, endangered: list[Endangered]) -> None:
        blobs = len({item.digest for item in endangered})
        shown = "\n".join(f"  {item}" for item in endangered[:_SHOWN])
        rest = f"\n  and {len(endangered) - _SHOWN} more" if len(endangered) > _SHOWN else ""
        super().__init__(
            f"garbage collection: nothing was freed. The registry's own dry run would free {blobs} blobs that "
            f"people can pull:\n{shown}{rest}\nIt failed to read a part of the storage, or the storage changes "
            "under it. Look at the disk and the registry's log, run the check (check.yml), then run this again"
        )
        self.endangered = endangered


class DryRun(NamedTuple):
    """What the registry's own garbage collection would free; None where it could not say."""

    frees: frozenset[Digest] | None
    #: What stopped it.
    stopped_by: str = ""


class Agreement(NamedTuple):
    """A graph that the registry's own dry run does not contradict."""

    graph: Graph
    dry_run: DryRun


def read_dry_run(ran: Ran) -> DryRun:
    """Understand the output of `garbage-collect --dry-run`. Raises ServiceError where the registry did not run."""
    if ran.code != 0:
        stopped = _STOPPED.search(ran.output)
        if stopped is None:
            said = "\n".join(ran.output.strip().splitlines()[-_SHOWN:])
            raise ServiceError(
                f"garbage collection: the registry's own could not be run (it ended with {ran.code}): {said}"
            )
        return DryRun(None, stopped[1].strip())
    freed = [Digest(text) for text in _FREED.findall(ran.output)]
    counted = _COUNTED.search(ran.output)
    if counted is None or int(counted[1]) != len(freed):
        return DryRun(None, "its output is not what this collection knows of registries 2.8 and 3.x")
    return DryRun(frozenset(freed))


def agree(storage: Storage, service: Service, *, strict: bool) -> Agreement:
    """Read the storage, and ask the registry what it would free; the registry may go on working.

    Raises GuardTripped where it would free what can be pulled, and goes on doing so while nothing changes. With
    `strict`, that includes what it is known to be wrong about: content that was pushed by its SHA-512.
    """
    for _attempt in range(_ATTEMPTS):
        graph = read_graph(DiskSource(storage))
        dry_run = read_dry_run(service.garbage_collect(dry_run=True))
        suspects = _suspects(graph, dry_run, strict=strict)
        if not suspects:
            return Agreement(graph, dry_run)
        # Deleted since the graph was read; or pushed while the registry looked.
        again = read_graph(DiskSource(storage))
        still = suspects & _suspects(again, dry_run, strict=strict)
        if not still:
            return Agreement(graph, dry_run)
    raise GuardTripped(sorted(_endangered(again, still)))


def _suspects(graph: Graph, dry_run: DryRun, *, strict: bool) -> set[Digest]:
    if not dry_run.frees:
        return set()
    # All manifests that repositories have, tagged or not: what the registry marks, too.
    linked = [(name, digest) for name in graph.repositories() for digest in graph.manifests(name)]
    reach = graph.reachable(linked, unlinked=False)
    known = set() if strict else graph.served_for_others()
    return {
        digest
        for digest in dry_run.frees
        if digest not in known and graph.blob_size(digest) is not None and reach.has_blob(digest)
    }


def _endangered(graph: Graph, blobs: set[Digest]) -> Iterator[Endangered]:
    for repository in graph.repositories():
        for digest in graph.manifests(repository):
            needed = {graph.served_as(each) for each in _needed_by(graph, digest)}
            for blob in needed & blobs:
                yield Endangered(blob, repository, digest, tuple(_tags(graph, (repository, digest))))


def _needed_by(graph: Graph, digest: Digest) -> set[Digest]:
    """The blobs of a manifest, which is one itself."""
    try:
        return {digest, *graph.manifest(digest).blobs}
    except UnknownContent:
        return {digest}


def _tags(graph: Graph, manifest: ManifestName) -> Iterable[str]:
    """The tags that lead to a manifest, through indexes and subjects too."""
    repository, first = manifest
    seen = {first}
    waiting = [first]
    tags: set[str] = set()
    while waiting:
        holders = graph.holders(repository, waiting.pop())
        tags.update(holders.tags)
        above = {*holders.indexes, *holders.subjects} - seen
        seen |= above
        waiting += above
    return sorted(tags)
