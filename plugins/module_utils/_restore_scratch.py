# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore beside the running registry: a drill that pulls everything, and the folder that this needs.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ._client import RegistryClient
from ._manifest import parse_manifest
from ._progress import Progress
from ._reference import Digest
from ._restore_backup import Backup
from ._restore_swap import RestoreError
from ._restore_unpack import require_space, unpack
from ._service import Service

_PREFIX = ".dockyard-scratch-"
_SHOWN = 20


class Drill(NamedTuple):
    """What a registry on the restored contents has served, byte for byte."""

    tags: int
    manifests: int
    blobs: int
    bytes: int
    seconds: float
    #: Damage that was there before the backup, and what is in it besides.
    notes: list[str]


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A name for a new folder that is deleted at the end; so are those of runs that were killed."""
    own = parent / f"{_PREFIX}{secrets.token_hex(8)}"
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _delete_abandoned(parent)
        own.mkdir(mode=0o711)
        descriptor = os.open(own, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise RestoreError(f"make a folder in {parent}: {error.strerror or error}") from error
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield own / "data"
    finally:
        shutil.rmtree(own, ignore_errors=True)
        os.close(descriptor)


def drill(
    backup: Backup, scratch_dir: Path, like: Path, service: Service, progress: Progress, connections: int
) -> Drill:
    """Restore into a scratch registry, pull every tag from it, and throw it away.

    Raises RegistryError with what cannot be restored or pulled.
    """
    begin = time.monotonic()
    with scratch_folder(scratch_dir) as folder:
        require_space(folder.parent, backup.inventory)
        unpacked = unpack(backup, folder, like, progress)
        require_undamaged(backup, unpacked.damage)
        with service.scratch(folder) as url, RegistryClient(url, connections=connections) as client:
            pulled = _pull_all(client, backup, progress)
    return Drill(*pulled, time.monotonic() - begin, unpacked.notes)


def require_undamaged(backup: Backup, damage: list[str]) -> None:
    """Raise RestoreError that names what is damaged."""
    if damage:
        more = f"\n… and {len(damage) - _SHOWN} more" if len(damage) > _SHOWN else ""
        raise RestoreError(
            f"restore {backup.name}: this backup is not whole:\n" + "\n".join(damage[:_SHOWN]) + more
        )


def _pull_all(client: RegistryClient, backup: Backup, progress: Progress) -> tuple[int, int, int, int]:
    tags = [
        (name, tag, digest)
        for name, holding in backup.inventory.repositories.items()
        for tag, (digest, _pushed) in holding.tags.items()
    ]
    blobs: dict[Digest, str] = {}
    seen: set[tuple[str, Digest]] = set()
    size = 0

    def pull_tag(item: tuple[str, str, Digest]) -> tuple[str, Digest]:
        name, tag, digest = item
        found = client.manifest(name, tag).digest
        if found != digest:
            raise RestoreError(f"pull {name}:{tag}: it is {found}, not {digest}")
        return name, digest

    waiting = list(client.map(pull_tag, tags))
    while waiting:
        waiting = [item for item in dict.fromkeys(waiting) if item not in seen]
        seen.update(waiting)
        further = []
        for name, _digest, raw in client.map(lambda item: (*item, client.manifest(*item).raw), waiting):
            size += len(raw)
            progress("pull manifests", len(seen))
            manifest = parse_manifest(raw)
            known = backup.inventory.repositories[name]
            further += [
                (name, child.digest) for child in manifest.children if child.digest in known.manifests
            ]
            needed = [*manifest.layers, *([manifest.config] if manifest.config else [])]
            blobs.update({one.digest: name for one in needed if one.digest in known.layers})
        waiting = further
    for count, got in enumerate(
        client.map(lambda item: client.pull_blob(item[1], item[0], _ignore), blobs.items()), start=1
    ):
        size += got
        progress("pull blobs", count, len(blobs))
    return len(tags), len(seen), len(blobs), size


def _ignore(_piece: bytes) -> None:
    """What is pulled is only compared with its digest."""


def _delete_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(FileNotFoundError, BlockingIOError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
