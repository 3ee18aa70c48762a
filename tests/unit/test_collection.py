# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Garbage collection on real registries: what it frees and keeps, and what is left when it is broken off."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils import _collection, _redis
from ansible_collections.dockyard.registry.plugins.module_utils._client import RegistryClient
from ansible_collections.dockyard.registry.plugins.module_utils._collection import (
    Request,
    UploadsUnderWay,
    recover,
)
from ansible_collections.dockyard.registry.plugins.module_utils._collection_guard import (
    GuardTripped,
    read_dry_run,
)
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._graph import Orphans, read_graph
from ansible_collections.dockyard.registry.plugins.module_utils._journal import pending
from ansible_collections.dockyard.registry.plugins.module_utils._recovery import recover_all
from ansible_collections.dockyard.registry.plugins.module_utils._reference import Digest
from ansible_collections.dockyard.registry.plugins.module_utils._service import Ran, ServiceError
from ansible_collections.dockyard.registry.plugins.module_utils._source import DiskSource
from ansible_collections.dockyard.registry.plugins.module_utils._storage import Storage

from tests.support.processes import run_killed_at
from tests.support.registry import RegistryProcess, free_port
from tests.support.service import ProcessService, as_service
from tests.support.store import (
    OCI_MANIFEST,
    Store,
    digest_of,
    push,
    random_store,
    sample_store,
    verify,
)

HOUR = 3600.0
#: The net that garbage collection moves things into.
NET = "docker/registry/v2/.dockyard-gc"


@pytest.fixture
def service(registry: RegistryProcess) -> Iterator[ProcessService]:
    """A registry that garbage collection may stop and start."""
    with as_service(registry) as service:
        yield service


def age(folder: Path, seconds: float = 2 * HOUR) -> None:
    """Make everything below a folder older."""
    then = time.time() - seconds
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.utime(Path(parent, name), (then, then))


def collect(service: ProcessService, **options: Any) -> dict[str, Any]:
    """Run garbage collection."""
    request = Request(str(service.directory), str(service.data), **options)
    with RegistryClient(service.url) as client:
        return _collection.run(request, service, client)


def orphans(service: ProcessService) -> Orphans:
    return read_graph(DiskSource(Storage(service.data))).orphans()


def needed(store: Store) -> set[str]:
    """The blobs, by the digests of their files, that manifests of repositories need."""
    found = set()
    for repository in store.repositories.values():
        for revision in repository.revisions:
            found |= {digest_of(store.content(digest)) for digest in (revision, *store.references(revision))}
    return found


def blobs_of(service: ProcessService) -> set[str]:
    """The blobs on disk."""
    root = service.data / "docker/registry/v2/blobs"
    return {f"sha256:{path.parent.name}" for path in root.glob("sha256/*/*/data")}


def filled(service: ProcessService, store: Store, begin: int = 0) -> Store:
    """Push a store, and let time go by."""
    push(service.url, store, begin=begin)
    age(service.data)
    return store


def with_garbage() -> tuple[Store, set[str]]:
    """Contents, and the blobs among them that nothing needs."""
    store = Store()
    store.image("app", [b"base", b"one"], tag="1")
    doomed = store.image("app", [b"base", b"two"], tag="2", config=b'{"two": 2}')
    store.image("other", [b"base", b"three"], tag="1")
    store.delete("app", doomed["digest"])
    return store, {digest_of(b"two"), digest_of(b'{"two": 2}'), doomed["digest"]}


# What goes and what stays


def test_it_frees_what_nothing_needs_and_nothing_else(service: ProcessService) -> None:
    store = filled(service, sample_store(random.Random(1)))
    before = blobs_of(service)
    links = len(orphans(service).links)
    foreseen = collect(service, check_mode=True)
    assert blobs_of(service) == before
    assert service.is_running()

    done = collect(service)
    assert blobs_of(service) == needed(store)
    assert done["blobs"] == len(before - needed(store)) > 5
    assert done["layer_links"] == links > 0
    assert orphans(service).links == ()
    assert [done[key] == foreseen[key] for key in ("blobs", "bytes", "layer_links", "changed")] == [True] * 4
    assert done["seconds_stopped"] > 0
    assert done["changed"] is True
    assert "freed" in done["table"]
    verify(service.url, store)
    assert not (service.data / NET).exists()
    assert pending(service.directory) == []

    again = collect(service)
    assert (again["changed"], again["blobs"], again["seconds_stopped"]) == (False, 0, 0.0)


@pytest.mark.parametrize("seed", range(4))
def test_random_stores_survive(service: ProcessService, seed: int) -> None:
    store = filled(service, random_store(random.Random(seed), 60))
    collect(service, remove_empty=True)
    verify(service.url, store)
    # Children that were deleted under an index may stay, and so may all of a repository with damage.
    assert needed(store) <= blobs_of(service)


def test_what_is_young_stays(service: ProcessService) -> None:
    store, garbage = with_garbage()
    push(service.url, store)
    done = collect(service)
    assert done["blobs"] == 0
    assert sum(kept["blobs"] for kept in done["kept"]) == len(garbage)
    assert all("younger" in kept["reason"] for kept in done["kept"])
    assert done["layer_links"] == 0
    assert garbage <= blobs_of(service)
    age(service.data)
    assert collect(service)["blobs"] == len(garbage)


def test_a_young_link_keeps_an_old_blob(service: ProcessService) -> None:
    """A push that mounts a blob, or finds it there, has written a link and no blob."""
    store, garbage = with_garbage()
    filled(service, store)
    store.blob("app", b"two")
    push(service.url, store, begin=len(store.steps) - 1)
    done = collect(service)
    assert done["blobs"] == len(garbage) - 1
    assert digest_of(b"two") in blobs_of(service)
    store.image("app", [b"two"], tag="again")
    push(service.url, store, begin=len(store.steps) - 1)
    verify(service.url, store)


def test_untagged_manifests_go_by_age(service: ProcessService) -> None:
    store = filled(service, sample_store(random.Random(2)))
    assert collect(service, untagged=24 * HOUR)["manifests"] == 0
    foreseen = collect(service, untagged=HOUR, check_mode=True)
    verify(service.url, store)
    done = collect(service, untagged=HOUR)
    moved = store.repositories["app"]
    assert done["manifests"] == foreseen["manifests"] == 3
    assert done["blobs"] == foreseen["blobs"]
    for digest in moved.tags["moving"][:-1]:
        moved.revisions.remove(digest)
        moved.deleted.add(digest)
    lone = store.repositories["untagged-only"]
    lone.deleted |= lone.revisions
    lone.revisions.clear()
    verify(service.url, store)
    assert blobs_of(service) == needed(store)


def test_emptied_repositories_go_if_asked(service: ProcessService) -> None:
    store = filled(service, sample_store(random.Random(3)))
    folder = service.data / "docker/registry/v2/repositories"
    assert collect(service)["repositories"] == []
    assert (folder / "emptied/_manifests").is_dir()
    done = collect(service, remove_empty=True)
    assert done["repositories"] == ["emptied", "half-pushed", "mounted", "no-manifest", "team/emptied"]
    assert not (folder / "emptied").exists()
    assert (folder / "team/_manifests").is_dir()
    for name in done["repositories"]:
        del store.repositories[name]
    verify(service.url, store)


def test_an_empty_registry(service: ProcessService) -> None:
    done = collect(service)
    assert done["changed"] is False
    assert "Path not found" in done["dry_run_stopped_by"]


def zero_byte_link(service: ProcessService) -> None:
    root = service.data / "docker/registry/v2/repositories/broken/_manifests/revisions"
    link = next(root.glob("sha256/*/link"))
    link.write_bytes(b"")
    os.utime(link, (1, 1))


def without_layers(service: ProcessService) -> None:
    shutil.rmtree(service.data / "docker/registry/v2/repositories/emptied/_layers")


def without_tags(service: ProcessService) -> None:
    shutil.rmtree(service.data / "docker/registry/v2/repositories/broken/_manifests/tags")


def stray_folder(service: ProcessService) -> None:
    (service.data / "docker/registry/v2/blobs/sha256/zz/nothing").mkdir(parents=True)


@pytest.mark.parametrize("damage", [zero_byte_link, without_layers, without_tags, stray_folder])
def test_what_stops_the_registrys_own_does_not_stop_ours(
    service: ProcessService, damage: Callable[[ProcessService], None]
) -> None:
    store, garbage = with_garbage()
    store.image("broken", [b"base", b"four"], tag="1")
    gone = store.image("emptied", [b"five"], tag="1")
    store.delete("emptied", gone["digest"])
    filled(service, store)
    damage(service)
    collect(service)
    assert not garbage & blobs_of(service)
    # Damage keeps what its repository may need.
    assert {digest_of(b"four"), digest_of(b"base")} <= blobs_of(service)
    if damage is zero_byte_link:
        del store.repositories["broken"]
    elif damage is without_tags:
        store.repositories["broken"].tags.clear()
    verify(service.url, store)


def test_content_pushed_by_its_sha512_stays(service: ProcessService) -> None:
    store, garbage = with_garbage()
    config = store.blob("sha512", b"{}")
    layer = store.blob("sha512", b"long digest", algorithm="sha512")
    store.manifest(
        "sha512",
        {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]},
        tag="1",
    )
    filled(service, store)
    done = collect(service)
    assert done["blobs"] == len(garbage)
    assert any("SHA-512" in kept["reason"] for kept in done["kept"])
    verify(service.url, store)
    with pytest.raises(GuardTripped):
        collect(service, plain=True)


# The guard


class WithStrace(ProcessService):
    """Its own garbage collection fails to find one link, as on a file system with a hiccup."""

    lost = ""

    def garbage_collect(self, *, dry_run: bool) -> Ran:
        flags = ["--dry-run"] if dry_run else []
        command = [self.binary, "garbage-collect", *flags, str(self.directory / "config.yml")]
        lose = ("strace", "-f", "-qq", "-o", "/dev/null", "-P", self.lost)
        done = subprocess.run(
            [*lose, "-e", "inject=openat,newfstatat:error=ENOENT", *command],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
        )
        return Ran(done.returncode, done.stdout + done.stderr)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("plain", [False, True])
def test_a_dry_run_that_misreads_the_storage_frees_nothing(service: ProcessService, plain: bool) -> None:
    store, garbage = with_garbage()
    for number in range(6):
        store.image("app", [b"base", b"more %d" % number], tag=f"more-{number}")
    filled(service, store)
    before = blobs_of(service)
    blind = WithStrace(service.directory, service.binary)
    root = service.data / "docker/registry/v2/repositories/app/_manifests/revisions/sha256"
    blind.lost = str(sorted(root.glob("*/link"))[0])
    # Proof that the trap is one: images with tags would be destroyed.
    frees = read_dry_run(blind.garbage_collect(dry_run=True)).frees
    assert frees is not None
    assert frees & needed(store)

    with pytest.raises(GuardTripped, match="nothing was freed") as caught:
        collect(blind, plain=plain)
    named = {item.digest for item in caught.value.endangered}
    assert named == {Digest(digest) for digest in frees & needed(store)}
    assert {tag for item in caught.value.endangered for tag in item.tags} <= set(
        store.repositories["app"].tags
    )
    assert blobs_of(service) == before
    assert garbage < before
    verify(service.url, store)


def test_dry_runs_are_understood() -> None:
    freed = "sha256:" + "a" * 64
    counted = "3 blobs marked, 1 blobs and 0 manifests eligible for deletion"
    good = f"app\n\n{counted}\nblob eligible for deletion: {freed}\n"
    assert read_dry_run(Ran(0, good)).frees == {freed}
    assert read_dry_run(Ran(0, good.replace("1 blobs and", "2 blobs and"))).frees is None
    assert read_dry_run(Ran(0, "")).frees is None
    stopped = read_dry_run(
        Ran(1, "app\nfailed to garbage collect: failed to mark: invalid checksum digest format")
    )
    assert stopped == (None, "failed to garbage collect: failed to mark: invalid checksum digest format")
    with pytest.raises(ServiceError, match="no such image"):
        read_dry_run(Ran(125, "docker: no such image"))


# Uploads


@contextmanager
def upload_going_on(service: ProcessService) -> Iterator[None]:
    """Somebody pushes a large blob, and goes on."""
    folder = service.data / "docker/registry/v2/repositories/busy/_uploads/0b6b0b3c"
    folder.mkdir(parents=True)
    (folder / "startedat").write_text("2026-01-01T00:00:00Z", encoding="ascii")
    ended = threading.Event()

    def write() -> None:
        while not ended.wait(0.05):
            try:
                with (folder / "data").open("ab") as data:
                    data.write(b"more")
            except FileNotFoundError:  # it was finished
                return

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_uploads_are_named_and_not_cut(service: ProcessService) -> None:
    store, garbage = with_garbage()
    filled(service, store)
    with upload_going_on(service):
        time.sleep(0.2)
        pid = (service.directory / "registry.pid").read_text()
        with pytest.raises(UploadsUnderWay, match="busy/_uploads/0b6b0b3c"):
            collect(service, drain=0.3)
        assert (service.directory / "registry.pid").read_text() == pid, "it was not stopped"
        assert garbage <= blobs_of(service)
        done = collect(service, drain=0.0, cut_uploads=True)
    assert done["blobs"] == len(garbage)
    assert "busy/_uploads/0b6b0b3c" in done["uploads_cut"][0]
    verify(service.url, store)


def test_it_waits_for_uploads_to_end(service: ProcessService) -> None:
    store, garbage = with_garbage()
    filled(service, store)
    folder = service.data / "docker/registry/v2/repositories/busy"
    with upload_going_on(service):
        threading.Timer(0.8, lambda: shutil.rmtree(folder, ignore_errors=True)).start()
        done = collect(service, drain=30.0)
    assert done["blobs"] == len(garbage)
    assert done["uploads_cut"] == []


def test_pushes_go_on(service: ProcessService) -> None:
    """Whatever a push was told to be there can be pulled afterwards."""
    store, _garbage = with_garbage()
    filled(service, store)
    acknowledged: list[Store] = []
    ended = threading.Event()

    def keep_pushing(writer: int) -> None:
        for number in range(10_000):
            if ended.is_set():
                return
            mine = Store()
            # It brings back to life what garbage collection is after, and shares a layer with everybody.
            layers = [b"base", b"two", b"own %d %d" % (writer, number)]
            mine.image(f"pushed-{writer}/{number}", layers, tag="v1", config=b'{"two": 2}')
            try:
                push(service.url, mine)
            except Exception:  # the registry was stopped: not acknowledged
                continue
            acknowledged.append(mine)

    threads = [threading.Thread(target=keep_pushing, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for goal in (10, 20, 30):
            deadline = time.monotonic() + 60
            while len(acknowledged) < goal and time.monotonic() < deadline:
                time.sleep(0.01)
            # Without a least age: only what is seen in the window saves a push.
            collect(service, min_age=0.0, drain=0.0, cut_uploads=True)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert len(acknowledged) >= 30
    verify(service.url, store)
    for each in acknowledged:
        verify(service.url, each)


class PushedTo(ProcessService):
    """Somebody pushes at the last moment before it stops."""

    last: Callable[[], None]

    def stop(self) -> None:
        self.last()
        super().stop()


def test_a_manifest_pushed_at_the_last_moment_finds_its_layers(service: ProcessService) -> None:
    """Its client asked for the layers, and they were there: nothing but the manifest's own link is new."""
    store, garbage = with_garbage()
    gone = store.image("emptied", [b"five"], tag="1", config=b"empty")
    store.delete("emptied", gone["digest"])
    six = store.image("other", [b"six"], tag="6")
    store.delete("other", six["digest"])
    filled(service, store)
    app, emptied = store.repositories["app"], store.repositories["emptied"]
    again = next(iter(app.deleted))
    begin = len(store.steps)
    store.tag("app", again, "2")
    store.tag("emptied", gone["digest"], "1")
    pushed_to = PushedTo(service.directory, service.binary)
    pushed_to.last = lambda: push(service.url, store, begin=begin)
    done = collect(pushed_to, min_age=0.0, remove_empty=True)
    assert done["repositories"] == []
    assert emptied.tags
    assert blobs_of(service) == needed(store)
    assert digest_of(b"six") not in blobs_of(service)
    assert garbage <= blobs_of(service)
    verify(service.url, store)


def test_a_layer_pushed_at_the_last_moment_stays(service: ProcessService) -> None:
    store, _garbage = with_garbage()
    filled(service, store)
    pushed_to = PushedTo(service.directory, service.binary)

    def last() -> None:
        begin = len(store.steps)
        layer = store.blob("app", b"two")
        store.mount("elsewhere", layer, "app")
        store.blob("elsewhere", b"{}")
        push(service.url, store, begin=begin)

    pushed_to.last = last
    collect(pushed_to, min_age=0.0)
    assert digest_of(b"two") in blobs_of(service)
    store.image("elsewhere", [b"two"], tag="1")
    push(service.url, store, begin=len(store.steps) - 1)  # only the manifest; the layer was mounted
    verify(service.url, store)


# Broken off


class Failing(ProcessService):
    """Its start fails so many times; None lets all fail."""

    failures: int | None = 0

    def start(self) -> None:
        if self.failures is None or self.failures > 0:
            self.failures = None if self.failures is None else self.failures - 1
            raise ServiceError("start: the engine has no room")
        super().start()


def test_a_start_that_fails_once(service: ProcessService) -> None:
    store, garbage = with_garbage()
    filled(service, store)
    failing = Failing(service.directory, service.binary)
    failing.failures = 1
    assert collect(failing)["blobs"] == len(garbage)
    verify(service.url, store)


def test_a_registry_that_does_not_come_back(service: ProcessService) -> None:
    store, garbage = with_garbage()
    filled(service, store)
    before = blobs_of(service)
    failing = Failing(service.directory, service.binary)
    failing.failures = None
    with pytest.raises(ServiceError, match="no room"):
        collect(failing)
    assert blobs_of(service) == before, "all is back in its place"
    assert pending(service.directory) == ["garbage-collection"]
    failing.failures = 0
    assert "was started" in recover_all(service.directory, failing)[0]
    verify(service.url, store)
    assert collect(service)["blobs"] == len(garbage)


RUN = """
from pathlib import Path
from ansible_collections.dockyard.registry.plugins.module_utils import _collection
from tests.support.service import ProcessService
service = ProcessService(Path({directory!r}), {binary!r})
request = _collection.Request({directory!r}, {data!r}, remove_empty=True, plain={plain!r})
print(_collection.run(request, service))
"""


def code_of(service: ProcessService, *, plain: bool = False) -> str:
    return RUN.format(
        directory=str(service.directory), data=str(service.data), binary=service.binary, plain=plain
    )


# The journal is written by a rename, too: its first and its second one, and those into the net between them.
@pytest.mark.parametrize(
    "count", [5, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 2, 3, 8, 11, 12))]
)
def test_killed_at_any_rename(service: ProcessService, count: int) -> None:
    store, garbage = with_garbage()
    gone = store.image("emptied", [b"five"], tag="1")
    store.delete("emptied", gone["digest"])
    filled(service, store)
    run_killed_at("os.rename", code_of(service), count=count)
    recover_all(service.directory, service)
    assert service.is_running()
    assert not (service.data / NET).exists()
    assert pending(service.directory) == []
    assert recover_all(service.directory, service) == []
    verify(service.url, store)
    collect(service)
    assert not garbage & blobs_of(service)
    verify(service.url, store)


@pytest.mark.parametrize("event", ["shutil.rmtree", "os.remove"])
def test_killed_while_it_cleans_up(service: ProcessService, event: str) -> None:
    store, garbage = with_garbage()
    filled(service, store)
    run_killed_at(event, code_of(service))
    recover_all(service.directory, service)
    assert service.is_running()
    assert not (service.data / NET).exists()
    verify(service.url, store)
    collect(service)
    assert not garbage & blobs_of(service)


def test_killed_while_the_registry_is_stopped_the_plain_way(service: ProcessService) -> None:
    store, _garbage = with_garbage()
    filled(service, store)
    # The second program that it starts is the registry's own garbage collection, after the dry run.
    run_killed_at("subprocess.Popen", code_of(service, plain=True), count=2)
    assert not service.is_running()
    recover_all(service.directory, service)
    assert service.is_running()
    verify(service.url, store)


def test_a_killed_recovery(service: ProcessService) -> None:
    store, garbage = with_garbage()
    filled(service, store)
    run_killed_at("os.rename", code_of(service), count=6)
    assert (service.data / NET).exists()
    code = code_of(service).replace(
        "_collection.run(request, service)", "_collection.recover(request.root, service)"
    )
    run_killed_at("os.rename", code)
    recover(service.directory, service)
    assert service.is_running()
    verify(service.url, store)
    assert garbage <= blobs_of(service)


@pytest.fixture
def full_disk(service: ProcessService) -> Iterator[Path]:
    """A file system without room where the journal goes."""
    folder = service.directory / "maintenance"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=100", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a file system can only be mounted by root")
    (folder / "filler").write_bytes(b"x" * 4096)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(service: ProcessService, full_disk: Path) -> None:
    """Where the journal cannot be written, nothing begins."""
    store, garbage = with_garbage()
    filled(service, store)
    pid = (service.directory / "registry.pid").read_text()
    for plain in (False, True):
        with pytest.raises(RegistryError, match="No space left"):
            collect(service, plain=plain)
        assert (service.directory / "registry.pid").read_text() == pid, "it was not stopped"
        assert garbage <= blobs_of(service)
    (full_disk / "filler").unlink()
    assert collect(service)["blobs"] == len(garbage)


def test_damage_is_put_back(service: ProcessService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a needed blob ever be taken, it comes back. The mistake is made on purpose."""
    store, _garbage = with_garbage()
    filled(service, store)
    before = blobs_of(service)
    precious = Digest(digest_of(b"one"))
    take = _collection.Unused.take

    def take_too_much(unused: _collection.Unused, storage: Storage) -> None:
        unused.blobs[precious] = 3
        take(unused, storage)

    monkeypatch.setattr(_collection.Unused, "take", take_too_much)
    with pytest.raises(_collection.Damaged, match=f"{precious}"):
        collect(service)
    assert blobs_of(service) == before
    assert service.is_running()
    verify(service.url, store)


# The plain way


def test_the_plain_way(service: ProcessService) -> None:
    store, garbage = with_garbage()
    filled(service, store)
    foreseen = collect(service, plain=True, check_mode=True)
    assert garbage <= blobs_of(service)
    done = collect(service, plain=True)
    assert (done["blobs"], done["bytes"]) == (foreseen["blobs"], foreseen["bytes"])
    assert done["blobs"] == len(garbage)
    assert not garbage & blobs_of(service)
    assert done["seconds_stopped"] > 0
    verify(service.url, store)


def test_the_plain_way_says_what_stops_it(service: ProcessService) -> None:
    store, _garbage = with_garbage()
    store.image("broken", [b"x"], tag="1")
    filled(service, store)
    zero_byte_link(service)
    with pytest.raises(RegistryError, match="failed to garbage collect"):
        collect(service, plain=True)
    assert service.is_running()


def test_a_registry_that_was_stopped_stays_stopped(service: ProcessService) -> None:
    store, garbage = with_garbage()
    filled(service, store)
    service.stop()
    assert collect(service)["blobs"] == len(garbage)
    assert not service.is_running()
    service.start()
    verify(service.url, store)


# Redis


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[_redis.Redis]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    port = free_port()
    command = [
        program,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--requirepass",
        "secret",
        "--dir",
        str(tmp_path),
    ]
    process = subprocess.Popen([*command, "--save", ""], stdout=subprocess.DEVNULL)
    found = _redis.Redis("127.0.0.1", port, "", "secret", 2)
    deadline = time.monotonic() + 20
    while True:
        try:
            _redis.forget(found)
            break
        except _redis.RedisError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    yield found
    process.terminate()
    process.wait()


def test_the_cache_in_redis_forgets(
    registry_factory: Callable[..., RegistryProcess], redis: _redis.Redis
) -> None:
    address = f"{redis.host}:{redis.port}"
    settings = {"addr": address, "addrs": [address], "password": "secret", "db": 2}
    registry = registry_factory(
        config_overrides={"redis": settings, "storage": {"cache": {"blobdescriptor": "redis"}}}
    )
    config = {"storage": {"cache": {"blobdescriptor": "redis"}}, "redis": settings}
    assert _redis.configured(config) == redis
    with as_service(registry) as service:
        store, garbage = with_garbage()
        filled(service, store)
        done = collect(service, config=config)
        assert done["blobs"] == len(garbage)
        assert done["redis_keys"] > 0
        # What was freed is pushed again: with a stale cache it would be served empty.
        store.image("app", [b"base", b"two"], tag="2", config=b'{"two": 2}')
        push(service.url, store, begin=len(store.steps) - 4)
        verify(service.url, store)
        filled(service, store, begin=len(store.steps))
        lost = {**config, "redis": {**settings, "password": "wrong"}}
        doomed = store.image("app", [b"six"], tag="6")
        store.delete("app", doomed["digest"])
        filled(service, store, begin=len(store.steps) - 4)
        assert any("could not be emptied" in note for note in collect(service, config=lost)["notes"])


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, None),
        ({"storage": {"cache": {"blobdescriptor": "inmemory"}}, "redis": {"addr": "r:1"}}, None),
        ({"storage": {"cache": {"blobdescriptor": "redis"}}}, ("127.0.0.1", 6379, "", "", 0)),
        (
            {"storage": {"cache": {"layerinfo": "redis"}}, "redis": {"addr": "[::1]:7", "db": 3}},
            ("::1", 7, "", "", 3),
        ),
        (
            {
                "storage": {"cache": {"blobdescriptor": "redis"}},
                "redis": {"addrs": ["cache"], "username": "u", "password": "p"},
            },
            ("cache", 6379, "u", "p", 0),
        ),
    ],
)
def test_redis_is_found_in_the_configuration(
    config: dict[str, Any], expected: tuple[Any, ...] | None
) -> None:
    assert _redis.configured(config) == expected
