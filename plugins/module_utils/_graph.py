# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a registry holds and what holds what: tags, manifests, children of indexes, referrers, blobs.

    graph = read_graph(DiskSource(Storage("/opt/registry/data")))
    graph.released_by(tags=[("app", "1.0")]).bytes

One walk, linear in the number of links, answers for listing, deletion, retention, garbage collection, backup
and check. Manifests belong to repositories, since the registry serves one only where there is a link to it;
so do the bonds between them. Blobs belong to all.

Whatever is uncertain is kept. A repository with a link or a manifest that cannot be understood keeps all its
manifests and blobs; a manifest that is tagged or listed in an index but not linked keeps what it refers to.

Everything is numbers in flat arrays: digests, manifests, and slots. A slot is a manifest in a repository.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import math
import re
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

from ._errors import RegistryError
from ._manifest import Manifest
from ._reference import Digest
from ._source import Source
from ._storage import Blob, Tag
from ._walk import NOBODY, State, Tables, read_tables

TagName = tuple[str, str]
ManifestName = tuple[str, Digest]

# Not the number of a holder; see also NOBODY.
_SEVERAL = -2

# Where registries have no referrers API: the OCI specification's fallback tag, and those of cosign.
_REFERRER_TAG = re.compile(r"(sha256|sha512)-([0-9a-f]{64})(?:\.(?:sig|att|sbom))?")


class UnknownContent(RegistryError):
    """There is no such repository, tag or manifest."""


class Size(NamedTuple):
    """Bytes of blobs, each counted once, manifests included."""

    total: int
    #: What nothing else needs: so much is freed when this goes.
    exclusive: int

    @property
    def shared(self) -> int:
        return self.total - self.exclusive


class Referrer(NamedTuple):
    """A manifest about another one: a signature, an SBOM, an attestation."""

    digest: Digest
    #: The tag that says so, if it is not the manifest's own `subject`.
    tag: str = ""


class ReferrerTag(NamedTuple):
    """A tag such as `sha256-<hex>` or `sha256-<hex>.sig`, which stands for something about an image."""

    tag: str
    #: The image, if the repository has it.
    subject: Digest | None


class Holders(NamedTuple):
    """Who needs a manifest of a repository, and who has it too."""

    tags: tuple[str, ...]
    #: Indexes of the repository that list it.
    indexes: tuple[Digest, ...]
    #: Manifests of the repository that it is about.
    subjects: tuple[Digest, ...]
    #: Manifests and tags of the repository about it.
    referrers: tuple[Referrer, ...]
    #: Other repositories that have it.
    repositories: tuple[str, ...]


class Release(NamedTuple):
    """What goes when something is deleted: manifests at once, blobs with the next garbage collection."""

    tags: tuple[TagName, ...]
    manifests: tuple[ManifestName, ...]
    blobs: tuple[Blob, ...]

    @property
    def bytes(self) -> int:
        return sum(blob.size for blob in self.blobs)


class Orphans(NamedTuple):
    """What no tag leads to."""

    #: Manifests that no tag, index of a tag or image of a referrer leads to.
    manifests: tuple[ManifestName, ...]
    #: Blobs that no manifest refers to, tagged or not. Those of a push under way are among them.
    blobs: tuple[Blob, ...]
    #: Links of a repository to blobs that none of its manifests refers to.
    links: tuple[ManifestName, ...]


def read_graph(source: Source) -> Graph:
    """Walk through all that a source shows. Raises what the source raises."""
    return Graph(read_tables(source))


def _known(pushed: float) -> float | None:
    return None if math.isnan(pushed) else pushed


def _merged(known: int, holder: int) -> int:
    """Who holds a thing, after one more holder of it was found."""
    return holder if known in (NOBODY, holder) else _SEVERAL


class _Bonds:
    """For each of `count` things the others that it is bonded to, in a row. Made from pairs of both."""

    def __init__(self, count: int, pairs: Iterable[tuple[int, int]]) -> None:
        things, others = array("I"), array("I")
        for thing, other in pairs:
            things.append(thing)
            others.append(other)
        counts = array("I", [0]) * count
        for thing in things:
            counts[thing] += 1
        self._first = array("I", accumulate(counts, initial=0))
        free = array("I", self._first)
        self._others = array("I", others)
        for thing, other in zip(things, others):
            self._others[free[thing]] = other
            free[thing] += 1

    def __getitem__(self, thing: int) -> array[int]:
        return self._others[self._first[thing] : self._first[thing + 1]]


class Graph:
    """The contents of a registry; read_graph() makes it.

    Attributes: `complete` (whether the source shows everything; if not, manifests without a tag and what they
    hold are unknown, and what is said to be freed is the most that can be), `problems` (all that was found
    wrong), `blind` (whether a part of the store could not be looked at, so that nothing counts as unused),
    `started` (Unix time at which the walk began: what was pushed later may be missing).

    Methods that take the name of a repository, tag or manifest raise UnknownContent where there is none.
    """

    def __init__(self, tables: Tables) -> None:
        self.complete = tables.complete
        self.problems = tables.problems
        self.blind = tables.blind
        self.started = tables.started
        self._tables = tables
        self._digests = tables.digests
        self._manifests = tables.manifests
        slots = len(tables.slot_digest)
        #: By slot: its manifest.
        self._manifest = array("i", map(self._manifests.find, tables.slot_digest))
        #: By reference: the blob that is served.
        self._blob = self._served_blobs()
        children = list(self._child_bonds())
        about = list(self._subject_bonds())
        #: By slot: its children and referrers, which live as long as it does.
        self._kept = _Bonds(slots, children + about)
        self._listed_in = _Bonds(slots, [(child, index) for index, child in children])
        self._subjects = _Bonds(slots, [(referrer, subject) for subject, referrer in about])
        self._tags_of = _Bonds(slots, ((slot, tag) for tag, slot in enumerate(tables.tag_slot)))
        #: By digest number: the slots of that manifest.
        self._copies = _Bonds(
            len(self._digests), ((number, slot) for slot, number in enumerate(tables.slot_digest))
        )
        #: By digest number: whether uncertain repositories may need the blob.
        self._pinned = self._pinned_blobs()
        #: By digest number: how often manifests of repositories refer to the blob, or are it.
        self._uses = self._count_uses()
        self._referrer_tags = self._find_referrer_tags()
        self._tags_about = _Bonds(
            slots, ((subject, tag) for tag, subject in self._referrer_tags.items() if subject != NOBODY)
        )
        self._exclusive: tuple[array[int], array[int]] | None = None

    # What there is

    def repositories(self) -> list[str]:
        return list(self._tables.repositories)

    def state(self, repository: str) -> State:
        return self._tables.states[self._repository(repository)]

    def is_uncertain(self, repository: str) -> bool:
        """Whether something in it could not be understood, so that all of it is kept."""
        return bool(self._tables.uncertain[self._repository(repository)])

    def tags(self, repository: str) -> list[Tag]:
        return [self._tag(number) for number in self._tags_in(self._repository(repository))]

    def manifests(self, repository: str) -> list[Digest]:
        """Its manifests, tagged or not."""
        slots = self._slots_of(repository)
        return sorted(self._digest(slot) for slot in slots if self._tables.slot_linked[slot])

    def manifest(self, digest: Digest) -> Manifest:
        """What a manifest says."""
        return self._manifests.get(self._known_manifest(digest))

    def manifest_size(self, digest: Digest) -> int:
        return self._manifests.size[self._known_manifest(digest)]

    def blob_size(self, digest: Digest) -> int | None:
        """The size of a blob: on disk, or over HTTP as manifests state it; None where there is none."""
        number = self._digests.find(digest)
        if number is None:
            return None
        size = self._tables.sizes[self._tables.aliases.get(number, number)]
        return None if size < 0 else size

    def served_as(self, digest: Digest) -> Digest:
        """The blob that is served for a digest: itself, or for one of SHA-512 that of its SHA-256."""
        number = self._digests.find(digest)
        served = None if number is None else self._tables.aliases.get(number)
        return digest if served is None else self._digests[served]

    def served_for_others(self) -> set[Digest]:
        """The blobs that are served under another digest, too. The registry's own garbage collection frees them."""
        return {self._digests[number] for number in self._tables.aliases.values()}

    def blobs(self) -> list[Blob]:
        """All that the source shows, needed or not."""
        return self._blobs(number for number, size in enumerate(self._tables.sizes) if size >= 0)

    def pushed(self, repository: str, digest: Digest) -> float | None:
        """Unix time of the last push of a manifest to a repository; None where the source cannot tell."""
        return _known(self._tables.slot_pushed[self._slot(repository, digest)])

    # What holds what

    def holders(self, repository: str, digest: Digest) -> Holders:
        """Who needs a manifest."""
        slot = self._slot(repository, digest)
        copies = self._copies[self._tables.slot_digest[slot]]
        return Holders(
            tuple(self._tables.tag_name[tag] for tag in self._tags_of[slot]),
            tuple(sorted(self._digest(index) for index in self._listed_in[slot])),
            tuple(sorted(self._digest(subject) for subject in self._subjects[slot])),
            tuple(self._referrers(slot)),
            tuple(name for name, other in self._repository_of(copies) if other != slot),
        )

    def manifests_needing(self, blobs: Collection[Digest]) -> dict[Digest, list[ManifestName]]:
        """By blob: the manifests that refer to it or are it, in all repositories, linked or not."""
        wanted = {number for number in map(self._digests.find, blobs) if number is not None}
        wanted.update([self._tables.aliases[number] for number in wanted & self._tables.aliases.keys()])
        found: dict[int, list[ManifestName]] = {number: [] for number in wanted}
        for repository, slot in self._repository_of(range(len(self._tables.slot_digest)) if wanted else ()):
            for number in wanted.intersection(self._blobs_of(slot)):
                found[number].append((repository, self._digest(slot)))
        aliases = self._tables.aliases
        numbers = ((digest, self._digests.find(digest)) for digest in blobs)
        return {
            digest: [] if number is None else found[aliases.get(number, number)] for digest, number in numbers
        }

    def referrer_tags(self, repository: str) -> list[ReferrerTag]:
        """The tags of a repository that stand for something about an image, such as cosign's."""
        tags = self._tags_in(self._repository(repository))
        return [self._referrer_tag(tag) for tag in tags if tag in self._referrer_tags]

    def reachable(
        self, roots: Iterable[ManifestName] | None = None, *, untagged: bool = False, unlinked: bool = True
    ) -> Reach:
        """What the roots lead to: children of indexes, referrers, and the blobs of all of them.

        The roots are all tags and uncertain repositories unless given. `untagged` adds all manifests that
        repositories have, which is what the registry's own garbage collection keeps. Without `unlinked`, what
        is tagged or listed but not linked, and so cannot be pulled, leads no further.
        """
        if roots is None:
            found = self._roots()
        else:
            found = {self._slot(repository, digest) for repository, digest in roots}
        if untagged:
            found.update(slot for slot, linked in enumerate(self._tables.slot_linked) if linked)
        pinned = bytearray(self._pinned) if roots is None else bytearray(len(self._digests))
        return Reach(self, self._spread(found, unlinked=unlinked), pinned)

    def released_by(
        self,
        tags: Iterable[TagName] = (),
        manifests: Iterable[ManifestName] = (),
        *,
        follow: bool = False,
        keep: Iterable[ManifestName] = (),
    ) -> Release:
        """What would go if these went: tags, and manifests by digest, which take their tags along.

        With a tag go its manifest, that one's children and its referrers, if nothing else holds them: another
        tag, an index or a subject that stays, be it without a tag itself. A manifest that is named goes
        whatever holds it. Blobs go when no manifest that stays refers to them, in any repository. With
        `follow`, tags that stand for something about an image go with it. What is in `keep` stays, unless it
        is named, and so do its children and referrers.
        """
        named = {self._slot(*manifest) for manifest in manifests}
        kept = {self._slot(*manifest) for manifest in keep}
        lost = {self._tag_number(*tag) for tag in tags}
        lost.update(tag for slot in named for tag in self._tags_of[slot])
        gone = self._gone(named, lost, kept)
        while follow:
            more = {tag for slot in gone for tag in self._tags_about[slot]} - lost
            if not more:
                break
            lost |= more
            gone = self._gone(named, lost, kept)
        return Release(
            tuple(sorted(self._tag_names(lost))),
            tuple(sorted(self._manifest_names(gone))),
            tuple(self._freed(gone)),
        )

    def orphans(self) -> Orphans:
        """What no tag leads to. Nothing where the source does not show everything, or the store is blind."""
        if not self.complete or self.blind:
            return Orphans((), (), ())
        tables = self._tables
        manifests = set(range(len(tables.slot_digest))) - self._spread(self._roots())
        unused = (
            number
            for number, size in enumerate(tables.sizes)
            if size >= 0 and not self._uses[number] and not self._pinned[number]
        )
        return Orphans(
            tuple(sorted(self._manifest_names(manifests))),
            tuple(self._blobs(unused)),
            tuple(sorted(self._unused_links())),
        )

    def size(self, repository: str, tag: str | None = None) -> Size:
        """The size of all manifests of a repository, or of a tag's, with what they refer to."""
        if self._exclusive is None:
            self._exclusive = self._measure_exclusive()
        by_tag, by_repository = self._exclusive
        if tag is None:
            number = self._repository(repository)
            return Size(self._total(set(self._slots_in(number))), by_repository[number])
        number = self._tag_number(repository, tag)
        return Size(self._total(self._spread({self._tables.tag_slot[number]})), by_tag[number])

    def resolve(self, repository: str, tag: str) -> Digest:
        """The manifest that a tag points to."""
        return self._digest(self._tables.tag_slot[self._tag_number(repository, tag)])

    # Below this line: how. Names to numbers

    def _repository(self, name: str) -> int:
        repositories = self._tables.repositories
        number = bisect_left(repositories, name)
        if number == len(repositories) or repositories[number] != name:
            raise UnknownContent(f"{name}: there is no such repository")
        return number

    def _slots_of(self, name: str) -> range:
        return self._slots_in(self._repository(name))

    def _slots_in(self, repository: int) -> range:
        first = self._tables.first_slot
        return range(first[repository], first[repository + 1])

    def _tags_in(self, repository: int) -> range:
        first = self._tables.first_tag
        return range(first[repository], first[repository + 1])

    def _layers_in(self, repository: int) -> array[int]:
        first = self._tables.first_layer
        return self._tables.layer[first[repository] : first[repository + 1]]

    def _find_slot(self, repository: int, digest: int) -> int:
        """The slot of a manifest in a repository, or NOBODY."""
        slots, digests = self._slots_in(repository), self._tables.slot_digest
        slot = bisect_left(digests, digest, slots.start, slots.stop)
        return slot if slot < slots.stop and digests[slot] == digest else NOBODY

    def _slot(self, repository: str, digest: Digest) -> int:
        number = self._digests.find(digest)
        slot = NOBODY if number is None else self._find_slot(self._repository(repository), number)
        if slot == NOBODY:
            raise UnknownContent(f"{repository}@{digest}: the repository has no such manifest")
        return slot

    def _tag_number(self, repository: str, tag: str) -> int:
        tags = self._tags_in(self._repository(repository))
        number = bisect_left(self._tables.tag_name, tag, tags.start, tags.stop)
        if number == tags.stop or self._tables.tag_name[number] != tag:
            raise UnknownContent(f"{repository}:{tag}: the repository has no such tag")
        return number

    def _known_manifest(self, digest: Digest) -> int:
        number = self._digests.find(digest)
        manifest = NOBODY if number is None else self._manifests.find(number)
        if manifest == NOBODY:
            raise UnknownContent(f"{digest}: there is no such manifest, or it cannot be read")
        return manifest

    # Numbers to names

    def _digest(self, slot: int) -> Digest:
        return self._digests[self._tables.slot_digest[slot]]

    def _repository_of(self, slots: Iterable[int]) -> Iterator[tuple[str, int]]:
        """(repository, slot) for each slot."""
        first = self._tables.first_slot
        for slot in slots:
            yield self._tables.repositories[bisect_right(first, slot) - 1], slot

    def _manifest_names(self, slots: Iterable[int]) -> Iterator[ManifestName]:
        """The names of manifests, but for those that the repository does not have."""
        for repository, slot in self._repository_of(slots):
            if self._tables.slot_linked[slot]:
                yield repository, self._digest(slot)

    def _tag_names(self, tags: Iterable[int]) -> Iterator[TagName]:
        first = self._tables.first_tag
        for tag in tags:
            yield self._tables.repositories[bisect_right(first, tag) - 1], self._tables.tag_name[tag]

    def _tag(self, number: int) -> Tag:
        tables = self._tables
        return Tag(
            tables.tag_name[number], self._digest(tables.tag_slot[number]), _known(tables.tag_pushed[number])
        )

    def _blobs(self, numbers: Iterable[int]) -> list[Blob]:
        return sorted(Blob(self._digests[number], self._tables.sizes[number]) for number in numbers)

    def _referrers(self, slot: int) -> Iterator[Referrer]:
        yield from sorted(
            Referrer(self._digest(other)) for other in self._kept[slot] if slot in self._subjects[other]
        )
        for tag in self._tags_about[slot]:
            yield Referrer(self._digest(self._tables.tag_slot[tag]), self._tables.tag_name[tag])

    def _referrer_tag(self, tag: int) -> ReferrerTag:
        subject = self._referrer_tags[tag]
        return ReferrerTag(self._tables.tag_name[tag], None if subject == NOBODY else self._digest(subject))

    # Bonds

    def _roots(self) -> set[int]:
        """The slots that stay by themselves: those with a tag, and all of uncertain repositories."""
        roots = set(self._tables.tag_slot)
        roots.update(slot for number in self._uncertain() for slot in self._slots_in(number))
        return roots

    def _served_blobs(self) -> array[int]:
        aliases = self._tables.aliases
        if not aliases:
            return self._manifests.target
        return array("I", (aliases.get(number, number) for number in self._manifests.target))

    def _child_bonds(self) -> Iterator[tuple[int, int]]:
        """(index, child) as slots."""
        manifests = self._manifests
        for repository in range(len(self._tables.repositories)):
            for slot in self._slots_in(repository):
                manifest = self._manifest[slot]
                if manifest == NOBODY or not manifests.is_index(manifest):
                    continue
                children = {self._find_slot(repository, number) for number in manifests.targets(manifest)}
                yield from ((slot, child) for child in sorted(children - {NOBODY, slot}))

    def _subject_bonds(self) -> Iterator[tuple[int, int]]:
        """(subject, referrer) as slots. A referrer that was deleted is none, though an index may list it."""
        linked = self._tables.slot_linked
        for repository in range(len(self._tables.repositories)):
            for slot in self._slots_in(repository):
                manifest = self._manifest[slot]
                if manifest == NOBODY or self._manifests.subject[manifest] == NOBODY or not linked[slot]:
                    continue
                subject = self._find_slot(repository, self._manifests.subject[manifest])
                if subject != NOBODY:
                    yield subject, slot

    def _find_referrer_tags(self) -> dict[int, int]:
        """Tags that stand for something about an image, and its slot or NOBODY."""
        found = {}
        for repository in range(len(self._tables.repositories)):
            for tag in self._tags_in(repository):
                match = _REFERRER_TAG.fullmatch(self._tables.tag_name[tag])
                if match:
                    found[tag] = self._find_subject(repository, *match.groups())
        return found

    def _find_subject(self, repository: int, algorithm: str, value: str) -> int:
        if algorithm == "sha256":
            number = self._digests.find(Digest(f"{algorithm}:{value}"))
            return NOBODY if number is None else self._find_slot(repository, number)
        # Longer digests are cut to what a tag has room for.
        slots = self._slots_in(repository)
        return next((slot for slot in slots if self._digest(slot).startswith(f"{algorithm}:{value}")), NOBODY)

    def _spread(
        self, start: Iterable[int], *, unlinked: bool = True, within: set[int] | None = None
    ) -> set[int]:
        """The slots that live as long as these do, these included."""
        linked = self._tables.slot_linked
        found = {slot for slot in start if unlinked or linked[slot]}
        waiting = list(found)
        while waiting:
            for slot in self._kept[waiting.pop()]:
                if slot not in found and (within is None or slot in within) and (unlinked or linked[slot]):
                    found.add(slot)
                    waiting.append(slot)
        return found

    def _uncertain(self) -> Iterator[int]:
        return (number for number, uncertain in enumerate(self._tables.uncertain) if uncertain)

    def _gone(self, named: set[int], lost: set[int], kept: set[int]) -> set[int]:
        """The slots that go with these slots and tags, where some are kept."""
        if self.blind:
            return named
        tables = self._tables
        doubtful = self._spread(named | {tables.tag_slot[tag] for tag in lost})
        doubtful_others = doubtful - named
        held = {
            slot
            for slot in doubtful_others
            if slot in kept
            or tables.uncertain[bisect_right(tables.first_slot, slot) - 1]
            or not lost.issuperset(self._tags_of[slot])
            or not doubtful.issuperset(self._listed_in[slot])
            or not doubtful.issuperset(self._subjects[slot])
        }
        return doubtful - self._spread(held, within=doubtful_others)

    # Blobs

    def _blobs_of(self, slot: int) -> array[int]:
        """The blobs that a slot needs: the manifest itself and what it refers to."""
        manifest = self._manifest[slot]
        blobs = array("I", [self._tables.slot_digest[slot]])
        if manifest != NOBODY:
            references = self._manifests.references(manifest)
            blobs += self._blob[references.start : references.stop]
        return blobs

    def _count_uses(self) -> array[int]:
        uses = array("I", [0]) * len(self._digests)
        for slot in range(len(self._tables.slot_digest)):
            for number in self._blobs_of(slot):
                uses[number] += 1
        return uses

    def _pinned_blobs(self) -> bytearray:
        if self.blind:
            return bytearray(b"\1") * len(self._digests)
        pinned = bytearray(len(self._digests))
        aliases = self._tables.aliases
        for repository in self._uncertain():
            for number in self._layers_in(repository):
                pinned[aliases.get(number, number)] = True
            for slot in self._slots_in(repository):
                for number in self._blobs_of(slot):
                    pinned[number] = True
        return pinned

    def _freed(self, gone: set[int]) -> list[Blob]:
        released = Counter(number for slot in gone for number in self._blobs_of(slot))
        sizes = self._tables.sizes
        return self._blobs(
            number
            for number, count in released.items()
            if count == self._uses[number] and not self._pinned[number] and sizes[number] >= 0
        )

    def _total(self, slots: Iterable[int]) -> int:
        numbers = {number for slot in slots for number in self._blobs_of(slot)}
        return sum(size for size in (self._tables.sizes[number] for number in numbers) if size > 0)

    def _unused_links(self) -> Iterator[ManifestName]:
        aliases = self._tables.aliases
        for number, name in enumerate(self._tables.repositories):
            if self._tables.uncertain[number]:
                continue
            used: set[int] = set()
            for slot in self._slots_in(number):
                if self._manifest[slot] != NOBODY:
                    used.update(self._manifests.targets(self._manifest[slot]))
            used.update([aliases[target] for target in used & aliases.keys()])
            yield from ((name, self._digests[layer]) for layer in set(self._layers_in(number)) - used)

    # Sizes

    def _measure_exclusive(self) -> tuple[array[int], array[int]]:
        """By tag and by repository: the bytes that only it holds."""
        tables = self._tables
        holders = self._only_tags()
        tag_of = array("i", [NOBODY]) * len(self._digests)
        repository_of = array("i", [NOBODY]) * len(self._digests)
        for repository in range(len(tables.repositories)):
            for slot in self._slots_in(repository):
                for number in self._blobs_of(slot):
                    tag_of[number] = _merged(tag_of[number], holders[slot])
                    repository_of[number] = _merged(repository_of[number], repository)
        by_tag = array("q", [0]) * len(tables.tag_name)
        by_repository = array("q", [0]) * len(tables.repositories)
        for number, size in enumerate(tables.sizes):
            if size < 0 or self._pinned[number]:
                continue
            if tag_of[number] >= 0:
                by_tag[tag_of[number]] += size
            if repository_of[number] >= 0:
                by_repository[repository_of[number]] += size
        return by_tag, by_repository

    def _only_tags(self) -> array[int]:
        """By slot: the one tag that holds it, or _SEVERAL where others do too or it is nobody's."""
        only = array("i", [NOBODY]) * len(self._tables.slot_digest)
        waiting: deque[int] = deque()

        def hold(slot: int, holder: int) -> None:
            merged = _merged(only[slot], holder)
            if merged != only[slot]:
                only[slot] = merged
                waiting.append(slot)

        def spread() -> None:
            while waiting:
                slot = waiting.popleft()
                for other in self._kept[slot]:
                    hold(other, only[slot])

        for tag, slot in enumerate(self._tables.tag_slot):
            hold(slot, tag)
        spread()
        for slot in range(len(only)):
            if only[slot] == NOBODY:
                hold(slot, _SEVERAL)
        spread()
        return only


class Reach:
    """What Graph.reachable() found: manifests in repositories, and blobs."""

    def __init__(self, graph: Graph, slots: set[int], pinned: bytearray) -> None:
        self._graph = graph
        self._slots = slots
        self._blobs = pinned
        for slot in slots:
            for number in graph._blobs_of(slot):
                self._blobs[number] = True

    def manifests(self, repository: str) -> list[Digest]:
        """Those of a repository, by digest."""
        names = self._graph._manifest_names(self._slots.intersection(self._graph._slots_of(repository)))
        return sorted(digest for _repository, digest in names)

    def has_manifest(self, repository: str, digest: Digest) -> bool:
        return self._graph._slot(repository, digest) in self._slots

    def blobs(self) -> Iterator[Blob]:
        """Those that are there, manifests included, in no particular order."""
        for number in range(len(self._blobs)):
            if self._blobs[number] and self._graph._tables.sizes[number] >= 0:
                yield Blob(self._graph._digests[number], self._graph._tables.sizes[number])

    def has_blob(self, digest: Digest) -> bool:
        number = self._graph._digests.find(digest)
        return self._graph.blind if number is None else bool(self._blobs[number])
