# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module htpasswd_user as people use it: through Ansible, many at once, killed, with real registries."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils import _files, _passwords
from ansible_collections.dockyard.registry.plugins.module_utils._htpasswd import UsersFile, UsersFileError

from tests.support.modules import module_result, run_ansible, run_module, start_module
from tests.support.processes import run_killed_at
from tests.support.registry import RegistryProcess

MODULE = "htpasswd_user"
MODULE_NAME = f"ansible_collections.dockyard.registry.plugins.modules.{MODULE}"
AS_MAIN = f"import runpy\nrunpy.run_module({MODULE_NAME!r}, run_name='__main__')"
PASSWORD = "wonderland"
HASH = "$2y$04$htbDjQyu2PnzpAQcwj.EGeQdj6wvQ5yW9J/VJWEFAP5pNChu/xk8S"
LISTS = ("added", "updated", "removed", "unchanged", "users")

RegistryFactory = Callable[..., RegistryProcess]


def log_in(registry: RegistryProcess, user: str, password: str) -> int:
    """The status that the registry gives this user."""
    credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
    request = urllib.request.Request(f"{registry.url}/v2/", headers={"Authorization": f"Basic {credentials}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def hash_lines(path: Path) -> dict[str, str]:
    """User names to hashes, each line of the file being one user."""
    return dict(line.split(":", 1) for line in path.read_text().splitlines())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "htpasswd"


@pytest.fixture
def secured(registry_factory: RegistryFactory) -> RegistryProcess:
    """A registry with one user, olga."""
    return registry_factory(auth={"olga": "olga's password"})


# Through Ansible


def ansible_result(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(done.stdout[done.stdout.index("=> {") + 3 :])
    return result


def test_four_steps_through_ansible(path: Path) -> None:
    args = {
        "path": str(path),
        "users": [
            {
                "name": "alice",
                "password": "wonderland 1",
                "permissions": ["pull"],
                "repositories": ["team/*"],
            },
            {"name": "bob", "password": "wonderland 2", "state": "present"},
        ],
        "mode": "0600",
    }
    steps = [run_ansible(MODULE, args, check=check, diff=True, verbosity=3) for check in (True, False) * 2]
    planned, done, planned_again, again = map(ansible_result, steps)
    assert [step["changed"] for step in (planned, done, again, planned_again)] == [True, True, False, False]
    for name in LISTS:
        assert planned[name] == done[name]
        assert again[name] == planned_again[name]
    assert done["added"] == again["unchanged"] == ["alice", "bob"]
    assert "+alice: <bcrypt, cost 10> (added)" in steps[0].stdout
    assert "+alice: <bcrypt, cost 10> (added)" in steps[1].stdout
    assert "+alice" not in steps[3].stdout

    hashes = hash_lines(path)
    for step in steps:
        printed = step.stdout + step.stderr
        assert "wonderland" not in printed
        assert not [name for name, password_hash in hashes.items() if password_hash in printed]
        assert "WARNING" not in printed


def test_bad_input_through_ansible_is_a_message_and_no_traceback(path: Path) -> None:
    users = [{"name": "alice", "password": "x" * 73}, {"name": "a:b"}]
    done = run_ansible(MODULE, {"path": str(path), "users": users})
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    assert ansible_result(done)["msg"] == (
        "users[0] (alice): the password has 73 bytes; bcrypt looks at no more than the first 72; "
        "users[1]: the user name holds a colon, which ends it"
    )
    assert not list(path.parent.iterdir())


# As a process


def test_one_user_without_a_list(path: Path) -> None:
    result = run_module(MODULE, {"path": str(path), "name": "alice", "password": "wonderland", "cost": 4})
    assert (result["changed"], result["added"]) == (True, ["alice"])
    result = run_module(MODULE, {"path": str(path), "name": "alice", "state": "absent"})
    assert (result["changed"], result["removed"], result["users"]) == (True, ["alice"], [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of the following is required: name, users"),
        ({"name": "alice", "users": []}, "mutually exclusive: name|users"),
        ({"users": [], "state": "absent"}, "mutually exclusive: state|users"),
        ({"users": [{"password": PASSWORD}]}, "missing required arguments: name found in users"),
        ({"users": [{"name": "alice", "passwrod": "x"}]}, "passwrod"),
        ({"name": "alice", "password": 83}, "user (alice): the password is not a string: put it in quotes"),
        ({"name": "alice", "mode": "rw"}, "mode 'rw': not an octal file mode"),
        ({"name": "alice", "owner": "no-such-user"}, "owner 'no-such-user': not known on this host"),
        ({"name": "alice", "verify_url": "ftp://example.org"}, "ftp://example.org"),
    ],
)
def test_bad_options_are_named_and_touch_nothing(path: Path, options: dict[str, Any], message: str) -> None:
    result = run_module(MODULE, {"path": str(path), **options})
    assert result["failed"]
    assert message in result["msg"]
    assert not path.exists()


def test_a_missing_folder_is_named(path: Path) -> None:
    result = run_module(MODULE, {"path": str(path / "htpasswd"), "name": "alice", "password": PASSWORD})
    assert result["msg"] == (f"write {path}/htpasswd: the folder {path} does not exist; create it first")


def test_a_malformed_line_is_named_and_the_file_left_alone(path: Path) -> None:
    data = f"# users\nbob:{_passwords.sample(5)}\nsecret without a colon\n"
    path.write_text(data)
    result = run_module(MODULE, {"path": str(path), "name": "alice", "password": PASSWORD})
    assert result["msg"] == (
        f"users file {path}: line 3: no colon between user name and hash; correct or remove it. "
        "The file was left alone"
    )
    assert path.read_text() == data


def test_a_lock_that_is_held_is_named_with_its_holder(path: Path) -> None:
    lock = path.with_name(".htpasswd.lock")
    with _files.locked(lock, timeout=0):
        args = {"path": str(path), "name": "alice", "password": PASSWORD}
        result = run_module(MODULE, {**args, "lock_timeout": 0})
        assert f"lock {lock}: still held by process {os.getpid()} after 0 s" in result["msg"]
        assert run_module(MODULE, args, check=True)["added"] == ["alice"], "check mode needs no lock"
    assert not path.exists()


def test_fifty_runs_at_once_leave_fifty_users(path: Path) -> None:
    path.write_text(f"# first\nolga:{_passwords.sample(5)}\n")
    names = [f"user{number}" for number in range(50)]
    runs = [
        start_module(MODULE, {"path": str(path), "name": name, "password": f"{name}'s password", "cost": 4})
        for name in names
    ]
    results = [module_result(run) for run in runs]
    assert [result["added"] for result in results] == [[name] for name in names]
    first, *lines = path.read_text().splitlines()
    assert first == "# first"
    assert sorted(line.split(":")[0] for line in lines) == sorted(["olga", *names])
    assert sorted(entry.name for entry in path.parent.iterdir()) == [".htpasswd.lock", "htpasswd"]


@pytest.mark.parametrize("event", ["os.chown", "os.chmod", "os.rename"])
def test_a_killed_run_leaves_the_old_file_whole(path: Path, event: str) -> None:
    run_module(MODULE, {"path": str(path), "users": [{"name": "olga", "password": PASSWORD, "cost": 4}]})
    old = path.read_bytes()
    args = {"path": str(path), "name": "alice", "password": PASSWORD, "cost": 4}
    run_killed_at(event, AS_MAIN, stdin=json.dumps({"ANSIBLE_MODULE_ARGS": args}))
    assert path.read_bytes() == old

    assert run_module(MODULE, args)["added"] == ["alice"]
    assert list(hash_lines(path)) == ["olga", "alice"]
    assert sorted(entry.name for entry in path.parent.iterdir()) == [".htpasswd.lock", "htpasswd"]


def test_adding_one_user_to_five_thousand_touches_no_other_line(path: Path) -> None:
    data = "".join(f"user{number}:{_passwords.sample(10)}\n" for number in range(5000))
    path.write_text(data)
    result = run_module(
        MODULE, {"path": str(path), "name": "alice", "password": PASSWORD, "cost": 4}, diff=True
    )
    assert (result["added"], len(result["users"])) == (["alice"], 5001)
    text = path.read_text()
    assert text.startswith(data)
    assert text.count("\n") == 5001


# With a registry


def test_changes_take_effect_without_a_restart_and_are_proven(secured: RegistryProcess) -> None:
    def change(*users: dict[str, Any]) -> dict[str, Any]:
        args = {"path": str(secured.htpasswd), "users": list(users), "verify_url": secured.url}
        return run_module(MODULE, args)

    assert log_in(secured, "olga", "olga's password") == 200
    result = change({"name": "alice", "password": "one"})
    assert result["verified"] == [
        {"user": "alice", "password": "the new password", "status": 200},
        {"user": "alice", "password": "a wrong password", "status": 401},
    ]
    assert log_in(secured, "alice", "one") == 200
    assert log_in(secured, "olga", "olga's password") == 200

    result = change({"name": "alice", "password": "two"})
    assert result["updated"] == ["alice"]
    assert [answer["status"] for answer in result["verified"]] == [200, 401]
    assert (log_in(secured, "alice", "one"), log_in(secured, "alice", "two")) == (401, 200)

    assert change({"name": "alice", "password": "two"})["verified"] == [], "no change, no question"

    result = change({"name": "alice", "state": "absent", "password": "two"})
    assert result["verified"][-1] == {"user": "alice", "password": "the old password", "status": 401}
    assert log_in(secured, "alice", "two") == 401
    assert log_in(secured, "olga", "olga's password") == 200


def test_a_removal_without_a_known_password_is_proven_by_a_probe(secured: RegistryProcess) -> None:
    result = run_module(
        MODULE,
        {"path": str(secured.htpasswd), "name": "olga", "state": "absent", "verify_url": secured.url},
    )
    assert [answer["status"] for answer in result["verified"]] == [200, 401]
    assert all(answer["user"].startswith("dockyard-probe-") for answer in result["verified"])
    assert result["users"] == []
    assert secured.htpasswd.read_bytes() == b""
    assert log_in(secured, "olga", "olga's password") == 401


def test_another_cost_for_the_same_password_is_proven_by_a_probe(secured: RegistryProcess) -> None:
    user = {"name": "olga", "password": "olga's password", "cost": 4}
    result = run_module(MODULE, {"path": str(secured.htpasswd), "users": [user], "verify_url": secured.url})
    assert result["updated"] == ["olga"]
    assert [answer["status"] for answer in result["verified"]] == [200, 401]
    assert all(answer["user"].startswith("dockyard-probe-") for answer in result["verified"])
    assert "dockyard-probe" not in secured.htpasswd.read_text()
    assert log_in(secured, "olga", "olga's password") == 200


@pytest.mark.parametrize("writes", [1, 2])
def test_a_run_killed_while_it_probes_is_healed_by_the_next(secured: RegistryProcess, writes: int) -> None:
    args = {"path": str(secured.htpasswd), "name": "olga", "state": "absent", "verify_url": secured.url}
    run_killed_at("os.rename", AS_MAIN, count=writes, stdin=json.dumps({"ANSIBLE_MODULE_ARGS": args}))
    left = list(hash_lines(secured.htpasswd))
    assert left == ["olga"] if writes == 1 else left[0].startswith("dockyard-probe-")

    result = run_module(MODULE, args)
    assert result["removed"] == left
    assert secured.htpasswd.read_bytes() == b""
    assert log_in(secured, "olga", "olga's password") == 401


def test_many_changes_within_a_second_are_all_seen(secured: RegistryProcess) -> None:
    for number in range(6):
        for state, expected in (("present", 200), ("absent", 401)):
            password = f"password {number}"
            args = {"name": "alice", "password": password, "state": state, "cost": 4}
            assert run_module(MODULE, {"path": str(secured.htpasswd), **args})["changed"]
            assert log_in(secured, "alice", password) == expected


def test_the_file_that_the_registry_makes_itself_can_be_worked_on(
    registry_factory: RegistryFactory, path: Path
) -> None:
    registry = registry_factory(config_overrides={"auth": {"htpasswd": {"realm": "test", "path": str(path)}}})
    assert path.read_text().startswith("docker:")
    assert not path.read_text().endswith("\n")
    users = [{"name": "alice", "password": "one"}, {"name": "bob", "password": "two"}]
    args = {"path": str(path), "users": users, "verify_url": registry.url}
    assert run_module(MODULE, args)["users"] == ["docker", "alice", "bob"]
    assert run_module(MODULE, {**args, "exclusive": True})["removed"] == ["docker"]
    assert (log_in(registry, "alice", "one"), log_in(registry, "bob", "two")) == (200, 200)


def test_a_registry_with_another_users_file_is_found_out(secured: RegistryProcess, path: Path) -> None:
    result = run_module(
        MODULE,
        {"path": str(path), "users": [{"name": "alice"}], "verify_url": secured.url, "verify_timeout": 0},
    )
    assert result["failed"]
    assert result["msg"].startswith(
        f"{path} is written, but ask {secured.url} for alice with the new password: it answers 401 "
        "instead of 200 after 0 s: it does not read this users file."
    )
    # Nothing is lost: the file, and the password that nobody else knows.
    assert result["changed"]
    assert _passwords.verify(result["generated"]["alice"], hash_lines(path)["alice"])


def test_a_registry_that_does_not_see_a_removal_is_found_out(secured: RegistryProcess, path: Path) -> None:
    path.write_bytes(secured.htpasswd.read_bytes())
    args = {"path": str(path), "name": "olga", "verify_url": secured.url, "verify_timeout": 0}
    result = run_module(MODULE, {**args, "state": "absent"})
    assert re.search(r"for dockyard-probe-\w+ with a probe's password: it answers 401", result["msg"])
    assert path.read_bytes() == b"", "the removal stays, the probe does not"


def test_a_registry_that_lets_everybody_in_has_proven_nothing(registry: RegistryProcess, path: Path) -> None:
    args = {"path": str(path), "name": "alice", "password": "one"}
    result = run_module(MODULE, {**args, "verify_url": registry.url, "verify_timeout": 0})
    assert "with a wrong password: it answers 200 instead of 401" in result["msg"]
    assert "or lets everybody in" in result["msg"]


def test_a_registry_that_does_not_answer_is_an_error_after_the_write(
    secured: RegistryProcess,
) -> None:
    secured.stop()
    args = {"path": str(secured.htpasswd), "name": "alice", "password": "one"}
    result = run_module(MODULE, {**args, "verify_url": secured.url, "verify_timeout": 0})
    assert result["failed"]
    assert "is written, but ask" in result["msg"]
    assert "refused" in result["msg"].lower()
    secured.start()
    assert log_in(secured, "alice", "one") == 200


def test_a_certificate_is_checked(registry_factory: RegistryFactory, tmp_path: Path) -> None:
    certificate, key = tmp_path / "ca.crt", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    tls = {"certificate": str(certificate), "key": str(key)}
    registry = registry_factory(auth={}, config_overrides={"http": {"tls": tls}})
    args = {"path": str(registry.htpasswd), "verify_url": registry.url, "verify_timeout": 0}
    result = run_module(MODULE, {**args, "name": "alice", "password": "one"})
    assert "certificate" in result["msg"]
    for number, trust in enumerate(({"ca_file": str(certificate)}, {"validate_certs": False})):
        result = run_module(MODULE, {**args, **trust, "name": f"bob{number}", "password": "one"})
        assert [answer["status"] for answer in result["verified"]] == [200, 401]


LINES = {
    "plain": f"alice:{HASH}",
    "carriage return": f"alice:{HASH}\r",
    "two carriage returns": f"alice:{HASH}\r\r",
    "blanks around": f" \t alice:{HASH} \x0b\x0c",
    "Unicode blanks around": f"\u00a0\u2003alice:{HASH}\u3000",
    "a separator that is no blank": f"\x1calice:{HASH}",
    "byte order mark": f"\ufeffalice:{HASH}",
    "Latin-1 blank": b"\xa0alice:" + HASH.encode(),
    "comment": f"#alice:{HASH}",
    "indented comment": f" # alice:{HASH}",
    "third field": f"alice:{HASH}:more",
    "2a": f"alice:{HASH.replace('$2y$', '$2a$')}",
    "2b": f"alice:{HASH.replace('$2y$', '$2b$')}",
    "too long": f"alice:{HASH}.",
    "too short": f"alice:{HASH[:-1]}",
    "cost too low": f"alice:{HASH.replace('$04$', '$03$')}",
    "cost too high": f"alice:{HASH.replace('$04$', '$32$')}",
    "plain password": f"alice:{PASSWORD}",
    "blank before the hash": f"alice: {HASH}",
    "blank after the name": f"alice :{HASH}",
    "good, then bad": f"alice:{HASH}\nalice:{PASSWORD}",
    "bad, then good": f"alice:{PASSWORD}\nalice:{HASH}",
    "no colon": "no colon",
    "no name": f":{HASH}",
    "longest line": "#" + "x" * 65_534,
    "too long a line": "#" + "x" * 65_535,
    "umlaut": f"älice:{HASH}",
    "empty line": "",
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES.keys())
def test_lines_are_read_as_the_registry_reads_them(secured: RegistryProcess, line: str | bytes) -> None:
    """Whom we find in a file is whom the registry lets in; what it refuses, we refuse."""
    data = b"# head\n" + (line if isinstance(line, bytes) else line.encode()) + b"\n"
    secured.htpasswd.write_bytes(data)
    os.utime(secured.htpasswd, (1, 1))
    statuses = {name: log_in(secured, name, PASSWORD) for name in ("alice", "älice")}
    try:
        table = UsersFile.parse(data, "htpasswd")
        table.require_usable()
    except UsersFileError:
        # A file that it cannot read is a 400 once; a line that never lets its user in is a 401.
        assert 200 not in statuses.values()
    else:
        assert {name: 200 if name in table else 401 for name in statuses} == statuses
