# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets runs of ansible-playbook share the modules that they pack, which each packs anew otherwise.

Environment: DOCKYARD_MODULES is the folder to keep them in. ansible-core writes and reads them under file locks.
"""

from __future__ import annotations

import os
from pathlib import Path

from ansible import constants as C
from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    """Puts a link where ansible-core keeps packed modules for one run (module_common.py: ansiballz_cache)."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "kept_modules"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        folder = os.environ.get("DOCKYARD_MODULES", "")
        link = Path(C.DEFAULT_LOCAL_TMP) / "ansiballz_cache"
        if folder and not link.exists():
            link.symlink_to(folder)
