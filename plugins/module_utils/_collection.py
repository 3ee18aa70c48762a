# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Garbage collection that never frees what people can pull, and stops the registry for a moment only.

    run(Request(root="/opt/registry", data="/opt/registry/data", untagged=7 * 86400), Stack("/opt/registry"), client)

While the registry works: manifests that no tag leads to are deleted through the graph; then the graph and the
registry's own dry run must agree on what is unused. Then the registry is stopped; what was pushed meanwhile is kept;
what is unused is moved into a net by renames, and the registry started. The storage is checked again, and only then
the net dropped. Whatever happens on the way, recover() puts back what lies in the net.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from ._client import RegistryClient
from ._collection_guard import agree
from ._deletion import Outcome, check, execute
from ._deletion_report import foreseen
from ._errors import RegistryError
from ._files import read_file
from ._graph import Graph, read_graph
from ._images import Images
from ._journal import Journal
from ._plan import Plan
from ._policy import Duration, Policy, Protect, Untagged, parse_policies
from ._progress import Progress, silent
from ._redis import configured, forget
from ._retention import decide
from ._service import Service, ServiceError
from ._source import DiskSource
from ._storage import Problem, Storage, Upload
from ._sweep import Kept, Unused, Watch
from ._table import counted, size

OPERATION = "garbage-collection"

# An upload to which nothing was added for so long is not waited for.
_IDLE_SECONDS = 5.0
_POLL_SECONDS = 0.2
_SHOWN = 5

_SWEEPING = "sweeping"
_CHECKED = "checked"


class UploadsUnderWay(RegistryError):
    """Blobs are being pushed, and did not stop to be."""


class Damaged(RegistryError):
    """Something that people need was gone after the sweep. All was put back."""


class Request(NamedTuple):
    """What to do. Times are in seconds."""

    #: The registry's own folder, where the journal lies, and its data.
    root: str
    data: str
    #: Delete manifests without a tag that are older; None leaves them alone.
    untagged: float | None = None
    remove_empty: bool = False
    min_age: float = 3600.0
    #: How long uploads may take to end, and whether to stop the registry in spite of them.
    drain: float = 60.0
    cut_uploads: bool = False
    #: Let the registry's own garbage collection free what it finds, as people do by hand.
    plain: bool = False
    check_mode: bool = False
    #: The registry's configuration, for Redis.
    config: Mapping[str, Any] | None = None
    #: What the caller has put right before.
    healed: tuple[str, ...] = ()


class Window:
    """The time in which the registry was stopped."""

    def __init__(self) -> None:
        self.seconds = 0.0


@contextmanager
def quiet(service: Service) -> Iterator[Window]:
    """While this lasts nobody writes to the storage. A registry that was running is started again, come what may."""
    window = Window()
    if not service.is_running():
        yield window
        return
    begun = time.monotonic()
    try:
        service.stop()
        yield window
    finally:
        try:
            service.start()
        except ServiceError:
            # The engine may have been busy; a registry that is really broken says so again.
            service.start()
        window.seconds = time.monotonic() - begun


def read_config(path: str | Path) -> dict[str, Any]:
    """A registry's configuration; empty where there is no such file."""
    found = read_file(path)
    if found is None:
        return {}
    import yaml  # only needed here, and not on every host

    try:
        config = yaml.safe_load(found[0])
    except yaml.YAMLError as error:
        raise RegistryError(f"read {path}: it is no YAML ({error})") from error
    return config if isinstance(config, dict) else {}


def run(
    request: Request, service: Service, client: RegistryClient | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """Free what is unused; with `check_mode` only say what would be. Returns the report, with `changed` and `table`.

    `client` deletes untagged manifests. Raises GuardTripped, UploadsUnderWay, Damaged, and RegistryErrors of
    a registry or a store that cannot be used.
    """
    try:
        healed = [*request.healed, *([] if request.check_mode else recover(request.root, service))]
        return _Collection(request, service, client, progress, healed).run()
    except OSError as error:
        raise RegistryError(f"garbage collection: {error}; nothing is lost, run it again") from error


def recover(root: str | Path, service: Service) -> list[str]:
    """Finish or take back a run that was killed: all that lies in the net goes back, and the registry runs.

    Returns what was done, for people; nothing where no run was killed. May be killed and called again.
    """
    journal = Journal(root, OPERATION)
    state = journal.read()
    if state is None:
        return []
    storage = Storage(state["data"])
    healed = []
    if storage.has_taken():
        if state["state"] == _CHECKED:
            storage.drop_taken()
            healed.append("garbage collection: what it had freed and checked was deleted")
        else:
            storage.put_all_back()
            healed.append("garbage collection: it broke off, and what it had taken was put back")
    if state["running"] and not service.is_running():
        service.start()
        healed.append("garbage collection: the registry, which it had stopped, was started")
    journal.remove()
    return healed


class _Collection:
    """One run."""

    def __init__(
        self,
        request: Request,
        service: Service,
        client: RegistryClient | None,
        progress: Progress,
        healed: list[str],
    ) -> None:
        self._request = request
        self._service = service
        self._client = client
        self._progress = progress
        self._storage = Storage(request.data)
        self._journal = Journal(request.root, OPERATION)
        self._kept = Kept()
        self._notes: list[str] = []
        self._report: dict[str, Any] = {
            "method": "plain" if request.plain else "guarded",
            "blobs": 0,
            "bytes": 0,
            "manifests": 0,
            "layer_links": 0,
            "repositories": [],
            "seconds_stopped": 0.0,
            "dry_run_stopped_by": "",
            "uploads_cut": [],
            "redis_keys": 0,
            "healed": healed,
        }

    def run(self) -> dict[str, Any]:
        doomed = self._delete_untagged() if self._request.untagged is not None else None
        self._progress("compare with the registry's own dry run")
        graph, dry_run = agree(self._storage, self._service, strict=self._request.plain)
        self._report["dry_run_stopped_by"] = dry_run.stopped_by
        if graph.blind:
            self._notes.append("a part of the storage cannot be looked at, so nothing counts as unused")
        if self._request.plain:
            self._run_plain(graph, dry_run.frees)
        else:
            self._run_guarded(graph, dry_run.frees, doomed)
        return self._finished()

    def _run_guarded(self, graph: Graph, frees: frozenset[Any] | None, doomed: Plan | None) -> None:
        unused = Unused(graph, frees, remove_empty=self._request.remove_empty, kept=self._kept)
        watch = Watch(self._storage, graph, self._request.min_age)
        watch.keep_needed(unused, self._kept)
        if self._request.check_mode:
            if doomed is not None:
                unused.blobs.update(doomed.blobs)
            self._count(unused)
        elif unused:
            self._wait_for_uploads()
            self._sweep(graph, unused, watch)
            self._count(unused)

    # Manifests without a tag

    def _delete_untagged(self) -> Plan | None:
        """Delete them, or in check mode only say which. Blobs are freed by what follows."""
        self._progress("delete manifests without a tag")
        disk = DiskSource(self._storage)
        graph = read_graph(disk)
        policies = (_policy(self._request.untagged or 0.0),)
        decisions = decide(graph, policies, Protect(), time.time(), Images(graph, disk))
        plan = decisions.plan
        if not plan.changes:
            return None
        if self._client is None:
            raise RegistryError("garbage collection: untagged needs the address of the registry (url)")
        outcome: Outcome
        if self._request.check_mode:
            check(plan, self._client, self._storage)
            outcome = foreseen(plan)
        else:
            outcome = execute(plan, self._client, storage=self._storage)
        self._report["manifests"] = len(outcome.manifests)
        return plan

    # Uploads

    def _wait_for_uploads(self) -> None:
        deadline = time.monotonic() + self._request.drain
        while True:
            uploads = [
                f"{name}/_uploads/{upload.uuid} ({size(upload.size)})" for name, upload in self._uploads()
            ]
            if not uploads:
                return
            if time.monotonic() >= deadline:
                break
            self._progress(f"wait for {counted(len(uploads), 'upload')}")
            time.sleep(_POLL_SECONDS)
        if not self._request.cut_uploads:
            more = f" and {len(uploads) - _SHOWN} more" if len(uploads) > _SHOWN else ""
            raise UploadsUnderWay(
                f"garbage collection: nothing was stopped and nothing freed, since {counted(len(uploads), 'upload')} "
                f"did not end within {self._request.drain:g} s: {', '.join(uploads[:_SHOWN])}{more}. Run it when "
                "less is pushed, raise drain, or break them off with cut_uploads"
            )
        self._report["uploads_cut"] = uploads

    def _uploads(self) -> Iterator[tuple[str, Upload]]:
        """Those that somebody is working on."""
        latest = time.time() - _IDLE_SECONDS
        for found in self._storage.repositories():
            if isinstance(found, Problem) or not found.uploads:
                continue
            for upload in self._storage.uploads(found.name):
                if isinstance(upload, Upload) and upload.changed > latest:
                    yield found.name, upload

    # The sweep

    def _sweep(self, before: Graph, unused: Unused, watch: Watch) -> None:
        state = {
            "state": _SWEEPING,
            "running": self._service.is_running(),
            "data": str(self._storage.root),
            "started": time.time(),
        }
        self._journal.write(state)
        try:
            self._progress("stop the registry and take what is unused")
            with quiet(self._service) as window:
                watch.keep_needed(unused, self._kept)
                unused.take(self._storage)
                self._forget_in_redis()
            self._report["seconds_stopped"] = round(window.seconds, 3)
            self._progress("check what is left")
            self._check(before, unused)
        except BaseException:
            recover(self._request.root, self._service)
            raise
        with suppress(OSError, RegistryError):  # then the next run would put back what nobody needs
            self._journal.write({**state, "state": _CHECKED})
        self._storage.drop_taken()
        self._journal.remove()

    def _check(self, before: Graph, unused: Unused) -> None:
        damage = unused.damage(before, read_graph(DiskSource(self._storage)))
        if damage:
            shown = "\n".join(f"  {each.path}: {each.detail}" for each in damage[:_SHOWN])
            raise Damaged(
                f"garbage collection: nothing was freed. After the sweep {counted(len(damage), 'thing')} that "
                f"people need were gone, and all was put back:\n{shown}\nRun the check (check.yml)"
            )

    def _forget_in_redis(self) -> None:
        redis = configured(self._request.config or {})
        if redis is not None:
            try:
                self._report["redis_keys"] = forget(redis)
            except RegistryError as error:
                self._notes.append(
                    f"the registry's cache could not be emptied, so it may serve empty blobs: {error}; delete the "
                    "keys blobs::* and repository::* there"
                )

    # The plain way

    def _run_plain(self, graph: Graph, frees: frozenset[Any] | None) -> None:
        if frees is None:
            raise RegistryError(
                "garbage collection: nothing was stopped and nothing freed, since the registry's own cannot work "
                f"on this storage: {self._report['dry_run_stopped_by']}. Use method guarded, which can"
            )
        doomed = {digest: size_ for digest in sorted(frees) if (size_ := graph.blob_size(digest)) is not None}
        if not doomed or self._request.check_mode:
            self._report.update(blobs=len(doomed), bytes=sum(doomed.values()))
            return
        self._wait_for_uploads()
        self._journal.write(
            {"state": _SWEEPING, "running": self._service.is_running(), "data": str(self._storage.root)}
        )
        try:
            with quiet(self._service) as window:
                ran = self._service.garbage_collect(dry_run=False)
                self._forget_in_redis()
        except BaseException:
            recover(self._request.root, self._service)
            raise
        self._journal.remove()
        self._report["seconds_stopped"] = round(window.seconds, 3)
        gone = [digest for digest in doomed if self._storage.blob_size(digest) is None]
        self._report.update(blobs=len(gone), bytes=sum(doomed[digest] for digest in gone))
        if ran.code != 0:
            raise RegistryError(
                f"garbage collection: the registry's own ended with {ran.code} and freed {len(gone)} of "
                f"{len(doomed)} blobs; the registry was started again. It said: {ran.output.strip()[-500:]}"
            )

    # What it says

    def _count(self, unused: Unused) -> None:
        self._report.update(
            blobs=len(unused.blobs),
            bytes=unused.bytes,
            layer_links=len(unused.links),
            repositories=sorted(unused.repositories),
        )

    def _finished(self) -> dict[str, Any]:
        told = self._report
        told["kept"] = self._kept.as_list()
        told["notes"] = self._notes
        told["changed"] = bool(
            told["blobs"]
            or told["manifests"]
            or told["layer_links"]
            or told["repositories"]
            or told["healed"]
        )
        told["table"] = render(told, check_mode=self._request.check_mode)
        return told


def _policy(age: float) -> Policy:
    policy = parse_policies(
        [{"name": "garbage collection", "repositories": ["**"], "untagged": {"keep_within": "1h"}}]
    )[0]
    return policy._replace(untagged=Untagged(Duration(f"{age:g} s", age)))


def render(told: Mapping[str, Any], *, check_mode: bool) -> str:
    """The report for people."""
    links = counted(told["layer_links"], "link") + " to blobs that their repository does not need"
    lines = [
        f"{'would free' if check_mode else 'freed'}  {size(told['bytes'])} in {counted(told['blobs'], 'blob')}",
        f"manifests  {told['manifests']} without a tag",
        f"links  {links}" if told["layer_links"] else "",
        f"repositories  {', '.join(told['repositories'])}" if told["repositories"] else "",
        f"stopped  {told['seconds_stopped']:.1f} s" if not check_mode else "",
    ]
    lines += [
        f"kept  {size(kept['bytes'])} in {counted(kept['blobs'], 'blob')}: {kept['reason']}"
        for kept in told["kept"]
    ]
    if told["dry_run_stopped_by"]:
        lines.append(f"note  the registry's own dry run stopped: {told['dry_run_stopped_by']}")
    lines += [f"cut  {upload}" for upload in told["uploads_cut"]]
    lines += [f"note  {note}" for note in (*told["healed"], *told["notes"])]
    return "\n".join(_aligned(line) for line in lines if line)


def _aligned(line: str) -> str:
    key, _blanks, value = line.partition("  ")
    return f"{key:<13}{value}"
