# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes config.yml from data, checked against the registry's version, and shows it without its secrets.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from . import _config, _config_yaml, _files
from ._errors import RegistryError

HEADER = "# Managed by Ansible (dockyard.registry): changes here are lost. Set registry_config instead.\n"

MASK = "********"

# Keys of the registry's configuration whose values are secrets, at any depth.
_SECRET_KEY = re.compile(
    r"(?i)(secret|password|passwd|token|authorization|credential)|^(access|account|private|secret)_?key$"
)


class ConfigError(RegistryError):
    """The configuration is not one that the registry would understand as it was meant."""


class Written(NamedTuple):
    """What became of the file."""

    changed: bool
    #: Of the whole content, in hexadecimal: another one means another configuration.
    sha256: str
    #: Content before and after, with secrets masked. Before is empty where there was no file.
    before: str
    after: str


def render(config: Mapping[str, Any]) -> str:
    """The file's text. Needs PyYAML."""
    return HEADER + _config_yaml.dump(config)


def split(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration without its secrets, and the secrets alone; merged, they are the configuration again.

    A secret is any value, or list of values, under a key that names one. Apart, they can be kept out of logs.
    """
    public: dict[str, Any] = {}
    secret: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            public[key], below = split(value)
            if below:
                secret[key] = below
        elif _SECRET_KEY.search(str(key)) and value not in (None, ""):
            secret[key] = value
        else:
            public[key] = value
    return public, secret


def masked(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in which every secret is MASK."""
    public, secret = split(config)
    return _config.merge(public, _masks(secret))


def _masks(secret: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _masks(value) if isinstance(value, Mapping) else MASK for key, value in secret.items()}


def write(
    path: str,
    config: Mapping[str, Any],
    version: str,
    attributes: _files.Attributes,
    *,
    check_mode: bool = False,
) -> Written:
    """Replace the file where its content or attributes differ. Raises ConfigError first."""
    problems = _config.errors(config, version)
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise ConfigError(f"write {path}: registry {version} would not take this configuration:\n{listed}")

    text = render(config)
    found = _files.read_file(path)
    before = found[0].decode("utf-8", errors="replace") if found else ""
    if before != text:
        if not check_mode:
            _files.atomic_write(
                path, text.encode(), mode=attributes.mode, uid=attributes.uid, gid=attributes.gid
            )
        changed = True
    else:
        changed = _files.ensure_attributes(path, attributes, check_mode=check_mode)
    return Written(changed, hashlib.sha256(text.encode()).hexdigest(), _mask_text(before), _mask_text(text))


def _mask_text(text: str) -> str:
    """Like `masked`, for a file that may be anything: what cannot be read is not shown at all."""
    import yaml

    if not text:
        return ""
    try:
        return render(masked(yaml.safe_load(text)))
    except (yaml.YAMLError, AttributeError):
        return f"(not readable as YAML: {len(text)} characters)\n"
