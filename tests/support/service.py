# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry process as maintenance sees it: `Service` on bare processes, for tests.

Any process can take it over from any other, as after a kill: a file says which process it is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from ansible_collections.dockyard.registry.plugins.module_utils._service import Ran, ServiceError

from tests.support.registry import RegistryProcess, environment, start_registry

_PATIENCE_SECONDS = 20.0


class ProcessService:
    """The registry whose config.yml is in `directory`, run by `binary`; a Service."""

    def __init__(self, directory: Path, binary: str) -> None:
        self.directory = directory
        self.binary = binary
        self._pid_file = directory / "registry.pid"

    def is_running(self) -> bool:
        return self._pid() is not None

    def stop(self) -> None:
        pid = self._pid()
        if pid is None:
            return
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while _is_alive(pid):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)
        self._pid_file.unlink()

    def start(self) -> None:
        if self.is_running():
            return
        with (self.directory / "registry.log").open("ab") as log:
            process = subprocess.Popen(
                [self.binary, "serve", str(self.directory / "config.yml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(),
                # It outlives a test's process that is killed, as a container does.
                start_new_session=True,
            )
        self._pid_file.write_text(str(process.pid), encoding="ascii")
        self._wait_until_it_answers(process.pid)

    def garbage_collect(self, *, dry_run: bool) -> Ran:
        flags = ["--dry-run"] if dry_run else []
        done = subprocess.run(
            [self.binary, "garbage-collect", *flags, str(self.directory / "config.yml")],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        return Ran(done.returncode, done.stdout + done.stderr)

    @contextmanager
    def scratch(self, data: Path) -> Iterator[str]:
        with tempfile.TemporaryDirectory(prefix="scratch-", dir=self.directory) as folder:
            storage = {"filesystem": {"rootdirectory": str(data)}, "cache": None}
            registry = start_registry(
                Path(folder),
                binary=self.binary,
                delete=False,
                readonly=True,
                config_overrides={"storage": storage},
            )
            try:
                yield registry.url
            finally:
                registry.stop()

    @property
    def data(self) -> Path:
        """The folder of its storage, as start_registry() makes it."""
        return self.directory / "data"

    @property
    def url(self) -> str:
        settings = yaml.safe_load((self.directory / "config.yml").read_text(encoding="utf-8"))
        return f"http://{settings['http']['addr']}"

    def _pid(self) -> int | None:
        try:
            pid = int(self._pid_file.read_text(encoding="ascii"))
        except FileNotFoundError:
            return None
        return pid if _is_alive(pid) else None

    def _wait_until_it_answers(self, pid: int) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/v2/", timeout=5).close()
                return
            except urllib.error.HTTPError:
                return
            except OSError as error:
                if not _is_alive(pid) or time.monotonic() > deadline:
                    log = (self.directory / "registry.log").read_text(encoding="utf-8", errors="replace")
                    raise ServiceError(f"start {self.url}: {error}\n{log[-1500:]}") from error
            time.sleep(0.005)


@contextmanager
def as_service(registry: RegistryProcess) -> Iterator[ProcessService]:
    """Hand a registry of start_registry() over, in whatever state; it is stopped at the end."""
    service = ProcessService(registry.config.parent, registry.binary)
    registry.stop()
    service.start()
    try:
        yield service
    finally:
        service.stop()


def _is_alive(pid: int) -> bool:
    """Whether a process runs: one that has ended, be it that nobody has waited for it, does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
