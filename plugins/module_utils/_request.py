# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a request to the registry needs, read from its target exactly as the client sent it.

    read_request("GET", "/v2/team/app/manifests/1.0").needs == (Need("pull", "team/app"),)

Every path has one spelling here. Whatever could be read in two ways (percent-encoding, empty or dotted parts, a
parameter twice, a form in the body) is refused, so that the proxy, the gate and the registry never understand a
request differently.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

from ._errors import RegistryError
from ._reference import Digest, InvalidReference, parse_repository, parse_tag

PULL, PUSH, DELETE = "pull", "push", "delete"
#: To ask whether something is there, not what: who may push has to, before it sends a layer.
LOOK = "look"

#: The longest that clients send carries the state of an upload: some 700 bytes.
MAX_TARGET = 4096

_READING = ("GET", "HEAD")
_RIGHT = {"GET": PULL, "HEAD": LOOK, "POST": PUSH, "PUT": PUSH, "PATCH": PUSH, "DELETE": DELETE}
_METHODS = (*_RIGHT, "OPTIONS")

_PATH = re.compile(r"/v2/[A-Za-z0-9._:/=-]*")
_UPLOAD = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PARAMETER = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)=((?:[A-Za-z0-9._~:/=@,*+-]|%[0-9A-Fa-f]{2})*)")
_VISIBLE = re.compile(r"[\x20-\x7e]*")


class Refused(RegistryError):
    """A request that nobody may make; the message says why, without repeating it."""


class Need(NamedTuple):
    """One right that a request needs. Without a repository: on all of them."""

    permission: str
    repository: str | None


class Request(NamedTuple):
    #: What all of has to be allowed. Empty: the base of the API, for everybody who may log in.
    needs: tuple[Need, ...]
    #: Whether it tells anybody what the methods are, and nothing else.
    open: bool = False


def read_request(method: str, target: str, content_type: str = "") -> Request:
    """What this request needs. `target` is the raw request target: path and query. Raises Refused."""
    if method not in _METHODS:
        raise Refused("the registry has no such method")
    if len(target) > MAX_TARGET:
        raise Refused(f"the address is longer than {MAX_TARGET} characters")
    # The registry takes mount and from out of forms in the body, where nobody in front of it can see them.
    if "form" in content_type.lower():
        raise Refused("the registry takes no forms: send no Content-Type, or application/octet-stream")
    path, question, query = target.partition("?")
    if not _PATH.fullmatch(path):
        raise Refused("the path is not a plain path of the registry's API, /v2/…")
    needs, open_to_all = _needs_of_path(method, path[len("/v2/") :])
    if question:
        needs += _needs_of_query(query)
    return Request(needs, open_to_all and method == "OPTIONS")


def _needs_of_path(method: str, path: str) -> tuple[tuple[Need, ...], bool]:
    """The needs, and whether OPTIONS changes nothing there."""
    if path == "":
        _require_method(method, *_READING)
        return (), True
    if path == "_catalog":
        _require_method(method, *_READING)
        return (Need(PULL, None),), True
    parts = path.split("/")
    if parts[-3:-1] == ["blobs", "uploads"]:
        return _needs_of_upload(method, _repository(parts[:-3]), parts[-1])
    _require(len(parts) > 2, "the registry's API has no such path")
    repository, kind, last = _repository(parts[:-2]), parts[-2], parts[-1]
    if kind == "tags" and last == "list":
        _require_method(method, *_READING)
        return (Need(PULL, repository),), True
    if kind == "manifests":
        _require_method(method, *_READING, "PUT", "DELETE")
        _require(_is_tag(last) or _is_digest(last), "there is neither a tag nor a digest behind manifests/")
    elif kind == "blobs":
        _require_method(method, *_READING, "DELETE")
        _require(_is_digest(last), "there is no digest behind blobs/")
    elif kind == "referrers":
        _require_method(method, *_READING)
        _require(_is_digest(last), "there is no digest behind referrers/")
        return (Need(PULL, repository),), True
    else:
        raise Refused("the registry's API has no such path")
    return (Need(_RIGHT.get(method, PULL), repository),), True


def _needs_of_upload(method: str, repository: str, upload: str) -> tuple[tuple[Need, ...], bool]:
    """Uploads are part of a push, whatever is done to them. That an upload belongs to the repository in its path,
    the registry checks itself: both are in the signed state that the client has to send back."""
    if not upload:
        _require_method(method, "POST")
        return (Need(PUSH, repository),), True
    _require(_UPLOAD.fullmatch(upload) is not None, "there is no upload behind uploads/")
    _require_method(method, *_READING, "PATCH", "PUT", "DELETE")
    # Already on OPTIONS the registry opens the upload, and cancels it where the state is an old one.
    return (Need(PUSH, repository),), False


def _needs_of_query(query: str) -> tuple[Need, ...]:
    parameters: dict[str, str] = {}
    for pair in query.split("&"):
        match = _PARAMETER.fullmatch(pair)
        if match is None:
            raise Refused("the query is not made of plain name=value pairs")
        name, value = match.groups()
        if name in parameters:
            raise Refused(f"the parameter {name} is there more than once")
        parameters[name] = unquote(value, encoding="latin-1")
        _require(_VISIBLE.fullmatch(parameters[name]) is not None, "the query holds more than plain text")
    if "mount" in parameters:
        _require(_is_digest(parameters["mount"]), "mount is not a digest")
    if "from" not in parameters:
        return ()
    return (Need(PULL, _repository([parameters["from"]])),)


def _repository(parts: list[str]) -> str:
    try:
        return parse_repository("/".join(parts))
    except InvalidReference:
        raise Refused("there is no name of a repository where one belongs") from None


def _is_digest(text: str) -> bool:
    try:
        Digest(text)
    except InvalidReference:
        return False
    return True


def _is_tag(text: str) -> bool:
    try:
        parse_tag(text)
    except InvalidReference:
        return False
    return True


def _require_method(method: str, *allowed: str) -> None:
    _require(method in allowed or method == "OPTIONS", "this path has no such method")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise Refused(message)
