# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Compose project by the commands that people type.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import os
import subprocess

from ._service import ServiceError, run_program

# Lines of a log or of a failed command that a message shows.
_SHOWN_LINES = 12
# Longer than any time that a registry may be given to end.
_TIMEOUT_SECONDS = 900.0


class Compose:
    """The project in the folder of a registry.

    Every method raises ServiceError where the engine does not answer within `timeout` seconds.
    """

    def __init__(self, folder: str | os.PathLike[str], *, timeout: float = _TIMEOUT_SECONDS) -> None:
        self.folder = os.fspath(folder)
        self._timeout = timeout
        #: For messages.
        self.name = f"the registry of {self.folder}"

    def run(self, *arguments: str, forever: bool = False) -> subprocess.CompletedProcess[str]:
        """`docker compose` with these arguments, whatever its exit code; `forever` waits as long as it takes."""
        return run_program(self.name, self._command(*arguments), None if forever else self._timeout)

    def output(self, *arguments: str) -> str:
        """What it prints, without blanks around it, whatever its exit code."""
        return self.run(*arguments).stdout.strip()

    def must(self, operation: str, *arguments: str) -> str:
        """What it prints. Raises ServiceError with all it says where it fails."""
        return self._must(operation, *self._command(*arguments))

    def docker(self, operation: str, *arguments: str) -> str:
        """As must(), of a plain `docker`."""
        return self._must(operation, "docker", *arguments)

    def docker_output(self, *arguments: str) -> str:
        """As output(), of a plain `docker`."""
        return run_program(self.name, ("docker", *arguments), self._timeout).stdout.strip()

    def logs(self, service: str) -> str:
        """The end of the log of a service."""
        return self._log(*self._command("logs", "--no-log-prefix", "--tail", str(_SHOWN_LINES), service))

    def container_logs(self, container: str) -> str:
        """The end of the log of a container, which need not be of the project."""
        return self._log("docker", "logs", "--tail", str(_SHOWN_LINES), container)

    def _command(self, *arguments: str) -> tuple[str, ...]:
        return ("docker", "compose", "--project-directory", self.folder, *arguments)

    def _log(self, *command: str) -> str:
        done = run_program(self.name, command, self._timeout)
        return done.stdout + done.stderr

    def _must(self, operation: str, *command: str) -> str:
        done = run_program(self.name, command, self._timeout)
        if done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-_SHOWN_LINES:]
            raise ServiceError(
                f"{operation} {self.name}: `{' '.join(command)}` ended with {done.returncode}: "
                + "\n".join(said)
            )
        return done.stdout
