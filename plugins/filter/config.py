# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for the registry's configuration and version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.dockyard.registry.plugins.module_utils import _config, _version
from ansible_collections.dockyard.registry.plugins.module_utils._config_nodes import describe
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError


def config_errors(config: Any, version: Any) -> list[str]:
    """What is wrong with a configuration for the registry of that version."""
    _require_mapping("config_errors", "the configuration", config)
    try:
        # YAML reads an unquoted 2.8 or 3 as a number.
        return _config.errors(config, str(version))
    except RegistryError as error:
        raise AnsibleFilterError(str(error)) from error


def config_merge(base: Any, extra: Any) -> dict[str, Any]:
    """A configuration with extra keys laid over it."""
    _require_mapping("config_merge", "the base", base)
    # A variable that is there without a value is no extra keys.
    extra = {} if extra is None else extra
    _require_mapping("config_merge", "what to merge into it", extra)
    return _config.merge(base, extra)


def registry_version(output: Any) -> str:
    """The version in the output of `registry --version`."""
    try:
        return _version.parse_version_output(str(output))
    except RegistryError as error:
        raise AnsibleFilterError(str(error)) from error


def _require_mapping(name: str, what: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise AnsibleFilterError(f"{name}: {what} must be a mapping, not {describe(value, secret=True)}")


class FilterModule:
    """Filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "config_errors": config_errors,
            "config_merge": config_merge,
            "registry_version": registry_version,
        }
