# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole machine under test, through testinfra: its registry, and its engine used as people use it.

Programs run on that machine. It needs Python and, once the collection has been there, an engine; no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from testinfra.host import Host

ROOT = "/opt/registry"
#: What Compose writes on the containers of the stack.
PROJECT = "com.docker.compose.project=registry"

_ASK = """
import base64, ssl, sys, urllib.error, urllib.request
url, credentials, authority = sys.argv[1:]
class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args): return None
trust = ssl.create_default_context(cafile=authority or None)
request = urllib.request.Request(url)
if credentials:
    request.add_header("Authorization", "Basic " + base64.b64encode(credentials.encode()).decode())
try:
    ask = urllib.request.build_opener(Stay, urllib.request.HTTPSHandler(context=trust))
    print(ask.open(request, timeout=10).status)
except urllib.error.HTTPError as error:
    print(error.code)
except OSError:
    print(0)
"""


def _status(host: Host, url: str, user: str, password: str, authority: str = "") -> int:
    """The HTTP status that this host gets, or 0 where nothing listens that it trusts."""
    credentials = f"{user}:{password}" if user else ""
    return int(host.check_output("python3 -c %s %s %s %s", _ASK, url, credentials, authority))


def _wait(happened: Callable[[], bool], otherwise: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"{otherwise} after {seconds:.0f} s"
        time.sleep(0.5)


class DeployedRegistry:
    """The registry that runs on a host. `address` is where it is reached: "IP:port"."""

    def __init__(self, host: Host, address: str) -> None:
        self.host = host
        self.address = address

    def container(self) -> dict[str, Any]:
        """What `docker inspect` says of its container; fails unless there is exactly one."""
        names = self.host.check_output("docker ps --all --quiet --filter label=%s", PROJECT).split()
        assert len(names) == 1, f"containers of the stack: {names}"
        inspected: dict[str, Any] = self.host.docker(names[0]).inspect()
        return inspected

    def status(self, user: str = "", password: str = "", *, seen_from: Host | None = None) -> int:
        """The HTTP status of the API's root for this user, or for nobody; 0 where nothing listens."""
        return _status(seen_from or self.host, f"http://{self.address}/v2/", user, password)

    def wait(self, seconds: float = 90) -> None:
        """Wait until it asks for a password, after something that ends the container for a while."""
        _wait(lambda: self.status() == 401, f"no answer from {self.address}", seconds)

    def generated_password(self, user: str) -> str:
        """The password that the collection made for a user, from where people are told to look."""
        return self.host.check_output("cat %s", f"{ROOT}/secrets/users/{user}.password")

    def image(self) -> str:
        """The ID of the image it runs."""
        return str(self.container()["Image"])


class TlsRegistry:
    """The registry behind a proxy that runs on a host, and is called by name."""

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.name = name

    def services(self) -> dict[str, str]:
        """The services that have a container, and its state."""
        lines = self.host.check_output(
            "docker ps --all --filter label=%s --format %s",
            PROJECT,
            '{{ .Label "com.docker.compose.service" }} {{ .State }}',
        ).splitlines()
        return dict(line.split() for line in lines)

    def address(self) -> str:
        """That of its host."""
        return self.host.check_output("hostname --ip-address").split()[0]

    def status(
        self,
        seen_from: Host,
        path: str = "/v2/",
        user: str = "",
        password: str = "",
        *,
        scheme: str = "https",
        trusted: bool = True,
    ) -> int:
        """The HTTP status that a client gets; 0 without an answer that it trusts."""
        authority = f"/etc/docker/certs.d/{self.name}/ca.crt" if trusted else ""
        return _status(seen_from, f"{scheme}://{self.name}{path}", user, password, authority)

    def wait(self, seen_from: Host, seconds: float = 90) -> None:
        """Wait until it asks for a password, after its host has been away."""
        _wait(lambda: self.status(seen_from) == 401, f"no answer from {self.name}", seconds)


class Engine:
    """The engine of a host, used as people use it: login, push, pull."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def login(self, address: str, user: str, password: str) -> bool:
        """Whether `docker login` accepts this password."""
        return bool(
            self.host.run(
                "printf %%s %s | docker login --username %s --password-stdin %s", password, user, address
            ).succeeded
        )

    def logout(self, address: str) -> None:
        self.host.check_output("docker logout %s", address)

    def make_image(self, name: str) -> str:
        """Make an image of content that no registry has seen; return its ID."""
        return self.host.check_output(
            "cd $(mktemp -d) && head -c 3000000 /dev/urandom >content && tar -c content | docker import - %s",
            name,
        )

    def push(self, name: str) -> None:
        self.host.check_output("docker push %s", name)

    def pull(self, name: str) -> str:
        """Pull it anew, its layers included where nothing else uses them; return the image's ID."""
        self.host.run("docker image rm --force %s", name)
        self.host.check_output("docker pull %s", name)
        return self.host.check_output("docker image inspect --format %s %s", "{{ .Id }}", name)
