# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read all that a source shows of a registry into flat tables, each manifest once; the graph stands on them.

The registry goes on working meanwhile. Pushes write blobs, then links, then tags, so a tag never leads to
something that is not there yet; what seems to be missing is looked up again before it is called damage.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import enum
import math
import time
from array import array
from collections.abc import Iterator
from itertools import repeat
from typing import NamedTuple

from ._manifest import Descriptor, InvalidManifest, Manifest, parse_manifest
from ._media import is_index
from ._reference import Digest
from ._source import Source, View
from ._storage import Code, Link, Problem, Tag

#: Instead of a number where there is nothing to number.
NOBODY = -1

# A registry that deletes a manifest removes its link first, then reads all tags and removes those it had.
_PATIENCE_SECONDS = 2.0
_PAUSE_SECONDS = 0.05

# What can be in a repository without a doubt about what else is.
_HARMLESS = frozenset({Code.STRAY, Code.LEFTOVER, Code.TAG_DANGLING})


class State(str, enum.Enum):
    """What a repository has."""

    #: At least one tag.
    LIVE = "live"
    #: Manifests, but none with a tag.
    UNTAGGED = "untagged"
    #: It had manifests; all were deleted. (Over HTTP, untagged ones cannot be told from none.)
    EMPTIED = "emptied"
    #: Blobs or uploads, never a manifest.
    UNFINISHED = "unfinished"


class Digests:
    """Digests as numbers, in the order in which they turn up."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._digests: list[bytes] = []

    def __len__(self) -> int:
        return len(self._digests)

    def number(self, digest: Digest) -> int:
        """The number of a digest, a new one if it has none yet."""
        # The length tells the algorithm. All names of algorithms have the same length, too.
        raw = bytes.fromhex(digest[len("sha256:") :])
        number = self._numbers.setdefault(raw, len(self._digests))
        if number == len(self._digests):
            self._digests.append(raw)
        return number

    def find(self, digest: Digest) -> int | None:
        return self._numbers.get(bytes.fromhex(digest.hex))

    def __getitem__(self, number: int) -> Digest:
        raw = self._digests[number]
        return Digest(f"sha{len(raw) * 8}:{raw.hex()}")


class _Names:
    """Media types and their like as numbers; there are few, but every manifest has some."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []

    def number(self, name: str) -> int:
        number = self._numbers.setdefault(name, len(self._names))
        if number == len(self._names):
            self._names.append(name)
        return number

    def __getitem__(self, number: int) -> str:
        return self._names[number]


class Role(enum.IntEnum):
    CONFIG = 0
    LAYER = 1
    CHILD = 2


class Manifests:
    """Parsed manifests, by number in the order in which they were read, and all their references in a row."""

    def __init__(self, digests: Digests) -> None:
        self._digests = digests
        self._names = _Names()
        self._of_digest = array("i")
        self.size = array("I")
        self.subject = array("i")
        self._media_type = array("I")
        self._artifact_type = array("I")
        # The references of manifest n are those from first[n] to first[n + 1].
        self.first = array("I", [0])
        self.target = array("I")
        self.stated = array("q")
        self.role = bytearray()
        self.elsewhere = bytearray()
        self._type = array("I")
        self._platform = array("I")

    def __len__(self) -> int:
        return len(self.size)

    def add(self, digest: int, manifest: Manifest, size: int) -> None:
        if digest >= len(self._of_digest):
            self._of_digest.extend(repeat(NOBODY, len(self._digests) - len(self._of_digest)))
        self._of_digest[digest] = len(self)
        self.size.append(size)
        self.subject.append(NOBODY if manifest.subject is None else self._digests.number(manifest.subject))
        self._media_type.append(self._names.number(manifest.media_type))
        self._artifact_type.append(self._names.number(manifest.artifact_type))
        if manifest.config is not None:
            self._refer(manifest.config, Role.CONFIG)
        for layer in manifest.layers:
            self._refer(layer, Role.LAYER)
        for child in manifest.children:
            self._refer(child, Role.CHILD)
        self.first.append(len(self.target))

    def _refer(self, to: Descriptor, role: Role) -> None:
        self.target.append(self._digests.number(to.digest))
        self.stated.append(to.size)
        self.role.append(role)
        self.elsewhere.append(to.elsewhere)
        self._type.append(self._names.number(to.media_type))
        self._platform.append(self._names.number(to.platform))

    def find(self, digest: int) -> int:
        """The manifest with a digest, or NOBODY where it was not read."""
        return self._of_digest[digest] if digest < len(self._of_digest) else NOBODY

    def references(self, manifest: int) -> range:
        return range(self.first[manifest], self.first[manifest + 1])

    def targets(self, manifest: int) -> array[int]:
        return self.target[self.first[manifest] : self.first[manifest + 1]]

    def is_index(self, manifest: int) -> bool:
        return is_index(self._names[self._media_type[manifest]])

    def get(self, manifest: int) -> Manifest:
        """The manifest as it was parsed."""
        found: dict[int, list[Descriptor]] = {role: [] for role in Role}
        for reference in self.references(manifest):
            found[self.role[reference]].append(self._descriptor(reference))
        subject = self.subject[manifest]
        return Manifest(
            self._names[self._media_type[manifest]],
            self._names[self._artifact_type[manifest]],
            found[Role.CONFIG][0] if found[Role.CONFIG] else None,
            tuple(found[Role.LAYER]),
            tuple(found[Role.CHILD]),
            None if subject == NOBODY else self._digests[subject],
        )

    def _descriptor(self, reference: int) -> Descriptor:
        return Descriptor(
            self._digests[self.target[reference]],
            self._names[self._type[reference]],
            self.stated[reference],
            self._names[self._platform[reference]],
            bool(self.elsewhere[reference]),
        )


class _Opened:
    """A repository while it is read."""

    def __init__(self, view: View) -> None:
        self.name = view.name
        self.had_manifests = view.had_manifests
        #: Digest numbers of its manifests, with the times of their pushes.
        self.slots: dict[int, float] = {}
        #: Those among them that the repository has no link to, and still are needed by a tag or an index.
        self.unlinked: set[int] = set()
        #: Digest numbers of children that are nowhere.
        self.absent: set[int] = set()
        self.tags: list[tuple[str, int, float]] = []
        self.layers = array("I")
        self.uncertain = False


class _Wanted(NamedTuple):
    """A manifest whose body is needed."""

    opened: _Opened
    number: int
    #: Whether it is only known as a child of an index.
    is_child: bool


class Tables:
    """All that was read, as flat arrays. Repositories, and tags within them, are in the order of names."""

    def __init__(self, complete: bool) -> None:
        self.complete = complete
        self.started = time.time()
        self.digests = Digests()
        self.manifests = Manifests(self.digests)
        self.problems: list[Problem] = []
        #: Whether a part of the store could not be looked at.
        self.blind = False
        #: By digest number: the size of the blob, -1 where there is none.
        self.sizes = array("q")
        #: Numbers of digests that are served by another blob, and that blob's.
        self.aliases: dict[int, int] = {}
        self.repositories: list[str] = []
        self.states: list[State] = []
        self.uncertain = bytearray()
        # The slots of repository n are those from first_slot[n] to first_slot[n + 1], by digest number.
        self.first_slot = array("I", [0])
        self.slot_digest = array("I")
        self.slot_pushed = array("d")
        self.slot_linked = bytearray()
        self.first_tag = array("I", [0])
        self.tag_name: list[str] = []
        self.tag_slot = array("I")
        self.tag_pushed = array("d")
        self.first_layer = array("I", [0])
        self.layer = array("I")


def read_tables(source: Source) -> Tables:
    """Walk through all that a source shows. Raises what the source raises."""
    return _Reader(source).read()


class _Reader:
    """Reads a source into tables."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._tables = Tables(source.complete)
        self._digests = self._tables.digests
        self._manifests = self._tables.manifests
        self._opened: list[_Opened] = []
        #: Manifests that cannot be read, by number; over HTTP, where it depends, by repository and number.
        self._unreadable: dict[object, Problem] = {}
        self._asked: set[object] = set()
        #: Seconds that we still wait, all in all, for deletions under way to end.
        self._patience = _PATIENCE_SECONDS

    def read(self) -> Tables:
        for view in self._source.repositories():
            if isinstance(view, Problem):
                self._note(view)
            else:
                self._open(view)
        self._opened.sort(key=lambda opened: opened.name)
        self._read_manifests()
        self._read_sizes()
        for opened in self._opened:
            self._close(opened)
        return self._tables

    def _note(self, problem: Problem, opened: _Opened | None = None) -> None:
        self._tables.problems.append(problem)
        self._tables.blind |= problem.code is Code.SYMLINK
        if opened is not None and problem.code not in _HARMLESS:
            opened.uncertain = True

    # Links

    def _open(self, view: View) -> None:
        opened = _Opened(view)
        self._opened.append(opened)
        for link in view.revisions:
            self._add_link(opened, link)
        for digest, body in view.bodies.items():
            self._add_body(_Wanted(opened, self._digests.number(digest), is_child=False), body)
        for tag in view.tags:
            if isinstance(tag, Problem):
                self._note(tag, opened)
            else:
                self._add_tag(opened, tag)
        for link in view.layers:
            if isinstance(link, Link):
                opened.layers.append(self._linked(link))
            else:
                self._note(link)
                # A damaged link still says by its place what the repository had.
                if link.digest is not None:
                    opened.layers.append(self._digests.number(link.digest))

    def _linked(self, link: Link) -> int:
        number = self._digests.number(link.digest)
        if link.target != link.digest:
            self._tables.aliases[number] = self._digests.number(link.target)
        return number

    def _add_link(self, opened: _Opened, link: Link | Problem) -> None:
        if isinstance(link, Link):
            opened.slots[self._linked(link)] = _time(link.pushed)
        else:
            self._note(link, opened)
            if link.digest is not None:
                opened.slots[self._digests.number(link.digest)] = math.nan

    def _add_tag(self, opened: _Opened, tag: Tag) -> None:
        number = self._digests.number(tag.digest)
        if number not in opened.slots:
            settled = self._settle(opened, tag)
            if settled is None:
                return
            tag, number = settled, self._digests.number(settled.digest)
        opened.tags.append((tag.name, number, _time(tag.pushed)))

    def _settle(self, opened: _Opened, tag: Tag) -> Tag | None:
        """A tag whose manifest was not there when we looked: pushed or deleted meanwhile, or damaged."""
        link = self._source.revision(opened.name, tag.digest)
        if link is not None:
            self._add_link(opened, link)
            return tag
        again = self._source.tag(opened.name, tag.name)
        if isinstance(again, Problem):
            self._note(again, opened)
            return None
        if again is None:
            return None
        if again.digest != tag.digest:
            return (
                again if self._digests.number(again.digest) in opened.slots else self._settle(opened, again)
            )
        if self._patience > 0 and self._source.was_just_deleted(opened.name, tag.digest):
            self._patience -= _PAUSE_SECONDS
            time.sleep(_PAUSE_SECONDS)
            return self._settle(opened, again)
        detail = f"it points to {tag.digest}, which the repository does not have"
        place = f"{opened.name}:{tag.name}"
        self._note(Problem(Code.TAG_DANGLING, place, detail, opened.name, tag.digest), opened)
        number = self._digests.number(tag.digest)
        opened.slots[number] = math.nan
        opened.unlinked.add(number)
        return tag

    # Manifests

    def _read_manifests(self) -> None:
        wanted = [_Wanted(opened, number, False) for opened in self._opened for number in opened.slots]
        while wanted:
            self._read_bodies([item for item in wanted if self._is_unread(item)])
            for item in wanted:
                problem = self._unreadable.get(self._key(item))
                if problem is not None:
                    self._judge(item, problem)
            wanted = [child for item in wanted for child in self._children(item)]

    def _key(self, item: _Wanted) -> object:
        # On disk a body is the same for all repositories; over HTTP one may have it and another not.
        return item.number if self._tables.complete else (item.opened.name, item.number)

    def _is_unread(self, item: _Wanted) -> bool:
        key = self._key(item)
        if key in self._asked:
            return False
        self._asked.add(key)
        return True

    def _read_bodies(self, wanted: list[_Wanted]) -> None:
        names = ((item.opened.name, self._digests[item.number]) for item in wanted)
        for item, body in zip(wanted, self._source.manifests(names)):
            if isinstance(body, Problem):
                self._unreadable[self._key(item)] = body
            else:
                self._add_body(item, body)

    def _add_body(self, item: _Wanted, body: bytes) -> None:
        self._asked.add(self._key(item))
        if self._manifests.find(item.number) != NOBODY:
            return
        try:
            self._manifests.add(item.number, parse_manifest(body), len(body))
        except InvalidManifest as error:
            digest = self._digests[item.number]
            self._unreadable[self._key(item)] = Problem(Code.MANIFEST_INVALID, "", str(error), digest=digest)

    def _judge(self, item: _Wanted, problem: Problem) -> None:
        """What it means that a manifest of a repository cannot be read."""
        opened, number, is_child = item
        linked = number not in opened.unlinked
        missing = problem.code is Code.MANIFEST_MISSING
        if is_child and missing and not (linked and self._tables.complete):
            opened.absent.add(number)
        elif not self._is_deleted(item):
            path = problem.path or f"{opened.name}@{problem.digest}"
            self._note(problem._replace(path=path, repository=opened.name), opened)
            return
        # Deleted while we looked, or never there.
        del opened.slots[number]
        opened.unlinked.discard(number)

    def _children(self, item: _Wanted) -> Iterator[_Wanted]:
        """The children of a manifest that were not listed: pushed meanwhile, deleted, or never pushed."""
        opened = item.opened
        manifest = self._manifests.find(item.number)
        if manifest == NOBODY or item.number not in opened.slots:
            return
        for reference in self._manifests.references(manifest):
            number = self._manifests.target[reference]
            if (
                self._manifests.role[reference] != Role.CHILD
                or number in opened.slots
                or number in opened.absent
            ):
                continue
            link = self._source.revision(opened.name, self._digests[number])
            if link is None and self._is_deleted(item):
                del opened.slots[item.number]
                return
            if link is None:
                opened.slots[number] = math.nan
                opened.unlinked.add(number)
            else:
                self._add_link(opened, link)
            yield _Wanted(opened, number, is_child=True)

    def _is_deleted(self, item: _Wanted) -> bool:
        """Whether a manifest that was listed is not there any more."""
        linked = item.number not in item.opened.unlinked
        return linked and self._source.revision(item.opened.name, self._digests[item.number]) is None

    # Blobs

    def _read_sizes(self) -> None:
        sizes = self._tables.sizes
        sizes.extend(repeat(-1, len(self._digests)))
        for blob in self._source.blobs():
            if isinstance(blob, Problem):
                self._note(blob)
                continue
            number = self._digests.number(blob.digest)
            if number == len(sizes):
                sizes.append(blob.size)
            else:
                sizes[number] = blob.size
        if not self._tables.complete:
            self._take_sizes_from_manifests()

    def _take_sizes_from_manifests(self) -> None:
        sizes, manifests = self._tables.sizes, self._manifests
        for number in range(len(self._digests)):
            manifest = manifests.find(number)
            if manifest != NOBODY:
                sizes[number] = manifests.size[manifest]
        for number, size, elsewhere in zip(manifests.target, manifests.stated, manifests.elsewhere):
            if sizes[number] < 0 and not elsewhere:
                sizes[number] = size

    # Into the tables

    def _close(self, opened: _Opened) -> None:
        tables = self._tables
        place = len(tables.slot_digest)
        numbers = sorted(opened.slots)
        slots = {number: place + index for index, number in enumerate(numbers)}
        tables.slot_digest.extend(numbers)
        tables.slot_pushed.extend(opened.slots[number] for number in numbers)
        tables.slot_linked.extend(number not in opened.unlinked for number in numbers)
        tags = sorted(tag for tag in opened.tags if tag[1] in slots)
        tables.tag_name.extend(name for name, _number, _pushed in tags)
        tables.tag_slot.extend(slots[number] for _name, number, _pushed in tags)
        tables.tag_pushed.extend(pushed for _name, _number, pushed in tags)
        tables.layer.extend(opened.layers)
        tables.first_slot.append(len(tables.slot_digest))
        tables.first_tag.append(len(tables.tag_name))
        tables.first_layer.append(len(tables.layer))
        tables.repositories.append(opened.name)
        tables.uncertain.append(opened.uncertain)
        tables.states.append(_state(bool(tags), bool(numbers), opened.had_manifests))
        tables.problems += self._missing(opened)

    def _missing(self, opened: _Opened) -> Iterator[Problem]:
        """What the manifests of a repository refer to and is not there."""
        linked = set(opened.layers)
        for number in sorted(opened.slots):
            manifest = self._manifests.find(number)
            if manifest == NOBODY:
                continue
            for reference in self._manifests.references(manifest):
                found = self._missing_reference(opened, linked, reference)
                if found is not None:
                    code, detail = found
                    target = self._digests[self._manifests.target[reference]]
                    place = f"{opened.name}@{self._digests[number]}"
                    yield Problem(code, place, f"{detail}: {target}", opened.name, target)

    def _missing_reference(
        self, opened: _Opened, linked: set[int], reference: int
    ) -> tuple[Code, str] | None:
        manifests, tables = self._manifests, self._tables
        number = manifests.target[reference]
        if manifests.role[reference] == Role.CHILD:
            if number in opened.unlinked:
                return Code.CHILD_UNLINKED, "it lists a manifest that the repository does not have"
            if number not in opened.slots:
                return Code.CHILD_MISSING, "it lists a manifest that is not there"
        elif tables.complete and not manifests.elsewhere[reference] and number not in opened.slots:
            size = tables.sizes[tables.aliases.get(number, number)]
            if size < 0:
                return Code.BLOB_MISSING, "it needs a blob that is not there"
            if number not in linked:
                return Code.LAYER_UNLINKED, "it needs a blob that the repository has no link to"
            if manifests.stated[reference] not in (-1, size):
                stated = manifests.stated[reference]
                return Code.BLOB_SIZE, f"it needs a blob of {stated} bytes, which has {size}"
        return None


def _time(pushed: float | None) -> float:
    return math.nan if pushed is None else pushed


def _state(tagged: bool, manifests: bool, had_manifests: bool) -> State:
    if tagged:
        return State.LIVE
    if manifests:
        return State.UNTAGGED
    return State.EMPTIED if had_manifests else State.UNFINISHED
