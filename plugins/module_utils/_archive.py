# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backup archives, format 1: their writer and their reader.

    writer = ArchiveWriter("/var/backups/registry", "registry-20260131T120000Z-full.tar", header)
    with Archive.open(path) as archive: ...

An archive is a tar file that a person can restore with `tar -xf` alone:

    dockyard-backup.json        who wrote it, when, what it builds on
    inventory.json              all that the chain of archives restores: tags, manifests, layers, blobs
    compose.yml, config/...     the small files, as below the registry's root
    data/docker/registry/v2/... links with their modification times, then blobs, each in order of names
    dockyard-backup.end.json    sums of all files that are no blobs; an archive without it is cut off

Private to the collection: no stable interface.
"""

from __future__ import annotations

from ._archive_format import (
    BLOBS,
    DATA,
    END,
    FORMAT,
    HEADER,
    INVENTORY,
    PROGRAM,
    ArchiveError,
    Compression,
    Encryption,
    archive_suffix,
    blob_of,
    is_archive_name,
    read_sidecar,
    sidecar_of,
)
from ._archive_read import Archive, Member, iterate, open_stream, read_header, read_inventory, safe_members
from ._archive_write import ArchiveWriter, Written

__all__ = [
    "BLOBS",
    "DATA",
    "END",
    "FORMAT",
    "HEADER",
    "INVENTORY",
    "PROGRAM",
    "Archive",
    "ArchiveError",
    "ArchiveWriter",
    "Compression",
    "Encryption",
    "Member",
    "Written",
    "archive_suffix",
    "blob_of",
    "is_archive_name",
    "iterate",
    "open_stream",
    "read_header",
    "read_inventory",
    "read_sidecar",
    "safe_members",
    "sidecar_of",
]
