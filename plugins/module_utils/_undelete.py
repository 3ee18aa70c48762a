# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring back a tag that was deleted or moved, as long as garbage collection has not freed its contents.

What shows what there was:

- The history of a tag that was moved: every manifest it pointed to, and when it last began to.
- A note of each tag that we deleted on the registry's host. Who deletes otherwise takes the tag's name with
  it.
- The manifests of a repository that no tag leads to, and the empty folders of those that were deleted.

The contents of all of them stay until the next garbage collection, but for untagged manifests, which stay
until somebody deletes them.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ._errors import RegistryError
from ._graph import read_graph
from ._manifest import Descriptor, InvalidManifest, Manifest, parse_manifest
from ._plan import PLACEHOLDER_TYPE
from ._reference import Digest, Reference
from ._source import LinkSource
from ._storage import Link, Problem, Storage

# Configs of images are smaller.
_CONFIG_LIMIT = 8 * 1024 * 1024
# What one deletion takes with it, it takes within this time.
_ONE_RUN_SECONDS = 60.0


class CannotUndelete(RegistryError):
    """It cannot be brought back: unknown, or not all of it is there any more."""


class How(str, enum.Enum):
    """Why no tag shows it."""

    MOVED = "moved"
    DELETED = "deleted"
    UNTAGGED = "untagged"


class Missing(NamedTuple):
    """A part that is gone or damaged, without which it cannot be pulled."""

    digest: Digest
    detail: str

    def __str__(self) -> str:
        return f"{self.digest} ({self.detail})"


class Former(NamedTuple):
    """Something that was there."""

    repository: str
    #: Empty where nothing tells which tag it had.
    tag: str
    digest: Digest
    how: How
    #: Unix time: when it was deleted, or else the last push of the tag there or of the manifest.
    since: float
    missing: tuple[Missing, ...]
    media_type: str
    #: `os/architecture` of an image, or of those in an index.
    platforms: tuple[str, ...]
    #: When an image was built, as its config says: RFC 3339, or empty.
    created: str

    @property
    def name(self) -> str:
        return str(Reference(self.repository, self.tag or None, self.digest))


class Restored(NamedTuple):
    """What is written so that something can be pulled again, in this order. Nothing at all is no change."""

    repository: str
    #: Blobs that the repository has no link to any more.
    layers: tuple[Digest, ...]
    #: Children before the indexes that list them.
    manifests: tuple[Digest, ...]
    #: Each with the manifest it pointed to, or None, and the one it points to now.
    tags: tuple[tuple[str, Digest | None, Digest], ...]
    #: Referrers that were deleted too and are not complete.
    incomplete: tuple[Missing, ...]

    @property
    def changed(self) -> bool:
        return bool(self.layers or self.manifests or self.tags)


def formers(storage: Storage, repository: str, tag: str = "") -> list[Former]:
    """What can be brought back to a repository, or to one tag of it, and what cannot any more; latest first.

    Asked for a tag, manifests are among them of which nobody knows what tag they had. Raises CannotUndelete
    where there is no such repository.
    """
    return _Search(storage, repository).formers(tag)


def undelete(
    storage: Storage, wanted: Reference, *, referrers: bool = True, check_mode: bool = False
) -> Restored:
    """Bring back `repository:tag@digest`; or, the last of that name that we deleted, `repository:tag`.

    `repository@digest` brings back a manifest without a tag. With `referrers`, signatures and the like that
    were deleted with it come back too. Raises CannotUndelete; then nothing was changed.
    """
    restored = _Search(storage, wanted.repository).restore(wanted, referrers=referrers)
    if not check_mode:
        for digest in restored.layers:
            storage.write_layer(restored.repository, digest)
        for digest in restored.manifests:
            storage.write_revision(restored.repository, digest)
        for tag, _before, digest in restored.tags:
            storage.write_tag(restored.repository, tag, digest)
    return restored


@dataclass
class _Contents:
    """All that a manifest leads to, as far as it is there."""

    #: Children before the indexes that list them.
    manifests: dict[Digest, Manifest] = field(default_factory=dict)
    unlinked: list[Digest] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)


class _Search:
    """One repository, and what was in it."""

    def __init__(self, storage: Storage, repository: str) -> None:
        self._storage = storage
        self._repository = repository
        graph = read_graph(LinkSource(storage, {repository}))
        if repository not in graph.repositories():
            raise CannotUndelete(f"undelete {repository}: there is no such repository on this host's disk")
        self._tags = {tag.name: tag.digest for tag in graph.tags(repository)}
        reach = graph.reachable()
        self._untagged = [
            digest for digest in graph.manifests(repository) if not reach.has_manifest(repository, digest)
        ]
        self._pushed = {digest: graph.pushed(repository, digest) or 0.0 for digest in self._untagged}
        self._deleted = dict(storage.deleted_revisions(repository))
        #: The last deletion of each tag.
        self._notes = {note.name: note for note in storage.deleted_tags() if note.repository == repository}

    # What there was

    def formers(self, tag: str) -> list[Former]:
        named = [found for found in self._named() if tag in ("", found[0])]
        of_a_tag = {digest for _tag, digest, _how, _since in self._named()}
        unnamed = [
            found
            for found in self._unnamed()
            if found[1] not in of_a_tag and not self._is_placeholder(found[1])
        ]
        listed = [(found, self._contents(found[1])) for found in (*named, *unnamed)]
        children = {
            child.digest
            for _found, contents in listed
            for manifest in contents.manifests.values()
            for child in manifest.children
        }
        return sorted(
            (
                self._former(*found, contents)
                for found, contents in listed
                if found[0] or found[1] not in children
            ),
            key=lambda former: (-former.since, former.tag, former.digest),
        )

    def _named(self) -> Iterator[tuple[str, Digest, How, float]]:
        for name, note in self._notes.items():
            if self._tags.get(name) != note.digest:
                yield name, note.digest, How.DELETED, note.deleted
        for name, current in self._tags.items():
            for link in self._storage.history(self._repository, name):
                noted = self._notes.get(name)
                if isinstance(link, Problem) or link.digest in (current, noted and noted.digest):
                    continue
                yield name, link.digest, How.MOVED, link.pushed or 0.0

    def _unnamed(self) -> Iterator[tuple[str, Digest, How, float]]:
        for digest in self._untagged:
            yield "", digest, How.UNTAGGED, self._pushed[digest]
        for digest, deleted in self._deleted.items():
            yield "", digest, How.DELETED, deleted

    def _is_placeholder(self, digest: Digest) -> bool:
        manifest = self._manifest(digest, _Contents())
        return manifest is not None and manifest.artifact_type == PLACEHOLDER_TYPE

    def _former(self, tag: str, digest: Digest, how: How, since: float, contents: _Contents) -> Former:
        manifest = contents.manifests.get(digest)
        platforms, created = _describe(self._storage, manifest) if manifest else ((), "")
        return Former(
            self._repository,
            tag,
            digest,
            how,
            since,
            tuple(contents.missing),
            manifest.media_type if manifest else "",
            platforms,
            created,
        )

    # Whether it is all there

    def _contents(self, root: Digest) -> _Contents:
        contents = _Contents()
        waiting = [(root, False)]
        seen = set()
        while waiting:
            digest, children_done = waiting.pop()
            if children_done:
                # Taken out and put in again, so that it comes after its children.
                contents.manifests[digest] = contents.manifests.pop(digest)
                continue
            if digest in seen:
                continue
            seen.add(digest)
            manifest = self._manifest(digest, contents)
            if manifest is not None:
                contents.manifests[digest] = manifest
                waiting.append((digest, True))
                waiting += [(child.digest, False) for child in manifest.children]
                for descriptor in (*filter(None, [manifest.config]), *manifest.layers):
                    self._look_at_blob(descriptor, contents)
        return contents

    def _manifest(self, digest: Digest, contents: _Contents) -> Manifest | None:
        body = self._storage.read_manifest(digest)
        if isinstance(body, Problem):
            contents.missing.append(Missing(digest, body.detail))
            return None
        try:
            return parse_manifest(body)
        except InvalidManifest as error:
            contents.missing.append(Missing(digest, str(error)))
            return None

    def _look_at_blob(self, descriptor: Descriptor, contents: _Contents) -> None:
        digest = descriptor.digest
        link = self._storage.layer(self._repository, digest)
        size = self._storage.blob_size(link.target if isinstance(link, Link) else digest)
        if size is None:
            if not descriptor.elsewhere:
                contents.missing.append(Missing(digest, "there is no such blob"))
        elif descriptor.size not in (-1, size):
            contents.missing.append(Missing(digest, f"{descriptor.size} bytes, of which {size} are there"))
        elif not isinstance(link, Link):
            contents.unlinked.append(digest)

    # Bringing it back

    def restore(self, wanted: Reference, *, referrers: bool) -> Restored:
        digest = wanted.digest or self._last_deleted(wanted.tag or "")
        contents = self._contents(digest)
        if contents.missing:
            raise CannotUndelete(
                f"undelete {wanted}: not all of it is there any more: "
                f"{', '.join(map(str, contents.missing))}; a push or a backup brings it back"
            )
        tags = {wanted.tag: digest} if wanted.tag else {}
        incomplete: list[Missing] = []
        if referrers:
            for tag, other in self._referrers(contents):
                found = self._contents(other)
                incomplete += found.missing
                if not found.missing:
                    contents.manifests.update(found.manifests)
                    contents.unlinked += found.unlinked
                    if tag:
                        tags[tag] = other
        return Restored(
            self._repository,
            tuple(dict.fromkeys(contents.unlinked)),
            tuple(item for item in contents.manifests if not self._has(item)),
            tuple(
                (tag, self._tags.get(tag), item) for tag, item in tags.items() if self._tags.get(tag) != item
            ),
            tuple(incomplete),
        )

    def _has(self, digest: Digest) -> bool:
        return isinstance(self._storage.revision(self._repository, digest), Link)

    def _last_deleted(self, tag: str) -> Digest:
        """The manifest of a tag that nobody named: the one it had when it was deleted."""
        current, note = self._tags.get(tag), self._notes.get(tag)
        if note is not None and current in (None, note.digest):
            return note.digest
        what = f"undelete {self._repository}:{tag}"
        found = self.formers(tag)
        shown = ", ".join(str(former.digest) for former in found if not former.missing) or "none"
        if current is not None:
            raise CannotUndelete(
                f"{what}: the tag is there, at {current}; name the manifest that it should point to, as in "
                f"{self._repository}:{tag}@sha256:… (complete are: {shown})"
            )
        raise CannotUndelete(
            f"{what}: its deletion was not noted; name the manifest that it should point to, as in "
            f"{self._repository}:{tag}@sha256:… (complete are: {shown})"
        )

    def _referrers(self, contents: _Contents) -> Iterator[tuple[str, Digest]]:
        """What was deleted with these and is about them, or about that: (tag or "", manifest)."""
        times = [self._deleted[digest] for digest in contents.manifests if digest in self._deleted]
        if not times:
            return  # a tag that went without its manifest took nothing along
        since = min(times) - _ONE_RUN_SECONDS
        about: dict[Digest, list[Digest]] = {}
        for digest, deleted in self._deleted.items():
            manifest = self._manifest(digest, _Contents()) if deleted >= since else None
            if manifest is not None and manifest.subject is not None:
                about.setdefault(manifest.subject, []).append(digest)
        waiting, seen = list(contents.manifests), set(contents.manifests)
        while waiting:
            image = waiting.pop()
            prefix = image.replace(":", "-", 1)
            noted = [
                (name, note.digest)
                for name, note in self._notes.items()
                if name.partition(".")[0] == prefix and name not in self._tags and note.deleted >= since
            ]
            for tag, digest in (*noted, *(("", digest) for digest in about.get(image, ()))):
                if digest not in seen:
                    seen.add(digest)
                    waiting.append(digest)
                    yield tag, digest


def _describe(storage: Storage, manifest: Manifest) -> tuple[tuple[str, ...], str]:
    """Platforms of an image or index, and when an image was built."""
    listed = tuple(dict.fromkeys(child.platform for child in manifest.children if not child.is_attestation))
    config = manifest.config
    if config is None or not 0 <= config.size <= _CONFIG_LIMIT:
        return tuple(filter(None, listed)), ""
    try:
        document: Any = json.loads(storage.read_blob(config.digest, _CONFIG_LIMIT))
    except (RegistryError, ValueError):
        return (), ""
    if not isinstance(document, dict):
        return (), ""
    parts = [document.get(key) for key in ("os", "architecture", "variant")]
    platform = "/".join(part for part in parts if isinstance(part, str) and part)
    created = document.get("created")
    return (platform,) if platform else (), created if isinstance(created, str) else ""
