# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets made by a machine: generated once, kept in a file that only its owner reads.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import NamedTuple

from ._errors import RegistryError
from ._files import Attributes, FileError, atomic_write, ensure_attributes, locked, read_file, require_folder

#: What check mode shows where a real run would make a secret.
PLACEHOLDER = "(check mode: a real run makes this secret)"

MIN_BITS = 128
# Longer ones would not fit into the 72 bytes that bcrypt looks at.
MAX_BITS = 384

_CHECK_LENGTH = 4

# C0, DEL, C1, and what the decoder makes of bytes that are no UTF-8.
_CONTROL_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Secret(NamedTuple):
    """A secret and what had to be done to have it."""

    value: str
    #: Whether it was (in check mode: would be) made now.
    created: bool
    #: Whether its file's owner or mode had to be put right.
    corrected: bool


def has_control_characters(text: str) -> bool:
    """Whether there are line ends and their like, or bytes that are no text."""
    return _CONTROL_CHARACTER.search(text) is not None


def generate(bits: int = 192) -> str:
    """A new secret of at least `bits` random bits: letters, digits, `-` and `_`, a letter first.

    Safe in URLs, shells and YAML without quotes. Its last four characters are a checksum, by which
    is_generated() tells it from a password that a person chose.
    """
    if not MIN_BITS <= bits <= MAX_BITS:
        raise RegistryError(f"generate a secret of {bits} bits: allowed are {MIN_BITS} to {MAX_BITS}")
    while True:
        # One byte more than asked for makes up for the first characters that are refused.
        body = secrets.token_urlsafe(bits // 8 + 1)
        if body[0].isalpha():
            return body + _checksum(body)


def is_generated(value: str) -> bool:
    """Whether generate() made this value, or will (PLACEHOLDER): enough random bits to need no slow hash."""
    if value == PLACEHOLDER:
        return True
    body, check = value[:-_CHECK_LENGTH], value[-_CHECK_LENGTH:]
    return len(body) * 6 >= MIN_BITS and secrets.compare_digest(
        _checksum(body).encode(), check.encode("utf-8", "surrogatepass")
    )


def ensure_secret(
    path: str | os.PathLike[str],
    *,
    bits: int = 192,
    attributes: Attributes | None = None,
    lock_timeout: float = 60,
    check_mode: bool = False,
) -> Secret:
    """The secret kept in the file `path`, made now where there is none; mode 0600 unless told otherwise.

    Parallel runs get the same secret. A value that a person wrote into the file is kept. An empty or damaged
    file is a FileError that names it: what used the old value should not silently get another one. Check mode
    makes and changes nothing and gives PLACEHOLDER for a missing secret.
    """
    wanted = attributes or Attributes(0o600)
    value = _read(path)
    if value is None and check_mode:
        return Secret(PLACEHOLDER, created=True, corrected=False)
    if value is None:
        require_folder(path)
        with locked(Path(path).with_name(".secrets.lock"), timeout=lock_timeout):
            value = _read(path)
            if value is None:
                value = generate(bits)
                data = f"{value}\n".encode()
                atomic_write(path, data, mode=wanted.mode, uid=wanted.uid, gid=wanted.gid)
                return Secret(value, created=True, corrected=False)
    return Secret(value, created=False, corrected=ensure_attributes(path, wanted, check_mode=check_mode))


def _read(path: str | os.PathLike[str]) -> str | None:
    found = read_file(path)
    if found is None:
        return None
    try:
        value = found[0].decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise _damaged(path, "not UTF-8 text") from None
    if not value.strip():
        raise _damaged(path, "empty")
    if has_control_characters(value):
        raise _damaged(path, "more than one line, or control characters")
    if value != value.strip():
        raise _damaged(path, "leading or trailing blanks")
    return value


def _damaged(path: str | os.PathLike[str], cause: str) -> FileError:
    return FileError(
        f"secret {os.fspath(path)}: {cause}; put the right value back, or remove the file to get a new secret"
    )


def _checksum(body: str) -> str:
    digest = hashlib.sha256(body.encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(digest[:3]).decode("ascii")
