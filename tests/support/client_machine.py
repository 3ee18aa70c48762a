# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine that pulls and pushes, as a container with the tools of Debian 12, and registries on it to talk to.

It is made from the image of tests/hosts/build-host-images. The registries are the real program, reached by name
over the machine's own address: to loopback, Docker speaks without looking at certificates.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from tests.support.registry import find_registry2, hash_password
from tests.support.site import CHECKOUT, TIMEOUT, Run, playbook_environment
from tests.support.tls import make_certificates

IMAGE = "dockyard-clients:bookworm"
NAME = "registry.test"
#: With TLS and users.
SECURE = f"{NAME}:5443"
#: Plain HTTP, open to all.
PLAIN = f"{NAME}:5080"
WAIT_SECONDS = 60.0

_DOCKERFILE = """
FROM dockyard-host:bookworm
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    docker.io iptables podman skopeo buildah containerd runc ca-certificates uidmap
"""
_OPTIONS = (
    *("--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN", "--cap-add=SYS_PTRACE", "--cgroupns=host"),
    *("--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"),
    *("--tmpfs=/run", "--tmpfs=/tmp:exec", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw"),
    *("--volume=/var/lib/docker", "--volume=/var/lib/containerd", "--volume=/var/lib/containers"),
)


class ClientMachine:
    """Lives as long as the `with` block; `directory` is a folder of ours. `ca` is the authority's certificate."""

    def __init__(self, directory: Path, users: dict[str, str]) -> None:
        self.name = f"dockyard-client-{uuid.uuid4().hex[:8]}"
        self.directory = directory
        self.ca = make_certificates(directory, NAME).ca
        self._users = users

    def __enter__(self) -> ClientMachine:
        _docker("network", "create", self.name)
        try:
            _docker("build", "--quiet", f"--network={self.name}", f"--tag={IMAGE}", "-", stdin=_DOCKERFILE)
            network = f"--network={self.name}"
            _docker("run", "--detach", f"--name={self.name}", network, *_OPTIONS, IMAGE, "sleep", "infinity")
            self.run(f'echo "$(hostname -i) {NAME}" >>/etc/hosts; useradd --create-home alice')
            self._start_registries()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def run(self, command: str, *, fails: bool = False, user: str = "root") -> str:
        """Run a shell command on the machine and return all its output; it must succeed, or fail where it `fails`."""
        done = self._exec(command, user)
        assert (done.returncode != 0) is fails, f"{command}: ended with {done.returncode}\n{done.stdout}"
        return done.stdout

    def write(self, path: str, text: str) -> None:
        command = ("exec", "--interactive", self.name, "sh", "-c", f"mkdir -p $(dirname {path}); cat >{path}")
        _docker(*command, stdin=text)

    def copy(self, source: Path, path: str) -> None:
        """A file of this machine."""
        _docker("cp", str(source), f"{self.name}:{path}")

    def read(self, path: str) -> str:
        return self.run(f"cat {path}")

    def files(self, *folders: str) -> set[str]:
        """The files below these folders, and what they are: mode, owner and checksum."""
        listing = self.run(
            f"find {' '.join(folders)} -type f -exec stat --format '%n %a %U' {{}} + 2>/dev/null | sort;"
            f"find {' '.join(folders)} -type f -exec sha256sum {{}} + 2>/dev/null | sort; true"
        )
        return set(listing.splitlines())

    def start_docker(self) -> None:
        """Start the engine with the configuration that there is."""
        self._background("dockerd", "/var/log/dockerd.log")
        self._wait("docker info")

    def start_containerd(self) -> None:
        """Start a containerd of its own beside that of the engine."""
        self._background(
            "containerd --address /run/own.sock --root /var/lib/containerd/own --state /run/own", "/dev/null"
        )
        self._wait("ctr --address /run/own.sock version")

    def start_buildkit(self) -> None:
        """Start buildkitd, anew where it runs, with the configuration that there is."""
        self.run("pkill -x buildkitd && while pgrep -x buildkitd; do sleep 0.2; done; true")
        socket = "unix:///run/buildkit.sock"
        self._background(
            f"buildkitd --addr {socket} --oci-worker-snapshotter native", "/var/log/buildkitd.log"
        )
        self._wait(f"buildctl --addr {socket} debug workers")

    def play(self, *options: str, registry: dict[str, Any] | None = None, **variables: Any) -> Run:
        """Run clients.yml on this machine. `registry` are the variables of a host with a registry; default: none."""
        inventory = self.directory / "inventory.yml"
        host = {
            "ansible_connection": "community.docker.docker",
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        groups = {"clients": {"hosts": {self.name: host}}}
        if registry is not None:
            local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
            groups["registry"] = {"hosts": {"registry-host": {**local, **registry}}}
        inventory.write_text(json.dumps(groups))
        file = self.directory / "variables.json"
        file.write_text(json.dumps(variables))
        process = subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                *("-i", str(inventory), "playbooks/clients.yml", "-e", f"@{file}", *options),
            ],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            env=playbook_environment(),
        )
        return Run(process)

    def _start_registries(self) -> None:
        self.copy(Path(find_registry2()), "/usr/local/bin/registry")
        for file in ("server.crt", "server.key"):
            self.copy(self.directory / file, f"/srv/{file}")
        self.write(
            "/srv/htpasswd", "".join(f"{name}:{hash_password(word)}\n" for name, word in self._users.items())
        )
        secure = {"tls": {"certificate": "/srv/server.crt", "key": "/srv/server.key"}}
        users = {"auth": {"htpasswd": {"realm": "test", "path": "/srv/htpasswd"}}}
        for address, http, auth in ((SECURE, secure, users), (PLAIN, {}, {})):
            port = address.rpartition(":")[2]
            config = {
                "version": 0.1,
                "storage": {"filesystem": {"rootdirectory": f"/srv/data-{port}"}},
                "http": {"addr": f":{port}", "secret": "a stable secret", **http},
                **auth,
            }
            self.write(f"/srv/{port}.yml", yaml.safe_dump(config))
            self._background(f"registry serve /srv/{port}.yml", f"/srv/{port}.log")
        for address in (SECURE, PLAIN):
            host, port = address.split(":")
            self._wait(f"bash -c '</dev/tcp/{host}/{port}'")

    def _background(self, command: str, log: str) -> None:
        _docker("exec", "--detach", self.name, "sh", "-c", f"exec {command} >{log} 2>&1")

    def _wait(self, command: str) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while (done := self._exec(command)).returncode != 0:
            assert time.monotonic() < deadline, f"{command}: fails for {WAIT_SECONDS:.0f} s\n{done.stdout}"
            time.sleep(0.2)

    def _exec(self, command: str, user: str = "root") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", "exec", f"--user={user}", self.name, "sh", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )

    def _remove(self) -> None:
        for command in (("rm", "--force", "--volumes"), ("network", "rm")):
            subprocess.run(["docker", *command, self.name], capture_output=True, check=False)


def _docker(*arguments: str, stdin: str = "") -> None:
    done = subprocess.run(["docker", *arguments], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {arguments[0]}: {done.stderr}"
