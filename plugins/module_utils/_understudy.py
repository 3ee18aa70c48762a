# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts the registry when the process that stopped it dies, so that nobody waits for the next run.

Private to the collection: no stable interface.

A shell of its own session waits for the other end of a pipe. It needs nothing that a killed process could take along.
What was under way is still taken back or finished by the next run; until then people can pull and push.
"""

from __future__ import annotations

import atexit
import subprocess
from contextlib import suppress

_DISMISSED = b"dismissed\n"

# The folder of the project, the service, the project's name. The stop that was under way may still be at work, and so
# may a one-off run of the registry: neither may end after the start.
_SCRIPT = r"""
read -r word
[ "$word" != dismissed ] || exit 0
compose() { docker compose --project-directory "$folder" "$@"; }
folder=$1 service=$2
docker ps --all --quiet --filter "label=com.docker.compose.project=$3" --filter label=com.docker.compose.oneoff=True |
    xargs -r docker rm --force --volumes
compose stop "$service"
compose up --detach --no-deps --no-recreate --no-build --pull never "$service"
for switch in "$folder"/proxy/switch.*; do
    [ -L "$switch" ] || continue
    tries=120
    until compose exec -T "$service" wget -q -O /dev/null http://127.0.0.1:5000/ || [ $tries = 0 ]; do
        tries=$((tries - 1))
        sleep 1
    done
    ln -sfn "normal.${switch##*.}" "$switch"
    compose exec -T proxy /bin/sh /proxy/reload
    compose rm --stop --force reader
done
"""


class Understudy:
    """Waits for this process to die, until it is dismissed; a process that ends by itself dismisses it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.dismiss)

    def wait(self, folder: str, service: str, project: str) -> None:
        """From now on, start `service` of the Compose project in `folder` when this process dies."""
        self.dismiss()
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "dockyard.registry", folder, service, project],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """It is not needed any more."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            with suppress(OSError):
                process.communicate(_DISMISSED)
