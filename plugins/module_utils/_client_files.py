# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings in files that others write to as well: added, remembered, and taken away again exactly.

A ledger on the host says what was added. What is no longer wanted goes away by it; what others wrote stays.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from . import _files
from ._errors import RegistryError

LEDGER_FORMAT = 1
_LEDGER_MODE = 0o600
_LOCK_SECONDS = 60.0
_VALIDATE_SECONDS = 60
_TABLE = re.compile(r"^[ \t]*(\[[^#\n]*\])[ \t]*(?:#.*)?$", re.MULTILINE)

#: file: the whole file is ours. json, yaml: `content` is merged. block: marked lines at the end.
KINDS = ("file", "json", "yaml", "block")


class ClientFilesError(RegistryError):
    """A file that cannot be changed without harm to what somebody else wrote."""


class Wanted(NamedTuple):
    """What there should be at `path`: a text (kinds file and block), or data to merge (json and yaml)."""

    path: str
    kind: str
    content: Any
    mode: int = 0o644
    #: A program that checks a new file, whose path it gets as its last argument. Empty: none.
    validate: Sequence[str] = ()


class Change(NamedTuple):
    """One file that changed, or would: our part of it, before and after; empty where there is none."""

    path: str
    before: str
    after: str


class Result(NamedTuple):
    """What became of the files."""

    changes: list[Change]
    #: Files that are no longer wanted and stay, because somebody changed them since.
    kept: list[str]


class _Step(NamedTuple):
    path: str
    #: The new content; None removes the file.
    text: str | None
    wanted: Wanted | None
    status: os.stat_result | None
    change: Change


def converge(ledger: str, name: str, wanted: Iterable[Wanted], *, check_mode: bool = False) -> Result:
    """Bring the files to what is wanted, and take away what `name` added before and no longer wants.

    `name` is whose settings these are; several share a ledger. Everything is read and worked out before the
    first file changes, and the ledger is written before that: a run that is killed leaves nothing unknown.
    """
    if check_mode:
        return _converge(ledger, name, list(wanted), check_mode=True)
    Path(ledger).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = Path(f"{ledger}.lock")
    with _files.locked(lock, timeout=_LOCK_SECONDS):
        try:
            return _converge(ledger, name, list(wanted), check_mode=False)
        finally:
            if not Path(ledger).exists():
                # Nothing of ours is left. Whoever waits for the lock notices that it is another file.
                lock.unlink()
                with suppress(OSError):
                    Path(ledger).parent.rmdir()


def _converge(ledger: str, name: str, wanted: list[Wanted], *, check_mode: bool) -> Result:
    book = _read_ledger(ledger)
    old: dict[str, Any] = book.get(name, {})
    files: dict[str, Any] = old.get("files", {})
    by_path = {each.path: each for each in wanted}
    new: dict[str, Any] = {}
    steps: list[_Step] = []
    kept: list[str] = []
    for path in [*by_path, *(path for path in files if path not in by_path)]:
        step, entry, stays = _plan(path, by_path.get(path), files.get(path), name)
        if step is not None:
            steps.append(step)
        if entry is not None:
            new[path] = entry
        if stays:
            kept.append(path)
    if not check_mode:
        folders = sorted({*old.get("folders", []), *_missing_folders(steps)})
        # Until all is done, both what was there and what comes are ours.
        _write_ledger(ledger, {**book, name: {"files": _both(files, new), "folders": folders}}, book)
        for step in steps:
            _carry_out(step)
        gone = files.keys() - new.keys()
        for path in gone:
            if Path(path).parent.is_dir():
                _files.remove_leftovers(Path(path))
        final = {**book, name: {"files": new, "folders": _remove_empty(folders) if gone else folders}}
        if not new:
            _hand_over(final, name, [path for path in gone if files[path]["created"]])
        _write_ledger(ledger, final, None)
    return Result([step.change for step in steps], kept)


def _hand_over(book: dict[str, Any], name: str, created: Iterable[str]) -> None:
    """Leave the ledger; whoever still uses files and folders that we made takes them away in the end."""
    folders = book.pop(name)["folders"]
    for other in book.values():
        for path in created:
            if path in other["files"]:
                other["files"][path]["created"] = True
        other["folders"] = sorted({*other["folders"], *folders})


# --- One file ---


def _plan(
    path: str, wanted: Wanted | None, entry: Mapping[str, Any] | None, name: str
) -> tuple[_Step | None, dict[str, Any] | None, bool]:
    """What to do about a file, what to remember of it, and whether it stays although it is not wanted."""
    found = _files.read_file(path)
    text = _decoded(path, found[0]) if found else None
    status = found[1] if found else None
    kind = wanted.kind if wanted else str((entry or {}).get("kind"))
    created = entry["created"] if entry else found is None
    if kind == "file":
        after, remembered, stays = _whole(path, text, wanted, entry)
        ours_before, ours_after = text or "", after or ""
    elif kind == "block":
        after, remembered = _block(path, text, wanted, name)
        stays, ours_before, ours_after = False, _our_block(text or "", name), _our_block(after or "", name)
    else:
        after, remembered, was = _merged(path, text, wanted, entry or {}, kind)
        stays, ours_before = False, _shown(was)
        ours_after = _shown(wanted.content) if wanted else ""
    if remembered is not None:
        remembered = {"kind": kind, "created": created, **remembered}
    if kind != "file" and wanted is None and created and _is_empty(after, kind):
        after = None
    if after == text:
        return None, remembered, stays
    return _Step(path, after, wanted, status, Change(path, ours_before, ours_after)), remembered, stays


def _whole(
    path: str, text: str | None, wanted: Wanted | None, entry: Mapping[str, Any] | None
) -> tuple[str | None, dict[str, Any] | None, bool]:
    if wanted is None:
        if text is not None and entry is not None and _sum(text) not in entry["sums"]:
            return text, None, True
        return None, None, False
    if entry is None and text is not None:
        if text == wanted.content:  # Somebody else's, and right: it is not ours to remove.
            return text, None, False
        raise ClientFilesError(
            f"write {path}: it is there already and was not written by this role. Move it away, "
            "or take over what it says into the client_* variables first"
        )
    return wanted.content, {"sums": [_sum(wanted.content)]}, False


def _block(
    path: str, text: str | None, wanted: Wanted | None, name: str
) -> tuple[str | None, dict[str, Any] | None]:
    rest = _without_block(text or "", name)
    if wanted is None:
        return (rest if text is not None else None), None
    twice = set(_TABLE.findall(rest)) & set(_TABLE.findall(wanted.content))
    if twice:
        raise ClientFilesError(
            f"write {path}: it has {', '.join(sorted(twice))} already, and TOML allows a table once. "
            "Remove that table, or set it up by hand and leave this tool out of client_tools"
        )
    block = f"{_mark('BEGIN', name)}{wanted.content.rstrip()}\n{_mark('END', name)}"
    gap = "" if not rest or rest.endswith("\n") else "\n"
    return f"{rest}{gap}{block}", {}


def begin_mark(name: str) -> str:
    """The line before the block of these settings, with its line end."""
    return _mark("BEGIN", name)


def _mark(word: str, name: str) -> str:
    return f"# {word} dockyard.registry {name}\n"


def _our_block(text: str, name: str) -> str:
    begin, end = text.find(_mark("BEGIN", name)), text.find(_mark("END", name))
    return text[begin : end + len(_mark("END", name))] if 0 <= begin < end else ""


def _without_block(text: str, name: str) -> str:
    block = _our_block(text, name)
    return text.replace(block, "", 1) if block else text


def _merged(
    path: str, text: str | None, wanted: Wanted | None, entry: Mapping[str, Any], kind: str
) -> tuple[str | None, dict[str, Any] | None, Any]:
    """The new text, what to remember, and what of ours there was before."""
    have = _load(path, text, kind)
    added = entry.get("added", {})
    base = without(have, added)
    ours = missing(base, wanted.content, path) if wanted else {}
    after = laid_over(base, ours)
    was = _common(have, laid_over(added, wanted.content if wanted else {}))
    if _canonical(after) == _canonical(have) and text is not None:
        return text, ({"added": ours} if ours else None), was
    if text is None and not after:
        return None, None, was
    return _dump(after, kind), ({"added": ours} if ours else None), was


def missing(have: Any, want: Mapping[str, Any], path: str, place: str = "") -> dict[str, Any]:
    """What of `want` is not in `have`: values, and items of lists. Another value there is an error."""
    lacking: dict[str, Any] = {}
    for key, value in want.items():
        here = f"{place}.{key}" if place else str(key)
        if key not in have:
            lacking[key] = value
        elif isinstance(value, Mapping) and isinstance(have[key], Mapping):
            if below := missing(have[key], value, path, here):
                lacking[key] = below
        elif isinstance(value, list) and isinstance(have[key], list):
            if items := [item for item in value if item not in have[key]]:
                lacking[key] = items
        elif have[key] != value:
            raise ClientFilesError(
                f"write {path}: {here} is set to something else there. Remove it, or make it agree, and run again"
            )
    return lacking


def laid_over(have: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """`have` with `added` merged into it; lists are appended to."""
    result = dict(have)
    for key, value in added.items():
        there = result.get(key)
        if isinstance(value, Mapping) and isinstance(there, Mapping):
            result[key] = laid_over(there, value)
        elif isinstance(value, list) and isinstance(there, list):
            result[key] = there + [item for item in value if item not in there]
        else:
            result[key] = value
    return result


def without(have: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """`have` less what was added to it. Values that somebody changed since stay."""
    result = dict(have)
    for key, value in added.items():
        there = result.get(key)
        rest: Any = there
        if isinstance(value, Mapping) and isinstance(there, Mapping):
            rest = without(there, value)
        elif isinstance(value, list) and isinstance(there, list):
            rest = [item for item in there if item not in value]
        elif there == value:
            rest = None
        if rest or rest == there:
            if key in result:
                result[key] = rest
        else:
            result.pop(key, None)
    return result


def _common(have: Any, ours: Any) -> Any:
    """The part of `have` that is about what we set: a diff of the rest could show secrets."""
    if isinstance(have, Mapping) and isinstance(ours, Mapping):
        shared = {key: _common(have[key], value) for key, value in ours.items() if key in have}
        return {key: value for key, value in shared.items() if value not in ({}, [])}
    if isinstance(have, list) and isinstance(ours, list):
        return [item for item in have if item in ours]
    return have


def _shown(data: Any) -> str:
    return json.dumps(data, indent=2, sort_keys=True) + "\n" if data else ""


def _canonical(data: Any) -> Any:
    """Comparable without regard to the order of lists."""
    if isinstance(data, Mapping):
        return {key: _canonical(value) for key, value in data.items()}
    if isinstance(data, list):
        return sorted(json.dumps(_canonical(item), sort_keys=True) for item in data)
    return data


# --- Reading and writing ---


def _load(path: str, text: str | None, kind: str) -> dict[str, Any]:
    try:
        data = _parse(path, text, kind) if text and text.strip() else {}
    except ValueError as error:
        raise ClientFilesError(
            f"read {path}: it is not {kind.upper()} ({error}); correct it first"
        ) from error
    except Exception as error:
        # PyYAML, which is imported late, has a root exception of its own. Its text may quote secrets.
        if not type(error).__module__.startswith("yaml"):
            raise
        raise ClientFilesError(f"read {path}: it is not YAML; correct it first") from None
    if not isinstance(data, dict):
        raise ClientFilesError(f"read {path}: it holds no mapping; correct it first")
    return data


def _parse(path: str, text: str, kind: str) -> Any:
    yaml = _yaml()
    if kind == "yaml" and yaml is not None:
        return yaml.safe_load(text)
    try:
        return json.loads(text)
    except ValueError:
        if kind == "json":
            raise
        raise ClientFilesError(
            f"merge into {path}: this host's Python has no PyYAML to read what is there with; "
            "install python3-yaml (python3-pyyaml on Enterprise Linux)"
        ) from None


def _dump(data: Mapping[str, Any], kind: str) -> str:
    yaml = _yaml()
    if kind == "json" or yaml is None:  # JSON is YAML, too.
        return json.dumps(data, indent=4, ensure_ascii=False) + "\n"
    text: str = yaml.safe_dump(dict(data), sort_keys=False, default_flow_style=False)
    return text


def _yaml() -> Any:
    """PyYAML, or None where this Python has none."""
    try:
        import yaml
    except ImportError:
        return None
    return yaml


def _is_empty(text: str | None, kind: str) -> bool:
    return not (text or "").strip() or (
        kind in ("json", "yaml") and (text or "").strip() in ("{}", "---\n{}")
    )


def _decoded(path: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ClientFilesError(f"read {path}: it is not UTF-8 text; correct it first") from None


def _carry_out(step: _Step) -> None:
    if step.text is None:
        with suppress(FileNotFoundError):
            Path(step.path).unlink()
        return
    for folder in _missing_parents(step.path):
        Path(folder).mkdir(0o755)
        Path(folder).chmod(0o755)  # Whatever the umask: accounts other than root read here.
    if step.wanted is not None and step.wanted.validate:
        _validate(step, step.wanted)
    attributes = _files.attributes_of(step.status) if step.status else _files.Attributes(_mode_of(step))
    _files.atomic_write(
        step.path, step.text.encode(), mode=attributes.mode, uid=attributes.uid, gid=attributes.gid
    )


def _mode_of(step: _Step) -> int:
    return step.wanted.mode if step.wanted else 0o644


def _validate(step: _Step, wanted: Wanted) -> None:
    new = f"{step.path}.dockyard-check"
    _files.atomic_write(new, (step.text or "").encode(), mode=0o600)
    try:
        done = subprocess.run(
            [*wanted.validate, new], capture_output=True, text=True, timeout=_VALIDATE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClientFilesError(
            f"check the new {step.path}: {wanted.validate[0]} did not run ({error})"
        ) from error
    finally:
        Path(new).unlink()
    said = (done.stderr or done.stdout).strip()
    # Older programs have no such check.
    if done.returncode != 0 and "unknown flag" not in said:
        raise ClientFilesError(
            f"check the new {step.path}: {wanted.validate[0]} refuses it: {said}. It was left alone"
        )


def _missing_parents(path: str) -> list[str]:
    """Folders that do not exist yet, the outermost first."""
    return [str(each) for each in reversed(Path(path).parents) if not each.exists()]


def _missing_folders(steps: Iterable[_Step]) -> list[str]:
    return [folder for step in steps if step.text is not None for folder in _missing_parents(step.path)]


def _remove_empty(folders: Iterable[str]) -> list[str]:
    """Remove folders that we made and that are empty; those that are not are returned."""
    left = []
    for folder in sorted(set(folders), key=len, reverse=True):
        try:
            Path(folder).rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            left.append(folder)
    return left


# --- The ledger ---


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _both(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    both = {**old, **new}
    for path in old.keys() & new.keys():
        if "sums" in new[path]:
            both[path] = {**new[path], "sums": [*old[path].get("sums", []), *new[path]["sums"]]}
        elif "added" in new[path]:
            both[path] = {**new[path], "added": laid_over(old[path].get("added", {}), new[path]["added"])}
    return both


def _read_ledger(path: str) -> dict[str, Any]:
    found = _files.read_file(path)
    if found is None:
        return {}
    try:
        content = json.loads(found[0])
        if content["format"] == LEDGER_FORMAT:
            clients: dict[str, Any] = content["clients"]
            return clients
    except (ValueError, KeyError, TypeError):
        pass
    raise ClientFilesError(
        f"read {path}: it does not say what earlier runs added, as it should (format {LEDGER_FORMAT}). "
        "Restore it, or remove it, and with it the settings that it knew"
    )


def _write_ledger(path: str, clients: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
    if clients == before:
        return
    if not clients:
        Path(path).unlink(missing_ok=True)
        return
    content = {"format": LEDGER_FORMAT, "clients": clients}
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    found = _files.read_file(path)
    if found is None or found[0].decode() != text:
        _files.atomic_write(path, text.encode(), mode=_LEDGER_MODE)
