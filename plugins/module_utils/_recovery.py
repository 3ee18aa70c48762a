# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Heal what maintenance has left behind that was killed, or ended by a reboot or a full disk.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from pathlib import Path

from . import _collection, _repair, _restore_swap
from ._service import Service


def recover_all(root: str | Path, service: Service) -> list[str]:
    """Let each kind of maintenance finish or take back what it was in the middle of. Returns what was done.

    What cannot be healed raises RegistryError; what was healed before stays so.
    """
    # A restore may have to bring the data back in which garbage collection was at work.
    return [
        *_restore_swap.recover(str(root), service),
        *_collection.recover(root, service),
        *_repair.recover(str(root), service),
    ]
