# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delete tags and manifests from a registry that goes on working: look, plan, execute.

    graph = look(targets, client, storage)
    found = plan(graph, targets)
    done = execute(found, client, storage=storage)

Over HTTP, registry 3.x deletes a tag by its name. 2.8 cannot: there the manifest is deleted by its digest
where it may go, which takes the tag along, and else the tag is pointed at an empty index of its own, which is
deleted then. No call of either version has a condition, so a push that comes between our look and the call is
deleted with it; we look again every few seconds and spare what somebody needs by then.

On the registry's own host (`storage`) tags are renamed away, and on 2.8 the links of manifests too, which
is as safe as the calls and safer (docs/contents.md has the whole argument):

- Neither version keeps tags in a cache, nor does 2.8 keep manifests: it reads the link for each request. 3.x
  remembers which manifests a repository has, so there only the call may delete one.
- All that the call of 2.8 does is to remove the link, and then to read all tags of the repository, which is
  why it is slow, and remove those that point there: also one that was pushed a moment ago. A push that has
  written its first link and not yet its last is left with a tag that leads nowhere. We remove the same
  files, wait for SETTLE_SECONDS, look once at what is there by then, and put back what was pushed or is
  needed again.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import json
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar

from ._aside import Aside, set_aside
from ._client import NotFound, RegistryClient, Unsupported
from ._errors import RegistryError
from ._graph import Graph, ManifestName, Reach, TagName, UnknownContent, read_graph
from ._media import OCI_INDEX
from ._plan import (
    PLACEHOLDER_TYPE,
    DanglingTag,
    DoomedManifest,
    DoomedTag,
    Plan,
    Protection,
    Referrers,
    Target,
    UnknownRepository,
    name_of,
    parse_targets,
    plan,
)
from ._reference import Digest
from ._source import DiskSource, HttpSource, LinkSource, View
from ._storage import Code, DeletedTag, Link, Problem, Storage

__all__ = [
    "DanglingTag",
    "DeletionFailed",
    "DoomedManifest",
    "DoomedTag",
    "Outcome",
    "Plan",
    "Protection",
    "Referrers",
    "Target",
    "UnknownRepository",
    "execute",
    "look",
    "name_of",
    "parse_targets",
    "plan",
]

#: How long a push may take from the first link it writes to the last, for what it links not to be lost.
SETTLE_SECONDS = 2.0
#: What we know of a working registry is looked up again when it is older than this, and not so often that
#: looking would take more than a twentieth of the time.
_FRESH_SECONDS = 5.0
_SHARE_OF_LOOKING = 20

# No registry can have a manifest with this digest: the content is no manifest.
_NO_MANIFEST = Digest.of(b"dockyard.registry asks whether this registry deletes")

_PUSHED = "it was pushed again meanwhile"
_NEEDED = "something that was pushed meanwhile needs it"

Item = TypeVar("Item")
#: Called after each deletion with how many are done and how many there are.
Progress = Callable[[int, int], object]


class WrongData(RegistryError):
    """The folder is not the storage of the registry that answers."""


@dataclass
class Outcome:
    """What was done."""

    tags: list[TagName] = field(default_factory=list)
    manifests: list[ManifestName] = field(default_factory=list)
    #: What was to go and stays, because it was pushed or is needed since that was decided, with the reason.
    spared: list[Protection] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return bool(self.tags or self.manifests)


class DeletionFailed(RegistryError):
    """The registry or its storage failed on the way. `outcome` is what was deleted before."""

    def __init__(self, error: RegistryError, outcome: Outcome) -> None:
        done = f"; deleted before: tags {len(outcome.tags)}, manifests {len(outcome.manifests)}"
        super().__init__(f"{error}{done if outcome.changed else ''}")
        self.outcome = outcome


def look(targets: Iterable[Target], client: RegistryClient, storage: Storage | None = None) -> Graph:
    """What a plan for these targets needs to know: all of the storage, or over HTTP their repositories."""
    return read_graph(DiskSource(storage) if storage else _NamedSource(client, list(targets)))


def execute(
    found: Plan,
    client: RegistryClient,
    *,
    storage: Storage | None = None,
    progress: Progress | None = None,
    settle: float = SETTLE_SECONDS,
) -> Outcome:
    """Carry out a plan. What is gone already is no change, and no error.

    `storage` is the registry's own where it lies on this host. Raises DeletionFailed, and before anything is
    changed what check() raises.
    """
    if not found.changes:
        return Outcome()
    check(found, client, storage)
    return _Execution(found, client, storage, progress, settle).run()


def check(found: Plan, client: RegistryClient, storage: Storage | None = None) -> None:
    """Find out whether the registry would let us delete, without deleting.

    Raises Unauthorized, Forbidden, Unsupported (deletion disabled, or read-only) and other ClientErrors, and
    WrongData where the storage is not that of this registry.
    """
    with suppress(NotFound):
        client.delete_manifest(_a_repository(found), _NO_MANIFEST)
    if storage is not None:
        _check_data(found, client, storage)


def _a_repository(found: Plan) -> str:
    return found.tags[0].repository if found.tags else found.manifests[0][0]


def _check_data(found: Plan, client: RegistryClient, storage: Storage) -> None:
    repository, digest = (
        found.manifests[0] if found.manifests else (found.tags[0].repository, found.tags[0].digest)
    )
    if not isinstance(storage.revision(repository, digest), Link):
        return  # deleted meanwhile
    try:
        client.resolve(repository, digest)
    except NotFound:
        if isinstance(storage.revision(repository, digest), Link):
            raise WrongData(
                f"data {storage.root}: this is not the data of the registry at {client.url}, "
                f"which does not have {repository}@{digest}"
            ) from None


class _Execution:
    """One run. `outcome` is true at every moment."""

    def __init__(
        self,
        found: Plan,
        client: RegistryClient,
        storage: Storage | None,
        progress: Progress | None,
        settle: float,
    ) -> None:
        self._plan = found
        self._client = client
        self._storage = storage
        self._progress = progress
        self._settle = settle
        self._total = len(found.tags) + len(found.manifests)
        self._doomed = set(found.manifests)
        self._doomed_tags = {(tag.repository, tag.name): tag for tag in found.tags}
        self._needed: set[ManifestName] = set()
        self._looked = found.read
        self._cost = 0.0
        self.outcome = Outcome()

    def run(self) -> Outcome:
        try:
            self._run()
        except RegistryError as error:
            self._note_tags_that_went_along()
            raise DeletionFailed(error, self.outcome) from error
        self._tell()
        return self.outcome

    def _note_tags_that_went_along(self) -> None:
        """After a failure: the registry of 2.8 deletes them with their manifest."""
        gone, noted = set(self.outcome.manifests), set(self.outcome.tags)
        for tag in self._plan.tags:
            if _manifest_of(tag) in gone and tag[:2] not in noted:
                self.outcome.tags.append(tag[:2])

    def _run(self) -> None:
        by_name = self._deletes_tags_by_name()
        if self._storage is not None:
            self._take_from_disk(self._storage, manifests=not by_name)
            if by_name:
                self._delete_manifests()
                self._restore_needed(self._storage)
        elif by_name:
            self._map(self._delete_tag, self._plan.tags)
            self._delete_manifests()
        else:
            self._map(
                self._replace_tag, [tag for tag in self._plan.tags if _manifest_of(tag) not in self._doomed]
            )
            self._delete_manifests()
            self._settle_tags()

    def _deletes_tags_by_name(self) -> bool:
        """Whether this is 3.x: asked by deleting a tag that is not there."""
        if not self._plan.tags and self._storage is None:
            return True  # it does not matter
        try:
            with suppress(NotFound):
                self._client.delete_tag(_a_repository(self._plan), f"dockyard-{secrets.token_hex(16)}")
        except Unsupported as error:
            if error.reason != Unsupported.TAG_DELETE:
                raise
            return False
        return True

    # Through the registry

    def _map(self, function: Callable[[Item], None], items: Iterable[Item]) -> None:
        for _done in self._client.map(function, items):
            self._tell()

    def _delete_manifests(self) -> None:
        for wave in self._plan.waves:
            self._map(self._delete_manifest, self._unneeded(wave))

    def _delete_manifest(self, manifest: DoomedManifest) -> None:
        repository, digest, _pushed = manifest
        with suppress(NotFound):
            self._client.delete_manifest(repository, digest)
            self.outcome.manifests.append((repository, digest))

    def _delete_tag(self, tag: DoomedTag) -> None:
        if self._is_as_decided(tag):
            with suppress(NotFound):
                self._client.delete_tag(tag.repository, tag.name)
                self.outcome.tags.append((tag.repository, tag.name))

    def _replace_tag(self, tag: DoomedTag) -> None:
        """Point a tag at a manifest that nothing else can point to, and delete that."""
        if self._is_as_decided(tag):
            body = placeholder(tag.repository, tag.name)
            digest = self._client.put_manifest(tag.repository, tag.name, body, OCI_INDEX)
            with suppress(NotFound):  # the next run found it and did the same
                self._client.delete_manifest(tag.repository, digest)
            self.outcome.tags.append((tag.repository, tag.name))

    def _is_as_decided(self, tag: DoomedTag) -> bool:
        try:
            current = self._client.resolve(tag.repository, tag.name).digest
        except NotFound:
            return False
        if current != tag.digest:
            self._spare((tag.repository, tag.name), _PUSHED)
        return current == tag.digest

    def _settle_tags(self) -> None:
        """Note the tags that went along with their manifests, and remove those whose manifest had to stay."""
        along: dict[str, list[DoomedTag]] = defaultdict(list)
        left = []
        deleted = set(self.outcome.manifests)
        spared = {protection.target for protection in self.outcome.spared}
        for tag in self._plan.tags:
            if _manifest_of(tag) in deleted:
                along[tag.repository].append(tag)
            elif _manifest_of(tag) in spared:
                left.append(tag)
        for repository, tags in along.items():
            there = self._tags_of(repository)
            for tag in tags:
                if tag.name in there:
                    self._spare((repository, tag.name), _PUSHED)
                else:
                    self.outcome.tags.append((repository, tag.name))
        self._map(self._replace_tag, left)

    def _tags_of(self, repository: str) -> set[str]:
        try:
            return set(self._client.tags(repository))
        except NotFound:
            return set()

    # On disk

    def _take_from_disk(self, storage: Storage, *, manifests: bool) -> None:
        now = time.time()
        storage.note_deleted_tags(DeletedTag(*tag[:3], now) for tag in self._plan.tags)
        with set_aside(storage) as aside:
            for tag in self._plan.tags:
                if not aside.take_tag(tag) and storage.tag(tag.repository, tag.name) is not None:
                    self._spare((tag.repository, tag.name), _PUSHED)
            left = self._take_manifests(aside, storage) if manifests else []
            if aside.taken():
                time.sleep(self._settle)
            self._put_back(aside, aside.written(), _PUSHED)
            self._look_again()
            self._put_back(aside, self._needed.intersection(aside.taken()), _NEEDED)
            self._note(aside.taken())
        self._map(self._delete_manifest, self._unneeded(left))

    def _take_manifests(self, aside: Aside, storage: Storage) -> list[DoomedManifest]:
        """Take the manifests of a registry 2.8, but for those that only the registry can delete."""
        left = []
        for manifest in self._unneeded(chain.from_iterable(self._plan.waves)):
            name = manifest[:2]
            if storage.layer(*name) is not None:
                # It looks for manifests among the layers, too, where 2.1 linked them.
                left.append(manifest)
            elif not aside.take_manifest(manifest) and storage.revision(*name) is not None:
                self._spare(name, _PUSHED)
        return left

    def _restore_needed(self, storage: Storage) -> None:
        """Give back manifests that the registry has deleted and something needs that was pushed meanwhile."""
        if not self.outcome.manifests:
            return
        time.sleep(self._settle)
        self._look_again()
        for manifest in self._needed.intersection(self.outcome.manifests):
            if storage.revision(*manifest) is None:
                storage.write_revision(*manifest)
            self.outcome.manifests.remove(manifest)
            self._spare(manifest, _NEEDED)

    def _put_back(self, aside: Aside, targets: Iterable[Target], reason: str) -> None:
        for target in targets:
            aside.put_back(target)
            self._spare(target, reason)

    def _note(self, targets: Iterable[Target]) -> None:
        for repository, name in targets:
            if isinstance(name, Digest):
                self.outcome.manifests.append((repository, name))
            else:
                self.outcome.tags.append((repository, name))

    # What happened meanwhile

    def _unneeded(self, manifests: Iterable[DoomedManifest]) -> Iterator[DoomedManifest]:
        """Those that nobody has come to need, as far as we know when they are asked for."""
        for manifest in manifests:
            age = time.time() - self._looked
            if not 0 <= age <= max(_FRESH_SECONDS, _SHARE_OF_LOOKING * self._cost):
                self._look_again()
            name = manifest[:2]
            if name in self._needed:
                self._spare(name, _NEEDED)
            else:
                yield manifest

    def _look_again(self) -> None:
        """Find out which of the doomed manifests something needs that is there now and is to stay."""
        begin = time.time()
        doomed = frozenset(self._doomed)
        wanted = {repository for repository, _digest in doomed}
        storage = self._storage
        graph = read_graph(LinkSource(storage, wanted) if storage else HttpSource(self._client, wanted))
        there = wanted.intersection(graph.repositories())
        tagged = {manifest for repository in there for manifest in self._staying_tags(graph, repository)}
        others = {(repository, digest) for repository in there for digest in graph.manifests(repository)}
        reach = graph.reachable(tagged | others - doomed)
        found = {manifest for manifest in doomed if manifest[0] in there and _is_in(reach, manifest)}
        unclear = {name for name in there - self._plan.doubtful if graph.blind or graph.is_uncertain(name)}
        self._needed = {
            manifest
            for manifest in doomed
            if manifest in tagged
            or manifest[0] in unclear
            or (manifest in found and manifest not in self._plan.forced)
        }
        self._looked = time.time()
        self._cost = self._looked - begin

    def _staying_tags(self, graph: Graph, repository: str) -> Iterator[ManifestName]:
        """The manifests of the tags of a repository that are not to go, or not what they were."""
        for tag in graph.tags(repository):
            doomed = self._doomed_tags.get((repository, tag.name))
            if doomed is None or doomed.digest != tag.digest or doomed.pushed not in (None, tag.pushed):
                yield repository, tag.digest

    def _spare(self, target: Target, reason: str) -> None:
        """Let something stay, and what it needs."""
        self.outcome.spared.append(Protection(target, reason))
        repository, name = target
        if isinstance(name, Digest):
            self._doomed.discard((repository, name))
        else:
            self._doomed_tags.pop(target, None)

    def _tell(self) -> None:
        if self._progress:
            self._progress(len(self.outcome.tags) + len(self.outcome.manifests), self._total)


class _NamedSource(HttpSource):
    """The repositories of some targets, with the manifests named by digest, to which no tag need lead."""

    def __init__(self, client: RegistryClient, targets: Iterable[Target]) -> None:
        self._named: dict[str, list[Digest]] = {}
        for repository, name in targets:
            digests = self._named.setdefault(repository, [])
            if isinstance(name, Digest):
                digests.append(name)
        super().__init__(client, self._named)

    def repositories(self) -> Iterator[View | Problem]:
        listed: set[str] | None = None
        for view in super().repositories():
            if isinstance(view, Problem):
                yield view
                continue
            named = self._with_named(view)
            if not named.had_manifests:
                # Without a tag, a repository looks as if it were not there.
                listed = set(self._client.repositories()) if listed is None else listed
                named = named._replace(had_manifests=view.name in listed)
            yield named

    def _with_named(self, view: View) -> View:
        links: list[Link | Problem] = list(view.revisions)
        bodies = dict(view.bodies)
        wanted = [(view.name, digest) for digest in self._named[view.name] if digest not in bodies]
        for (_name, digest), body in zip(wanted, self.manifests(wanted)):
            if not isinstance(body, Problem):
                links.append(Link(digest, digest, None))
                bodies[digest] = body
            elif body.code is not Code.MANIFEST_MISSING:
                links.append(body)
        return view._replace(revisions=links, bodies=bodies, had_manifests=view.had_manifests or bool(bodies))


def placeholder(repository: str, tag: str) -> bytes:
    """The index that a tag is pointed at to be deleted. Nobody else has the same."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "artifactType": PLACEHOLDER_TYPE,
        "manifests": [],
        "annotations": {"deleted": f"{repository}:{tag}", "random": secrets.token_hex(16)},
    }
    return json.dumps(document).encode()


def _manifest_of(tag: DoomedTag) -> ManifestName:
    return tag.repository, tag.digest


def _is_in(reach: Reach, manifest: ManifestName) -> bool:
    try:
        return reach.has_manifest(*manifest)
    except UnknownContent:
        return False
