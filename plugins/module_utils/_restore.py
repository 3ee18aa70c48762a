# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore a backup: all of it in the place of what is there, parts of it into the running registry, or as a drill.

Private to the collection: no stable interface.

    run(Request(root="/opt/registry", backup="latest", …), service, client)

A backup is read to its end into a folder of its own, and compared with its inventory, before anything that the
registry uses is touched. Then the folders change places (_restore_swap.py), and the registry is asked for every
tag. Whoever calls this holds the registry's locks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ._archive import DATA
from ._client import ClientError, Forbidden, NotFound, RegistryClient, Unauthorized
from ._errors import RegistryError
from ._htpasswd import UsersFile
from ._progress import Progress, silent
from ._recovery import recover_all
from ._redis import configured, forget
from ._reference import Digest, Reference, parse_reference, parse_repository
from ._restore_backup import PARTS, Backup, find_backup
from ._restore_compare import Difference, compare
from ._restore_partial import Restored, Wish, restore_partly
from ._restore_scratch import Drill, drill, require_undamaged
from ._restore_swap import Places, RestoreError, SmallFile, Swap, places_of, recover
from ._restore_unpack import Unpacked, read_small, require_space, unpack
from ._service import Service
from ._storage import Storage, Tag

__all__ = ["Request", "RestoreError", "recover", "run"]

_USERS = "auth/htpasswd"
_SHOWN = 20


class Request(NamedTuple):
    """What is to be restored, and how. The module's documentation says more."""

    root: str
    backup: str
    #: The folder with the backups.
    folder: str
    #: The folder that is mounted at /var/lib/registry; `data` below the root by default.
    data: str = ""
    identity: str | None = None
    parts: Sequence[str] = ("data",)
    repositories: Sequence[str] = ()
    images: Sequence[str] = ()
    as_repository: str = ""
    overwrite: bool = False
    verify: bool = False
    keep_old: bool = False
    allow_damage: bool = False
    #: Where a drill and a part of a backup are unpacked; the folder with the backups by default.
    scratch_dir: str = ""
    #: Our own user, whose password stays that of this host.
    own_user: str = ""
    #: The registry's configuration, which says where its cache is.
    config: Mapping[str, Any] | None = None
    check_mode: bool = False

    @property
    def is_partial(self) -> bool:
        return bool(self.repositories or self.images)


def run(
    request: Request, service: Service, client: RegistryClient, progress: Progress = silent
) -> dict[str, Any]:
    """Do it, and return what the module returns, with `diff` apart. Raises RegistryError."""
    wish = _wish(request)
    data = request.data or os.fspath(Path(request.root, "data"))
    places = places_of(data)
    recovered = [] if request.check_mode else recover_all(request.root, service)
    progress("read the backup")
    backup = find_backup(request.backup, request.folder, request.identity)
    scratch_dir = Path(request.scratch_dir or request.folder)
    result = {
        "backup": backup.path.name,
        "chain": [path.name for path in backup.chain],
        "kind": backup.kind,
        "created": backup.created,
        "parts": list(backup.parts),
        "recovered": recovered,
        "counts": _counts(backup),
    }
    if request.is_partial:
        restored = restore_partly(backup, wish, client, scratch_dir, progress, check_mode=request.check_mode)
        return {**result, **_partial_result(restored)}
    if request.verify:
        if request.check_mode:
            require_space(scratch_dir, backup.inventory)
            return {**result, "changed": False, "notes": []}
        done = drill(backup, scratch_dir, places.data, service, progress, client.connections)
        return {**result, **_drill_result(done)}
    return {**result, **_Whole(request, places, backup, service, client, progress).run()}


class _Whole:
    """A restore of everything, or of everything in some parts."""

    def __init__(
        self,
        request: Request,
        places: Places,
        backup: Backup,
        service: Service,
        client: RegistryClient,
        progress: Progress,
    ) -> None:
        lacking = [part for part in request.parts if part not in backup.parts]
        if lacking or not request.parts:
            raise RestoreError(
                f"restore {', '.join(lacking) or 'nothing'} from {backup.name}: it has {', '.join(backup.parts)}"
            )
        self._request = request
        self._backup = backup
        self._service = service
        self._client = client
        self._progress = progress
        self._notes: list[str] = []
        self._places = places if "data" in request.parts else None

    def run(self) -> dict[str, Any]:
        self._progress("compare with what is there")
        difference = compare(self._backup.inventory, self._places.data) if self._places else None
        if self._places:
            require_space(self._places.fresh.parent, self._backup.inventory)
        result = _difference_result(difference)
        if self._request.check_mode:
            return result
        self._require_login()
        unpacked, kept = self._carry_out()
        result["kept"] = kept
        result["notes"] += self._notes
        if unpacked:
            result["notes"] += [*unpacked.damage, *unpacked.notes]
        return result

    def _carry_out(self) -> tuple[Unpacked | None, str]:
        swap = Swap(self._request.root, self._service, self._places)
        swap.begin()
        unpacked = None
        try:
            if self._places:
                unpacked = unpack(self._backup, self._places.fresh, self._places.data, self._progress)
                if not self._request.allow_damage:
                    require_undamaged(self._backup, unpacked.damage)
            every = unpacked.files if unpacked else self._read_files()
            files = [self._adapted(file) for file in every if self._is_wanted(file)]
        except BaseException:
            swap.abandon()
            raise
        self._progress("swap")
        kept = swap.carry_out(
            files,
            # Users are read again while it runs.
            restart=list(self._request.parts) != ["users"],
            keep_old=self._request.keep_old,
            before_start=self._forget_in_redis,
            check=lambda: self._ask(unpacked),
        )
        return unpacked, kept

    def _forget_in_redis(self) -> None:
        """What the registry remembers of blobs outlives it there."""
        redis = configured(self._request.config or {})
        if redis is None:
            return
        try:
            forget(redis)
        except RegistryError as error:
            self._notes.append(
                f"the registry's cache could not be emptied, so it may serve empty blobs: {error}; delete the "
                "keys blobs::* and repository::* there"
            )

    def _read_files(self) -> list[SmallFile]:
        members = self._backup.members()
        return [read_small(member) for member in members if not member.path.startswith(DATA)]

    def _is_wanted(self, file: SmallFile) -> bool:
        if file.path == self._own_password_file():
            return False
        return any(file.path.startswith(PARTS[part]) for part in self._request.parts)

    def _own_password_file(self) -> str:
        return f"secrets/users/{self._request.own_user}.password"

    def _adapted(self, file: SmallFile) -> SmallFile:
        """A users file with this host's own user, who has to get in afterwards. Raises RegistryError."""
        if file.path != _USERS:
            return file
        users = UsersFile.parse(file.content, f"{self._backup.name}: {file.path}")
        own = self._request.own_user
        present = Path(self._request.root, _USERS)
        if own and present.is_file():
            here = UsersFile.parse(present.read_bytes(), os.fspath(present))
            if own in here:
                users.set(own, here.hash_of(own))
        return file._replace(content=users.to_bytes())

    def _require_login(self) -> None:
        """Raise now what would have to be taken back later: that we are not let in."""
        if not self._service.is_running():
            return
        try:
            self._client.api_version()
        except (Unauthorized, Forbidden):
            raise
        except ClientError:
            # A registry in trouble may be why this runs.
            pass

    def _ask(self, unpacked: Unpacked | None) -> None:
        """Raise RestoreError where the registry does not serve what was restored."""
        if not self._service.is_running():
            self._service.start()
        if unpacked is None or self._places is None:
            self._client.api_version()
            return
        graph = unpacked.graph
        tags = [(name, tag) for name in graph.repositories() for tag in graph.tags(name)]
        storage = Storage(self._places.data)
        failures = []
        for count, failure in enumerate(
            self._client.map(lambda item: self._failure(storage, *item), tags), start=1
        ):
            self._progress("ask for every tag", count, len(tags))
            failures += [failure] if failure else []
        if failures and not self._request.allow_damage:
            raise RestoreError(
                "the registry does not serve what was restored:\n" + "\n".join(failures[:_SHOWN])
            )
        if not tags:
            self._client.api_version()

    def _failure(self, storage: Storage, repository: str, tag: Tag) -> str:
        """Why a tag cannot be pulled; empty where it can, or somebody has pushed or deleted it meanwhile."""
        found: Digest | None = None
        try:
            found = self._client.resolve(repository, tag.name).digest
            reason = f"it answers with {found}, not {tag.digest}"
        except NotFound as error:
            reason = str(error)
        except (Unauthorized, Forbidden):
            raise
        except ClientError as error:
            return f"{repository}:{tag.name}: {error}"
        if found == tag.digest:
            return ""
        now = storage.tag(repository, tag.name)
        is_changed = now is None or (isinstance(now, Tag) and now.digest != tag.digest)
        return "" if is_changed else f"{repository}:{tag.name}: {reason}"


def _wish(request: Request) -> Wish:
    if request.is_partial and (request.verify or list(request.parts) != ["data"]):
        raise RestoreError("restore: repositories and images go neither with verify nor with parts")
    if request.as_repository and not request.is_partial:
        raise RestoreError("restore: as_repository needs repositories or images")
    unknown = [part for part in request.parts if part not in PARTS]
    if unknown:
        raise RestoreError(f"restore: there is no part {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    return Wish(
        [parse_repository(name) for name in request.repositories],
        [_image(text) for text in request.images],
        parse_repository(request.as_repository) if request.as_repository else "",
        request.overwrite,
    )


def _image(text: str) -> Reference:
    image = parse_reference(text)
    if image.tag is None:
        raise RestoreError(
            f"restore {text}: name a tag, such as {image.repository}:1.0; or the whole repository"
        )
    return image


def _counts(backup: Backup) -> dict[str, int]:
    inventory = backup.inventory
    return {
        "repositories": len(inventory.repositories),
        "tags": inventory.tags,
        "blobs": len(inventory.blobs),
        "bytes": inventory.bytes,
    }


def _difference_result(difference: Difference | None) -> dict[str, Any]:
    if difference is None:
        return {"changed": True, "notes": [], "kept": ""}
    fields = difference._asdict()
    diff = {"before": fields.pop("before"), "after": fields.pop("after")}
    notes = fields.pop("notes")
    return {"changed": True, "difference": fields, "notes": notes, "kept": "", "diff": diff}


def _partial_result(restored: Restored) -> dict[str, Any]:
    fields = restored._asdict()
    notes = [
        *fields.pop("notes"),
        *(f"{name}: it points to something else and stays" for name in restored.kept),
    ]
    changed = bool(restored.tags or restored.manifests or restored.blobs or restored.mounted)
    after = _lines(restored.tags)
    return {
        "changed": changed,
        "restored": fields,
        "notes": notes,
        "diff": {"before": "", "after": after},
    }


def _drill_result(done: Drill) -> dict[str, Any]:
    fields = done._asdict()
    notes = fields.pop("notes")
    return {"changed": False, "drill": {**fields, "seconds": round(done.seconds, 3)}, "notes": notes}


def _lines(names: Iterable[str]) -> str:
    return "".join(f"{name}\n" for name in names)
