# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An ACME authority on this machine: Let's Encrypt's own test server, and a DNS server that it asks."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.support.proxied import ProxiedSite
from tests.support.registry import free_port
from tests.support.tls import make_certificates


def bridge_address() -> str:
    """This machine's, as containers see it. An engine that has just made its bridge does not tell."""
    shown = subprocess.run(
        ["ip", "-json", "-4", "address", "show", "docker0"], capture_output=True, text=True, check=True
    ).stdout
    address: str = json.loads(shown)[0]["addr_info"][0]["local"]
    return address


class Pebble:
    """Issues for whatever name leads to 127.0.0.1, which each does unless `leads_elsewhere` was told of it.

    `lifetime` is that of its certificates, in seconds.
    """

    def __init__(self, folder: Path, site: ProxiedSite, *, lifetime: int) -> None:
        folder.mkdir()
        gateway = bridge_address()
        files = make_certificates(folder, gateway, "localhost")
        port, management, self._names, dns = (free_port() for _ in range(4))
        self.directory = f"https://{gateway}:{port}/dir"
        settings = {
            "listenAddress": f"{gateway}:{port}",
            "managementListenAddress": f"127.0.0.1:{management}",
            "certificate": str(files.certificate),
            "privateKey": str(files.key),
            "httpPort": site.http_port,
            "tlsPort": site.port,
            "certificateValidityPeriod": lifetime,
        }
        (folder / "pebble.json").write_text(json.dumps({"pebble": settings}), encoding="utf-8")
        quiet = {"PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_AUTHZREUSE": "0"}
        self._log = (folder / "log").open("wb")
        self._dns = self._start(
            *("pebble-challtestsrv", "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""),
            *("-dns01", f"127.0.0.1:{dns}", "-management", f"127.0.0.1:{self._names}"),
        )
        self._pebble = self._start(
            *("pebble", "-config", str(folder / "pebble.json"), "-dnsserver", f"127.0.0.1:{dns}"), **quiet
        )
        #: The authority of its own server, and the one that it issues by.
        self.trusted = folder / "bundle.crt"
        wait = ("--retry", "20", "--retry-connrefused", "--retry-delay", "1")
        issues = subprocess.run(
            ["curl", "-sS", "--cacert", str(files.ca), *wait, f"https://localhost:{management}/roots/0"],
            capture_output=True,
            check=True,
        ).stdout
        self.trusted.write_bytes(files.ca.read_bytes() + issues)

    def leads_elsewhere(self, name: str) -> None:
        """From now on, the name is that of another host, where nothing answers."""
        self._tell("add-a", {"host": f"{name}.", "addresses": ["127.0.0.2"]})

    def leads_here(self, name: str) -> None:
        """As it was before."""
        self._tell("clear-a", {"host": f"{name}."})

    def _tell(self, command: str, what: dict[str, Any]) -> None:
        url = f"http://127.0.0.1:{self._names}/{command}"
        subprocess.run(["curl", "-fsS", "-d", json.dumps(what), url], capture_output=True, check=True)

    def stop(self) -> None:
        """It is down, and does not come back. May be called again."""
        for process in (self._pebble, self._dns):
            process.terminate()
            process.wait()
        self._log.close()

    def _start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=self._log, stderr=subprocess.STDOUT
        )
