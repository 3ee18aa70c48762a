# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters with which the role checks and completes its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.dockyard.registry.plugins.module_utils import _config_file, _inputs, _policy


def config_split(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in two parts: `public`, and `secrets`."""
    public, secrets = _config_file.split(config)
    return {"public": public, "secrets": secrets}


class FilterModule:
    """Filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "config_split": config_split,
            "complete_users": _inputs.complete_users,
            "retention_problems": _policy.find_problems,
            "unknown_names": _inputs.unknown_names,
            "user_problems": _inputs.user_problems,
        }
