# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a registry's Redis forget which blobs there are: a restart alone does not.

Private to the collection: no stable interface.

Just enough of the protocol (RESP 2) to delete keys by pattern; no host needs a library for it.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from ._errors import RegistryError

_PATTERNS = ("blobs::*", "repository::*")
_PORT = 6379
_TIMEOUT_SECONDS = 5.0
_BATCH = 1000


class RedisError(RegistryError):
    """Redis cannot be reached, or refuses."""


class Redis(NamedTuple):
    """Where it is, and how to log in."""

    host: str
    port: int
    username: str
    password: str
    database: int


def configured(config: Mapping[str, Any]) -> Redis | None:
    """The Redis that a registry's configuration (2.8 or 3.x) uses as its cache of blobs; None without one."""
    cache = (config.get("storage") or {}).get("cache") or {}
    if "redis" not in (cache.get("blobdescriptor"), cache.get("layerinfo")):
        return None
    redis = config.get("redis") or {}
    addresses = redis.get("addrs") or [redis.get("addr") or ""]
    host, _colon, port = str(addresses[0]).rpartition(":")
    if not port.isdigit():
        host, port = str(addresses[0]), str(_PORT)
    return Redis(
        host.strip("[]") or "127.0.0.1",
        int(port),
        str(redis.get("username") or ""),
        str(redis.get("password") or ""),
        int(redis.get("db") or 0),
    )


def forget(redis: Redis) -> int:
    """Delete what the registry keeps there of blobs and repositories; how many keys. Raises RedisError."""
    place = f"redis {redis.host}:{redis.port}"
    try:
        connection = socket.create_connection((redis.host, redis.port), _TIMEOUT_SECONDS)
        with connection, connection.makefile("rwb") as stream:
            return _forget(_Session(stream, place), redis)
    except (OSError, ValueError) as error:
        raise RedisError(f"{place}: {error}") from error


def _forget(session: _Session, redis: Redis) -> int:
    if redis.password:
        user = (redis.username,) if redis.username else ()
        session.call("AUTH", *user, redis.password)
    if redis.database:
        session.call("SELECT", str(redis.database))
    return sum(session.delete(pattern) for pattern in _PATTERNS)


class _Stream(Protocol):
    """What socket.makefile() returns."""

    def write(self, data: bytes, /) -> int: ...

    def flush(self) -> None: ...

    def read(self, size: int, /) -> bytes: ...

    def readline(self) -> bytes: ...


class _Session:
    def __init__(self, stream: _Stream, place: str) -> None:
        self._stream = stream
        self._place = place

    def delete(self, pattern: str) -> int:
        deleted, cursor = 0, b"0"
        while True:
            cursor, keys = self.call("SCAN", cursor, "MATCH", pattern, "COUNT", str(_BATCH))
            if keys:
                deleted += self.call("UNLINK", *keys)
            if cursor == b"0":
                return deleted

    def call(self, *words: str | bytes) -> Any:
        parts = [word.encode() if isinstance(word, str) else word for word in words]
        self._stream.write(b"*%d\r\n" % len(parts))
        for part in parts:
            self._stream.write(b"$%d\r\n%s\r\n" % (len(part), part))
        self._stream.flush()
        return self._answer()

    def _answer(self) -> Any:
        line = self._stream.readline()
        if not line.endswith(b"\r\n"):
            raise RedisError(f"{self._place}: it closed the connection")
        kind, text = line[:1], line[1:-2]
        if kind == b"-":
            raise RedisError(f"{self._place}: {text.decode(errors='replace')}")
        if kind == b":":
            return int(text)
        if kind == b"$":
            length = int(text)
            return None if length < 0 else self._stream.read(length + 2)[:-2]
        if kind == b"*":
            return [self._answer() for _index in range(int(text))]
        return text
