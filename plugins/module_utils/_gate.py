# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate: a small service that a proxy asks, for every request, whether the registry may have it.

    python3 -m gate._gate --listen 0.0.0.0:5002 --users /auth/htpasswd --policy /auth/permissions.json

nginx asks with auth_request, Caddy with forward_auth, Traefik with forwardAuth: `GET /auth` with the client's own
Authorization and Content-Type, and its method and target in X-Original-Method and X-Original-URI, or in
X-Forwarded-Method and X-Forwarded-Uri. 200 lets it pass, with the user in X-User; everything else is the answer for
the client: 401, 403, 429, or 503 where the gate itself cannot tell. nginx throws away the body of such an answer;
it is in the header X-Gate-Body, too.

The header X-Hold names a port: what may pass is held until something listens there, for nobody repeats the last request
of a push.

`GET /v2/token` gives tokens, where anonymous pull is allowed: clients that would not send a password where nobody
asks for one get a token in either case. `GET /healthz` is for the engine.

Traefik has no answers of its own, and gets them here: `GET /closed` tells a client to come back after the maintenance,
`GET /unavailable` that the registry does not answer, and `GET /mode/NAME` gives a name back.

Private to the collection: no stable interface. The role copies it, and what it imports, to the host.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import hmac
import json
import re
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple, Union, cast
from urllib.parse import quote

from . import _bcrypt
from ._credentials import Credentials, Settings, TooMany, Users
from ._errors import RegistryError
from ._permissions import Policy
from ._request import Refused, read_request
from ._throttle import Limits, Throttle
from ._watched import Unreadable, Watched

TOKEN_SECONDS = 300
#: When clients are to come back that are turned away in maintenance.
CLOSED_SECONDS = 5
# Those on containers/image repeat after 429 only, and docker after 503.
_REPEATS_AFTER_429 = re.compile(r"containers/|skopeo|podman|buildah|cri-o", re.IGNORECASE)

MAX_HEAD = 32_768
MAX_CONNECTIONS = 1000
# Seconds for a head to come in, and for a connection to have nothing to say.
HEAD_SECONDS = 10
IDLE_SECONDS = 120
# How long a request is held for a registry that is away; the proxy waits somewhat longer for the answer.
HOLD_SECONDS = 55
HOLD_POLL_SECONDS = 0.1

_REQUEST_LINE = re.compile(rb"GET (/[!-~]*) HTTP/1\.([01])")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00-\x08\x0a-\x1f\x7f]*)")

# Which of two would the registry believe?
_SINGLE = (
    "authorization",
    "content-type",
    "x-original-method",
    "x-original-uri",
    "x-forwarded-method",
    "x-forwarded-uri",
    "x-hold",
)


class BadRequest(RegistryError):
    """What came is not what a proxy asks."""


class Ask(NamedTuple):
    """A question as it came in. Header names are in small letters."""

    path: str
    headers: dict[str, list[str]]
    #: HTTP/1.1, where connections stay open.
    modern: bool = True

    @classmethod
    def parse(cls, head: bytes) -> Ask:
        """Raises BadRequest."""
        first, *lines = head.split(b"\r\n")
        match = _REQUEST_LINE.fullmatch(first)
        if match is None:
            raise BadRequest("no request line that a proxy would send")
        headers: dict[str, list[str]] = {}
        for line in lines:
            header = _HEADER.fullmatch(line)
            if header is None:
                raise BadRequest("a header that is none")
            headers.setdefault(header[1].decode("ascii").lower(), []).append(
                header[2].decode("latin-1").strip(" \t")
            )
        return cls(match[1].decode("ascii").partition("?")[0], headers, match[2] == b"1")

    def get(self, name: str) -> str:
        return self.headers.get(name, [""])[0]

    @property
    def is_last(self) -> bool:
        """Whether the connection ends with it: wanted so, or because nobody here reads a body."""
        return (
            not self.modern
            or "close" in self.get("connection").lower()
            or "transfer-encoding" in self.headers
            or self.get("content-length") not in ("", "0")
        )

    @property
    def address(self) -> str:
        """The client's, as the proxy saw it: whatever stands before was the client's own idea."""
        return self.headers.get("x-forwarded-for", [""])[-1].rpartition(",")[2].strip()


class Answer(NamedTuple):
    status: HTTPStatus
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""

    def encode(self, *, close: bool) -> bytes:
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            f"Content-Length: {len(self.body)}",
            *(f"{name}: {value}" for name, value in self.headers),
            *(["Connection: close"] if close else []),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n" + self.body).encode("ascii")


Pending = Union[Answer, Coroutine[Any, Any, Answer]]


#: Makes the answer for a user, or for nobody in particular.
Then = Callable[[Union[str, None]], Answer]


class Gate:
    """Decides. Ask it in one event loop."""

    def __init__(
        self, policy: Watched[Policy], credentials: Credentials, realm: str = "registry", url: str = ""
    ) -> None:
        self._policy = policy
        self._credentials = credentials
        self._realm = realm
        # Where clients reach the registry, for the address of the tokens; empty: as the proxy says.
        self._url = url

    def answer(self, ask: Ask) -> Pending:
        """At once where that can be, else something to wait for."""
        try:
            if ask.path == "/auth":
                answer = self._authorize(ask)
                return self._hold(answer, int(ask.get("x-hold"))) if ask.get("x-hold").isdecimal() else answer
            if ask.path == "/v2/token":
                return self._token(ask)
            if ask.path == "/healthz":
                self._policy.get()
                self._credentials.hash_of("")
                return Answer(HTTPStatus.OK)
            if ask.path == "/closed":
                return _closed(ask.get("user-agent"))
            if ask.path == "/unavailable":
                return _come_back(
                    HTTPStatus.SERVICE_UNAVAILABLE, "the registry does not answer at the moment"
                )
            if ask.path in ("/mode/normal", "/mode/maintenance"):
                return Answer(HTTPStatus.OK, body=ask.path.rpartition("/")[2])
            return _problem(HTTPStatus.NOT_FOUND, "UNSUPPORTED", "there is nothing here")
        except RegistryError as error:
            return _refusal(error)

    def _authorize(self, ask: Ask) -> Pending:
        for name in _SINGLE:
            if len(ask.headers.get(name, ())) > 1:
                raise Refused(f"the header {name} is there more than once")
        method, target = _original(ask)
        request = read_request(method, target, ask.get("content-type"))

        def decide(user: str | None) -> Answer:
            policy = self._policy.get()
            if policy.allows(user, request):
                return Answer(HTTPStatus.OK, (("X-User", quote(user, safe="@+ ")),) if user else ())
            if user is None:
                return self._challenge(ask, policy, "log in first")
            return _problem(HTTPStatus.FORBIDDEN, "DENIED", "this user has no right to do that")

        return self._identify(ask, decide)

    async def _hold(self, pending: Pending, port: int) -> Answer:
        """The answer, and if it lets pass then not before something listens at this port."""
        answer = pending if isinstance(pending, Answer) else await pending
        end = time.monotonic() + HOLD_SECONDS
        while answer.status == HTTPStatus.OK and not await _listens(port):
            if time.monotonic() > end:
                wait = ("Retry-After", "5")
                return _problem(HTTPStatus.SERVICE_UNAVAILABLE, "UNAVAILABLE", "the registry is away", wait)
            await asyncio.sleep(HOLD_POLL_SECONDS)
        return answer

    def _token(self, ask: Ask) -> Pending:
        def issue(user: str | None) -> Answer:
            if user is None and not self._policy.get().anonymous.repositories:
                return self._challenge(ask, self._policy.get(), "log in first")
            token = self._make_token(user or "")
            body = json.dumps({"token": token, "access_token": token, "expires_in": TOKEN_SECONDS})
            headers = (("Content-Type", "application/json"), ("Cache-Control", "no-store"))
            return Answer(HTTPStatus.OK, headers, body)

        return self._identify(ask, issue)

    def _identify(self, ask: Ask, then: Then) -> Pending:
        """Find out who it is, and make the answer."""
        scheme, _blank, value = ask.get("authorization").partition(" ")
        if not scheme:
            return then(None)
        if scheme.lower() == "bearer":
            user = self._read_token(value.strip())
            if user is None:
                return self._challenge(ask, self._policy.get(), "the token is not valid, or no longer")
            return then(user or None)
        login = _read_basic(value.strip()) if scheme.lower() == "basic" else None
        if login is None:
            return self._challenge(ask, self._policy.get(), "this is no way to log in")
        user, password = login
        known = self._credentials.recall(user, password)
        if known is None:
            return self._check(ask, user, password, then)
        return then(user) if known else self._wrong(ask)

    async def _check(self, ask: Ask, user: str, password: str, then: Then) -> Answer:
        try:
            if await self._credentials.check(user, password, ask.address):
                return then(user)
            _log(f"wrong password: user {user[:64]!r} from {ask.address[:64]!r}")
            return self._wrong(ask)
        except RegistryError as error:
            return _refusal(error)

    def _wrong(self, ask: Ask) -> Answer:
        return self._challenge(ask, self._policy.get(), "wrong user or password")

    def _challenge(self, ask: Ask, policy: Policy, message: str) -> Answer:
        """Basic is enough, and simple. Where some may pull without, clients need to be told of tokens: they decide
        once, at the base of the API, whether they ever send what they have."""
        how = f'Basic realm="{self._realm}"'
        if policy.anonymous.repositories and ask.path == "/auth":
            scheme = "https" if ask.get("x-forwarded-proto") == "https" else "http"
            host = re.sub(r"[^A-Za-z0-9.:\[\]_-]", "", ask.get("x-forwarded-host") or ask.get("host"))
            url = self._url or f"{scheme}://{host}"
            how = f'Bearer realm="{url}/v2/token",service="{self._realm}"'
        return _problem(HTTPStatus.UNAUTHORIZED, "UNAUTHORIZED", message, ("WWW-Authenticate", how))

    def _make_token(self, user: str) -> str:
        """It says who somebody is, not what they may do, and dies with the password."""
        end = str(int(time.time()) + TOKEN_SECONDS)
        name = base64.urlsafe_b64encode(user.encode("utf-8", "surrogatepass")).decode("ascii")
        return f"{name}.{end}.{self._sign_token(name, end, user)}"

    def _read_token(self, token: str) -> str | None:
        """The user of a token, "" for nobody in particular; None where it is not, or no longer, valid."""
        name, _dot, rest = token.partition(".")
        end, _dot, signature = rest.partition(".")
        try:
            user = base64.b64decode(name, altchars=b"-_", validate=True).decode("utf-8", "surrogatepass")
        except ValueError:
            return None
        wanted = self._sign_token(name, end, user)
        if not hmac.compare_digest(wanted.encode(), signature.encode("utf-8", "surrogatepass")):
            return None
        if int(end) < time.time() or (user and self._credentials.hash_of(user) is None):
            return None
        return user

    def _sign_token(self, name: str, end: str, user: str) -> str:
        password_hash = self._credentials.hash_of(user) if user else None
        return self._credentials.sign("token", name, end, password_hash or "")


def _log(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


async def _listens(port: int) -> bool:
    try:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def _original(ask: Ask) -> tuple[str, str]:
    """Method and target of the client. One pair only: with two, one of them may be the client's invention."""
    pairs = [
        (ask.get(f"x-{kind}-method"), ask.get(f"x-{kind}-uri"))
        for kind in ("original", "forwarded")
        if f"x-{kind}-method" in ask.headers or f"x-{kind}-uri" in ask.headers
    ]
    if len(pairs) > 1:
        raise Refused("the request claims to be two")
    if len(pairs) != 1 or not all(pairs[0]):
        raise BadRequest("the proxy does not say what the client asks for")
    return pairs[0]


def _read_basic(value: str) -> tuple[str, str] | None:
    try:
        user, colon, password = base64.b64decode(value, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if colon and user else None


def _refusal(error: RegistryError) -> Answer:
    if isinstance(error, Refused):
        return _problem(HTTPStatus.FORBIDDEN, "DENIED", str(error))
    if isinstance(error, TooMany):
        wait = ("Retry-After", str(error.seconds))
        return _problem(HTTPStatus.TOO_MANY_REQUESTS, "TOOMANYREQUESTS", str(error), wait)
    _log(f"gate: {error}")
    if isinstance(error, Unreadable):
        return _problem(HTTPStatus.SERVICE_UNAVAILABLE, "UNAVAILABLE", "users or rights cannot be read")
    return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, "UNKNOWN", "the proxy does not ask as it should")


def _closed(agent: str) -> Answer:
    repeats = (
        HTTPStatus.TOO_MANY_REQUESTS if _REPEATS_AFTER_429.search(agent) else HTTPStatus.SERVICE_UNAVAILABLE
    )
    return _come_back(repeats, "the registry is in maintenance and takes no pushes for a moment")


def _come_back(status: HTTPStatus, message: str) -> Answer:
    code = "TOOMANYREQUESTS" if status is HTTPStatus.TOO_MANY_REQUESTS else "UNAVAILABLE"
    return _problem(status, code, message, ("Retry-After", str(CLOSED_SECONDS)))


def _problem(status: HTTPStatus, code: str, message: str, *headers: tuple[str, str]) -> Answer:
    body = json.dumps({"errors": [{"code": code, "message": message}]})
    return Answer(status, (("Content-Type", "application/json"), ("X-Gate-Body", body), *headers), body)


class Connection(asyncio.Protocol):
    """One connection of a proxy: question after question, each answered before the next is read."""

    def __init__(self, gate: Gate, connections: set[Connection]) -> None:
        self._gate = gate
        self._connections = connections
        self._received = b""
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport
        self._closing = False
        #: When it has been quiet, or slow, for too long.
        self.deadline = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.deadline = time.monotonic() + HEAD_SECONDS
        if len(self._connections) >= MAX_CONNECTIONS:
            self._transport.abort()
        self._connections.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._connections.discard(self)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if not self._received:
            self.deadline = time.monotonic() + HEAD_SECONDS
        self._received += data
        if self._task is None:
            self._answer_all()
        elif len(self._received) > MAX_HEAD:
            self.close()

    def close(self) -> None:
        self._closing = True
        self._transport.abort()

    def _answer_all(self) -> None:
        while not self._closing:
            head, end, rest = self._received.partition(b"\r\n\r\n")
            if len(head) > MAX_HEAD:
                self.close()
            if not end:
                return
            self._received = rest
            try:
                ask = Ask.parse(head)
            except BadRequest as error:
                self._write(_refusal(error), close=True)
                return
            answer = self._gate.answer(ask)
            if isinstance(answer, Answer):
                self._write(answer, close=ask.is_last)
            else:
                self._task = asyncio.ensure_future(self._wait_for(answer, ask))
                return

    async def _wait_for(self, answer: Coroutine[Any, Any, Answer], ask: Ask) -> None:
        self.deadline = float("inf")
        self._write(await answer, close=ask.is_last)
        self._task = None
        self._answer_all()

    def _write(self, answer: Answer, *, close: bool) -> None:
        self._transport.write(answer.encode(close=close))
        self.deadline = time.monotonic() + IDLE_SECONDS
        if close:
            self._closing = True
            self._transport.close()


async def serve(gate: Gate, host: str, port: int) -> None:
    """Listen until the process is told to end."""
    connections: set[Connection] = set()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(lambda: Connection(gate, connections), host, port, backlog=512)
    _log(f"gate: listening on {host}:{port}")
    while not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), HEAD_SECONDS / 4)
        except asyncio.TimeoutError:
            now = time.monotonic()
            for connection in [one for one in connections if one.deadline < now]:
                connection.close()
    server.close()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Decide for a proxy what the registry may be asked.")
    parser.add_argument("--listen", default="127.0.0.1:5002", help="ADDRESS:PORT")
    parser.add_argument("--users", required=True, help="users file (htpasswd, bcrypt)")
    parser.add_argument("--policy", required=True, help="permissions.json as the role writes it")
    parser.add_argument("--realm", default="registry", help="what clients show to people who are to log in")
    parser.add_argument(
        "--url", default="", help="where clients reach the registry; empty: as the proxy says"
    )
    options = parser.parse_args(arguments)
    host, _colon, port = options.listen.rpartition(":")
    credentials = Credentials(
        Watched(options.users, Users.parse), _bcrypt.load(), Throttle(Limits()), Settings()
    )
    policy = Watched(options.policy, lambda data: Policy.of(json.loads(data)))
    gate = Gate(policy, credentials, options.realm, options.url)
    asyncio.run(serve(gate, host.strip("[]"), int(port)))


if __name__ == "__main__":
    main()
