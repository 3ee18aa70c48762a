# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long work says how far it is: a callable that engines are given.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called often; whoever listens limits what is shown."""

    def __call__(self, phase: str, done: int = 0, total: int = 0) -> None:
        """`phase` is a short text such as "hash blobs"; done and total are in bytes or things, 0 where unknown."""


def silent(phase: str, done: int = 0, total: int = 0) -> None:
    """Nobody listens."""
