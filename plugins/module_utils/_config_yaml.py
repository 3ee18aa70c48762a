# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes a configuration as YAML that the registry's parser reads back as the same data. Needs PyYAML.

PyYAML and the registry disagree on a few plain scalars: PyYAML writes the strings y, 08, 1e5 and 0o7 without
quotes, the registry reads a boolean and numbers. In the free-form parts (storage drivers, auth) that is
another value, such as a wrong secret key, or a crash.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from typing import Any


def dump(config: Mapping[str, Any]) -> str:
    """`config` as a YAML document, its keys in the order they have. Raises ImportError without PyYAML."""
    import yaml

    text: str = yaml.dump(
        dict(config),
        Dumper=_dumper(),
        sort_keys=False,
        default_flow_style=False,
        allow_unicode=True,
        width=sys.maxsize,  # one value, one line
    )
    return text


@cache
def _dumper() -> type:
    # Made when it is needed, so that this file can be imported where PyYAML is not.
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes every string that does not read as a word or a path; writes no anchors and aliases."""

        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
            return True

    Dumper.add_representer(str, _represent_text)
    return Dumper


def _represent_text(dumper: Any, text: str) -> Any:
    begins_a_word = text[:1].isalpha() or text.startswith("/")
    is_plain = begins_a_word and text.isprintable() and text not in ("y", "Y", "n", "N")
    style = None if is_plain else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)
