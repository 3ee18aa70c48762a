# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry's configuration (config.yml): checked for a version, and merged as data.

The registry ignores keys that it does not know, and some values of the wrong type, without a word; other
mistakes end in a stack trace. `errors()` finds them before it starts.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from ._config_nodes import Place, homes
from ._config_schema import SCHEMA
from ._version import Version, VersionError, parse


def errors(config: Mapping[str, Any], version: str) -> list[str]:
    """What is wrong with `config` for the registry of that version; an empty list when it is valid.

    Each message names the dotted path, what is wrong and what to do. `version` is what `_version.parse()`
    takes: "2.8", "3", "v3.1.1", "2.8.2+ds1". Raises VersionError for a version that is neither 2.8 nor 3.x.
    """
    supported = _supported(version)
    return list(SCHEMA.check(config, Place("", supported, _homes(supported))))


def merge(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `extra` laid over it, as new data.

    Mappings merge key by key, at any depth; a null in `extra` removes the key; anything else in `extra`, a
    list too, replaces what was there.
    """
    merged = dict(base)
    for key, value in extra.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            below = merged.get(key)
            merged[key] = merge(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def _supported(text: str) -> Version:
    version = parse(text)
    if version.major == 3 or (version.major == 2 and version.minor >= 8):
        return version.release
    raise VersionError(
        f"check the registry's configuration: version {version} is not supported; use 2.8 or 3.x"
    )


@cache
def _homes(version: Version) -> dict[str, list[str]]:
    by_name: dict[str, list[str]] = {}
    for name, path in homes(SCHEMA, version):
        by_name.setdefault(name, []).append(path)
    return by_name
