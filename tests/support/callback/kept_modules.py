# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Spares runs of ansible-playbook what they do again and again; what they do to a host stays the same.

Environment: DOCKYARD_MODULES is the folder where they share the modules that they pack, which each packs anew
otherwise. ansible-core writes and reads them under file locks.
"""

from __future__ import annotations

import os
from pathlib import Path

from ansible import constants as C
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import action_loader, connection_loader, filter_loader, shell_loader, test_loader

#: One of each file of plugins that playbooks here use.
_PLUGINS = {
    action_loader: ("assert", "command", "copy", "debug", "normal", "set_fact", "template"),
    connection_loader: ("local",),
    shell_loader: ("sh",),
    filter_loader: (
        "ansible.builtin.combine",
        "ansible.builtin.union",
        "dockyard.registry.config_merge",
        "dockyard.registry.user_problems",
    ),
    test_loader: ("ansible.builtin.search", "ansible.builtin.subset", "ansible.builtin.exists"),
}


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
        # Each task runs in a process of its own, which loads what this one has not.
        for loader, names in _PLUGINS.items():
            for name in names:
                loader.get(name, class_only=True)
