# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is killed at any task, then run again; and two runs at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.site import CHECKOUT, Site

CALLBACKS = {
    "ANSIBLE_CALLBACK_PLUGINS": str(CHECKOUT / "tests" / "support" / "callback"),
    "ANSIBLE_CALLBACKS_ENABLED": "break_off",
}


def test_killed_at_each_task_then_run_again(site: Site, tmp_path: Path) -> None:
    """From nothing, each run is killed one task later than the one before, until one comes through."""
    names = tmp_path / "tasks"
    site.play(environment={**CALLBACKS, "DOCKYARD_TASKS": str(names)}).ok()
    tasks = names.read_text(encoding="utf-8").splitlines()
    first = next(number for number, name in enumerate(tasks, 1) if name.endswith("Take the lock"))
    site.remove()

    # The later tasks take longest and change most; every one is the last task of one run.
    for number in range(first, len(tasks) + 1):
        killed = site.play(
            environment={
                **CALLBACKS,
                "DOCKYARD_BREAK_AT": str(number),
                # Alternately at the beginning of a task, and amid its work.
                "DOCKYARD_BREAK_AFTER": "0.35" if number % 2 else "0",
            }
        )
        assert killed.code in (-9, 0), f"task {number}: {killed.output[-3000:]}"

    site.play().ok()
    assert site.login()
    assert site.play().ok().changed == []
    leftovers = [path.name for path in site.root.rglob("*") if path.name.endswith((".dockyard-new", ".tmp"))]
    assert leftovers == []


@pytest.mark.parametrize("delay", ["1.0", "2.5"])
def test_killed_amid_the_first_run(site: Site, delay: str) -> None:
    """At a moment that no task boundary decides."""
    site.play(environment={**CALLBACKS, "DOCKYARD_BREAK_AT": "1", "DOCKYARD_BREAK_AFTER": delay})
    site.play().ok()
    assert site.login()
    assert site.play().ok().changed == []


def test_two_runs_at_once_take_turns(site: Site) -> None:
    runs = [site.start(), site.start()]
    outputs = [run.communicate(timeout=300) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert site.login()
    assert site.play().ok().changed == []


def test_a_second_run_that_may_not_wait_says_who_is_at_work(site: Site) -> None:
    site.play().ok()
    long_one = site.start(registry_config={"log": {"level": "debug"}})
    try:
        messages = []
        while long_one.poll() is None and not messages:
            other = site.play(registry_lock_wait=0)
            if other.code:
                messages.append(other.failed().message)
        assert messages, "the two runs never met"
        assert "held by site.yml (present) (process " in messages[0]
        assert "remove that file" in messages[0]
    finally:
        long_one.communicate(timeout=300)
    site.play().ok()
