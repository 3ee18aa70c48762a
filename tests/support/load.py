# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pushes and pulls that go on while something is done to a registry, and what became of each.

    load = Load(lambda agent: Client(agent, site.url, username="admin", password=...))
    load.leave_garbage(30)
    with load:
        site.play("gc").ok()
    assert load.failed_pulls == []
    load.verify()                       # whatever was ever acknowledged can be pulled

Pushers that are told to wait (429 or 503 with Retry-After) do so and try again, as docker and skopeo do; that is
counted, and is no failure.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from ansible_collections.dockyard.registry.plugins.module_utils._client import (
    ClientError,
    RegistryClient,
    Unreachable,
)
from ansible_collections.dockyard.registry.plugins.module_utils._http import Origin, Transport
from ansible_collections.dockyard.registry.plugins.module_utils._reference import Digest
from ansible_collections.dockyard.registry.plugins.module_utils._storage import Storage

from tests.support.proxied import ProxiedSite
from tests.support.site import Site
from tests.support.store import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST

Result = TypeVar("Result")

DOCKER = "docker/27.3.1 go/go1.22"
SKOPEO = "skopeo/1.18.0"
AGENTS = (DOCKER, SKOPEO)
# Where the layer comes from that images of all repositories share.
BASE_REPOSITORY = "load/base"
#: Under this name every pusher pushes again and again.
MOVING = "latest"
WAIT_STATUSES = frozenset({429, 503})

# After so many answers that say "wait" a client gives up; docker does after five.
_WAITS = 10
_GONE = frozenset({"BLOB_UNKNOWN", "MANIFEST_BLOB_UNKNOWN"})
_LONG_AGO = 1_600_000_000


class _Transport(Transport):
    """Repeats what every client does, and nothing else: a question on a connection that was kept, and that the server
    closed in the moment when it was asked. No server can keep that from happening."""

    _is_new = False

    def _connection(self, origin: Origin) -> HTTPConnection:
        self._is_new = True
        return super()._connection(origin)

    def _send(self, what: str, origin: Origin, method: str, *rest: Any) -> Any:
        self._is_new = False
        try:
            return super()._send(what, origin, method, *rest)
        except Unreachable:
            if self._is_new or method not in ("GET", "HEAD"):
                raise
        return super()._send(what, origin, method, *rest)


class Client(RegistryClient):
    """One that calls itself `agent`, for one thread. What fails once has failed."""

    def __init__(
        self,
        agent: str,
        url: str,
        username: str,
        password: str,
        ca_file: str | None = None,
        connect_to: str | None = None,
    ) -> None:
        super().__init__(url)
        self._http = _Transport(
            url,
            username=username,
            password=password,
            ca_file=ca_file,
            verify=True,
            timeout=60.0,
            connections=1,
            retries=0,
            backoff=0.0,
            connect_to=connect_to,
        )
        self.connections = 1
        self._http.headers["User-Agent"] = agent
        self._manifest_headers.update(self._http.headers)


Connect = Callable[[str], RegistryClient]


class Failure(NamedTuple):
    """A request that failed. `begun` and `ended` are seconds of the monotonic clock."""

    what: str
    begun: float
    ended: float
    #: Of the answer; 0 and "" where there was none.
    status: int
    code: str
    message: str


class Image(NamedTuple):
    """What one push puts into a repository, and in which order."""

    repository: str
    tag: str
    blobs: tuple[bytes, ...]
    #: Bodies with their media types; the last one is tagged.
    manifests: tuple[tuple[bytes, str], ...]

    @property
    def digest(self) -> Digest:
        return Digest.of(self.manifests[-1][0])


class Load:
    """The load, and what became of it. Threads begin and end with the `with` block."""

    def __init__(self, connect: Connect, *, pushers: int = 2, pullers: int = 2, pause: float = 0.02) -> None:
        """`pause` is seconds between two pushes or pulls of a thread."""
        self._connect = connect
        self._pause = pause
        self._random = random.Random(7)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._base = os.urandom(20_000)
        self._garbage: list[Image] = []
        work = [(self._push_on, pusher) for pusher in range(pushers)]
        work += [(self._pull_on, puller) for puller in range(pullers)]
        self._threads = [threading.Thread(target=self._run, args=each) for each in work]
        self._broken: list[BaseException] = []
        #: The image that each name stands for, by the last push that was acknowledged.
        self.acknowledged: dict[tuple[str, str], Image] = {}
        #: What a push that got no answer may have left under a name.
        self._possible: dict[tuple[str, str], set[Digest]] = {}
        self.pushes = 0
        self.pulls = 0
        #: How often a pusher was told to wait, by status, and how many pushes went through after that.
        self.waits: dict[int, int] = {}
        self.delayed_pushes = 0
        #: Garbage that the registry said it had when a push began, and had freed when that ended; people push it again.
        self.pushed_again = 0
        self.failed_pulls: list[Failure] = []
        self.failed_pushes: list[Failure] = []

    def leave_garbage(self, images: int, data: Path) -> None:
        """Images that were deleted, and images that lost their tag to others, all pushed long ago.

        Pushers push some of them again, as people do who build the same thing twice. `data` is the registry's folder.
        """
        client = self._connect(DOCKER)
        client.push_blob(BASE_REPOSITORY, self._base)
        begun = f"load/garbage{len(self._garbage)}"
        garbage = [self._image(f"{begun}-{number % 3}", "doomed") for number in range(images)]
        for number, image in enumerate(garbage):
            self._put(client, image)
            if number % 2:
                client.delete_manifest(image.repository, image.digest)
        for repository in sorted({image.repository for image in garbage}):
            self.push(repository, "doomed")
        _make_old(Storage(data), garbage)
        self._garbage += garbage

    def push(self, repository: str, tag: str) -> Image:
        """Push one image, now."""
        image = self._image(repository, tag)
        self._push_image(self._connect(DOCKER), image)
        return image

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._broken and error is None:
            raise self._broken[0]

    def lost(self) -> list[str]:
        """Pull whatever was acknowledged, and say what is not as it was pushed."""
        client = self._connect(DOCKER)
        return [
            problem
            for (repository, tag), image in self.acknowledged.items()
            if (problem := self._problem(client, repository, tag, image))
        ]

    def verify(self) -> int:
        """Pull whatever was acknowledged, and return how many names that were. Raises AssertionError."""
        lost = self.lost()
        assert not lost, f"{len(lost)} of {len(self.acknowledged)} are lost: {lost[:5]}"
        return len(self.acknowledged)

    def summary(self) -> str:
        return (
            f"{self.pulls} pulls, {len(self.failed_pulls)} failed; {self.pushes} pushes, "
            f"{len(self.failed_pushes)} failed, {self.delayed_pushes} went through after waiting "
            f"(told to: {self.waits or 'never'}); {len(self.acknowledged)} names"
        )

    # Below this line: how

    def _run(self, work: Callable[[int], None], number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            self._broken.append(error)

    # Pushes

    def _push_on(self, number: int) -> None:
        """Push images until the end: new names, one name again and again, several platforms, what was deleted."""
        client = self._connect(AGENTS[number % len(AGENTS)])
        again = self._garbage[: len(self._garbage) // 2] if number == 0 else []
        count = 0
        while not self._stop.wait(self._pause):
            count += 1
            repository = f"load/app{number}"
            if count % 10 == 0 and again:
                image = again.pop()._replace(tag=f"again-{count}")
            elif count % 3 == 0:
                image = self._platforms(repository, f"{count}")
            else:
                image = self._image(repository, MOVING if count % 2 else f"{count}")
            self._push_image(client, image)

    def _push_image(self, client: RegistryClient, image: Image) -> None:
        begun = time.monotonic()
        name = (image.repository, image.tag)
        with self._lock:
            self._possible.setdefault(name, set()).add(image.digest)
        try:
            try:
                waited = self._put(client, image)
            except ClientError as error:
                if error.code not in _GONE:
                    raise
                with self._lock:
                    self.pushed_again += 1
                waited = self._put(client, image)
        except ClientError as error:
            what = f"push {image.repository}:{image.tag}"
            with self._lock:
                self.failed_pushes.append(_failure(what, begun, error))
            return
        with self._lock:
            self.pushes += 1
            self.delayed_pushes += waited
            self.acknowledged[name] = image
            self._possible[name] = {image.digest}

    def _put(self, client: RegistryClient, image: Image) -> bool:
        """Push it as clients do: what the repository has already is not sent. Returns whether it had to wait."""
        repository = image.repository
        waited = False
        for blob in image.blobs:
            digest = Digest.of(blob)
            if not _has(client, repository, digest):
                waited |= self._patiently(partial(self._put_blob, client, repository, blob))
        for raw, media_type in image.manifests[:-1]:
            reference = Digest.of(raw)
            waited |= self._patiently(partial(client.put_manifest, repository, reference, raw, media_type))
        raw, media_type = image.manifests[-1]
        waited |= self._patiently(lambda: client.put_manifest(repository, image.tag, raw, media_type))
        return waited

    def _put_blob(self, client: RegistryClient, repository: str, blob: bytes) -> None:
        if blob is not self._base or not client.mount_blob(repository, Digest.of(blob), BASE_REPOSITORY):
            client.push_blob(repository, blob)

    def _patiently(self, step: Callable[[], object]) -> bool:
        """Do it, and again as long as the answer is to wait. Returns whether it was."""
        waited = broken_off = False
        for _attempt in range(_WAITS):
            try:
                step()
            except ClientError as error:
                if error.transient and not error.status and not broken_off:
                    broken_off = True  # all clients send it once more
                    continue
                if error.status not in WAIT_STATUSES or not error.retry_after:
                    raise
                with self._lock:
                    self.waits[error.status] = self.waits.get(error.status, 0) + 1
                waited = True
                time.sleep(error.retry_after)
            else:
                return waited
        step()
        return waited

    def _image(self, repository: str, tag: str) -> Image:
        layer = os.urandom(self._random.randrange(1_000, 60_000))
        config = json.dumps({"os": "linux", "of": Digest.of(layer)}).encode()
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _descriptor(config, OCI_CONFIG),
            "layers": [_descriptor(self._base, OCI_LAYER), _descriptor(layer, OCI_LAYER)],
        }
        manifest = (json.dumps(document).encode(), OCI_MANIFEST)
        return Image(repository, tag, (self._base, layer, config), (manifest,))

    def _platforms(self, repository: str, tag: str) -> Image:
        images = [self._image(repository, tag) for _platform in range(2)]
        children = [image.manifests[0] for image in images]
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [_descriptor(raw, media_type) for raw, media_type in children],
        }
        index = (json.dumps(document).encode(), OCI_INDEX)
        blobs = tuple(blob for image in images for blob in image.blobs)
        return Image(repository, tag, blobs, (*children, index))

    # Pulls

    def _pull_on(self, number: int) -> None:
        client = self._connect(AGENTS[number % len(AGENTS)])
        chooser = random.Random(number)
        while not self._stop.wait(self._pause):
            with self._lock:
                images = list(self.acknowledged.items())
            if not images:
                continue
            (repository, tag), image = chooser.choice(images)
            # Registry 2.8 answers 500 in the moment in which a tag is moved, whether or not anybody maintains it.
            reference = image.digest if tag == MOVING else tag
            for request in _requests(client, repository, reference):
                if not self._try(f"pull {repository}:{tag}", request):
                    break
            else:
                with self._lock:
                    self.pulls += 1

    def _try(self, what: str, request: Callable[[], object]) -> bool:
        begun = time.monotonic()
        try:
            request()
        except ClientError as error:
            with self._lock:
                self.failed_pulls.append(_failure(what, begun, error))
            return False
        return True

    def _problem(self, client: RegistryClient, repository: str, tag: str, image: Image) -> str:
        try:
            found = client.manifest(repository, tag).digest
            if found not in self._possible[repository, tag]:
                return f"{repository}:{tag} is {found}, not {image.digest}"
            for request in _requests(client, repository, tag):
                request()
        except ClientError as error:
            return str(error)
        return ""


def load_on(site: Site, **options: Any) -> Load:
    """A load on the registry of a site, whether or not that is behind a proxy."""
    login = {"username": "admin", "password": site.password()}
    if isinstance(site, ProxiedSite):
        login |= {"ca_file": str(site.ca), "connect_to": "127.0.0.1"}
    return Load(lambda agent: Client(agent, site.url, **login), **options)


def _make_old(storage: Storage, images: list[Image]) -> None:
    """As if these, and all else in their repositories, had been pushed long ago."""
    for image in images:
        contents = [*image.blobs[1:], *(raw for raw, _media_type in image.manifests)]
        for content in contents:
            os.utime(storage.blob_path(Digest.of(content)), (_LONG_AGO, _LONG_AGO))
    for repository in {image.repository for image in images}:
        for folder, _folders, files in os.walk(storage.repository_path(repository)):
            for name in files:
                os.utime(Path(folder, name), (_LONG_AGO, _LONG_AGO))


def _requests(client: RegistryClient, repository: str, reference: str) -> Iterator[Callable[[], object]]:
    """The requests of a pull, one after the other; each checks what it gets against its digest."""
    waiting = [reference]
    blobs: list[str] = []

    def manifest(name: str) -> Callable[[], object]:
        def get() -> None:
            document = json.loads(client.manifest(repository, name).raw)
            waiting.extend(child["digest"] for child in document.get("manifests", ()))
            blobs.extend(layer["digest"] for layer in document.get("layers", ()))
            blobs.extend([document["config"]["digest"]] if "config" in document else [])

        return get

    while waiting:
        yield manifest(waiting.pop())
    for digest in dict.fromkeys(blobs):
        yield partial(client.pull_blob, repository, Digest(digest), _throw_away)


def _throw_away(_piece: bytes) -> None:
    pass


def _has(client: RegistryClient, repository: str, digest: Digest) -> bool:
    try:
        client.blob_size(repository, digest)
    except ClientError as error:
        if error.status != 404:
            raise
        return False
    return True


def _descriptor(content: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": Digest.of(content), "size": len(content)}


def _failure(what: str, begun: float, error: ClientError) -> Failure:
    return Failure(what, begun, time.monotonic(), error.status, error.code, str(error))
