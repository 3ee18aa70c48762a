# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control machine's half of dockyard.registry.backup_fetch: it asks for pieces and puts them together."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.dockyard.registry.plugins.module_utils._archive import is_archive_name
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._files import atomic_write, sync_folder

if TYPE_CHECKING:
    from hashlib import _Hash

_PIECE = 1024 * 1024
# Of a file beside an archive.
_ENDINGS = (".json", ".blobs")


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible has no types
    """Copies what the module on the host describes."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        self._vars = task_vars or {}
        found = self._ask({})
        if found.get("failed"):
            return found
        try:
            files = list(self._fetch_all(Path(str(self._task.args["dest"])).expanduser(), found["files"]))
        except _Failed as error:
            return error.result
        except (RegistryError, OSError) as error:
            return {"failed": True, "msg": f"backup_fetch: {error}"}
        count = sum(file["copied"] for file in files)
        result.update(changed=bool(count), backup=found["backup"], files=files, bytes=count)
        return result

    def _ask(self, arguments: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(
            module_args={**self._task.args, **arguments}, task_vars=self._vars
        )
        return answer

    def _fetch_all(self, folder: Path, files: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        if not folder.is_absolute():
            raise AnsibleError(f"backup_fetch: dest: {folder}: name the folder by its whole path")
        if not self._task.check_mode:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in files:
            # A host is not believed what a name on this machine is.
            if not is_archive_name(file["name"]):
                raise RegistryError(f"{file['name']!r} is no name of a backup")
            target = folder / file["name"]
            yield {
                "name": file["name"],
                "file": str(target),
                "size": file["size"],
                "sha256": file["sha256"],
                "copied": self._fetch(file, target),
            }

    def _fetch(self, file: dict[str, Any], target: Path) -> int:
        """Returns how many bytes were copied."""
        if target.is_file() and _is_same(target, file):
            if not self._task.check_mode:
                _write_beside(target, file)
            return 0
        if self._task.check_mode:
            return int(file["size"])
        partial = target.with_name(f".{target.name}.partial")
        copied = self._copy(file, partial)
        if not _is_same(partial, file):
            # What was there from a run before was of another file, or the connection damaged something.
            partial.unlink()
            copied = self._copy(file, partial)
            if not _is_same(partial, file):
                partial.unlink()
                raise RegistryError(f"copy {file['path']}: it is not what its sum says; check it on the host")
        _write_beside(target, file)
        partial.replace(target)
        sync_folder(target.parent)
        return copied

    def _copy(self, file: dict[str, Any], partial: Path) -> int:
        """Go on with a copy from where it stopped."""
        copied = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(partial, flags, 0o600), "ab") as output:
            while output.tell() < file["size"]:
                answer = self._ask({"path": file["path"], "offset": output.tell()})
                if answer.get("failed"):
                    raise _Failed(answer)
                content = base64.b64decode(answer["content"])
                if not content:
                    break
                output.write(content)
                copied += len(content)
            output.flush()
            os.fsync(output.fileno())
        return copied


class _Failed(Exception):
    """The host has said why it cannot go on."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__(result.get("msg", ""))
        self.result = result


def _is_same(path: Path, file: dict[str, Any]) -> bool:
    return path.stat().st_size == file["size"] and _sum(path).hexdigest() == str(file["sha256"])


def _sum(path: Path) -> _Hash:
    hasher = hashlib.sha256()
    with path.open("rb", buffering=0) as content:
        while piece := content.read(_PIECE):
            hasher.update(piece)
    return hasher


def _write_beside(target: Path, file: dict[str, Any]) -> None:
    for ending, text in file["beside"].items():
        path = target.with_name(f"{target.name}{ending}")
        content = text.encode()
        if ending in _ENDINGS and not (path.is_file() and path.read_bytes() == content):
            atomic_write(path, content, mode=0o600)
