# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets pulls go on while the registry behind a proxy is away: a second, read-only registry takes them.

Private to the collection: no stable interface.

    with Switch("/opt/registry").aside():
        ...  # pulls go to the reader; pushes are told to come back

What the switch says is a symbolic link, `proxy/switch.*`, which the proxy's configuration reads: `normal.*` or
`maintenance.*`. So a run that was killed leaves no secret: leave() finds it, and may be called at any time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ._compose import Compose
from ._service import ServiceError

NORMAL, MAINTENANCE = "normal", "maintenance"
PROXY, REGISTRY, READER, NETWORK = "proxy", "registry", "reader", "network"
# Inside the network that the stack's containers share.
REGISTRY_PORT, READER_PORT, SWITCH_PORT = 5000, 5001, 8081

_POLL_SECONDS = 0.2
# One look at no connections may fall between two requests of one worker that is about to end.
_QUIET_LOOKS = 3
_COMMAND_TIMEOUT_SECONDS = 300.0
_TCP_ESTABLISHED = "01"
# A proxy's image has one or the other.
_FETCH = 'wget -q -O - "$0" 2>/dev/null || curl -fsS "$0"'


class Switch:
    """The switch of the stack in a folder.

    `patience` is how many seconds a registry has to answer and the proxy to go by what it was told; `drain` is how long
    requests under way are waited for.
    """

    def __init__(self, root: str | os.PathLike[str], *, patience: float = 60.0, drain: float = 60.0) -> None:
        self._root = Path(root)
        self._compose = Compose(root, timeout=_COMMAND_TIMEOUT_SECONDS)
        self._patience = patience
        self._drain = drain

    def is_there(self) -> bool:
        """Whether the stack has a proxy at all, running or not."""
        return self._link() is not None

    def mode(self) -> str:
        """What the switch says: NORMAL or MAINTENANCE."""
        link = self._link()
        return link.readlink().stem if link else NORMAL

    def enter(self) -> bool:
        """Send pulls to the reader and pushes away. Returns whether every request under way has ended by then.

        Nothing happens where the proxy does not run: nobody pulls.
        """
        if not self._runs(PROXY):
            return True
        self._compose.must(
            "start the reader of", "up", "--detach", "--no-deps", "--no-build", "--pull", "never", READER
        )
        self._wait("start the reader of", lambda: self._answers(READER, READER_PORT), log_of=READER)
        self._turn(MAINTENANCE)
        return self._drained(REGISTRY_PORT)

    def leave(self) -> bool:
        """Send everything to the registry again, once it answers, and end the reader. Returns whether that changed
        anything. Where the registry does not answer, raises ServiceError, and pulls stay with the reader."""
        changed = False
        if self.mode() != NORMAL:
            if self._runs(PROXY):
                self.wait_for_registry()
            self._turn(NORMAL)
            self._drained(READER_PORT)
            changed = True
        if self._link() and self._compose.output("ps", "--all", "--quiet", READER):
            self._compose.must("end the reader of", "rm", "--stop", "--force", READER)
            changed = True
        return changed

    def wait_for_registry(self) -> None:
        """Raises ServiceError where the registry itself does not answer in time."""
        self._wait("start", lambda: self._answers(REGISTRY, REGISTRY_PORT), log_of=REGISTRY)

    @contextmanager
    def aside(self) -> Iterator[bool]:
        """Pulls are the reader's within the block: whether every request under way had ended before it."""
        drained = self.enter()
        try:
            yield drained
        finally:
            self.leave()

    # Below this line: how

    def _link(self) -> Path | None:
        return next((path for path in (self._root / "proxy").glob("switch.*") if path.is_symlink()), None)

    def _turn(self, mode: str) -> None:
        link = self._link()
        if link is None:
            raise ServiceError(f"{self._compose.name}: there is no proxy/switch.*; run site.yml")
        new = link.with_name(f".{link.name}.new")
        new.unlink(missing_ok=True)
        new.symlink_to(f"{mode}{link.suffix}")
        new.replace(link)
        if self._runs(PROXY):
            self._compose.must("reload the proxy of", "exec", "-T", PROXY, "/bin/sh", "/proxy/reload")
            self._wait("reload the proxy of", lambda: self._told() == mode, log_of=PROXY)

    def _told(self) -> str:
        """What the proxy goes by."""
        url = f"http://127.0.0.1:{SWITCH_PORT}/switch"
        return self._compose.output("exec", "-T", PROXY, "/bin/sh", "-c", _FETCH, url)

    def _answers(self, service: str, port: int) -> bool:
        return (
            self._compose.run(
                "exec", "-T", service, "/bin/sh", "-c", _FETCH, f"http://127.0.0.1:{port}/"
            ).returncode
            == 0
        )

    def _drained(self, port: int) -> bool:
        """Wait until no connection to this port of the shared network is left."""
        deadline = time.monotonic() + self._drain
        container = self._compose.output("ps", "--quiet", NETWORK)
        pid = (
            self._compose.docker_output("inspect", "--format", "{{.State.Pid}}", container)
            if container
            else ""
        )
        table = Path("/proc", pid, "net", "tcp")
        quiet = 0
        while quiet < _QUIET_LOOKS:
            if not pid or not _connections(table, port):
                quiet += 1
            else:
                quiet = 0
                if time.monotonic() > deadline:
                    return False
            time.sleep(_POLL_SECONDS)
        return True

    def _wait(self, operation: str, is_done: Callable[[], bool], *, log_of: str) -> None:
        deadline = time.monotonic() + self._patience
        while not is_done():
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"{operation} {self._compose.name}: not done after {self._patience:g} s. "
                    f"The end of the log of {log_of}:\n{self._compose.logs(log_of)}"
                )
            time.sleep(_POLL_SECONDS)

    def _runs(self, service: str) -> bool:
        return self.is_there() and bool(self._compose.output("ps", "--quiet", "--status", "running", service))


def _connections(table: Path, port: int) -> int:
    """How many connections the server at this port has, by the kernel's table."""
    try:
        rows = [line.split() for line in table.read_text(encoding="ascii").splitlines()[1:]]
    except OSError:  # the container is gone, and its connections with it
        return 0
    return sum(row[1].endswith(f":{port:04X}") and row[3] == _TCP_ESTABLISHED for row in rows)
