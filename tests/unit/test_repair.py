# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repairs: what can be had again is there afterwards, nothing sound is touched, and nothing is ever lost."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils import _backup as backup
from ansible_collections.dockyard.registry.plugins.module_utils._check import Options, Which
from ansible_collections.dockyard.registry.plugins.module_utils._check_findings import Severity
from ansible_collections.dockyard.registry.plugins.module_utils._client import RegistryClient
from ansible_collections.dockyard.registry.plugins.module_utils._reference import Digest
from ansible_collections.dockyard.registry.plugins.module_utils._repair import (
    BlobSource,
    Outcome,
    RegistrySource,
    plan,
    recover,
    repair,
)
from ansible_collections.dockyard.registry.plugins.module_utils._repair_backup import BackupSource
from ansible_collections.dockyard.registry.plugins.module_utils._storage import Code, Sink, Storage
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.modules import run_module
from tests.support.processes import run_killed_at
from tests.support.registry import RegistryProcess
from tests.support.service import as_service
from tests.support.store import Store, push, random_store, read_tree, sample_store, verify, write_store

SEEDS = st.integers(0, 2**32)
on_stores = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))


@contextmanager
def on_disk(store: Store) -> Iterator[Path]:
    """The data folder of a registry that holds the store."""
    with tempfile.TemporaryDirectory(prefix="dockyard-") as folder:
        root = Path(folder, "data")
        root.mkdir()
        write_store(root, store)
        yield root


class Model:
    """A source that has everything a store once held."""

    name = "the model"

    def __init__(self, store: Store) -> None:
        self._store = store

    def fetch(self, repository: str, digest: Digest, target: Sink) -> bool:
        assert repository in self._store.repositories
        if digest not in self._store.blobs:
            return False
        target.write(self._store.blobs[digest])
        return True


class Liar:
    """A source that sends something else."""

    name = "a liar"

    def fetch(self, repository: str, digest: Digest, target: Sink) -> bool:  # noqa: ARG002
        target.write(b"something else")
        return True


def mend(root: Path, *sources: BlobSource, **options: Any) -> Outcome:
    age(root)
    return repair(str(root.parent), Storage(root), Options(patience=0.01, **options), sources=sources)


def age(root: Path) -> None:
    """Make everything so old that nobody can be about to write it."""
    then = time.time() - 3600
    for folder, _folders, names in os.walk(root):
        for name in (".", *names):
            os.utime(Path(folder, name), (then, then))


def blob_at(root: Path, digest: str) -> Path:
    value = digest.partition(":")[2]
    return root / "docker/registry/v2/blobs/sha256" / value[:2] / value / "data"


def files(root: Path) -> list[Path]:
    found = sorted(path for path in root.rglob("*") if path.is_file())
    return [path for path in found if "/_uploads/" not in str(path) and "/.dockyard" not in str(path)]


def harm(path: Path, rng: random.Random) -> None:
    """One of the things that happen to files."""
    kind = rng.choice(["flip", "empty", "remove", "remove folder", "cut", "other"])
    body = bytearray(path.read_bytes())
    if kind == "remove":
        path.unlink()
    elif kind == "remove folder":
        shutil.rmtree(path.parent)
    elif kind == "empty" or not body:
        path.write_bytes(b"")
    elif kind == "cut":
        path.write_bytes(body[: len(body) // 2])
    elif kind == "other":
        path.write_bytes(b"sha256:" + b"0" * 64)
    else:
        body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
        path.write_bytes(body)


def undo_all(outcome: Outcome) -> None:
    for action in reversed(outcome.actions):
        subprocess.run(["/bin/sh", "-ec", action.undo], check=True)


def repairable(outcome: Outcome, root: Path) -> list[str]:
    """What a second run would still do something about."""
    return [action.action for action in mend(root).actions] if outcome.actions else []


@on_stores
@given(SEEDS, st.integers(1, 6), st.booleans())
def test_random_damage(seed: int, count: int, with_source: bool) -> None:
    rng = random.Random(seed)
    store = random_store(rng, 20)
    with on_disk(store) as root:
        whole = read_tree(root)
        paths = files(root)
        for path in rng.sample(paths, min(count, len(paths))):
            if path.exists():
                harm(path, rng)
        damaged = read_tree(root)
        outcome = mend(root, *([Model(store)] if with_source else []))
        assert repairable(outcome, root) == []
        after = {path: body for path, body in read_tree(root).items() if not path.startswith(OWN)}
        # What was sound is as it was, or lies in the quarantine because all it led to is lost.
        moved = [action.path for action in outcome.actions]
        for name, body in whole.items():
            if damaged.get(name) == body and after.get(name) != body:
                assert any(str(root / name).startswith(str(Path(item).parent)) for item in moved), name
        # Nothing that was there is gone.
        everything = list(read_tree(root).values())
        for name, body in damaged.items():
            assert body is None or body in everything, name


OWN = "docker/registry/v2/.dockyard"


@on_stores
@given(SEEDS, st.integers(1, 8))
@example(0, 8)  # a link to a blob that seems to be lost until the manifest that needs it has come back
def test_blobs_that_can_be_had_again_come_back(seed: int, count: int) -> None:
    """With a source and sound links, the store is byte for byte what it was."""
    rng = random.Random(seed)
    store = random_store(rng, 20)
    with on_disk(store) as root:
        needed = {digest for model in store.repositories.values() for digest in model.revisions}
        needed |= {
            model.layers[blob]
            for model in store.repositories.values()
            for digest in model.revisions
            for blob in store.references(digest)
            if blob in model.layers
        }
        whole = read_tree(root)
        for digest in rng.sample(sorted(needed), min(count, len(needed))):
            if digest in store.blobs:
                harm(blob_at(root, digest), rng)
        outcome = mend(root, Liar(), Model(store))
        assert outcome.lost == ()
        assert outcome.after.is_healthy
        tree = read_tree(root)
        assert {path: body for path, body in tree.items() if not path.startswith(OWN)} == whole


@on_stores
@given(SEEDS, st.integers(1, 6))
@example(268435457, 6)  # a link that is moved away, and written anew when what lists it has come back
def test_everything_can_be_taken_back(seed: int, count: int) -> None:
    rng = random.Random(seed)
    store = random_store(rng, 20)
    with on_disk(store) as root:
        paths = files(root)
        for path in rng.sample(paths, min(count, len(paths))):
            if path.exists():
                harm(path, rng)
        damaged = read_tree(root)
        undo_all(mend(root, Model(store)))
        after = read_tree(root)
        # Empty folders, too: that of a link tells a manifest that was deleted from one that never was there.
        assert {path: body for path, body in after.items() if not path.startswith(OWN)} == damaged


def test_a_push_heals_what_was_moved_away(registry: RegistryProcess, tmp_path: Path) -> None:
    """Fact 7: the registry discards a push of what it believes to have, until that is moved away."""
    store = sample_store(random.Random(1))
    push(registry.url, store)
    layer = next(iter(store.references(store.repositories["app"].current("1.0"))))
    manifest = store.repositories["team"].current("outer")
    for digest in (layer, manifest):
        body = bytearray(store.blobs[digest])
        body[0] ^= 1
        blob_at(registry.data, digest).write_bytes(body)
    with as_service(registry) as service:
        with pytest.raises(AssertionError):
            verify(service.url, store)
        # The push is accepted and changes nothing.
        push_blobs_again(service.url, store)
        with pytest.raises(AssertionError):
            verify(service.url, store)
        outcome = repair(str(tmp_path), Storage(registry.data), Options(), service=service)
        assert outcome.restarted
        assert "app:1.0" in outcome.lost
        assert "team:outer" in outcome.lost
        push_blobs_again(service.url, store)
        verify(service.url, store)
        assert repair(str(tmp_path), Storage(registry.data), Options()).before.is_healthy


def push_blobs_again(url: str, store: Store) -> None:
    """Push all that is there at the end once more, as a client with everything at hand would."""
    again = Store()
    again._contents, again.media_types = store._contents, store.media_types
    for name, model in store.repositories.items():
        for digest in sorted(model.revisions, key=lambda item: "manifests" in str(store.content(item))):
            for blob in store.references(digest):
                if blob in model.layers:
                    again.blob(name, store.content(blob), algorithm=blob.partition(":")[0])
            if store.is_complete(name, digest):
                tags: list[str | None] = [tag for tag in model.tags if model.current(tag) == digest]
                for tag in tags or [None]:
                    again.tag(name, digest, tag)
    push(url, again)


def test_blobs_and_manifests_from_another_registry(
    registry_factory: Callable[..., RegistryProcess], tmp_path: Path
) -> None:
    store = sample_store(random.Random(1))
    mirror, registry = registry_factory(), registry_factory()
    push(mirror.url, store)
    push(registry.url, store)
    app, multi = store.repositories["app"].current("2.0"), store.repositories["multi"].current("1.0")
    lost = [app, store.references(app)[0], store.references(app)[1], store.references(multi)[0], multi]
    for number, digest in enumerate(lost):
        if number % 2:
            shutil.rmtree(blob_at(registry.data, digest).parent)
        else:
            blob_at(registry.data, digest).write_bytes(b"")
    # A link that is lost on top, and one that is torn.
    revision = registry.data / "docker/registry/v2/repositories/app/_manifests/revisions"
    shutil.rmtree(revision / app.replace(":", "/"))
    (registry.data / "docker/registry/v2/repositories/app/_manifests/tags/1.0/current/link").write_bytes(b"")
    with as_service(registry) as service, RegistryClient(mirror.url) as client:
        outcome = repair(
            str(tmp_path),
            Storage(registry.data),
            Options(),
            sources=[RegistrySource(client)],
            service=service,
        )
        assert outcome.lost == ()
        assert outcome.after.is_healthy
        assert {action.path for action in outcome.actions if "fetched" in action.action} >= {
            str(blob_at(registry.data, store.references(app)[0]))
        }
        verify(service.url, store)


def test_a_source_that_is_down_is_named_and_the_next_one_asked(tmp_path: Path) -> None:
    root, store = written(tmp_path, 1)
    digest = store.references(store.repositories["app"].current("1.0"))[0]
    shutil.rmtree(blob_at(root, digest).parent)
    with RegistryClient("http://127.0.0.1:1", retries=0) as client:
        outcome = mend(root, RegistrySource(client), Model(store))
    assert outcome.after.is_healthy
    assert any("127.0.0.1:1" in warning for warning in outcome.warnings)


def test_blobs_and_manifests_from_a_backup(tmp_path: Path) -> None:
    root, store = written(tmp_path, 1)
    backup.run(backup.Request(root=str(root.parent), data=str(root), folder=str(tmp_path / "backups")))
    manifest = store.repositories["app"].current("1.0")
    for digest in (manifest, store.references(manifest)[0]):
        blob_at(root, digest).write_bytes(b"damaged")
    whole = store.blobs[manifest]
    outcome = mend(root, BackupSource(tmp_path / "backups"))
    assert (outcome.lost, outcome.warnings) == ((), ())
    assert outcome.after.is_healthy
    assert blob_at(root, manifest).read_bytes() == whole


def written(tmp_path: Path, seed: int) -> tuple[Path, Store]:
    store = sample_store(random.Random(seed))
    root = tmp_path / "root" / "data"
    root.mkdir(parents=True)
    write_store(root, store)
    age(root)
    return root, store


def test_the_plan_changes_nothing(tmp_path: Path) -> None:
    root, store = written(tmp_path, 1)
    app = store.repositories["app"].current("1.0")
    blob_at(root, app).write_bytes(b"")
    before = read_tree(root)
    report, actions = plan(Storage(root), Options())
    assert [action.code for action in actions] == [Code.MANIFEST_CORRUPT]
    assert "quarantine" in actions[0].action
    assert not report.is_healthy
    assert read_tree(root) == before


def test_a_deleted_child_stays_deleted(tmp_path: Path) -> None:
    root, store = written(tmp_path, 1)
    child = store.references(store.repositories["multi"].current("1.0"))[0]
    link = (
        root / "docker/registry/v2/repositories/multi/_manifests/revisions" / child.replace(":", "/") / "link"
    )
    link.unlink()
    outcome = mend(root, Model(store))
    assert outcome.actions == []
    assert not link.exists()


def test_owners_and_modes(tmp_path: Path) -> None:
    root, _store = written(tmp_path, 1)
    for folder, _folders, names in os.walk(tmp_path / "root"):
        for name in (".", *names):
            os.chown(Path(folder, name), 1234, 1234)
    bad = root / "docker/registry/v2/repositories/app"
    for folder, _folders, names in os.walk(bad):
        for name in (".", *names):
            os.chown(Path(folder, name), 0, 0)
    (bad / "_layers").chmod(0o500)
    outcome = mend(root, uid=1234, gid=1234, content=Which.NONE)
    assert [action.code for action in outcome.actions] == [Code.ACCESS]
    assert outcome.after.is_healthy
    assert (bad / "_layers").stat().st_uid == 1234
    assert (bad / "_layers").stat().st_mode & 0o777 == 0o700
    listed = Path(outcome.actions[0].undo.partition(" lists")[0]).read_text().splitlines()
    assert f"0500 0 0 {bad / '_layers'}" in listed


_REPAIR = """
import sys
from ansible_collections.dockyard.registry.plugins.module_utils._repair import repair
from ansible_collections.dockyard.registry.plugins.module_utils._check import Options
from ansible_collections.dockyard.registry.plugins.module_utils._storage import Storage
repair({root!r}, Storage({data!r}), Options())
"""


@pytest.mark.parametrize("event", ["os.rename", "os.mkdir", "os.link"])
@pytest.mark.parametrize("count", [1, *(pytest.param(count, marks=pytest.mark.slow) for count in (2, 4))])
def test_a_kill_at_any_step_loses_nothing(tmp_path: Path, event: str, count: int) -> None:
    root, store = written(tmp_path, 1)
    whole = [body for body in read_tree(root).values() if body]
    app = store.repositories["app"]
    for tag in ("1.0", "2.0"):
        blob_at(root, store.references(app.current(tag))[-1]).write_bytes(b"damaged")
    blob_at(root, store.repositories["team"].current("outer")).write_bytes(b"damaged, too")
    links = root / "docker/registry/v2/repositories/multi/_manifests/revisions"
    for link in sorted(links.rglob("link"))[:4]:
        link.write_bytes(b"")
    damaged = [body for body in read_tree(root).values() if body]
    run_killed_at(event, _REPAIR.format(root=str(root.parent), data=str(root)), count=count)
    assert set(damaged) <= {body for body in read_tree(root).values() if body}
    mend(root)
    after = {body for body in read_tree(root).values() if body}
    assert set(damaged) <= after
    assert set(whole) - after <= set(whole) - set(damaged)
    assert mend(root).actions == []


def test_a_repair_that_was_killed_is_followed_by_a_restart(registry: RegistryProcess, tmp_path: Path) -> None:
    store = sample_store(random.Random(1))
    push(registry.url, store)
    blob_at(registry.data, store.references(store.repositories["app"].current("1.0"))[0]).write_bytes(b"x")
    run_killed_at("os.rename", _REPAIR.format(root=str(tmp_path), data=str(registry.data)), count=3)
    with as_service(registry) as service:
        before = service._pid()
        assert len(recover(str(tmp_path), service)) == 1
        assert service._pid() != before
        assert recover(str(tmp_path), service) == []


# The module


def test_the_module(tmp_path: Path) -> None:
    root, store = written(tmp_path, 1)
    layer = store.references(store.repositories["app"].current("1.0"))[-1]
    good = run_module(
        "storage_check", {"root": str(root.parent), "rate": "500M", "lock": str(tmp_path / "x.lock")}
    )
    assert (good["healthy"], good["changed"]) == (True, False)
    assert (root.parent / "maintenance/check-state").exists()
    blob_at(root, layer).write_bytes(b"damaged")
    found = run_module("storage_check", {"root": str(root.parent), "content": "changed"})
    assert not found["healthy"]
    assert not found["changed"]
    assert found["counts"]["hashed_blobs"] == 1
    bad = [item for item in found["findings"] if item["severity"] == Severity.ERROR.value]
    assert [(item["code"], "app:1.0" in item["breaks"]) for item in bad] == [("blob-corrupt", True)]
    planned = run_module("storage_check", {"root": str(root.parent), "repair": True}, check=True)
    assert planned["changed"]
    assert len(planned["repaired"]) == 1
    assert blob_at(root, layer).read_bytes() == b"damaged"
    done = run_module(
        "storage_check", {"root": str(root.parent), "repair": True, "lock": str(tmp_path / "x.lock")}
    )
    assert done["changed"]
    assert not done["healthy"]
    assert "app:1.0" in done["lost"]
    assert [item["code"] for item in done["left"] if item["severity"] == "error"] == ["blob-missing"]
    assert "not restarted" in str(done["warnings"])
    assert not blob_at(root, layer).exists()
    again = run_module("storage_check", {"root": str(root.parent), "repair": True})
    assert not again["changed"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upload_age": "soon"}, "upload_age"),
        ({"data": "/nowhere"}, "/nowhere"),
        ({"rate": "-1"}, "rate"),
        ({"uid": 1}, "gid"),
        ({"repair": True, "sources": [{"url": "ftp://x"}]}, "ftp"),
    ],
)
def test_bad_input(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    root, _store = written(tmp_path, 1)
    result = run_module("storage_check", {"root": str(root.parent), **options})
    assert result["failed"]
    assert message in result["msg"]
