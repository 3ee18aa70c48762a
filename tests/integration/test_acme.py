# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates from an ACME authority: they come, are renewed while pulls go on, and a failure keeps the old one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.load import load_on
from tests.support.pebble import Pebble
from tests.support.processes import wait_for
from tests.support.proxied import NAME, ProxiedSite, fresh_behind
from tests.support.traefik import PROXY_PARAMS

#: Seconds. With the variables below, Caddy renews when a third of it is left, Traefik when it is less than 20 minutes,
#: nginx's helper always.
LIFETIME = {"nginx": 86400, "caddy": 60, "traefik": 600}
#: Extra variables: these go over what the role itself sets.
QUICKLY: dict[str, Any] = {
    "__registry_acme_seconds": 10,
    "__registry_acme_retry_seconds": 5,
    "__registry_caddy_renew_interval": "2s",
    # It looks each minute.
    "__registry_traefik_certificate_hours": 1,
}
PATIENTLY = {"seconds": 150, "pause": 0.5}
WARNING = "WARNING: the certificate could not be renewed"


@pytest.fixture(params=PROXY_PARAMS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProxiedSite]:
    with fresh_behind(request.param, tmp_path) as site:
        yield site


@pytest.fixture
def pebble(site: ProxiedSite, tmp_path: Path) -> Iterator[Pebble]:
    """An authority that is there before the site."""
    pebble = Pebble(tmp_path / "pebble", site, lifetime=LIFETIME[site.proxy])
    site.ca = pebble.trusted
    site.variables |= {
        "registry_tls": "acme",
        "registry_acme_directory": pebble.directory,
        "registry_acme_ca_file": str(pebble.trusted),
        "registry_acme_email": "ops@example.org",
        # Each look renews.
        "registry_tls_days": 5000,
        "registry_tls_renew_days": 4000,
    }
    yield pebble
    pebble.stop()


def report(site: ProxiedSite) -> str:
    """What the documentation tells people to read."""
    if site.proxy == "traefik":
        lines = site.docker("logs", f"{site.project}-proxy-1").stdout.splitlines()
        return "\n".join(line for line in lines if '"providerName":"acme' in line)
    name = {"nginx": "status.json", "caddy": "tls.log"}[site.proxy]
    return (site.root / "acme" / name).read_text(encoding="utf-8")


def failures(site: ProxiedSite) -> int:
    """How many failed attempts the report speaks of, or whether the last one failed."""
    return report(site).count('"ok": false' if site.proxy == "nginx" else '"level":"error"')


def holds_a_key(path: Path) -> bool:
    return b"PRIVATE KEY" in path.read_bytes() or path.name == "traefik.json"


def test_renewal_with_and_without_an_authority(site: ProxiedSite, pebble: Pebble) -> None:
    site.play(**QUICKLY).ok()
    first, started = site.served(), site.service("proxy")["State"]["StartedAt"]
    load = load_on(site, pushers=2, pullers=2, pause=0.2)
    with load:
        wait_for("the certificate was renewed", lambda: site.served() != first, **PATIENTLY)
        pebble.leads_elsewhere(NAME)
        wait_for("the report told of the wrong name", lambda: failures(site) > 0, **PATIENTLY)
    assert "127.0.0.2" in report(site)
    kept = site.served()
    pebble.stop()
    wait_for(
        "the report told of the authority that is down",
        lambda: "connection refused" in report(site),
        **PATIENTLY,
    )
    print(load.summary())
    assert load.failed_pulls == []
    assert load.failed_pushes == []
    assert load.pulls > 10
    assert load.verify() > 1
    assert site.served() == kept
    assert site.service("proxy")["State"]["StartedAt"] == started, "it was never restarted"
    again = site.play(**QUICKLY)
    assert WARNING in again.output


def test_a_name_that_leads_elsewhere(site: ProxiedSite, pebble: Pebble) -> None:
    pebble.leads_elsewhere(NAME)
    run = site.play(**QUICKLY).failed()
    assert f"get a certificate for {NAME} from {pebble.directory}" in run.message
    assert "127.0.0.2" in run.message
    assert "The name must lead to this host" in run.message
    # As the message has it. nginx's helper needs no restart, but the run does not wait for its next attempt either.
    pebble.leads_here(NAME)
    site.docker("restart", f"{site.project}-{'acme' if site.proxy == 'nginx' else 'proxy'}-1")
    site.play(**QUICKLY).ok()
    assert site.served()
    secrets = [path for path in (site.root / "acme").rglob("*") if path.is_file() and holds_a_key(path)]
    assert secrets
    assert [path for path in secrets if path.stat().st_mode & 0o077] == []
    if site.proxy == "caddy":
        return  # its certificate ends before the next run does
    pebble.stop()
    if site.proxy == "nginx":
        # Its helper may have been given another one meanwhile, and nginx looks for that once in a while.
        wait_for("nothing is given any more", lambda: failures(site) > 0, **PATIENTLY)
        site.docker("exec", f"{site.project}-proxy-1", "/bin/sh", "/proxy/reload")
    issued = site.served()
    assert site.play(**QUICKLY).ok().changed == []
    assert site.served() == issued
