# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the walk of a store costs: against a bare recursive os.scandir of the same tree.

    BENCH=tests/bench/bench_walk.py make bench
    PYTHONPATH=.ansible/collections:. python tests/bench/bench_walk.py [--manifests 100000] [--rounds 3]

The walk reads links and manifests, verifies each manifest's digest, and takes the sizes of blobs. os.scandir
opens folders and nothing else, but all of them: the innermost too, which the walk knows to hold one file.
Each way runs in a process of its own, in turn, and the best of its rounds counts. The ratios of one run count,
not the seconds; in a store with more folders than the system caches, both mostly wait for the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ansible_collections.dockyard.registry.plugins.module_utils._graph import read_graph
from ansible_collections.dockyard.registry.plugins.module_utils._source import DiskSource
from ansible_collections.dockyard.registry.plugins.module_utils._storage import Storage

from tests.support.store import large_store, write_store

GOAL = 3.0


def scan(root: str) -> dict[str, int]:
    """Open every folder and count what is in it."""
    counts = {"folders": 0, "links": 0, "blobs": 0}
    waiting = [root]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            counts["folders"] += 1
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    counts["links" if entry.name == "link" else "blobs"] += 1
    return counts


def walk(root: str) -> dict[str, int]:
    graph = read_graph(DiskSource(Storage(root)))
    if graph.problems:
        raise SystemExit(f"the walk found problems in a good store: {graph.problems[:3]}")
    return {"manifests": sum(len(graph.manifests(name)) for name in graph.repositories())}


def walk_and_size(root: str) -> dict[str, int]:
    """The walk, and the sizes of all tags: what they share and what they hold alone."""
    graph = read_graph(DiskSource(Storage(root)))
    names = graph.repositories()
    return {"bytes": sum(graph.size(name, tag.name).exclusive for name in names for tag in graph.tags(name))}


def nothing(root: str) -> dict[str, int]:  # noqa: ARG001
    return {}


WAYS: dict[str, Callable[[str], dict[str, int]]] = {
    "nothing": nothing,
    "os.scandir": scan,
    "read_graph": walk,
    "read_graph + sizes": walk_and_size,
}


def measure(way: str, root: Path) -> dict[str, float]:
    """Seconds, the peak of memory in MB, and what was counted, of one way in a new process."""
    command = [sys.executable, __file__, "--way", way, "--folder", str(root)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def peak_memory() -> float:
    """The most that this process has had, in MB. (getrusage() counts what its parent had, too.)"""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def run(way: str, root: str) -> None:
    begin, cpu = time.perf_counter(), time.process_time()
    counts = WAYS[way](root)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak_memory(), **counts}))


def compare(root: Path, rounds: int) -> None:
    measured: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, results in measured.items():
            results.append(measure(way, root))
    best = {way: min(results, key=lambda result: result["seconds"]) for way, results in measured.items()}
    counts, base, empty = best["os.scandir"], best["os.scandir"]["seconds"], best["nothing"]["peak"]
    manifests = best["read_graph"]["manifests"]
    print(
        f"{manifests} manifests, {counts['links']} links, {counts['blobs']} blobs, "
        f"{counts['folders']} folders; best of {rounds}"
    )
    print(
        f"{'way':20} {'seconds':>8} {'CPU':>6} {'links/s':>8} {'of scandir':>11} {'peak MB':>8} {'B/manifest':>11}"
    )
    for way in list(WAYS)[1:]:
        seconds, more = best[way]["seconds"], best[way]["peak"] - empty
        print(
            f"{way:20} {seconds:8.2f} {best[way]['cpu']:6.1f} {counts['links'] / seconds:8.0f} "
            f"{seconds / base:10.2f}x {more:8.0f} {more * 2**20 / manifests:11.0f}"
        )
    ratio = best["read_graph"]["seconds"] / base
    print(f"goal: within {GOAL:g}x of os.scandir: {'met' if ratio <= GOAL else 'NOT met'} ({ratio:.2f}x)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--manifests", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="a store that is there already")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        run(arguments.way, arguments.folder)
    elif arguments.folder:
        compare(Path(arguments.folder), arguments.rounds)
    else:
        with tempfile.TemporaryDirectory(prefix="bench-walk-") as folder:
            write_store(Path(folder), large_store(arguments.manifests))
            compare(Path(folder), arguments.rounds)


if __name__ == "__main__":
    main()
