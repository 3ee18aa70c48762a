# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Compose stack as a Service, and garbage collection on it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils._service import ServiceError
from ansible_collections.dockyard.registry.plugins.module_utils._stack import Stack

from tests.support.modules import run_module
from tests.support.processes import wait_for
from tests.support.site import Site
from tests.support.store import push, sample_store, verify

MAINTENANCE = "maintenance"


def stack_of(site: Site, **options: Any) -> Stack:
    return Stack(site.root, **options)


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/v2/", timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def test_it_stops_and_starts(deployed: Site) -> None:
    stack = stack_of(deployed)
    assert stack.is_running()
    container = deployed.container()["Id"]
    stack.stop()
    assert not stack.is_running()
    assert not answers(deployed.url)
    stack.stop()
    stack.start()
    assert stack.is_running()
    assert answers(deployed.url)
    stack.start()
    assert deployed.container()["Id"] == container, "it is the same container"


def test_one_off_runs_leave_nothing(deployed: Site) -> None:
    stack = stack_of(deployed)
    ran = stack.garbage_collect(dry_run=True)
    assert "garbage" in ran.output or "blobs marked" in ran.output
    assert deployed.container()["State"]["Running"]


def test_a_scratch_registry(deployed: Site, tmp_path: Path) -> None:
    stack = stack_of(deployed)
    with stack.scratch(tmp_path) as url:
        assert url.startswith("http://127.0.0.1:")
        assert answers(url)
        refused = urllib.request.Request(f"{url}/v2/app/blobs/uploads/", method="POST")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(refused, timeout=5)
        assert caught.value.code == 405
    assert not answers(url)
    with pytest.raises(RuntimeError), stack.scratch(tmp_path) as url:
        raise RuntimeError
    assert not answers(url)


def test_a_registry_that_does_not_start_shows_its_log(site: Site) -> None:
    site.play().ok()
    stack = stack_of(site, patience=2.0)
    stack.stop()
    config = site.root / "config/config.yml"
    good = config.read_bytes()
    config.write_text("version: 0.1\nstorage: {}\n", encoding="ascii")
    with pytest.raises(ServiceError, match=r"no answer from .*\n(.*\n)*.*storage"):
        stack.start()
    config.write_bytes(good)
    stack.start()
    assert answers(site.url)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("nothing-here", "no such file|no configuration file|not found"),
        ("", "no configuration file|not found"),
    ],
)
def test_a_folder_without_a_project(tmp_path: Path, folder: str, message: str) -> None:
    with pytest.raises(ServiceError, match=f"(?i){message}"):
        Stack(tmp_path / folder).is_running()


def test_the_module(deployed: Site) -> None:
    """Garbage collection of a deployed registry: what it says, and how long the registry was away."""
    auth = (MAINTENANCE, deployed.password(MAINTENANCE))
    store = sample_store(random.Random(5))
    push(deployed.url, store, auth=auth)
    data = deployed.root / "data"
    then = time.time() - 7200
    for parent, _folders, files in os.walk(data):
        for name in files:
            os.utime(Path(parent, name), (then, then))
    args = {
        "url": deployed.url,
        "username": auth[0],
        "password": auth[1],
        "root": str(deployed.root),
        "untagged": "1h",
    }
    foreseen = run_module("garbage_collection", args, check=True)
    assert foreseen["changed"] is True
    done = run_module("garbage_collection", args)
    assert done["changed"] is True, done
    assert [done[key] for key in ("blobs", "bytes", "manifests")] == [
        foreseen[key] for key in ("blobs", "bytes", "manifests")
    ]
    app = store.repositories["app"]
    for name in ("app", "untagged-only"):
        repository = store.repositories[name]
        gone = repository.revisions - {repository.current(tag) for tag in repository.tags}
        repository.revisions -= gone
        repository.deleted |= gone
    assert app.tags
    verify(deployed.url, store, auth=auth)
    assert done["seconds_stopped"] < 60
    again = run_module("garbage_collection", args)
    assert again["changed"] is False
    recovery = run_module("recovery", {"root": str(deployed.root)})
    assert (recovery["changed"], recovery["pending"], recovery["healed"]) == (False, [], [])


STOP_AND_WAIT = """
import sys, time
from ansible_collections.dockyard.registry.plugins.module_utils._stack import Stack
stack = Stack(sys.argv[1])
stack.stop()
print("stopped", flush=True)
{then}
"""


def run_and_stop(site: Site, then: str) -> subprocess.Popen[str]:
    """A process that has stopped the registry."""
    process = subprocess.Popen(
        [sys.executable, "-c", STOP_AND_WAIT.format(then=then), str(site.root)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "stopped\n"
    return process


def test_it_comes_back_when_who_stopped_it_is_killed(deployed: Site) -> None:
    container = deployed.container()["Id"]
    process = run_and_stop(deployed, "time.sleep(600)")
    assert not answers(deployed.url)
    process.kill()
    process.communicate()
    wait_for("it answers", lambda: answers(deployed.url))
    assert deployed.container()["Id"] == container


def test_it_stays_stopped_when_who_stopped_it_ends(deployed: Site) -> None:
    process = run_and_stop(deployed, "sys.exit(0)")
    process.communicate()
    time.sleep(3)
    assert not answers(deployed.url)
    stack_of(deployed).start()
