# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups are copied to the control machine, whole or not at all."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils._backup import Kind, Request, run
from ansible_collections.dockyard.registry.plugins.module_utils._backup_folder import list_backups

from tests.support.modules import run_ansible
from tests.support.store import Store, sample_store, write_store

PIECE = 100_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A full backup and an incremental one."""
    data, folder = tmp_path / "registry/data", tmp_path / "backups"
    data.mkdir(parents=True)
    write_store(data, sample_store(random.Random(1)))
    run(Request(data=str(data), folder=str(folder)))
    more = Store()
    more.image("more", [b"more"], tag="1")
    write_store(data, more)
    run(Request(data=str(data), folder=str(folder), kind=Kind.INCREMENTAL))
    return folder


def fetch(folder: Path, check: bool = False, **options: Any) -> dict[str, Any]:
    arguments = {"folder": str(folder), "dest": str(folder.parent / "copies/here"), "piece": PIECE, **options}
    done = run_ansible("backup_fetch", arguments, check=check)
    result: dict[str, Any] = json.loads(done.stdout.partition("=> ")[2] or "{}")
    assert result, done.stdout + done.stderr
    return result


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_a_chain_is_copied_once(folder: Path) -> None:
    copies = folder.parent / "copies/here"
    would = fetch(folder, check=True)
    assert not copies.exists()
    result = fetch(folder)
    assert content_of(copies) == content_of(folder)
    assert {path.stat().st_mode & 0o777 for path in copies.iterdir()} == {0o600}
    assert all(one.is_complete for one in list_backups(copies))
    assert result["changed"]
    assert would["files"] == result["files"]
    assert result["bytes"] == sum(one.size for one in list_backups(folder)) > 2 * PIECE

    again = fetch(folder)
    assert (again["changed"], again["bytes"]) == (False, 0)


@pytest.mark.slow
def test_a_copy_that_was_broken_off_goes_on(folder: Path) -> None:
    copies = folder.parent / "copies/here"
    full = list_backups(folder)[0]
    copies.mkdir(parents=True)
    (copies / f".{full.name}.partial").write_bytes(full.path.read_bytes()[:-1000])
    result = fetch(folder, backup=full.name)
    assert result["bytes"] == 1000
    assert (copies / full.name).read_bytes() == full.path.read_bytes()

    # What is not a beginning of it is thrown away.
    (copies / full.name).unlink()
    (copies / f".{full.name}.partial").write_bytes(b"x" * (full.size + 5))
    assert fetch(folder, backup=full.name)["bytes"] == full.size
    assert (copies / full.name).read_bytes() == full.path.read_bytes()


@pytest.mark.slow
def test_what_cannot_be_copied(folder: Path) -> None:
    assert "there are: " in fetch(folder, backup="unknown")["msg"]
    full = list_backups(folder)[0]
    content = bytearray(full.path.read_bytes())
    content[5000] ^= 1
    full.path.write_bytes(content)
    assert "not what its sum says" in fetch(folder)["msg"]
    full.path.unlink()
    assert "which is not there" in fetch(folder, backup=list_backups(folder)[-1].name)["msg"]
    assert not any((folder.parent / "copies/here").glob("*.tar"))
