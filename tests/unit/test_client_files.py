# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings in files that others write to: added, changed, taken away exactly, and never lost by a kill."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dockyard.registry.plugins.module_utils import _client_files, _client_host
from ansible_collections.dockyard.registry.plugins.module_utils._client_files import (
    ClientFilesError,
    Result,
    Wanted,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.support.processes import run_killed_at

NAME = "registry.example.org:5000"


class Machine:
    """A folder that stands for the file system, and a ledger beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root / "etc"
        self.root.mkdir()
        self.ledger = str(root / "lib" / "client.json")

    def path(self, name: str) -> Path:
        return self.root / name

    def converge(self, *wanted: Wanted, name: str = NAME, check_mode: bool = False) -> Result:
        return _client_files.converge(self.ledger, name, wanted, check_mode=check_mode)

    def everything(self) -> dict[str, str]:
        return {
            str(each.relative_to(self.root.parent)): each.read_text() if each.is_file() else "(folder)"
            for each in self.root.parent.rglob("*")
        }


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def changed(result: Result) -> bool:
    return bool(result.changes)


def test_four_steps_and_back(machine: Machine) -> None:
    machine.path("daemon.json").write_text('{"log-level": "warn", "registry-mirrors": ["https://a.test"]}')
    machine.path("buildkitd.toml").write_text("debug = true")
    before = machine.everything()
    wanted = [
        Wanted(str(machine.path("certs.d/r/ca.crt")), "file", "a certificate\n"),
        Wanted(str(machine.path("daemon.json")), "json", {"registry-mirrors": ["https://b.test"]}),
        Wanted(str(machine.path("buildkitd.toml")), "block", '[registry."r"]\n  http = true\n'),
        Wanted(str(machine.path("k3s.yaml")), "yaml", {"mirrors": {"r": {"endpoint": ["https://r"]}}}, 0o600),
    ]
    assert changed(machine.converge(*wanted, check_mode=True))
    assert machine.everything() == before
    assert len(machine.converge(*wanted).changes) == 4
    settled = machine.everything()
    assert not changed(machine.converge(*wanted))
    assert not changed(machine.converge(*wanted, check_mode=True))
    assert machine.everything() == settled
    assert json.loads(machine.path("daemon.json").read_text()) == {
        "log-level": "warn",
        "registry-mirrors": ["https://a.test", "https://b.test"],
    }
    assert machine.path("k3s.yaml").stat().st_mode & 0o777 == 0o600

    assert len(machine.converge().changes) == 4
    after = machine.everything()
    assert json.loads(after.pop("etc/daemon.json")) == json.loads(before.pop("etc/daemon.json"))
    assert after.pop("etc/buildkitd.toml") == before.pop("etc/buildkitd.toml") + "\n"
    assert after == before
    assert not changed(machine.converge())


def test_what_is_no_longer_wanted_goes(machine: Machine) -> None:
    daemon = str(machine.path("daemon.json"))
    machine.converge(
        Wanted(daemon, "json", {"registry-mirrors": ["https://a.test"], "insecure-registries": ["r"]})
    )
    machine.converge(Wanted(daemon, "json", {"registry-mirrors": ["https://b.test"]}))
    assert json.loads(Path(daemon).read_text()) == {"registry-mirrors": ["https://b.test"]}


def test_what_was_there_already_is_not_ours_to_remove(machine: Machine) -> None:
    machine.path("daemon.json").write_text('{"registry-mirrors": ["https://a.test"]}')
    machine.path("ca.crt").write_text("a certificate\n")
    before = machine.everything()
    wanted = [
        Wanted(str(machine.path("daemon.json")), "json", {"registry-mirrors": ["https://a.test"]}),
        Wanted(str(machine.path("ca.crt")), "file", "a certificate\n"),
    ]
    assert not changed(machine.converge(*wanted))
    assert not changed(machine.converge())
    assert machine.everything() == before


def test_a_file_that_somebody_changed_since_stays(machine: Machine) -> None:
    wanted = Wanted(str(machine.path("certs.d/ca.crt")), "file", "a certificate\n")
    machine.converge(wanted)
    Path(wanted.path).write_text("another\n")
    result = machine.converge()
    assert (result.changes, result.kept) == ([], [wanted.path])
    assert Path(wanted.path).read_text() == "another\n"


def test_settings_of_two_registries_do_not_touch_each_other(machine: Machine) -> None:
    daemon, toml = str(machine.path("daemon.json")), str(machine.path("buildkitd.toml"))
    for name in ("one", "two"):
        machine.converge(
            Wanted(daemon, "json", {"insecure-registries": [name]}),
            Wanted(toml, "block", f'[registry."{name}"]\n  http = true'),
            name=name,
        )
    machine.converge(name="one")
    assert json.loads(Path(daemon).read_text()) == {"insecure-registries": ["two"]}
    assert '"one"' not in Path(toml).read_text()
    assert '"two"' in Path(toml).read_text()
    machine.converge(name="two")
    assert machine.everything() == {"etc": "(folder)"}


@pytest.mark.parametrize(
    ("text", "wanted", "message"),
    [
        ("{", Wanted("f", "json", {"a": 1}), "it is not JSON"),
        ("[]", Wanted("f", "json", {"a": 1}), "it holds no mapping"),
        ("a: [", Wanted("f", "yaml", {"a": 1}), "it is not YAML"),
        ('{"a": {"b": 2}}', Wanted("f", "json", {"a": {"b": 1}}), "a.b is set to something else"),
        ("theirs", Wanted("f", "file", "ours"), "was not written by this role"),
        ('[registry."r"] # theirs\n', Wanted("f", "block", '[registry."r"]\n'), "TOML allows a table once"),
    ],
)
def test_what_cannot_be_done_without_harm_changes_nothing(
    machine: Machine, text: str, wanted: Wanted, message: str
) -> None:
    machine.path("f").write_text(text)
    before = machine.everything()
    with pytest.raises(ClientFilesError, match=message):
        machine.converge(
            Wanted(str(machine.path("first")), "file", "x"), wanted._replace(path=str(machine.path("f")))
        )
    assert {name: text for name, text in machine.everything().items() if not name.startswith("lib")} == before


def test_a_checker_that_refuses_keeps_the_old_file(machine: Machine) -> None:
    checker = machine.path("checker")
    checker.write_text('#!/bin/sh\ncat "$1" >&2; grep -q good "$1"\n')
    checker.chmod(0o755)
    daemon = machine.path("daemon.json")
    daemon.write_text("{}")
    for value, refused in (("bad", True), ("good", False)):
        wanted = Wanted(str(daemon), "json", {"key": value}, validate=[str(checker)])
        if refused:
            with pytest.raises(ClientFilesError, match="refuses it"):
                machine.converge(wanted)
            assert daemon.read_text() == "{}"
        else:
            machine.converge(wanted)
    assert json.loads(daemon.read_text()) == {"key": "good"}
    assert sorted(each.name for each in machine.root.iterdir()) == ["checker", "daemon.json"]


def test_a_diff_shows_nothing_of_others(machine: Machine) -> None:
    machine.path("daemon.json").write_text('{"proxies": {"http-proxy": "http://u:secret@p"}}')
    result = machine.converge(Wanted(str(machine.path("daemon.json")), "json", {"registry-mirrors": ["m"]}))
    assert "secret" not in str(result)
    assert "registry-mirrors" in result.changes[0].after


_KILLED = """
from ansible_collections.dockyard.registry.plugins.module_utils._client_files import Wanted, converge
converge({ledger!r}, {name!r}, [Wanted({first!r}, "file", "x"), Wanted({second!r}, "json", {{"a": ["b"]}})])
"""


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_kill_leaves_nothing_that_absent_does_not_find(machine: Machine, count: int) -> None:
    machine.path("daemon.json").write_text('{"c": 1}')
    first, second = str(machine.path("certs.d/r/ca.crt")), str(machine.path("daemon.json"))
    code = _KILLED.format(ledger=machine.ledger, name=NAME, first=first, second=second)
    run_killed_at("os.rename", code, count=count)
    machine.converge()
    assert json.loads(Path(second).read_text()) == {"c": 1}
    assert not machine.path("certs.d").exists()


def test_a_damaged_ledger_is_named(machine: Machine) -> None:
    Path(machine.ledger).parent.mkdir()
    Path(machine.ledger).write_text("{}")
    with pytest.raises(ClientFilesError, match=r"client\.json: it does not say"):
        machine.converge()


values = st.recursive(
    st.one_of(st.integers(0, 3), st.lists(st.sampled_from("abc"), max_size=3, unique=True)),
    lambda below: st.dictionaries(st.sampled_from("pqr"), below, min_size=1, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(st.sampled_from("pqr"), values, max_size=3)


@given(documents, documents)
def test_taking_away_what_was_added_gives_what_was_there(have: dict[str, Any], want: dict[str, Any]) -> None:
    try:
        added = _client_files.missing(have, want, "f")
    except ClientFilesError:
        return
    together = _client_files.laid_over(have, added)
    assert _client_files.missing(together, want, "f") == {}
    assert _without_empty(_client_files.without(together, added)) == _without_empty(have)


def _without_empty(data: Any) -> Any:
    if not isinstance(data, dict):
        return data
    below = {key: _without_empty(value) for key, value in data.items()}
    return {key: value for key, value in below.items() if value not in ({}, [])}


def test_yaml_keeps_what_others_have(machine: Machine) -> None:
    file = machine.path("registries.yaml")
    file.write_text("configs:\n  other:5000:\n    auth: {username: u, password: p}\n")
    machine.converge(Wanted(str(file), "yaml", {"configs": {"r:1": {"tls": {"ca_file": "/f"}}}}))
    assert yaml.safe_load(file.read_text())["configs"] == {
        "other:5000": {"auth": {"username": "u", "password": "p"}},
        "r:1": {"tls": {"ca_file": "/f"}},
    }


def test_yaml_of_ours_alone_needs_no_pyyaml(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new file is JSON, which is YAML as well; only what others wrote cannot be read."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    file = machine.path("registries.yaml")
    wanted = [{"mirrors": {name: {"endpoint": [f"https://{name}"]}}} for name in ("r:1", "r:2")]
    assert changed(machine.converge(Wanted(str(file), "yaml", wanted[0])))
    assert changed(machine.converge(Wanted(str(file), "yaml", wanted[1])))
    assert not changed(machine.converge(Wanted(str(file), "yaml", wanted[1])))
    assert yaml.safe_load(file.read_text()) == wanted[1]
    machine.converge()
    assert not file.exists()

    file.write_text("mirrors: {}\n")
    before = machine.everything()
    with pytest.raises(ClientFilesError, match="this host's Python has no PyYAML"):
        machine.converge(Wanted(str(file), "yaml", wanted[0]))
    assert machine.everything() == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "absent"),
        ("version = 2\n", "unset"),
        ("  # config_path = '/x'\n", "unset"),
        ('config_path = ""\n', "unset"),
        ('[x]\n  config_path = "/etc/containerd/certs.d"\n', "set"),
        ('# BEGIN dockyard.registry r\nconfig_path = "/x"\n# END dockyard.registry r\n', "ours"),
        ('# BEGIN dockyard.registry other\nconfig_path = "/x"\n# END dockyard.registry other\n', "set"),
    ],
)
def test_containerd_config(tmp_path: Path, text: str | None, says: str) -> None:
    file = tmp_path / "config.toml"
    if text is not None:
        file.write_text(text)
    assert _client_host.containerd_config("r", str(file)) == says
