# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine has that pulls and pushes: its tools, its certificate store, what its engine goes by.

Private to the collection: no stable interface. Everything here only reads. Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from ._client_files import begin_mark

_PROGRAMS = {
    "docker": ("dockerd", "docker"),
    "containers": ("podman", "skopeo", "buildah"),
    "containerd": ("containerd",),
    "k3s": ("k3s",),
    "buildkit": ("buildkitd",),
}

# Command that rebuilds the store, and the folder that it reads.
_STORES = (
    (("update-ca-certificates",), "/usr/local/share/ca-certificates"),
    (("update-ca-trust", "extract"), "/etc/pki/ca-trust/source/anchors"),
)

_ENGINE_SECONDS = 30
_CONFIG_PATH = re.compile(r"^\s*config_path\s*=\s*[\"'][^\"']", re.MULTILINE)


class Store(NamedTuple):
    """The certificate authorities that the system trusts. Empty where the machine has no such tool."""

    command: list[str]
    folder: str


class Engine(NamedTuple):
    """What a running Docker Engine goes by at this moment; it may differ from its file."""

    answers: bool
    mirrors: list[str]
    insecure: list[str]


def tools() -> list[str]:
    """Which kinds of tools are installed."""
    return [kind for kind, programs in _PROGRAMS.items() if any(_finds(program) for program in programs)]


def store() -> Store:
    """The system's certificate store."""
    for command, folder in _STORES:
        if _finds(command[0]):
            return Store(list(command), folder)
    return Store([], "")


def engine() -> Engine:
    """Ask the engine what it goes by."""
    try:
        done = subprocess.run(
            ["docker", "info", "--format", "{{json .RegistryConfig}}"],
            capture_output=True,
            text=True,
            timeout=_ENGINE_SECONDS,
            check=False,
        )
        config: Any = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        config = None
    if not isinstance(config, dict):
        return Engine(False, [], [])
    indexes = config.get("IndexConfigs") or {}
    insecure = [name for name, index in indexes.items() if not index.get("Secure", True)]
    return Engine(True, [str(mirror).rstrip("/") for mirror in config.get("Mirrors") or []], insecure)


def containerd_config(name: str = "", path: str = "/etc/containerd/config.toml") -> str:
    """Whether containerd's file names a folder of hosts.toml files: set, unset, or ours.

    ours: it does since our settings called `name` were added to it. absent: there is no such file.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return "absent"
    if name and begin_mark(name) in text:
        return "ours"
    return "set" if _CONFIG_PATH.search(text) else "unset"


def _finds(program: str) -> bool:
    path = os.pathsep.join(
        [os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin", "/usr/local/bin"]
    )
    return shutil.which(program, path=path) is not None
