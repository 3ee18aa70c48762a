# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make site` on bare machines: from a copy of the checkout to a registry that people push to.

The machines are containers of the images that tests/hosts/build-host-images makes; build them first. Both are
made at once, so this needs no pytest-xdist. One of them: `pytest tests/hosts -k trixie`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
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
        return dict(re.findall(r"^ +([a-z]+) {2,}(\S.*)$", said, re.MULTILINE))


MACHINES = {
    # PID 1 starts no services, and everything is done as root: a sandbox, a build container.
    "bookworm": lambda: Machine("bookworm", systemd=False, home="/srv/dockyard"),
    "trixie": lambda: Machine("trixie", systemd=True, home="/home/alex/src/dockyard", user="alex"),
}


@pytest.fixture(scope="session")
def builds(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Site]]]:
    """The first `make site` of each machine that a selected test asks for, all at the same time."""
    wanted = {item.callspec.params["site"] for item in request.session.items if "site" in item.fixturenames}
    with ExitStack() as machines, ThreadPoolExecutor(len(wanted)) as pool:

        def build(name: str) -> Site:
            machine = machines.enter_context(MACHINES[name]())
            return Site(machine, machine.run("make site"))

        yield {name: pool.submit(build, name) for name in wanted}


@pytest.fixture(scope="session", params=MACHINES)
def site(request: pytest.FixtureRequest, builds: dict[str, Future[Site]]) -> Site:
    return builds[request.param].result()


def test_summary_says_where_as_whom_and_what_next(site: Site) -> None:
    assert site.summary["registry"] == f"http://{ADDRESS}"
    assert site.summary["user"] == "admin"
    assert f"{ROOT}/secrets/users/admin.password" in site.summary["password"]
    assert "docker login" in site.summary["next"]


def test_command_in_the_summary_works(site: Site) -> None:
    assert "Login Succeeded" in site.machine.run(site.summary["next"])


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
