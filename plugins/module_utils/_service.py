# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The running registry of a host as maintenance sees it, whatever runs it.

Private to the collection: no stable interface.

_stack.py is the one for a compose stack; tests use one on bare registry processes.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from ._errors import RegistryError


class ServiceError(RegistryError):
    """The registry cannot be stopped, started or run once."""


def run_program(of: str, command: Sequence[str], timeout: float | None) -> subprocess.CompletedProcess[str]:
    """Run a program for something, such as "the registry of /opt/registry", and wait at most `timeout` seconds.

    Whatever its exit code. Raises ServiceError where it is not there or does not end.
    """
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise ServiceError(f"{of}: the program {command[0]} is not installed on this host") from error
    except subprocess.TimeoutExpired as error:
        raise ServiceError(
            f"{of}: `{' '.join(command)}` did not end within {timeout:g} s; does the engine answer?"
        ) from error


class Ran(NamedTuple):
    """How a one-off run of the registry's program ended."""

    code: int
    output: str


class Service(Protocol):
    """Every method raises ServiceError with a message for people."""

    def is_running(self) -> bool: ...

    def stop(self) -> None:
        """Stop it, requests under way get its drain time. Nothing happens where it does not run."""

    def start(self) -> None:
        """Start it and wait until it answers, with nothing in its caches. Nothing happens where it runs."""

    def garbage_collect(self, *, dry_run: bool) -> Ran:
        """Run the registry's own garbage-collect once (never with --delete-untagged), whether it runs or not."""

    def scratch(self, data: Path) -> AbstractContextManager[str]:
        """A second, read-only registry of the same version on another data folder: its base URL, on loopback,
        without authentication, until the context ends."""
