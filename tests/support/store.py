# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Contents of registries for tests: made up, pushed to a real one or written straight to disk, and verified.

A Store is a list of what clients did to a registry (its steps) and a model of what the registry holds then.
The same Store can be carried out over HTTP (push) or written as files (write_store), which is fast enough for
a hundred thousand manifests; a test compares the two byte for byte.

    store = sample_store(random.Random(1))
    push(registry.url, store)           # or write_store(registry.data, store)
    store.delete("app", digest)         # what the code under test is expected to do
    verify(registry.url, store)         # everything else can still be pulled

This file speaks HTTP by itself, so that the client under test is not its own witness.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import urllib3

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
IN_TOTO = "application/vnd.in-toto+json"
COSIGN_LAYER = "application/vnd.dev.cosign.simplesigning.v1+json"
MANIFEST_TYPES = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST)

CONNECTIONS = 8

Descriptor = dict[str, Any]


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def write_layer(path: Path, mib: int) -> str:
    """A file of so many MiB that cannot be packed, and is another one each time; returns its digest."""
    noise = os.urandom(1024**2)
    hasher = hashlib.sha256()
    with path.open("wb") as file:
        for number in range(mib):
            piece = number.to_bytes(8, "big") + noise[8:]
            hasher.update(piece)
            file.write(piece)
    return f"sha256:{hasher.hexdigest()}"


# What clients did


class PushBlob(NamedTuple):
    repository: str
    digest: str


class MountBlob(NamedTuple):
    repository: str
    digest: str
    source: str


class PushManifest(NamedTuple):
    repository: str
    digest: str
    #: None pushes it by its digest.
    tag: str | None


class DeleteManifest(NamedTuple):
    repository: str
    digest: str


class BeginUpload(NamedTuple):
    repository: str
    data: bytes


Step = PushBlob | MountBlob | PushManifest | DeleteManifest | BeginUpload


@dataclass
class Repository:
    """What a registry holds of one repository."""

    #: Each tag with every manifest it has pointed to, in order; the last is the present one.
    tags: dict[str, list[str]] = field(default_factory=dict)
    revisions: set[str] = field(default_factory=set)
    #: Manifests that were deleted; the registry keeps their folders.
    deleted: set[str] = field(default_factory=set)
    #: Digest to the digest under which the blob is stored: another one only for SHA-512.
    layers: dict[str, str] = field(default_factory=dict)
    #: What arrived of each upload that was never finished.
    uploads: list[bytes] = field(default_factory=list)
    #: Whether a blob was ever uploaded, not only mounted.
    has_uploads_folder: bool = False
    has_tags_folder: bool = False

    def current(self, tag: str) -> str:
        return self.tags[tag][-1]


class Store:
    """The contents of a registry, built by calling what a client would do."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.repositories: dict[str, Repository] = {}
        #: Everything under blobs/, manifests included.
        self.blobs: dict[str, bytes] = {}
        self.media_types: dict[str, str] = {}
        #: Content by digest of any algorithm, stored or not.
        self._contents: dict[str, bytes] = {}

    def repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())

    def blob(
        self, repository: str, data: bytes, media_type: str = OCI_LAYER, algorithm: str = "sha256"
    ) -> Descriptor:
        """Push a blob and return its descriptor."""
        digest, stored = digest_of(data, algorithm), digest_of(data)
        self._contents[digest] = data
        self.blobs[stored] = data
        holder = self.repository(repository)
        # The registry stores by SHA-256 and makes a second link for another algorithm.
        holder.layers.update({stored: stored, digest: stored})
        holder.has_uploads_folder = True
        self.steps.append(PushBlob(repository, digest))
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def mount(self, repository: str, descriptor: Descriptor, source: str) -> Descriptor:
        """Mount a blob of another repository."""
        digest = descriptor["digest"]
        self.repository(repository).layers[digest] = digest
        self.steps.append(MountBlob(repository, digest, source))
        return descriptor

    def manifest(
        self, repository: str, document: Mapping[str, Any], *, tag: str | None = None, media_type: str = ""
    ) -> Descriptor:
        """Push a manifest, by tag or by digest, and return its descriptor."""
        body = json.dumps(document, sort_keys=True).encode()
        media_type = media_type or document["mediaType"]
        digest = digest_of(body)
        self._contents[digest] = self.blobs[digest] = body
        self.media_types[digest] = media_type
        self.tag(repository, digest, tag)
        return {"mediaType": media_type, "digest": digest, "size": len(body)}

    def tag(self, repository: str, digest: str, tag: str | None) -> None:
        """Push a manifest once more, under a tag or (None) by its digest."""
        holder = self.repository(repository)
        holder.revisions.add(digest)
        holder.deleted.discard(digest)
        if tag is not None:
            holder.has_tags_folder = True
            history = holder.tags.setdefault(tag, [])
            if digest in history:
                history.remove(digest)
            history.append(digest)
        self.steps.append(PushManifest(repository, digest, tag))

    def delete(self, repository: str, digest: str) -> None:
        """Delete a manifest by digest, which takes the tags that point to it."""
        holder = self.repositories[repository]
        holder.revisions.remove(digest)
        holder.deleted.add(digest)
        for tag in [tag for tag in holder.tags if holder.current(tag) == digest]:
            del holder.tags[tag]
        self.steps.append(DeleteManifest(repository, digest))

    def begin_upload(self, repository: str, data: bytes) -> None:
        """Push some bytes of a blob and never finish."""
        holder = self.repository(repository)
        holder.has_uploads_folder = True
        holder.uploads.append(data)
        self.steps.append(BeginUpload(repository, data))

    def content(self, digest: str) -> bytes:
        return self._contents[digest]

    def references(self, manifest: str) -> list[str]:
        """The digests that a manifest names: config, layers and children, not its subject."""
        document = json.loads(self._contents[manifest])
        descriptors = [*document.get("layers", []), *document.get("manifests", [])]
        descriptors += [document["config"]] if "config" in document else []
        return [descriptor["digest"] for descriptor in descriptors]

    def is_complete(self, repository: str, manifest: str) -> bool:
        """Whether the repository has all that a manifest names, without which it cannot be pushed again."""
        holder = self.repositories[repository]
        return all(
            digest in holder.revisions or digest in holder.layers for digest in self.references(manifest)
        )

    # Shorthands for what the tools of the world push

    def image(
        self,
        repository: str,
        layers: Iterable[bytes],
        *,
        tag: str | None = None,
        config: bytes = b"{}",
        docker: bool = False,
        subject: Descriptor | None = None,
        artifact_type: str = "",
    ) -> Descriptor:
        """An image manifest with its config and layers."""
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST if docker else OCI_MANIFEST,
            "config": self.blob(repository, config, DOCKER_CONFIG if docker else OCI_CONFIG),
            "layers": [
                self.blob(repository, layer, DOCKER_LAYER if docker else OCI_LAYER) for layer in layers
            ],
        }
        if subject is not None:
            document["subject"] = subject
        if artifact_type:
            document["artifactType"] = artifact_type
        return self.manifest(repository, document, tag=tag)

    def index(
        self,
        repository: str,
        children: Iterable[Descriptor],
        *,
        tag: str | None = None,
        docker: bool = False,
        subject: Descriptor | None = None,
    ) -> Descriptor:
        """An OCI index or docker manifest list."""
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": DOCKER_LIST if docker else OCI_INDEX,
            "manifests": list(children),
        }
        if subject is not None:
            document["subject"] = subject
        return self.manifest(repository, document, tag=tag)

    def multi_arch(
        self,
        repository: str,
        layers: Mapping[str, Iterable[bytes]],
        *,
        tag: str | None = None,
        docker: bool = False,
    ) -> Descriptor:
        """An index of untagged images, one per platform such as `linux/arm64`; OCI ones with attestations."""
        children = []
        for platform, contents in layers.items():
            system, _slash, architecture = platform.partition("/")
            config = json.dumps({"os": system, "architecture": architecture}).encode()
            image = self.image(repository, contents, config=config, docker=docker)
            children.append({**image, "platform": {"os": system, "architecture": architecture}})
            if not docker:
                children.append(self._attestation(repository, image))
        return self.index(repository, children, tag=tag, docker=docker)

    def _attestation(self, repository: str, image: Descriptor) -> Descriptor:
        statement = self.blob(repository, f'{{"subject": "{image["digest"]}"}}'.encode(), IN_TOTO)
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.blob(repository, f'{{"of": "{image["digest"]}"}}'.encode(), OCI_CONFIG),
            "layers": [statement],
        }
        annotations = {
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": image["digest"],
        }
        platform = {"os": "unknown", "architecture": "unknown"}
        return {**self.manifest(repository, document), "annotations": annotations, "platform": platform}

    def artifact(
        self, repository: str, data: bytes, *, subject: Descriptor | None = None, tag: str | None = None
    ) -> Descriptor:
        """An OCI artifact, such as an SBOM that refers to an image."""
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/vnd.example.sbom",
            "config": self.blob(repository, b"{}", OCI_EMPTY),
            "layers": [self.blob(repository, data, "application/vnd.example.sbom")],
        }
        if subject is not None:
            document["subject"] = subject
        return self.manifest(repository, document, tag=tag)

    def fallback_referrers(
        self, repository: str, image: Descriptor, referrers: Iterable[Descriptor]
    ) -> Descriptor:
        """The index that lists the referrers of an image where the registry has no referrers API."""
        return self.index(repository, referrers, tag=image["digest"].replace(":", "-"))

    def cosign(self, repository: str, image: Descriptor, suffix: str = "sig") -> Descriptor:
        """What `cosign sign` pushes: an image under the tag sha256-<hex>.sig."""
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.blob(repository, f'{{"{suffix}": "{image["digest"]}"}}'.encode(), OCI_CONFIG),
            "layers": [self.blob(repository, f"{suffix} of {image['digest']}".encode(), COSIGN_LAYER)],
        }
        return self.manifest(repository, document, tag=f"{image['digest'].replace(':', '-')}.{suffix}")


def sample_store(rng: random.Random) -> Store:
    """One of everything that registries hold, with contents that depend on the random generator."""
    store = Store()

    def layer(size: int = 300) -> bytes:
        return rng.randbytes(rng.randrange(1, size))

    base, runtime = layer(5000), layer(3000)

    store.image("app", [base, layer()], tag="1.0")
    shared = store.image("app", [base, runtime, layer()], tag="2.0")
    store.tag("app", shared["digest"], "latest")

    store.image("app", [base, layer()], tag="moving")  # moved twice: two untagged images and a history
    store.image("app", [base, layer()], tag="moving")
    store.image("app", [base, layer()], tag="moving")

    multi = store.multi_arch("multi", {"linux/amd64": [base, layer()], "linux/arm64": [layer()]}, tag="1.0")
    store.multi_arch("multi", {"linux/amd64": [base, layer()], "linux/s390x": [layer()]}, tag="2.0")
    store.multi_arch("legacy", {"linux/amd64": [base, layer()], "linux/386": [layer()]}, tag="1", docker=True)
    store.image("legacy", [base, runtime], tag="single", docker=True)
    store.index("multi", [multi], tag="nested-index")

    signed = store.image("team/signed", [base, layer()], tag="1.0")
    store.artifact("team/signed", layer(), subject=signed)
    listed = store.artifact("team/signed", layer(), subject=signed)
    store.artifact("team/signed", layer(), subject=listed)  # a referrer of a referrer
    store.fallback_referrers("team/signed", signed, [listed])
    for suffix in ("sig", "att", "sbom"):
        store.cosign("team/signed", signed, suffix)
    store.artifact("team/signed", layer(), tag="plain-artifact")

    store.image("team", [base, layer()], tag="outer")
    store.image("team/signed/inner", [runtime, layer()], tag="inner")
    store.image("untagged-only", [layer()])
    store.begin_upload("untagged-only", layer())

    for name in ("emptied", "team/emptied"):
        gone = store.image(name, [layer(), base], tag="gone")
        store.delete(name, gone["digest"])

    store.begin_upload("half-pushed", layer(2000))
    store.begin_upload("half-pushed", b"")
    store.blob("no-manifest", layer())
    mounted = store.blob("app", layer())
    store.mount("mounted", mounted, "app")

    store.manifest(
        "sha512",
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": store.blob("sha512", layer(), OCI_CONFIG),
            "layers": [store.blob("sha512", layer(), OCI_LAYER, "sha512"), store.blob("sha512", base)],
        },
        tag="1",
    )
    return store


def random_store(rng: random.Random, steps: int = 30) -> Store:
    """A store after `steps` random things that clients do, in few repositories, so that they share a lot."""
    store = Store()
    contents = [rng.randbytes(rng.randrange(1, 200)) for _ in range(8)]
    names = ("a", "a/b", "c")
    pushed: dict[str, list[Descriptor]] = {name: [] for name in names}

    def layers() -> list[bytes]:
        return rng.sample(contents, rng.randrange(1, 4))

    def some(name: str, most: int = 3) -> list[Descriptor]:
        known = [item for item in pushed[name] if item["digest"] in store.repository(name).revisions]
        return rng.sample(known, min(len(known), rng.randrange(1, most + 1)))

    def tag() -> str | None:
        return rng.choice([None, "1", "2", "latest"])

    def image(name: str) -> Descriptor:
        return store.image(name, layers(), tag=tag(), config=rng.choice(contents), docker=rng.random() < 0.3)

    def index(name: str) -> Descriptor:
        return store.index(name, some(name), tag=tag(), docker=rng.random() < 0.3)

    def artifact(name: str) -> Descriptor:
        subject = next(iter(some(name, 1)), None)
        return store.artifact(name, rng.choice(contents), subject=subject, tag=tag())

    def referrers(name: str) -> Descriptor:
        subject = next(iter(some(name, 1)), None) or image(name)
        if rng.random() < 0.5:
            return store.cosign(name, subject, rng.choice(["sig", "att", "sbom"]))
        return store.fallback_referrers(name, subject, some(name))

    def retag(name: str) -> Descriptor | None:
        found = next(iter(some(name, 1)), None)
        if found and store.is_complete(name, found["digest"]):
            store.tag(name, found["digest"], rng.choice(["1", "2", "latest"]))
        return None

    def delete(name: str) -> Descriptor | None:
        found = next(iter(some(name, 1)), None)
        if found:
            store.delete(name, found["digest"])
        return None

    def blob(name: str) -> Descriptor | None:
        store.blob(name, rng.choice(contents), algorithm=rng.choice(["sha256", "sha512"]))
        return None

    def upload(name: str) -> Descriptor | None:
        store.begin_upload(name, rng.choice(contents))
        return None

    actions: list[Callable[[str], Descriptor | None]] = [
        image, image, image, index, index, artifact, artifact, referrers, retag, retag, delete, blob, upload,
    ]  # fmt: skip
    for _ in range(steps):
        name = rng.choice(names)
        done = rng.choice(actions)(name)
        if done is not None:
            pushed[name].append(done)
    return store


def large_store(manifests: int, *, per_repository: int = 500) -> Store:
    """Many small images, as continuous integration leaves them: shared layers, one tag each, some indexes."""
    store = Store()
    rng = random.Random(manifests)
    bases = [[rng.randbytes(60) for _ in range(4)] for _ in range(10)]
    for number in range(0, manifests, per_repository):
        name = f"ci/project-{number // per_repository}"
        base = rng.choice(bases)
        count = min(per_repository, manifests - number)
        for build in range(count):
            own = b"%d/%d" % (number, build)
            if build % 10 == 9:
                recent = [step for step in store.steps[-200:] if isinstance(step, PushManifest)]
                children = [
                    {
                        "mediaType": OCI_MANIFEST,
                        "digest": step.digest,
                        "size": len(store.content(step.digest)),
                    }
                    for step in recent
                    if step.repository == name and store.media_types[step.digest] == OCI_MANIFEST
                ]
                store.index(name, children[-2:], tag=f"multi-{build}")
            else:
                tag = None if build % 10 > 6 else f"build-{build}"
                store.image(name, [*base, b"layer " + own], tag=tag, config=b"config " + own)
    return store


# Onto a registry


class _Http:
    """The requests that a client of a registry makes."""

    def __init__(self, url: str, auth: tuple[str, str] | None) -> None:
        headers = urllib3.make_headers(basic_auth=":".join(auth)) if auth else {}
        self._url = url
        self._pool = urllib3.PoolManager(
            maxsize=CONNECTIONS, headers=headers, cert_reqs="CERT_NONE", retries=False
        )

    def request(
        self, method: str, path: str, status: int, *, body: bytes | None = None, **headers: str
    ) -> urllib3.BaseHTTPResponse:
        url = path if path.startswith("http") else f"{self._url}{path}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self._pool.request(
            method, url, body=body, headers={**self._pool.headers, **named}, redirect=False
        )
        if answer.status != status:
            raise AssertionError(f"{method} {url}: {answer.status}, not {status}: {answer.data[:500]!r}")
        return answer

    def manifest(self, repository: str, reference: str, status: int = 200) -> urllib3.BaseHTTPResponse:
        path = f"/v2/{repository}/manifests/{reference}"
        return self.request("GET", path, status, Accept=",".join(MANIFEST_TYPES))

    def all(self, calls: Iterable[Callable[[], object]]) -> int:
        """Make these calls, several at once; returns how many."""
        with ThreadPoolExecutor(CONNECTIONS) as executor:
            return sum(1 for _ in executor.map(lambda call: call(), calls))


def push(url: str, store: Store, *, auth: tuple[str, str] | None = None, begin: int = 0) -> None:
    """Do to a registry what was done to the store, from step `begin` on."""
    http = _Http(url, auth)
    for step in store.steps[begin:]:
        _carry_out(http, store, step)


def _carry_out(http: _Http, store: Store, step: Step) -> None:
    uploads = f"/v2/{step.repository}/blobs/uploads/"
    if isinstance(step, PushBlob):
        session = http.request("POST", uploads, 202).headers["Location"]
        body = store.content(step.digest)
        http.request(
            "PUT", _with_query(session, f"digest={step.digest}"), 201, body=body, Content_Type=_BYTES
        )
    elif isinstance(step, MountBlob):
        http.request("POST", f"{uploads}?mount={step.digest}&from={step.source}", 201)
    elif isinstance(step, PushManifest):
        path = f"/v2/{step.repository}/manifests/{step.tag or step.digest}"
        body = store.content(step.digest)
        http.request("PUT", path, 201, body=body, Content_Type=store.media_types[step.digest])
    elif isinstance(step, DeleteManifest):
        http.request("DELETE", f"/v2/{step.repository}/manifests/{step.digest}", 202)
    else:
        session = http.request("POST", uploads, 202).headers["Location"]
        if step.data:
            end = len(step.data) - 1
            http.request("PATCH", session, 202, body=step.data, Content_Type=_BYTES, Content_Range=f"0-{end}")


_BYTES = "application/octet-stream"


def _with_query(url: str, query: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{query}"


def fill(url: str, seed: int, *, auth: tuple[str, str] | None = None) -> Store:
    """Fill a registry with one of everything."""
    store = sample_store(random.Random(seed))
    push(url, store, auth=auth)
    return store


class Verified(NamedTuple):
    """How much verify() pulled."""

    tags: int
    manifests: int
    blobs: int


def verify(url: str, store: Store, *, auth: tuple[str, str] | None = None) -> Verified:
    """Pull all that the store says a registry holds and compare every byte; what is deleted must be gone.

    Whatever the manifests of a repository refer to is pulled through that repository. Blobs that no manifest
    refers to are not: garbage collection may take them. Raises AssertionError.
    """
    http = _Http(url, auth)
    manifests: list[Callable[[], object]] = []
    blobs: list[Callable[[], object]] = []
    tags: list[Callable[[], object]] = []
    for name, repository in store.repositories.items():
        tags += [_tag_check(http, store, name, tag, repository.current(tag)) for tag in repository.tags]
        manifests += [_manifest_check(http, store, name, digest) for digest in repository.revisions]
        manifests += [_gone_check(http, name, digest) for digest in repository.deleted]
        needed = {blob for digest in repository.revisions for blob in store.references(digest)}
        blobs += [
            _blob_check(http, store, name, digest) for digest in sorted(needed & set(repository.layers))
        ]
        if repository.tags:
            listed = json.loads(http.request("GET", f"/v2/{name}/tags/list", 200).data)["tags"]
            assert sorted(listed) == sorted(repository.tags), f"tags of {name}"
    return Verified(http.all(tags), http.all(manifests), http.all(blobs))


def _tag_check(http: _Http, store: Store, name: str, tag: str, digest: str) -> Callable[[], object]:
    return lambda: _check_body(http.manifest(name, tag).data, store, digest, f"{name}:{tag}")


def _manifest_check(http: _Http, store: Store, name: str, digest: str) -> Callable[[], object]:
    return lambda: _check_body(http.manifest(name, digest).data, store, digest, f"{name}@{digest}")


def _blob_check(http: _Http, store: Store, name: str, digest: str) -> Callable[[], object]:
    path = f"/v2/{name}/blobs/{digest}"
    return lambda: _check_body(http.request("GET", path, 200).data, store, digest, f"{name}@{digest}")


def _gone_check(http: _Http, name: str, digest: str) -> Callable[[], object]:
    return lambda: http.manifest(name, digest, 404)


def _check_body(body: bytes, store: Store, digest: str, what: str) -> None:
    expected = store.content(digest)
    if body != expected:
        raise AssertionError(f"pull {what}: {len(body)} bytes, not the {len(expected)} that were pushed")
    algorithm, _colon, value = digest.partition(":")
    assert hashlib.new(algorithm, body).hexdigest() == value, what


# Onto a disk

# Go's encoding of a SHA-256 that has seen nothing, which the registry keeps of an upload that has just begun.
_FRESH_HASH_STATE = b"sha\x03" + struct.pack(
    ">8I72x",
    *(0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19),
)


def write_store(root: Path, store: Store) -> None:
    """Write a store as the registry would have, below the folder that is mounted at /var/lib/registry.

    Equal to what push() leaves, byte for byte, but for names of uploads and the hash states of their data.
    """
    data = f"{root}/docker/registry/v2"
    for digest, content in store.blobs.items():
        algorithm, _colon, value = digest.partition(":")
        _write(f"{data}/blobs/{algorithm}/{value[:2]}/{value}", "data", content)
    for name, repository in store.repositories.items():
        _write_repository(f"{data}/repositories/{name}", repository)


def _write_repository(path: str, repository: Repository) -> None:
    for digest, target in repository.layers.items():
        _write_link(f"{path}/_layers", digest, target)
    for digest in repository.revisions:
        _write_link(f"{path}/_manifests/revisions", digest, digest)
    for digest in repository.deleted:
        _make_folder(f"{path}/_manifests/revisions/{digest.replace(':', '/')}")
    for tag, history in repository.tags.items():
        for digest in history:
            _write_link(f"{path}/_manifests/tags/{tag}/index", digest, digest)
        _write(f"{path}/_manifests/tags/{tag}/current", "link", history[-1].encode())
    if repository.has_tags_folder:
        _make_folder(f"{path}/_manifests/tags")
    if repository.has_uploads_folder:
        _make_folder(f"{path}/_uploads")
    for content in repository.uploads:
        upload = f"{path}/_uploads/{uuid.uuid4()}"
        _write(upload, "data", content)
        _write(upload, "startedat", b"2026-01-02T03:04:05Z")
        for offset in {0, len(content)}:
            _write(f"{upload}/hashstates/sha256", str(offset), _FRESH_HASH_STATE)


def _write_link(folder: str, digest: str, target: str) -> None:
    _write(f"{folder}/{digest.replace(':', '/')}", "link", target.encode())


def _make_folder(path: str) -> None:
    Path(path).mkdir(parents=True, exist_ok=True)


def _write(folder: str, name: str, content: bytes) -> None:
    _make_folder(folder)
    with open(f"{folder}/{name}", "wb") as file:
        file.write(content)


def read_tree(root: Path) -> dict[str, bytes | None]:
    """Every file and empty folder of a store, to compare two: path to content, None for a folder.

    Uploads are named after what arrived of them, since their real names are random; startedat and hash states
    come without content.
    """
    tree: dict[str, bytes | None] = {}
    for folder, folders, files in os.walk(root):
        place = os.path.relpath(folder, root)
        if not folders and not files:
            tree[place] = None
        for name in files:
            content = Path(folder, name).read_bytes()
            unstable = name == "startedat" or "/hashstates/" in f"{place}/"
            tree[f"{place}/{name}"] = b"" if unstable else content
    return dict(sorted(_stable_names(tree)))


def _stable_names(tree: Mapping[str, bytes | None]) -> Iterator[tuple[str, bytes | None]]:
    for path, content in tree.items():
        before, uploads, after = path.partition("/_uploads/")
        if not uploads:
            yield path, content
            continue
        name, _slash, inside = after.partition("/")
        data = tree[f"{before}/_uploads/{name}/data"] or b""
        yield f"{before}/_uploads/{digest_of(data)[:20]}/{inside}", content
