# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people come for: docker login, docker push, docker pull; from the same host and from another one."""

from __future__ import annotations

from testinfra.host import Host

from tests.support.hosts import DeployedRegistry, Engine


def test_credentials_decide(registry: DeployedRegistry, generated: str) -> None:
    assert registry.status() == 401
    assert registry.status(generated, "wrong") == 401
    assert registry.status(generated, registry.generated_password(generated)) == 200


def test_given_password_works(open_registry: DeployedRegistry, given: tuple[str, str]) -> None:
    assert open_registry.status(*given) == 200


def test_push_needs_a_login(engine: Engine, registry: DeployedRegistry) -> None:
    name = f"{registry.address}/nobody/app:1"
    engine.make_image(name)
    engine.logout(registry.address)
    refused = engine.host.run("docker push %s", name)
    assert refused.failed
    assert "no basic auth credentials" in refused.stderr + refused.stdout


def test_wrong_password_is_refused_at_login(
    engine: Engine, registry: DeployedRegistry, generated: str
) -> None:
    assert not engine.login(registry.address, generated, "wrong")


def test_push_and_pull_on_the_same_host(engine: Engine, registry: DeployedRegistry, generated: str) -> None:
    name = f"{registry.address}/team/app:1"
    assert engine.login(registry.address, generated, registry.generated_password(generated))
    image = engine.make_image(name)
    engine.push(name)
    assert engine.pull(name) == image


def test_push_here_and_run_on_the_other_host(
    bookworm: Host, trixie: Host, open_registry: DeployedRegistry, given: tuple[str, str]
) -> None:
    # A real image: the registry itself, which is another build there.
    name = f"{open_registry.address}/tools/registry:bookworm"
    image = open_registry.image()
    assert Engine(bookworm).login(open_registry.address, *given)
    bookworm.check_output("docker tag %s %s", image, name)
    Engine(bookworm).push(name)

    assert Engine(trixie).login(open_registry.address, *given)
    assert Engine(trixie).pull(name) == image
    assert "distribution" in trixie.check_output("docker run --rm --network none %s --version", name)


def test_push_from_the_other_host_and_pull_here(
    bookworm: Host, trixie: Host, open_registry: DeployedRegistry, given: tuple[str, str]
) -> None:
    name = f"{open_registry.address}/team/from-trixie:1"
    assert Engine(trixie).login(open_registry.address, *given)
    image = Engine(trixie).make_image(name)
    Engine(trixie).push(name)

    assert Engine(bookworm).login(open_registry.address, *given)
    assert Engine(bookworm).pull(name) == image
