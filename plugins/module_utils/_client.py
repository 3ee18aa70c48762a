# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Client of the distribution API: what a registry offers over HTTP, as plain calls with typed errors.

Works with registry 2.8 and 3.x. Where they differ, the method's description says so.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from ._http import (
    VERSION_HEADER,
    Answer,
    ClientError,
    Forbidden,
    InvalidConnection,
    Misdirected,
    NotARegistry,
    NotFound,
    Refused,
    ServerError,
    Timeout,
    TooManyRequests,
    Transport,
    Truncated,
    Unauthorized,
    Unreachable,
    Unsupported,
    WrongTls,
)
from ._media import ALL_MANIFEST_TYPES, is_manifest, is_schema1
from ._reference import Digest, InvalidReference

__all__ = [
    "ClientError",
    "Forbidden",
    "InvalidConnection",
    "Manifest",
    "Misdirected",
    "NotARegistry",
    "NotFound",
    "Refused",
    "RegistryClient",
    "Resolved",
    "ServerError",
    "Timeout",
    "TooManyRequests",
    "Truncated",
    "Unauthorized",
    "Unreachable",
    "Unsupported",
    "WrongTls",
]

Item = TypeVar("Item")
Result = TypeVar("Result")

CATALOG_PAGE = 1000  # the most that either registry gives by default
QUEUE_FACTOR = 4  # results that map() lets wait, per connection, for a slow one before them


class Resolved(NamedTuple):
    """What a tag or digest stands for at this moment: `size` is the manifest's own, in bytes."""

    digest: Digest
    media_type: str
    size: int


class Manifest(NamedTuple):
    """A manifest as it is stored, byte for byte; `digest` has been verified against `raw`."""

    raw: bytes
    media_type: str
    digest: Digest


class RegistryClient:
    """The registry at `url`, for any number of threads at once.

    `url` is http:// or https://, host, perhaps port and path. User and password are sent with every request
    and never shown. `ca_file` (PEM) stands instead of the system's certificate authorities; `verify=False`
    accepts any certificate. `connect_to` is an address to connect to
    instead of the host's own. `timeout` is in seconds and counts for each wait on the network. `connections`
    bounds map(). Requests that may be repeated are, `retries` times, after connections broken off and the
    statuses 429, 502, 503 and 504: `backoff` seconds before the first retry, doubled for each further one,
    and longer where the registry asks for it.

    Repositories, tags and digests are expected to be valid, as `_reference` checks them. Every method raises
    ClientErrors; those named in its description are the ones that a caller may want to tell apart.
    """

    def __init__(
        self,
        url: str,
        *,
        username: str | None = None,
        password: str | None = None,
        ca_file: str | None = None,
        verify: bool = True,
        timeout: float = 30.0,
        connections: int = 8,
        retries: int = 4,
        backoff: float = 0.2,
        connect_to: str | None = None,
    ) -> None:
        self._http = Transport(
            url,
            username=username,
            password=password,
            ca_file=ca_file,
            verify=verify,
            timeout=timeout,
            connections=connections,
            retries=retries,
            backoff=backoff,
            connect_to=connect_to,
        )
        self.url = self._http.url
        self.connections = connections
        self._root = f"{self._http.base}/v2/"
        self._manifest_headers = {**self._http.headers, "Accept": ", ".join(ALL_MANIFEST_TYPES)}

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections; the client stays usable."""
        self._http.close()

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Call `function` for each item, as many at once as there are connections, and yield in order.

        Lazy on both sides: `items` may be a generator of any length, and nothing happens until the results
        are asked for. The first exception ends it; items not begun by then are left alone.
        """
        with ThreadPoolExecutor(self.connections) as executor:
            waiting: deque[Future[Result]] = deque()
            try:
                for item in items:
                    waiting.append(executor.submit(function, item))
                    if len(waiting) >= self.connections * QUEUE_FACTOR:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def ping(self) -> int:
        """Ask whether this registry lets us in: the status, 200 or 401, is returned."""
        try:
            self.api_version()
        except Unauthorized as error:
            return error.status
        return 200

    def api_version(self) -> str:
        """What the registry says it speaks, `registry/2.0`; Unauthorized when it does not let us in."""
        answer = self._http.request(f"ask {self.url}", "GET", self._root, (200,))
        return str(answer.headers[VERSION_HEADER])

    def repositories(self) -> Iterator[str]:
        """The names of all repositories, in the registry's order; emptied ones are among them."""
        first = f"{self._root}_catalog?n={CATALOG_PAGE}"
        # Without n a registry chooses itself: the way out where catalog.maxentries is set lower.
        return self._pages(
            f"list the repositories at {self.url}", first, f"{self._root}_catalog", "repositories"
        )

    def tags(self, repository: str) -> Iterator[str]:
        """The tags of a repository, perhaps none; NotFound (kind repository) where it never had one."""
        # Without n all come in one answer, for which the registry reads its directory once.
        first = self._path(repository, "tags", "list")
        return self._pages(f"list the tags of {repository} at {self.url}", first, first, "tags")

    def resolve(self, repository: str, reference: str) -> Resolved:
        """What a tag or digest stands for; NotFound (kind manifest) when it is not there."""
        what = f"resolve {_name(repository, reference)} at {self.url}"
        target = self._path(repository, "manifests", reference)
        headers = self._http.request(what, "HEAD", target, (200,), headers=self._manifest_headers).headers
        digest = headers.get("Docker-Content-Digest")
        size = headers.get("Content-Length", "")
        media_type = headers.get_content_type()
        if digest is None or not size.isdecimal() or not is_manifest(media_type):
            manifest = self.manifest(repository, reference)
            return Resolved(manifest.digest, manifest.media_type, len(manifest.raw))
        return Resolved(_digest(what, digest), media_type, int(size))

    def manifest(self, repository: str, reference: str) -> Manifest:
        """The manifest of a tag or digest; NotFound (kind manifest), Truncated when its bytes are damaged."""
        what = f"read manifest {_name(repository, reference)} at {self.url}"
        target = self._path(repository, "manifests", reference)
        answer = self._http.request(what, "GET", target, (200,), headers=self._manifest_headers)
        media_type = answer.headers.get_content_type()
        if not is_manifest(media_type):
            raise NotARegistry(what, f"it answers with {media_type}, which is no manifest")
        content = _signed_content(what, answer.body) if is_schema1(media_type) else answer.body
        stated = reference if ":" in reference else answer.headers.get("Docker-Content-Digest")
        digest = _digest(what, stated) if stated else Digest.of(content)
        _verify(what, digest, content)
        return Manifest(answer.body, media_type, digest)

    def put_manifest(self, repository: str, reference: str, raw: bytes, media_type: str) -> Digest:
        """Store a manifest under a tag or its digest; what it refers to must be there already."""
        what = f"push manifest {_name(repository, reference)} at {self.url}"
        target = self._path(repository, "manifests", reference)
        headers = {**self._http.headers, "Content-Type": media_type}
        answer = self._http.request(what, "PUT", target, (201,), headers=headers, body=raw)
        return _digest(what, answer.headers.get("Docker-Content-Digest") or Digest.of(raw))

    def delete_manifest(self, repository: str, digest: Digest) -> None:
        """Delete a manifest and with it every tag that stands for it; NotFound, Unsupported."""
        self._delete(
            f"delete {repository}@{digest} at {self.url}", self._path(repository, "manifests", digest)
        )

    def delete_tag(self, repository: str, tag: str) -> None:
        """Delete a tag and leave its manifest.

        NotFound; Unsupported, with reason TAG_DELETE on registry 2.8, which has no such call.
        """
        what = f"delete {repository}:{tag} at {self.url}"
        try:
            self._delete(what, self._path(repository, "manifests", tag))
        except Refused as error:
            if error.code != "DIGEST_INVALID":
                raise
            raise Unsupported(
                what,
                "this registry (2.8) deletes by digest only, which takes all tags of that digest",
                reason=Unsupported.TAG_DELETE,
                status=error.status,
                code=error.code,
            ) from None

    def blob_size(self, repository: str, digest: Digest) -> int:
        """The size of a blob in bytes; NotFound (kind blob) when this repository does not have it."""
        what = f"look for blob {repository}@{digest} at {self.url}"
        target = self._path(repository, "blobs", digest)
        answer = self._http.request(what, "HEAD", target, (200,), follow=True)
        size = answer.headers.get("Content-Length", "")
        if not size.isdecimal():
            raise NotARegistry(what, "the answer does not state the size")
        return int(size)

    def pull_blob(self, repository: str, digest: Digest, sink: Callable[[bytes], object]) -> int:
        """Hand the content of a blob to `sink`, piece by piece, and return its size in bytes.

        Raises Truncated when the content is not what the digest says: by then `sink` has seen it.
        """
        what = f"pull blob {repository}@{digest} at {self.url}"
        hasher = digest.hasher()
        size = 0
        for chunk in self._http.stream(what, self._path(repository, "blobs", digest)):
            hasher.update(chunk)
            size += len(chunk)
            sink(chunk)
        if hasher.hexdigest() != digest.hex:
            raise Truncated(what, _damage(size))
        return size

    def push_blob(self, repository: str, data: bytes) -> Digest:
        """Store a blob; the registry verifies what it received."""
        digest = Digest.of(data)
        what = f"push blob {repository}@{digest} at {self.url}"
        headers = {**self._http.headers, "Content-Type": "application/octet-stream"}

        def once() -> None:
            # An upload that broke off cannot be taken up again, so a retry begins a new one.
            session = self._start_upload(what, self._path(repository, "blobs", "uploads/"))
            self._http.request(
                what,
                "PUT",
                _with_query(session, digest=digest),
                (201,),
                headers=headers,
                body=data,
                retry=False,
            )

        self._http.retry(once)
        return digest

    def upload_blob(self, repository: str, digest: Digest, chunks: Callable[[], Iterable[bytes]]) -> None:
        """Store a blob of any size, piece by piece. After a broken connection `chunks` is called again."""
        what = f"push blob {repository}@{digest} at {self.url}"
        headers = {**self._http.headers, "Content-Type": "application/octet-stream"}

        def send(method: str, session: str, expected: int, body: bytes | None, span: str = "") -> Answer:
            sent = {**headers, "Content-Range": span} if span else headers
            return self._http.request(
                what, method, session, (expected,), headers=sent, body=body, retry=False
            )

        def once() -> None:
            session = self._start_upload(what, self._path(repository, "blobs", "uploads/"))
            start = 0
            for chunk in chunks():
                answer = send("PATCH", session, 202, chunk, f"{start}-{start + len(chunk) - 1}")
                session = self._http.own_target(what, session, _location(what, answer))
                start += len(chunk)
            send("PUT", _with_query(session, digest=digest), 201, None)

        self._http.retry(once)

    def mount_blob(self, repository: str, digest: Digest, source: str) -> bool:
        """Make a blob of the repository `source` known in `repository`; False when it is not there."""
        what = f"mount blob {source}@{digest} in {repository} at {self.url}"
        uploads = self._path(repository, "blobs", "uploads/")
        target = f"{uploads}?{urlencode({'mount': digest, 'from': source})}"
        answer = self._http.request(what, "POST", target, (201, 202))
        if answer.status == 202:  # the registry began an upload instead, which nobody will send
            session = self._http.own_target(what, target, _location(what, answer))
            self._http.request(what, "DELETE", session, (204,), retry=False)
        return answer.status == 201

    def delete_blob(self, repository: str, digest: Digest) -> None:
        """Take a blob out of a repository, whether or not a manifest needs it; NotFound, Unsupported.

        The bytes stay on disk until garbage collection.
        """
        self._delete(
            f"delete blob {repository}@{digest} at {self.url}", self._path(repository, "blobs", digest)
        )

    def _path(self, repository: str, place: str, name: str) -> str:
        return f"{self._root}{quote(repository)}/{place}/{quote(name, safe='/:')}"

    def _start_upload(self, what: str, target: str) -> str:
        answer = self._http.request(what, "POST", target, (202,), retry=False)
        return self._http.own_target(what, target, _location(what, answer))

    def _delete(self, what: str, target: str) -> None:
        try:
            self._http.request(what, "DELETE", target, (202,))
        except NotFound as error:
            # Gone already, and by our own hand: the answer to an earlier attempt got lost.
            if not error.retried:
                raise

    def _pages(self, what: str, first: str, fallback: str, key: str) -> Iterator[str]:
        """The texts under `key` of each page, following the Link to the next one."""
        seen = set()
        target = first
        while target not in seen:
            seen.add(target)
            try:
                answer = self._http.request(what, "GET", target, (200,))
            except Refused as error:
                if error.code != "PAGINATION_NUMBER_INVALID" or target == fallback:
                    raise
                target = fallback
                continue
            yield from _texts(what, answer.body, key)
            link = _next_link(answer)
            if not link:
                return
            target = self._http.own_target(what, target, link)
        raise NotARegistry(what, "its pages lead back to one already read")


def _name(repository: str, reference: str) -> str:
    return f"{repository}{'@' if ':' in reference else ':'}{reference}"


def _location(what: str, answer: Answer) -> str:
    location = answer.headers.get("Location")
    if not location:
        raise NotARegistry(what, "the answer does not say where to send the content (no Location)")
    return location


def _with_query(target: str, **query: str) -> str:
    return f"{target}{'&' if '?' in target else '?'}{urlencode(query)}"


def _next_link(answer: Answer) -> str:
    """The address of the next page, from a header such as `</v2/_catalog?last=b>; rel="next"`."""
    for link in answer.headers.get_all("Link", []):
        address, _semicolon, parameters = link.partition(">")
        if 'rel="next"' in parameters or "rel=next" in parameters:
            return address.strip().lstrip("<")
    return ""


def _texts(what: str, body: bytes, key: str) -> list[str]:
    """The list of texts under `key` in a JSON object; null, which registry 2.8 sends for none, is empty."""
    try:
        texts = json.loads(body)[key]
    except (ValueError, LookupError, TypeError):
        raise NotARegistry(what, f"the answer is no JSON object with {key}") from None
    if texts is None:
        return []
    if not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
        raise NotARegistry(what, f"{key} in the answer is no list of texts")
    return texts


def _digest(what: str, text: str) -> Digest:
    try:
        return Digest(text)
    except InvalidReference as error:
        raise NotARegistry(what, f"the answer names no digest: {error}") from None


def _verify(what: str, digest: Digest, content: bytes) -> None:
    if Digest.of(content, digest.algorithm) != digest:
        raise Truncated(what, _damage(len(content)))


def _damage(size: int) -> str:
    return (
        f"the {size} bytes received are not the content of that digest; "
        "try again, and if it stays so check the registry's storage"
    )


def _signed_content(what: str, raw: bytes) -> bytes:
    """What the digest of a schema 1 manifest covers: all but the signatures that were added to it."""
    try:
        document: dict[str, Any] = json.loads(raw)
        if "signatures" not in document:
            return raw
        protected = json.loads(_base64url(document["signatures"][0]["protected"]))
        return raw[: protected["formatLength"]] + _base64url(protected["formatTail"])
    except (ValueError, LookupError, TypeError):
        raise NotARegistry(what, "the answer is no schema 1 manifest") from None


def _base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
