# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pulls that fail while the registry is maintained in every way there is, at full load, behind each proxy.

    DOCKYARD_MAINTENANCE_MINUTES=10 python tests/bench/bench_maintenance.py

The minutes (2 by default) are shared among the proxies. Counts are the measure, and the goal is that none fails. The
load comes from the same machine, so how much it is says nothing.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".ansible" / "collections"))

from ansible_collections.dockyard.registry.plugins.module_utils._stack import Stack

from tests.support.load import Load, load_on
from tests.support.proxied import ProxiedSite
from tests.support.traefik import proxies

GARBAGE = 12
ROW = "{:8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}  {}"


class Maintenance:
    """All that can be done to a registry, in turn."""

    def __init__(self, site: ProxiedSite, load: Load) -> None:
        self._site = site
        self._load = load
        self._numbers = itertools.count(1)
        site.variables["registry_backup_dir"] = str(site.root.parent / "backups")
        self.kinds: dict[str, Callable[[], object]] = {
            "collected": self._collect,
            "reconfigured": self._reconfigure,
            "restarted": self._restart,
            "certificate renewed": self._renew,
            "checked": lambda: site.play("check").ok(),
            "backed up": lambda: site.play("backup").ok(),
        }

    def _collect(self) -> None:
        self._load.leave_garbage(GARBAGE, self._site.root / "data")
        self._site.play("gc", registry_gc_untagged="1h").ok()

    def _reconfigure(self) -> None:
        headers = {"X-Release": [str(next(self._numbers))]}
        self._site.variables["registry_config"] = {"http": {"headers": headers}}
        self._site.play().ok()

    def _restart(self) -> None:
        stack = Stack(self._site.root, url=self._site.url)
        stack.stop()
        stack.start()

    def _renew(self) -> None:
        # Longer than it is valid: it must be renewed now.
        days = 500 + next(self._numbers)
        self._site.play(registry_tls_days=days + 200, registry_tls_renew_days=days).ok()


def measure(site: ProxiedSite, seconds: float) -> str:
    """The row of the table."""
    site.play().ok()
    load = load_on(site, pushers=3, pullers=5, pause=0)
    maintenance = Maintenance(site, load)
    load.leave_garbage(GARBAGE, site.root / "data")
    done: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    with load:
        for kind, carry_out in itertools.cycle(maintenance.kinds.items()):
            carry_out()
            done[kind] += 1
            if time.monotonic() > deadline:
                break
    kinds = ", ".join(f"{kind} {times}" for kind, times in done.items())
    waits = sum(load.waits.values())
    for failure in (*load.failed_pulls, *load.failed_pushes)[:10]:
        print(failure.message, file=sys.stderr)
    lost = len(load.lost())
    return ROW.format(
        *(site.proxy, load.pulls, len(load.failed_pulls), load.pushes, len(load.failed_pushes)),
        *(waits, lost, kinds),
    )


def main() -> None:
    minutes = float(os.environ.get("DOCKYARD_MAINTENANCE_MINUTES", "2"))
    print(ROW.format("", "pulls", "failed", "pushes", "failed", "waits", "lost", "maintenance"), flush=True)
    for proxy in proxies():
        with tempfile.TemporaryDirectory() as name:
            site = ProxiedSite(Path(name), proxy)
            try:
                print(measure(site, minutes * 60 / len(proxies())), flush=True)
            finally:
                site.remove()
    print("goal: no pull and no push fails, and none that was acknowledged is lost")


if __name__ == "__main__":
    main()
