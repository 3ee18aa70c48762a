# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates that people bring."""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils._certificate import find_problems

from tests.support.tls import LIFETIME, Certificates, make_certificates


def make(folder: Path, *names: str) -> Certificates:
    folder.mkdir()
    return make_certificates(folder, *names)


@pytest.fixture
def files(tmp_path: Path) -> Certificates:
    return make(tmp_path / "own", "registry.test", "*.wild.test", "192.0.2.7", "2001:db8::7")


@pytest.mark.parametrize(
    "name",
    [
        "registry.test",
        "REGISTRY.test",
        "any.wild.test",
        "192.0.2.7",
        "2001:db8::7",
        "2001:0db8:0:0::7",
    ],
)
def test_names_that_it_covers(files: Certificates, name: str) -> None:
    assert find_problems(files.certificate.read_bytes(), files.key.read_bytes(), name) == []


@pytest.mark.parametrize("name", ["other.test", "wild.test", "a.b.wild.test", ".wild.test", "192.0.2.8"])
def test_names_that_it_does_not_cover(files: Certificates, name: str) -> None:
    [problem] = find_problems(files.certificate.read_bytes(), files.key.read_bytes(), name)
    assert problem.startswith(
        "certificate: it is for registry.test, *.wild.test, 192.0.2.7, 2001:db8::7, not for "
    )


def test_key_of_another(files: Certificates, tmp_path: Path) -> None:
    other = make(tmp_path / "other", "registry.test")
    [problem] = find_problems(files.certificate.read_bytes(), other.key.read_bytes(), "registry.test")
    assert problem.startswith("key: it does not belong to the certificate")


def test_chain_in_the_wrong_order(files: Certificates) -> None:
    own, authority = files.certificate.read_bytes(), files.ca.read_bytes()
    key = files.key.read_bytes()
    assert find_problems(own + authority, key, "registry.test") == []
    problems = find_problems(authority + own, key, "registry.test")
    assert problems[0].startswith("certificate: the server's own must come first")


@pytest.mark.parametrize(("days", "message"), [(3, "it expired on"), (-3, "it is not valid until")])
def test_times(files: Certificates, days: int, message: str) -> None:
    now = datetime.datetime.now(datetime.timezone.utc) + days * LIFETIME
    [problem] = find_problems(files.certificate.read_bytes(), files.key.read_bytes(), "registry.test", now)
    assert problem.startswith(f"certificate: {message}")


def test_what_is_no_certificate_or_key(files: Certificates) -> None:
    own, key = files.certificate.read_bytes(), files.key.read_bytes()
    assert find_problems(b"", key, "registry.test")[0].startswith("certificate: there is none")
    assert find_problems(own.replace(b"MII", b"AAA", 1), key, "registry.test")[0].startswith(
        "certificate: it is damaged"
    )
    assert find_problems(own, own, "registry.test")[0].startswith("key: there is none")


def test_a_key_with_a_passphrase(files: Certificates) -> None:
    locked = subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", str(files.key), "-passout", "pass:secret"],
        capture_output=True,
        check=True,
    ).stdout
    [problem] = find_problems(files.certificate.read_bytes(), locked, "registry.test")
    assert "passphrase" in problem
