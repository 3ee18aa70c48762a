# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry behind a proxy on this machine, with the clients that people use."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from ansible_collections.dockyard.registry.plugins.module_utils._switch import MAINTENANCE, Switch

from tests.support.registry import free_port
from tests.support.site import Site
from tests.support.traefik import traefik_image

#: The name that clients call; it leads nowhere, so they are told the address.
NAME = "registry.test"


class ProxiedSite(Site):
    """With TLS of an own authority, unless `variables` say otherwise.

    Docker takes it as localhost, which is what the machine itself can resolve; it then trusts any certificate. skopeo
    and curl do not.
    """

    def __init__(self, folder: Path, proxy: str) -> None:
        super().__init__(folder)
        self.proxy = proxy
        self.port = free_port()
        self.http_port = free_port()
        self.address = f"localhost:{self.port}"
        self.url = f"https://{NAME}:{self.port}"
        self.ca = self.root / "certs" / "ca.crt"
        self.variables |= {
            "registry_proxy": proxy,
            "registry_tls": "selfsigned",
            "registry_hostname": NAME,
            "registry_tls_names": ["localhost"],
            "registry_https_port": self.port,
            "registry_http_port": self.http_port,
            "registry_image_source": "packages",
        }
        if proxy == "traefik":
            # The others' images are built; this one is here already.
            image = traefik_image(folder)
            self.variables |= {"registry_image_source": "auto", "registry_proxy_image": image}

    def service(self, name: str) -> dict[str, Any]:
        """What the engine says of the container of one service."""
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", f"{self.project}-{name}-1").stdout)
        return found[0]

    def services(self) -> list[str]:
        """Services that have a container."""
        return sorted(
            self.docker(
                *("ps", "-a", "--filter", f"label=com.docker.compose.project={self.project}"),
                *("--format", '{{.Label "com.docker.compose.service"}}'),
            ).stdout.split()
        )

    def switch(self, mode: str) -> None:
        """As maintenance does before and after."""
        switch = Switch(self.root, drain=20)
        if mode == MAINTENANCE:
            assert switch.enter(), "requests were still under way"
        else:
            switch.leave()

    def curl(self, path: str, *options: str, user: str | None = "admin") -> subprocess.CompletedProcess[str]:
        """curl, which trusts the own authority and nothing else."""
        return subprocess.run(
            self._curl(path, *options, user=user), capture_output=True, text=True, check=False, timeout=300
        )

    def digest_of(self, path: str) -> str:
        """The digest of what curl gets, of any size."""
        with subprocess.Popen(
            self._curl(path, "--fail", "--max-time", "300"), stdout=subprocess.PIPE
        ) as curl:
            assert curl.stdout
            digest = hashlib.file_digest(curl.stdout, "sha256").hexdigest()
        assert curl.returncode == 0
        return f"sha256:{digest}"

    def _curl(self, path: str, *options: str, user: str | None = "admin") -> list[str]:
        login = ["--user", f"{user}:{self.password(user)}"] if user else []
        return [
            *("curl", "-sS", "--cacert", str(self.ca), "--resolve", f"{NAME}:{self.port}:127.0.0.1"),
            *login,
            *options,
            f"{self.url}{path}",
        ]

    def headers(
        self, path: str, *options: str, user: str | None = "admin"
    ) -> tuple[int, dict[str, list[str]]]:
        """Status and headers, with names in small letters, of what curl gets."""
        done = self.curl(path, "-D", "-", "-o", "/dev/null", *options, user=user)
        assert done.returncode == 0, done.stderr
        status, *lines = [line for line in done.stdout.splitlines() if line]
        found: dict[str, list[str]] = {}
        for line in lines:
            name, _colon, value = line.partition(":")
            found.setdefault(name.lower(), []).append(value.strip())
        return int(status.split()[1]), found

    def skopeo(
        self, *arguments: str, user: str = "admin", more: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """`skopeo copy SOURCE DESTINATION` or `inspect NAME`, with login and authority for what is here."""
        command, *names = arguments
        here = f"docker://{self.address}/"
        certificates = self.certificates()
        secret = f"{user}:{self.password(user)}"
        options = [f"--cert-dir={certificates}", f"--creds={secret}"]
        if command == "copy":
            sides = zip(("src", "dest"), names, strict=True)
            options = [
                option
                for side, name in sides
                if name.startswith(here)
                for option in (f"--{side}-cert-dir={certificates}", f"--{side}-creds={secret}")
            ]
        return subprocess.run(
            ["skopeo", command, *options, *more, *names],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def certificates(self) -> Path:
        """A folder with the authority's certificate alone, as skopeo and podman want it."""
        folder = self.root.parent / "client-certificates"
        folder.mkdir(exist_ok=True)
        (folder / "ca.crt").write_bytes(self.ca.read_bytes())
        return folder

    def served(self) -> str:
        """The fingerprint of the certificate that clients get; empty where there is none."""
        shown = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{self.port}", "-servername", NAME],
            input="",
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        return subprocess.run(
            ["openssl", "x509", "-noout", "-fingerprint", "-sha256"],
            input=shown,
            capture_output=True,
            text=True,
            check=False,
        ).stdout

    def log(self) -> list[dict[str, Any]]:
        """The proxy's access log: what each line says under the names of nginx."""
        lines = self.docker("logs", f"{self.project}-proxy-1")
        entries = []
        for line in (lines.stdout + lines.stderr).splitlines():
            entry = _read_line(line)
            if entry:
                entries.append(entry)
        return entries


class Podman:
    """podman with a storage of its own, for one registry. Call `remove` in the end."""

    def __init__(self, site: ProxiedSite) -> None:
        self._site = site
        # Not a test's folder: podman takes no path that is longer than 50 characters.
        self._folder = tempfile.TemporaryDirectory(prefix="podman-")

    def load(self, archive: Path) -> None:
        """Take the image of `docker save`."""
        done = self._run("load", "--quiet", "--input", str(archive))
        assert done.returncode == 0, done.stderr

    def push(self, image: str, target: str) -> subprocess.CompletedProcess[str]:
        login = f"--creds=admin:{self._site.password()}"
        certificates = f"--cert-dir={self._site.certificates()}"
        return self._run("push", login, certificates, image, f"docker://{target}")

    def remove(self) -> None:
        self._folder.cleanup()

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # Slower than overlay, and nothing is mounted.
        storage = [f"--root={self._folder.name}/root", f"--runroot={self._folder.name}/run"]
        return subprocess.run(
            ["podman", *storage, "--storage-driver=vfs", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


@contextmanager
def fresh_behind(proxy: str, folder: Path) -> Iterator[ProxiedSite]:
    """For fixtures: one that is not there yet, and is removed in the end."""
    site = ProxiedSite(folder, proxy)
    try:
        yield site
    finally:
        site.remove()


def deployed_behind(proxy: str, folder: Path, variables: dict[str, Any]) -> Iterator[ProxiedSite]:
    """For fixtures: one that runs, and is removed in the end."""
    with fresh_behind(proxy, folder) as site:
        site.variables |= variables
        site.play().ok()
        yield site


#: What curl ends with when a connection was given up before the server had looked at the request (HTTP/2: GOAWAY).
_GOAWAY = 16
# Each is a process of its own, and they shall not be all that the machine does.
_PULL_PAUSE_SECONDS = 0.05


class Puller:
    """Asks for something again and again while the `with` block runs; `failures` says what went wrong.

    A reloading nginx tells HTTP/2 connections that it had just accepted to come again (GOAWAY, with no request of
    theirs processed), and the request is then to be sent again on a new one, as RFC 9113 (6.8) has it; curl leaves
    that to its caller.
    """

    def __init__(self, site: ProxiedSite, path: str) -> None:
        self._site = site
        self._path = path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.count = 0
        self.failures: list[str] = []

    def __enter__(self) -> Puller:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_PULL_PAUSE_SECONDS):
            done = self._pull()
            if done.returncode == _GOAWAY:
                done = self._pull()
            self.count += 1
            if done.stdout != "200":
                self.failures.append(f"request {self.count}: {done.stdout} {done.stderr}")

    def _pull(self) -> subprocess.CompletedProcess[str]:
        return self._site.curl(self._path, "-o", "/dev/null", "-w", "%{http_code}")


def _read_line(line: str) -> dict[str, Any] | None:
    try:
        entry: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    if "request" in entry:  # Caddy
        request = entry["request"]
        return {
            "user": entry.get("user_id", ""),
            "method": request["method"],
            "path": request["uri"],
            "status": entry["status"],
            "sent": entry["size"],
            "seconds": entry["duration"],
        }
    if "RequestPath" in entry:  # Traefik
        return {
            "user": entry["ClientUsername"],
            "method": entry["RequestMethod"],
            "path": entry["RequestPath"],
            "status": entry["DownstreamStatus"],
            "sent": entry["DownstreamContentSize"],
            "seconds": entry["Duration"] / 1e9,
        }
    return entry if "path" in entry else None
