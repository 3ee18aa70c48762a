# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What modules share that maintain a registry: their options, and the locks that they hold.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from ._lock import held, storage_lock

#: Parts of an argument spec; documented by the fragment dockyard.registry.maintenance and its part `progress`.
LOCK_OPTIONS: dict[str, dict[str, Any]] = {
    "lock": {"type": "path"},
    "lock_wait": {"type": "float", "default": 0.0},
}
WORK_OPTIONS: dict[str, dict[str, Any]] = {**LOCK_OPTIONS, "progress_file": {"type": "path"}}


def locked(params: Mapping[str, Any], operation: str, *, storage_only: bool) -> AbstractContextManager[None]:
    """Hold the registry's lock and that of its storage, or with `storage_only` the second, while this process works.

    Without a lock among the parameters, none.
    """
    lock = params["lock"]
    locks = [lock, storage_lock(lock)] if lock else []
    return held(locks[1:] if storage_only else locks, operation, wait=params["lock_wait"])
