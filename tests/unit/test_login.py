# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logins: merged into what is there, kept by helpers, checked against a real registry, never shown."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils import _login
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._login import Login, LoginError
from hypothesis import given
from hypothesis import strategies as st

from tests.support.modules import run_module
from tests.support.registry import RegistryProcess
from tests.support.tls import make_certificates

REGISTRY = "registry.example.org:5000"
ALICE = Login("alice", "sésame: öffne dich")
OTHER = {"auth": base64.b64encode(b"bob:else").decode(), "email": "bob@example.org"}

# As https://github.com/docker/docker-credential-helpers describes the protocol; keeps everything in one file.
HELPER = """#!/usr/bin/env python3
import json, os, sys
place = os.environ["HELPER_STORE"]
store = json.load(open(place)) if os.path.exists(place) else {}
text = sys.stdin.read()
if sys.argv[1] == "store":
    entry = json.loads(text)
    store[entry["ServerURL"]] = entry
elif text not in store:
    sys.exit("credentials not found in native keychain")
elif sys.argv[1] == "get":
    print(json.dumps(store[text]))
elif sys.argv[1] == "erase":
    del store[text]
json.dump(store, open(place, "w"))
"""


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A credential helper named `test`; returns the file that it keeps everything in."""
    program = tmp_path / "bin" / "docker-credential-test"
    program.parent.mkdir()
    program.write_text(HELPER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HELPER_STORE", str(tmp_path / "store.json"))
    return tmp_path / "store.json"


def auths(path: Path) -> dict[str, dict[str, str]]:
    content: dict[str, dict[str, dict[str, str]]] = json.loads(path.read_text())
    return content["auths"]


def test_four_steps_in_an_empty_home(tmp_path: Path) -> None:
    path = tmp_path / ".docker" / "config.json"
    steps = []
    for check_mode in (True, False, False, True):
        steps.append(_login.ensure(str(path), REGISTRY, ALICE, check_mode=check_mode).changed)
        assert path.exists() is (len(steps) > 1)
    assert steps == [True, True, False, False]
    assert auths(path) == {REGISTRY: {"auth": base64.b64encode("alice:sésame: öffne dich".encode()).decode()}}
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["config.json"]


def test_everything_else_stays_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    before = {"auths": {"other": OTHER}, "HttpHeaders": {"X": "y"}, "psFormat": "table"}
    path.write_text(json.dumps(before))
    assert _login.ensure(str(path), REGISTRY, ALICE).changed
    during = json.loads(path.read_text())
    assert during["auths"].pop(REGISTRY)
    assert during == before
    assert list(during) == list(before)
    assert _login.forget(str(path), REGISTRY).changed
    assert json.loads(path.read_text()) == before
    assert not _login.forget(str(path), REGISTRY).changed


def test_a_file_that_only_we_wrote_goes(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    _login.ensure(str(path), REGISTRY, ALICE)
    assert _login.forget(str(path), REGISTRY, check_mode=True).changed
    assert path.exists()
    assert _login.forget(str(path), REGISTRY).changed
    assert not path.exists()


def test_the_login_of_another_user_stays(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    _login.ensure(str(path), REGISTRY, ALICE)
    assert not _login.forget(str(path), REGISTRY, "bob").changed
    assert _login.forget(str(path), REGISTRY, "alice").changed


def test_unchanged_is_not_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    _login.ensure(str(path), REGISTRY, ALICE)
    before = path.stat()
    _login.ensure(str(path), REGISTRY, ALICE)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("mode", [0o644, 0o660])
def test_a_file_that_others_can_read_is_closed(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "config.json"
    _login.ensure(str(path), REGISTRY, ALICE)
    path.chmod(mode)
    assert _login.ensure(str(path), REGISTRY, ALICE).changed
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "entry",
    [{}, {"auth": "%%%"}, {"auth": "bm9jb2xvbg=="}, {"identitytoken": "x", "auth": "YWxpY2U6eA=="}, "text"],
)
def test_entries_that_no_tool_could_use_are_replaced(tmp_path: Path, entry: object) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": {REGISTRY: entry}}))
    assert _login.ensure(str(path), REGISTRY, ALICE).changed
    assert list(auths(path)[REGISTRY]) == ["auth"]


@pytest.mark.parametrize(
    "text", ["{broken", "[]", '{"auths": []}x', '{"auths": ["x"]}', '{"credHelpers": "x"}']
)
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(LoginError, match=r"config\.json: "):
        _login.ensure(str(path), REGISTRY, ALICE)
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("registry", "login"),
    [
        ("https://registry", ALICE),
        ("registry/path", ALICE),
        ("", ALICE),
        (REGISTRY, Login("", "x")),
        (REGISTRY, Login("a:b", "x")),
        (REGISTRY, Login("alice", "")),
        (REGISTRY, Login("alice", "two\nlines")),
    ],
)
def test_what_no_tool_could_send_is_refused(tmp_path: Path, registry: str, login: Login) -> None:
    with pytest.raises(LoginError, match="log in to"):
        _login.ensure(str(tmp_path / "config.json"), registry, login)


@pytest.mark.parametrize("setting", [{"credsStore": "test"}, {"credHelpers": {REGISTRY: "test"}}])
def test_a_helper_keeps_the_password(tmp_path: Path, helper: Path, setting: dict[str, object]) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(setting))
    steps = [
        _login.ensure(str(path), REGISTRY, ALICE, check_mode=check).changed
        for check in (True, False, False, True)
    ]
    assert steps == [True, True, False, False]
    stored = json.loads(helper.read_text())[REGISTRY]
    assert (stored["Username"], stored["Secret"]) == ALICE
    assert json.loads(path.read_text()) == setting
    assert not _login.forget(str(path), REGISTRY, "bob").changed
    assert _login.forget(str(path), REGISTRY, "alice").changed
    assert not _login.forget(str(path), REGISTRY, "alice").changed
    assert json.loads(helper.read_text()) == {}


def test_a_helper_that_is_not_installed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"credsStore": "nowhere"}')
    with pytest.raises(LoginError, match="docker-credential-nowhere is not on PATH"):
        _login.ensure(str(path), REGISTRY, ALICE)


def test_parallel_logins_lose_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "config.json")
    names = [f"registry-{number}" for number in range(20)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: _login.ensure(path, name, ALICE), names))
    assert sorted(auths(Path(path))) == sorted(names)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other accounts can reach: pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="dockyard-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another account")
def test_root_follows_no_link_in_a_home_of_somebody_else(open_folder: Path) -> None:
    nobody = _login.account("nobody")
    home, secret = open_folder / "home", open_folder / "for-root"
    home.mkdir()
    secret.mkdir(mode=0o700)
    os.chown(home, nobody.uid, nobody.gid)
    (home / ".docker").symlink_to(secret)
    with pytest.raises(RegistryError, match=r"config\.json"):
        _login.ensure(str(home / ".docker" / "config.json"), REGISTRY, ALICE, nobody)
    assert list(secret.iterdir()) == []
    (home / ".docker").unlink()
    _login.ensure(str(home / ".docker" / "config.json"), REGISTRY, ALICE, nobody)
    assert (home / ".docker" / "config.json").stat().st_uid == nobody.uid
    assert os.geteuid() == 0


def test_an_account_that_is_not_there() -> None:
    with pytest.raises(LoginError, match="'nobody-of-this-name': not known on this host"):
        _login.account("nobody-of-this-name")


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=40))
def test_what_is_stored_is_what_is_read(user: str, password: str) -> None:
    login = Login(user, password)
    try:
        _login.require_usable(REGISTRY, login)
    except LoginError:
        return
    stored = {"auths": {REGISTRY: {"auth": _login._encoded(login)}}}
    assert _login._stored(stored, REGISTRY) == login


def test_a_login_shows_no_password() -> None:
    assert "sésame" not in repr(ALICE) + str(ALICE)


def test_asks_the_registry_first(registry_factory: Callable[..., RegistryProcess], tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path, "127.0.0.1")
    registry = registry_factory(
        auth={"alice": "right"},
        config_overrides={
            "http": {"tls": {"certificate": str(certificates.certificate), "key": str(certificates.key)}}
        },
    )
    path = tmp_path / "config.json"
    arguments = {
        "registry": f"127.0.0.1:{registry.port}",
        "username": "alice",
        "password": "right",
        "path": str(path),
        "ca_certificate": certificates.ca.read_text(),
    }
    without_ca = run_module("registry_login", {**arguments, "ca_certificate": None})
    assert "CERTIFICATE_VERIFY_FAILED" in without_ca["msg"]
    wrong = run_module("registry_login", {**arguments, "password": "wrong"})
    assert "the registry refuses this user and password (401)" in wrong["msg"]
    no_pem = run_module("registry_login", {**arguments, "ca_certificate": "text"})
    assert "none in PEM format" in no_pem["msg"]
    assert not path.exists()
    assert run_module("registry_login", arguments, check=True)["changed"]
    done = run_module("registry_login", arguments, diff=True)
    assert (done["changed"], done["verified"]) == (True, True)
    assert done["diff"]["after"] == f"{arguments['registry']} in {path}: user alice\n"
    assert not run_module("registry_login", arguments)["changed"]
    unasked = run_module("registry_login", {**arguments, "password": "wrong", "verify": False})
    assert (unasked["changed"], unasked["verified"]) == (True, False)
    gone = {"registry": arguments["registry"], "path": str(path), "state": "absent"}
    assert run_module("registry_login", gone)["changed"]
    assert not path.exists()


def test_a_registry_that_does_not_answer_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    result = run_module(
        "registry_login",
        {
            "registry": "127.0.0.1:1",
            "username": "alice",
            "password": "right",
            "path": str(path),
            "insecure": True,
        },
    )
    assert "gives no answer that could be trusted" in result["msg"]
    assert not path.exists()
