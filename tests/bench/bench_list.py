# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a listing with sizes costs: from disk, and over HTTP against the requests that it needs.

    python tests/bench/bench_list.py [--repositories 200] [--tags 50]

Ratios of one run count, not the seconds: a machine is slower or faster from one minute to the next.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import urllib3

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.registry import RegistryProcess, find_registry2, find_registry3, start_registry
from tests.support.store import MANIFEST_TYPES, Store, write_store

CONNECTIONS = 8

# In a process of its own, so that its peak memory is that of the listing.
LISTING = """
import json, pathlib, re, sys, time
from ansible_collections.dockyard.registry.plugins.module_utils import _client, _inventory
begin = time.monotonic()
if sys.argv[1] == "disk":
    found = _inventory.read_disk(sys.argv[2])
else:
    client = _client.RegistryClient(sys.argv[2], connections=int(sys.argv[3]))
    found = _inventory.read_http(client, configs=sys.argv[1] == "configs")
seconds = time.monotonic() - begin
_inventory.render(found)
status = pathlib.Path("/proc/self/status").read_text()  # getrusage() would count the parent's memory too
memory = int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])
print(json.dumps([seconds, memory / 1024, found["tags"]]))
"""


class Listing(NamedTuple):
    seconds: float
    mebibytes: float
    tags: int


def make_store(repositories: int, tags: int) -> Store:
    """Images of three layers, two of them shared within the repository or beyond."""
    store = Store()
    rng = random.Random(1)
    bases = [rng.randbytes(2000) for _ in range(10)]
    for number in range(repositories):
        name = f"team-{number % 10}/app-{number}"
        own = rng.randbytes(1000)
        for build in range(tags):
            config = json.dumps({"os": "linux", "architecture": "amd64", "build": f"{number}/{build}"})
            layers = [rng.choice(bases), own, rng.randbytes(200)]
            store.image(name, layers, tag=f"1.{build}.0", config=config.encode())
    return store


def listing(how: str, where: str) -> Listing:
    done = subprocess.run(
        [sys.executable, "-c", LISTING, how, where, str(CONNECTIONS)],
        check=True,
        capture_output=True,
        text=True,
    )
    return Listing(*json.loads(done.stdout))


def requests_of(registry: RegistryProcess) -> int:
    """How many requests a registry has answered."""
    return registry.log.read_text(encoding="utf-8", errors="replace").count('msg="response completed"')


def raw_rate(url: str, store: Store) -> float:
    """Manifests a second that the same registry gives to a bare client with as many connections."""
    wanted = [
        f"{url}/v2/{name}/manifests/{tag}" for name, model in store.repositories.items() for tag in model.tags
    ]
    wanted = random.Random(2).sample(wanted, min(len(wanted), 4000))
    pool = urllib3.PoolManager(maxsize=CONNECTIONS)
    headers = {"Accept": ", ".join(MANIFEST_TYPES)}

    def get(target: str) -> int:
        return pool.request("GET", target, headers=headers).status

    begin = time.monotonic()
    with ThreadPoolExecutor(CONNECTIONS) as executor:
        statuses = set(executor.map(get, wanted))
    assert statuses == {200}, statuses
    return len(wanted) / (time.monotonic() - begin)


def bench(name: str, binary: str, store: Store) -> None:
    with tempfile.TemporaryDirectory(prefix="dockyard-bench-") as folder:
        registry = start_registry(Path(folder), binary=binary)
        try:
            write_store(registry.data, store)
            raw_rate(registry.url, store)  # warms the registry and the page cache
            disk = listing("disk", str(registry.data))
            print(f"| {name} | disk | {disk.seconds:.1f} s | 0 | {disk.mebibytes:.0f} MiB | 1 | |")
            for how, label in (("http", "HTTP"), ("configs", "HTTP with configs")):
                before = requests_of(registry)
                found = listing(how, registry.url)
                asked = requests_of(registry) - before
                raw = raw_rate(registry.url, store)
                took = f"{found.seconds:.1f} s | {asked} | {found.mebibytes:.0f} MiB"
                rate = f"{asked / found.seconds / raw:.0%} of {raw:.0f}/s"
                print(f"| {name} | {label} | {took} | {found.seconds / disk.seconds:.1f} | {rate} |")
                assert found.tags == disk.tags
        finally:
            registry.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repositories", type=int, default=200)
    parser.add_argument("--tags", type=int, default=50, help="tags of each repository")
    options = parser.parse_args()
    store = make_store(options.repositories, options.tags)
    print(f"{options.repositories} repositories with {options.tags} tags each, {CONNECTIONS} connections\n")
    print(
        "| registry | listing from | took | requests | peak memory | against disk | rate of a bare client |"
    )
    print("|---|---|---|---|---|---|---|")
    bench("2.8", find_registry2(), store)
    newer = find_registry3()
    if newer:
        bench("3.x", newer, store)
    else:
        print("| 3.x | DOCKYARD_REGISTRY3 is unset | | | | | |")


if __name__ == "__main__":
    main()
