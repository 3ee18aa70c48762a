# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the problems of a store mean: how bad each is, and which tags cannot be pulled because of it.

Private to the collection: no stable interface.

The walk reports what it stumbles over, once for each way that leads there. A person wants each damage once, at
the path where it is. So problems are moved to that path, merged there, and those left out that only follow.
"""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ._graph import Graph, ManifestName, UnknownContent
from ._manifest import Manifest
from ._media import is_schema1
from ._reference import Digest
from ._storage import Code, Kind, Link, Problem, Repository, Storage


class Severity(str, enum.Enum):
    #: Something cannot be pulled or pushed, or will be lost.
    ERROR = "error"
    #: It stands in the way of garbage collection or of an upgrade.
    WARNING = "warning"
    #: Good to know.
    NOTE = "note"


_WARNINGS = frozenset(
    {
        Code.TAG_NAME,
        Code.REPOSITORY_NAME,
        Code.BLOB_MISPLACED,
        Code.SYMLINK,
        Code.SCHEMA1,
        Code.REPOSITORY_WITHOUT_LAYERS,
    }
)
_NOTES = frozenset(
    {
        Code.UPLOAD_INVALID,
        Code.UPLOAD_OLD,
        Code.BLOB_FOLDER_EMPTY,
        Code.CHILD_MISSING,
        Code.CHILD_DELETED,
        Code.STRAY,
        Code.LEFTOVER,
        Code.LAYER_DANGLING,
        Code.LAYERS_WITHOUT_MANIFESTS,
        Code.SUBJECT_MISSING,
        Code.REFERRER_WITHOUT_IMAGE,
        Code.OWN_LEFTOVER,
    }
)
# What is at one path at the same time: the first says most.
_PRECEDENCE = (
    *(
        Code.NOT_A_FILE,
        Code.SYMLINK,
        Code.UNREADABLE,
        Code.MANIFEST_CORRUPT,
        Code.BLOB_EMPTY,
        Code.BLOB_CORRUPT,
    ),
    *(Code.BLOB_SIZE, Code.LINK_TORN, Code.LINK_MISMATCH, Code.REVISION_DANGLING, Code.BLOB_MISSING),
)
_RANK = {code: rank for rank, code in enumerate(_PRECEDENCE)}
# Codes of what is wrong with a blob, whoever needs it.
BLOB_CODES = frozenset(
    {
        Code.BLOB_MISSING,
        Code.BLOB_EMPTY,
        Code.BLOB_CORRUPT,
        Code.BLOB_SIZE,
        Code.MANIFEST_MISSING,
        Code.MANIFEST_CORRUPT,
        Code.MANIFEST_INVALID,
    }
)


class Finding(NamedTuple):
    """One damage."""

    code: Code
    severity: Severity
    path: str
    detail: str
    #: Those that it is in, or that need the blob.
    repositories: tuple[str, ...]
    digest: Digest | None
    #: The tags that cannot be pulled whole because of it, as `repository:tag`.
    breaks: tuple[str, ...]

    @property
    def key(self) -> tuple[Code, str]:
        return self.code, self.path


def find_problems(storage: Storage, graph: Graph, *, upload_age: float) -> list[Problem]:
    """All that the walk and a look at the folders show, each thing once and where it is.

    Uploads that nothing was added to for `upload_age` seconds are reported.
    """
    walked = without_doubles(_located(storage, graph))
    more = [*_unneeded(storage, graph), *_about_manifests(storage, graph)]
    more += [*_about_repositories(storage, upload_age), *storage.leftovers(), *storage.own_leftovers()]
    return without_doubles([*walked, *_new(walked, more)])


def as_findings(storage: Storage, graph: Graph, problems: Iterable[Problem]) -> list[Finding]:
    """Problems, each at its own path, with what they break; the worst first."""
    problems = list(problems)
    breaks = _Breaks(storage, graph, problems)
    merged: dict[tuple[Code, str], list[Problem]] = {}
    for problem in problems:
        merged.setdefault((problem.code, problem.path), []).append(problem)
    found = []
    for (code, path), same in merged.items():
        repositories = {problem.repository for problem in same if problem.repository}
        broken = {tag for problem in same for tag in breaks.of(problem)}
        found.append(
            Finding(
                code,
                severity_of(storage, code, path),
                path,
                same[0].detail,
                tuple(sorted(repositories | breaks.repositories(same[0]))),
                same[0].digest,
                tuple(sorted(broken)),
            )
        )
    order = list(Severity)
    return sorted(found, key=lambda finding: (order.index(finding.severity), finding.code, finding.path))


def severity_of(storage: Storage, code: Code, path: str) -> Severity:
    place = storage.place_at(path)
    in_history = place is not None and place.kind is Kind.HISTORY
    # A folder among the blobs that is none of them ends the registry's garbage collection.
    if code in _WARNINGS or in_history or (code is Code.STRAY and storage.is_among_blobs(path)):
        return Severity.WARNING
    return Severity.NOTE if code in _NOTES else Severity.ERROR


# Where it is


def _located(storage: Storage, graph: Graph) -> Iterator[Problem]:
    """The problems of the walk, each at the path of what is wrong, under the code that says it best."""
    dangling = {
        (problem.repository, problem.digest)
        for problem in graph.problems
        if problem.code is Code.TAG_DANGLING
    }
    for problem in graph.problems:
        repository, digest = problem.repository, problem.digest
        if problem.code is Code.MANIFEST_MISSING and digest is not None:
            link = storage.revision(repository, digest)
            if link is not None:
                detail = "it links to a manifest that is not there"
                path = storage.revision_path(repository, digest)
                yield problem._replace(code=Code.REVISION_DANGLING, path=path, detail=detail)
            elif (repository, digest) not in dangling:
                yield problem
        elif problem.code in (Code.BLOB_MISSING, Code.BLOB_SIZE) and digest is not None:
            # What was pushed by its SHA-512 is stored by its SHA-256, which only the link tells.
            link = storage.layer(repository, digest)
            served = link.target if isinstance(link, Link) else digest
            yield problem._replace(path=storage.blob_path(served), digest=served)
        elif problem.code is Code.MANIFEST_INVALID and digest is not None:
            yield problem._replace(path=storage.blob_path(digest))
        elif problem.code is Code.LAYER_UNLINKED and digest is not None:
            yield problem._replace(path=storage.layer_path(repository, digest))
        elif problem.code is Code.TAG_DANGLING:
            yield problem._replace(path=storage.tag_path(repository, problem.path.rpartition(":")[2]))
        elif problem.code is Code.CHILD_UNLINKED and digest is not None:
            yield _unlinked_child(storage, problem, digest)
        else:
            yield problem


def _unlinked_child(storage: Storage, problem: Problem, digest: Digest) -> Problem:
    """A manifest that an index lists, the repository has no link to, and the store has."""
    path = storage.revision_path(problem.repository, digest)
    # Deleting a manifest leaves the folder of its link.
    if os.path.isdir(os.path.dirname(path)):  # noqa: PTH112, PTH120 (strings, as in _storage.py)
        detail = f"{problem.path} lists it, and it was deleted"
        return problem._replace(code=Code.CHILD_DELETED, path=path, detail=detail)
    return problem._replace(
        path=path, detail=f"{problem.path} lists it, and the repository has no link to it"
    )


def without_doubles(problems: Iterable[Problem]) -> list[Problem]:
    """Problems without what only follows from something else that is in the list."""
    problems = list(problems)
    ranks: dict[str, int] = {}
    for problem in problems:
        rank = _RANK.get(problem.code, len(_RANK))
        ranks[problem.path] = min(rank, ranks.get(problem.path, rank))
    gone = {
        problem.digest for problem in problems if problem.code in (Code.BLOB_MISSING, Code.REVISION_DANGLING)
    }
    return [
        problem
        for problem in problems
        if _RANK.get(problem.code, len(_RANK)) == ranks[problem.path]
        and not (problem.code is Code.BLOB_FOLDER_EMPTY and problem.digest in gone)
    ]


def _new(known: Iterable[Problem], more: Iterable[Problem]) -> Iterator[Problem]:
    """Those at paths of which nothing is known yet."""
    paths = {problem.path for problem in known}
    return (problem for problem in more if problem.path not in paths)


# What the walk has no word for


def _unneeded(storage: Storage, graph: Graph) -> Iterator[Problem]:
    for repository, digest in graph.orphans().links:
        if graph.blob_size(digest) is None:
            detail = "it links to a blob that is not there and that nobody needs"
            path = storage.layer_path(repository, digest)
            yield Problem(Code.LAYER_DANGLING, path, detail, repository, digest)


def _about_manifests(storage: Storage, graph: Graph) -> Iterator[Problem]:
    for repository in graph.repositories():
        for tag in graph.referrer_tags(repository):
            if tag.subject is None:
                detail = "it is about an image that the repository does not have"
                path = storage.tag_path(repository, tag.tag)
                yield Problem(Code.REFERRER_WITHOUT_IMAGE, path, detail, repository)
        own = set(graph.manifests(repository))
        for digest in own:
            manifest = _manifest(graph, digest)
            path = storage.revision_path(repository, digest)
            if manifest is None:
                continue
            if is_schema1(manifest.media_type):
                detail = "a manifest of schema 1, which registry 3.x refuses, its garbage collection too"
                yield Problem(Code.SCHEMA1, path, detail, repository, digest)
            if manifest.subject is not None and manifest.subject not in own:
                detail = f"it is about {manifest.subject}, which the repository does not have"
                yield Problem(Code.SUBJECT_MISSING, path, detail, repository, digest)


def _manifest(graph: Graph, digest: Digest) -> Manifest | None:
    try:
        return graph.manifest(digest)
    except UnknownContent:
        return None


def _about_repositories(storage: Storage, upload_age: float) -> Iterator[Problem]:
    for found in storage.repositories():
        if not isinstance(found, Problem):
            yield from _about_parts(storage, found)
            yield from _about_uploads(storage, found.name, upload_age)
            yield from _about_history(storage, found.name)


def _about_parts(storage: Storage, repository: Repository) -> Iterator[Problem]:
    path = storage.repository_path(repository.name)
    if repository.manifests and not repository.layers:
        detail = "it has manifests and no layers, at which the garbage collection of registry 3.x ends"
        yield Problem(Code.REPOSITORY_WITHOUT_LAYERS, path, detail, repository.name)
    if repository.layers and not repository.manifests:
        detail = "it has layers and no manifests; garbage collection frees them"
        yield Problem(Code.LAYERS_WITHOUT_MANIFESTS, path, detail, repository.name)


def _about_uploads(storage: Storage, repository: str, age: float) -> Iterator[Problem]:
    now = time.time()
    for upload in storage.uploads(repository):
        if isinstance(upload, Problem):
            yield upload
        elif now - upload.changed > age:
            hours = (now - upload.changed) / 3600
            detail = (
                f"a push that broke off: nothing has come for {hours:.0f} hours after {upload.size} bytes"
            )
            path = storage.upload_path(repository, upload.uuid)
            yield Problem(Code.UPLOAD_OLD, path, detail, repository)


def _about_history(storage: Storage, repository: str) -> Iterator[Problem]:
    for tag in storage.tags(repository):
        if not isinstance(tag, Problem):
            for link in storage.history(repository, tag.name):
                if isinstance(link, Problem):
                    yield link


# What it breaks


class _Breaks:
    """Which tags cannot be pulled because of a problem."""

    def __init__(self, storage: Storage, graph: Graph, problems: Iterable[Problem]) -> None:
        self._storage = storage
        self._graph = graph
        self._denied: dict[str, set[Digest]] = {}
        wanted = set()
        for problem in problems:
            if problem.code is Code.ACCESS:
                self._denied[problem.path] = self._blobs_below(problem.path)
                wanted |= self._denied[problem.path]
            elif problem.digest is not None:
                wanted.add(problem.digest)
        self._needing = graph.manifests_needing(wanted)
        self._above: dict[ManifestName, set[str]] = {}

    def repositories(self, problem: Problem) -> set[str]:
        """Those that need the blob that a problem is about."""
        place = self._storage.place_at(problem.path)
        is_blob = problem.code in BLOB_CODES or (place is not None and place.kind is Kind.BLOB)
        needing = self._needing.get(problem.digest, []) if is_blob and problem.digest else []
        return {repository for repository, _digest in needing}

    def of(self, problem: Problem) -> set[str]:
        code, path, _detail, repository, digest = problem
        if code is Code.ACCESS:
            return self._denied_tags(path)
        if code in (Code.CHILD_MISSING, Code.SUBJECT_MISSING, Code.SCHEMA1, Code.REFERRER_WITHOUT_IMAGE):
            return set()
        if code is Code.TAG_WITHOUT_CURRENT:
            return {f"{repository}:{path.rpartition('/')[2]}"}
        place = self._storage.place_at(path)
        if place is None:
            return self._above_blob(digest) if digest is not None and code in BLOB_CODES else set()
        if place.kind is Kind.TAG:
            return {f"{place.repository}:{place.tag}"}
        if place.digest is None or place.kind is Kind.HISTORY:
            return set()
        if place.kind is Kind.BLOB:
            return self._above_blob(place.digest)
        if place.kind is Kind.LAYER:
            return self._above_blob(place.digest, place.repository)
        return self._tags_above((place.repository, place.digest))

    def _above_blob(self, digest: Digest, only: str = "") -> set[str]:
        return {
            tag
            for repository, manifest in self._needing.get(digest, ())
            if only in ("", repository)
            for tag in self._tags_above((repository, manifest))
        }

    def _tags_above(self, name: ManifestName) -> set[str]:
        """The tags of a manifest and of the indexes that it is in."""
        if name not in self._above:
            self._above[name] = set(self._find_tags_above(name))
        return self._above[name]

    def _find_tags_above(self, name: ManifestName) -> Iterator[str]:
        repository, digest = name
        waiting, seen = [digest], {digest}
        while waiting:
            try:
                holders = self._graph.holders(repository, waiting.pop())
            except UnknownContent:
                continue
            yield from (f"{repository}:{tag}" for tag in holders.tags)
            waiting += [index for index in holders.indexes if index not in seen]
            seen.update(holders.indexes)

    # Of what the registry may not read

    def _blobs_below(self, path: str) -> set[Digest]:
        if not self._storage.is_among_blobs(path):
            return set()
        blobs = self._graph.reachable(untagged=True).blobs()
        return {
            blob.digest for blob in blobs if f"{self._storage.blob_path(blob.digest)}/".startswith(f"{path}/")
        }

    def _denied_tags(self, path: str) -> set[str]:
        if self._storage.is_among_blobs(path):
            return {tag for digest in self._denied[path] for tag in self._above_blob(digest)}
        for inside in ("", "/link", "/current/link"):
            place = self._storage.place_at(f"{path}{inside}")
            if place is not None:
                below = Problem(Code.LINK_TORN, f"{path}{inside}", "", place.repository, place.digest)
                return self.of(below)
        graph = self._graph
        return {
            f"{name}:{tag.name}"
            for name in graph.repositories()
            if self._is_denied(self._storage.repository_path(name), path)
            for tag in graph.tags(name)
        }

    def _is_denied(self, repository: str, path: str) -> bool:
        """Whether nothing of a repository can be pulled if a folder cannot be listed."""
        inside = path.startswith((f"{repository}/_layers", f"{repository}/_manifests"))
        return inside or f"{repository}/".startswith(f"{path}/")
