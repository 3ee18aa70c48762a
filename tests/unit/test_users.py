# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users as declared state, without a registry: what is refused, what changes, what is left alone."""

from __future__ import annotations

import dataclasses
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils import _files, _passwords, _secrets, _users
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._users import Outcome, Request

# The lowest cost, for speed.
CHEAP = 4


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "htpasswd"


def request(path: Path, *entries: Mapping[str, Any], **options: Any) -> Request:
    cheap = [{"cost": CHEAP, **entry} for entry in entries]
    return Request(path=str(path), users=_users.read_users(cheap, listed=True), **options)


def apply_in_four_steps(wanted: Request) -> Outcome:
    """Check mode, real, again, again in check mode: asserted together. Returns what the real run did."""
    check = dataclasses.replace(wanted, check_mode=True)
    folder = Path(wanted.path).parent
    before = {entry.name: entry.read_bytes() for entry in folder.iterdir()}
    planned = _users.apply(check)
    assert {entry.name: entry.read_bytes() for entry in folder.iterdir()} == before, (
        "check mode changes nothing"
    )
    done = _users.apply(wanted)
    again = _users.apply(wanted)
    planned_again = _users.apply(check)

    described = ("changed", "added", "updated", "removed", "unchanged", "users", "before", "after")
    assert {name: getattr(planned, name) for name in described} == {
        name: getattr(done, name) for name in described
    }, "check mode tells the truth"
    for outcome in (again, planned_again):
        assert not outcome.changed
        assert [*outcome.added, *outcome.updated, *outcome.removed, *outcome.generated] == []
        assert outcome.users == done.users
        assert outcome.before == outcome.after
    return done


def users_in(path: Path) -> dict[str, str]:
    lines = (line.partition(":") for line in path.read_text().splitlines() if line and line[0] != "#")
    return {name: password_hash for name, _colon, password_hash in lines}


def test_users_are_added_changed_and_removed(path: Path) -> None:
    done = apply_in_four_steps(
        request(path, {"name": "alice", "password": "one"}, {"name": "bob", "password": "two"})
    )
    assert (done.changed, done.added, done.users) == (True, ["alice", "bob"], ["alice", "bob"])
    assert _passwords.verify("one", users_in(path)["alice"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o640

    old = users_in(path)
    done = apply_in_four_steps(
        request(
            path,
            {"name": "alice", "password": "one"},
            {"name": "bob", "password": "new"},
            {"name": "carol", "password": "three"},
            {"name": "dave", "state": "absent"},
        )
    )
    assert (done.added, done.updated, done.unchanged) == (["carol"], ["bob"], ["alice", "dave"])
    assert users_in(path)["alice"] == old["alice"]
    assert _passwords.verify("new", users_in(path)["bob"])

    done = apply_in_four_steps(request(path, {"name": "bob", "state": "absent"}))
    assert (done.removed, done.users) == (["bob"], ["alice", "carol"])
    assert list(users_in(path)) == ["alice", "carol"]


def test_the_diff_tells_what_happens_to_each_and_no_hash(path: Path) -> None:
    _users.apply(
        request(path, *({"name": name, "password": "old"} for name in ("alice", "bob", "carol", "dora")))
    )
    done = _users.apply(
        request(
            path,
            {"name": "bob", "password": "new"},
            {"name": "carol", "state": "absent"},
            {"name": "dora", "password": "old", "cost": 5},
            {"name": "emil", "password": "new"},
        )
    )
    status = path.stat()
    head = f"mode 0640, owner {status.st_uid}, group {status.st_gid}"
    assert done.before.splitlines() == [
        head,
        *(f"{name}: <bcrypt, cost 4>" for name in ("alice", "bob", "carol", "dora")),
    ]
    assert done.after.splitlines() == [
        head,
        "alice: <bcrypt, cost 4>",
        "bob: <bcrypt, cost 4> (changed)",
        "dora: <bcrypt, cost 5> (changed)",
        "emil: <bcrypt, cost 4> (added)",
    ]


def test_exclusive_removes_whoever_is_not_listed_or_kept(path: Path) -> None:
    _users.apply(
        request(path, *({"name": name, "password": "x"} for name in ("alice", "bob", "carol", "dave")))
    )
    done = apply_in_four_steps(
        request(
            path,
            {"name": "bob"},
            {"name": "dave", "state": "absent"},
            exclusive=True,
            keep=frozenset({"carol"}),
        )
    )
    assert (done.removed, done.users, done.unchanged) == (["alice", "dave"], ["bob", "carol"], ["bob"])


def test_exclusive_with_nobody_makes_an_empty_file(path: Path) -> None:
    done = apply_in_four_steps(request(path, exclusive=True))
    assert (done.changed, done.users) == (True, [])
    assert path.read_bytes() == b""


def test_nobody_to_add_makes_no_file(path: Path) -> None:
    done = apply_in_four_steps(request(path, {"name": "alice", "state": "absent"}))
    assert not done.changed
    assert not path.exists()


def test_an_unchanged_file_is_not_rewritten_but_its_mode_is_corrected(path: Path) -> None:
    wanted = request(path, {"name": "alice", "password": "one"})
    _users.apply(wanted)
    path.chmod(0o666)
    status = path.stat()
    done = apply_in_four_steps(wanted)
    assert (done.changed, done.updated, done.unchanged) == (True, [], ["alice"])
    assert "mode 0666" in done.before
    assert "mode 0640" in done.after
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns)


def test_each_change_moves_the_mtime_forward(path: Path) -> None:
    last = 0
    for number in range(10):
        _users.apply(request(path, {"name": f"user{number}", "password": "x"}))
        assert path.stat().st_mtime_ns > last
        last = path.stat().st_mtime_ns


def test_a_new_cost_makes_a_new_hash(path: Path) -> None:
    _users.apply(request(path, {"name": "alice", "password": "one"}))
    done = apply_in_four_steps(request(path, {"name": "alice", "password": "one", "cost": 6}))
    assert done.updated == ["alice"]
    assert _passwords.cost_of(users_in(path)["alice"]) == 6


def test_the_default_cost_follows_the_password(path: Path) -> None:
    chosen, generated = "chosen by a person", _secrets.generate()
    apply_in_four_steps(
        request(
            path,
            {"name": "person", "password": chosen, "cost": None},
            {"name": "machine", "password": generated, "cost": None},
        )
    )
    costs = {name: _passwords.cost_of(password_hash) for name, password_hash in users_in(path).items()}
    assert costs == {"person": 10, "machine": 5}


def test_only_on_create_leaves_passwords_of_existing_users_alone(path: Path) -> None:
    _users.apply(request(path, {"name": "alice", "password": "one"}))
    old = users_in(path)
    done = apply_in_four_steps(
        request(
            path,
            {"name": "alice", "password": "two"},
            {"name": "bob", "password": "three"},
            only_on_create=True,
        )
    )
    assert (done.added, done.unchanged) == (["bob"], ["alice"])
    assert users_in(path)["alice"] == old["alice"]


def test_a_password_is_generated_once_and_no_longer_needed_later(path: Path) -> None:
    wanted = request(path, {"name": "alice", "cost": None})
    assert _users.apply(dataclasses.replace(wanted, check_mode=True)).generated == {
        "alice": _secrets.PLACEHOLDER
    }
    done = _users.apply(wanted)
    assert _passwords.verify(done.generated["alice"], users_in(path)["alice"])
    assert _users.apply(wanted).generated == {}

    # Whoever puts it into the inventory afterwards changes nothing.
    given = request(path, {"name": "alice", "password": done.generated["alice"], "cost": None})
    assert not _users.apply(given).changed


def test_reset_gives_a_new_password_each_time(path: Path) -> None:
    wanted = request(path, {"name": "alice", "reset": True})
    first, second = _users.apply(wanted), _users.apply(wanted)
    assert (first.added, second.updated) == (["alice"], ["alice"])
    assert first.generated != second.generated
    assert _passwords.verify(second.generated["alice"], users_in(path)["alice"])


def test_a_password_file_is_made_and_followed(path: Path) -> None:
    file = path.with_name("secret")
    wanted = request(path, {"name": "alice", "password_file": str(file), "cost": None})
    check = _users.apply(dataclasses.replace(wanted, check_mode=True))
    assert (check.changed, check.added) == (True, ["alice"])
    assert not file.exists()

    done = _users.apply(wanted)
    assert done.generated == {}, "it is in the file"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert _passwords.verify(file.read_text().strip(), users_in(path)["alice"])
    assert _passwords.cost_of(users_in(path)["alice"]) == 5
    assert f"{file}: made\n" in done.after
    assert check.after == done.after.replace(done.after.splitlines()[0], check.after.splitlines()[0])
    assert not _users.apply(wanted).changed

    file.unlink()
    done = apply_in_four_steps(wanted)
    assert done.updated == ["alice"]
    assert _passwords.verify(file.read_text().strip(), users_in(path)["alice"])


def test_a_password_file_that_cannot_be_used_stops_everything(path: Path) -> None:
    long, missing = path.with_name("long"), path.with_name("missing")
    long.write_text("a" * 73)
    wanted = request(
        path,
        {"name": "alice", "password_file": str(missing)},
        {"name": "bob", "password_file": str(long)},
    )
    with pytest.raises(
        RegistryError, match=r"users\[1\] \(bob\): the password has 73 bytes.*; it is in .*/long"
    ):
        _users.apply(wanted)
    assert not missing.exists()
    assert not path.exists()


def test_probes_of_a_killed_run_are_removed(path: Path) -> None:
    path.write_text(f"{_users.PROBE_PREFIX}0123:{_passwords.sample(5)}\n")
    done = apply_in_four_steps(request(path, {"name": "alice", "password": "one"}))
    assert done.removed == [f"{_users.PROBE_PREFIX}0123"]
    assert list(users_in(path)) == ["alice"]


def test_a_file_with_a_hash_that_the_registry_does_not_know_is_left_alone_unless_it_goes(path: Path) -> None:
    data = f"alice:$apr1$salt$secret\nbob:{_passwords.sample(5)}\n"
    path.write_text(data)
    for entry in (
        {"name": "bob", "password": "x"},
        {"name": "alice"},
        {"name": "carol", "password_file": str(path.with_name("secret"))},
    ):
        with pytest.raises(RegistryError, match=r"line 1: 'alice' has an MD5 \(apr1\) hash"):
            _users.apply(request(path, entry))
        assert path.read_text() == data
    assert not path.with_name("secret").exists()

    done = apply_in_four_steps(request(path, {"name": "alice", "password": "one"}))
    assert done.updated == ["alice"]

    path.write_text(data)
    assert apply_in_four_steps(request(path, {"name": "alice", "state": "absent"})).removed == ["alice"]


def test_duplicates_and_cr_lf_are_reported(path: Path) -> None:
    one, two = _passwords.make_hash("one", CHEAP), _passwords.make_hash("two", CHEAP)
    path.write_text(f"alice:{one}\r\nalice:{two}\n", newline="")
    # The registry goes by the last line.
    done = _users.apply(request(path, {"name": "alice", "password": "two"}))
    assert done.unchanged == ["alice"]
    assert [re.sub(r".*htpasswd: ", "", warning) for warning in done.warnings] == [
        "'alice' has lines 1 and 2; the registry goes by the last one",
        "lines end in CR LF; the registry ignores the CR, a proxy may not",
    ]
    done = _users.apply(request(path, {"name": "alice", "password": "one"}))
    assert done.updated == ["alice"]
    assert path.read_text().count("alice") == 1


def test_the_owner_of_the_file_stays_unless_another_is_asked_for(path: Path) -> None:
    _users.apply(request(path, {"name": "alice", "password": "one"}))
    try:
        _files.ensure_attributes(path, _files.Attributes(0o640, 12345, 54321))
    except RegistryError:
        pytest.skip("only root may give files away")
    apply_in_four_steps(request(path, {"name": "bob", "password": "two"}))
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)
    apply_in_four_steps(
        request(path, {"name": "bob", "password": "two"}, attributes=_files.Attributes(0o644, 0, None))
    )
    assert (path.stat().st_uid, path.stat().st_gid) == (0, 54321)


def test_a_symbolic_link_is_followed(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))
    _users.apply(request(path, {"name": "alice", "password": "one"}))
    assert path.is_symlink()
    assert list(users_in(path.with_name("elsewhere"))) == ["alice"]


def test_a_missing_folder_is_an_error_and_in_check_mode_a_warning(tmp_path: Path) -> None:
    wanted = request(tmp_path / "auth" / "htpasswd", {"name": "alice", "password": "one"})
    with pytest.raises(RegistryError, match=r"the folder .*/auth does not exist; create it first"):
        _users.apply(wanted)
    planned = _users.apply(dataclasses.replace(wanted, check_mode=True))
    assert planned.added == ["alice"]
    assert "does not exist yet" in planned.warnings[0]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"name": None}], "users[0]: the user name is missing"),
        ([{"name": 12}], "users[0]: the user name 12 is not a string: put it in quotes"),
        ([{"name": ""}], "users[0]: the user name is empty"),
        ([{"name": "a:b"}], "users[0]: the user name holds a colon, which ends it"),
        ([{"name": "a\nb"}], "users[0]: the user name holds control characters"),
        ([{"name": "dockyard-probe-1"}], "users[0]: names that begin with dockyard-probe- are reserved"),
        ([{"name": "a", "password": ""}], "users[0] (a): the password is empty"),
        ([{"name": "a", "password": 123}], "users[0] (a): the password is not a string: put it in quotes"),
        ([{"name": "a", "password": True}], "users[0] (a): the password is not a string: put it in quotes"),
        (
            [{"name": "a", "password": "x" * 73}],
            "users[0] (a): the password has 73 bytes; bcrypt looks at no more than the first 72",
        ),
        (
            [{"name": "a", "password": "x", "password_file": "/x"}],
            "users[0] (a): password and password_file exclude each other",
        ),
        (
            [{"name": "a", "password": "x", "reset": True}],
            "users[0] (a): password and reset exclude each other",
        ),
        (
            [{"name": "a", "state": "absent", "reset": True}],
            "users[0] (a): reset makes no sense for a user that should be absent",
        ),
        ([{"name": "a", "cost": 3}], "users[0] (a): cost 3 is no number from 4 to 15"),
        ([{"name": "a", "cost": 16}], "users[0] (a): cost 16 is no number from 4 to 15"),
        ([{"name": "a", "cost": "ten"}], "users[0] (a): cost 'ten' is no number from 4 to 15"),
        ([{"name": "a", "state": "gone"}], "users[0] (a): state 'gone' is neither present nor absent"),
        (
            [{"name": "a"}, {"name": "b"}, {"name": "a"}],
            "users[2] (a): the same name as users[0]",
        ),
        (
            [{"name": "a", "password": ""}, {"name": "b", "cost": 99}],
            "users[0] (a): the password is empty; users[1] (b): cost 99 is no number from 4 to 15",
        ),
    ],
)
def test_bad_input_is_named(entries: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(RegistryError) as caught:
        _users.read_users(entries, listed=True)
    assert str(caught.value) == message


def test_a_single_user_is_called_so() -> None:
    with pytest.raises(RegistryError, match=r"^user \(alice\): the password is empty$"):
        _users.read_users([{"name": "alice", "password": ""}], listed=False)


def test_a_user_cannot_be_kept_and_absent(path: Path) -> None:
    wanted = request(path, {"name": "alice", "state": "absent"}, keep=frozenset({"alice"}))
    with pytest.raises(RegistryError, match=r"users\[0\] \(alice\): should be absent, yet"):
        _users.apply(wanted)
