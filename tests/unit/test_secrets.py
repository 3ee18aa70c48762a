# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets: their shape, and that a file gets exactly one, whatever happens."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils import _secrets
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._files import Attributes, FileError, locked
from hypothesis import given
from hypothesis import strategies as st

from tests.support.processes import run_killed_at, start_python, wait_until_open

CODE = """
import json
from ansible_collections.dockyard.registry.plugins.module_utils import _secrets
print(json.dumps(_secrets.ensure_secret({path!r})))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "secret"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@given(st.integers(min_value=128, max_value=384))
def test_a_secret_is_long_safe_to_type_and_known_again(bits: int) -> None:
    secret = _secrets.generate(bits)
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]+", secret)
    assert (len(secret) - 4) * 6 >= bits
    assert len(secret) <= 72, "bcrypt must take it whole"
    assert _secrets.is_generated(secret)
    assert not _secrets.is_generated(secret[:-1])
    assert not _secrets.is_generated(secret[1:])


def test_no_two_secrets_are_alike() -> None:
    assert len({_secrets.generate() for _each in range(1000)}) == 1000


@pytest.mark.parametrize("bits", [0, 64, 127, 385])
def test_too_few_and_too_many_bits(bits: int) -> None:
    with pytest.raises(RegistryError, match="allowed are 128 to 384"):
        _secrets.generate(bits)


@given(st.text(max_size=80))
def test_what_a_person_chose_is_not_taken_for_generated(password: str) -> None:
    assert not _secrets.is_generated(password)


@pytest.mark.parametrize("password", ["", "correct-horse-battery-staple-correct-horse", "\udcff" * 40])
def test_odd_passwords_are_not_taken_for_generated(password: str) -> None:
    assert not _secrets.is_generated(password)


def test_a_secret_is_made_once(file: Path) -> None:
    planned = _secrets.ensure_secret(file, check_mode=True)
    assert planned == (_secrets.PLACEHOLDER, True, False)
    assert not list(file.parent.iterdir()), "check mode makes nothing"

    made = _secrets.ensure_secret(file)
    assert made.created
    assert file.read_text() == f"{made.value}\n"
    assert mode_of(file) == 0o600

    for check_mode in (False, True):
        assert _secrets.ensure_secret(file, check_mode=check_mode) == (made.value, False, False)


def test_a_mode_that_shows_the_secret_is_corrected(file: Path) -> None:
    secret = _secrets.ensure_secret(file)
    file.chmod(0o644)
    assert _secrets.ensure_secret(file, check_mode=True) == (secret.value, False, True)
    assert mode_of(file) == 0o644
    assert _secrets.ensure_secret(file) == (secret.value, False, True)
    assert mode_of(file) == 0o600


def test_another_mode_may_be_asked_for(file: Path) -> None:
    _secrets.ensure_secret(file, attributes=Attributes(0o640))
    assert mode_of(file) == 0o640


@pytest.mark.parametrize("text", ["chosen by a person", "chosen\n", "chosen\r\n"])
def test_what_a_person_wrote_is_kept(file: Path, text: str) -> None:
    file.write_text(text, newline="")
    assert _secrets.ensure_secret(file).value == text.strip()
    assert file.read_bytes() == text.encode()


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b" \n", bytes(40), b"one\ntwo\n", b"\xff\xfe", b" padded\n", b"padded \n", b"a\tb"],
)
def test_a_damaged_file_is_an_error_that_names_it_and_is_left_alone(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    for check_mode in (True, False):
        with pytest.raises(FileError, match=re.escape(f"secret {file}: ")):
            _secrets.ensure_secret(file, check_mode=check_mode)
    assert file.read_bytes() == content


def test_a_missing_folder_is_an_error_of_a_real_run_only(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "secret"
    assert _secrets.ensure_secret(path, check_mode=True).created
    with pytest.raises(FileError, match="nowhere does not exist; create it first"):
        _secrets.ensure_secret(path)


def test_parallel_runs_get_one_secret(file: Path) -> None:
    code = CODE.format(path=str(file))
    lock = file.with_name(".secrets.lock")
    with locked(lock, timeout=0):
        processes = [start_python(code) for _each in range(6)]
        # All have seen that there is no secret yet.
        wait_until_open(lock, [process.pid for process in processes])
    results = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert len({value for value, _created, _corrected in results}) == 1
    assert [created for _value, created, _corrected in results].count(True) == 1


def test_a_killed_run_leaves_no_half_secret(file: Path) -> None:
    run_killed_at("os.rename", CODE.format(path=str(file)))
    assert not file.exists()
    secret = _secrets.ensure_secret(file)
    assert secret.created
    assert sorted(entry.name for entry in file.parent.iterdir()) == [".secrets.lock", "secret"]
