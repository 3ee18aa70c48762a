# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repair what the integrity check has found, so that every step can be undone.

Private to the collection: no stable interface.

Nothing is deleted: what is damaged is moved to `.dockyard-quarantine/<time>/` beside the registry's folders, under
its own path. In this order, so that content that can be had again saves what points to it: blobs are fetched from
other registries or backups; those that cannot be are moved away, so that a push brings them again (the registry
itself discards a push of what it believes to have); links are written anew; and when nothing more comes back,
links to nothing are moved away. Undoing the actions in reverse order gives exactly what was there.

A run that is killed has lost nothing: the next one finds what is left to do. What the registry has in memory is
wrong once something was moved away, so it is restarted, be it by that next run.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from ._check import Options, Report, Which, check
from ._check_content import Reader, Seen, State
from ._check_findings import Finding, Severity
from ._client import NotFound, RegistryClient, Truncated
from ._errors import RegistryError
from ._journal import Journal
from ._progress import Progress, silent
from ._reference import Digest
from ._service import Service
from ._storage import Code, Kind, Link, Place, Problem, Sink, Storage, Tag
from ._table import table

OPERATION = "repair"
# One repair may bring out another: a manifest that comes back needs blobs, a blob that is moved away leaves links
# to nothing, and these leave tags. As many as an index in an index may take, and more.
_ROUNDS = 30

_BAD_BLOB = frozenset(
    {Code.BLOB_CORRUPT, Code.BLOB_EMPTY, Code.MANIFEST_CORRUPT, Code.UNREADABLE, Code.NOT_A_FILE}
)
_LOST_BLOB = frozenset({Code.BLOB_MISSING, Code.REVISION_DANGLING, Code.TAG_DANGLING})
_BAD_LINK = frozenset({Code.LINK_TORN, Code.LINK_MISMATCH, Code.UNREADABLE})
_LOST_LINK = frozenset({Code.TAG_DANGLING, Code.CHILD_UNLINKED, Code.LAYER_UNLINKED})


class BlobSource(Protocol):
    """Where a blob or manifest can be had again."""

    #: For people.
    name: str

    def fetch(self, repository: str, digest: Digest, target: Sink) -> bool:
        """Write its content to `target`, which checks it; False where it is not there. Raises RegistryError."""


class RegistrySource:
    """Another registry; `repository` is where it has what any repository of ours has, if not under that name."""

    def __init__(self, client: RegistryClient, repository: str | None = None) -> None:
        self.name = client.url
        self._client = client
        self._repository = repository

    def fetch(self, repository: str, digest: Digest, target: Sink) -> bool:
        name = self._repository or repository
        try:
            self._client.pull_blob(name, digest, target.write)
        except NotFound:
            return self._fetch_manifest(name, digest, target)
        except Truncated:
            return False
        return True

    def _fetch_manifest(self, repository: str, digest: Digest, target: Sink) -> bool:
        try:
            target.write(self._client.manifest(repository, digest).raw)
        except (NotFound, Truncated):
            return False
        return True


class Action(NamedTuple):
    """One thing that was done, or would be."""

    code: Code
    path: str
    action: str
    #: The commands that take it back.
    undo: str
    #: The tags that it leaves broken.
    loses: tuple[str, ...] = ()


class Outcome(NamedTuple):
    before: Report
    after: Report
    actions: list[Action]
    #: Tags that were broken before and still are, or are gone.
    lost: tuple[str, ...]
    #: Sources that failed, and why.
    warnings: tuple[str, ...]
    #: Whether the registry was restarted; None where it should be and nobody has told us how.
    restarted: bool | None


def repair(
    root: str,
    storage: Storage,
    options: Options,
    *,
    sources: Sequence[BlobSource] = (),
    service: Service | None = None,
    progress: Progress = silent,
) -> Outcome:
    """Check, repair, and check again. The caller holds both locks; `root` is the registry's, for the journal."""
    journal = Journal(root, OPERATION)
    work = _Repair(storage, options, sources, journal, progress)
    seen = State()
    before = check(storage, options, progress, seen=seen)
    work.run(before.findings)
    restarted = _restart_if_needed(journal, service, progress)
    after = check(storage, options, progress, seen=seen) if work.actions else before
    # What was moved away first may have been fetched later.
    gone = [action for action in work.actions if not os.path.lexists(action.path)]
    lost = {tag for action in gone for tag in action.loses}
    lost.update(tag for item in after.findings if item.severity is Severity.ERROR for tag in item.breaks)
    return Outcome(before, after, work.actions, tuple(sorted(lost)), tuple(work.warnings), restarted)


def plan(storage: Storage, options: Options, *, progress: Progress = silent) -> tuple[Report, list[Action]]:
    """What repair() would do, as far as it follows from what is found now. Changes nothing."""
    report = check(storage, options._replace(state=None), progress)
    planned = ((finding, _intention(storage, finding)) for finding in report.findings)
    return report, [Action(item.code, item.path, text, "") for item, text in planned if text]


def recover(root: str, service: Service) -> list[str]:
    """Restart the registry where a repair was killed before it could. Returns what was done, for people."""
    if _restart_if_needed(Journal(root, OPERATION), service, silent):
        return ["a repair was broken off: the registry was restarted, so that it sees the storage as it is"]
    return []


def _restart_if_needed(journal: Journal, service: Service | None, progress: Progress) -> bool | None:
    if journal.read() is None:
        return False
    if service is None:
        return None
    progress("restart the registry")
    if service.is_running():
        service.stop()
    service.start()
    journal.remove()
    return True


def _intention(storage: Storage, finding: Finding) -> str:
    """What would be done about a finding; nothing for most notes."""
    code = finding.code
    place = storage.place_at(finding.path)
    kind = place.kind if place else None
    if code is Code.ACCESS:
        return "give it and what is below it to the registry's user"
    if code in _BAD_BLOB and kind is Kind.BLOB:
        return "fetch it from a source, or else move it to the quarantine, so that a push brings it again"
    if code is Code.BLOB_MISSING:
        return "fetch it from a source"
    if code in (Code.REVISION_DANGLING, Code.TAG_DANGLING):
        return "fetch the manifest from a source and link it, or else move this to the quarantine"
    if code in (Code.CHILD_UNLINKED, Code.LAYER_UNLINKED):
        return "write the link"
    if code in _BAD_LINK or code is Code.TAG_WITHOUT_CURRENT:
        return "write it anew if what it should point to is there, or else move it to the quarantine"
    return "move it to the quarantine" if code is Code.LAYER_DANGLING else ""


def render_actions(actions: list[Action]) -> str:
    """What was done, as a table for people."""
    rows = [(item.code.value, item.path, item.action) for item in actions]
    return table(("CODE", "PATH", "REPAIR"), rows)


class _Repair:
    """One run: its folder in the quarantine, and what it has done."""

    def __init__(
        self,
        storage: Storage,
        options: Options,
        sources: Sequence[BlobSource],
        journal: Journal,
        progress: Progress,
    ) -> None:
        self._storage = storage
        self._options = options
        self._sources = sources
        self._journal = journal
        self._progress = progress
        self._run = time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + f"-{time.time_ns() % 10**9:09d}"
        self._reader = Reader(storage)
        self._asked: set[tuple[Digest, str]] = set()
        self.actions: list[Action] = []
        self.warnings: list[str] = []

    def run(self, findings: list[Finding]) -> None:
        quick = self._options._replace(content=Which.NONE, state=None)
        steps: tuple[Callable[[Finding], Iterator[Action]], ...] = (
            *(self._repair_access, self._repair_blob),
            *(self._repair_link, self._remove_dangling),
        )
        for _round in range(_ROUNDS):
            # A step is only taken when those before it can do nothing more: a manifest that has come back says
            # which blobs to fetch, and until they are there, links to them only seem to lead nowhere.
            for step in steps:
                actions = [action for finding in findings for action in step(finding)]
                if actions:
                    break
            else:
                return
            self.actions += actions
            findings = check(self._storage, quick).findings

    # Steps: each does what it can about a finding, and says what that was

    def _repair_access(self, finding: Finding) -> Iterator[Action]:
        uid, gid = self._options.uid, self._options.gid
        if finding.code is Code.ACCESS and uid is not None and gid is not None:
            listed = self._storage.grant_access(finding.path, uid, gid, self._run)
            undo = f"{listed} lists mode, owner and group that each had"
            yield Action(finding.code, finding.path, f"given to {uid}:{gid}", undo)

    def _repair_blob(self, finding: Finding) -> Iterator[Action]:
        digest = self._bad_blob(finding)
        if digest is None:
            return
        folder = self._storage.blob_path(digest).rpartition("/")[0]
        aside = self._storage.quarantine_path(folder, self._run)
        replaces = finding.code in _BAD_BLOB
        if replaces:
            self._announce()
        made, is_aside = _missing_folders(folder.rpartition("/")[0]), os.path.lexists(aside)
        source = self._fetch(finding, digest)
        if source:
            # An empty folder may have been there, or have been moved away by an earlier action.
            replaced = aside if os.path.lexists(aside) and not is_aside else None
            undo = _commands(["rm", "-r", folder], ["rmdir", *made], ["mv", "-T", replaced, folder])
            done = f"fetched {digest} from {source}"
            yield Action(finding.code, finding.path, done, undo)
        elif replaces and self._storage.quarantine(folder, self._run):
            yield self._moved(finding, folder, aside)

    def _bad_blob(self, finding: Finding) -> Digest | None:
        """The blob that should be there and is not, or is not what it should be, as is looked at again."""
        digest = finding.digest
        if digest is None:
            return None
        if finding.code in _LOST_BLOB:
            return digest if self._storage.blob_status(digest) is None else None
        place = self._storage.place_at(finding.path)
        if place is None:
            return None
        if finding.code in _BAD_LINK and place.kind is Kind.REVISION:
            return digest if self._storage.blob_status(digest) is None else None
        if finding.code not in _BAD_BLOB or place.kind is not Kind.BLOB:
            return None
        if finding.code is Code.NOT_A_FILE:
            return digest if self._storage.blob_status(digest) is None else None
        seen = self._reader.look_at(digest)
        bad = isinstance(seen, Problem) or (isinstance(seen, Seen) and seen.corrupt)
        return digest if bad else None

    def _fetch(self, finding: Finding, digest: Digest) -> str:
        """Put a blob in its place; the name of the source that had it, or nothing."""
        # A manifest that comes back may say who else has needed this.
        repositories = [name for name in finding.repositories if (digest, name) not in self._asked]
        self._asked.update((digest, name) for name in repositories)
        for source in self._sources:
            for repository in repositories:
                self._progress(f"fetch {digest} from {source.name}")
                try:
                    fetched = self._storage.fetch_blob(
                        digest, partial(source.fetch, repository, digest), self._run
                    )
                except RegistryError as error:
                    self.warnings.append(str(error))
                    continue
                if fetched:
                    return source.name
        return ""

    def _repair_link(self, finding: Finding) -> Iterator[Action]:
        place = self._place(finding)
        if place is None:
            return
        code = finding.code
        if place.kind is Kind.TAG and code in (*_BAD_LINK, Code.TAG_WITHOUT_CURRENT):
            digest = self._last_in_history(place)
            if digest is not None:
                yield from self._write(finding, Place(Kind.TAG, digest, place.repository, place.tag))
        elif place.digest is not None and code in _BAD_LINK and self._has(place):
            yield from self._write(finding, place)
        elif code in _LOST_LINK and finding.digest is not None:
            kind = Kind.LAYER if code is Code.LAYER_UNLINKED else Kind.REVISION
            lost = Place(kind, finding.digest, place.repository)
            if self._has(lost):
                yield from self._write(finding, lost)

    def _place(self, finding: Finding) -> Place | None:
        if finding.code is Code.TAG_WITHOUT_CURRENT:
            return self._storage.place_at(f"{finding.path}/current/link")
        return self._storage.place_at(finding.path)

    def _has(self, place: Place) -> bool:
        """Whether what a link should point to is there."""
        if place.digest is None or place.kind is Kind.BLOB:
            return False
        if place.kind is Kind.LAYER:
            return self._storage.blob_status(place.digest) is not None
        return isinstance(self._storage.read_manifest(place.digest), bytes)

    def _last_in_history(self, tag: Place) -> Digest | None:
        """The manifest that a tag was last pushed with; a push writes that down first."""
        links = self._storage.history(tag.repository, tag.tag)
        pushed = [(link.pushed or 0.0, link.digest) for link in links if isinstance(link, Link)]
        last = max(pushed, default=None)
        if last is None or not self._has(Place(Kind.REVISION, last[1], tag.repository)):
            return None
        linked = isinstance(self._storage.revision(tag.repository, last[1]), Link)
        return last[1] if linked else None

    def _write(self, finding: Finding, place: Place) -> Iterator[Action]:
        storage, digest = self._storage, place.digest
        if digest is None:
            raise AssertionError(place)
        path = (
            storage.tag_path(place.repository, place.tag)
            if place.kind is Kind.TAG
            else storage.path_of(place)
        )
        is_there = os.path.lexists(path)
        aside = storage.quarantine(path, self._run, copy=True) if is_there else None
        if is_there and aside is None:
            # This run has put something else of that path aside: nothing is replaced that is not kept.
            return
        made = _missing_folders(path.rpartition("/")[0])
        if place.kind is Kind.TAG:
            storage.write_tag(place.repository, place.tag, digest)
        elif place.kind is Kind.LAYER:
            storage.write_layer(place.repository, digest)
        elif place.kind is Kind.REVISION:
            storage.write_revision(place.repository, digest)
        else:
            storage.write_history(place.repository, place.tag, digest)
        # A file takes the place of a file at once, but not that of a folder.
        removed = None if aside and not _is_folder(aside) else path
        undo = _commands(["rm", removed], ["rmdir", *made], ["mv", "-T", aside, path])
        yield Action(finding.code, path, f"wrote the link to {digest}", undo)

    def _remove_dangling(self, finding: Finding) -> Iterator[Action]:
        folder = self._dangling(finding)
        if folder:
            self._announce()
            aside = self._storage.quarantine(folder, self._run)
            if aside:
                yield self._moved(finding, folder, aside)

    def _dangling(self, finding: Finding) -> str:
        """The folder of a link or tag that leads nowhere, if that is still so; else nothing."""
        storage, place, code = self._storage, self._place(finding), finding.code
        if place is None or place.kind is Kind.BLOB:
            return ""
        if place.kind is Kind.TAG:
            return self._dangling_tag(finding, place)
        leads_nowhere = place.digest is not None and storage.blob_status(place.digest) is None
        if code in (Code.REVISION_DANGLING, Code.LAYER_DANGLING) or code in _BAD_LINK:
            return finding.path.rpartition("/")[0] if leads_nowhere else ""
        return ""

    def _dangling_tag(self, finding: Finding, place: Place) -> str:
        found = self._storage.tag(place.repository, place.tag)
        if isinstance(found, Tag):
            gone = found.digest == finding.digest and (
                self._storage.revision(place.repository, found.digest) is None
            )
        else:
            gone = isinstance(found, Problem)
        if not gone or finding.code not in (*_BAD_LINK, Code.TAG_WITHOUT_CURRENT, Code.TAG_DANGLING):
            return ""
        return self._storage.tag_path(place.repository, place.tag)[: -len("/current/link")]

    # What steps share

    def _announce(self) -> None:
        """Write down that the registry is to be restarted, before something is taken from it."""
        if self._journal.read() is None:
            self._journal.write({"operation": OPERATION, "run": self._run})

    def _moved(self, finding: Finding, path: str, aside: str) -> Action:
        done = f"moved to the quarantine, {aside}"
        return Action(finding.code, path, done, _commands(["mv", "-T", aside, path]), finding.breaks)


def _commands(*commands: list[str | None]) -> str:
    """For a shell, those of the commands that have something to do: that lack no argument, and have some."""
    whole = [[word for word in command if word is not None] for command in commands]
    return " && ".join(
        shlex.join(words) for words, command in zip(whole, commands) if len(words) == len(command) > 1
    )


def _missing_folders(folder: str) -> list[str]:
    """What would have to be made for a folder to be there, the innermost first."""
    missing = []
    while not os.path.lexists(folder):
        missing.append(folder)
        folder = folder.rpartition("/")[0]
    return missing


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)  # noqa: PTH112, PTH114 (strings, as in _storage.py)
