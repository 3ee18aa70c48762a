# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills ansible-playbook (SIGKILL) at a task, to see what a run that breaks off leaves.

Environment: DOCKYARD_BREAK_AT is the number of the task, from 1;
DOCKYARD_BREAK_AFTER the seconds to let it run.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    """Counts tasks as they start."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "break_off"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._count = 0
        self._break_at = int(os.environ.get("DOCKYARD_BREAK_AT", "0"))
        self._after = float(os.environ.get("DOCKYARD_BREAK_AFTER", "0"))

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ARG002
        self._count += 1
        if self._count == self._break_at:
            threading.Timer(self._after, os.kill, (os.getpid(), signal.SIGKILL)).start()
