# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder with backups: which there are, what builds on what, which are kept, what killed runs have left.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import calendar
import fcntl
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ._archive import ArchiveError, is_archive_name, read_sidecar, sidecar_of
from ._errors import RegistryError
from ._files import atomic_write, read_file
from ._reference import Digest, InvalidReference

_PARTIAL = ".partial"
_BLOBS = ".blobs"
# What atomic_write() leaves of the two files beside an archive.
_UNFINISHED = re.compile(r"\.(.+)(\.json|\.blobs)\.[0-9a-f]+\.dockyard-new")


class Listed(NamedTuple):
    """An archive in a folder, as its sidecar says."""

    name: str
    path: Path
    #: "full" or "incremental"; empty where there is no sidecar.
    kind: str
    #: The name of the archive that it builds on; empty for a full one.
    parent: str
    #: Unix time; of the file where there is no sidecar.
    created: float
    size: int
    sha256: str
    hostname: str
    root: str
    counts: dict[str, int]
    encrypted: bool
    #: What is wrong with it or with what it builds on; empty for one that can be restored.
    problem: str = ""
    #: All archives that are needed to restore it, the full one first, itself last.
    chain: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        return not self.problem


class Keep(NamedTuple):
    """Which backups are kept: those that one of these keeps. Where all are None, all are kept."""

    #: So many of the newest.
    newest: int | None = None
    #: So many of the newest full ones, with what builds on them.
    full: int | None = None
    #: Those that are younger than so many seconds.
    age: float | None = None


def list_backups(folder: str | os.PathLike[str]) -> list[Listed]:
    """Every archive in a folder, the oldest first. Sums are not looked at. Raises ArchiveError."""
    found = {}
    for name in _names(Path(folder)):
        if is_archive_name(name):
            with suppress(FileNotFoundError):
                found[name] = _read(Path(folder, name))
    for name in found:
        _follow(found, name, ())
    return sorted(found.values(), key=lambda listed: (listed.created, listed.name))


def choose_removed(backups: Sequence[Listed], keep: Keep, now: float) -> list[Listed]:
    """The backups that the rules do not keep, in the order in which they may be removed.

    What a kept one builds on is kept, and so is the newest. Those that are damaged count for nothing, and are
    left to a person.
    """
    if keep == Keep():
        return []
    good = sorted((one for one in backups if one.is_complete), key=lambda one: (one.created, one.name))
    fulls = [one.name for one in good if one.kind == "full"]
    newest_fulls = set(fulls[-keep.full :]) if keep.full else set()
    newest = {one.name for one in good[-max(keep.newest or 0, 1) :]}
    kept = {
        name
        for one in good
        if one.name in newest
        or one.chain[0] in newest_fulls
        or (keep.age is not None and now - one.created < keep.age)
        for name in one.chain
    }
    # What a damaged one builds on is not taken from it.
    kept.update(one.parent for one in backups if not one.is_complete)
    kept.update(name for one in good if one.name in kept for name in one.chain)
    # Newest first: a run that is killed meanwhile leaves nothing that builds on what is gone.
    return [one for one in reversed(good) if one.name not in kept]


def remove(backup: Listed) -> None:
    """Remove an archive and what lies beside it. Raises ArchiveError."""
    try:
        for path in (backup.path, sidecar_of(backup.path), _blobs_of(backup.path)):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise ArchiveError(f"remove {backup.path}: {error.strerror or error}") from error


def clean(folder: str | os.PathLike[str]) -> list[str]:
    """Remove what killed runs have left in a folder, and say what. Raises ArchiveError."""
    names = set(_names(Path(folder)))
    removed = []
    for name in sorted(names):
        path = Path(folder, name)
        if _is_left_over(path, names):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise ArchiveError(f"remove {path}: {error.strerror or error}") from error
            removed.append(name)
    return removed


def write_blob_list(archive: Path, digests: Iterable[Digest]) -> None:
    """Note beside an archive which blobs its chain has, so that the next one can do without them.

    They are in its inventory, too, which cannot be read on this host where it is encrypted.
    """
    content = "".join(f"{digest}\n" for digest in digests).encode()
    atomic_write(_blobs_of(archive), content, mode=0o600)


def read_blob_list(archive: Path) -> set[Digest] | None:
    """The blobs that an archive and those it builds on have; None where that is not noted."""
    found = read_file(_blobs_of(archive))
    if found is None:
        return None
    try:
        return {Digest(line) for line in found[0].decode("ascii").splitlines()}
    except (InvalidReference, UnicodeDecodeError):
        return None


def _blobs_of(archive: Path) -> Path:
    return archive.with_name(f"{archive.name}{_BLOBS}")


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 (names are what is wanted)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ArchiveError(f"read {folder}: {error.strerror or error}") from error


def _is_left_over(path: Path, names: set[str]) -> bool:
    name = path.name
    if name.endswith(_PARTIAL) and name.startswith(".") and is_archive_name(name[1 : -len(_PARTIAL)]):
        return not _is_being_written(path)
    unfinished = _UNFINISHED.fullmatch(name)
    archive, ending = unfinished.groups() if unfinished else (path.stem, path.suffix)
    # Both are written before the archive gets its name.
    is_beside = ending in (".json", _BLOBS) and is_archive_name(archive) and archive not in names
    return is_beside and not _is_being_written(path.with_name(f".{archive}{_PARTIAL}"))


def _is_being_written(path: Path) -> bool:
    """Whether its writer lives, who holds a lock on it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _read(path: Path) -> Listed:
    status = path.stat()
    name = path.name
    unknown = Listed(name, path, "", "", status.st_mtime, status.st_size, "", "", "", {}, _is_encrypted(name))
    try:
        fields = read_sidecar(path)
    except RegistryError as error:
        return unknown._replace(problem=str(error))
    if fields is None:
        return unknown._replace(problem="it has no sidecar, so that it may be cut off")
    try:
        listed = _listed(path, fields)
    except (KeyError, TypeError, ValueError) as error:
        return unknown._replace(problem=f"its sidecar cannot be understood ({error})")
    if listed.name != name:
        return listed._replace(name=name, problem=f"its sidecar is that of {listed.name}")
    if listed.size != status.st_size:
        return listed._replace(problem=f"it has {status.st_size} bytes and should have {listed.size}")
    return listed


def _listed(path: Path, fields: dict[str, Any]) -> Listed:
    kind, parent = str(fields["kind"]), fields["parent"] or ""
    if (kind == "full") == bool(parent) or not isinstance(parent, str):
        raise ValueError(f"{kind}, and builds on {parent or 'nothing'}")
    return Listed(
        str(fields["name"]),
        path,
        kind,
        parent,
        calendar.timegm(time.strptime(fields["created"], "%Y-%m-%dT%H:%M:%SZ")),
        int(fields["size"]),
        str(fields["sha256"]),
        str(fields["hostname"]),
        str(fields["root"]),
        {str(name): int(count) for name, count in fields["counts"].items()},
        _is_encrypted(path.name),
    )


def _is_encrypted(name: str) -> bool:
    return name.endswith((".age", ".gpg"))


def _follow(found: dict[str, Listed], name: str, above: tuple[str, ...]) -> Listed:
    """Fill in the chain of an archive, or what is wrong with it."""
    listed = found[name]
    if listed.chain or listed.problem:
        return listed
    if not listed.parent:
        listed = listed._replace(chain=(name,))
    elif listed.parent in above or listed.parent == name:
        listed = listed._replace(problem="it builds on itself")
    elif listed.parent not in found:
        listed = listed._replace(problem=f"it builds on {listed.parent}, which is not there")
    else:
        parent = _follow(found, listed.parent, (*above, name))
        if parent.problem:
            listed = listed._replace(
                problem=f"it builds on {parent.name}, which is damaged: {parent.problem}"
            )
        else:
            listed = listed._replace(chain=(*parent.chain, name))
    found[name] = listed
    return listed


def newest_chain(backups: Iterable[Listed], hostname: str, root: str) -> Iterator[Listed]:
    """The backups of this registry that a next one may build on, the newest first."""
    mine = [one for one in backups if one.is_complete and (one.hostname, one.root) == (hostname, root)]
    yield from sorted(mine, key=lambda one: (one.created, one.name), reverse=True)


def chain_of(folder: str | os.PathLike[str], name: str) -> list[Listed]:
    """A backup (`latest` is the newest that is complete) after all that it builds on. Raises ArchiveError."""
    listed = {one.name: one for one in list_backups(folder)}
    complete = [one for one in listed.values() if one.is_complete]
    found = complete[-1] if name == "latest" and complete else listed.get(name)
    if found is None:
        names = ", ".join(reversed(listed)) or "none"
        raise ArchiveError(f"find the backup {name}: there is no such one in {folder}; there are: {names}")
    if found.problem:
        raise ArchiveError(f"find the backup {name}: {found.problem}; use another one")
    return [listed[each] for each in found.chain]


def beside(archive: Path) -> dict[str, str]:
    """What lies beside an archive: the end of the name, and the content."""
    found = {".json": read_file(sidecar_of(archive)), _BLOBS: read_file(_blobs_of(archive))}
    return {ending: each[0].decode() for ending, each in found.items() if each}
