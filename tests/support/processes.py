# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes that are stopped or killed at a certain point, and what files a process has open.

A process gets its signal just before it calls the operating system for a certain thing. The interpreter's own
audit events say when: "os.rename", "os.chmod", "os.utime", "open" and others
(https://docs.python.org/3/library/audit_events.html). Nothing of the code under test is replaced.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.support.modules import CHECKOUT, COLLECTIONS

_HOOK = """
import os, sys
waiting = {count}
def hook(event, arguments):
    global waiting
    if event == {event!r}:
        waiting -= 1
        if not waiting:
            os.kill(os.getpid(), {number})
sys.addaudithook(hook)
"""


def start_python(
    code: str,
    *,
    stdin: str = "",
    signal_at: str | None = None,
    count: int = 1,
    number: signal.Signals = signal.SIGKILL,
) -> subprocess.Popen[str]:
    """Start `code` in a process of its own; it gets `number` at its `count`th audit event `signal_at`."""
    hook = _HOOK.format(event=signal_at, count=count, number=int(number)) if signal_at else ""
    process = subprocess.Popen(
        [sys.executable, "-c", hook + code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{COLLECTIONS}:{CHECKOUT}"},
    )
    assert process.stdin is not None
    process.stdin.write(stdin)
    process.stdin.close()
    process.stdin = None
    return process


def run_killed_at(event: str, code: str, *, count: int = 1, stdin: str = "") -> None:
    """Run `code`, which must die of it: else the event did not come and the test would prove nothing."""
    process = start_python(code, stdin=stdin, signal_at=event, count=count)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, f"not killed at {event}:\n{output}\n{errors}"


def wait_for(what: str, condition: Callable[[], object], seconds: float = 60.0, pause: float = 0.05) -> None:
    """Wait until the condition is true; where it never is, `what` says which it was."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so after {seconds:.0f} s: {what}"
        time.sleep(pause)


def wait_until_open(path: Path, pids: Iterable[int], descriptors: int = 1) -> None:
    """Wait until each of these processes has the file open, `descriptors` times or more."""
    deadline = time.monotonic() + 60
    for pid in pids:
        while _count_open(path, pid) < descriptors:
            assert time.monotonic() < deadline, f"process {pid} does not open {path}"
            time.sleep(0.01)


def _count_open(path: Path, pid: int) -> int:
    count = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += descriptor.readlink() == path
        except FileNotFoundError:  # closed meanwhile
            continue
    return count
