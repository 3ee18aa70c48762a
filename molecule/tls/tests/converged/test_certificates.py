# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose certificates the proxies show."""

from __future__ import annotations

import json

from testinfra.host import Host

from tests.support.hosts import TlsRegistry

_ISSUER = """
import socket, ssl, sys
name = sys.argv[1]
trust = ssl.create_default_context(cafile=f"/etc/docker/certs.d/{name}/ca.crt")
with trust.wrap_socket(socket.create_connection((name, 443), 10), server_hostname=name) as connection:
    print(dict(pair[0] for pair in connection.getpeercert()["issuer"])["commonName"])
"""


def _issuer(client: Host, registry: TlsRegistry) -> str:
    return client.check_output("python3 -c %s %s", _ISSUER, registry.name)


def test_issuer(host: Host, peer: TlsRegistry) -> None:
    expected = {"bookworm.registry.test": "Pebble ", "trixie.registry.test": "registry trixie.registry.test"}
    assert _issuer(host, peer).startswith(expected[peer.name])


def test_acme_says_that_it_went_well(host: Host, own: TlsRegistry) -> None:
    status = host.file("/opt/registry/acme/status.json")
    assert status.exists == (own.name == "bookworm.registry.test")
    if status.exists:
        assert json.loads(status.content_string)["ok"] is True


def test_other_accounts_of_the_host_read_the_authority_and_no_more(host: Host, own: TlsRegistry) -> None:
    """Folders that they may not enter make it fail, and say so."""
    found = host.run("runuser -u nobody -- find /opt/registry -type f -readable").stdout.splitlines()
    assert found == (["/opt/registry/certs/ca.crt"] if own.name == "trixie.registry.test" else [])
