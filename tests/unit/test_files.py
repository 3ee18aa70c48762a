# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Atomic replacement and locking, with real processes that are stopped and killed in the middle."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils import _files

from tests.support.modules import COLLECTIONS
from tests.support.processes import run_killed_at, start_python, wait_until_open

OLD = b"old\n" * 10_000
NEW = b"new\n" * 20_000
IMPORT = "from ansible_collections.dockyard.registry.plugins.module_utils import _files\n"


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def write_code(target: Path, content: bytes = NEW) -> str:
    return IMPORT + f"_files.atomic_write({str(target)!r}, {content!r}, mode=0o640, newer_than_ns=0)"


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(COLLECTIONS)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "file"


def test_a_new_file_has_content_mode_and_the_mtime_returned(target: Path) -> None:
    mtime_ns = _files.atomic_write(target, NEW, mode=0o604)
    assert target.read_bytes() == NEW
    assert stat.S_IMODE(target.stat().st_mode) == 0o604
    assert target.stat().st_mtime_ns == mtime_ns
    assert names(target.parent) == ["file"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_owner_and_group_are_set(target: Path) -> None:
    _files.atomic_write(target, NEW, mode=0o640, uid=12345, gid=54321)
    assert (target.stat().st_uid, target.stat().st_gid) == (12345, 54321)


@pytest.mark.parametrize("ahead_ns", [-(10**9), 0, 10**9, 3600 * 10**9])
def test_mtime_moves_forward_whatever_the_clock_says(target: Path, ahead_ns: int) -> None:
    earlier = time.time_ns() + ahead_ns
    for _repeat in range(5):
        later = _files.atomic_write(target, NEW, mode=0o640, newer_than_ns=earlier)
        assert later > earlier
        assert target.stat().st_mtime_ns == later
        earlier = later


def test_mtime_moves_forward_on_a_coarse_file_system(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def utime_of_fat(descriptor: int, ns: tuple[int, int]) -> None:
        even_seconds = (ns[0], ns[1] // 2_000_000_000 * 2_000_000_000)
        utime(descriptor, ns=even_seconds)

    utime = os.utime
    monkeypatch.setattr(os, "utime", utime_of_fat)
    earlier = time.time_ns() + 10**12
    assert _files.atomic_write(target, NEW, mode=0o640, newer_than_ns=earlier) > earlier


def test_a_file_system_that_keeps_no_time_is_an_error(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target.write_bytes(OLD)
    monkeypatch.setattr(os, "utime", lambda *_arguments, **_options: None)
    with pytest.raises(_files.FileError, match="does not keep a later modification time"):
        _files.atomic_write(target, NEW, mode=0o640, newer_than_ns=time.time_ns() + 10**12)
    assert target.read_bytes() == OLD
    assert names(target.parent) == ["file"]


def test_readers_see_the_old_or_the_new_content(target: Path) -> None:
    contents = [bytes([letter]) * 300_000 for letter in b"abcdef"]
    _files.atomic_write(target, contents[0], mode=0o640)
    seen: set[bytes] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(target.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for content in contents * 10:
        _files.atomic_write(target, content, mode=0o640)
    done.set()
    reader.join()
    assert seen
    assert seen <= set(contents)


@pytest.mark.parametrize("event", ["os.chown", "os.chmod", "os.rename"])
def test_a_writer_killed_before_the_rename_leaves_the_old_file(target: Path, event: str) -> None:
    target.write_bytes(OLD)
    run_killed_at(event, write_code(target))
    assert target.read_bytes() == OLD
    assert len(names(target.parent)) == 2

    _files.atomic_write(target, NEW, mode=0o640)
    assert target.read_bytes() == NEW
    assert names(target.parent) == ["file"], "the next write removes what the killed one left"


def test_the_new_file_of_a_living_writer_is_no_leftover(target: Path) -> None:
    stopped = start_python(write_code(target, b"slow"), signal_at="os.rename", number=signal.SIGSTOP)
    try:
        os.waitid(os.P_PID, stopped.pid, os.WSTOPPED)
        _files.atomic_write(target, b"quick", mode=0o640)
        assert target.read_bytes() == b"quick"
        stopped.send_signal(signal.SIGCONT)
        output = stopped.communicate(timeout=30)
        assert stopped.returncode == 0, output
        assert target.read_bytes() == b"slow"
    finally:
        stopped.kill()
        stopped.wait()


def test_many_writers_at_once_all_succeed(target: Path) -> None:
    code = IMPORT + f"for _ in range(20): _files.atomic_write({str(target)!r}, {NEW!r}, mode=0o640)"
    writers = [start_python(code) for _writer in range(8)]
    for writer in writers:
        output = writer.communicate(timeout=120)
        assert writer.returncode == 0, output
    assert target.read_bytes() == NEW
    assert names(target.parent) == ["file"]


def test_no_space_leaves_the_old_file_and_nothing_else(target: Path) -> None:
    target.write_bytes(OLD)
    done = run_python(
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n" + write_code(target)
    )
    assert f"FileError: write {target}: File too large" in done.stderr
    assert target.read_bytes() == OLD
    assert names(target.parent) == ["file"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(_files.FileError, match=r"the folder .*/nowhere does not exist; create it first"):
        _files.atomic_write(tmp_path / "nowhere" / "file", NEW, mode=0o640)


def test_locks_exclude_processes(tmp_path: Path) -> None:
    counter, lock = tmp_path / "counter", tmp_path / "lock"
    counter.write_text("0")
    code = IMPORT + (
        f"import pathlib; counter = pathlib.Path({str(counter)!r})\n"
        "for _ in range(50):\n"
        f"    with _files.locked({str(lock)!r}, timeout=60):\n"
        "        counter.write_text(str(int(counter.read_text()) + 1))\n"
    )
    workers = [start_python(code) for _worker in range(6)]
    for worker in workers:
        output = worker.communicate(timeout=120)
        assert worker.returncode == 0, output
    assert counter.read_text() == "300"
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600


def test_a_timeout_names_the_lock_file_and_its_holder(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with (
        _files.locked(lock, timeout=0),
        pytest.raises(_files.LockTimeout) as caught,
        _files.locked(lock, timeout=0.05),
    ):
        pass
    assert f"lock {lock}: still held by process {os.getpid()} after 0.05 s" in str(caught.value)


def test_a_killed_holder_gives_the_lock_back(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = IMPORT + (
        f"import sys\nwith _files.locked({str(lock)!r}, timeout=0):\n    sys.audit('dockyard.held')"
    )
    run_killed_at("dockyard.held", code)
    assert lock.read_bytes(), "the killed process had the lock"
    with _files.locked(lock, timeout=0):
        pass


def test_a_lock_file_that_is_removed_does_not_make_two_holders(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    result: list[str] = []

    def wait() -> None:
        try:
            with _files.locked(lock, timeout=1):
                result.append("held")
        except _files.LockTimeout:
            result.append("timeout")

    waiter = threading.Thread(target=wait)
    with _files.locked(lock, timeout=0):
        waiter.start()
        wait_until_open(lock, [os.getpid()], descriptors=2)  # the waiter's is the second
        lock.unlink()
        second = _files.locked(lock, timeout=0)
        second.__enter__()
    waiter.join()
    second.__exit__(None, None, None)
    assert result == ["timeout"]


@pytest.mark.parametrize(
    ("value", "mode"), [("0640", 0o640), ("640", 0o640), (0o640, 0o640), ("7777", 0o7777)]
)
def test_modes_as_people_write_them(value: str | int, mode: int) -> None:
    assert _files.attributes_from(value, None, None) == _files.Attributes(mode)


@pytest.mark.parametrize("value", ["u=rw", "0690", "", "17777", -1, 0o10000, True])
def test_what_is_no_mode(value: str | int) -> None:
    with pytest.raises(_files.FileError, match="not an octal file mode"):
        _files.parse_mode(value)


def test_owners_by_name_and_number() -> None:
    assert _files.attributes_from("0600", "root", "12") == _files.Attributes(0o600, 0, 12)
    with pytest.raises(_files.FileError, match="owner 'no-such-user': not known"):
        _files.attributes_from("0600", "no-such-user", None)
    with pytest.raises(_files.FileError, match="group 'no-such-group': not known"):
        _files.attributes_from("0600", None, "no-such-group")


def test_attributes_are_corrected_once_and_not_in_check_mode(target: Path) -> None:
    target.write_bytes(OLD)
    target.chmod(0o644)
    wanted = _files.Attributes(0o600, os.geteuid())
    assert _files.ensure_attributes(target, wanted, check_mode=True)
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert _files.ensure_attributes(target, wanted)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert not _files.ensure_attributes(target, wanted)


def test_reading_gives_content_and_stat_or_none(target: Path) -> None:
    assert _files.read_file(target) is None
    target.write_bytes(OLD)
    found = _files.read_file(target)
    assert found is not None
    assert found[0] == OLD
    assert found[1].st_ino == target.stat().st_ino


def test_what_is_no_regular_file_is_an_error(target: Path) -> None:
    with pytest.raises(_files.FileError, match="not a regular file"):
        _files.read_file(target.parent)
    os.mkfifo(target)
    with pytest.raises(_files.FileError, match="not a regular file"):
        _files.read_file(target)
