# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Image references: what is accepted round-trips, what is not gets a message that helps."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._reference import (
    Digest,
    InvalidReference,
    Reference,
    looks_like_host,
    parse_reference,
    parse_repository,
    parse_tag,
)
from hypothesis import given
from hypothesis import strategies as st

HEX = "0123456789abcdef" * 4
SHA256 = f"sha256:{HEX}"
SHA512 = f"sha512:{HEX}{HEX}"

# Written from the text of the OCI distribution specification, independently of the code.
SPEC_NAME = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
SPEC_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")

repositories = st.from_regex(SPEC_NAME, fullmatch=True).filter(lambda name: len(name) <= 255)
tags = st.from_regex(SPEC_TAG, fullmatch=True)
digests = st.one_of(
    st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:{}".format),
    st.text("0123456789abcdef", min_size=128, max_size=128).map("sha512:{}".format),
)


@given(repositories, st.none() | tags, st.none() | digests)
def test_references_round_trip(repository: str, tag: str | None, digest: str | None) -> None:
    text = repository + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    if tag is None and digest is None:
        with pytest.raises(InvalidReference, match="no tag and no digest"):
            parse_reference(text)
        return
    reference = parse_reference(text)
    assert reference == (repository, tag, digest)
    assert str(reference) == text
    assert parse_reference(str(reference)) == reference


@given(st.text("aA0._-/:@ \n", max_size=12) | st.text(max_size=12))
def test_the_grammar_is_that_of_the_specification(text: str) -> None:
    assert _accepts(parse_repository, text) == bool(SPEC_NAME.fullmatch(text))
    assert _accepts(parse_tag, text) == bool(SPEC_TAG.fullmatch(text))


@given(st.text())
def test_any_text_is_parsed_or_refused_in_one_line(text: str) -> None:
    for parse in (parse_reference, parse_repository, parse_tag, Digest):
        refusal = _refusal(parse, text)
        assert refusal.isprintable()
        assert len(refusal) < 700


def _accepts(parse: Callable[[str], object], text: str) -> bool:
    return not _refusal(parse, text)


def _refusal(parse: Callable[[str], object], text: str) -> str:
    try:
        parse(text)
    except InvalidReference as error:
        return str(error)
    return ""


def test_digest_of_content() -> None:
    assert Digest.of(b"x") == "sha256:" + hashlib.sha256(b"x").hexdigest()
    assert Digest.of(b"x", "sha512") == "sha512:" + hashlib.sha512(b"x").hexdigest()


def test_a_digest_is_a_text_with_two_parts() -> None:
    digest = Digest(SHA512)
    assert (digest.algorithm, digest.hex) == ("sha512", HEX * 2)
    assert json.loads(json.dumps({digest: digest})) == {SHA512: SHA512}
    assert {digest: 1}[SHA512] == 1
    assert f"{digest}" == str(digest) == SHA512


def test_a_digest_hashes_by_its_own_algorithm() -> None:
    for digest in (Digest.of(b"content"), Digest.of(b"content", "sha512")):
        hasher = digest.hasher()
        hasher.update(b"con")
        hasher.update(b"tent")
        assert hasher.hexdigest() == digest.hex


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "empty"),
        (HEX, "no algorithm"),
        ("sha256:", "64 hexadecimal digits, not 0"),
        ("sha256:0123456789ab", "64 hexadecimal digits, not 12; a short form is not enough"),
        (f"sha256:{HEX}0", "not 65"),
        (f"sha512:{HEX}", "sha512 has 128 hexadecimal digits, not 64"),
        (f"md5:{HEX[:32]}", "one of sha256, sha512"),
        (f"SHA256:{HEX}", "in small letters"),
        (f"sha256:{HEX.upper()}", "must be small letters"),
        (f"sha256:{HEX[:-1]}g", "no hexadecimal digit"),
        (f"sha256:{HEX[:-1]}\n", "no hexadecimal digit"),
        (f" {SHA256}", "one of sha256, sha512"),
        (f"{SHA256}\n", "not 65"),
        (f"sha256:{'٣' * 64}", "no hexadecimal digit"),
        (None, "must be text, not NoneType"),
        (b"sha256:", "must be text, not bytes"),
    ],
)
def test_bad_digests(text: str, fault: str) -> None:
    with pytest.raises(InvalidReference, match=re.escape(fault)) as caught:
        Digest(text)
    assert str(caught.value).startswith("digest ")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "reference: it is empty"),
        ("app", "no tag and no digest; write app:TAG or app@sha256:DIGEST"),
        ("app:", "tag: it is empty"),
        ("app@", "digest : it is empty"),
        (":1", "repository: it is empty"),
        (f"@{SHA256}", "repository: it is empty"),
        ("app :1", "whitespace"),
        ("app:1\n", "whitespace"),
        ("app:1\u00a0", "whitespace"),
        ("app:.1", "the first is neither '.' nor '-'"),
        ("app:1+2", "only the letters"),
        ("app:ä", "only the letters"),
        (f"app:{'x' * 129}", "129 characters; at most 128"),
        ("app:v1/x", "a tag has no '/'"),
        ("app:1:2", "only the letters"),
        ("App:1", "capital letters are not allowed; app would be"),
        ("app//x:1", "none of which is empty"),
        ("/app:1", "none of which is empty"),
        ("app/:1", "none of which is empty"),
        ("a..b:1", "each part consists of"),
        ("a___b:1", "each part consists of"),
        ("-a:1", "each part consists of"),
        ("ä:1", "each part consists of"),
        (f"{'a' * 256}:1", "256 characters; at most 255"),
        (f"app:1@{SHA256}@{SHA256}", "hexadecimal digits, not 136"),
        ("app@sha256:0123456789ab", "a short form is not enough"),
        ("localhost:5000/app:1", "leave the host out and write app:1"),
        ("registry.example.org:443/team/app:1", "leave the host out and write team/app:1"),
        (f"192.0.2.1:5000/app@{SHA256}", f"leave the host out and write app@{SHA256}"),
        ("[2001:db8::1]:5000/app:1", "leave the host out and write app:1"),
        ("https://registry.example.org/app:1", "leave the scheme and the host out"),
        (1.0, "must be text, not float; put it in quotes in YAML"),
        (None, "must be text, not NoneType"),
    ],
)
def test_bad_references(text: str, fault: str) -> None:
    with pytest.raises(InvalidReference, match=re.escape(fault)):
        parse_reference(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("app:1", "a name without tag and digest"),
        (f"app@{SHA256}", "a name without tag and digest"),
        ("localhost:5000/app", "leave the host out and write app"),
        (None, "must be text"),
    ],
)
def test_a_repository_is_a_name_alone(text: str, fault: str) -> None:
    with pytest.raises(InvalidReference, match=re.escape(fault)):
        parse_repository(text)


@pytest.mark.parametrize(
    "text", ["docker.io/library/alpine", "localhost/app", "a/b/c", "a__b", "a---b", "a" * 255]
)
def test_repositories_that_look_odd_and_are_valid(text: str) -> None:
    assert parse_repository(text) == text


def test_a_tag_may_not_be_a_path() -> None:
    with pytest.raises(InvalidReference, match="a path belongs to the repository"):
        parse_tag("team/app")


def test_long_and_unprintable_texts_are_shortened_and_escaped() -> None:
    with pytest.raises(InvalidReference) as caught:
        parse_tag("\x1b[31m" + "x" * 5000)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("repository", "expected"),
    [
        ("registry.example.org/app", True),
        ("localhost/app", True),
        ("app", False),
        ("team/app", False),
        ("a.b", False),
    ],
)
def test_what_docker_would_take_for_a_host(repository: str, expected: bool) -> None:
    assert looks_like_host(repository) is expected


def test_invalid_references_are_expected_errors() -> None:
    assert issubclass(InvalidReference, RegistryError)


def test_printing_needs_no_tag() -> None:
    assert str(Reference("app", digest=Digest(SHA256))) == f"app@{SHA256}"
