# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host has for a registry: engine, Compose, Python libraries, a free port, disk.

Private to the collection: no stable interface. Everything here only reads.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from importlib import util
from pathlib import Path
from typing import Any, NamedTuple

# What our own modules import on a host, as top-level names.
LIBRARIES = ("bcrypt", "passlib", "requests", "urllib3", "yaml")

# A hung engine must not hang the play.
ENGINE_TIMEOUT_SECONDS = 30

# The state column of /proc/net/tcp for a listening socket.
_TCP_LISTEN = "0A"

_KINDS = {stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFLNK: "link"}

# How often, and how long apart, to look for the container behind a port that Docker holds.
_LOOKS = 4
_LOOK_AGAIN_SECONDS = 0.25


class Engine(NamedTuple):
    """The Docker Engine as the host's own client sees it."""

    #: Whether its daemon is there, running or not.
    installed: bool
    answers: bool
    #: Why it does not answer; empty where it does.
    error: str
    version: str
    #: The Compose plugin's version without a leading "v"; empty where there is none.
    compose_version: str
    #: Where the engine keeps images and containers.
    data_root: str


class Listener(NamedTuple):
    """Who holds a TCP port. Fields are empty where that could not be found out."""

    address: str
    process: str
    pid: int | None
    container: str
    #: The folder of the compose project the container belongs to.
    project_directory: str

    @property
    def holder(self) -> str:
        """Who it is, for people."""
        if self.container:
            return f"container {self.container}"
        if self.pid:
            return f"process {self.process} ({self.pid})"
        return "a process that could not be named"


class Disk(NamedTuple):
    """The file system a path is on, or would be created on."""

    free_bytes: int
    total_bytes: int
    free_inodes: int
    writable: bool


class Entry(NamedTuple):
    """What is at a path: a link is not followed. Fields are None where nothing is there."""

    exists: bool
    #: "directory", "file", "link" or "other".
    type: str | None = None
    uid: int | None = None
    gid: int | None = None
    #: Four octal digits, as Ansible's tasks have it.
    mode: str | None = None


def _run(*command: str) -> tuple[int, str, str]:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=ENGINE_TIMEOUT_SECONDS, check=False
        )
    except FileNotFoundError:
        return 127, "", f"{command[0]} is not installed"
    except subprocess.TimeoutExpired:
        return 124, "", f"no answer within {ENGINE_TIMEOUT_SECONDS} s"
    return done.returncode, done.stdout, done.stderr.strip()


def _finds(program: str) -> bool:
    """Whether a program is on PATH, or where system services are although PATH lacks it."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    return shutil.which(program, path=path) is not None


def engine() -> Engine:
    """Ask the engine for its version and plugins: one call that says all, whether or not it answers."""
    code, out, err = _run("docker", "info", "--format", "{{json .}}")
    try:
        info: dict[str, Any] = json.loads(out) if out else {}
    except ValueError:
        info = {}
    plugins = (info.get("ClientInfo") or {}).get("Plugins") or []
    compose = next((str(p.get("Version", "")) for p in plugins if p.get("Name") == "compose"), "")
    version = str(info.get("ServerVersion") or "")
    problems = "; ".join(str(e) for e in info.get("ServerErrors") or []) or err
    answers = bool(version) and code == 0
    return Engine(
        installed=answers or _finds("dockerd"),
        answers=answers,
        error="" if answers else (problems or f"docker info ended with {code} and no version"),
        version=version,
        compose_version=compose.lstrip("v"),
        data_root=str(info.get("DockerRootDir") or ""),
    )


def missing_libraries(*more: str) -> list[str]:
    """Which of LIBRARIES, and of those given, this very interpreter cannot find."""
    return [name for name in (*LIBRARIES, *more) if util.find_spec(name) is None]


def operating_system(path: str = "/etc/os-release") -> dict[str, str]:
    """ID, VERSION_ID and their like, with lower-case keys; empty where the file is missing."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError:
        return {}
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key.strip().lower(): value.strip().strip("\"'") for key, value in pairs}


def disk(path: str) -> Disk:
    """Free space where `path` is, or where its nearest existing parent is."""
    folder = Path(path)
    while not folder.exists():
        folder = folder.parent
    system = os.statvfs(folder)
    return Disk(
        free_bytes=system.f_bavail * system.f_frsize,
        total_bytes=system.f_blocks * system.f_frsize,
        free_inodes=system.f_favail,
        writable=not system.f_flag & os.ST_RDONLY,
    )


def entry(path: str) -> Entry:
    """What is at `path`."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Entry(exists=False)
    kind = _KINDS.get(stat.S_IFMT(found.st_mode), "other")
    return Entry(True, kind, found.st_uid, found.st_gid, f"{stat.S_IMODE(found.st_mode):04o}")


def _unhex(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address of /proc/net/tcp: 32-bit words in the host's byte order."""
    words = [bytes.fromhex(address[i : i + 8]) for i in range(0, len(address), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    return ipaddress.ip_address(packed)


def _overlap(listening: str, wanted: str) -> bool:
    """Whether a socket on one address keeps another from binding the other."""
    ours, theirs = ipaddress.ip_address(wanted), ipaddress.ip_address(listening)
    if isinstance(theirs, ipaddress.IPv6Address) and theirs.ipv4_mapped:
        theirs = theirs.ipv4_mapped
    if ours.version != theirs.version:
        # A dual-stack socket on :: holds the port for IPv4 too; one on 0.0.0.0 does not hold it for IPv6.
        return theirs.is_unspecified and theirs.version == 6
    return ours == theirs or ours.is_unspecified or theirs.is_unspecified


def _sockets(port: int) -> list[tuple[str, str]]:
    """(address, inode) of each socket that listens on a TCP port."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            address, _colon, hex_port = fields[1].partition(":")
            if fields[3] == _TCP_LISTEN and int(hex_port, 16) == port:
                found.append((str(_unhex(address)), fields[9]))
    return found


def _owner_of_socket(inode: str) -> tuple[int | None, str]:
    """The process that holds a socket. Needs root for the processes of others."""
    wanted = f"socket:[{inode}]"
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(fd.readlink()) == wanted for fd in (process / "fd").iterdir()):
                return int(process.name), (process / "comm").read_text(encoding="utf-8").strip()
        except OSError:
            continue  # ended meanwhile, or not ours to look at
    return None, ""


def _publisher(port: int) -> tuple[str, str]:
    """(name, compose project folder) of the container that publishes a port of the host."""
    template = '{{.Names}}\t{{.Label "com.docker.compose.project.working_dir"}}'
    code, out, _err = _run("docker", "ps", "--filter", f"publish={port}", "--format", template)
    first = out.splitlines()[0] if code == 0 and out.strip() else "\t"
    name, _tab, folder = first.partition("\t")
    return name, folder


def listener(address: str, port: int) -> Listener | None:
    """Who holds `port` in a way that keeps a new socket from binding it on `address`; None where it is free."""
    for _attempt in range(_LOOKS):
        found = _listener(address, port)
        if found is None or found.container or found.process != "docker-proxy":
            return found
        # Its container ended between two looks, as one does that fails to start again and again.
        time.sleep(_LOOK_AGAIN_SECONDS)
    return found


def _listener(address: str, port: int) -> Listener | None:
    for listening, inode in _sockets(port):
        if _overlap(listening, address):
            pid, process = _owner_of_socket(inode)
            container, folder = _publisher(port)
            return Listener(listening, process, pid, container, folder)
    return None
