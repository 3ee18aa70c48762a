# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control machine's half of modules that work for long: the work runs on the host by itself, and is watched.

Private to the collection: no stable interface.

Ansible's own async wrapper starts the module, so neither a lost connection nor the end of this process ends the
work. What the wrapper and the module write is in a folder beside the locks that only the work's user can read.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.dockyard.registry.plugins.module_utils import _lock
from ansible_collections.dockyard.registry.plugins.module_utils._progress import State
from ansible_collections.dockyard.registry.plugins.plugin_utils._meter import Meter, duration

_JOB_MODULE = "dockyard.registry.job"

# The wrapper ends work that takes longer.
_LIMIT_SECONDS = 7 * 86400
# Work on a small registry is not to wait for its own watcher.
_FIRST_POLL_SECONDS = 0.3
_POLL_SECONDS = 2.0
_SHOW_SECONDS = 5.0
# How long a host may be out of reach, in one piece, before the watcher gives up.
_RECONNECT_SECONDS = 600.0
# Between the end of the process and its result, and before its first word.
_SILENT_SECONDS = 60.0

display = Display()


class LongWork(ActionBase):  # type: ignore[misc]  # Ansible has no types
    """Starts the task's module on the host and watches it to its end."""

    _folder = ""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        self._name = self._task.action.rpartition(".")[2].replace("_", " ")
        self._host = self._vars.get("inventory_hostname", "")
        arguments = dict(self._task.args)
        lock = arguments.get("lock")
        if not lock:
            # Nothing to keep it beside: an ordinary module.
            return self._module(self._task.action, arguments)

        self._lock = str(lock)
        prepared = self._prepare()
        if prepared.get("failed"):
            return prepared
        self._folder = prepared["folder"]
        self._job = secrets.token_hex(8)
        started = self._start({**arguments, "progress_file": f"{self._folder}/{self._job}.progress"})
        if started.get("failed") or not started.get("ansible_job_id"):
            return started
        return self._watch(started["ansible_job_id"])

    def get_shell_option(self, option: str, default: Any = None) -> Any:
        """Job files are kept where only the work's user can read them."""
        if option == "async_dir" and self._folder:
            return self._folder
        return super().get_shell_option(option, default)

    def _module(self, name: str, arguments: dict[str, Any], **options: Any) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name=name, module_args=arguments, task_vars=self._vars, **options
        )
        return result

    def _prepare(self) -> dict[str, Any]:
        """Make room for the job. A lock that a dead ansible-playbook of this machine left is freed: only this
        machine can know."""
        known_dead: list[str] = []
        while True:
            found = self._module(
                _JOB_MODULE, {"lock": self._lock, "state": "prepared", "known_dead": known_dead}
            )
            holder = _holder(found)
            if holder is None or holder.token in known_dead or not _lock.is_dead(holder):
                return found
            known_dead.append(holder.token)

    def _start(self, arguments: dict[str, Any]) -> dict[str, Any]:
        # The wrapper's time limit; an `async` task it must not become, for Ansible would watch it then.
        self._task.async_val = _LIMIT_SECONDS
        try:
            return self._module(self._task.action, arguments, wrap_async=True)
        finally:
            self._task.async_val = 0

    def _watch(self, wrapper: str) -> dict[str, Any]:
        job = {"lock": self._lock, "job": self._job, "wrapper": wrapper}
        teller = _Teller(f"{self._host} {self._name}".strip())
        pause = _FIRST_POLL_SECONDS
        gone_since: float | None = None
        while True:
            time.sleep(pause)
            pause = min(pause * 2, _POLL_SECONDS)
            status = self._persistently(_JOB_MODULE, job, teller)
            if status.get("failed"):
                return status
            if status["finished"]:
                return self._collect(job, teller)
            # Work that has not said a word may still wait for a lock.
            if status["alive"] or (status["alive"] is None and status["waits_for"]):
                gone_since = None
            else:
                gone_since = gone_since or time.monotonic()
                if time.monotonic() - gone_since > _SILENT_SECONDS:
                    return self._vanished()
            teller.tell(status)

    def _collect(self, job: dict[str, Any], teller: _Teller) -> dict[str, Any]:
        result = self._persistently(
            "ansible.legacy.async_status",
            {"jid": job["wrapper"], "mode": "status", "_async_dir": self._folder},
            teller,
        )
        self._persistently(_JOB_MODULE, {**job, "state": "absent"}, teller)
        for key in ("ansible_job_id", "finished", "started", "results_file"):
            result.pop(key, None)
        # What the wrapper says when it cannot read the module's answer: there was none, or a traceback.
        if result.get("failed") and "cmd" in result and not result.get("data"):
            result["msg"] = f"{self._name} was killed on the host. {self._next_run()}"
            result.pop("exception", None)
        return result

    def _persistently(self, name: str, arguments: dict[str, Any], teller: _Teller) -> dict[str, Any]:
        """Ask the host until it answers, connecting anew, for some minutes."""
        deadline = time.monotonic() + _RECONNECT_SECONDS
        while True:
            try:
                answer = self._module(name, arguments)
                # A connection that broke amid the answer.
                if answer.get("_ansible_parsed"):
                    return answer
                cause = str(answer.get("module_stderr") or answer.get("msg") or "no answer").strip()
            except AnsibleConnectionFailure as error:
                cause = str(error).strip()
            if time.monotonic() >= deadline:
                return {
                    "failed": True,
                    "msg": f"{self._name}: the host cannot be reached any more ({cause}). The work goes on there; "
                    "run this again when the host can be reached, it waits for what is still at work",
                }
            teller.lost(cause)
            self._reconnect()
            time.sleep(_POLL_SECONDS)

    def _reconnect(self) -> None:
        # Temporary folders of the broken connection are not asked for again.
        self._connection._shell.tmpdir = None
        try:
            self._connection.reset()
        except (AttributeError, AnsibleConnectionFailure) as error:
            display.vvv(f"{self._name}: reset of the connection: {error}")

    def _vanished(self) -> dict[str, Any]:
        return {
            "failed": True,
            "msg": f"{self._name}: its process on the host is gone and left no result (killed, or the host was "
            f"restarted). {self._next_run()}",
        }

    def _next_run(self) -> str:
        return "Run any playbook of the collection on this host: it finishes or takes back what was left half done"


class _Teller:
    """Shows what changed, and every few seconds how far it is."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._meter = Meter()
        self._phase: str | None = None
        self._next = 0.0
        self._lost_since: float | None = None

    def tell(self, status: dict[str, Any]) -> None:
        if self._lost_since is not None:
            self._show(f"connected again after {duration(time.monotonic() - self._lost_since)}")
            self._lost_since = None
        holder = _holder(status)
        progress = status.get("progress")
        working = bool(progress and progress["phase"])
        if working or not holder:
            self._line(_state(progress), "")
        else:
            self._line(
                _state((status["waits_for"] or {}).get("progress")),
                f"waiting for {holder.operation} (process {holder.pid} on {holder.node}): ",
            )

    def lost(self, cause: str) -> None:
        if self._lost_since is None:
            self._lost_since = time.monotonic()
            self._show(f"lost the connection ({cause}); the work goes on, trying again")

    def _line(self, state: State | None, before: str) -> None:
        phase = before + (state.phase if state else "")
        line = self._meter.line(state) if state else ""
        now = time.monotonic()
        if phase and (phase != self._phase or now >= self._next):
            self._phase, self._next = phase, now + _SHOW_SECONDS
            self._show((before + line).rstrip(": "))

    def _show(self, text: str) -> None:
        # Where ansible-playbook writes into a pipe or a file, its output waits in memory until the task has ended; what
        # goes to stderr does not, and a callback that writes JSON keeps its output to itself.
        display.display(f"{self._who}: {text}", stderr=True)


def _state(told: dict[str, Any] | None) -> State | None:
    return State(**told) if told else None


def _holder(found: dict[str, Any]) -> _lock.Holder | None:
    told = found.get("waits_for")
    return _lock.Holder(**{name: told[name] for name in _lock.Holder._fields}) if told else None
