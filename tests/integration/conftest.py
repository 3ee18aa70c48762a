# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry on this machine for a test, or for all tests of a file; those that share it run in one worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.images import build_base, registry3_variables
from tests.support.proxied import ProxiedSite, deployed_behind
from tests.support.registry import needs_registry3
from tests.support.site import Site
from tests.support.traefik import PROXY_PARAMS

_SHARED = ("deployed", "machine", "proxied")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For --dist loadgroup: what tests share is made once, not once by each worker."""
    for item in items:
        shared = [name for name in _SHARED if name in getattr(item, "fixturenames", ())]
        if shared:
            callspec = getattr(item, "callspec", None)
            kinds = [str(callspec.params[name]) for name in shared if callspec and name in callspec.params]
            item.add_marker(pytest.mark.xdist_group("-".join((item.path.stem, *shared, *kinds))))


def _site(folder: Path, version: str = "2.8") -> Iterator[Site]:
    site = Site(folder)
    build_base(site)
    if version == "3.x":
        site.variables |= registry3_variables(folder)
    yield site
    site.remove()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Variables of a registry that is not there yet."""
    yield from _site(tmp_path)


@pytest.fixture(scope="module", params=["2.8", pytest.param("3.x", marks=needs_registry3)])
def deployed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A registry that runs. Tests that share it leave it running, with its users."""
    for site in _site(tmp_path_factory.mktemp("site"), request.param):
        site.play().ok()
        yield site


@pytest.fixture(
    scope="module",
    params=[*PROXY_PARAMS, pytest.param("nginx-3.x", marks=needs_registry3)],
)
def proxied(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProxiedSite]:
    """A registry that runs behind a proxy: 2.8, or 3.x where it says so. Tests that share it leave it as it was."""
    proxy, _dash, version = request.param.partition("-")
    folder = tmp_path_factory.mktemp("site")
    yield from deployed_behind(proxy, folder, registry3_variables(folder) if version else {})
