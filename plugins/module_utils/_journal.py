# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What maintenance is in the middle of, written down so that the next run can finish it or take it back.

Private to the collection: no stable interface.

One small JSON file for each operation in the folder `maintenance` below the registry's root. It is synced before
the step that it announces, and removed when nothing is left to do.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ._errors import RegistryError
from ._files import atomic_write, read_file

_FOLDER = "maintenance"


class Journal:
    """The journal of one operation ("garbage-collection", "restore", …) of the registry below `root`."""

    def __init__(self, root: str | os.PathLike[str], operation: str) -> None:
        self._folder = Path(root) / _FOLDER
        self.path = self._folder / f"{operation}.json"

    def read(self) -> dict[str, Any] | None:
        """What was written last; None where nothing is under way."""
        found = read_file(self.path)
        if found is None:
            return None
        try:
            state = json.loads(found[0])
        except ValueError as error:
            raise RegistryError(
                f"read {self.path}: not a journal of this collection ({error}); "
                f"see what {self._folder} says and remove that file"
            ) from error
        return dict(state)

    def write(self, state: dict[str, Any]) -> None:
        """Replace it, synced."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        atomic_write(self.path, json.dumps(state, indent=1).encode(), mode=0o600)

    def remove(self) -> None:
        """Nothing is under way any more."""
        self.path.unlink(missing_ok=True)


def pending(root: str | os.PathLike[str]) -> list[str]:
    """The operations that are under way, or broke off."""
    return sorted(path.stem for path in (Path(root) / _FOLDER).glob("*.json"))
