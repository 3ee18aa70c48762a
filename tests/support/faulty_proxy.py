# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A reverse proxy in front of a real registry that spoils chosen answers, as networks and proxies do.

with FaultyProxy(registry.url) as proxy:
    proxy.spoil("GET /v2/_catalog", status(503), times=2)
    ... ask proxy.url ...
    assert proxy.requests == [...]
"""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive"}


@dataclass(frozen=True)
class Answer:
    """What goes back to the client; only the first `sent` bytes of the body do, then the connection ends."""

    status: int
    headers: dict[str, str]
    body: bytes
    sent: int | None = None


#: Turns the registry's answer into what the client gets; None breaks the connection off without an answer.
Change = Callable[[Answer], "Answer | None"]


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """An answer that a proxy gives in its own name; Retry_After="1" stands for the header Retry-After."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(code, {**named, "Content-Length": str(len(body))}, body)


def html(code: int = 200) -> Answer:
    """The page of some other product."""
    return status(code, b"<html><body>Welcome!</body></html>", Content_Type="text/html; charset=utf-8")


def without(*names: str) -> Change:
    """The registry's answer without these headers."""
    dropped = {name.lower() for name in names}
    return lambda answer: replace(
        answer, headers={name: value for name, value in answer.headers.items() if name.lower() not in dropped}
    )


def header(name: str, change: Callable[[str], str]) -> Change:
    """The registry's answer with one header changed."""

    def changed(answer: Answer) -> Answer:
        headers = {
            key: change(value) if key.lower() == name.lower() else value
            for key, value in answer.headers.items()
        }
        return replace(answer, headers=headers)

    return changed


def half(answer: Answer) -> Answer:
    """The first half of the body, then the end of the connection."""
    return replace(answer, sent=len(answer.body) // 2)


def corrupt(answer: Answer) -> Answer:
    """The same length with one bit wrong."""
    return replace(answer, body=answer.body[:-1] + bytes([answer.body[-1] ^ 1]))


def broken_off(_answer: Answer) -> None:
    """No answer; the registry has carried the request out all the same."""


@dataclass
class _Rule:
    pattern: re.Pattern[str]
    fault: Answer | Change
    left: int | None


@dataclass
class _State:
    upstream: tuple[str, int]
    rules: list[_Rule] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    released: threading.Event = field(default_factory=threading.Event)

    def fault_for(self, request: str) -> Answer | Change:
        with self.lock:
            for rule in self.rules:
                if rule.left != 0 and rule.pattern.search(request):
                    if rule.left is not None:
                        rule.left -= 1
                    return rule.fault
        return lambda answer: answer


class FaultyProxy:
    """Listens on a loopback port and forwards to the registry at `upstream` (an http:// address).

    Attributes: `url`, `requests` ("METHOD target" of each request), `authorizations` (that header of each).
    """

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._state = _State((parts.hostname or "", parts.port or 80))
        handler = type("Handler", (_Handler,), {"state": self._state})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.requests = self._state.requests
        self.authorizations = self._state.authorizations

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._state.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def spoil(self, pattern: str, fault: Answer | Change, *, times: int | None = None) -> None:
        """Spoil requests ("METHOD target") in which the regular expression is found.

        An Answer is given without asking the registry; a Change is applied to the registry's answer.
        """
        self._state.rules.append(_Rule(re.compile(pattern), fault, times))

    def heal(self) -> None:
        """Forward everything unchanged again."""
        self._state.rules.clear()

    def hang(self, _answer: Answer) -> None:
        """A change: never answer, until the proxy is closed."""
        self._state.released.wait()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state: _State

    def _handle(self) -> None:
        request = f"{self.command} {self.path}"
        self.state.requests.append(request)
        self.state.authorizations.append(self.headers.get("Authorization"))
        fault = self.state.fault_for(request)
        if isinstance(fault, Answer):
            # As proxies do that refuse a request: without waiting for its body.
            self.close_connection = "Content-Length" in self.headers
            answer: Answer | None = fault
        else:
            answer = fault(self._forward(self.rfile.read(int(self.headers.get("Content-Length") or 0))))
        if answer is None:
            self._break_off()
        else:
            self._send(answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _handle

    def _forward(self, body: bytes) -> Answer:
        connection = http.client.HTTPConnection(*self.state.upstream, timeout=30)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        headers = {name: value for name, value in response.getheaders() if name.lower() not in HOP_BY_HOP}
        if self.command != "HEAD":
            headers.pop("Content-Length", None)
            headers["Content-Length"] = str(len(content))
        return Answer(response.status, headers, content)

    def _send(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: answer.sent])
        if answer.sent is not None:
            self.close_connection = True

    def _break_off(self) -> None:
        # With this option the kernel sends a reset instead of an orderly end.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, *_arguments: object) -> None:
        """Say nothing; `requests` is the log."""
