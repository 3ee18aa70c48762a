# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""clients.yml has set up trust and login: people push and pull by name, over TLS, and do nothing else for it."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from tests.support.hosts import Engine, TlsRegistry


@pytest.fixture
def looker(host: Host, peer: TlsRegistry) -> str:
    """A `docker` command of somebody who may only pull, and only from team/."""
    command = "docker --config /root/looker"
    host.check_output(
        "printf %%s %s | " + command + " login --username looker --password-stdin %s",
        "only looks at things",
        peer.name,
    )
    return command


def test_docker_pushes_and_pulls(engine: Engine, peer: TlsRegistry) -> None:
    name = f"{peer.name}/team/app:1"
    image = engine.make_image(name)
    engine.push(name)
    assert engine.pull(name) == image


def test_skopeo_copies_there_and_back(host: Host, engine: Engine, peer: TlsRegistry) -> None:
    name = f"{peer.name}/team/copied"
    engine.make_image(f"{name}:1")
    engine.push(f"{name}:1")
    host.check_output("skopeo copy docker://%s dir:/var/tmp/copied", f"{name}:1")
    host.check_output("skopeo copy dir:/var/tmp/copied docker://%s", f"{name}:2")
    first, second = (
        host.check_output("skopeo inspect --format '{{ .Digest }}' docker://%s", f"{name}:{tag}")
        for tag in (1, 2)
    )
    assert first == second


def test_who_may_only_pull_does_not_push(host: Host, engine: Engine, peer: TlsRegistry, looker: str) -> None:
    name = f"{peer.name}/team/looked-at:1"
    engine.make_image(name)
    refused = host.run(looker + " push %s", name)
    assert refused.failed
    assert "denied" in refused.stderr + refused.stdout
    engine.push(name)
    host.check_output(looker + " pull %s", name)


def test_who_may_pull_from_some_repositories_does_not_from_others(
    host: Host, engine: Engine, peer: TlsRegistry, looker: str
) -> None:
    name = f"{peer.name}/secret/app:1"
    engine.make_image(name)
    engine.push(name)
    refused = host.run(looker + " pull %s", name)
    assert refused.failed
    assert "denied" in refused.stderr + refused.stdout


def test_trust_is_for_this_registry_only(host: Host, peer: TlsRegistry) -> None:
    assert peer.status(host) == 401
    assert peer.status(host, trusted=False) == 0


def test_login_is_for_root_only(host: Host) -> None:
    for path in ("/root/.docker/config.json", "/root/.config/containers/auth.json"):
        file = host.file(path)
        assert (file.user, oct(file.mode)) == ("root", "0o600")
        assert not file.contains("correct horse")
