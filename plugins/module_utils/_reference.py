# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parse and print image references and digests, by the grammar of the OCI distribution specification.

A reference here never names a host: the registry is known from elsewhere, and a repository may well be called
`docker.io/library/alpine`, so a host cannot be told from a path by its looks.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple

from ._errors import RegistryError

if TYPE_CHECKING:
    from hashlib import _Hash

REPOSITORY_LENGTH = 255
TAG_LENGTH = 128
HEX_LENGTHS = {"sha256": 64, "sha512": 128}

_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_DIGEST = re.compile("|".join(rf"{name}:[0-9a-f]{{{length}}}" for name, length in HEX_LENGTHS.items()))
_HOST = re.compile(r"[A-Za-z0-9.-]+:[0-9]+|\[[0-9A-Fa-f:.]+\](?::[0-9]+)?")


class InvalidReference(RegistryError):
    """A text that is no reference, repository, tag or digest; the message says what is wrong with it."""


class Digest(str):
    """The digest of some content, for example `sha256:` and 64 hexadecimal digits.

    It is a text, so that it sorts, compares and serialises as one. Digest(text) raises InvalidReference
    unless the text is a complete, canonical digest of an algorithm that registries use (sha256, sha512).
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Digest:
        if not (isinstance(text, str) and _DIGEST.fullmatch(text)):
            raise InvalidReference(_digest_fault(text))
        return super().__new__(cls, text)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of these bytes."""
        return cls(f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}")

    @property
    def algorithm(self) -> str:
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        return self.partition(":")[2]

    def hasher(self) -> _Hash:
        """A new hash object of its algorithm, to be fed the content piece by piece."""
        return hashlib.new(self.algorithm)


class Reference(NamedTuple):
    """One image or artifact of a registry: a repository with a tag, a digest or both.

    parse_reference() makes checked ones. str() prints `repository[:tag][@digest]`.
    """

    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.repository}{tag}{digest}"


def parse_reference(text: str) -> Reference:
    """Parse `repository:tag`, `repository@digest` or `repository:tag@digest`.

    A repository alone is refused: nothing is taken for `latest` behind a person's back.
    """
    _check_text(text, "reference")
    _check_no_host(text)
    name, at, digest = text.partition("@")
    repository, colon, tag = name.partition(":")
    try:
        parsed = Reference(
            parse_repository(repository),
            parse_tag(tag) if colon else None,
            Digest(digest) if at else None,
        )
    except InvalidReference as error:
        raise InvalidReference(f"reference {_quote(text)}: {error}") from None
    if not at and not colon:
        raise InvalidReference(
            f"reference {text}: it has no tag and no digest; write {text}:TAG or {text}@sha256:DIGEST"
        )
    return parsed


def parse_repository(text: str) -> str:
    """Check the name of a repository and return it."""
    _check_text(text, "repository")
    if len(text) > REPOSITORY_LENGTH:
        raise InvalidReference(
            f"repository {_quote(text)}: {len(text)} characters; at most {REPOSITORY_LENGTH} are allowed"
        )
    if not _REPOSITORY.fullmatch(text):
        _check_no_host(text)
        raise InvalidReference(f"repository {_quote(text)}: {_repository_fault(text)}")
    return text


def parse_tag(text: str) -> str:
    """Check a tag and return it."""
    _check_text(text, "tag")
    if "/" in text:
        raise InvalidReference(f"tag {_quote(text)}: a tag has no '/'; a path belongs to the repository")
    if len(text) > TAG_LENGTH:
        raise InvalidReference(
            f"tag {_quote(text)}: {len(text)} characters; at most {TAG_LENGTH} are allowed"
        )
    if not _TAG.fullmatch(text):
        raise InvalidReference(
            f"tag {_quote(text)}: only the letters a-z and A-Z, digits, '_', '.' and '-' are allowed, "
            "and the first is neither '.' nor '-'"
        )
    return text


def looks_like_host(repository: str) -> bool:
    """Whether docker would take the first part of this name for a host, as in `registry.example.org/app`."""
    first, slash, _rest = repository.partition("/")
    return bool(slash) and ("." in first or first == "localhost")


def _check_text(text: object, what: str) -> None:
    if not isinstance(text, str):
        raise InvalidReference(
            f"{what} {_quote(text)}: it must be text, not {type(text).__name__}; put it in quotes in YAML"
        )
    if not text:
        raise InvalidReference(f"{what}: it is empty")
    if any(character.isspace() for character in text):
        raise InvalidReference(f"{what} {_quote(text)}: it contains whitespace")


def _check_no_host(text: str) -> None:
    """Refuse a host where it cannot be anything else: with a scheme, a port, or an address in brackets."""
    if "://" in text:
        raise InvalidReference(
            f"reference {_quote(text)}: leave the scheme and the host out; it begins with the repository"
        )
    first, _slash, rest = text.partition("/")
    if rest and _HOST.fullmatch(first):
        raise InvalidReference(
            f"reference {_quote(text)}: leave the host out and write {_quote(rest)} "
            "(and if this was meant as a tag: a tag has no '/')"
        )


def _repository_fault(text: str) -> str:
    if text.startswith("/") or text.endswith("/") or "//" in text:
        return "a '/' stands between two parts, none of which is empty"
    if _REPOSITORY.fullmatch(text.lower()):
        return f"capital letters are not allowed; {text.lower()} would be"
    if "@" in text or ":" in text:
        return "it is a name without tag and digest"
    return (
        "each part consists of a-z and 0-9, separated inside by one '.', one or two '_' or any number of '-'"
    )


def _digest_fault(text: object) -> str:
    if not isinstance(text, str):
        return f"digest {_quote(text)}: it must be text, not {type(text).__name__}"
    algorithm, colon, value = text.partition(":")
    length = HEX_LENGTHS.get(algorithm)
    if not text:
        fault = "it is empty"
    elif not colon:
        fault = "it has no algorithm; write sha256: and 64 hexadecimal digits"
    elif length is None:
        fault = f"the algorithm must be one of {', '.join(HEX_LENGTHS)}, in small letters"
    elif len(value) != length:
        fault = f"{algorithm} has {length} hexadecimal digits, not {len(value)}; a short form is not enough"
    elif re.fullmatch(r"[0-9A-Fa-f]+", value):
        fault = "the hexadecimal digits must be small letters"
    else:
        fault = "it contains something that is no hexadecimal digit"
    return f"digest {_quote(text)}: {fault}"


def _quote(value: object) -> str:
    """The value on one short line, whatever control characters a person or a file put into it."""
    shown = value if isinstance(value, str) and value.isprintable() else repr(value)
    return shown if len(shown) <= 160 else f"{shown[:157]}..."
