# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the graph gets a registry's contents from: its disk, which shows all of it, or HTTP.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple, Protocol

from ._client import Manifest, NotFound, RegistryClient, ServerError, Truncated
from ._errors import RegistryError
from ._reference import Digest
from ._storage import Blob, Code, Link, Problem, Repository, Storage, Tag

# How long a registry may take to write a link, or to delete a manifest and then its tags.
_CHANGE_SECONDS = 0.3


class View(NamedTuple):
    """One repository as a source shows it. The iterables are to be used once, in this order."""

    name: str
    #: Manifests first: one that is pushed and tagged while we look must not be taken for an untagged one.
    revisions: Iterable[Link | Problem]
    tags: Iterable[Tag | Problem]
    layers: Iterable[Link | Problem]
    #: Whether it was ever pushed a manifest, as far as the source can tell.
    had_manifests: bool
    #: The bodies of manifests that came along with the tags.
    bodies: Mapping[Digest, bytes]


class Source(Protocol):
    """What a graph is made from."""

    #: Whether it shows everything: untagged manifests, links, and blobs that nothing refers to.
    complete: bool

    def repositories(self) -> Iterator[View | Problem]:
        """Every repository, in no particular order."""

    def revision(self, repository: str, digest: Digest) -> Link | Problem | None:
        """One manifest of a repository as it is now; None where there is none."""

    def was_just_deleted(self, repository: str, digest: Digest) -> bool:
        """Whether tags that still point to a manifest which is not there may be about to go."""

    def tag(self, repository: str, name: str) -> Tag | Problem | None:
        """One tag as it is now; None where there is none."""

    def manifests(self, wanted: Iterable[tuple[str, Digest]]) -> Iterator[bytes | Problem]:
        """The bodies of manifests, each by a repository that has it, in the order asked for."""

    def blobs(self) -> Iterator[Blob | Problem]:
        """Every blob with its size, where the source is complete."""

    def read_blob(self, repository: str, digest: Digest, limit: int) -> bytes:
        """A small blob, such as an image's config. RegistryError if it is missing, larger, or corrupt."""


class DiskSource:
    """A registry's own storage, all of it or some repositories. The registry may go on working on it."""

    def __init__(self, storage: Storage, only: Collection[str] | None = None) -> None:
        self._storage = storage
        self._only = only
        self.complete = only is None

    def repositories(self) -> Iterator[View | Problem]:
        for found in self._storage.repositories():
            if isinstance(found, Problem):
                yield found
            elif self._only is None or found.name in self._only:
                yield self._view(found)

    def revision(self, repository: str, digest: Digest) -> Link | Problem | None:
        return self._storage.revision(repository, digest)

    def was_just_deleted(self, repository: str, digest: Digest) -> bool:
        return self._storage.was_just_deleted(repository, digest)

    def tag(self, repository: str, name: str) -> Tag | Problem | None:
        return self._storage.tag(repository, name)

    def manifests(self, wanted: Iterable[tuple[str, Digest]]) -> Iterator[bytes | Problem]:
        return (self._storage.read_manifest(digest) for _repository, digest in wanted)

    def blobs(self) -> Iterator[Blob | Problem]:
        return self._storage.blobs()

    def read_blob(self, repository: str, digest: Digest, limit: int) -> bytes:  # noqa: ARG002
        return self._storage.read_blob(digest, limit)

    def _view(self, repository: Repository) -> View:
        name = repository.name
        storage = self._storage
        return View(
            name, storage.revisions(name), storage.tags(name), storage.layers(name), repository.manifests, {}
        )


class LinkSource(DiskSource):
    """Some repositories on disk, without the sizes of blobs, for which all blobs would have to be listed."""

    def blobs(self) -> Iterator[Blob | Problem]:
        return iter(())


class HttpSource:
    """A registry that is asked over HTTP, for all repositories or some: tags and what they refer to."""

    complete = False

    def __init__(self, client: RegistryClient, only: Collection[str] | None = None) -> None:
        self._client = client
        self._only = only

    def repositories(self) -> Iterator[View | Problem]:
        names = sorted(self._client.repositories() if self._only is None else self._only)
        tags = list(self._client.map(self._tags, names))
        wanted = ((name, tag) for name, found in zip(names, tags) for tag in found or ())
        answers = self._client.map(self._tagged, wanted)
        for name, found in zip(names, tags):
            yield _view(name, found is not None, list(islice(answers, len(found or ()))))

    def revision(self, repository: str, digest: Digest) -> Link | Problem | None:  # noqa: ARG002
        # Whether it is there turns out when its body is asked for.
        return Link(digest, digest, None)

    def was_just_deleted(self, repository: str, digest: Digest) -> bool:  # noqa: ARG002
        return False  # nobody can tell

    def tag(self, repository: str, name: str) -> Tag | Problem | None:
        try:
            return Tag(name, self._client.resolve(repository, name).digest, None)
        except NotFound:
            return None

    def manifests(self, wanted: Iterable[tuple[str, Digest]]) -> Iterator[bytes | Problem]:
        return self._client.map(self._body, wanted)

    def blobs(self) -> Iterator[Blob | Problem]:
        return iter(())

    def read_blob(self, repository: str, digest: Digest, limit: int) -> bytes:
        if self._client.blob_size(repository, digest) > limit:
            raise RegistryError(f"read {repository}@{digest}: it is larger than {limit} bytes")
        content = bytearray()
        self._client.pull_blob(repository, digest, content.extend)
        return bytes(content)

    def _tags(self, repository: str) -> list[str] | None:
        try:
            return sorted(self._client.tags(repository))
        except NotFound:
            return None

    def _tagged(self, tag: tuple[str, str]) -> tuple[str, bytes, Digest] | Problem | None:
        """A tag and the manifest it stands for; None where it was deleted since it was listed."""
        repository, name = tag
        found = self._manifest(repository, name)
        if isinstance(found, Manifest):
            return name, found.raw, found.digest
        if found.code is Code.MANIFEST_MISSING:
            detail = "it points to a manifest that the repository does not have"
            still_there = name in (self._tags(repository) or ())
            return found._replace(code=Code.TAG_DANGLING, detail=detail) if still_there else None
        return found

    def _body(self, wanted: tuple[str, Digest]) -> bytes | Problem:
        repository, digest = wanted
        found = self._manifest(repository, digest)
        return found.raw if isinstance(found, Manifest) else found._replace(digest=digest)

    def _manifest(self, repository: str, reference: str) -> Manifest | Problem:
        """A manifest, which is asked for twice: what is amiss may be a push or a deletion under way.

        A registry that is down as a whole stays an error.
        """
        try:
            return self._client.manifest(repository, reference)
        except (NotFound, Truncated, ServerError) as error:
            if error.transient:
                raise
        time.sleep(_CHANGE_SECONDS)
        place = f"{repository}{'@' if ':' in reference else ':'}{reference}"
        try:
            return self._client.manifest(repository, reference)
        except NotFound:
            return Problem(Code.MANIFEST_MISSING, place, "there is no such manifest", repository)
        except (Truncated, ServerError) as error:
            if error.transient:
                raise
            return Problem(Code.MANIFEST_CORRUPT, place, str(error), repository)


def _view(name: str, had_manifests: bool, found: list[tuple[str, bytes, Digest] | Problem | None]) -> View:
    problems = [item for item in found if isinstance(item, Problem)]
    tagged = [item for item in found if item is not None and not isinstance(item, Problem)]
    bodies = {digest: body for _tag, body, digest in tagged}
    return View(
        name,
        [Link(digest, digest, None) for digest in sorted(bodies)],
        [*problems, *(Tag(tag, digest, None) for tag, _body, digest in tagged)],
        (),
        had_manifests,
        bodies,
    )
