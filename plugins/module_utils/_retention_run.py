# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of retention, from policies as people write them to a registry without what they do not keep.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from ._client import RegistryClient
from ._deletion import DeletionFailed, Outcome, check, execute
from ._deletion_report import foreseen
from ._errors import RegistryError
from ._graph import Graph, read_graph
from ._images import Images
from ._plan import name_of
from ._policy import InvalidPolicies, Policy, parse_policies, parse_protect, read_files
from ._retention import Decisions, decide, needs_disk, refusal
from ._retention_report import Report, difference, render, report
from ._source import DiskSource, HttpSource
from ._storage import Storage

# On the screen of whoever reads the error, the lists of all tags would only hide it.
_LISTS = ("tags", "untagged", "kept_manifests")


class RetentionFailed(RegistryError):
    """All was decided, and then too much would have gone, or the registry failed. `report` tells of it."""

    def __init__(self, message: str, told: Report) -> None:
        super().__init__(message)
        self.report = {key: value for key, value in told.items() if key not in _LISTS}


class TooMuch(RegistryError):
    """More would go than one run may delete."""


class Request(NamedTuple):
    """What to do: `policies` and `protect` as people write them, and how much may go at once."""

    client: RegistryClient
    #: The registry's storage where it lies on this host.
    data: str | None
    policies: Any
    protect: Any
    max_percent: int
    max_count: int | None
    check_mode: bool


def run(request: Request) -> Report:
    """Decide, and outside check mode delete. Returns the report, with `changed`, `table` and `diff`.

    Raises InvalidPolicies, RetentionFailed, and RegistryErrors of a registry or a store that cannot be read.
    """
    policies = parse_policies(request.policies)
    protect = read_files(parse_protect(request.protect), policies)
    _check_limits(request)
    storage = Storage(request.data) if request.data else None
    graph, images = _look(request.client, storage, policies)
    decisions = decide(graph, policies, protect, time.time(), images)
    told = report(graph, decisions)
    try:
        outcome = _carry_out(request, decisions, storage)
    except RegistryError as error:
        changed = isinstance(error, DeletionFailed) and error.outcome.changed
        raise RetentionFailed(str(error), {**told, "changed": changed, "table": render(told)}) from error
    told["changed"] = outcome.changed
    told["spared"] = [f"{name_of(target)}: {reason}" for target, reason in outcome.spared]
    return {**told, "table": render(told), "diff": difference(decisions)}


def _check_limits(request: Request) -> None:
    problems = []
    if not 0 <= request.max_percent <= 100:
        problems.append(f"max_delete_percent: {request.max_percent} is no share; it goes from 0 to 100")
    if request.max_count is not None and request.max_count < 0:
        problems.append(f"max_delete_count: {request.max_count} is less than nothing")
    if problems:
        raise InvalidPolicies(problems)


def _look(
    client: RegistryClient, storage: Storage | None, policies: tuple[Policy, ...]
) -> tuple[Graph, Images]:
    """What the policies are about; from the disk, everything."""
    if storage is not None:
        disk = DiskSource(storage)
        graph = read_graph(disk)
        return graph, Images(graph, disk)
    problems = needs_disk(policies)
    if problems:
        raise InvalidPolicies(problems)
    names = [
        name for name in client.repositories() if any(each.repositories.selects(name) for each in policies)
    ]
    http = HttpSource(client, names)
    graph = read_graph(http)
    return graph, Images(graph, http, client.map)


def _carry_out(request: Request, decisions: Decisions, storage: Storage | None) -> Outcome:
    found = decisions.plan
    reason = refusal(decisions, max_percent=request.max_percent, max_count=request.max_count)
    if reason:
        raise TooMuch(reason)
    if not request.check_mode:
        return execute(found, request.client, storage=storage)
    if found.changes:
        check(found, request.client, storage)
    return foreseen(found)
