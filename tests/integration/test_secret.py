# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module secret: what it returns, and what it must not show."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils import _secrets

from tests.support.modules import run_ansible, run_module


def test_four_steps_with_several_files(tmp_path: Path) -> None:
    paths = [str(tmp_path / "one"), str(tmp_path / "two")]
    planned, done, planned_again, again = (
        run_module("secret", {"paths": paths}, check=check, diff=True) for check in (True, False) * 2
    )
    assert [step["changed"] for step in (planned, done, planned_again, again)] == [True, True, False, False]
    assert planned["by_path"] == dict.fromkeys(paths, _secrets.PLACEHOLDER)
    assert planned["created"] == done["created"] == paths
    assert planned["diff"] == done["diff"]
    assert done["diff"]["after"] == "".join(f"{path}: a secret\n" for path in paths)
    assert again["by_path"] == planned_again["by_path"] == done["by_path"]
    assert again["diff"] == {"before": "", "after": ""}
    for path in paths:
        assert done["by_path"][path] == Path(path).read_text().strip()
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    assert len(set(done["by_path"].values())) == 2
    assert "value" not in done


def test_one_file_and_a_mode_put_right(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    first = run_module("secret", {"path": str(file), "bits": 256, "mode": "0640"})
    assert first["value"] == first["by_path"][str(file)] == file.read_text().strip()
    assert len(first["value"]) * 6 >= 256
    assert stat.S_IMODE(file.stat().st_mode) == 0o640

    second = run_module("secret", {"path": str(file)}, diff=True)
    assert (second["changed"], second["value"], second["created"]) == (True, first["value"], [])
    assert second["diff"]["after"] == f"{file}: a secret, owner and mode as asked for\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_through_ansible(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    done = run_ansible("secret", {"path": str(file)}, diff=True)
    assert done.returncode == 0
    assert "CHANGED" in done.stdout
    assert file.read_text().strip() in done.stdout
    assert "WARNING" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of the following is required: path, paths"),
        ({"path": "/x", "paths": ["/x"]}, "mutually exclusive: path|paths"),
        ({"path": "{tmp}/x", "bits": 64}, "generate a secret of 64 bits: allowed are 128 to 384"),
        ({"path": "{tmp}/nowhere/x"}, "/nowhere does not exist; create it first"),
        ({"path": "{tmp}/empty"}, "/empty: empty; put the right value back"),
        ({"path": "{tmp}"}, "not a regular file"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, options: dict[str, object], message: str) -> None:
    (tmp_path / "empty").touch()
    args = {
        key: value.format(tmp=tmp_path) if isinstance(value, str) else value for key, value in options.items()
    }
    result = run_module("secret", args)
    assert result["failed"]
    assert message in result["msg"]
