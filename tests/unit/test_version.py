# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions of the registry, as people and registries write them."""

from __future__ import annotations

import subprocess

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils import _version
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("2.8.3", "2.8.3"),
        ("v3.1.1", "3.1.1"),
        (" 3.1.1\n", "3.1.1"),
        ("2.8.2+ds1-1+b5", "2.8.2"),
        ("v2.8.3-12-g4772604.m", "2.8.3"),
        ("3.0.0-rc.4", "3.0.0-rc.4"),
        ("v2.8.0-beta.1", "2.8.0-beta.1"),
        # A line stands for its newest release that we know.
        ("2", "2.8.3"),
        ("2.8", "2.8.3"),
        ("3", "3.1.1"),
        ("3.0", "3.0.0"),
        ("3.1", "3.1.1"),
        ("3.x", "3.1.1"),
        ("3.9", "3.9.0"),
        ("4", "4.0.0"),
    ],
)
def test_parse(text: str, version: str) -> None:
    assert str(_version.parse(text)) == version


@pytest.mark.parametrize("text", ["", "latest", "v", "3.", "3,1", "3.1.1 or later", "registry:3", "-1"])
def test_no_version(text: str) -> None:
    with pytest.raises(RegistryError, match="that is no version; give one like"):
        _version.parse(text)


def test_versions_compare() -> None:
    in_order = ["2.7.1", "2.8.0-beta.1", "2.8.0", "2.8.3", "2.10.0", "3.0.0-alpha.1", "3.0.0-beta.1"]
    in_order += ["3.0.0-rc.2", "3.0.0-rc.10", "3.0.0", "3.1.1"]
    newest_first = in_order[::-1]
    assert sorted(newest_first, key=_version.parse) == in_order


def test_a_release_candidate_is_for_its_release() -> None:
    assert _version.parse("3.0.0-rc.4").release == _version.parse("3.0.0")
    assert _version.parse("3.1.1").release == _version.parse("3.1.1")


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("/bin/registry github.com/docker/distribution 2.8.2+ds1-1+b5\n", "2.8.2+ds1-1+b5"),
        ("registry github.com/docker/distribution v2.8.3", "2.8.3"),
        ("registry github.com/distribution/distribution/v3 v3.1.1\n", "3.1.1"),
        ("/opt/my registry github.com/distribution/distribution/v3 v3.0.0-rc.4\n", "3.0.0-rc.4"),
        (
            "Unable to find image 'registry:3' locally\nregistry github.com/docker/distribution v2.8.1\n",
            "2.8.1",
        ),
    ],
)
def test_version_output(output: str, version: str) -> None:
    found = _version.parse_version_output(output)
    assert found == version
    assert _version.parse(found) == _version.parse(version)


@pytest.mark.parametrize(
    ("output", "seen"),
    [
        ("", "nothing was printed"),
        ("Docker version 20.10.24, build 297e128", '"Docker version 20.10.24, build 297e128" was printed'),
        ("registry github.com/docker/distribution unknown", "is that program or image a registry?"),
        ("github.com/docker/distribution-something v2.8.3", "is that program or image a registry?"),
    ],
)
def test_the_output_of_something_else(output: str, seen: str) -> None:
    with pytest.raises(RegistryError) as raised:
        _version.parse_version_output(output)
    assert seen in str(raised.value)


def test_version_of_a_real_registry(registry_binary: str, request: pytest.FixtureRequest) -> None:
    output = subprocess.run([registry_binary, "--version"], capture_output=True, text=True, check=True).stdout
    major = _version.parse(_version.parse_version_output(output)).major
    assert f"[{major}." in request.node.name
