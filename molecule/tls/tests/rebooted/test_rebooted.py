# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Garbage was collected; then both hosts went down and came up, with nobody there to start anything."""

from __future__ import annotations

from testinfra.host import Host

from tests.support.hosts import Engine, TlsRegistry


def test_every_service_is_back(host: Host, own: TlsRegistry, peer: TlsRegistry) -> None:
    assert host.file("/root/before-reboot").exists
    assert not host.file("/run/before-reboot").exists, "the host did not go down"
    peer.wait(host)
    services = own.services()
    expected = {"network", "registry", "gate", "proxy"} | (
        {"acme"} if own.name == "bookworm.registry.test" else set()
    )
    assert {name for name, state in services.items() if state == "running"} == expected


def test_images_are_pulled_and_pushed_again(host: Host, engine: Engine, peer: TlsRegistry) -> None:
    peer.wait(host)
    engine.pull(f"{peer.name}/team/app:1")
    name = f"{peer.name}/team/after-reboot:1"
    image = engine.make_image(name)
    engine.push(name)
    assert engine.pull(name) == image
