# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Long work says how far it is, and is looked at from outside."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils import _lock, _progress
from ansible_collections.dockyard.registry.plugins.module_utils._job import Jobs
from ansible_collections.dockyard.registry.plugins.module_utils._progress import FileProgress, State
from ansible_collections.dockyard.registry.plugins.plugin_utils._meter import Meter, duration

from tests.support.modules import COLLECTIONS
from tests.support.processes import start_python

ME = _lock.process(os.getpid())
MIB = 1 << 20


@pytest.fixture
def lock(tmp_path: Path) -> str:
    return str(tmp_path / "run" / "registry.lock")


@pytest.fixture
def jobs(lock: str) -> Jobs:
    jobs = Jobs(lock)
    jobs.prepare()
    return jobs


def test_progress_is_kept_for_others(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "progress"
    progress = FileProgress(file)
    state = _progress.read(file)
    assert state
    assert (state.phase, state.pid, state.started) == ("", ME.pid, ME.started)
    progress("hash", 1, 10)
    state = _progress.read(file)
    assert state
    assert (state.phase, state.done, state.total) == ("hash", 1, 10)
    writes = 0
    before = file.stat().st_ino
    for number in range(1000):
        progress("hash", number, 1000)
        writes += file.stat().st_ino != before
        before = file.stat().st_ino
    assert writes < 500, "limited, whatever calls it"
    progress("write")
    state = _progress.read(file)
    assert state
    assert state.phase == "write", "a new phase is not held back"
    assert [path.name for path in file.parent.iterdir()] == ["progress"]


def test_progress_never_fails_the_work(tmp_path: Path) -> None:
    FileProgress(None)("hash", 1, 2)
    (tmp_path / "file").touch()
    FileProgress(tmp_path / "file" / "progress")("hash", 1, 2)
    assert _progress.read(tmp_path / "nothing") is None
    (tmp_path / "file").write_text('{"phase": "of another version"}', encoding="utf-8")
    assert _progress.read(tmp_path / "file") is None


def test_progress_is_gone_with_its_process(tmp_path: Path) -> None:
    file = tmp_path / "progress"
    code = f"""
import os, sys
from ansible_collections.dockyard.registry.plugins.module_utils._progress import FileProgress
progress = FileProgress({str(file)!r})
progress("hash")
child = os.fork()
if not child:
    sys.exit()
os.waitpid(child, 0)
print(os.path.exists({str(file)!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "True", "a child that ends is not the end of the work"
    assert not file.exists()


def test_only_the_user_reads_jobs(jobs: Jobs) -> None:
    assert stat.S_IMODE(jobs.folder.stat().st_mode) == 0o700


def test_a_job_from_its_start_to_its_end(jobs: Jobs) -> None:
    assert jobs.status("job", "wrapper") == (False, None, None)
    progress = FileProgress(jobs.progress_file("job"))
    result = jobs.folder / "wrapper"
    result.write_text(json.dumps({"started": True, "finished": False}), encoding="utf-8")
    progress("hash", 1, 2)
    status = jobs.status("job", "wrapper")
    assert (status.finished, status.alive) == (False, True)
    assert status.progress
    assert status.progress.phase == "hash"
    result.write_text(json.dumps({"changed": True, "blobs": 3}), encoding="utf-8")
    assert jobs.status("job", "wrapper").finished
    jobs.remove("job", "wrapper")
    assert list(jobs.folder.iterdir()) == []


def test_a_dead_job_is_recognised(jobs: Jobs) -> None:
    code = f"""
import os
from ansible_collections.dockyard.registry.plugins.module_utils._progress import FileProgress
FileProgress({str(jobs.progress_file("job"))!r})("hash")
os.kill(os.getpid(), 9)
"""
    start_python(code).communicate(timeout=60)
    status = jobs.status("job", "wrapper")
    assert (status.finished, status.alive) == (False, False)


def test_whom_a_job_waits_for(jobs: Jobs, lock: str) -> None:
    assert jobs.waits_for("job") is None
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    other = _lock.process(child.pid)
    state = State("copy", 3, 4, 1.0, other.pid, other.started)
    jobs.progress_file("other").write_text(json.dumps(state._asdict()), encoding="utf-8")
    _lock.acquire(_lock.storage_lock(lock), "backup", other, lease=60)
    waiting = jobs.waits_for("job")
    assert waiting
    assert waiting.holder.operation == "backup"
    assert waiting.progress == state
    child.kill()
    child.communicate()
    assert jobs.waits_for("job") is None, "the dead are not waited for"
    FileProgress(jobs.progress_file("job"))
    with _lock.held([lock], "the job itself"):
        assert jobs.waits_for("job") is None
        assert jobs.waits_for("another")


def test_prepare_throws_away_what_is_over_and_frees_dead_locks(jobs: Jobs, lock: str) -> None:
    long_ago = 1_000_000_000
    for name, content in (
        ("ended", {"changed": False}),
        ("working", {"started": True, "finished": False}),
        ("dead.progress", State("x", 0, 0, 0.0, ME.pid, ME.started - 1)._asdict()),
        ("alive.progress", State("x", 0, 0, 0.0, ME.pid, ME.started)._asdict()),
    ):
        (jobs.folder / name).write_text(json.dumps(content), encoding="utf-8")
        os.utime(jobs.folder / name, (long_ago, long_ago))
    (jobs.folder / "just ended").write_text("{}", encoding="utf-8")
    held, _stale = _lock.acquire(lock, "site.yml", ME._replace(machine="another/1"), lease=3600)
    jobs.prepare()
    assert sorted(path.name for path in jobs.folder.iterdir()) == ["alive.progress", "just ended", "working"]
    assert _lock.holder_of(lock) == held
    jobs.prepare([held.token])
    assert _lock.holder_of(lock) is None


def state(phase: str, done: int, total: int, time: float) -> State:
    return State(phase, done, total, time, 1, 1)


def test_lines_for_people() -> None:
    meter = Meter()
    assert meter.line(state("", 0, 0, 0)) == "starting"
    assert meter.line(state("look", 0, 0, 0)) == "look"
    assert meter.line(state("hash", 100 * MIB, 5000 * MIB, 10)) == "hash 100 MiB of 4.9 GiB"
    assert (
        meter.line(state("hash", 1100 * MIB, 5000 * MIB, 20))
        == "hash 1.1 GiB of 4.9 GiB, 100 MiB/s, 39 s left"
    )
    assert meter.line(state("tags", 2, 10, 20)) == "tags 2 of 10"
    assert meter.line(state("tags", 4, 10, 22)) == "tags 4 of 10, 1/s, 6 s left"
    assert meter.line(state("tags", 10, 10, 28)) == "tags 10 of 10, 1/s"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
