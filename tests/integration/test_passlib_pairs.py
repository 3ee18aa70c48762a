# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hashing with the pairs of passlib and bcrypt that hosts have, good and broken, from PyPI."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.modules import COLLECTIONS

CODE = """
from ansible_collections.dockyard.registry.plugins.module_utils import _passwords
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
try:
    made = _passwords.make_hash("wonderland", 5)
except RegistryError as error:
    print("error:", error)
else:
    print(made[:7], _passwords.verify("wonderland", made), _passwords.verify("wonderlant", made))
"""


def hash_with(*folders: Path) -> subprocess.CompletedProcess[str]:
    """Hash and verify with nothing importable but the standard library, the collection and `folders`."""
    path = os.pathsep.join(map(str, [COLLECTIONS, *folders]))
    return subprocess.run(
        [sys.executable, "-S", "-W", "always", "-c", CODE],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=True,
    )


def installed(request: pytest.FixtureRequest, *requirements: str) -> Path:
    """A folder with these packages, kept for later test runs."""
    assert request.config.cache is not None
    cache = request.config.cache.mkdir("passlib-pairs")
    folder = Path(cache, f"{sys.implementation.cache_tag}-{'-'.join(requirements)}")
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=cache) as fresh:
            target = Path(fresh, "site")
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target)]
            done = subprocess.run([*command, *requirements], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            target.rename(folder)
    return folder


@pytest.mark.parametrize(
    "requirements",
    [
        ("passlib==1.7.4", "bcrypt==3.2.2"),  # Debian 12
        ("passlib==1.7.4", "bcrypt==4.2.0"),  # Debian 13
        ("passlib==1.7.4", "bcrypt==4.3.0"),
        ("libpass==1.9.4", "bcrypt==5.0.0"),
    ],
    ids=" ".join,
)
def test_good_pairs_work_and_are_quiet(request: pytest.FixtureRequest, requirements: tuple[str, ...]) -> None:
    done = hash_with(installed(request, *requirements))
    assert done.stdout == "$2y$05$ True False\n"
    assert done.stderr == ""


def test_a_broken_pair_is_named(request: pytest.FixtureRequest) -> None:
    done = hash_with(installed(request, "passlib==1.7.4", "bcrypt==5.0.0"))
    assert "error: hash a password with passlib and bcrypt: the two do not work together" in done.stdout
    assert "has passlib 1.7.4, bcrypt 5.0.0. Install the Debian packages python3-passlib" in done.stdout
    assert done.stderr == ""


def test_a_missing_bcrypt_is_named(request: pytest.FixtureRequest) -> None:
    folder = installed(request, "passlib==1.7.4")
    done = hash_with(folder)
    assert "error: hash a password with passlib and bcrypt: bcrypt is missing" in done.stdout
    assert "has passlib 1.7.4. Install the Debian packages python3-passlib and python3-bcrypt" in done.stdout


def test_nothing_at_all_is_named() -> None:
    done = hash_with()
    assert "error: hash a password with passlib and bcrypt: passlib is missing" in done.stdout
    assert "has neither" in done.stdout
