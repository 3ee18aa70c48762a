# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real gate process, and real proxies that ask it: nginx, Caddy and Traefik, each on a loopback port of its own."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.modules import CHECKOUT
from tests.support.registry import free_port, hash_password
from tests.support.traefik import traefik_binary

TIMEOUT = 30.0

_NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log notice;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    proxy_request_buffering off;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    large_client_header_buffers 8 16k;
    upstream registry {{ server 127.0.0.1:{registry}; keepalive 32; }}
    upstream gate {{ server 127.0.0.1:{gate}; keepalive 32; }}
    server {{
        listen 127.0.0.1:{port};
        proxy_set_header Host $http_host;
        location = /v2/token {{ proxy_pass http://gate/v2/token; proxy_set_header Host $http_host; }}
        location / {{
            auth_request /_gate;
            auth_request_set $gate_user $upstream_http_x_user;
            auth_request_set $gate_status $upstream_status;
            auth_request_set $gate_body $upstream_http_x_gate_body;
            auth_request_set $gate_retry $upstream_http_retry_after;
            auth_request_set $gate_challenge $upstream_http_www_authenticate;
            error_page 401 = @unauthorized;
            error_page 403 = @denied;
            error_page 500 = @failed;
            add_header X-Logged-User $gate_user always;
            proxy_set_header Authorization "";
            proxy_pass http://registry;
        }}
        location = /_gate {{
            internal;
            proxy_pass http://gate/auth;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Original-Method $request_method;
            proxy_set_header X-Original-URI $request_uri;
            proxy_set_header X-Forwarded-Method "";
            proxy_set_header X-Forwarded-Uri "";
            proxy_set_header X-Forwarded-For $remote_addr;
        }}
        location @unauthorized {{
            default_type application/json;
            add_header WWW-Authenticate $gate_challenge always;
            return 401 $gate_body;
        }}
        location @denied {{ default_type application/json; return 403 $gate_body; }}
        location @failed {{
            default_type application/json;
            add_header Retry-After $gate_retry always;
            if ($gate_status = 429) {{ return 429 $gate_body; }}
            return 503 $gate_body;
        }}
    }}
}}
"""

_CADDY = """
{{
    admin off
    auto_https off
    log {{
        level ERROR
    }}
}}
http://127.0.0.1:{port} {{
    handle /v2/token {{
        reverse_proxy 127.0.0.1:{gate}
    }}
    handle {{
        forward_auth 127.0.0.1:{gate} {{
            uri /auth
            copy_headers X-User
            header_up -X-Original-URI
            header_up -X-Original-Method
        }}
        reverse_proxy 127.0.0.1:{registry} {{
            header_up -Authorization
            flush_interval -1
        }}
    }}
}}
"""


# The part of the role's own configuration that decides.
_TRAEFIK = """
http:
  routers:
    token: {{rule: Path(`/v2/token`), priority: 20, service: gate}}
    all: {{rule: PathPrefix(`/`), priority: 10, middlewares: [question, gate, clean], service: registry}}
  middlewares:
    question:
      headers: {{customRequestHeaders: {{X-Original-Method: "", X-Original-Uri: ""}}}}
    gate:
      forwardAuth: {{address: "http://127.0.0.1:{gate}/auth", headerField: X-User, maxResponseBodySize: 65536}}
    clean:
      headers: {{customRequestHeaders: {{Authorization: "", X-User: ""}}}}
  services:
    gate: {{loadBalancer: {{servers: [{{url: "http://127.0.0.1:{gate}"}}]}}}}
    registry: {{loadBalancer: {{servers: [{{url: "http://127.0.0.1:{registry}"}}]}}}}
"""


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def error(self) -> str:
        """The code of the first error in it."""
        code: str = json.loads(self.body)["errors"][0]["code"]
        return code


class Gate:
    """A gate that runs, with files that can be changed."""

    def __init__(self, folder: Path) -> None:
        self.users_file = folder / "htpasswd"
        self.policy_file = folder / "permissions.json"
        self.log = folder / "gate.log"
        self.port = free_port()
        self.pid = 0

    def write_users(self, users: Mapping[str, str], *, cost: int = 5) -> None:
        """User names and passwords."""
        lines = (f"{name}:{hash_password(password, cost)}\n" for name, password in users.items())
        replace(self.users_file, "".join(lines))

    def write_policy(self, document: Any) -> None:
        replace(self.policy_file, json.dumps(document))

    def ask(
        self, method: str, target: str, *headers: str, login: str = "", client: str = "192.0.2.1"
    ) -> Reply:
        """Ask it as nginx does."""
        lines = [f"X-Original-Method: {method}", f"X-Original-URI: {target}", f"X-Forwarded-For: {client}"]
        return send(self.port, "GET /auth HTTP/1.1", *lines, *basic(login), *headers)


def basic(login: str) -> list[str]:
    """The header for `user:password`; none for an empty text."""
    return [f"Authorization: Basic {base64.b64encode(login.encode()).decode()}"] if login else []


def replace(path: Path, text: str) -> None:
    """As the role writes: the new file is there at once, whole."""
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def send(port: int, line: str, *headers: str, body: bytes = b"") -> Reply:
    """Send these very bytes on a connection of their own, and read the answer."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
        head = "\r\n".join([line, f"Host: 127.0.0.1:{port}", "Connection: close", *headers, "", ""])
        connection.sendall(head.encode("latin-1") + body)
        data = b""
        while piece := connection.recv(65536):
            data += piece
    return read_reply(data)


def read_reply(data: bytes) -> Reply:
    head, _end, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    assert first.startswith("HTTP/1."), data
    pairs = (header.partition(":") for header in lines)
    return Reply(int(first.split()[1]), {name.lower(): value.strip() for name, _colon, value in pairs}, body)


@contextmanager
def running_gate(folder: Path, *arguments: str) -> Iterator[Gate]:
    """A gate on a free port, run from its files alone as on a host. Its users and policy are to be written yet."""
    gate = Gate(folder)
    package = deploy(folder / "deployed")
    command = [sys.executable, "-P" if sys.version_info >= (3, 11) else "-B", "-m", "gate._gate"]
    options = ["--listen", f"127.0.0.1:{gate.port}", "--users", str(gate.users_file)]
    options += ["--policy", str(gate.policy_file), *arguments]
    with process([*command, *options], gate.log, gate.port, PYTHONPATH=str(package.parent)) as pid:
        gate.pid = pid
        yield gate


def deploy(folder: Path) -> Path:
    """The files of the gate, as the role lays them out."""
    package = folder / "gate"
    package.mkdir(parents=True)
    source = CHECKOUT / "plugins" / "module_utils"
    for name in deployed_files():
        shutil.copy(source / name, package / name)
    return package


def deployed_files() -> list[str]:
    import yaml

    text = (CHECKOUT / "roles" / "registry" / "vars" / "main.yml").read_text(encoding="utf-8")
    names: list[str] = yaml.safe_load(text)["__registry_gate_modules"]
    return names


@contextmanager
def running_nginx(folder: Path, gate: int, registry: int, *, asks: bool = True) -> Iterator[int]:
    """nginx on a free port, which is the value, in front of a registry and asking a gate, or nobody."""
    port = free_port()
    config = folder / "nginx.conf"
    text = _NGINX.format(folder=folder, gate=gate, registry=registry, port=port)
    config.write_text(text if asks else text.replace("auth_request /_gate;", ""), encoding="utf-8")
    with process(["/usr/sbin/nginx", "-p", str(folder), "-c", str(config)], folder / "nginx.out", port):
        yield port


@contextmanager
def running_caddy(folder: Path, gate: int, registry: int) -> Iterator[int]:
    """Caddy, likewise."""
    port = free_port()
    config = folder / "Caddyfile"
    config.write_text(_CADDY.format(gate=gate, registry=registry, port=port), encoding="utf-8")
    command = ["/usr/bin/caddy", "run", "--adapter", "caddyfile", "--config", str(config)]
    homes = {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "HOME": str(folder)}
    with process(command, folder / "caddy.log", port, **homes):
        yield port


@contextmanager
def running_traefik(folder: Path, gate: int, registry: int) -> Iterator[int]:
    """Traefik, likewise."""
    port = free_port()
    config = folder / "dynamic.yml"
    config.write_text(_TRAEFIK.format(gate=gate, registry=registry), encoding="utf-8")
    options = [
        *("--global.checknewversion=false", "--log.level=ERROR", f"--providers.file.filename={config}"),
        *(f"--entrypoints.web.address=127.0.0.1:{port}", "--entrypoints.web.http.sanitizepath=false"),
    ]
    with process([traefik_binary(), *options], folder / "traefik.log", port):
        # It listens before it has read what it is to do.
        deadline = time.monotonic() + TIMEOUT
        while send(port, "GET /v2/ HTTP/1.1").status == HTTPStatus.NOT_FOUND:
            assert time.monotonic() < deadline, (folder / "traefik.log").read_text(encoding="utf-8")
            time.sleep(0.02)
        yield port


@contextmanager
def process(command: list[str], log: Path, port: int, **variables: str) -> Iterator[int]:
    """A process that listens on a port, until the end of the block; its number."""
    with log.open("wb") as output:
        started = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **variables}
        )
    try:
        deadline = time.monotonic() + TIMEOUT
        while not _answers(port):
            assert started.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.02)
        yield started.pid
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            started.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return False
    return True
