# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Long work goes on by itself on a host that is reached over a real SSH connection, whatever happens to that."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils import _lock

from tests.support.modules import CHECKOUT
from tests.support.processes import wait_for
from tests.support.ssh import SshHost, ssh_host

# Work that counts until it is told to end.
MODULE = """\
#!/usr/bin/python
from __future__ import annotations
import os, time
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.registry.plugins.module_utils import _lock
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._progress import FileProgress

def main():
    module = AnsibleModule(dict(
        lock=dict(type="path"), lock_wait=dict(type="int", default=0), progress_file=dict(type="path"),
        folder=dict(type="path"), name=dict(type="str"), password=dict(type="str", no_log=True)),
        supports_check_mode=True)
    given = module.params
    progress = FileProgress(given["progress_file"])
    try:
        with _lock.held([given["lock"]], given["name"], wait=given["lock_wait"]):
            with open(os.path.join(given["folder"], given["name"] + ".began"), "w") as file:
                file.write(str(os.getpid()))
            for number in range(1, 1200):
                progress("count", number << 20, 1200 << 20)
                if os.path.exists(os.path.join(given["folder"], given["name"] + ".end")):
                    break
                time.sleep(0.1)
            progress("write")
            with open(os.path.join(given["folder"], given["name"] + ".done"), "w"):
                pass
    except RegistryError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=not module.check_mode, answer=42)

main()
"""
ACTION = """\
from ansible_collections.dockyard.registry.plugins.plugin_utils import _long_work
_long_work._SHOW_SECONDS = 1.0
_long_work._SILENT_SECONDS = 5.0
class ActionModule(_long_work.LongWork):
    pass
"""
SECRET = "a-password-nobody-may-see"


class Bench:
    """A playbook of one task, long work, on one host."""

    def __init__(self, folder: Path, variables: dict[str, Any]) -> None:
        self.folder = folder
        self.lock = folder / "run" / "registry.lock"
        self.jobs = folder / "run" / "jobs"
        (folder / "library").mkdir()
        (folder / "library" / "slow.py").write_text(MODULE, encoding="utf-8")
        (folder / "action_plugins").mkdir()
        (folder / "action_plugins" / "slow.py").write_text(ACTION, encoding="utf-8")
        inventory = {"all": {"hosts": {"host1": variables}}}
        (folder / "inventory.json").write_text(json.dumps(inventory), encoding="utf-8")

    def start(self, name: str, *arguments: str, wait: int = 0) -> subprocess.Popen[str]:
        task = {
            "slow": {
                "lock": str(self.lock),
                "lock_wait": wait,
                "folder": str(self.folder),
                "name": name,
                "password": SECRET,
            }
        }
        play = self.folder / f"{name}.yml"
        play.write_text(
            json.dumps([{"hosts": "all", "gather_facts": False, "tasks": [task]}]), encoding="utf-8"
        )
        return subprocess.Popen(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                *("-i", str(self.folder / "inventory.json"), str(play), *arguments),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=CHECKOUT,
            env={**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        )

    def pid(self, name: str) -> int:
        """The process that works, once it does."""
        file = self.folder / f"{name}.began"
        wait_for(f"{name} has begun", lambda: file.exists() and file.read_text(encoding="ascii"))
        return int(file.read_text(encoding="ascii"))

    def end(self, name: str) -> None:
        (self.folder / f"{name}.end").touch()

    def is_done(self, name: str) -> bool:
        return (self.folder / f"{name}.done").exists()


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[SshHost]:
    with ssh_host(tmp_path / "ssh") as host:
        yield host


@pytest.fixture
def bench(tmp_path: Path, ssh: SshHost) -> Bench:
    return Bench(tmp_path, ssh.variables())


def told(process: subprocess.Popen[str], code: int = 0) -> str:
    output, _errors = process.communicate(timeout=120)
    assert process.returncode == code, output
    assert SECRET not in output
    return output


def lines_until(process: subprocess.Popen[str], text: str) -> str:
    """What the run says up to and with a line that holds `text`."""
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(f"never said {text!r}:\n{said}")


@pytest.mark.parametrize("arguments", [(), ("--check",)], ids=["real", "check"])
def test_progress_is_shown_and_nothing_is_left(bench: Bench, arguments: tuple[str, ...]) -> None:
    run = bench.start("first", *arguments)
    lines_until(run, "left")
    pid = bench.pid("first")
    assert SECRET not in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
    assert stat.S_IMODE(bench.jobs.stat().st_mode) == 0o700
    for file in bench.jobs.iterdir():
        assert SECRET not in file.read_text(encoding="utf-8")
    bench.end("first")
    output = told(run)
    assert f"changed={0 if arguments else 1} " in output
    assert list(bench.jobs.iterdir()) == []
    assert not bench.lock.exists()


def test_a_lost_connection_does_not_end_the_work(bench: Bench, ssh: SshHost) -> None:
    run = bench.start("first", "-v")
    lines_until(run, "host1 slow: count")
    pid = bench.pid("first")
    assert ssh.cut() > 0
    ssh.stop()
    lines_until(run, "lost the connection")
    assert Path(f"/proc/{pid}").exists(), "the work goes on"
    ssh.start()
    lines_until(run, "connected again")
    bench.end("first")
    assert "answer: 42" in told(run)
    assert bench.is_done("first")
    assert list(bench.jobs.iterdir()) == []


def test_the_next_run_waits_for_work_whose_control_process_was_killed(bench: Bench) -> None:
    first = bench.start("first")
    lines_until(first, "host1 slow: count")
    pid = bench.pid("first")
    # Its workers too, as a machine that goes down does.
    os.kill(first.pid, signal.SIGKILL)
    first.communicate(timeout=60)

    refused = told(bench.start("refused", wait=1), code=2)
    assert f"held by first (process {pid}" in refused
    second = bench.start("second", wait=100)
    said = lines_until(second, "waiting for first")
    assert f"host1 slow: waiting for first (process {pid} on " in said
    assert "): count " in said, "with the progress of the other"
    assert not (bench.folder / "second.began").exists()
    bench.end("first")
    bench.pid("second")
    assert bench.is_done("first")
    bench.end("second")
    told(second)
    assert bench.is_done("second")
    assert not list(bench.jobs.glob("*.progress"))


def test_a_killed_module_is_said(bench: Bench) -> None:
    run = bench.start("first")
    lines_until(run, "host1 slow: count")
    os.kill(bench.pid("first"), signal.SIGKILL)
    output = told(run, code=2)
    assert "slow was killed on the host. Run any playbook" in output
    assert "Traceback" not in output
    assert list(bench.jobs.iterdir()) == []
    bench.end("second")
    told(bench.start("second"))


def test_work_that_vanished_is_said(bench: Bench) -> None:
    """As after a restart of the host: neither the work nor its wrapper is there."""
    run = bench.start("first")
    lines_until(run, "host1 slow: count")
    worker = bench.pid("first")
    wrapper = int(Path(f"/proc/{worker}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[1])
    os.kill(wrapper, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    assert "its process on the host is gone and left no result" in told(run, code=2)


def test_a_lock_of_a_dead_playbook_is_taken_over(bench: Bench) -> None:
    """The host cannot know whether a process of the control machine lives; the control machine can."""
    holder = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    _lock.acquire(str(bench.lock), "site.yml", _lock.process(holder.pid), lease=3600)
    holder.kill()
    holder.communicate()
    bench.end("first")
    told(bench.start("first"))
    assert bench.is_done("first")
