# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup to be restored: one archive of ours, a chain of them, or a tar file that somebody made by hand.

Private to the collection: no stable interface.

    backup = find_backup("latest", "/var/backups/registry")
    for member in backup.members(): ...

Paths of members are those below the registry's root, whatever the archive calls them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ._archive import (
    DATA,
    HEADER,
    Archive,
    ArchiveError,
    Member,
    blob_of,
    is_archive_name,
    open_stream,
    safe_members,
)
from ._backup_folder import list_backups
from ._reference import Digest, InvalidReference, parse_repository, parse_tag
from ._storage import Kind, Place, place_of

#: What can be restored, and where that is below the root.
PARTS: Mapping[str, tuple[str, ...]] = {
    "data": (DATA,),
    "users": ("auth/",),
    "config": ("config/",),
    "secrets": ("secrets/",),
    "certificates": ("certs/",),
}

_LATEST = "latest"
_IN_DATA = re.compile(r"(?P<prefix>(?:.+/)?)docker/registry/v2/(?P<path>.+)", re.DOTALL)
# What lies beside the data in archives made by hand, and where it belongs.
_BY_HAND = {"config.yml": "config/config.yml"}
_LINK_LIMIT = 256
_UPLOADS = "/_uploads/"
_SHOWN = 20


class Holding(NamedTuple):
    """What a repository has in a backup."""

    #: Tag to the manifest that it points to, and the Unix time of its push where that is known.
    tags: dict[str, tuple[Digest, float | None]]
    manifests: set[Digest]
    layers: set[Digest]


class Inventory(NamedTuple):
    """All that a backup restores."""

    repositories: dict[str, Holding]
    #: Sizes in bytes.
    blobs: dict[Digest, int]
    #: Whether it was written down when the backup was made, and not found out by reading the archive.
    is_recorded: bool

    @property
    def tags(self) -> int:
        return sum(len(holding.tags) for holding in self.repositories.values())

    @property
    def bytes(self) -> int:
        return sum(self.blobs.values())


class Backup:
    """What find_backup() has found, and read as far as its inventory.

    Attributes: `name` and `path` (of the archive), `inventory`, `parts` (those of PARTS that it has), `chain`
    (all archives that are read, the newest first), `is_checked` (whether members() vouches for the blobs),
    `kind` (`full`, `incremental` or `by hand`), `created` (ISO 8601; empty where nothing tells).
    """

    def __init__(
        self,
        chain: list[Path],
        kind: str,
        created: str,
        inventory: Inventory,
        parts: list[str],
        identity: str | None,
    ) -> None:
        self.path = chain[0]
        self.name = self.path.name
        self.chain = chain
        self.kind = kind
        self.created = created
        self.inventory = inventory
        self.parts = parts
        self.is_checked = kind != "by hand"
        self._identity = identity

    def members(self) -> Iterator[Member]:
        """Every file of the backup, once. Nothing may be used before it is through. Raises ArchiveError."""
        missing: set[Digest | None] = set(self.inventory.blobs)
        with Archive.open(self.path, identity=self._identity) as archive:
            for member in archive.members():
                missing.discard(blob_of(member.path))
                yield member
        for path in self.chain[1:]:
            if not missing:
                return
            with Archive.open(path, identity=self._identity) as archive:
                for member in archive.members():
                    digest = blob_of(member.path)
                    if digest in missing:
                        missing.discard(digest)
                        yield member


class _ByHand(Backup):
    """An archive that has no record of what is in it: it was read once, to find that out."""

    def __init__(self, path: Path, identity: str | None) -> None:
        self._prefix: str | None = None
        self._beside: dict[str, int] = {}
        inventory = Inventory({}, {}, is_recorded=False)
        with open_stream(path, identity=identity) as stream:
            for member in safe_members(os.fspath(path), stream):
                self._look_at(path, member, inventory)
            while stream.read(1 << 20):
                pass
        if self._prefix is None:
            raise ArchiveError(
                f"read {path}: it is no backup of a registry: it has neither {HEADER} nor docker/registry/v2"
            )
        inside = [self._place_beside(name) for name in self._beside]
        parts = [
            part for part, places in PARTS.items() if any(name and name.startswith(places) for name in inside)
        ]
        super().__init__([path], "by hand", "", inventory, ["data", *parts], identity)

    def members(self) -> Iterator[Member]:
        with open_stream(self.path, identity=self._identity) as stream:
            for member in safe_members(os.fspath(self.path), stream):
                found = _IN_DATA.fullmatch(member.path)
                if found is None:
                    place = self._place_beside(_plain(member.path))
                elif _UPLOADS in found["path"]:
                    # Nobody can go on with an upload of that time.
                    place = ""
                else:
                    place = DATA + found["path"]
                if place:
                    yield member._replace(path=place)

    def _look_at(self, path: Path, member: Member, inventory: Inventory) -> None:
        found = _IN_DATA.fullmatch(member.path)
        if found is None:
            self._beside[_plain(member.path)] = member.size
            return
        prefix = _plain(found["prefix"])
        if self._prefix not in (None, prefix):
            raise ArchiveError(
                f"read {path}: it holds two registries, in {self._prefix or '.'} and {prefix or '.'}"
            )
        self._prefix = prefix
        place = place_of(found["path"])
        if place is not None:
            _note(inventory, place, member)

    def _place_beside(self, name: str) -> str:
        """Where a file beside the data belongs; empty for one that has no place."""
        prefix = self._prefix or ""
        if prefix != "data/" and not prefix.endswith("/data/"):
            return ""
        root = prefix[: -len("data/")]
        if not name.startswith(root):
            return ""
        inside = name[len(root) :]
        place = _BY_HAND.get(inside, inside)
        return place if place.startswith(tuple(p for part in PARTS.values() for p in part)) else ""


def find_backup(name: str, folder: str | os.PathLike[str], identity: str | None = None) -> Backup:
    """The backup of this name in a folder, the one at this path, or the `latest` one. Raises ArchiveError."""
    path = _locate(name, Path(folder))
    if identity is not None and not Path(identity).is_file():
        raise ArchiveError(f"read {path}: there is no file {identity} with the key (identity)")
    if not _is_ours(path, identity):
        return _ByHand(path, identity)
    with Archive.open(path, identity=identity) as archive:
        header = archive.header
        inventory = read_inventory(os.fspath(path), archive.inventory())
    parts = header.get("parts")
    return Backup(
        _chain(path, header, identity),
        str(header.get("kind", "full")),
        str(header.get("created", "")),
        inventory,
        [part for part in PARTS if isinstance(parts, list) and part in parts],
        identity,
    )


def read_inventory(path: str, document: Mapping[str, Any]) -> Inventory:
    """The inventory of an archive of ours; names and digests in it are checked. Raises ArchiveError."""
    try:
        return Inventory(
            {
                parse_repository(name): Holding(
                    {
                        parse_tag(tag): (Digest(entry["digest"]), _time(entry.get("pushed")))
                        for tag, entry in fields["tags"].items()
                    },
                    set(map(Digest, fields["manifests"])),
                    set(map(Digest, fields["layers"])),
                )
                for name, fields in document["repositories"].items()
            },
            {Digest(digest): int(size) for digest, size in document["blobs"].items()},
            is_recorded=True,
        )
    except (InvalidReference, LookupError, TypeError, ValueError, AttributeError) as error:
        raise ArchiveError(f"read {path}: its inventory cannot be understood ({error})") from error


def _locate(name: str, folder: Path) -> Path:
    if not name:
        raise ArchiveError("restore: name the backup (backup)")
    if "/" in name:
        return Path(name)
    path = folder / name
    if name != _LATEST and path.is_file():
        return path
    known = list_backups(folder)
    whole = [listed for listed in known if listed.is_complete]
    if name == _LATEST and whole:
        return whole[-1].path
    some = ", ".join(listed.name for listed in reversed(known[-_SHOWN:])) or "none"
    raise ArchiveError(f"restore {name}: there is no such backup in {folder}; there are: {some}")


def _is_ours(path: Path, identity: str | None) -> bool:
    with open_stream(path, identity=identity) as stream:
        first = next(safe_members(os.fspath(path), stream), None)
    if first is None:
        raise ArchiveError(f"read {path}: there is nothing in it")
    return first.path == HEADER


def _chain(path: Path, header: Mapping[str, Any], identity: str | None) -> list[Path]:
    """An archive and those that it builds on, down to a full one."""
    chain = [path]
    while parent := header.get("parent"):
        if not isinstance(parent, str) or not is_archive_name(parent):
            raise ArchiveError(f"read {chain[-1]}: it builds on {parent!r}, which is no name of a backup")
        below = path.with_name(parent)
        if below in chain:
            raise ArchiveError(f"read {below}: it builds on itself")
        if not below.is_file():
            raise ArchiveError(
                f"read {chain[-1]}: it is an incremental backup that builds on {parent}, which is not in "
                f"{path.parent}; put that one there"
            )
        chain.append(below)
        with Archive.open(below, identity=identity) as archive:
            header = archive.header
        if header.get("name") != parent:
            raise ArchiveError(f"read {below}: it says that it is {header.get('name')}")
    return chain


def _note(inventory: Inventory, place: Place, member: Member) -> None:
    """Write down what a file of a store is."""
    if place.kind is Kind.BLOB:
        if place.digest is not None:
            inventory.blobs[place.digest] = member.size
        return
    holding = inventory.repositories.setdefault(place.repository, Holding({}, set(), set()))
    if place.kind is Kind.TAG:
        digest = _link_in(member)
        if digest is not None:
            holding.tags[place.tag] = (digest, member.mtime)
    elif place.digest is not None and place.kind is Kind.REVISION:
        holding.manifests.add(place.digest)
    elif place.digest is not None and place.kind is Kind.LAYER:
        holding.layers.add(place.digest)


def _link_in(member: Member) -> Digest | None:
    try:
        return Digest(member.stream.read(_LINK_LIMIT).decode("ascii"))
    except (UnicodeDecodeError, InvalidReference):
        # Unpacking names it.
        return None


def _plain(path: str) -> str:
    return path[2:] if path.startswith("./") else path


def _time(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
