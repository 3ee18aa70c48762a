# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is Traefik's own: certificates that it must not take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.proxied import NAME, ProxiedSite, fresh_behind
from tests.support.tls import make_certificates
from tests.support.traefik import needs_traefik

pytestmark = needs_traefik


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ProxiedSite]:
    with fresh_behind("traefik", tmp_path) as site:
        yield site


def test_a_certificate_that_does_not_fit_is_never_used(site: ProxiedSite, tmp_path: Path) -> None:
    site.play().ok()
    before = site.served()
    (tmp_path / "tls").mkdir()
    other = make_certificates(tmp_path / "tls", NAME)
    certificate, key = (site.root / "certs" / "server" / f"server.{kind}" for kind in ("crt", "key"))
    certificate.write_bytes(other.certificate.read_bytes())
    refused = site.docker("exec", f"{site.project}-proxy-1", "/bin/sh", "/proxy/reload")
    assert refused.returncode != 0
    assert "private key does not match public key" in refused.stderr
    assert site.served() == before
    # The proxy looks by itself, and takes the pair once it is one.
    key.write_bytes(other.key.read_bytes())
    deadline = time.monotonic() + 60
    while site.served() == before:
        assert time.monotonic() < deadline
        time.sleep(1)
