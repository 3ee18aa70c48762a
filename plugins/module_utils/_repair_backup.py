# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Blobs out of this collection's backups, for the repair of a store.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ._archive import Archive, blob_of
from ._backup_folder import Listed, list_backups, read_blob_list
from ._reference import Digest
from ._storage import Sink

_PIECE = 1024 * 1024


class BackupSource:
    """The backups in a folder, the newest first. Encrypted ones are passed over: their key is not on this host."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.name = f"the backups in {os.fspath(folder)}"
        backups = sorted(list_backups(folder), key=lambda backup: backup.created, reverse=True)
        self._backups = [backup for backup in backups if not backup.encrypted]

    def fetch(self, repository: str, digest: Digest, target: Sink) -> bool:  # noqa: ARG002 (blobs belong to all)
        """As BlobSource. Raises ArchiveError."""
        return any(_fetch(backup, digest, target) for backup in self._backups)


def _fetch(backup: Listed, digest: Digest, target: Sink) -> bool:
    known = read_blob_list(Path(backup.path))
    if known is not None and digest not in known:
        return False
    with Archive.open(backup.path) as archive:
        for member in archive.members():
            if blob_of(member.path) == digest:
                shutil.copyfileobj(member.stream, target, _PIECE)
                return True
    return False
