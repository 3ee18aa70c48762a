# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions of the registry: read, compare, and find in the output of `registry --version`.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from ._errors import RegistryError

# The newest release of each line that this collection knows; the last one of a major stands for that major.
NEWEST = ((2, 8, 3), (3, 0, 0), (3, 1, 1))

_STAGES = ("alpha", "beta", "rc", "")
_VERSION = re.compile(
    r"v?(?P<major>\d+)(?:\.(?P<minor>\d+))?(?:\.(?P<patch>\d+))?"
    r"(?:-(?P<stage>alpha|beta|rc)\.?(?P<number>\d+))?"
    r"(?:[-+~.]\S+)?"  # of a packager or a build between two releases
)
# "<program> <Go package> <version>": the packages of 2.8 and of 3.x.
_OUTPUT = re.compile(r"\bgithub\.com/(?:docker|distribution)/distribution(?:/v\d+)? (v?\d\S*)")


class VersionError(RegistryError):
    """A text that names no version of the registry."""


class Version(NamedTuple):
    """A release of the registry. Versions compare as one expects: 2.8.3 < 3.0.0-rc.4 < 3.0.0 < 3.1.1."""

    major: int
    minor: int
    patch: int
    stage: int = len(_STAGES) - 1
    number: int = 0

    @property
    def release(self) -> Version:
        """The release that an alpha, beta or release candidate is for; a release itself."""
        return Version(self.major, self.minor, self.patch)

    def __str__(self) -> str:
        release = f"{self.major}.{self.minor}.{self.patch}"
        stage = _STAGES[self.stage]
        return f"{release}-{stage}.{self.number}" if stage else release


@cache
def parse(text: str) -> Version:
    """The version that `text` names: "2.8.3", "v3.1.1", "3.0.0-rc.4", Debian's "2.8.2+ds1-1+b5".

    A part of a version ("3", "2.8") stands for the newest release of that line that this collection knows.
    What a packager appended does not count. Raises VersionError.
    """
    match = _VERSION.fullmatch(text.strip())
    if not match:
        raise VersionError(
            f'read the registry version "{text}": that is no version; give one like 2.8.3 or 3.1.1, '
            "or the line 2.8 or 3"
        )
    given = tuple(int(part) for part in match.group("major", "minor", "patch") if part is not None)
    major, minor, patch = _complete(given)
    if not match["stage"]:
        return Version(major, minor, patch)
    return Version(major, minor, patch, _STAGES.index(match["stage"]), int(match["number"]))


def _complete(given: tuple[int, ...]) -> tuple[int, int, int]:
    newest = [release for release in NEWEST if release[: len(given)] == given]
    if len(given) < 3 and newest:
        return newest[-1]
    major, minor, patch = (*given, 0, 0)[:3]
    return major, minor, patch


def parse_version_output(text: str) -> str:
    """The version in the output of `registry --version`, as printed there but without a leading "v".

    Other lines around it, such as those of a container engine that pulls first, do not matter.
    Raises VersionError when no registry printed this.
    """
    match = _OUTPUT.search(text)
    if match:
        return match[1][1:] if match[1].startswith("v") else match[1]
    seen = text.strip()
    shown = f'"{seen[:200]}"' if seen else "nothing"
    raise VersionError(
        f"read the output of registry --version: {shown} was printed, and not the line of a registry "
        '("registry github.com/distribution/distribution/v3 v3.1.1"); is that program or image a registry?'
    )
