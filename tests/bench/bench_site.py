# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A second run of site.yml on a converged host: seconds and tasks, beside what Ansible itself costs.

The measure is a play of as many tasks that do next to nothing (ansible.builtin.stat) in the same run. The
playbook gathers no facts: the role asks for what it needs in one task (host_info), which is counted.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.site import CHECKOUT, Site, playbook_environment

ROUNDS = 5


def seconds_of_bare_tasks(count: int, folder: Path) -> float:
    """A play of `count` stat tasks."""
    play = folder / "bare.yml"
    tasks = [{"name": f"Task {number}", "ansible.builtin.stat": {"path": "/"}} for number in range(count)]
    play.write_text(
        json.dumps([{"name": "Bare", "hosts": "localhost", "gather_facts": False, "tasks": tasks}]),
        encoding="utf-8",
    )
    began = time.perf_counter()
    subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("-i", "localhost,", "-c", "local", str(play)),
            *("-e", f"ansible_python_interpreter={sys.executable}"),
        ],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
        # As for site.yml, so that both keep what they pack and compile.
        env=playbook_environment(),
    )
    return time.perf_counter() - began


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        site = Site(Path(name))
        try:
            site.play().ok()
            runs, bare = [], []
            for _round in range(ROUNDS):
                began = time.perf_counter()
                run = site.play().ok()
                runs.append(time.perf_counter() - began)
                assert run.changed == []
                tasks = [task for task in run.tasks if not task.result.get("skipped")]
                bare.append(seconds_of_bare_tasks(len(tasks), Path(name)))
        finally:
            site.remove()
    second, measure = statistics.median(runs), statistics.median(bare)
    print(f"{'':44}{'seconds':>9}{'ratio':>8}")
    print(f"{f'second run of site.yml, {len(tasks)} tasks':44}{second:9.1f}{second / measure:8.2f}")
    print(f"{f'a play of {len(tasks)} stat tasks':44}{measure:9.1f}{1:8.2f}")
    print("goal: at most 12 s and no change")


if __name__ == "__main__":
    main()
