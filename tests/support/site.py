# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the collection's playbooks against this machine's engine: a registry of its own for each test."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.registry import free_port

CHECKOUT = Path(__file__).resolve().parents[2]
TIMEOUT = 600.0


_CALLBACKS = CHECKOUT / "tests" / "support" / "callback"


def playbook_environment() -> dict[str, str]:
    """For an ansible-playbook whose output becomes a Run."""
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        "ANSIBLE_NOCOLOR": "1",
        **_kept_work(),
    }


def with_callback(name: str) -> dict[str, str]:
    """Environment of a run with one more of our callbacks."""
    return {"ANSIBLE_CALLBACKS_ENABLED": f"kept_modules,{name}"}


@functools.cache
def _kept_work() -> dict[str, str]:
    """Let hundreds of runs on this machine pack and compile each module once: a third of their time."""
    packages = {path.name for path in Path(sys.prefix).glob("lib/python3*/site-packages/*.dist-info")}
    sources = {f"{path} {path.stat().st_mtime_ns}" for path in (CHECKOUT / "plugins").rglob("*.py")}
    state = hashlib.sha256("\n".join([sys.version, *sorted(packages | sources)]).encode()).hexdigest()
    modules = CHECKOUT / ".work" / "modules" / state[:16]
    bytecode = CHECKOUT / ".work" / "bytecode"
    for folder in (modules, bytecode):
        folder.mkdir(parents=True, exist_ok=True)
    return {
        "ANSIBLE_CALLBACK_PLUGINS": str(_CALLBACKS),
        "ANSIBLE_CALLBACKS_ENABLED": "kept_modules",
        "DOCKYARD_MODULES": str(modules),
        "DOCKYARD_BYTECODE": str(bytecode),
        "PYTHONPATH": os.pathsep.join(
            [str(CHECKOUT / "tests" / "support" / "bytecode"), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
    }


class Task(NamedTuple):
    """One task of a run, on the one host there is."""

    name: str
    result: dict[str, Any]
    #: Its place in the run, from 1; includes count.
    number: int

    @property
    def changed(self) -> bool:
        return bool(self.result.get("changed")) and not self.result.get("skipped")


class Run:
    """What a run of ansible-playbook did."""

    def __init__(self, process: subprocess.CompletedProcess[str]) -> None:
        self.code = process.returncode
        self.output = process.stdout + process.stderr
        self.tasks: list[Task] = []
        start = process.stdout.find("{\n")
        try:
            told = json.loads(process.stdout[start:]) if start >= 0 else {}
        except ValueError:
            told = {}
        told_tasks = [task for play in told.get("plays", []) for task in play["tasks"]]
        for number, task in enumerate(told_tasks, 1):
            # "namespace.collection.role : file | Name", of which the file and name tell enough.
            name = task["task"]["name"].rpartition(" : ")[2]
            self.tasks += [Task(name, result, number) for result in task["hosts"].values()]

    @property
    def changed(self) -> list[str]:
        """Names of the tasks that changed something."""
        return [task.name for task in self.tasks if task.changed]

    @property
    def message(self) -> str:
        """The message of the task that failed and was not rescued."""
        failed = [task for task in self.tasks if task.result.get("failed")]
        return str(failed[-1].result.get("msg", "")) if failed else ""

    def result(self, name: str) -> dict[str, Any]:
        """The result of the one task whose name ends like this."""
        found = [task.result for task in self.tasks if task.name.endswith(name)]
        assert len(found) == 1, f"{len(found)} tasks are named …{name}: {[t.name for t in self.tasks]}"
        return found[0]

    def ok(self) -> Run:
        """Itself, or an assertion that shows everything."""
        assert self.code == 0, f"{self.message}\n{self.output[-6000:]}"
        return self

    def failed(self) -> Run:
        """Itself where the run failed as a person should see it: with a message, and no traceback."""
        assert self.code != 0, self.output[-6000:]
        assert "Traceback" not in self.output, self.output[-6000:]
        return self


class Site:
    """A registry on this machine, with a folder, a compose project and a port of its own."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "registry"
        self.project = f"dockyard-test-{secrets.token_hex(4)}"
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.address}"
        #: Role variables of every run.
        self.variables: dict[str, Any] = {
            "registry_root": str(self.root),
            "registry_project": self.project,
            "registry_port": self.port,
            "registry_users": [{"name": "admin"}],
            "registry_minimum_free_mib": 1,
        }
        self._docker_config = folder / "docker-config"

    def start(
        self,
        playbook: str = "site",
        *,
        check: bool = False,
        diff: bool = False,
        arguments: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
        **variables: Any,
    ) -> subprocess.Popen[str]:
        """Start a playbook; `variables` go over those of the site."""
        inventory = {
            "registry": {
                "hosts": {
                    "localhost": {
                        "ansible_connection": "local",
                        "ansible_python_interpreter": sys.executable,
                        **self.variables,
                    }
                }
            }
        }
        file = self.root.parent / f"inventory-{secrets.token_hex(4)}.json"
        file.write_text(json.dumps(inventory), encoding="utf-8")
        command = [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("-i", str(file), f"playbooks/{playbook}.yml", "-e", json.dumps(variables)),
            *(["--check"] if check else []),
            *(["--diff"] if diff else []),
            *arguments,
        ]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=CHECKOUT,
            env={**playbook_environment(), **(environment or {})},
        )

    def play(self, playbook: str = "site", **options: Any) -> Run:
        """Run a playbook to its end."""
        return self.finish(self.start(playbook, **options))

    def finish(self, process: subprocess.Popen[str]) -> Run:
        """Wait for a playbook that was started."""
        output, errors = process.communicate(timeout=TIMEOUT)
        return Run(subprocess.CompletedProcess(process.args, process.returncode, output, errors))

    def password(self, user: str = "admin") -> str:
        """A password that the role generated."""
        return (self.root / "secrets" / "users" / f"{user}.password").read_text(encoding="utf-8").strip()

    def docker(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Docker's own client, with logins that are this site's only."""
        return subprocess.run(
            ["docker", "--config", str(self._docker_config), *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )

    def login(self, user: str = "admin", password: str | None = None) -> bool:
        """Whether `docker login` lets the user in."""
        secret = self.password(user) if password is None else password
        done = self.docker("login", "--username", user, "--password-stdin", self.address, text=secret)
        return done.returncode == 0

    def container(self) -> dict[str, Any]:
        """What the engine says of the registry's container."""
        names = self.docker(
            "ps", "-aq", "--filter", f"label=com.docker.compose.project={self.project}"
        ).stdout
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", *names.split()).stdout)
        assert len(found) == 1, names
        return found[0]

    def is_running(self) -> bool:
        names = self.docker("ps", "-q", "--filter", f"label=com.docker.compose.project={self.project}").stdout
        return bool(names.strip())

    def logs(self) -> str:
        done = self.docker("compose", "--project-name", self.project, "logs", "--tail", "50")
        return done.stdout + done.stderr

    def remove(self) -> None:
        """End the stack, however far it got, and forget everything."""
        self.docker("compose", "--project-name", self.project, "down", "--volumes", "--timeout", "1")
        shutil.rmtree(self.root, ignore_errors=True)
