# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock: one holder, dead holders recognised, never two at once."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils import _lock
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError

ME = _lock.process(os.getpid())


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "new folder" / "registry.lock")


def test_taken_and_given_back(path: str) -> None:
    holder, stale = _lock.acquire(path, "a test", ME, lease=60)
    assert stale is None
    with pytest.raises(_lock.LockHeld, match=f"held by a test .process {os.getpid()} on .*remove that file"):
        _lock.acquire(path, "another", ME, lease=60)
    assert _lock.release(path, holder.token)
    assert not _lock.release(path, holder.token)
    _lock.acquire(path, "another", ME, lease=60)


def test_a_dead_holder_is_recognised_at_once(path: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    dead, _stale = _lock.acquire(path, "killed", _lock.process(child.pid), lease=3600)
    with pytest.raises(_lock.LockHeld):
        _lock.acquire(path, "next", ME, lease=60)
    child.kill()
    child.communicate()
    _holder, stale = _lock.acquire(path, "next", ME, lease=60)
    assert stale == dead
    assert not _lock.release(path, dead.token), "the dead holder's token no longer opens the lock"


def test_a_reused_process_id_is_another_process(path: str) -> None:
    _lock.acquire(path, "earlier", ME._replace(started=ME.started - 1), lease=3600)
    _lock.acquire(path, "next", ME, lease=60)


def test_another_machine_waits_for_the_lease(path: str) -> None:
    elsewhere = ME._replace(machine="another boot/1", pid=1)
    held, _stale = _lock.acquire(path, "far away", elsewhere, lease=3600)
    assert not _lock.is_dead(held), "what cannot be known is not dead"
    with pytest.raises(_lock.LockHeld):
        _lock.acquire(path, "next", ME, lease=60)
    _lock.acquire(path, "told so", ME, lease=60, known_dead=held.token)


def test_the_lease_ends(path: str) -> None:
    _lock.acquire(path, "far away", ME._replace(machine="another boot/1"), lease=-1)
    _holder, stale = _lock.acquire(path, "next", ME, lease=60)
    assert stale is not None
    assert stale.operation == "far away"


def test_a_strange_file_is_not_overwritten(path: str) -> None:
    Path(path).parent.mkdir()
    Path(path).write_text("mine", encoding="utf-8")
    with pytest.raises(RegistryError, match="not a lock file of this collection"):
        _lock.acquire(path, "a test", ME, lease=60)
    assert Path(path).read_text(encoding="utf-8") == "mine"


def test_the_lock_of_the_blobs_is_beside_the_other() -> None:
    assert _lock.storage_lock("/run/x/opt-registry.lock") == "/run/x/opt-registry.storage.lock"
    assert _lock.storage_lock("/run/x/a.b.lock") == "/run/x/a.b.storage.lock"


def test_held_by_a_process_as_long_as_it_works(path: str) -> None:
    paths = [path, _lock.storage_lock(path)]
    with _lock.held(paths, "maintenance"):
        for each in paths:
            holder = _lock.holder_of(each)
            assert holder
            assert (holder.operation, holder.pid) == ("maintenance", os.getpid())
        with pytest.raises(_lock.LockHeld, match="held by maintenance"), _lock.held([path], "another"):
            pass
        # The one that could not get all gives back what it has.
        with pytest.raises(_lock.LockHeld), _lock.held([f"{path}.third", path], "another"):
            pass
        assert _lock.holder_of(f"{path}.third") is None
    assert [_lock.holder_of(each) for each in paths] == [None, None]


def test_held_waits_for_the_one_before(path: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    _lock.acquire(path, "the one before", _lock.process(child.pid), lease=3600)
    began = threading.Event()

    def work() -> None:
        with _lock.held([path], "next", wait=60):
            began.set()

    waiting = threading.Thread(target=work)
    waiting.start()
    assert not began.wait(0.5)
    child.kill()
    child.communicate()
    waiting.join(timeout=60)
    assert began.is_set()


def _race(path: str, rounds: int) -> int:
    me = _lock.process(os.getpid())
    won = 0
    witness = Path(f"{path}.witness")
    while won < rounds:
        try:
            holder, _stale = _lock.acquire(path, "race", me, lease=3600)
        except _lock.LockHeld:
            continue
        witness.touch(exist_ok=False)  # fails where another one is inside too
        witness.unlink()
        assert _lock.release(path, holder.token)
        won += 1
    return won


def test_never_two_at_once(path: str) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert pool.starmap(_race, [(path, 50)] * 4) == [50] * 4
