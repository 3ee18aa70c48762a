# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps what Python compiles out of zip files, which it otherwise compiles again each time.

Ansible ships each module as a zip file to a new interpreter, so that a play of forty tasks compiles the same files
forty times. Python loads this at its start where PYTHONPATH names its folder; DOCKYARD_BYTECODE is the folder to keep
things in, which exists.
"""

from __future__ import annotations

import _imp
import marshal
import os
import zipimport
from types import CodeType

_FOLDER = os.environ.get("DOCKYARD_BYTECODE", "")
_compile = zipimport._compile_source  # type: ignore[attr-defined]
# zipimport asks for each file twice: first for its name only.
_asked: dict[str, CodeType] = {}


def _kept(pathname: str, source: bytes) -> CodeType:
    """What `source` compiles to. In tracebacks it names the zip file of the run that compiled it."""
    if pathname in _asked:
        return _asked.pop(pathname)
    code = _asked[pathname] = _kept_code(pathname, source)
    return code


def _kept_code(pathname: str, source: bytes) -> CodeType:
    inner = pathname.rpartition(".zip/")[2]
    key = _imp.source_hash(zipimport._bootstrap_external._RAW_MAGIC_NUMBER, inner.encode() + b"\0" + source)  # type: ignore[attr-defined]
    file = f"{_FOLDER}/{key.hex()}"
    try:
        with open(file, "rb") as stream:
            return marshal.load(stream)  # type: ignore[no-any-return]
    except (OSError, ValueError, EOFError):
        pass
    code: CodeType = _compile(pathname, source)
    partial = f"{file}.{os.getpid()}"
    try:
        with open(partial, "wb") as stream:
            marshal.dump(code, stream)
        os.replace(partial, file)  # noqa: PTH105
    except OSError:
        pass  # another user's interpreter, or a full disk: it was compiled all the same
    return code


if _FOLDER:
    zipimport._compile_source = _kept  # type: ignore[attr-defined]
