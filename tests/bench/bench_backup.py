# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a hot backup costs: against cp -r and tar -czf of the same data, and the incremental one against rsync -a.

    BENCH=tests/bench/bench_backup.py make bench
    BENCH_BYTES=1000000000 PYTHONPATH=.ansible/collections:. python tests/bench/bench_backup.py

BENCH_BYTES (5 GB by default) of layers that cannot be packed. All results are synced to the disk before the clock
stops. cp and tar check nothing; the backup hashes every byte twice, for its blob and for the archive. The ratios of
one run count, not the seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ansible_collections.dockyard.registry.plugins.module_utils._backup import Kind, Request, run

from tests.support.store import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, digest_of

BYTES = int(float(os.environ.get("BENCH_BYTES", "5e9")))
LAYER = 50_000_000
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
CP_GOAL, TAR_GOAL = 1.5, 10.0


def write_data(data: Path, layers: int, begin: int = 0) -> None:
    """Images of one layer each, written piece by piece as the registry stores them."""
    root = data / "docker/registry/v2"
    for number in range(begin, begin + layers):
        upload = data / "upload"
        hasher = hashlib.sha256()
        with upload.open("wb") as file:
            for _ in range(LAYER // 1_000_000):
                piece = os.urandom(1_000_000)
                hasher.update(piece)
                file.write(piece)
        layer = f"sha256:{hasher.hexdigest()}"
        upload.rename(make(blob(root, layer)))
        config = b'{"number": %d}' % number
        make(blob(root, digest_of(config))).write_bytes(config)
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": digest_of(config), "size": len(config)},
            "layers": [{"mediaType": OCI_LAYER, "digest": layer, "size": LAYER}],
        }
        body = json.dumps(document).encode()
        manifest = digest_of(body)
        make(blob(root, manifest)).write_bytes(body)
        repository = root / "repositories/bench"
        for place, digest in {
            f"_layers/{path_of(layer)}": layer,
            f"_layers/{path_of(digest_of(config))}": digest_of(config),
            f"_manifests/revisions/{path_of(manifest)}": manifest,
            f"_manifests/tags/{number}/index/{path_of(manifest)}": manifest,
            f"_manifests/tags/{number}/current": manifest,
        }.items():
            make(repository / place / "link").write_text(digest)


def path_of(digest: str) -> str:
    return digest.replace(":", "/")


def blob(root: Path, digest: str) -> Path:
    value = digest.partition(":")[2]
    return root / "blobs/sha256" / value[:2] / value / "data"


def make(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def timed(what: str, *commands: list[str], folder: Path) -> float:
    os.sync()
    began = time.monotonic()
    for command in commands:
        subprocess.run(command, check=True)
    subprocess.run(["sync", "-f", str(folder)], check=True)
    seconds = time.monotonic() - began
    print(f"{what:<34}{seconds:8.2f} s", flush=True)
    return seconds


def backup(what: str, request: Request) -> float:
    os.sync()
    began = time.monotonic()
    result = run(request)
    seconds = time.monotonic() - began
    print(f"{what:<34}{seconds:8.2f} s   carried {result['carried_bytes']}", flush=True)
    return seconds


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-backup-", dir=os.environ.get("BENCH_DIR")) as name:
        place = Path(name)
        data = place / "data"
        data.mkdir()
        write_data(data, BYTES // LAYER)
        request = Request(data=str(data), folder=str(place / "backups"), verify=False)
        cps, backups, verified = [], [], []
        for _ in range(ROUNDS):
            cps.append(timed("cp -r", ["cp", "-r", str(data), str(place / "copy")], folder=place))
            shutil.rmtree(place / "copy")
            backups.append(backup("backup, not read again", request))
            shutil.rmtree(place / "backups")
            verified.append(backup("backup, read again", request._replace(verify=True)))
            shutil.rmtree(place / "backups")
        tar = timed("tar -czf", ["tar", "-czf", str(place / "x.tgz"), "-C", name, "data"], folder=place)
        (place / "x.tgz").unlink()

        run(request)
        sync = ["rsync", "-a", f"{data}/", str(place / "mirror")]
        has_rsync = shutil.which("rsync") is not None
        if has_rsync:
            subprocess.run(sync, check=True)
        write_data(data, 2, begin=BYTES // LAYER)
        incremental = backup("incremental backup, read again", request._replace(kind=Kind.AUTO, verify=True))
        mirror = timed("rsync -a", sync, folder=place) if has_rsync else None

        print(f"backup / cp: {min(backups) / min(cps):.2f} (goal: at most {CP_GOAL})")
        print(f"backup read again / cp: {min(verified) / min(cps):.2f}")
        print(f"tar -czf / backup: {tar / min(backups):.1f} (goal: at least {TAR_GOAL:.0f})")
        print(f"tar -czf / backup read again: {tar / min(verified):.1f}")
        if mirror is not None:
            print(f"incremental / rsync -a: {incremental / mirror:.2f}")
        else:
            print("rsync is not installed: nothing to compare the incremental backup with", file=sys.stderr)


if __name__ == "__main__":
    main()
