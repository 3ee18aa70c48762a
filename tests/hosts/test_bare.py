# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make site` on bare machines: from a copy of the checkout to a registry that people push to.

The machines are containers of the images that tests/hosts/build-host-images makes; build them first. Both machines
at once: `pytest -n 2 --dist loadgroup tests/hosts`; one of them: `pytest tests/hosts -k trixie`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.support.hosts import ROOT, DeployedRegistry, Engine
from tests.support.machine import Machine

ADDRESS = "127.0.0.1:5000"


class Site(NamedTuple):
    """A machine after `make site`, and what that said."""

    machine: Machine
    output: str

    @property
    def summary(self) -> dict[str, str]:
        said = self.output[self.output.rindex("Summary]") :]
        return dict(re.findall(r'^ +"?([a-z]+)"?: "?(.+?)"?,?$', said, re.MULTILINE))


def _root_without_systemd() -> Machine:
    """PID 1 starts no services, and everything is done as root: a sandbox, a build container."""
    return Machine("bookworm", systemd=False, home="/srv/dockyard")


def _user_with_sudo() -> Machine:
    return Machine("trixie", systemd=True, home="/home/alex/src/dockyard", user="alex")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(_root_without_systemd, id="bookworm", marks=pytest.mark.xdist_group("bookworm")),
        pytest.param(_user_with_sudo, id="trixie", marks=pytest.mark.xdist_group("trixie")),
    ],
)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with request.param() as machine:
        yield Site(machine, machine.run("make site"))


def test_summary_says_where_as_whom_and_what_next(site: Site) -> None:
    assert site.summary["registry"] == f"http://{ADDRESS}"
    assert site.summary["user"] == "admin"
    assert f"{ROOT}/secrets/users/admin.password" in site.summary["password"]
    assert "docker login" in site.summary["try"]


def test_command_in_the_summary_works(site: Site) -> None:
    assert "Login Succeeded" in site.machine.run(site.summary["try"])


def test_password_is_for_root_only_and_not_in_the_checkout(site: Site) -> None:
    host = site.machine.host
    file = host.file(f"{ROOT}/secrets/users/admin.password")
    assert (oct(file.mode), file.user) == ("0o600", "root")
    password = file.content_string.strip()
    assert password not in site.output
    search = "grep --recursive --fixed-strings --files-with-matches -- %s %s"
    assert host.run(search, password, site.machine.home).stdout == ""


def test_push_and_pull(site: Site) -> None:
    registry, engine = DeployedRegistry(site.machine.host, ADDRESS), Engine(site.machine.host)
    assert registry.status() == 401
    assert engine.login(ADDRESS, "admin", registry.generated_password("admin"))
    image = engine.make_image(f"{ADDRESS}/team/app:1")
    engine.push(f"{ADDRESS}/team/app:1")
    assert engine.pull(f"{ADDRESS}/team/app:1") == image


def test_second_run_changes_nothing(site: Site) -> None:
    registry = DeployedRegistry(site.machine.host, ADDRESS)
    before = registry.container()
    recap = re.findall(r"^localhost +: .*", site.machine.run("make site"), re.MULTILINE)
    assert len(recap) == 1
    assert re.search(r"\bchanged=0 +unreachable=0 +failed=0\b", recap[0])
    after = registry.container()
    assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])
