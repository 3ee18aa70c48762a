# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What modules that talk to a registry share: their options, and the client that these describe.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._client import RegistryClient

#: Part of an argument spec; documented by the fragment dockyard.registry.connection.
CONNECTION_OPTIONS: dict[str, dict[str, Any]] = {
    "url": {"type": "str", "required": True},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "connect_to": {"type": "str"},
    "ca_file": {"type": "path"},
    "validate_certs": {"type": "bool", "default": True},
    "timeout": {"type": "float", "default": 30.0},
    "connections": {"type": "int", "default": 8},
}


def client_from(params: Mapping[str, Any]) -> RegistryClient:
    """The client that a module's parameters describe; InvalidConnection where they cannot be used."""
    return RegistryClient(
        params["url"],
        username=params["username"],
        password=params["password"],
        ca_file=params["ca_file"],
        verify=params["validate_certs"],
        timeout=params["timeout"],
        connections=params["connections"],
        connect_to=params["connect_to"],
    )
