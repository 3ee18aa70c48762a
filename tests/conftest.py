# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures that every test may use: real registry processes of each version at hand."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from tests.support.registry import (
    RegistryProcess,
    find_registry2,
    find_registry3,
    needs_registry3,
    start_registry,
)

_REGISTRIES = pytest.StashKey[list[RegistryProcess]]()


@pytest.fixture(
    scope="session",
    params=[
        "2.8",
        pytest.param("3.x", marks=needs_registry3),
    ],
)
def registry_binary(request: pytest.FixtureRequest) -> str:
    """The path of a registry binary; a test that uses it runs once per version."""
    return find_registry2() if request.param == "2.8" else find_registry3() or ""


@pytest.fixture
def registry_factory(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, registry_binary: str
) -> Iterator[Callable[..., RegistryProcess]]:
    """start_registry() with a directory and the binary of this run filled in; stops what it started."""
    started: list[RegistryProcess] = request.node.stash.setdefault(_REGISTRIES, [])

    def start(**options: Any) -> RegistryProcess:
        options.setdefault("binary", registry_binary)
        registry = start_registry(tmp_path_factory.mktemp("registry"), **options)
        started.append(registry)
        return registry

    yield start
    for registry in started:
        registry.stop()


@pytest.fixture
def registry(registry_factory: Callable[..., RegistryProcess]) -> RegistryProcess:
    """A registry that everybody may read, write and delete in."""
    return registry_factory()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the registries' logs to the report of a test that failed."""
    report = yield
    if report.failed:
        for registry in item.stash.get(_REGISTRIES, []):
            report.sections.append((f"log of the registry {registry.url}", registry.log_tail()))
    return report
