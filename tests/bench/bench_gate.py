# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it costs to ask who somebody is: HEAD of a manifest, as many a second as there can be.

    python tests/bench/bench_gate.py [--seconds 3] [--connections 8]

The registry alone and open; with its own htpasswd, which runs bcrypt each time; nginx in front of it; and nginx that
asks the gate. Ratios of one run count: the client, the proxy, the gate and the registry share the same cores.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".ansible" / "collections"))

from ansible_collections.dockyard.registry.plugins.module_utils._permissions import build_document

from tests.support.gate import basic, replace, running_gate, running_nginx
from tests.support.registry import hash_password, start_registry

TARGET = "/v2/team/app/manifests/1.0"
KIND = "application/vnd.oci.image.manifest.v1+json"
LOGIN = "alice:wonderland"
PASSWORD = "wonderland"


class Case(NamedTuple):
    name: str
    port: int
    login: str


def prepare(port: int) -> None:
    """Push one manifest, without auth."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/v2/team/app/blobs/uploads/")
    reply = connection.getresponse()
    reply.read()
    location = str(reply.headers["Location"])
    digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    connection.request("PUT", f"{location}&digest={digest}", b"{}")
    connection.getresponse().read()
    layer = {"mediaType": "application/octet-stream", "digest": digest, "size": 2}
    manifest = {"schemaVersion": 2, "mediaType": KIND, "config": layer, "layers": [layer]}
    connection.request("PUT", TARGET, json.dumps(manifest), {"Content-Type": KIND})
    assert connection.getresponse().status == 201
    connection.close()


def measure(case: Case, connections: int, seconds: float) -> float:
    """Requests a second."""
    headers = {"Accept": KIND}
    if case.login:
        name, _colon, value = basic(case.login)[0].partition(": ")
        headers[name] = value
    counts = [0] * connections
    end = time.monotonic() + seconds

    def work(index: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", case.port)
        while time.monotonic() < end:
            connection.request("HEAD", TARGET, headers=headers)
            reply = connection.getresponse()
            reply.read()
            assert reply.status == 200, (case, reply.status)
            counts[index] += 1
        connection.close()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(connections)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=3, help="for each case and round")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "open").mkdir()
        bare = start_registry(folder / "open")
        stack.callback(bare.stop)
        prepare(bare.port)
        cases = [Case("the registry alone, open", bare.port, "")]
        for cost in (5, 10):
            (folder / f"cost{cost}").mkdir()
            storage = {"filesystem": {"rootdirectory": str(bare.data)}}
            registry = start_registry(
                folder / f"cost{cost}", auth={"alice": PASSWORD}, config_overrides={"storage": storage}
            )
            stack.callback(registry.stop)
            replace(registry.htpasswd, f"alice:{hash_password(PASSWORD, cost)}\n")
            cases.append(Case(f"its own htpasswd, cost {cost}", registry.port, LOGIN))
        (folder / "gate").mkdir()
        gate = stack.enter_context(running_gate(folder / "gate"))
        gate.write_policy(build_document([{"name": "alice", "repositories": ["team/**"]}]))
        gate.write_users({"alice": PASSWORD}, cost=10)
        for name, asks in (("nginx and the gate, cost 10", True), ("nginx alone", False)):
            place = folder / f"nginx{asks:d}"
            place.mkdir()
            port = stack.enter_context(running_nginx(place, gate.port, bare.port, asks=asks))
            cases.append(Case(name, port, LOGIN if asks else ""))
        best = {case.name: 0.0 for case in cases}
        for _round in range(options.rounds):
            for case in cases:
                best[case.name] = max(best[case.name], measure(case, options.connections, options.seconds))
    print("| | requests a second | of the registry alone |")
    print("|---|---|---|")
    alone = best[cases[0].name]
    for name, rate in best.items():
        print(f"| {name} | {rate:.0f} | {rate / alone:.2f} |")


if __name__ == "__main__":
    main()
