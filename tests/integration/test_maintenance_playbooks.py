# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""gc.yml, backup.yml, restore.yml and check.yml on a registry that works on this machine's engine."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils import _lock
from ansible_collections.dockyard.registry.plugins.module_utils._reference import Digest
from ansible_collections.dockyard.registry.plugins.module_utils._storage import Storage

from tests.support.site import Run, Site
from tests.support.store import Store, push, verify

LONG_AGO = 1_600_000_000


def contents() -> Store:
    """Two repositories that share a layer, with an image that nothing leads to any more."""
    store = Store()
    base = b"base" * 500
    store.multi_arch("team/web", {"linux/amd64": [base, b"amd"], "linux/arm64": [base, b"arm"]}, tag="1")
    store.image("team/app", [base, b"old app" * 100], tag="1")
    store.image("team/app", [base, b"new app"], tag="2")
    return store


def fill(site: Site, store: Store) -> tuple[str, str]:
    """Push it. Returns the login."""
    login = ("admin", site.password())
    push(site.url, store, auth=login)
    return login


def make_old(site: Site) -> None:
    """Everything was pushed long ago."""
    for folder, _folders, files in os.walk(site.root / "data"):
        for name in files:
            os.utime(Path(folder, name), (LONG_AGO, LONG_AGO))


def shown(run: Run, task: str) -> str:
    message = run.ok().result(task)["msg"]
    assert isinstance(message, str)
    return message


def test_garbage_collection(deployed: Site) -> None:
    store = contents()
    login = fill(deployed, store)
    leave_garbage(deployed, store)

    foreseen = deployed.play("gc", check=True).ok()
    assert foreseen.changed == ["garbage_collect | Free what nothing needs"]
    assert deployed.is_running()
    started = deployed.container()["State"]["StartedAt"]
    done = deployed.play("gc").ok()
    result = done.result("garbage_collect | Free what nothing needs")
    assert result["blobs"] == foreseen.result("garbage_collect | Free what nothing needs")["blobs"] > 0
    assert deployed.container()["State"]["StartedAt"] != started
    assert str(result["blobs"]) in shown(done, "garbage_collect | Show what was done")
    verify(deployed.url, store, auth=login)
    again = deployed.play("gc").ok()
    assert again.changed == []
    assert again.result("garbage_collect | Free what nothing needs")["seconds_stopped"] == 0
    verify(deployed.url, store, auth=login)


def leave_garbage(site: Site, store: Store) -> None:
    """Delete an image of which nobody needs the layer."""
    doomed = store.repositories["team/app"].current("1")
    site.play("delete", image=f"team/app@{doomed}", untag="true").ok()
    store.delete("team/app", doomed)
    make_old(site)


def lock_of(site: Site) -> str:
    return f"/run/dockyard.registry/{re.sub('[^A-Za-z0-9._-]+', '-', str(site.root).strip('/'))}.lock"


@pytest.mark.parametrize("playbook", ["site", "images", "users"])
def test_every_playbook_heals_what_broke_off(deployed: Site, playbook: str) -> None:
    """The process that works is killed when it has begun to stop the registry."""
    store = contents()
    login = fill(deployed, store)
    leave_garbage(deployed, store)
    journal = deployed.root / "maintenance" / "garbage-collection.json"
    run = deployed.start("gc")
    deadline = time.monotonic() + 120
    while not journal.exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    worker = _lock.holder_of(lock_of(deployed))
    assert worker
    os.kill(worker.pid, signal.SIGKILL)
    output, _errors = run.communicate(timeout=120)
    assert run.returncode != 0
    assert "was killed on the host" in output
    assert journal.exists()

    deployed.play("images", check=True).ok()
    assert journal.exists(), "not in check mode"
    healed = deployed.play(playbook).ok()
    assert "recover | Finish or take back what broke off" in healed.changed
    assert not journal.exists()
    assert deployed.is_running()
    verify(deployed.url, store, auth=login)
    assert deployed.play(playbook).ok().changed == []


def with_backups(site: Site, name: str) -> dict[str, Any]:
    return {"registry_backup_dir": str(site.root.parent / name)}


def test_backup_and_restore(deployed: Site) -> None:
    store = contents()
    login = fill(deployed, store)
    options = with_backups(deployed, "backups")
    folder = Path(options["registry_backup_dir"])
    started = deployed.container()["State"]["StartedAt"]

    foreseen = deployed.play("backup", check=True, **options).ok()
    assert foreseen.changed == ["backup | Write it"]
    assert not list(folder.glob("*.tar"))
    done = deployed.play("backup", registry_backup_verify="true", **options).ok()
    result = done.result("backup | Write it")
    assert (result["kind"], result["verified"]) == ("full", True)
    assert f"{result['tags']}" in shown(done, "backup | Show what was done")
    again = deployed.play("backup", **options).ok().result("backup | Write it")
    assert (again["kind"], again["carried_blobs"]) == ("incremental", 0)

    table = shown(deployed.play("restore", **options), "restore | Show them")
    assert Path(result["file"]).name in table
    unknown = deployed.play("restore", backup="yesterday", **options).failed()
    assert Path(result["file"]).name in unknown.message, "those that there are"

    drill = deployed.play("restore", backup="latest", verify="true", **options).ok()
    assert drill.result("restore | Restore it")["drill"]["tags"] == result["tags"]
    assert deployed.container()["State"]["StartedAt"] == started, "the registry went on working"

    lost = store.repositories["team/app"].current("2")
    deployed.play("delete", image="team/app:2").ok()
    one = deployed.play("restore", backup="latest", image="team/app:2", **options).ok()
    assert one.result("restore | Restore it")["restored"]["tags"] == ["team/app:2"]
    assert "team/app:2" in shown(one, "restore | Show what was done")
    verify(deployed.url, store, auth=login)
    same = deployed.play("restore", backup="latest", image="team/app:2", **options).ok()
    assert same.changed == []
    assert lost == store.repositories["team/app"].current("2")

    later = Store()
    later.image("later", [b"not in the backup"], tag="1")
    push(deployed.url, later, auth=login)
    foreseen = deployed.play("restore", backup="latest", check=True, diff=True, **options).ok()
    assert foreseen.result("restore | Restore it")["difference"]["removed"] == ["later:1"]
    verify(deployed.url, later, auth=login)
    whole = deployed.play("restore", backup="latest", **options).ok()
    assert whole.result("restore | Restore it")["difference"]["removed"] == ["later:1"]
    verify(deployed.url, store, auth=login)
    assert deployed.play("check").ok().result("check | Look at everything")["healthy"]


def test_backups_are_copied_elsewhere(deployed: Site) -> None:
    fill(deployed, contents())
    options = with_backups(deployed, "backups-copied")
    here, there = (deployed.root.parent / name for name in ("here", "there"))
    run = deployed.play("backup", registry_backup_copy_to=str(here), **options).ok()
    name = Path(run.result("backup | Write it")["file"]).name
    assert sorted(path.name for path in here.iterdir()) == [name, f"{name}.blobs", f"{name}.json"]
    other = {"host": "localhost", "path": str(there)}
    deployed.play("backup", registry_backup_copy_to=other, **options).ok()
    copied = {path.name: path.read_bytes() for path in there.iterdir()}
    assert copied == {path.name: path.read_bytes() for path in Path(options["registry_backup_dir"]).iterdir()}
    assert not list(Path("/tmp").glob("dockyard-backup-*"))
    drill = deployed.play("restore", backup="latest", verify="true", registry_backup_dir=str(there)).ok()
    assert len(drill.result("restore | Restore it")["chain"]) == 2


def test_from_nothing_with_a_backup(deployed: Site) -> None:
    store = contents()
    login = fill(deployed, store)
    options = with_backups(deployed, "backups of all")
    deployed.play("backup", **options).failed()
    options = with_backups(deployed, "backups-of-all")
    deployed.play("backup", **options).ok()
    deployed.play("site", registry_state="absent", registry_remove_data="true").ok()
    assert not deployed.root.exists()
    deployed.play("site").ok()
    assert deployed.password() != login[1]
    deployed.play("restore", backup="latest", parts="data,users,secrets", **options).ok()
    assert deployed.password() == login[1]
    verify(deployed.url, store, auth=login)
    for playbook in ("users", "gc"):
        assert deployed.play(playbook).ok().changed == [], "our own user can log in"


def test_check_and_repair(deployed: Site) -> None:
    store = contents()
    login = fill(deployed, store)
    options = with_backups(deployed, "backups-for-repair")
    fine = deployed.play("check", **options).ok()
    assert fine.changed == []
    deployed.play("backup", **options).ok()
    storage = Storage(deployed.root / "data")
    blob = Digest.of(b"new app")
    Path(storage.blob_path(blob)).write_bytes(b"old app")

    for check in (True, False):
        damaged = deployed.play("check", check=check, **options).failed()
        assert "team/app:2" in damaged.message
        assert "check.yml -e repair=true" in damaged.message
        assert "blob-corrupt" in damaged.result("check | Show what was found")["msg"]
    foreseen = deployed.play("check", repair="true", check=True, **options).failed()
    assert foreseen.changed == ["check | Look at everything"]
    assert Path(storage.blob_path(blob)).read_bytes() == b"old app"
    repaired = deployed.play("check", repair="true", **options).ok()
    assert repaired.changed == ["check | Look at everything"]
    verify(deployed.url, store, auth=login)
    assert deployed.play("check", repair="true", **options).ok().changed == []


BAD: list[tuple[dict[str, Any], str]] = [
    ({"registry_gc_untagged": "a week"}, "registry_gc_untagged: a week is no time"),
    ({"registry_gc_min_age": "-1h"}, "registry_gc_min_age: -1h is no time"),
    ({"registry_gc_drain": "soon"}, "registry_gc_drain: soon is no time"),
    ({"registry_check_upload_age": "1y"}, "registry_check_upload_age: 1y is no time"),
    ({"registry_check_rate": "fast"}, "registry_check_rate: fast is no number of bytes"),
    ({"registry_backup_dir": "relative"}, "registry_backup_dir: "),
    ({"registry_backup_encryption": {"tool": "rot13"}}, "registry_backup_encryption: write {tool: age"),
    ({"registry_backup_keep": {"last": 3}}, "registry_backup_keep: write {count: 14}"),
    ({"registry_backup_keep": {"count": 0}}, "registry_backup_keep: write {count: 14}"),
    ({"registry_backup_copy_to": {"host": "nowhere", "path": "/x"}}, "nowhere is not in the inventory"),
    ({"registry_backup_copy_to": "relative"}, "registry_backup_copy_to: name a folder"),
    ({"registry_restore_images": ["app"]}, "registry_restore_images: app: write repository:tag"),
    (
        {"registry_restore_images": [], "registry_restore_as": "x"},
        "registry_restore_as: it needs one repository",
    ),
]


def test_bad_inputs_are_refused_all_at_once(deployed: Site) -> None:
    """Before anything is done, by every playbook."""
    together: dict[str, Any] = {}
    expected = []
    for variables, text in BAD:
        if not set(variables) & set(together):
            together.update(variables)
            expected.append(text)
    message = deployed.play("gc", **together).failed().message
    for text in expected:
        assert text in message
    for variables, text in BAD:
        if text not in expected:
            assert text in deployed.play("gc", **variables).failed().message
    inside = str(deployed.root / "data" / "backups")
    assert "is inside the data" in deployed.play("backup", registry_backup_dir=inside).failed().message
    for playbook, unknown in (("gc", "registry_gc_method"), ("backup", "registry_backup_kind")):
        assert "value of" in deployed.play(playbook, **{unknown: "clever"}).failed().message
