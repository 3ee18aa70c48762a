# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What deleting most tags of one repository costs: against bare DELETE requests, and against skopeo.

    BENCH=tests/bench/bench_delete.py make bench
    PYTHONPATH=.ansible/collections:. python tests/bench/bench_delete.py [--tags 2000] [--keep 100]

Registry 2.8, and 3.x where DOCKYARD_REGISTRY3 names one. Each way gets the same contents anew. skopeo deletes
a few tags only, one process each, from the full repository. Ratios of one run count, not the rates.
"""

from __future__ import annotations

import argparse
import http.client
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible_collections.dockyard.registry.plugins.module_utils._client import RegistryClient
from ansible_collections.dockyard.registry.plugins.module_utils._deletion import execute, look, plan
from ansible_collections.dockyard.registry.plugins.module_utils._storage import Storage

from tests.support.registry import RegistryProcess, find_registry2, find_registry3, start_registry
from tests.support.store import Store, verify, write_store

REPOSITORY = "ci/app"
CONNECTIONS = 8


def make_store(tags: int) -> Store:
    """As many images as tags, of a base that they share and a layer of their own."""
    store = Store()
    for number in range(tags):
        own = b"layer %d" % number
        store.image(REPOSITORY, [b"base", own], tag=f"build-{number:05}", config=b"config %d" % number)
    return store


class Bench:
    """One registry version with so many tags, of which `doomed` are to go."""

    def __init__(self, binary: str, store: Store, keep: int) -> None:
        self._binary = binary
        self._store = store
        tags = sorted(store.repositories[REPOSITORY].tags)
        self.doomed = tags[: len(tags) - keep]

    @contextmanager
    def registry(self) -> Iterator[RegistryProcess]:
        """A registry that holds all of it."""
        with tempfile.TemporaryDirectory(prefix="bench-delete-") as folder:
            registry = start_registry(Path(folder), binary=self._binary)
            try:
                write_store(registry.data, self._store)
                yield registry
            finally:
                registry.stop()

    def rate(self, way: Callable[[RegistryProcess], int]) -> float:
        """Manifests per second of one way to delete."""
        with self.registry() as registry:
            begin = time.monotonic()
            return way(registry) / (time.monotonic() - begin)

    def bare(self, registry: RegistryProcess) -> int:
        """DELETE by digest for each, on kept-open connections, and nothing else."""
        digests = iter([self._store.repositories[REPOSITORY].current(tag) for tag in self.doomed])
        lock = threading.Lock()

        def work() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", registry.port)
            while True:
                with lock:
                    digest = next(digests, None)
                if digest is None:
                    return
                connection.request("DELETE", f"/v2/{REPOSITORY}/manifests/{digest}")
                answer = connection.getresponse()
                assert answer.status == 202, answer.read()
                answer.read()

        threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(self.doomed)

    def ours(self, registry: RegistryProcess, *, on_disk: bool) -> int:
        """Look, plan and execute."""
        targets = [(REPOSITORY, tag) for tag in self.doomed]
        storage = Storage(registry.data) if on_disk else None
        with RegistryClient(registry.url, connections=CONNECTIONS) as client:
            found = plan(look(targets, client, storage), targets)
            done = execute(found, client, storage=storage)
        assert len(done.manifests) == len(self.doomed) == len(done.tags)
        self._verify(registry)
        return len(done.manifests)

    def _verify(self, registry: RegistryProcess) -> None:
        """Some of what stays can be pulled; its time counts, which is little."""
        rest = Store()
        rest.repositories = {REPOSITORY: type(self._store.repositories[REPOSITORY])()}
        kept = self._store.repositories[REPOSITORY]
        for tag in sorted(kept.tags)[len(self.doomed) :][:10]:
            rest.repositories[REPOSITORY].revisions.add(kept.current(tag))
        rest._contents = self._store._contents
        verify(registry.url, rest)

    def skopeo(self, registry: RegistryProcess, count: int) -> int:
        for tag in self.doomed[:count]:
            image = f"docker://127.0.0.1:{registry.port}/{REPOSITORY}:{tag}"
            subprocess.run(["skopeo", "delete", "--tls-verify=false", image], check=True, capture_output=True)
        return min(count, len(self.doomed))


def row(what: str, rate: float, bare: float) -> None:
    print(f"| {what} | {rate:.0f} | {rate / bare:.2f} |", flush=True)


def run(name: str, bench: Bench, skopeo: int, rounds: int) -> None:
    def best(way: Callable[[RegistryProcess], int]) -> float:
        return max(bench.rate(way) for _ in range(rounds))

    bare = best(bench.bare)
    row(f"{name}: bare DELETE by digest, {CONNECTIONS} connections", bare, bare)
    row(f"{name}: ours over HTTP", best(lambda registry: bench.ours(registry, on_disk=False)), bare)
    row(f"{name}: ours on its host", best(lambda registry: bench.ours(registry, on_disk=True)), bare)
    if shutil.which("skopeo") and skopeo:
        row(f"{name}: skopeo delete, {skopeo} tags", bench.rate(lambda it: bench.skopeo(it, skopeo)), bare)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tags", type=int, default=2000, help="tags of the repository")
    parser.add_argument("--keep", type=int, default=100, help="how many of them stay")
    parser.add_argument("--skopeo", type=int, default=40, help="how many skopeo deletes")
    parser.add_argument("--rounds", type=int, default=1, help="the best of so many runs counts")
    options = parser.parse_args()
    store = make_store(options.tags)
    print(f"| {options.tags - options.keep} of {options.tags} tags | manifests/s | against bare |")
    print("|---|---|---|")
    binaries = {"2.8": find_registry2(), "3.x": find_registry3()}
    for name, binary in binaries.items():
        if binary:
            run(name, Bench(binary, store, options.keep), options.skopeo, options.rounds)
        else:
            print(f"| {name}: DOCKYARD_REGISTRY3 is unset | | |")


if __name__ == "__main__":
    main()
