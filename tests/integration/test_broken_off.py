# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is killed at any task, then run again; and two runs at once."""

from __future__ import annotations

from tests.support.site import Site, with_callback

BREAK_OFF = with_callback("break_off")


def test_killed_at_each_task_that_changes_something(site: Site) -> None:
    """From nothing, each run is killed one such task later than the one before, until one comes through."""
    tasks = site.play().ok().tasks
    changing = [task for task in tasks if task.changed]
    assert len(changing) >= 5
    site.remove()

    for place, task in enumerate([*changing, tasks[-1]]):
        # At the beginning of one task, amid the work of the next.
        environment = {"DOCKYARD_BREAK_AT": str(task.number), "DOCKYARD_BREAK_AFTER": ("0.2", "0")[place % 2]}
        killed = site.play(environment={**BREAK_OFF, **environment})
        assert killed.code in (-9, 0), f"{task.name}: {killed.output[-3000:]}"

    site.play().ok()
    assert site.login()
    assert site.play().ok().changed == []
    leftovers = [path.name for path in site.root.rglob("*") if path.name.endswith((".dockyard-new", ".tmp"))]
    assert leftovers == []


def test_killed_amid_the_first_run(site: Site) -> None:
    """At moments that no task boundary decides."""
    for delay in ("1.0", "2.5"):
        killed = site.play(environment={**BREAK_OFF, "DOCKYARD_BREAK_AT": "1", "DOCKYARD_BREAK_AFTER": delay})
        assert killed.code == -9, killed.output[-3000:]
    site.play().ok()
    assert site.login()
    assert site.play().ok().changed == []


def test_two_runs_at_once_take_turns(site: Site) -> None:
    # On a machine with much else to do, one run takes longer than another waits by default.
    runs = [site.start(registry_lock_wait=300) for _run in range(2)]
    for run in runs:
        site.finish(run).ok()
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
