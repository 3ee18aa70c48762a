# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide what goes when tags and manifests are deleted, so that nothing breaks that stays.

    found = plan(graph, [("app", "1.0"), ("app", Digest("sha256:..."))])
    found.tags, found.manifests, found.bytes, found.protected

`_deletion` carries it out.

A tag that is named goes, and only that tag. Its manifest goes with it when nothing else needs it, and so do
the children and referrers that only it held. A manifest that is named by digest goes when neither a tag nor
an index nor a referrer that stays needs it; else it is refused, and the reason says what to do.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from ._errors import RegistryError
from ._graph import Graph, Holders, ManifestName, Release, TagName, UnknownContent
from ._media import is_index
from ._reference import Digest, InvalidReference, parse_reference
from ._storage import Blob, Code
from ._walk import State

#: (repository, tag) or (repository, digest); a digest is a Digest, not any text.
Target = TagName

#: Registry 2.8 cannot delete a tag by name. A tag that points to an index of this type, which lists nothing,
#: is one whose deletion broke off.
PLACEHOLDER_TYPE = "application/vnd.dockyard.untagged.v1"

_NAMES_SHOWN = 5


class UnknownRepository(RegistryError):
    """Nothing was ever pushed under this name: rather a slip of the pen than something deleted before."""


class DanglingTag(RegistryError):
    """A tag that leads nowhere. Over HTTP nobody can tell to which manifest."""


class Referrers(str, enum.Enum):
    """What becomes of signatures, SBOMs and attestations about an image that goes."""

    FOLLOW = "follow"
    KEEP = "keep"


class DoomedTag(NamedTuple):
    repository: str
    name: str
    digest: Digest
    #: Unix time of the push that the decision is about; None where the source could not tell.
    pushed: float | None


class DoomedManifest(NamedTuple):
    repository: str
    digest: Digest
    #: As above.
    pushed: float | None


class Protection(NamedTuple):
    """A target whose manifest stays, and what it is that needs it.

    Of a tag the tag goes all the same; of a digest nothing does.
    """

    target: Target
    reason: str

    @property
    def is_refusal(self) -> bool:
        return isinstance(self.target[1], Digest)

    def __str__(self) -> str:
        verb = "delete" if self.is_refusal else "keep the manifest of"
        return f"{verb} {name_of(self.target)}: {self.reason}"


@dataclass(frozen=True)
class Plan:
    """What goes, decided by what the graph showed."""

    tags: tuple[DoomedTag, ...]
    #: Manifests in the order in which they must go, so that nobody sees an index without its children.
    waves: tuple[tuple[DoomedManifest, ...], ...]
    #: What the next garbage collection frees.
    blobs: tuple[Blob, ...]
    protected: tuple[Protection, ...]
    #: Targets that are gone already.
    absent: tuple[Target, ...]
    #: Manifests that go though something that stays refers to them.
    forced: frozenset[ManifestName]
    #: Repositories in which not everything could be understood.
    doubtful: frozenset[str]
    #: Whether `blobs` is exact; else it is the most that can be freed.
    exact: bool
    #: Unix time of what it was decided by.
    read: float

    @cached_property
    def manifests(self) -> tuple[ManifestName, ...]:
        return tuple((doomed.repository, doomed.digest) for wave in self.waves for doomed in wave)

    @property
    def bytes(self) -> int:
        return sum(blob.size for blob in self.blobs)

    @property
    def refused(self) -> tuple[Protection, ...]:
        return tuple(protection for protection in self.protected if protection.is_refusal)

    @property
    def changes(self) -> bool:
        return bool(self.tags or self.waves)


def name_of(target: Target) -> str:
    """A target as a person writes it."""
    repository, name = target
    return f"{repository}{'@' if isinstance(name, Digest) else ':'}{name}"


def parse_targets(texts: Iterable[str]) -> list[Target]:
    """Targets from `repository:tag` or `repository@digest`, each once. Raises InvalidReference."""
    targets: dict[Target, None] = {}
    for text in texts:
        repository, tag, digest = parse_reference(text)
        if tag and digest:
            raise InvalidReference(
                f"reference {text}: name the tag ({repository}:{tag}) "
                f"or the manifest ({repository}@{digest}), not both"
            )
        targets[repository, digest or tag or ""] = None
    return list(targets)


def plan(
    graph: Graph,
    targets: Iterable[Target],
    *,
    untag: bool = False,
    force: bool = False,
    referrers: Referrers = Referrers.FOLLOW,
) -> Plan:
    """What goes with these targets. Nothing is changed, and nothing but the graph is looked at.

    With `untag`, a manifest named by digest takes its tags along. With `force` it goes though an index or a
    referrer that stays refers to it, which breaks that one, or though the repository has something in it that
    cannot be understood. Raises UnknownRepository and DanglingTag.
    """
    return _Planner(graph, untag=untag, force=force, referrers=referrers).plan(targets)


class _Planner:
    """Asks the graph what would go, takes back what must not, and asks again until there is no such thing."""

    def __init__(self, graph: Graph, *, untag: bool, force: bool, referrers: Referrers) -> None:
        self._graph = graph
        self._untag = untag
        self._force = force
        self._follow = referrers is Referrers.FOLLOW
        self._tags: set[TagName] = set()
        self._named: set[ManifestName] = set()
        self._keep: set[ManifestName] = set()
        self._refused: dict[ManifestName, str] = {}
        self._known: dict[str, _Known] = {}

    def plan(self, targets: Iterable[Target]) -> Plan:
        wanted = list(dict.fromkeys(targets))
        absent = [target for target in wanted if not self._take(target)]
        self._take_unfinished()
        while True:
            release = self._graph.released_by(self._tags, self._named, follow=self._follow, keep=self._keep)
            gone = set(release.manifests)
            if not self._take_back(gone):
                break
        return Plan(
            tuple(self._doomed_tags(release)),
            tuple(self._waves(gone)),
            release.blobs,
            tuple(self._protections(wanted, gone)),
            tuple(absent),
            frozenset(self._forced(gone)),
            frozenset(repository for repository in self._known if self._doubt(repository)),
            self._graph.complete and not self._graph.blind,
            self._graph.started,
        )

    # Targets

    def _in(self, repository: str) -> _Known:
        if repository not in self._known:
            self._known[repository] = _Known(self._graph, repository)
        return self._known[repository]

    def _take(self, target: Target) -> bool:
        """Note a target that is there."""
        repository, name = target
        known = self._in(repository)
        if isinstance(name, Digest):
            if name not in known.manifests:
                return False
            self._named.add((repository, name))
        else:
            if name in known.dangling:
                raise DanglingTag(
                    f"delete {name_of(target)}: the tag points to a manifest that the repository does not "
                    "have; delete it on the registry's host, with the option data"
                )
            if name not in known.tags:
                return False
            self._tags.add(target)
        return True

    def _take_unfinished(self) -> None:
        """Finish the deletions of tags that broke off in the same repositories."""
        for repository, known in self._known.items():
            self._tags.update(
                (repository, name) for name in known.tags if self._is_placeholder(known.tags[name])
            )

    def _is_placeholder(self, digest: Digest) -> bool:
        try:
            return self._graph.manifest(digest).artifact_type == PLACEHOLDER_TYPE
        except UnknownContent:
            return False

    # What must stay

    def _take_back(self, gone: set[ManifestName]) -> bool:
        """Refuse named manifests that something needs and keep others; whether there were any."""
        refused = {}
        for manifest in self._named:
            reason = self._reason(manifest, gone)
            if reason:
                refused[manifest] = reason
        self._named -= refused.keys()
        self._refused.update(refused)
        implied = gone - self._named
        kept = refused.keys() | {manifest for manifest in implied if self._must_stay(manifest, gone)}
        self._keep |= kept
        return bool(kept)

    def _must_stay(self, manifest: ManifestName, gone: set[ManifestName]) -> bool:
        repository = manifest[0]
        holders = self._graph.holders(*manifest)
        if self._follow:
            return bool(self._kept_referrers(repository, holders, gone))
        return bool(holders.subjects) and not any((repository, tag) in self._tags for tag in holders.tags)

    def _reason(self, manifest: ManifestName, gone: set[ManifestName]) -> str:
        """Why a manifest that was named must not go; empty where it may."""
        repository = manifest[0]
        holders = self._graph.holders(*manifest)
        tags = [tag for tag in holders.tags if not self._goes((repository, tag), gone)]
        if tags and not self._untag:
            return f"still tagged {_listed(tags)}; pass untag=true to remove those tags too"
        if self._force:
            return ""
        indexes = self._staying(repository, holders.indexes, gone)
        if indexes:
            return (
                f"listed in the index {_listed(self._shown(repository, indexes))}, which would break; "
                "delete that too, or pass force=true"
            )
        kept = self._kept_referrers(repository, holders, gone) if self._follow else []
        if kept:
            return (
                f"the subject of {_listed(self._shown(repository, kept))}, which stays; "
                "delete that too, or pass force=true"
            )
        doubt = self._doubt(repository)
        return f"{doubt}; have the storage checked, or pass force=true" if doubt else ""

    def _goes(self, tag: TagName, gone: set[ManifestName]) -> bool:
        repository, name = tag
        subject = self._in(repository).subjects.get(name)
        return tag in self._tags or (self._follow and subject is not None and (repository, subject) in gone)

    def _staying(self, repository: str, digests: Iterable[Digest], gone: set[ManifestName]) -> list[Digest]:
        """Those that can be pulled now, and afterwards too."""
        linked = self._in(repository).manifests
        return [digest for digest in digests if digest in linked and (repository, digest) not in gone]

    def _kept_referrers(self, repository: str, holders: Holders, gone: set[ManifestName]) -> list[Digest]:
        own = [referrer.digest for referrer in holders.referrers if not referrer.tag]
        return self._staying(repository, own, gone)

    def _doubt(self, repository: str) -> str:
        """Why nobody can say what needs a manifest of this repository; empty where it is certain."""
        if self._graph.blind:
            return "a part of the store cannot be looked at, so what needs it is not known"
        if not self._graph.is_uncertain(repository):
            return ""
        damage = [problem for problem in self._graph.problems if problem.repository == repository]
        shown = f" ({damage[0].path}: {damage[0].detail})" if damage else ""
        return f"the repository has something in it that cannot be understood{shown}, and that may need it"

    def _protections(self, wanted: Iterable[Target], gone: set[ManifestName]) -> Iterator[Protection]:
        for target in wanted:
            repository, name = target
            if isinstance(name, Digest):
                reason = self._refused.get((repository, name), "")
            elif target in self._tags:
                reason = self._need(repository, self._in(repository).tags[name], gone)
            else:
                reason = ""
            if reason:
                yield Protection(target, reason)

    def _need(self, repository: str, digest: Digest, gone: set[ManifestName]) -> str:
        """What still needs the manifest of a tag that goes; empty where the manifest goes too."""
        if (repository, digest) in gone or digest not in self._in(repository).manifests:
            return ""
        holders = self._graph.holders(repository, digest)
        tags = [tag for tag in holders.tags if not self._goes((repository, tag), gone)]
        if tags:
            return f"also tagged {_listed(tags)}"
        indexes = self._staying(repository, holders.indexes, gone)
        if indexes:
            return f"listed in the index {_listed(self._shown(repository, indexes))}"
        subjects = self._staying(repository, holders.subjects, gone)
        if subjects:
            return f"about {_listed(self._shown(repository, subjects))}, which stays"
        kept = self._kept_referrers(repository, holders, gone)
        if kept:
            return f"the subject of {_listed(self._shown(repository, kept))}, which stays"
        return self._doubt(repository)

    def _shown(self, repository: str, digests: Iterable[Digest]) -> list[str]:
        """Manifests by a tag where they have one, which tells a person more."""
        names = []
        for digest in digests:
            tags = self._graph.holders(repository, digest).tags
            names.append(f"{repository}:{tags[0]}" if tags else f"{repository}@{digest}")
        return names

    # What goes

    def _doomed_tags(self, release: Release) -> Iterator[DoomedTag]:
        lost = defaultdict(set)
        for repository, name in release.tags:
            lost[repository].add(name)
        for repository, names in lost.items():
            for tag in self._graph.tags(repository):
                if tag.name in names:
                    yield DoomedTag(repository, *tag)

    def _waves(self, gone: set[ManifestName]) -> Iterator[tuple[DoomedManifest, ...]]:
        """Indexes before what they list, images before what is about them."""
        above = {manifest: self._above(manifest, gone) for manifest in gone}
        below = defaultdict(list)
        for manifest, others in above.items():
            for other in others:
                below[other].append(manifest)
        left = {manifest: len(others) for manifest, others in above.items()}
        ready = sorted(manifest for manifest, count in left.items() if not count)
        while ready:
            yield tuple(DoomedManifest(*manifest, self._graph.pushed(*manifest)) for manifest in ready)
            following = set()
            for manifest in ready:
                for other in below[manifest]:
                    left[other] -= 1
                    if not left[other]:
                        following.add(other)
            ready = sorted(following)

    def _above(self, manifest: ManifestName, gone: set[ManifestName]) -> set[ManifestName]:
        repository, digest = manifest
        holders = self._graph.holders(repository, digest)
        before = set(holders.indexes)
        # An index may be about something that it leads to, so that only one of the two orders is possible.
        if holders.subjects and not self._is_index(digest):
            before.update(holders.subjects)
        return {(repository, other) for other in before} & gone

    def _is_index(self, digest: Digest) -> bool:
        try:
            return is_index(self._graph.manifest(digest).media_type)
        except UnknownContent:
            return False

    def _forced(self, gone: set[ManifestName]) -> set[ManifestName]:
        """Those that something that stays refers to, with all that they lead to."""
        roots = []
        for repository, digest in self._named & gone:
            holders = self._graph.holders(repository, digest)
            if self._staying(repository, holders.indexes + holders.subjects, gone):
                roots.append((repository, digest))
        if not roots:
            return set()
        reach = self._graph.reachable(roots)
        found = {
            (name, digest) for name in {name for name, _digest in roots} for digest in reach.manifests(name)
        }
        return found & gone


class _Known:
    """What a repository has, by name."""

    def __init__(self, graph: Graph, repository: str) -> None:
        try:
            state = graph.state(repository)
        except UnknownContent:
            state = State.UNFINISHED
        if state is State.UNFINISHED:
            raise UnknownRepository(
                f"{repository}: there is no such repository; look at its name (playbook images.yml lists all)"
            )
        self.manifests = frozenset(graph.manifests(repository))
        self.tags = {tag.name: tag.digest for tag in graph.tags(repository)}
        #: Only over HTTP; the disk tells what they point to.
        self.dangling = frozenset(
            problem.path.rpartition(":")[2]
            for problem in graph.problems
            if problem.code is Code.TAG_DANGLING and problem.repository == repository
        ).difference(self.tags)
        self.subjects = {found.tag: found.subject for found in graph.referrer_tags(repository)}


def _listed(names: Iterable[str]) -> str:
    """Names on one line, of many the first few."""
    shown = list(names)
    rest = len(shown) - _NAMES_SHOWN
    return ", ".join(shown) if rest <= 0 else f"{', '.join(shown[:_NAMES_SHOWN])} and {rest} more"
