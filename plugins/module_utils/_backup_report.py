# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the backup modules as people write them, and results for people to read.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ._archive import Encryption
from ._backup_contents import BackupError
from ._backup_folder import Keep, Listed
from ._table import counted, minute, size, table, timestamp
from ._times import seconds_in


def keep_from(option: Mapping[str, Any]) -> Keep:
    """The option `keep`. Raises BackupError."""
    unknown = sorted(set(option) - {"count", "full", "age"})
    if unknown:
        raise BackupError(f"keep: {', '.join(unknown)}: unknown; there are count, full and age")
    return Keep(_number(option, "count"), _number(option, "full"), _seconds(option.get("age")))


def encryption_from(option: Mapping[str, Any] | None) -> Encryption | None:
    """The option `encryption`. Raises BackupError."""
    if not option:
        return None
    recipients = option.get("recipients")
    if set(option) != {"tool", "recipients"} or not isinstance(recipients, list):
        raise BackupError(
            "encryption: write {tool: age, recipients: [age1...]} or {tool: gpg, recipients: [name]}"
        )
    return Encryption(str(option["tool"]), tuple(map(str, recipients)))


def described(backup: Listed) -> dict[str, Any]:
    """A backup in a folder, for programs."""
    return {
        "name": backup.name,
        "file": str(backup.path),
        "kind": backup.kind,
        "parent": backup.parent or None,
        "chain": list(backup.chain),
        "created": timestamp(backup.created),
        "size": backup.size,
        "sha256": backup.sha256,
        "encrypted": backup.encrypted,
        "hostname": backup.hostname,
        "root": backup.root,
        "counts": backup.counts,
        "complete": backup.is_complete,
        "problem": backup.problem,
    }


def backups_table(backups: Iterable[Listed]) -> str:
    """The backups of a folder, for people."""
    rows = [
        (
            backup.name,
            minute(timestamp(backup.created)),
            backup.kind,
            size(backup.size),
            str(backup.counts.get("tags", "")),
            "complete" if backup.is_complete else backup.problem,
        )
        for backup in backups
    ]
    if not rows:
        return "There are no backups."
    return table(("backup", "created", "kind", "size", "tags", "state"), rows, right=("size", "tags"))


def report(result: Mapping[str, Any], *, check_mode: bool) -> str:
    """What one run did or would do, for people."""
    lines = [
        f"{'would write' if check_mode else 'wrote'} {result['file']}",
        f"{result['kind']}{', builds on ' + result['parent'] if result['parent'] else ''}: "
        f"{counted(result['carried_blobs'], 'blob')} of {size(result['carried_bytes'])}"
        f" (of {result['blobs']}, {size(result['bytes'])})",
        f"{counted(result['tags'], 'tag')}, {counted(result['manifests'], 'manifest')} in "
        f"{counted(result['repositories'], 'repository', 'repositories')}",
    ]
    if not check_mode:
        read_again = "read again and good" if result["verified"] else "not read again"
        lines.append(f"{size(result['size'])} in {result['seconds']:.1f} s, {read_again}")
    lines += [f"note: {note}" for note in result["notes"]]
    lines += [f"tag that leads nowhere, left out: {tag}" for tag in result["dropped"]]
    lines += [
        f"blob left out: {one['digest']}: {one['reason']}; needed by {', '.join(one['needed_by'])}"
        for one in result["left_out"]
    ]
    lines += [f"damage in the registry: {problem}" for problem in result["problems"]]
    lines += [f"{'would remove' if check_mode else 'removed'} {name}" for name in result["removed"]]
    lines += [f"removed what a killed run left: {name}" for name in result["leftovers"]]
    return "\n".join(lines)


def _number(option: Mapping[str, Any], key: str) -> int | None:
    value = option.get(key)
    if value is None:
        return None
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal() or int(text) < 1:
        raise BackupError(f"keep: {key}: a whole number from 1 on belongs here, got {value!r}")
    return int(text)


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    seconds = None if isinstance(value, bool) else seconds_in(str(value))
    if seconds is None:
        raise BackupError(f"keep: age: a time such as 12h, 30d or 8w belongs here, got {value!r}")
    return seconds
