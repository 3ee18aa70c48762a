# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The integrity check of a store: everything that is wrong with it, and what that breaks for people.

Private to the collection: no stable interface.

    report = check(Storage("/opt/registry/data"), Options(state=Path("/opt/registry/maintenance/check-state")))
    report.is_healthy

The registry goes on working. What a push or a deletion leaves for a moment is looked at again before it is
called damage; garbage collection must not run meanwhile, which the storage lock sees to.
"""

from __future__ import annotations

import enum
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from ._check_content import Content, Reader, State
from ._check_findings import (
    Finding,
    Severity,
    as_findings,
    find_problems,
    severity_of,
    without_doubles,
)
from ._graph import Graph, read_graph
from ._progress import Progress, silent
from ._source import DiskSource
from ._storage import Problem, Storage
from ._table import counted, shortened, size, table

_SHOWN_BREAKS = 3
_SHOWN_FINDINGS = 100


class Which(str, enum.Enum):
    """Which blobs are read and hashed."""

    ALL = "all"
    #: Those whose files look different from when they were last read.
    CHANGED = "changed"
    NONE = "none"


class Options(NamedTuple):
    content: Which = Which.ALL
    threads: int = 2
    #: Bytes a second, 0 for as many as there are.
    rate: int = 0
    #: Seconds after which an upload that nothing comes for is reported.
    upload_age: float = 7 * 86400.0
    #: The user and group that the registry runs as; without them owners and modes are not looked at.
    uid: int | None = None
    gid: int | None = None
    #: Seconds until what seems damaged is looked at again: pushes and deletions are through with it by then.
    patience: float = 0.5
    #: Where to keep what was read, for Which.CHANGED.
    state: Path | None = None


class Counts(NamedTuple):
    repositories: int
    tags: int
    blobs: int
    #: Bytes of all blobs: those that a tag leads to, and the others.
    bytes: int
    reachable_bytes: int
    unreachable_bytes: int
    #: What was read, and what was not because it has not changed since it was.
    hashed_blobs: int
    hashed_bytes: int
    unchanged_blobs: int


class Report(NamedTuple):
    findings: list[Finding]
    counts: Counts

    @property
    def is_healthy(self) -> bool:
        """Whether everything can be pulled, and nothing is about to be lost."""
        return not any(finding.severity is Severity.ERROR for finding in self.findings)


def check(
    storage: Storage,
    options: Options | None = None,
    progress: Progress = silent,
    *,
    seen: State | None = None,
) -> Report:
    """Look at everything. Raises StorageError where the store as a whole cannot be read.

    What `seen` has read is not read again, and what is read is written down there too.
    """
    options = options or Options()
    progress("read links and manifests")
    graph = read_graph(DiskSource(storage))
    problems = find_problems(storage, graph, upload_age=options.upload_age)
    if any(severity_of(storage, code, path) is not Severity.NOTE for code, path, *_rest in problems):
        graph, problems = _look_again(storage, options, problems)
    content = _read_content(storage, options, graph, progress, State() if seen is None else seen)
    if options.uid is not None and options.gid is not None:
        progress("look at owners and modes")
        problems += storage.inaccessible(options.uid, options.gid)
    findings = as_findings(storage, graph, without_doubles([*problems, *content.problems]))
    return Report(findings, _counts(graph, content))


def _look_again(storage: Storage, options: Options, first: list[Problem]) -> tuple[Graph, list[Problem]]:
    """What is still so a moment later."""
    time.sleep(options.patience)
    graph = read_graph(DiskSource(storage))
    known = {(problem.code, problem.path) for problem in first}
    again = find_problems(storage, graph, upload_age=options.upload_age)
    return graph, [problem for problem in again if (problem.code, problem.path) in known]


def _read_content(
    storage: Storage, options: Options, graph: Graph, progress: Progress, seen: State
) -> Content:
    if options.content is Which.NONE:
        return Content([], 0, 0, 0)
    if options.content is Which.CHANGED and options.state is not None:
        seen.add(State(options.state))
    after = State()
    reader = Reader(storage, threads=options.threads, limit=options.rate, progress=progress)
    content = reader.read(seen, after, total=sum(blob.size for blob in graph.blobs()))
    seen.add(after)
    if options.state is not None:
        after.write(options.state)
    return content


def _counts(graph: Graph, content: Content) -> Counts:
    names = graph.repositories()
    blobs = graph.blobs()
    reachable = sum(blob.size for blob in graph.reachable().blobs())
    total = sum(blob.size for blob in blobs)
    return Counts(
        len(names),
        sum(len(graph.tags(name)) for name in names),
        len(blobs),
        total,
        reachable,
        total - reachable,
        content.hashed_blobs,
        content.hashed_bytes,
        content.unchanged_blobs,
    )


# For people


def render(report: Report) -> str:
    """What was found, as a table, and what that means in a sentence."""
    shown = report.findings[:_SHOWN_FINDINGS]
    rows = [
        (finding.severity.value, finding.code.value, _breaks(finding), finding.path, finding.detail)
        for finding in shown
    ]
    more = len(report.findings) - len(shown)
    counts = report.counts
    read = counted(counts.hashed_blobs, "blob")
    lines = [
        table(("SEVERITY", "CODE", "BREAKS", "PATH", "DETAIL"), rows) if rows else "",
        f"and {more} more" if more else "",
        f"{counted(counts.tags, 'tag')} in {counted(counts.repositories, 'repository', 'repositories')}, "
        f"{counted(counts.blobs, 'blob')} of {size(counts.bytes)} "
        f"({size(counts.unreachable_bytes)} that no tag leads to); "
        f"read {read} of {size(counts.hashed_bytes)}, {counts.unchanged_blobs} unchanged",
        _verdict(report),
    ]
    return "\n".join(filter(None, lines))


def _breaks(finding: Finding) -> str:
    named = ", ".join(map(shortened, finding.breaks[:_SHOWN_BREAKS]))
    more = len(finding.breaks) - _SHOWN_BREAKS
    return f"{named} and {more} more" if more > 0 else named or "nothing"


def _verdict(report: Report) -> str:
    numbers = Counter(finding.severity for finding in report.findings)
    said = ", ".join(counted(numbers[severity], severity.value) for severity in Severity if numbers[severity])
    return f"{'healthy' if report.is_healthy else 'DAMAGED'}: {said or 'nothing found'}"
