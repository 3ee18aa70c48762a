# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real registry processes for tests: one per test, on a loopback port, on a storage of its own."""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import yaml

START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0
# Below the range from which the kernel gives out ports: a registry finds its port again after a restart.
PORTS = range(20000, 32000)


def find_registry2() -> str:
    """The path of the registry 2.8 binary, which scripts/ installs; a missing one is an error, not a skip."""
    binary = os.environ.get("DOCKYARD_REGISTRY2") or shutil.which("docker-registry", path="/usr/bin")
    if not binary:
        raise FileNotFoundError(
            "registry 2.8: no /usr/bin/docker-registry; install the package docker-registry or name "
            "a binary in DOCKYARD_REGISTRY2"
        )
    return binary


def find_registry3() -> str | None:
    """The path of the registry 3.x binary that DOCKYARD_REGISTRY3 names, or None."""
    return os.environ.get("DOCKYARD_REGISTRY3") or None


needs_registry3 = pytest.mark.skipif(
    find_registry3() is None,
    reason="DOCKYARD_REGISTRY3 is unset: name a registry 3.x binary to test it too",
)


def hash_password(password: str, cost: int = 5) -> str:
    """A bcrypt hash, of the lowest useful cost: the registry verifies it for every request."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


class RegistryProcess:
    """A registry that runs until stop(); start_registry() makes one.

    Attributes: `url` (no trailing slash), `port`, `data` (root directory of the storage), `config` (path of
    config.yml), `htpasswd` (path; the file exists only with `auth`), `log` (path), `binary` (path),
    `major` ("2" or "3").
    """

    def __init__(self, directory: Path, binary: str, settings: dict[str, Any]) -> None:
        self.binary = binary
        self.major = _major_version(binary)
        self.data = directory / "data"
        self.config = directory / "config.yml"
        self.htpasswd = directory / "auth" / "htpasswd"
        self.log = directory / "registry.log"
        self.data.mkdir()
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def scheme(self) -> str:
        return "https" if "tls" in self._settings["http"] else "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it on its port, or the first time on a free one, and wait until it answers."""
        for _attempt in range(5):
            port = self.port or free_port()
            self._settings["http"]["addr"] = f"127.0.0.1:{port}"
            self.config.write_text(yaml.safe_dump(self._settings), encoding="utf-8")
            if self._launch(port):
                self.port = port
                return
        raise AssertionError(f"registry: its port was always taken by another process\n{self.log_tail()}")

    def stop(self) -> None:
        """Stop it; nothing happens when it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def restart(self, config_overrides: Mapping[str, Any] | None = None) -> None:
        """Stop and start it on the same port and data; `config_overrides` change its configuration."""
        self.stop()
        _merge(self._settings, config_overrides or {})
        self.start()

    def garbage_collect(self, *flags: str) -> subprocess.CompletedProcess[str]:
        """Run the registry's own garbage collection on this storage and return its output and exit code."""
        return subprocess.run(
            [self.binary, "garbage-collect", *flags, str(self.config)],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    def write_users(self, users: Mapping[str, str]) -> None:
        """Write the htpasswd file: user names to plain passwords."""
        self.htpasswd.parent.mkdir(exist_ok=True)
        lines = (f"{name}:{hash_password(password)}\n" for name, password in users.items())
        self.htpasswd.write_text("".join(lines), encoding="utf-8")

    def log_tail(self, lines: int = 25) -> str:
        """The end of its log, for the report of a failed test."""
        if not self.log.exists():
            return "(no log)"
        log = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        # What succeeded is in the access log too, on a shorter line.
        return "\n".join([line for line in log if 'msg="response completed"' not in line][-lines:])

    def _launch(self, port: int) -> bool:
        """Start the process; False when another process took the port meanwhile."""
        with self.log.open("ab") as log:
            begin = log.tell()
            self._process = subprocess.Popen(
                [self.binary, "serve", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(),
            )
        try:
            listening = self._wait_until_it_listens(begin)
            if listening:
                self._wait_until_it_answers(port)
        except BaseException:
            self.stop()
            raise
        return listening

    def _wait_until_it_listens(self, begin: int) -> bool:
        # Its log, not the port, tells whether it is this process that listens there.
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            with self.log.open("rb") as log:
                log.seek(begin)
                text = log.read()
            if b"listening on " in text:
                return True
            if self._process is None or self._process.poll() is not None:
                if b"address already in use" in text:
                    self._process = None
                    return False
                raise AssertionError(f"registry: it ended while starting\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"registry: it does not listen after {START_TIMEOUT} s\n{self.log_tail()}"
                )
            time.sleep(0.01)

    def _wait_until_it_answers(self, port: int) -> None:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        address = f"{self.scheme}://127.0.0.1:{port}/v2/"
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                urllib.request.urlopen(address, timeout=START_TIMEOUT, context=context).close()
                return
            except urllib.error.HTTPError:  # 401, or whatever a test configured: it answers
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise AssertionError(f"registry: no answer ({error})\n{self.log_tail()}") from error
            time.sleep(0.01)


def start_registry(
    tmp_path: Path,
    *,
    binary: str | None = None,
    auth: Mapping[str, str] | None = None,
    delete: bool = True,
    readonly: bool = False,
    config_overrides: Mapping[str, Any] | None = None,
) -> RegistryProcess:
    """Start a registry in the empty directory `tmp_path` and wait until it answers.

    `binary` defaults to registry 2.8. `auth` maps user names to plain passwords; None lets everybody in.
    `config_overrides` is merged into config.yml; None as a value removes a key. The caller stops it.
    """
    settings: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "info"},
        "storage": {
            "filesystem": {"rootdirectory": str(tmp_path / "data")},
            "delete": {"enabled": delete},
            "cache": {"blobdescriptor": "inmemory"},
            "maintenance": {"uploadpurging": {"enabled": False}, "readonly": {"enabled": readonly}},
        },
        "http": {"secret": "a stable secret, as in production"},
    }
    registry = RegistryProcess(tmp_path, binary or find_registry2(), settings)
    if auth is not None:
        registry.write_users(auth)
        settings["auth"] = {"htpasswd": {"realm": "dockyard test", "path": str(registry.htpasswd)}}
    _merge(settings, config_overrides or {})
    registry.start()
    return registry


def _merge(settings: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    for key, value in overrides.items():
        if value is None:
            settings.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(settings.get(key), dict):
            _merge(settings[key], value)
        else:
            settings[key] = dict(value) if isinstance(value, Mapping) else value


def environment() -> dict[str, str]:
    # REGISTRY_* of the developer's shell would change the configuration.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
    return {**kept, "OTEL_TRACES_EXPORTER": "none"}


#: Ports that this process gave out last: who got one may not listen on it yet.
_given: deque[int] = deque(maxlen=200)


def free_port() -> int:
    """One that nobody listens on, and that neither this process nor another worker of the same run was given."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    for port in random.sample(PORTS[worker::workers], 100):
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.append(port)
            return port
    raise AssertionError("registry: no free port on 127.0.0.1")


def _major_version(binary: str) -> str:
    output = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    if "distribution/distribution/v3" in output:
        return "3"
    version = re.search(r"\bv?(\d+)\.\d+", output)
    if not version:
        raise AssertionError(f"{binary} --version: no version in {output!r}")
    return version.group(1)
