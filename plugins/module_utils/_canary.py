# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask a running registry whether it does its work: who gets in, and a round trip that leaves no trace.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from ._client import (
    ClientError,
    NotARegistry,
    NotFound,
    RegistryClient,
    ServerError,
    Timeout,
    Unreachable,
    Unsupported,
    WrongTls,
)
from ._errors import RegistryError
from ._media import OCI_MANIFEST
from ._reference import Digest
from ._storage import Problem, Storage, StorageError

FOLDER = "dockyard-check"
#: Where no repository can be removed again, all checks share one.
SHARED_REPOSITORY = f"{FOLDER}/shared"
#: Seconds after which a check's repository belongs to a run that was killed.
ABANDONED_AFTER = 15 * 60
#: The name of a check's repository: when it began, eight digits of Unix time, and sixteen random ones.
_NAME = re.compile(rf"{FOLDER}/([0-9a-f]{{8}})[0-9a-f]{{16}}")
#: What a check pushes is smaller; a larger blob in its repository is not its own.
_OWN_BLOB_LIMIT = 4096
_MEDIA_TYPE = "application/vnd.dockyard.check.v1+json"

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0


class CheckFailed(RegistryError):
    """The registry answers, and not as it should; or it does not answer in time."""


class Step(NamedTuple):
    step: str
    #: ok, failed, or unsupported where the registry is set not to do this.
    status: str
    seconds: float


class Artifact(NamedTuple):
    """A tiny OCI artifact that nobody else has: every part holds the repository's name and random digits."""

    repository: str
    tag: str
    config: bytes
    layer: bytes
    manifest: bytes

    @property
    def digest(self) -> Digest:
        return Digest.of(self.manifest)

    @property
    def blobs(self) -> dict[Digest, bytes]:
        return {Digest.of(content): content for content in (self.config, self.layer)}


def make_artifact(*, shared: bool) -> Artifact:
    """A new artifact, in the shared repository or in one of its own."""
    repository = SHARED_REPOSITORY if shared else f"{FOLDER}/{int(time.time()):08x}{secrets.token_hex(8)}"
    config, layer = _content(repository), _content(repository)
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": _MEDIA_TYPE,
        "config": _descriptor(config),
        "layers": [_descriptor(layer)],
        "annotations": {"repository": repository},
    }
    tag = f"check-{secrets.token_hex(8)}"
    return Artifact(repository, tag, config, layer, json.dumps(manifest).encode())


def _content(repository: str) -> bytes:
    return json.dumps({"repository": repository, "random": secrets.token_hex(32)}).encode()


def _descriptor(content: bytes) -> dict[str, Any]:
    return {"mediaType": _MEDIA_TYPE, "digest": Digest.of(content), "size": len(content)}


class EndpointCheck:
    """One check of a registry, as anybody through `nobody` and as a user through `user`.

    `storage` is the registry's own where it lies on this host, None elsewhere. Attributes, filled as the
    check goes on and true even when it fails: `reachable`, `api_version` (as the registry states it, or ""),
    `anonymous` (whether it lets anybody in; None while unknown), `steps`, and `leftovers`, texts that name
    what could not be removed.
    """

    def __init__(self, nobody: RegistryClient, user: RegistryClient, storage: Storage | None = None) -> None:
        self._nobody = nobody
        self._user = user
        self._storage = storage
        self.reachable = False
        self.api_version = ""
        self.anonymous: bool | None = None
        self.steps: list[Step] = []
        self.leftovers: list[str] = []

    def result(self) -> dict[str, Any]:
        """What is known so far, in plain data."""
        return {
            "reachable": self.reachable,
            "api_version": self.api_version,
            "anonymous": self.anonymous,
            "steps": [step._asdict() for step in self.steps],
            "leftovers": self.leftovers,
        }

    def read(self, *, anonymous: bool, wait: float) -> None:
        """Ask who gets in. `anonymous` is whether anybody should; `wait` how many seconds it may be silent.

        Raises CheckFailed, or the ClientError that says why there is no answer.
        """
        url = self._nobody.url
        with self._step("answer"):
            status = self._wait_for_answer(wait)
        self.reachable = True
        self.anonymous = status == 200
        with self._step("anonymous"):
            if self.anonymous and not anonymous:
                raise CheckFailed(
                    f"ask {url} without a user: it lets everybody in, though it should ask for a user and a "
                    "password; look at auth in its configuration"
                )
            if anonymous and not self.anonymous:
                raise CheckFailed(
                    f"ask {url} without a user: it wants a user and a password, though anybody should get in"
                )
        if self._user is not self._nobody or self.anonymous:
            with self._step("login"):
                self.api_version = self._user.api_version()

    def write(self) -> None:
        """Push, pull and delete an artifact; afterwards nothing of it is left, as far as that can be done."""
        if self._storage:
            self._remove_abandoned(self._storage)
        artifact = make_artifact(shared=self._storage is None)
        try:
            self._exercise(artifact)
        except RegistryError:
            try:
                self._remove(artifact)
            except RegistryError as error:  # the first error is the one to tell
                self.leftovers.append(f"repository {artifact.repository}: {error}")
            raise
        with self._step("clean"):
            if not self._remove(artifact) and self._storage:
                raise CheckFailed(
                    f"remove {artifact.repository} from {self._storage.root}: it is not there, though it was "
                    f"just pushed; this is not the data of the registry at {self._user.url}"
                )

    def _wait_for_answer(self, wait: float) -> int:
        deadline = time.monotonic() + wait
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return self._nobody.ping()
            except ClientError as error:
                if not _may_pass(error):
                    raise
                if time.monotonic() + pause > deadline:
                    raise CheckFailed(f"{error} (asked for {wait:g} s)") from error
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _exercise(self, artifact: Artifact) -> None:
        repository, user = artifact.repository, self._user
        with self._step("push"):
            for content in artifact.blobs.values():
                user.push_blob(repository, content)
            user.put_manifest(repository, artifact.tag, artifact.manifest, OCI_MANIFEST)
        with self._step("pull"):
            for reference in (artifact.tag, artifact.digest):
                self._compare(artifact.manifest, user.manifest(repository, reference).raw)
            for digest, content in artifact.blobs.items():
                received = bytearray()
                user.pull_blob(repository, digest, received.extend)
                self._compare(content, received)
        try:
            with self._step("delete"):
                user.delete_manifest(repository, artifact.digest)
        except Unsupported as error:
            if error.reason != Unsupported.DELETE_DISABLED:
                raise
            return
        with contextlib.suppress(NotFound):
            user.resolve(repository, artifact.digest)
            raise CheckFailed(f"delete {repository}@{artifact.digest} at {user.url}: it can still be pulled")

    def _compare(self, pushed: bytes, pulled: bytes | bytearray) -> None:
        if pushed != pulled:
            raise CheckFailed(
                f"pull from {self._user.url}: it is not what was pushed a moment ago; does a cache in "
                "between answer for the registry?"
            )

    def _remove(self, artifact: Artifact) -> bool:
        """Remove every trace; returns whether there was any on the disk."""
        # Through the registry first, so that it does not remember what is gone.
        for digest in artifact.blobs:
            with contextlib.suppress(NotFound, Unsupported):
                self._user.delete_blob(artifact.repository, digest)
        if self._storage is None:
            self.leftovers.append(
                f"repository {artifact.repository}: it stays listed, and some hundred bytes in it until "
                "garbage collection; they can be removed only on the host that has the registry's data"
            )
            return False
        found = self._storage.remove_repository(artifact.repository)
        for digest in (artifact.digest, *artifact.blobs):
            self._storage.remove_blob(digest)
        return found

    def _remove_abandoned(self, storage: Storage) -> None:
        """Remove what earlier checks left that were killed, but nothing that anybody else put there."""
        for found in list(storage.repositories()):
            name = "" if isinstance(found, Problem) else found.name
            begun = _NAME.fullmatch(name)
            if begun and int(begun.group(1), 16) + ABANDONED_AFTER < time.time():
                links = [*storage.layers(name), *storage.revisions(name)]
                digests = {link.target for link in links if not isinstance(link, Problem)}
                own = [digest for digest in digests if _is_own(storage, digest, name)]
                storage.remove_repository(name)
                for digest in own:
                    storage.remove_blob(digest)

    @contextlib.contextmanager
    def _step(self, name: str) -> Iterator[None]:
        begin = time.monotonic()
        status = "failed"
        try:
            yield
            status = "ok"
        except Unsupported:
            status = "unsupported"
            raise
        finally:
            self.steps.append(Step(name, status, round(time.monotonic() - begin, 3)))


def _may_pass(error: ClientError) -> bool:
    """Whether a registry that is starting, or the proxy in front of it, may be the cause."""
    if isinstance(error, NotARegistry):
        return error.status == 404  # from a proxy that does not know its routes yet
    return isinstance(error, (Unreachable, Timeout, ServerError)) and not isinstance(error, WrongTls)


def _is_own(storage: Storage, digest: Digest, repository: str) -> bool:
    """Whether a check pushed this blob, so that nobody else can need it."""
    try:
        with storage.open_blob(digest) as file:
            content = file.read(_OWN_BLOB_LIMIT + 1)
    except StorageError:
        return False
    return len(content) <= _OWN_BLOB_LIMIT and json.dumps(repository).encode() in content
