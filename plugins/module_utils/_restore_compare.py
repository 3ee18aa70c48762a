# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore would change: what a backup holds against what is there.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from ._errors import RegistryError
from ._graph import read_graph
from ._reference import Digest
from ._restore_backup import Inventory
from ._source import DiskSource
from ._storage import Blob, Storage

Tags = dict[str, Digest]


class Difference(NamedTuple):
    """Tags as `repository:tag`, and blobs, of which there may be very many, as numbers."""

    added: list[str]
    removed: list[str]
    changed: list[str]
    blobs_added: int
    blobs_removed: int
    bytes_added: int
    bytes_removed: int
    before: str
    after: str
    #: What could not be compared.
    notes: list[str]


def compare(inventory: Inventory, data: str | os.PathLike[str]) -> Difference:
    """A store that is too damaged to be read counts as empty, and the notes say so."""
    notes = []
    try:
        storage = Storage(data)
        graph = read_graph(DiskSource(storage))
        present = {
            f"{name}:{tag.name}": tag.digest for name in graph.repositories() for tag in graph.tags(name)
        }
        blobs = {blob.digest: blob.size for blob in storage.blobs() if isinstance(blob, Blob)}
    except RegistryError as error:
        notes.append(f"what is there now could not be read: {error}")
        present, blobs = {}, {}
    wanted = {
        f"{name}:{tag}": digest
        for name, holding in inventory.repositories.items()
        for tag, (digest, _pushed) in holding.tags.items()
    }
    added = inventory.blobs.keys() - blobs.keys()
    removed = blobs.keys() - inventory.blobs.keys()
    return Difference(
        sorted(wanted.keys() - present.keys()),
        sorted(present.keys() - wanted.keys()),
        sorted(name for name in wanted.keys() & present.keys() if wanted[name] != present[name]),
        len(added),
        len(removed),
        sum(inventory.blobs[digest] for digest in added),
        sum(blobs[digest] for digest in removed),
        _text(present),
        _text(wanted),
        notes,
    )


def _text(tags: Tags) -> str:
    return "".join(f"{name}@{digest}\n" for name, digest in sorted(tags.items()))
