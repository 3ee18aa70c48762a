# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The users file: reading, changing and printing it; and what passwords and hashes may be."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import bcrypt
import pytest
from ansible_collections.dockyard.registry.plugins.module_utils import _htpasswd, _passwords, _secrets
from ansible_collections.dockyard.registry.plugins.module_utils._htpasswd import UsersFile, UsersFileError
from hypothesis import given
from hypothesis import strategies as st

HASH = _passwords.sample(10)
OTHER = _passwords.sample(5)

# Names that the registry can have.
user_names = st.text(min_size=1, max_size=12).filter(lambda name: _htpasswd.problem_of(name) is None)
hashes = st.integers(min_value=4, max_value=31).map(_passwords.sample)
# Few names often come twice.
file_names = st.one_of(user_names, st.sampled_from(["alice", "bob"]))
fields = st.tuples(hashes, st.sampled_from(["", ":", ":a remark", "."])).map("".join)
entries = st.tuples(file_names, fields).map(lambda pair: f"{pair[0]}:{pair[1]}".encode())
blank_lines = st.sampled_from([b"", b"  ", b"\t", "\u2003".encode()])
comments = st.binary(max_size=20).map(lambda tail: b" # " + tail.replace(b"\n", b""))
lines = st.tuples(st.one_of(entries, blank_lines, comments), st.sampled_from([b"\n", b"\r\n"]))


@st.composite
def users_files(draw: st.DrawFn) -> bytes:
    data = b"".join(text + end for text, end in draw(st.lists(lines, max_size=12)))
    return data.rstrip(b"\n") if draw(st.booleans()) else data


def parse(data: bytes) -> UsersFile:
    return UsersFile.parse(data, "/auth/htpasswd")


def untouched(data: bytes) -> list[bytes]:
    """The lines without an entry, in order."""
    stripped = (line.strip() for line in data.split(b"\n"))
    return [line for line in stripped if line.startswith(b"#")]


@given(users_files())
def test_printing_gives_back_every_byte(data: bytes) -> None:
    assert parse(data).to_bytes() == data


@given(users_files(), st.lists(st.tuples(file_names, st.none() | hashes), max_size=6), st.data())
def test_changes_do_what_they_say_and_nothing_else(
    data: bytes, changes: list[tuple[str, str | None]], more: st.DataObject
) -> None:
    table = parse(data)
    expected = {name: table.hash_of(name) for name in table.names()}
    if expected:
        changes.append((more.draw(st.sampled_from(sorted(expected))), more.draw(st.none() | hashes)))
    for name, password_hash in changes:
        if password_hash is None:
            table.remove(name)
            expected.pop(name, None)
        else:
            table.set(name, password_hash)
            expected[name] = password_hash

    printed = parse(table.to_bytes())
    assert {name: printed.hash_of(name) for name in printed.names()} == expected
    assert untouched(table.to_bytes()) == untouched(data)
    assert printed.names() == table.names()


def test_the_order_and_what_lies_between_stay() -> None:
    data = f"# head\nalice:{HASH}\n\n  # bob's team\nbob:{HASH}\r\ncarol:{HASH}".encode()
    table = parse(data)
    table.set("bob", OTHER)
    table.remove("alice")
    table.set("dave", OTHER)
    assert table.to_bytes().decode() == (
        f"# head\n\n  # bob's team\nbob:{OTHER}\ncarol:{HASH}\ndave:{OTHER}\n"
    )
    assert table.names() == ["bob", "carol", "dave"]


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (b"alice", "no colon between user name and hash"),
        (b":$2y$10$secret", "the user name is empty"),
        (b"ali\x00ce:$2y$10$secret", "the user name holds control characters"),
        (b"ali\xffce:$2y$10$secret", "the user name holds control characters"),
        (b"alice :$2y$10$secret", "the user name begins or ends with a blank"),
        ("\ufeffalice:$2y$10$secret".encode(), "the user name holds invisible characters"),
        ("ali\u200bce:$2y$10$secret".encode(), "the user name holds invisible characters"),
        (b"alice:$2y$10$\x07secret", "the hash holds control characters"),
        (b"alice:$2y$10$\rsecret", "the hash holds control characters"),
        (b"alice:$2y$10$secret" + b"." * 65_536, "longer than 65535 bytes"),
        (b"#" * 65_536, "longer than 65535 bytes"),
    ],
)
def test_a_malformed_line_is_named_with_its_cause_and_not_shown(line: bytes, cause: str) -> None:
    data = f"# comment\nbob:{HASH}\n".encode() + line + b"\n"
    with pytest.raises(UsersFileError) as caught:
        parse(data)
    assert str(caught.value).startswith(f"users file /auth/htpasswd: line 3: {cause}")
    assert "secret" not in str(caught.value)


def test_all_malformed_lines_are_named_at_once() -> None:
    with pytest.raises(UsersFileError, match=r"line 1: no colon.*; line 3: the user name is empty; correct"):
        parse(f"alice\nbob:{HASH}\n:{HASH}\n".encode())
    with pytest.raises(UsersFileError, match=r"line 10: no colon[^;]*; and 15 more; correct"):
        parse(b"alice\n" * 25)


def test_the_longest_line_that_the_registry_reads() -> None:
    assert parse(b"#" * 65_535 + b"\n").names() == []


@pytest.mark.parametrize(
    ("password_hash", "kind"),
    [
        ("$apr1$salt$secret", "an MD5 (apr1) hash"),
        ("{SHA}secret", "a SHA-1 hash"),
        ("$5$salt$secret", "a SHA-256 hash"),
        ("$6$salt$secret", "a SHA-512 hash"),
        ("$argon2id$secret", "an Argon2 hash"),
        ("secret", "a plain password or an old crypt hash"),
        ("", "a plain password or an old crypt hash"),
        (HASH[:-1], "a damaged bcrypt hash"),
        (HASH.replace("$10$", "$32$"), "a damaged bcrypt hash"),
        (HASH.replace("$10$", "$03$"), "a damaged bcrypt hash"),
    ],
)
def test_what_is_no_bcrypt_hash_is_named_but_may_be_replaced(password_hash: str, kind: str) -> None:
    data = f"alice:{HASH}\nbob:{password_hash}\n".encode()
    table = parse(data)
    with pytest.raises(UsersFileError) as caught:
        table.require_usable()
    assert f"line 2: 'bob' has {kind}" in str(caught.value)
    assert "secret" not in str(caught.value)
    table.require_usable(except_for=["bob"])
    table.set("bob", HASH)
    table.require_usable()


def test_the_last_of_two_lines_counts_and_a_change_leaves_one() -> None:
    data = f"bob:{HASH}\n# why twice?\nalice:{HASH}\nbob:{OTHER}\n".encode()
    table = parse(data)
    assert table.names() == ["alice", "bob"]
    assert table.hash_of("bob") == OTHER
    assert table.duplicates() == {"bob": [1, 4]}
    table.set("bob", _passwords.sample(7))
    assert table.to_bytes().decode() == f"# why twice?\nalice:{HASH}\nbob:{_passwords.sample(7)}\n"
    assert table.duplicates() == {}

    table = parse(data)
    table.remove("bob")
    assert table.to_bytes().decode() == f"# why twice?\nalice:{HASH}\n"


def test_what_the_registry_ignores_after_a_hash_is_ignored_and_a_remark_stays() -> None:
    table = parse(f"alice:{HASH}:on leave\nbob:{HASH}.\n".encode())
    assert table.hash_of("alice") == table.hash_of("bob") == HASH
    table.require_usable()
    table.set("alice", OTHER)
    table.set("bob", OTHER)
    assert table.to_bytes().decode() == f"alice:{OTHER}:on leave\nbob:{OTHER}\n"


def test_only_the_line_that_counts_must_be_usable() -> None:
    parse(f"bob:plain\nbob:{HASH}\n".encode()).require_usable()
    with pytest.raises(UsersFileError, match="line 2: 'bob'"):
        parse(f"bob:{HASH}\nbob:plain\n".encode()).require_usable()


def test_an_unknown_user() -> None:
    table = parse(b"")
    assert "alice" not in table
    table.remove("alice")
    with pytest.raises(KeyError):
        table.hash_of("alice")
    assert "alice" not in table


def test_cr_lf_is_read_as_the_registry_does_and_noticed() -> None:
    table = parse(f"alice:{HASH}\r\n".encode())
    assert table.hash_of("alice") == HASH
    assert table.has_crlf()
    assert not parse(f"alice:{HASH}\n".encode()).has_crlf()


def test_the_description_shows_no_hash() -> None:
    table = parse(f"alice:{HASH}\nbob:$apr1$salt$secret\n".encode())
    assert table.kinds() == {"alice": "bcrypt, cost 10", "bob": "an MD5 (apr1) hash"}


@pytest.mark.parametrize(
    "name",
    ["", "a:b", "a\nb", "a\tb", "a\x7fb", "#a", " a", "a ", "a\u00a0", "\ufeffa", "a\u202eb", "\ud800"],
)
def test_names_that_the_registry_cannot_have(name: str) -> None:
    assert _htpasswd.problem_of(name)


@pytest.mark.parametrize("name", ["a", "a b", "a#b", "ä", "日本", "a@example.org", "$2y$"])
def test_names_that_it_can_have(name: str) -> None:
    assert _htpasswd.problem_of(name) is None


@pytest.mark.parametrize(
    ("password", "problem"),
    [
        ("", "the password is empty"),
        ("a\nb", "control character"),
        ("a\x00b", "control character"),
        ("a" * 73, "the password has 73 bytes"),
        ("ä" * 37, "the password has 74 bytes"),
        ("\udcff", "control character"),
        ("a" * 72, None),
        ("ä" * 36, None),
        ("a b:c$(d)'\"", None),
    ],
)
def test_passwords(password: str, problem: str | None) -> None:
    found = _passwords.problem_of(password)
    assert found is None if problem is None else problem in str(found)


@pytest.mark.parametrize("password", ["wonderland", "ä" * 36, "a" * 72, "a b:c$(d)'\""])
def test_hashes_are_bcrypt_of_the_cost_asked_for(password: str) -> None:
    password_hash = _passwords.make_hash(password, 4)
    assert re.fullmatch(r"\$2y\$04\$[./A-Za-z0-9]{53}", password_hash)
    assert bcrypt.checkpw(password.encode(), password_hash.encode())
    assert _passwords.cost_of(password_hash) == 4
    assert _passwords.verify(password, password_hash)
    assert not _passwords.verify(password[:-1], password_hash)


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
def test_hashes_of_other_tools_verify(prefix: str) -> None:
    password_hash = bcrypt.hashpw(b"wonderland", bcrypt.gensalt(4)).decode().replace("$2b$", prefix)
    assert _passwords.cost_of(password_hash) == 4
    assert _passwords.verify("wonderland", password_hash)


def test_hashing_works_in_many_threads() -> None:
    passwords = [f"password {number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda password: _passwords.make_hash(password, 4), passwords))
        verified = list(pool.map(_passwords.verify, passwords, made))
    assert len(set(made)) == 40
    assert all(verified)


def test_the_cost_depends_on_who_chose_the_password() -> None:
    assert _passwords.default_cost("correct horse battery staple") == 10
    assert _passwords.default_cost(_secrets.generate()) == 5
