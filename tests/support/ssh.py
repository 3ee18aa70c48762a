# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real SSH server on loopback, with keys of its own, whose sessions can be cut."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.processes import wait_for
from tests.support.registry import free_port

SSHD = "/usr/sbin/sshd"


class SshHost:
    """This machine, reached over SSH."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self._key = folder / "client"
        for name in ("host", "client"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True
            )
        (folder / "sshd_config").write_text(
            f"""\
Port {self.port}
ListenAddress 127.0.0.1
HostKey {folder}/host
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/client.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
Subsystem sftp internal-sftp
""",
            encoding="utf-8",
        )
        # Where the daemon and its sessions insist on it.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", str(self._folder / "sshd_config")],
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        wait_for("sshd listens", (self._folder / "sshd.pid").exists)

    def stop(self) -> None:
        """No new connections, and none of the present ones."""
        assert self._process
        for pid in self.sessions():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        (self._folder / "sshd.pid").unlink(missing_ok=True)

    def sessions(self) -> list[int]:
        """Processes of the connections that are there."""
        assert self._process
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                if int(fields[1]) == self._process.pid:
                    found.append(int(stat.parent.name))
        return found

    def cut(self) -> int:
        """Kill the connections that are there; how many."""
        pids = self.sessions()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(pids)

    def variables(self) -> dict[str, Any]:
        """What an inventory says of this host."""
        return {
            "ansible_connection": "ssh",
            "ansible_host": "127.0.0.1",
            "ansible_port": self.port,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self._key),
            "ansible_ssh_args": "-C -o ControlMaster=auto -o ControlPersist=10s "
            "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout=5",
            # Paths of sockets are short.
            "ansible_control_path_dir": str(self._folder),
            "ansible_remote_tmp": str(self._folder / "tmp"),
            "ansible_python_interpreter": sys.executable,
        }


@contextmanager
def ssh_host(folder: Path) -> Iterator[SshHost]:
    """A running one, in a folder of its own."""
    folder.mkdir()
    host = SshHost(folder)
    host.start()
    try:
        yield host
    finally:
        host.stop()
