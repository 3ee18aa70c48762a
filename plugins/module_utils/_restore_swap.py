# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put restored data and files in the place of the present ones, or take that back: whole, whatever is killed.

Private to the collection: no stable interface.

What is under way stands in the journal before it is done. Until the registry has answered with the new contents,
recover() takes everything back; from then on it finishes.

    filling    a folder is being filled; nothing that the registry uses has been touched
    swapping   the registry may be stopped, folders may be renamed, files may be replaced
    answered   the new contents work; only the old ones are left to be removed
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ._errors import RegistryError
from ._files import Attributes, atomic_write, attributes_of, read_file, sync_folder
from ._journal import Journal
from ._service import Service

OPERATION = "restore"

_FILLING = "filling"
_SWAPPING = "swapping"
_ANSWERED = "answered"

_OLD_FILES = "maintenance/restore-old"
_NEW_FOLDER_MODE = 0o750


class RestoreError(RegistryError):
    """It cannot be restored. What was there before is there, unless the message says something else."""


class SmallFile(NamedTuple):
    """A file to be restored."""

    #: Below the registry's root.
    path: str
    content: bytes
    #: For a file that is not there yet; one that is keeps its owner and mode.
    mode: int


class Places(NamedTuple):
    """Where the contents of a data folder are before, during and after a restore."""

    #: The folder that is mounted at /var/lib/registry.
    data: Path
    #: To be filled with what that one holds.
    fresh: Path
    #: The two that change places, and where the old contents wait.
    new: Path
    live: Path
    old: Path


def places_of(data: str | os.PathLike[str]) -> Places:
    """Raises RestoreError where there is no such folder."""
    # The folder, not a link to it, changes its name.
    folder = Path(os.path.realpath(data))
    if not folder.is_dir():
        raise RestoreError(
            f"restore to {os.fspath(data)}: there is no such folder; deploy the registry first"
        )
    if folder.is_mount():
        # It cannot be renamed, and what lies beside it is on another file system.
        fresh = folder / ".dockyard-new"
        return Places(folder, fresh, fresh / "docker", folder / "docker", folder / ".dockyard-old")
    fresh = folder.with_name(f"{folder.name}.dockyard-new")
    return Places(folder, fresh, fresh, folder, folder.with_name(f"{folder.name}.dockyard-old"))


class Swap:
    """One restore of data (`places`; None where only files are restored) and files below `root`."""

    def __init__(self, root: str | os.PathLike[str], service: Service, places: Places | None) -> None:
        self._root = Path(root)
        self._service = service
        self._places = places
        self._journal = Journal(root, OPERATION)
        self._state: dict[str, Any] = {
            "state": _FILLING,
            "data": os.fspath(places.data) if places else "",
            "folder": os.fspath(places.fresh) if places else "",
            "files": {},
        }

    def begin(self) -> None:
        """Announce that the fresh folder is about to be filled. Raises RegistryError."""
        if self._places and os.path.lexists(self._places.old):
            raise RestoreError(
                f"restore to {self._places.data}: {self._places.old} is there and no restore is under way; "
                "look at what it holds and move it away"
            )
        self._journal.write(self._state)
        _remove(self._state["folder"])

    def abandon(self) -> None:
        """Forget what was filled; nothing else has been touched."""
        _forget(self._root, self._journal, self._state)

    def carry_out(
        self,
        files: Sequence[SmallFile],
        *,
        restart: bool,
        keep_old: bool,
        before_start: Callable[[], None],
        check: Callable[[], None],
    ) -> str:
        """Swap everything in and let `check` raise RegistryError where the registry does not serve it.

        With `restart` the registry is stopped meanwhile, and `before_start` called before it starts again.
        Returns where the old data is kept, if it is. Raises RestoreError after everything was taken back.
        """
        try:
            running = self._service.is_running()
            self._state.update(
                state=_SWAPPING,
                was_running=running,
                restart=restart,
                had_data=self._places is not None and os.path.lexists(self._places.live),
                keep=_kept_name(self._places) if keep_old and self._places else "",
                files=self._save_old_files(files),
            )
            self._journal.write(self._state)
        except BaseException:
            self.abandon()
            raise
        try:
            if restart:
                self._service.stop()
            self._rename_in()
            for file in files:
                _write_file(self._root, file)
            if restart:
                before_start()
                self._service.start()
            check()
        except (RegistryError, OSError) as error:
            raise self._taken_back(error, before_start) from error
        self._state["state"] = _ANSWERED
        self._journal.write(self._state)
        if not running:
            self._service.stop()
        return _finish(self._root, self._journal, self._state)

    def _save_old_files(self, files: Sequence[SmallFile]) -> dict[str, str]:
        """Copy the files that are replaced: path to the name of the copy, empty where there is no such file."""
        _remove(self._root / _OLD_FILES)
        saved: dict[str, str] = {}
        if files:
            (self._root / _OLD_FILES).mkdir(mode=0o700)
        for number, file in enumerate(files):
            found = read_file(self._root / file.path)
            saved[file.path] = str(number) if found else ""
            if found:
                atomic_write(
                    self._root / _OLD_FILES / str(number), found[0], **attributes_of(found[1])._asdict()
                )
        return saved

    def _rename_in(self) -> None:
        if not self._places:
            return
        if self._state["had_data"]:
            _rename(self._places.live, self._places.old)
        _rename(self._places.new, self._places.live)

    def _taken_back(self, cause: RegistryError | OSError, before_start: Callable[[], None]) -> RestoreError:
        try:
            _take_back(self._root, self._service, self._journal, self._state, before_start)
        except (RegistryError, OSError) as error:
            return RestoreError(
                f"{cause}\nThe former contents could not be brought back, either: {error}\n"
                "The next run of any playbook tries again."
            )
        return RestoreError(f"{cause}\nThe former contents are in their place again.")


def recover(root: str | os.PathLike[str], service: Service) -> list[str]:
    """Finish or take back a restore that was killed, and say so. Raises RegistryError; safe to repeat."""
    journal = Journal(root, OPERATION)
    state = journal.read()
    if state is None:
        return []
    try:
        if state["state"] == _FILLING:
            _forget(Path(root), journal, state)
            return ["restore: it was broken off before anything was touched; its leftovers are removed"]
        if state["state"] == _SWAPPING:
            _take_back(Path(root), service, journal, state)
            return ["restore: it was broken off; the former contents are in their place again"]
        if state["was_running"]:
            service.start()
        else:
            service.stop()
        _finish(Path(root), journal, state)
    except KeyError as error:
        raise RestoreError(f"read {journal.path}: not a journal of a restore ({error} is missing)") from error
    except OSError as error:
        raise RestoreError(f"recover the restore of {os.fspath(root)}: {error}") from error
    return ["restore: it was broken off when the new contents worked already; the former ones are removed"]


def _take_back(
    root: Path,
    service: Service,
    journal: Journal,
    state: dict[str, Any],
    before_start: Callable[[], None] = lambda: None,
) -> None:
    """Everything as it was before; each step may have been done already."""
    if state["restart"] or not state["was_running"]:
        service.stop()
    if state["data"]:
        _rename_back(_places_in(state), had_data=state["had_data"])
    for path, saved in state["files"].items():
        _put_file_back(root, path, saved)
    if state["was_running"]:
        before_start()
        service.start()
    _forget(root, journal, state)


def _rename_back(places: Places, *, had_data: bool) -> None:
    is_swapped = not os.path.lexists(places.new)
    if is_swapped and os.path.lexists(places.live) and os.path.lexists(places.old) == had_data:
        _rename(places.live, places.new)
    if os.path.lexists(places.old):
        _rename(places.old, places.live)


def _put_file_back(root: Path, path: str, saved: str) -> None:
    target = root / path
    if not saved:
        target.unlink(missing_ok=True)
        return
    found = read_file(root / _OLD_FILES / saved)
    now = read_file(target)
    if found is None or (now and now[0] == found[0]):
        return
    atomic_write(
        target,
        found[0],
        **attributes_of(found[1])._asdict(),
        newer_than_ns=now[1].st_mtime_ns if now else None,
    )


def _finish(root: Path, journal: Journal, state: dict[str, Any]) -> str:
    """Remove what is old, or keep the data under a name of its own; returns that."""
    kept = ""
    if state["data"]:
        places = _places_in(state)
        kept = state["keep"] if state["had_data"] else ""
        if kept and os.path.lexists(places.old):
            _rename(places.old, Path(kept))
        _remove(places.old)
    _forget(root, journal, state)
    return kept


def _forget(root: Path, journal: Journal, state: dict[str, Any]) -> None:
    _remove(state["folder"])
    _remove(root / _OLD_FILES)
    journal.remove()


def _places_in(state: dict[str, Any]) -> Places:
    # The data folder itself may have another name at this moment.
    data, fresh = Path(state["data"]), Path(state["folder"])
    if fresh.parent == data:
        return Places(data, fresh, fresh / "docker", data / "docker", data / ".dockyard-old")
    return Places(data, fresh, fresh, data, data.with_name(f"{data.name}.dockyard-old"))


def _kept_name(places: Places) -> str:
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return f"{places.old}-{moment}"


def _write_file(root: Path, file: SmallFile) -> None:
    target = root / file.path
    found = read_file(target)
    if found and found[0] == file.content:
        return
    if found:
        attributes = attributes_of(found[1])
    else:
        _make_folders(root, target.parent)
        owner = target.parent.stat()
        attributes = Attributes(file.mode, owner.st_uid, owner.st_gid)
    # The registry reads its users again only where the time has changed.
    atomic_write(
        target,
        file.content,
        **attributes._asdict(),
        newer_than_ns=found[1].st_mtime_ns if found else None,
    )


def _make_folders(root: Path, folder: Path) -> None:
    if folder != root and not folder.is_dir():
        _make_folders(root, folder.parent)
        folder.mkdir(mode=_NEW_FOLDER_MODE)


def _rename(source: Path, target: Path) -> None:
    source.rename(target)
    for folder in sorted({source.parent, target.parent}):
        sync_folder(folder)


def _remove(path: str | os.PathLike[str]) -> None:
    """Remove a folder and all in it, if it is there."""
    if not os.fspath(path):
        return
    with suppress(FileNotFoundError):
        shutil.rmtree(path)
