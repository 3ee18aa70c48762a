# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters with which the role checks and completes its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.dockyard.registry.plugins.module_utils import (
    _certificate,
    _config_file,
    _inputs,
    _permissions,
    _policy,
)


def config_split(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in two parts: `public`, and `secrets`."""
    public, secrets = _config_file.split(config)
    return {"public": public, "secrets": secrets}


def certificate_problems(certificate: str, key: str, name: str) -> list[str]:
    """What is wrong with a certificate for a server of that name."""
    return _certificate.find_problems(certificate.encode(), key.encode(), name)


class FilterModule:
    """Filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "certificate_problems": certificate_problems,
            "config_split": config_split,
            "complete_users": _inputs.complete_users,
            "permission_problems": _permissions.find_problems,
            "permissions_document": _permissions.build_document,
            "retention_problems": _policy.find_problems,
            "unknown_names": _inputs.unknown_names,
            "user_problems": _inputs.user_problems,
        }
