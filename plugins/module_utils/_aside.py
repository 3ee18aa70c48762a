# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take tags and manifests out of a working registry's sight so that they can be put back.

Taking is a rename: atomic, and the file stays the same one. Registries up to 3.0 write a link in place, so
a push that opened it before the rename writes to it afterwards, wherever it lies by then. What a push does
to a link before, during or after the rename therefore shows in that link, and a link that was written to is
put back. (Registry 3.1 replaces links by renaming. It loses that race with an error to the client, as it
does against deletions of its own.)

Private to the collection: no stable interface.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ._plan import DoomedManifest, DoomedTag, Target
from ._reference import Digest
from ._storage import Problem, Storage


class _Taken(NamedTuple):
    path: str
    aside: str
    #: Where the link is below either, and what it said and when it was written as it was taken.
    link: str
    state: tuple[Digest, float]


@contextmanager
def set_aside(storage: Storage) -> Iterator[Aside]:
    """What is aside at the end is deleted, or after an exception put back."""
    with storage.own_folder_aside() as folder:
        aside = Aside(storage, folder)
        try:
            yield aside
        except BaseException:
            for target in aside.taken():
                aside.put_back(target)
            raise


class Aside:
    """What was taken; set_aside() makes it."""

    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage = storage
        self._folder = folder
        self._count = 0
        self._taken: dict[Target, _Taken] = {}

    def taken(self) -> list[Target]:
        return list(self._taken)

    def take_tag(self, tag: DoomedTag) -> bool:
        """Take a tag with its history; False where it is gone, or not what it was when that was decided."""
        inside = "/current/link"
        path = self._storage.tag_path(tag.repository, tag.name)[: -len(inside)]
        return self._take((tag.repository, tag.name), path, inside, tag.digest, tag.pushed)

    def take_manifest(self, manifest: DoomedManifest) -> bool:
        """Take a repository's link to a manifest; False where it is gone, or was pushed again."""
        path = self._storage.revision_path(manifest.repository, manifest.digest)
        return self._take((manifest.repository, manifest.digest), path, "", manifest.digest, manifest.pushed)

    def written(self) -> list[Target]:
        """What pushes have written to since it was taken."""
        taken = self._taken.items()
        return [
            target for target, item in taken if self._storage.link_at(item.aside + item.link) != item.state
        ]

    def put_back(self, target: Target) -> None:
        """Undo a take. Where a push has put something new in its place, that stays."""
        item = self._taken.pop(target)
        self._storage.put_back(item.aside, item.path)

    def _take(self, target: Target, path: str, link: str, digest: Digest, pushed: float | None) -> bool:
        # Looked at before as well, so that what is not meant is never out of sight.
        if self._meant(path + link, digest, pushed) is None:
            return False
        self._count += 1
        aside = f"{self._folder}/{self._count}"
        if not self._storage.take_aside(path, aside):
            return False
        state = self._meant(aside + link, digest, pushed)
        if state is None:
            self._storage.put_back(aside, path)
            return False
        self._taken[target] = _Taken(path, aside, link, state)
        return True

    def _meant(self, path: str, digest: Digest, pushed: float | None) -> tuple[Digest, float] | None:
        """The link at a path if it is the one that was decided on."""
        state = self._storage.link_at(path)
        if state is None or isinstance(state, Problem):
            return None
        return state if state[0] == digest and pushed in (None, state[1]) else None
