# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Passwords and their bcrypt hashes: what is allowed, what a hash costs, hashing and verifying.

Private to the collection: no stable interface. bcrypt is reached through passlib, loaded on first use.
"""

from __future__ import annotations

import functools
import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any, cast

from ._errors import RegistryError
from ._secrets import has_control_characters, is_generated

#: The registry runs bcrypt on every request. Cost 10 is about 64 ms of its CPU and each step doubles it; a
#: password that nobody can guess anyway needs no more than cost 5, about 3 ms.
CHOSEN_COST = 10
GENERATED_COST = 5
MIN_COST = 4
MAX_COST = 15

#: bcrypt ignores what comes after: two passwords that differ there only would be the same.
MAX_BYTES = 72

_HASH = re.compile(r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")

_loading = threading.Lock()

_OTHER_HASHES = (
    ("$apr1$", "an MD5 (apr1) hash"),
    ("{SHA}", "a SHA-1 hash"),
    ("$5$", "a SHA-256 hash"),
    ("$6$", "a SHA-512 hash"),
    ("$argon2", "an Argon2 hash"),
    ("$2", "a damaged bcrypt hash"),
)


class HashingUnavailable(RegistryError):
    """passlib or bcrypt is missing, or the two do not work together."""


def default_cost(password: str) -> int:
    """The bcrypt cost for a password when nobody asks for another."""
    return GENERATED_COST if is_generated(password) else CHOSEN_COST


def cost_of(password_hash: str) -> int | None:
    """The cost of a bcrypt hash that the registry accepts; None for everything else."""
    match = _HASH.fullmatch(password_hash)
    return int(match.group(1)) if match else None


def split(field: str) -> tuple[str, str]:
    """What the registry sees behind a user name: the hash, and what it ignores after that."""
    match = _HASH.match(field)
    end = match.end() if match else len(field)
    return field[:end], field[end:]


def kind_of(password_hash: str) -> str:
    """What a hash, or what stands in its place, is in words; never any part of it."""
    cost = cost_of(password_hash)
    if cost is not None:
        return f"bcrypt, cost {cost}"
    for prefix, kind in _OTHER_HASHES:
        if password_hash.startswith(prefix):
            return kind
    return "a plain password or an old crypt hash"


def sample(cost: int) -> str:
    """Something of the shape of a bcrypt hash that belongs to no password: for check mode."""
    return f"$2y${cost:02d}${'.' * 53}"


def problem_of(password: str) -> str | None:
    """Why the registry's users file cannot hold this password; None where it can."""
    if not password:
        return "the password is empty"
    if has_control_characters(password):
        return "the password holds a line end or another control character"
    length = len(password.encode("utf-8"))
    if length > MAX_BYTES:
        return f"the password has {length} bytes; bcrypt looks at no more than the first {MAX_BYTES}"
    return None


def load() -> Any:
    """Load passlib's bcrypt and try it out, once. Raises HashingUnavailable."""
    # passlib's own loading fails where several threads begin at once.
    with _loading:
        return _load()


@functools.cache
def _load() -> Any:
    try:
        with _quiet():
            from passlib.hash import bcrypt  # a host where nothing is hashed needs neither

            bcrypt.set_backend("bcrypt")
            bcrypt.using(rounds=MIN_COST).hash("a trial")
    except ImportError as error:
        raise _unavailable(f"{error.name or 'passlib'} is missing") from error
    except RuntimeError as error:  # passlib's MissingBackendError is one
        raise _unavailable("bcrypt is missing") from error
    except (AttributeError, TypeError, ValueError) as error:
        # passlib 1.7.4 tries bcrypt out with more than 72 bytes, which bcrypt 5 refuses.
        raise _unavailable(f"the two do not work together ({error})") from error
    return bcrypt


def make_hash(password: str, cost: int) -> str:
    """A new bcrypt hash. Several threads compute at the same time: bcrypt releases the interpreter lock."""
    return cast("str", load().using(rounds=cost, ident="2y", truncate_error=True).hash(password))


def verify(password: str, password_hash: str) -> bool:
    """Whether a bcrypt hash belongs to a password. For threads, as make_hash()."""
    return cast("bool", load().verify(password, password_hash))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep passlib from showing what harms nothing: it cannot tell the version of bcrypt 4, crypt is old."""
    logger = logging.getLogger("passlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _unavailable(cause: str) -> HashingUnavailable:
    found = ", ".join(
        f"{name} {version}" for name in ("passlib", "libpass", "bcrypt") if (version := _version(name))
    )
    return HashingUnavailable(
        f"hash a password with passlib and bcrypt: {cause}; {sys.executable} has {found or 'neither'}. "
        "Install the Debian packages python3-passlib and python3-bcrypt, or passlib and a bcrypt older than 5"
    )


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
