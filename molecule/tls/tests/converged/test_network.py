# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What listens where, by the table in docs/tls.md."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from tests.support.hosts import TlsRegistry

_CONNECT = """
import socket, sys
for port in map(int, sys.argv[2:]):
    with socket.socket() as client:
        client.settimeout(5)
        if not client.connect_ex((sys.argv[1], port)):
            print(port)
"""


def test_nothing_but_the_proxy_listens_beyond_loopback(host: Host, own: TlsRegistry) -> None:
    lines = [
        line
        for line in host.check_output("ss --no-header --listening --tcp --numeric --processes").splitlines()
        # The authority of this scenario is not part of the registry.
        if '"pebble"' not in line
    ]
    addresses = {line.split()[3] for line in lines}
    beyond = {address for address in addresses if not address.startswith(("127.", "[::1]"))}
    assert beyond == {f"{own.address()}:443", f"{own.address()}:80"}


def test_host_itself_reaches_nothing_else_in_the_stack(host: Host) -> None:
    inside = host.check_output(
        "docker inspect --format %s registry-network-1",
        "{{ range .NetworkSettings.Networks }}{{ .IPAddress }}{{ end }}",
    )
    # Proxy; registry, reader, gate, the proxy's switch, Caddy's API, debug servers of registries.
    ports = [8443, 8080, 5000, 5001, 5002, 8081, 2019, 5003, 6060]
    reached = host.check_output("python3 -c %s %s " + " ".join(map(str, ports)), _CONNECT, inside).split()
    assert reached == ["8443", "8080"]


@pytest.mark.parametrize(
    "path", ["/metrics", "/debug/vars", "/debug/health", "/debug/pprof/", "/", "/switch", "/auth"]
)
def test_proxy_hands_out_nothing_but_the_api(host: Host, peer: TlsRegistry, path: str) -> None:
    assert peer.status(host, path, "alice", "correct horse battery staple") == 404


def test_plain_http_is_redirected(host: Host, peer: TlsRegistry) -> None:
    assert peer.status(host, scheme="http") == 308
    assert peer.status(host, "/metrics", scheme="http") == 308


def test_it_says_that_it_is_well(host: Host, peer: TlsRegistry) -> None:
    assert peer.status(host, "/healthz") == 200
