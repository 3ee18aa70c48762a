# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verify bcrypt hashes with what a bare Python has: the C library's crypt(3), else the package bcrypt.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import ctypes
import hmac
from collections.abc import Callable
from typing import Any

from ._errors import RegistryError

Verify = Callable[[str, str], bool]

# sizeof(struct crypt_data) in libxcrypt; the older one of glibc knows no bcrypt, and fails the trial in load().
_CRYPT_DATA_BYTES = 32_768

_KNOWN = ("U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW")


class BcryptUnavailable(RegistryError):
    """Nothing here can compute bcrypt."""


def load() -> Verify:
    """A function of password and hash, for several threads at a time. Raises BcryptUnavailable."""
    for find in (_from_libcrypt, _from_package):
        verify = find()
        if verify is not None and verify(*_KNOWN) and not verify("U*V", _KNOWN[1]):
            return verify
    raise BcryptUnavailable(
        "verify passwords: the C library's crypt(3) computes no bcrypt, and there is no Python package bcrypt"
    )


def _from_libcrypt() -> Verify | None:
    crypt_r = _find_crypt_r()
    if crypt_r is None:
        return None
    crypt_r.restype = ctypes.c_char_p
    crypt_r.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p]

    def verify(password: str, password_hash: str) -> bool:
        # The registry makes no difference between the kinds; crypt(3) computes a 2a in its own careful way.
        setting = ("$2b" + password_hash[3:]).encode("ascii")
        room = ctypes.create_string_buffer(_CRYPT_DATA_BYTES)
        computed = crypt_r(password.encode("utf-8"), setting, room)
        return computed is not None and hmac.compare_digest(computed, setting)

    return verify


def _find_crypt_r() -> Any:
    for name in ("libcrypt.so.1", "libcrypt.so.2"):
        try:
            # A call through it releases the interpreter lock.
            return ctypes.CDLL(name).crypt_r
        except (OSError, AttributeError):
            continue
    return None


def _from_package() -> Verify | None:
    try:
        import bcrypt
    except ImportError:
        return None

    def verify(password: str, password_hash: str) -> bool:
        return bcrypt.checkpw(password.encode("utf-8"), ("$2b" + password_hash[3:]).encode("ascii"))

    return verify
