# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bare machine, as a container that may run an engine (images: tests/hosts/build-host-images)."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
import tarfile
import time
import uuid
from pathlib import Path
from types import TracebackType

import testinfra
import yaml

_CHECKOUT = Path(__file__).parents[2]
_BOOT_TIMEOUT = 60.0
# How this machine reaches its package index; what only holds here (folders, constraints) stays here.
_PIP_SETTINGS = (
    "cert",
    "default-timeout",
    "extra-index-url",
    "index-url",
    "proxy",
    "timeout",
    "trusted-host",
)
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


class Machine:
    """Runs as long as the `with` block, with a copy of the checkout in the folder `home`.

    Without `systemd` nothing on it starts services. A `user` may use sudo without a password; default: root.
    """

    def __init__(self, suite: str, *, systemd: bool, home: str, user: str = "root") -> None:
        self.name = f"dockyard-bare-{suite}-{uuid.uuid4().hex[:8]}"
        self.home = home
        #: testinfra's view of it, as root.
        self.host = testinfra.get_host(f"docker://{self.name}")
        self._suite = suite
        self._systemd = systemd
        self._user = user
        self._environment = _package_index_environment()

    def __enter__(self) -> Machine:
        options = _host_options()
        certificates = self._environment.get("PIP_CERT")
        if certificates:
            # Not where it is here: a package that the machine installs writes there.
            self._environment["PIP_CERT"] = "/mnt/certificates.crt"
            options.append(f"--volume={certificates}:/mnt/certificates.crt:ro")
        init = [] if self._systemd else ["sleep", "infinity"]
        _docker("run", "--detach", f"--name={self.name}", *options, f"dockyard-host:{self._suite}", *init)
        try:
            if self._systemd:
                self._wait_for_systemd()
            if self._user != "root":
                self._add_user()
            self._copy_checkout()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def run(self, command: str) -> str:
        """Run a command in the checkout and return its output, standard error included; it must succeed."""
        done = subprocess.run(
            [
                *("docker", "exec", f"--user={self._user}", f"--workdir={self.home}"),
                *(f"--env={name}" for name in self._environment),
                *(self.name, "/bin/sh", "-c", command),
            ],
            env={**os.environ, **self._environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: ended with {done.returncode}\n{done.stdout}"
        return done.stdout

    def _remove(self) -> None:
        _docker("rm", "--force", "--volumes", self.name)

    def _wait_for_systemd(self) -> None:
        deadline = time.monotonic() + _BOOT_TIMEOUT
        # "degraded" is fine: a container cannot load kernel modules.
        while self.host.run("systemctl is-system-running").stdout.strip() not in ("running", "degraded"):
            assert time.monotonic() < deadline, f"{self.name}: systemd is not up after {_BOOT_TIMEOUT:.0f} s"
            time.sleep(0.2)

    def _add_user(self) -> None:
        self.host.check_output("useradd --create-home --shell /bin/bash %s", self._user)
        self.host.check_output("echo %s >/etc/sudoers.d/tests", f"{self._user} ALL=(ALL) NOPASSWD: ALL")

    def _copy_checkout(self) -> None:
        """What git tracks or would track, without its history."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path in _checkout_files():
                tar.add(_CHECKOUT / path, arcname=path, recursive=False)
        into = ["exec", "--interactive", f"--user={self._user}", self.name]
        _docker(*into, "mkdir", "--parents", self.home)
        unpack = ["tar", "--extract", "--no-same-owner", f"--directory={self.home}"]
        _docker(*into, *unpack, stdin=archive.getvalue())


def _checkout_files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=_CHECKOUT,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout.decode()
    return sorted({path for path in listed.split("\0") if path and os.path.lexists(_CHECKOUT / path)})


def _package_index_environment() -> dict[str, str]:
    """Environment variables by which a machine reaches the package index that this one uses."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    environment = {name: os.environ[name] for name in _PROXY_VARIABLES if name in os.environ}
    for line in listed.splitlines():
        scope, _, setting = line.partition("=")
        name = scope.rpartition(".")[2]
        value = " ".join(word for word in shlex.split(setting)[0].split() if not word.startswith("file:"))
        if name in _PIP_SETTINGS and value:
            environment[f"PIP_{name.upper().replace('-', '_')}"] = value
    return environment


def _host_options() -> list[str]:
    """The options of `docker run` for a machine, from where molecule has them as well."""
    settings = yaml.safe_load((_CHECKOUT / ".config/molecule/config.yml").read_text(encoding="utf-8"))
    platform = settings["platforms"][0]
    options = [f"--cgroupns={platform['cgroupns_mode']}", f"--stop-signal={platform['stop_signal']}"]
    options += [f"--cap-add={name}" for name in platform["capabilities"]]
    options += [f"--security-opt={option}" for option in platform["security_opts"]]
    options += [f"--tmpfs={mount}" for mount in platform["tmpfs"]]
    options += [f"--volume={volume}" for volume in platform["volumes"]]
    return options


def _docker(*arguments: str, stdin: bytes | None = None) -> None:
    done = subprocess.run(["docker", *arguments], input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, f"docker {arguments[0]}: {done.stderr.decode()}"
