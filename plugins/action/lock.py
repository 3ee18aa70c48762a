# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control machine's half of dockyard.registry.lock: it names the ansible-playbook process as the owner, knows
whether an earlier one of this machine is dead, and waits."""

from __future__ import annotations

import os
import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.dockyard.registry.plugins.module_utils import _lock

POLL_SECONDS = 1.0


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible has no types
    """Runs the module until it has the lock or the time to wait is over."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if arguments.get("state", "present") == "absent":
            return self._call(arguments, task_vars)

        # Tasks run in a worker process; the play is its parent.
        arguments["owner"] = _lock.process(os.getppid())._asdict()
        deadline = time.monotonic() + int(arguments.get("wait", 0))
        while True:
            result = self._call(arguments, task_vars)
            holder = result.get("holder")
            if not holder:
                return result
            if _lock.is_dead(_lock.Holder(**holder)):
                arguments["known_dead"] = holder["token"]
            elif time.monotonic() >= deadline:
                return result
            else:
                time.sleep(POLL_SECONDS)

    def _call(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
        return result
