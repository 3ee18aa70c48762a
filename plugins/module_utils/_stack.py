# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry of a Compose project as a Service, by the commands that people type.

Private to the collection: no stable interface.

    stack = Stack("/opt/registry")
    stack.stop()
    stack.start()
"""

from __future__ import annotations

import json
import os
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ._compose import Compose
from ._service import Ran, ServiceError
from ._switch import Switch
from ._understudy import Understudy

CONFIG_PATH = "/etc/registry/config.yml"
_REGISTRY_PORT = 5000

_POLL_SECONDS = 0.05
# What a proxy says of a registry that is not there yet, and a registry that is not healthy yet.
_NOT_READY = frozenset({502, 503, 504})

# Where a host reaches what listens on all its addresses.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "[::]": "[::1]"}  # noqa: S104

_SCRATCH_LABEL = "dockyard.registry.scratch"
# What the container of a real registry is denied, and no storage to write to.
_CLOSED = (
    *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"),
    *("--tmpfs", "/tmp:size=64m,mode=1777,noexec,nosuid,nodev"),  # noqa: S108 (inside the container)
    *("--env", "OTEL_TRACES_EXPORTER=none"),
)
_SCRATCH_CONFIG = {
    "version": "0.1",
    "log": {"level": "warn"},
    "storage": {
        "filesystem": {"rootdirectory": "/var/lib/registry"},
        "maintenance": {"uploadpurging": {"enabled": False}, "readonly": {"enabled": True}},
    },
    "http": {"addr": f":{_REGISTRY_PORT}"},
}


class Stack:
    """The registry of the Compose project in a folder; a Service.

    Where a proxy is in front, pulls go on while it is stopped: a second, read-only registry takes them. It is started
    all the same if this process is killed while it is stopped.

    After a start it must answer on the port that it publishes, or where it publishes none at `url`. `patience` is how
    many seconds it has for that.
    """

    def __init__(
        self,
        project_directory: str | os.PathLike[str],
        *,
        service: str = "registry",
        url: str = "",
        patience: float = 120.0,
    ) -> None:
        self._compose = Compose(project_directory)
        self._service = service
        self._patience = patience
        self._switch = Switch(project_directory, patience=patience)
        self._understudy = Understudy()
        self._url = url
        self._address = ""
        self._read_settings: dict[str, Any] = {}

    def is_running(self) -> bool:
        """Whether it is there, be it that the engine starts it again and again."""
        found = self._compose.must(
            "look at", "ps", "--quiet", "--status", "running", "--status", "restarting", self._service
        )
        return bool(found.strip())

    def stop(self) -> None:
        if self.is_running():
            self._understudy.wait(self._compose.folder, self._service, self._project)
        # What start() needs to know is asked for while people can still pull.
        self._address = self._published_url() or self._url
        self._remove_one_offs()
        self._switch.enter()
        self._compose.must("stop", "stop", self._service)

    def start(self) -> None:
        self._remove_one_offs()
        self._compose.must(
            "start",
            *("up", "--detach", "--no-deps", "--no-recreate", "--no-build", "--pull", "never", self._service),
        )
        self._wait_until_it_answers()
        self._understudy.dismiss()

    def garbage_collect(self, *, dry_run: bool) -> Ran:
        command = ["garbage-collect", *(["--dry-run"] if dry_run else []), CONFIG_PATH]
        once = ("run", "--rm", "--no-deps", "-T", self._service)
        done = self._compose.run(*once, *command, forever=True)
        return Ran(done.returncode, done.stdout + done.stderr)

    @contextmanager
    def scratch(self, data: Path) -> Iterator[str]:
        mine = f"{_SCRATCH_LABEL}={self._project}"
        self._remove(f"label={mine}")
        settings = self._settings
        with tempfile.TemporaryDirectory(prefix="dockyard-scratch-") as folder:
            config = Path(folder, "config.yml")
            # JSON is YAML; and the registry runs as somebody else.
            config.write_text(json.dumps(_SCRATCH_CONFIG), encoding="utf-8")
            Path(folder).chmod(0o755)
            registry = settings["services"][self._service]
            user = registry.get("user", "")
            try:
                container = self._compose.docker(
                    "start a registry beside",
                    *("run", "--detach", "--pull", "never", "--label", mine, *_CLOSED),
                    *(("--user", str(user)) if user else ()),
                    *self._network(),
                    *("--publish", f"127.0.0.1::{_REGISTRY_PORT}"),
                    *("--volume", f"{folder}:/etc/registry:ro", "--volume", f"{data}:/var/lib/registry:ro"),
                    *(registry["image"], "serve", CONFIG_PATH),
                ).strip()
                address = self._compose.docker("look at", "port", container, f"{_REGISTRY_PORT}/tcp").split()[
                    0
                ]
                self._wait_for(
                    f"http://{address}",
                    lambda: self._compose.container_logs(container),
                )
                yield f"http://{address}"
            finally:
                self._remove(f"label={mine}")

    # Below this line: how

    def _remove_one_offs(self) -> None:
        """What a run that was killed has left of garbage-collect must not work beside the registry."""
        self._remove(
            f"label=com.docker.compose.project={self._project}", "label=com.docker.compose.oneoff=True"
        )

    @property
    def _settings(self) -> dict[str, Any]:
        """The project as Compose understands it."""
        if not self._read_settings:
            text = self._compose.must("read the project of", "config", "--format", "json")
            try:
                settings: dict[str, Any] = json.loads(text)
            except ValueError as error:
                raise ServiceError(
                    f"{self._compose.folder}: docker compose config says no JSON ({error})"
                ) from error
            if self._service not in settings.get("services", {}):
                raise ServiceError(f"{self._compose.folder}: its compose.yml has no service {self._service}")
            self._read_settings = settings
        return self._read_settings

    @property
    def _project(self) -> str:
        return str(self._settings["name"])

    def _network(self) -> tuple[str, ...]:
        """One from which ports can be published: the project's, for the engine's own may be turned off."""
        networks = self._settings.get("networks") or {}
        for name in self._settings["services"][self._service].get("networks") or {}:
            if not networks.get(name, {}).get("internal"):
                return ("--network", networks[name]["name"])
        return ()

    def _published_url(self) -> str:
        """Where the host reaches it; empty where it publishes no port."""
        address = self._compose.output("port", self._service, str(_REGISTRY_PORT))
        host, _colon, port = address.rpartition(":")
        if not port.isdigit() or port == "0":
            return ""
        return f"http://{_LOOPBACK.get(host, host)}:{port}"

    def _wait_until_it_answers(self) -> None:
        if self._switch.is_there():
            self._switch.wait_for_registry()
            self._switch.leave()
            return
        url = self._address or self._published_url() or self._url
        if not url:
            raise ServiceError(
                f"start {self._compose.name}: it publishes no port, so nobody can ask whether it works; "
                "name its address (url)"
            )
        self._wait_for(url, lambda: self._compose.logs(self._service))

    def _wait_for(self, url: str, log: Callable[[], str]) -> None:
        deadline = time.monotonic() + self._patience
        while True:
            problem = _ask(url)
            if not problem:
                return
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"start {self._compose.name}: no answer from {url} within {self._patience:g} s ({problem}). "
                    f"The end of its log:\n{log()}"
                )
            time.sleep(_POLL_SECONDS)

    def _remove(self, *filters: str) -> None:
        """Remove the containers with these labels."""
        chosen = [argument for one in filters for argument in ("--filter", one)]
        containers = self._compose.docker("look at", "ps", "--all", "--quiet", *chosen).split()
        if containers:
            self._compose.docker("clean up beside", "rm", "--force", "--volumes", *containers)


def _ask(url: str) -> str:
    """Why a registry does not answer yet; empty where it does, whatever it says."""
    # Whether it is the right one and its certificate is good is for others to check.
    context = ssl._create_unverified_context()  # noqa: S323
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        opener.open(f"{url.rstrip('/')}/v2/", timeout=5).close()
    except urllib.error.HTTPError as error:
        with error:
            return f"HTTP {error.code}" if error.code in _NOT_READY else ""
    except (OSError, ValueError) as error:
        return str(error)
    return ""
