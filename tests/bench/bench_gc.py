# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Garbage collection with untagged manifests against `garbage-collect --delete-untagged` on a copy of the same store.

    .venv/bin/python tests/bench/bench_gc.py [TAGS]

One repository with so many tags (2,000), each moved once, so that there are as many manifests without a tag.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / ".ansible" / "collections")]

from ansible_collections.dockyard.registry.plugins.module_utils import _collection  # noqa: E402
from ansible_collections.dockyard.registry.plugins.module_utils._client import RegistryClient  # noqa: E402

from tests.support.registry import find_registry2, find_registry3, start_registry  # noqa: E402
from tests.support.service import as_service  # noqa: E402
from tests.support.store import Store, verify, write_store  # noqa: E402

AGE_SECONDS = 7200.0


def contents(tags: int) -> Store:
    store = Store()
    for number in range(tags):
        for build in ("old", "new"):
            layers = [b"base", f"layer {build} {number}".encode()]
            store.image("app", layers, tag=f"v{number}", config=f"config {build} {number}".encode())
    return store


def make_older(folder: Path) -> None:
    then = time.time() - AGE_SECONDS
    for parent, _folders, files in os.walk(folder):
        for name in files:
            os.utime(Path(parent, name), (then, then))


def measure(binary: str, store: Store, folder: Path) -> None:
    registry = start_registry(folder, binary=binary)
    with as_service(registry) as service:
        service.stop()
        write_store(service.data, store)
        make_older(service.data)
        shutil.copytree(service.data, folder / "theirs")
        service.start()
        request = _collection.Request(str(folder), str(service.data), untagged=3600.0)
        begun = time.monotonic()
        with RegistryClient(service.url) as client:
            told = _collection.run(request, service, client)
        ours = time.monotonic() - begun
        print(told["table"])
        app = store.repositories["app"]
        verify_what_has_tags(service.url, store)
        service.stop()
        left = sum(1 for _ in service.data.rglob("data"))

        shutil.rmtree(service.data)
        (folder / "theirs").rename(service.data)
        begun = time.monotonic()
        registry.garbage_collect("--delete-untagged")
        theirs = time.monotonic() - begun
        assert left == sum(1 for _ in service.data.rglob("data")), "both free the same"
    print(
        f"registry {registry.major}, {len(app.tags)} tags and as many manifests without one: ours {ours:.2f} s, the "
        f"registry stopped for {told['seconds_stopped']:.2f} s; --delete-untagged {theirs:.2f} s, all of it stopped: "
        f"{theirs / ours:.1f} times as long, {theirs / told['seconds_stopped']:.0f} times as long stopped"
    )


def verify_what_has_tags(url: str, store: Store) -> None:
    app = store.repositories["app"]
    current = {app.current(tag) for tag in app.tags}
    app.deleted, app.revisions = app.revisions - current, current
    verify(url, store)


def main() -> None:
    tags = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    for binary in filter(None, (find_registry2(), find_registry3())):
        with tempfile.TemporaryDirectory(prefix="dockyard-bench-") as folder:
            measure(binary, contents(tags), Path(folder))


if __name__ == "__main__":
    main()
