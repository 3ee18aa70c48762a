# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the integrity check of a store costs: against sha256sum over all its files on the same processors.

    BENCH=tests/bench/bench_check.py make bench
    BENCH_CHECK_MB=5000 PYTHONPATH=.ansible/collections:. python tests/bench/bench_check.py

The store has layers of 1 to 64 MB of random bytes and two thousand small images. sha256sum reads every file,
links too, and knows nothing of what belongs together. Each way runs in a process of its own, in turn, and the
best of its rounds counts. The ratios of one run count, not the seconds.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ansible_collections.dockyard.registry.plugins.module_utils._check import Options, Which, check
from ansible_collections.dockyard.registry.plugins.module_utils._storage import Storage

from tests.support.store import digest_of, large_store, write_store

GOAL = 1.2
MEGABYTES = int(os.environ.get("BENCH_CHECK_MB", "1000"))
SMALL_MANIFESTS = 2000
THREADS = 2


def fill(root: Path, megabytes: int) -> None:
    """Small images, and one image of large layers after the other until it is enough."""
    rng = random.Random(1)
    store = large_store(SMALL_MANIFESTS)
    write_store(root, store)
    left = megabytes
    while left > 0:
        size = min(left, rng.choice([1, 2, 4, 8, 16, 32, 64]))
        left -= size
        body = rng.randbytes(size * 1_000_000)
        value = digest_of(body).partition(":")[2]
        folder = root / "docker/registry/v2/blobs/sha256" / value[:2] / value
        folder.mkdir(parents=True)
        (folder / "data").write_bytes(body)


def run(way: str, root: str, state: str) -> None:
    content = Which.CHANGED if way == "changed" else Which.ALL
    report = check(Storage(root), Options(content=content, threads=THREADS, state=Path(state)))
    if not report.is_healthy:
        raise SystemExit(f"the check found damage in a good store: {report.findings[:3]}")


def seconds(command: Sequence[str]) -> float:
    begin = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - begin


def compare(root: Path, rounds: int) -> None:
    state = root.with_name("check-state")
    own = [sys.executable, __file__, "--folder", str(root), "--state", str(state), "--way"]
    sums = f"find {root} -type f -print0 | xargs -0 -P{THREADS} -n64 sha256sum"
    commands = {
        "sha256sum": ["sh", "-c", sums],
        "check": [*own, "all"],
        "check, nothing changed": [*own, "changed"],
    }
    measured: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            measured[name].append(seconds(command))
    base = min(measured["sha256sum"])
    size = sum(path.stat().st_size for path in root.rglob("data") if path.is_file()) / 1e6
    print(f"{size:.0f} MB of blobs, {SMALL_MANIFESTS} manifests, {THREADS} threads; best of {rounds}")
    print(f"{'way':24} {'seconds':>8} {'MB/s':>7} {'of sha256sum':>13}")
    for name, results in measured.items():
        best = min(results)
        print(f"{name:24} {best:8.2f} {size / best:7.0f} {best / base:12.2f}x")
    ratio = min(measured["check"]) / base
    print(f"goal: within {GOAL:g}x of sha256sum: {'met' if ratio <= GOAL else 'NOT met'} ({ratio:.2f}x)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--state", help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=["all", "changed"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        run(arguments.way, arguments.folder, arguments.state)
        return
    with tempfile.TemporaryDirectory(prefix="bench-check-") as folder:
        root = Path(folder, "data")
        root.mkdir()
        fill(root, MEGABYTES)
        compare(root, arguments.rounds)


if __name__ == "__main__":
    main()
