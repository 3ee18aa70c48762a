# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry on this machine for a test, or for all tests of a file; those that share it run in one worker."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.proxied import ProxiedSite, deployed_behind
from tests.support.site import CHECKOUT, Site
from tests.support.traefik import needs_traefik

_SHARED = ("deployed", "machine", "proxied")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For --dist loadgroup: what tests share is made once, not once by each worker."""
    for item in items:
        shared = [name for name in _SHARED if name in getattr(item, "fixturenames", ())]
        if shared:
            callspec = getattr(item, "callspec", None)
            kind = callspec.params.get("proxied", "") if callspec else ""
            item.add_marker(pytest.mark.xdist_group("-".join((item.path.stem, *shared, kind))))


def _image_is_there(site: Site) -> None:
    """The image is built once, not by every worker at the same time."""
    work = CHECKOUT / ".work"
    work.mkdir(exist_ok=True)
    with open(work / "image.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if site.docker("image", "inspect", "dockyard/registry:2-packages").returncode != 0:
            site.play(registry_image_source="packages").ok()
            site.remove()


def _site(folder: Path) -> Iterator[Site]:
    site = Site(folder)
    _image_is_there(site)
    yield site
    site.remove()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Variables of a registry that is not there yet."""
    yield from _site(tmp_path)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A registry that runs. Tests that share it leave it running, with its users."""
    for site in _site(tmp_path_factory.mktemp("site")):
        site.play().ok()
        yield site


@pytest.fixture(scope="module", params=["nginx", "caddy", pytest.param("traefik", marks=needs_traefik)])
def proxied(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProxiedSite]:
    """A registry that runs behind a proxy. Tests that share it leave it as it was."""
    yield from deployed_behind(request.param, tmp_path_factory.mktemp("site"))
