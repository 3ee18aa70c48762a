# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""users.yml has run: carol and dave came, bob left. The registry was not restarted for it."""

from __future__ import annotations

from testinfra.host import Host

from tests.support.hosts import DeployedRegistry, Engine


def test_container_was_not_restarted(host: Host, registry: DeployedRegistry) -> None:
    assert (
        registry.container()["State"]["StartedAt"] == host.file("/root/started-before").content_string.strip()
    )


def test_new_user_with_a_given_password_is_in(registry: DeployedRegistry) -> None:
    assert registry.status("carol", "a password for carol") == 200


def test_new_user_with_a_generated_password_is_in(host: Host, registry: DeployedRegistry) -> None:
    password = host.file("/root/dave.password").content_string.strip()
    assert len(password) >= 22  # 128 random bits
    assert registry.status("dave", password) == 200


def test_password_that_was_shown_is_kept_nowhere(host: Host) -> None:
    assert not host.file("/opt/registry/secrets/users/dave.password").exists
    assert not host.file("/opt/registry/secrets/users/carol.password").exists


def test_removed_user_is_out(open_registry: DeployedRegistry) -> None:
    assert open_registry.status("bob", "leaves soon") == 401


def test_the_others_stay_in(
    registry: DeployedRegistry, generated: str, open_registry: DeployedRegistry, given: tuple[str, str]
) -> None:
    assert registry.status(generated, registry.generated_password(generated)) == 200
    assert open_registry.status(*given) == 200


def test_new_user_pushes(engine: Engine, registry: DeployedRegistry) -> None:
    name = f"{registry.address}/carol/app:1"
    assert engine.login(registry.address, "carol", "a password for carol")
    image = engine.make_image(name)
    engine.push(name)
    assert engine.pull(name) == image
