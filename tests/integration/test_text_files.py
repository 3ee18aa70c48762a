# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module text_files as a process of its own."""

from __future__ import annotations

from pathlib import Path

from tests.support.modules import run_module

FILES = {"run": "#!/bin/sh\n", "reload": "ä\n"}


def test_files_are_written_once(tmp_path: Path) -> None:
    args = {"folder": str(tmp_path), "files": FILES, "mode": "0640"}
    planned = run_module("text_files", args, check=True)
    assert planned["written"] == ["run", "reload"]
    assert list(tmp_path.iterdir()) == []
    assert run_module("text_files", args)["changed"] is True
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == FILES
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o640
    assert run_module("text_files", args)["changed"] is False


def test_only_what_differs_is_written(tmp_path: Path) -> None:
    args = {"folder": str(tmp_path), "files": FILES}
    run_module("text_files", args)
    (tmp_path / "other").touch()
    (tmp_path / "run").write_text("old\n", encoding="utf-8")
    (tmp_path / "reload").chmod(0o600)
    done = run_module("text_files", args, diff=True)
    assert done["written"] == ["run"]
    assert [(one["before"], one["after"]) for one in done["diff"]] == [("old\n", FILES["run"])]
    assert (tmp_path / "reload").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "other").exists()


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(FILES["run"], encoding="utf-8")
    (tmp_path / "run").symlink_to("elsewhere")
    run_module("text_files", {"folder": str(tmp_path), "files": {"run": FILES["run"]}})
    assert not (tmp_path / "run").is_symlink()


def test_bad_input(tmp_path: Path) -> None:
    for folder, files, message in (
        (tmp_path, {"../run": ""}, "must be a name without a slash"),
        (tmp_path, {"run": {}}, "have a text"),
        (tmp_path / "missing", {"run": ""}, "missing does not exist"),
    ):
        done = run_module("text_files", {"folder": str(folder), "files": files})
        assert done["failed"] is True
        assert message in done["msg"]
    assert list(tmp_path.iterdir()) == []
