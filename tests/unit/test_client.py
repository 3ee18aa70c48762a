# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP client against real registries, and against real registries behind a proxy that spoils answers."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils import _client, _http, _media
from ansible_collections.dockyard.registry.plugins.module_utils._client import (
    ClientError,
    Forbidden,
    InvalidConnection,
    Misdirected,
    NotARegistry,
    NotFound,
    Refused,
    RegistryClient,
    ServerError,
    Timeout,
    TooManyRequests,
    Truncated,
    Unauthorized,
    Unreachable,
    Unsupported,
    WrongTls,
)
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._reference import Digest

from tests.support.faulty_proxy import FaultyProxy, broken_off, corrupt, half, header, html, status, without
from tests.support.registry import RegistryProcess, start_registry
from tests.support.tls import Certificates, make_certificates

Factory = Callable[..., RegistryProcess]
PASSWORD = "correct horse battery staple"


@pytest.fixture
def client(registry: RegistryProcess) -> Iterator[RegistryClient]:
    with RegistryClient(registry.url) as client:
        yield client


@pytest.fixture
def proxy(registry: RegistryProcess) -> Iterator[FaultyProxy]:
    with FaultyProxy(registry.url) as proxy:
        yield proxy


@pytest.fixture
def through_proxy(proxy: FaultyProxy) -> Iterator[RegistryClient]:
    with RegistryClient(proxy.url, backoff=0.001, retries=3) as client:
        yield client


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that the client would make, in seconds, instead of making them."""
    pauses: list[float] = []
    monkeypatch.setattr(_http.time, "sleep", pauses.append)
    return pauses


def push_image(client: RegistryClient, repository: str, *tags: str, content: bytes = b"") -> Digest:
    """Push an OCI image of one random layer, or of `content`, and return the manifest's digest."""
    layer = content or os.urandom(32)
    document = {
        "schemaVersion": 2,
        "mediaType": _media.OCI_MANIFEST,
        "config": descriptor(client.push_blob(repository, b"{}"), 2, _media.OCI_CONFIG),
        "layers": [descriptor(client.push_blob(repository, layer), len(layer), "application/octet-stream")],
    }
    return push_document(client, repository, document, *tags)


def push_document(client: RegistryClient, repository: str, document: dict[str, Any], *tags: str) -> Digest:
    raw = json.dumps(document).encode()
    digest = Digest.of(raw)
    for reference in tags or (digest,):
        assert client.put_manifest(repository, reference, raw, document["mediaType"]) == digest
    return digest


def descriptor(digest: Digest, size: int, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def pull(client: RegistryClient, repository: str, digest: Digest) -> bytes:
    content = bytearray()
    assert client.pull_blob(repository, digest, content.extend) == len(content)
    return bytes(content)


def client_ports(registry: RegistryProcess) -> set[str]:
    """The ports from which the client connected, one for each connection."""
    return set(re.findall(r'remoteaddr="127\.0\.0\.1:(\d+)".*useragent=dockyard', registry.log.read_text()))


# Blobs


@pytest.mark.parametrize("size", [1, 1000, 3 * 1024 * 1024 + 1])
def test_a_blob_comes_back_as_it_was_pushed(client: RegistryClient, size: int) -> None:
    data = os.urandom(size)
    digest = client.push_blob("team/app", data)
    assert digest == Digest.of(data)
    assert client.blob_size("team/app", digest) == size
    assert pull(client, "team/app", digest) == data


def test_an_upload_goes_where_a_relative_location_says(registry_factory: Factory) -> None:
    registry = registry_factory(config_overrides={"http": {"relativeurls": True}})
    with RegistryClient(registry.url) as client:
        digest = client.push_blob("app", b"content")
        assert pull(client, "app", digest) == b"content"


def test_a_registry_below_a_path(registry_factory: Factory) -> None:
    registry = registry_factory(config_overrides={"http": {"prefix": "/hub/"}})
    with RegistryClient(f"{registry.url}/hub/") as client:
        digest = push_image(client, "app", "1")
        assert client.resolve("app", "1").digest == digest
        assert list(client.repositories()) == ["app"]


def test_mounting_a_blob(client: RegistryClient, registry: RegistryProcess) -> None:
    digest = client.push_blob("source", b"content")
    assert client.mount_blob("target", digest, "source") is True
    assert pull(client, "target", digest) == b"content"
    assert client.mount_blob("target", Digest.of(b"nowhere"), "source") is False
    assert not list(registry.data.rglob("startedat")), "the upload begun instead was not cancelled"


def test_deleting_a_blob(client: RegistryClient) -> None:
    digest = client.push_blob("app", b"content")
    client.delete_blob("app", digest)
    for call in (client.blob_size, client.delete_blob, lambda *blob: pull(client, *blob)):
        with pytest.raises(NotFound) as caught:
            call("app", digest)
        assert caught.value.kind == "blob"
        assert f"app@{digest}" in str(caught.value)


# Manifests


def test_every_kind_of_manifest_is_found_by_tag_and_by_digest(client: RegistryClient) -> None:
    image = push_image(client, "app")
    size = len(client.manifest("app", image).raw)
    docker = {
        "schemaVersion": 2,
        "mediaType": _media.DOCKER_MANIFEST,
        "config": descriptor(client.push_blob("app", b"{}"), 2, _media.DOCKER_CONFIG),
        "layers": [],
    }
    platform = {"os": "linux", "architecture": "amd64"}
    children = [{**descriptor(image, size, _media.OCI_MANIFEST), "platform": platform}]
    index = {"schemaVersion": 2, "mediaType": _media.OCI_INDEX, "manifests": children}
    docker_digest = push_document(client, "app", docker, "docker")
    docker_size = len(client.manifest("app", docker_digest).raw)
    children = [{**descriptor(docker_digest, docker_size, _media.DOCKER_MANIFEST), "platform": platform}]
    docker_list = {"schemaVersion": 2, "mediaType": _media.DOCKER_LIST, "manifests": children}
    for tag, document in (("docker", docker), ("index", index), ("list", docker_list)):
        digest = push_document(client, "app", document, tag)
        raw = json.dumps(document).encode()
        for reference in (tag, digest):
            assert client.resolve("app", reference) == (digest, document["mediaType"], len(raw))
            assert client.manifest("app", reference) == (raw, document["mediaType"], digest)


def test_a_schema_1_manifest_is_verified_without_its_signatures(tmp_path: Path) -> None:
    """Registry 2.8, the last to know them, keeps the signed part and signs anew whenever it is asked."""
    registry = start_registry(tmp_path, config_overrides={"compatibility": {"schema1": {"enabled": True}}})
    payload = json.dumps(
        {
            "schemaVersion": 1,
            "name": "old",
            "tag": "1",
            "architecture": "amd64",
            "fsLayers": [],
            "history": [],
        },
        indent=3,
    ).encode()
    digest = Digest.of(payload)
    root = registry.data / "docker/registry/v2"
    tag = root / "repositories/old/_manifests/tags/1"
    revision = root / "repositories/old/_manifests/revisions/sha256" / digest.hex
    blob = root / "blobs/sha256" / digest.hex[:2] / digest.hex / "data"
    for path, content in ((blob, payload), (revision / "link", digest.encode())):
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    (tag / "current").mkdir(parents=True)
    (tag / "current" / "link").write_text(digest)
    with contextlib.ExitStack() as stack:
        stack.callback(registry.stop)
        client = stack.enter_context(RegistryClient(registry.url))
        manifest = client.manifest("old", "1")
        assert manifest.digest == digest
        assert _media.is_schema1(manifest.media_type)
        assert b"signatures" in manifest.raw
        assert client.resolve("old", "1").digest == digest


def test_deleting_a_manifest_takes_all_its_tags(client: RegistryClient) -> None:
    digest = push_image(client, "app", "1", "latest")
    kept = push_image(client, "app", "2")
    client.delete_manifest("app", digest)
    assert list(client.tags("app")) == ["2"]
    assert client.resolve("app", "2").digest == kept
    for call in (client.delete_manifest, client.resolve, client.manifest):
        with pytest.raises(NotFound) as caught:
            call("app", digest)
        assert (caught.value.kind, caught.value.status) == ("manifest", 404)


def test_deleting_a_tag(client: RegistryClient, registry: RegistryProcess) -> None:
    digest = push_image(client, "app", "1", "latest")
    if registry.major == "2":
        with pytest.raises(Unsupported, match=r"delete app:1 .* deletes by digest only") as caught:
            client.delete_tag("app", "1")
        assert caught.value.reason == Unsupported.TAG_DELETE
        assert sorted(client.tags("app")) == ["1", "latest"]
    else:
        client.delete_tag("app", "1")
        assert list(client.tags("app")) == ["latest"]
        with pytest.raises(NotFound):
            client.delete_tag("app", "1")
    assert client.resolve("app", digest).digest == digest


@pytest.mark.parametrize("reference", ["missing", Digest.of(b"missing")])
def test_a_missing_manifest(client: RegistryClient, reference: str) -> None:
    push_image(client, "app", "1")
    for call in (client.resolve, client.manifest):
        with pytest.raises(
            NotFound, match=f"app[:@]{reference} at {client.url}: there is no such manifest"
        ) as caught:
            call("app", reference)
        assert caught.value.kind == "manifest"


def test_a_host_given_with_the_repository_is_pointed_out(client: RegistryClient) -> None:
    with pytest.raises(NotFound, match=r"if registry\.example\.org is the registry's host, leave it out"):
        client.resolve("registry.example.org/app", "1")


def test_pushing_a_manifest_whose_blobs_are_missing(client: RegistryClient) -> None:
    missing = Digest.of(b"missing")
    document = {
        "schemaVersion": 2,
        "mediaType": _media.OCI_MANIFEST,
        "config": descriptor(missing, 7, _media.OCI_CONFIG),
        "layers": [],
    }
    with pytest.raises(Refused, match=f"push manifest app:1 .*MANIFEST_BLOB_UNKNOWN.*{missing}") as caught:
        push_document(client, "app", document, "1")
    assert (caught.value.status, caught.value.code) == (400, "MANIFEST_BLOB_UNKNOWN")


# Lists


def test_tags(client: RegistryClient) -> None:
    digest = push_image(client, "app", "1", "2", "latest")
    assert sorted(client.tags("app")) == ["1", "2", "latest"]
    client.delete_manifest("app", digest)
    assert list(client.tags("app")) == []
    with pytest.raises(NotFound, match="list the tags of nowhere") as caught:
        list(client.tags("nowhere"))
    assert caught.value.kind == "repository"


def test_an_empty_registry_has_no_repositories(client: RegistryClient) -> None:
    assert list(client.repositories()) == []


def test_repositories_over_several_pages(
    client: RegistryClient, registry: RegistryProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"team/app-{number:02}" for number in range(12)]
    list(client.map(lambda name: push_image(client, name, "1"), names))
    monkeypatch.setattr(_client, "CATALOG_PAGE", 5)
    with FaultyProxy(registry.url) as proxy, RegistryClient(proxy.url) as paging:
        assert list(paging.repositories()) == names
        assert len(proxy.requests) == 3
        # Some proxies make the link absolute.
        proxy.spoil("_catalog", header("Link", lambda link: link.replace("</", f"<{proxy.url}/")))
        assert list(paging.repositories()) == names


def test_repositories_of_a_registry_with_smaller_pages(registry_factory: Factory) -> None:
    registry = registry_factory(config_overrides={"catalog": {"maxentries": 5}})
    with RegistryClient(registry.url) as client:
        names = [f"app-{number:02}" for number in range(12)]
        list(client.map(lambda name: push_image(client, name, "1"), names))
        assert list(client.repositories()) == names


def test_pages_that_go_in_circles_end(
    proxy: FaultyProxy, through_proxy: RegistryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(through_proxy.map(lambda name: push_image(through_proxy, name, "1"), ["a", "b", "c"]))
    monkeypatch.setattr(_client, "CATALOG_PAGE", 1)
    proxy.spoil("_catalog", header("Link", lambda _link: '</v2/_catalog?n=1>; rel="next"'))
    with pytest.raises(NotARegistry, match="lead back"):
        list(through_proxy.repositories())


def test_a_page_elsewhere_is_not_fetched(
    proxy: FaultyProxy, through_proxy: RegistryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(through_proxy.map(lambda name: push_image(through_proxy, name, "1"), ["a", "b"]))
    monkeypatch.setattr(_client, "CATALOG_PAGE", 1)
    proxy.spoil("_catalog", header("Link", lambda link: link.replace("</", "<https://other.example.org/")))
    with pytest.raises(Misdirected, match=r"leads to https://other\.example\.org"):
        list(through_proxy.repositories())


# Who may


def test_users(registry_factory: Factory) -> None:
    registry = registry_factory(auth={"alice": PASSWORD})
    nobody = RegistryClient(registry.url)
    alice = RegistryClient(registry.url, username="alice", password=PASSWORD)
    wrong = RegistryClient(registry.url, username="alice", password=f"not {PASSWORD}")
    assert [nobody.ping(), alice.ping(), wrong.ping()] == [401, 200, 401]
    assert alice.api_version() == "registry/2.0"
    push_image(alice, "app", "1")
    with pytest.raises(Unauthorized, match="asks for a user and a password, and none was given"):
        nobody.resolve("app", "1")
    with pytest.raises(Unauthorized, match="does not accept user alice") as caught:
        wrong.resolve("app", "1")
    for shown in (str(caught.value), repr(caught.value), repr(wrong), str(vars(caught.value))):
        assert PASSWORD not in shown
        assert base64.b64encode(f"alice:not {PASSWORD}".encode()).decode() not in shown


def test_the_first_request_carries_the_password(proxy: FaultyProxy) -> None:
    RegistryClient(proxy.url, username="älice", password="pässword").ping()
    token = base64.b64encode("älice:pässword".encode()).decode()
    assert proxy.authorizations == [f"Basic {token}"]


def test_deletion_disabled(registry_factory: Factory) -> None:
    registry = registry_factory(delete=False)
    with RegistryClient(registry.url) as client:
        digest = push_image(client, "app", "1")
        for delete in (
            lambda: client.delete_manifest("app", digest),
            lambda: client.delete_tag("app", "1"),
            lambda: client.delete_blob("app", Digest.of(b"{}")),
        ):
            with pytest.raises(Unsupported, match=r"storage\.delete\.enabled") as caught:
                delete()
            assert caught.value.reason == Unsupported.DELETE_DISABLED
        assert client.resolve("app", "1").digest == digest


def test_a_read_only_registry(registry: RegistryProcess, client: RegistryClient) -> None:
    digest = push_image(client, "app", "1")
    registry.restart({"storage": {"maintenance": {"readonly": {"enabled": True}}}})
    for write in (
        lambda: client.push_blob("app", b"x"),
        lambda: client.put_manifest("app", "2", b"{}", _media.OCI_MANIFEST),
        lambda: client.delete_manifest("app", digest),
        lambda: client.delete_tag("app", "1"),
        lambda: client.delete_blob("app", Digest.of(b"{}")),
    ):
        with pytest.raises(Unsupported, match="the registry is read-only") as caught:
            write()
        assert caught.value.reason == Unsupported.READ_ONLY
    assert client.resolve("app", "1").digest == digest


def test_a_pull_through_cache_takes_no_pushes(registry_factory: Factory, registry: RegistryProcess) -> None:
    cache = registry_factory(config_overrides={"proxy": {"remoteurl": registry.url}})
    with (
        RegistryClient(cache.url) as client,
        pytest.raises(Unsupported, match="pull-through cache") as caught,
    ):
        client.push_blob("app", b"x")
    assert caught.value.reason == Unsupported.PULL_THROUGH


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (401, Unauthorized, "asks for a user"),
        (403, Forbidden, "a user without a name may not do this"),
        (405, Unsupported, "a proxy in front refuses DELETE"),
    ],
)
def test_a_proxy_that_refuses_in_its_own_name(
    proxy: FaultyProxy, through_proxy: RegistryClient, code: int, kind: type[ClientError], message: str
) -> None:
    proxy.spoil("DELETE", html(code))
    with pytest.raises(kind, match=message) as caught:
        through_proxy.delete_manifest("app", Digest.of(b"x"))
    assert caught.value.status == code
    assert len(proxy.requests) == 1


def test_a_registry_that_wants_tokens(proxy: FaultyProxy, through_proxy: RegistryClient) -> None:
    challenge = 'Bearer realm="https://auth.example.org/token"'
    proxy.spoil("GET", status(401, WWW_Authenticate=challenge))
    with pytest.raises(Unauthorized, match="token of an authorization service"):
        through_proxy.api_version()


# Answers that never come, come late, or come broken


def test_a_slow_registry(proxy: FaultyProxy) -> None:
    proxy.spoil("HEAD", proxy.hang)
    with RegistryClient(proxy.url, timeout=0.2) as client:
        with pytest.raises(Timeout, match=r"resolve app:1 at .*no answer within 0\.2 s"):
            client.resolve("app", "1")
        assert client.ping() == 200
    assert len(proxy.requests) == 2, "a slow registry must not be asked again"


def test_a_broken_connection_is_tried_again(proxy: FaultyProxy, through_proxy: RegistryClient) -> None:
    digest = push_image(through_proxy, "app", "1")
    del proxy.requests[:]
    proxy.spoil("HEAD", broken_off, times=2)
    assert through_proxy.resolve("app", "1").digest == digest
    assert proxy.requests == ["HEAD /v2/app/manifests/1"] * 3


def test_a_broken_connection_is_given_up(proxy: FaultyProxy, through_proxy: RegistryClient) -> None:
    proxy.spoil("HEAD", broken_off)
    with pytest.raises(Unreachable, match="closed without an answer"):
        through_proxy.resolve("app", "1")
    assert len(proxy.requests) == 4


def test_a_broken_upload_begins_anew(proxy: FaultyProxy, through_proxy: RegistryClient) -> None:
    data = os.urandom(1000)
    proxy.spoil("PUT", status(503), times=1)
    digest = through_proxy.push_blob("app", data)
    assert pull(through_proxy, "app", digest) == data
    assert [request.split()[0] for request in proxy.requests] == ["POST", "PUT", "POST", "PUT", "GET"]


def test_a_deletion_whose_answer_got_lost_is_done(proxy: FaultyProxy, through_proxy: RegistryClient) -> None:
    digest = push_image(through_proxy, "app", "1")
    proxy.spoil("DELETE", broken_off, times=1)
    through_proxy.delete_manifest("app", digest)
    assert list(through_proxy.tags("app")) == []
    with pytest.raises(NotFound):
        through_proxy.delete_manifest("app", digest)


@pytest.mark.parametrize("code", [502, 503, 504])
def test_a_server_that_is_down_for_a_moment(
    proxy: FaultyProxy, through_proxy: RegistryClient, code: int
) -> None:
    digest = push_image(through_proxy, "app", "1")
    proxy.spoil("DELETE", html(code), times=3)
    through_proxy.delete_manifest("app", digest)
    proxy.spoil("GET", html(code))
    with pytest.raises(ServerError, match=f"the server failed \\({code}\\)") as caught:
        through_proxy.ping()
    assert caught.value.status == code


def test_an_internal_error_is_not_tried_again(proxy: FaultyProxy, through_proxy: RegistryClient) -> None:
    body = json.dumps({"errors": [{"code": "UNKNOWN", "message": "unknown error", "detail": {"Err": 28}}]})
    proxy.spoil("GET", status(500, body.encode()))
    with pytest.raises(ServerError, match=r'500 UNKNOWN: unknown error {"Err": 28}.*see the log'):
        through_proxy.ping()
    assert len(proxy.requests) == 1


def test_pauses_grow(proxy: FaultyProxy, pauses: list[float]) -> None:
    proxy.spoil("GET", status(429))
    with (
        RegistryClient(proxy.url, retries=3, backoff=0.5) as client,
        pytest.raises(TooManyRequests, match="use fewer connections"),
    ):
        client.ping()
    assert pauses == [0.5, 1, 2]
    assert len(proxy.requests) == 4


def test_the_server_says_how_long_to_wait(proxy: FaultyProxy, pauses: list[float]) -> None:
    later = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=20), usegmt=True)
    for wait in ("7", later, "86400", "soon"):
        proxy.spoil("GET", status(429, Retry_After=wait), times=1)
    with RegistryClient(proxy.url, backoff=0.001) as client:
        assert client.ping() == 200
    assert pauses[0] == 7
    assert 1 < pauses[1] <= 20
    assert pauses[2:] == [_http.LONGEST_RETRY_AFTER, 0.008]


def test_half_a_manifest(proxy: FaultyProxy, through_proxy: RegistryClient) -> None:
    digest = push_image(through_proxy, "app", "1")
    proxy.spoil("GET", half, times=1)
    assert through_proxy.manifest("app", "1").digest == digest
    proxy.spoil("GET", half)
    with pytest.raises(Truncated, match=r"read manifest app:1 .*ended early"):
        through_proxy.manifest("app", "1")


@pytest.mark.parametrize("by_digest", [False, True])
def test_a_corrupt_manifest(proxy: FaultyProxy, through_proxy: RegistryClient, by_digest: bool) -> None:
    digest = push_image(through_proxy, "app", "1")
    proxy.spoil("GET", corrupt)
    with pytest.raises(Truncated, match="not the content of that digest"):
        through_proxy.manifest("app", digest if by_digest else "1")


@pytest.mark.parametrize(
    ("fault", "message"), [(half, "ended 500000 bytes early"), (corrupt, "check the registry's storage")]
)
def test_a_damaged_blob(
    proxy: FaultyProxy, through_proxy: RegistryClient, fault: Callable[..., Any], message: str
) -> None:
    digest = through_proxy.push_blob("app", os.urandom(1_000_000))
    proxy.spoil("GET", fault)
    with pytest.raises(Truncated, match=f"pull blob app@{digest} .*{message}"):
        pull(through_proxy, "app", digest)


def test_an_error_of_the_receiver_is_its_own(client: RegistryClient) -> None:
    digest = client.push_blob("app", os.urandom(1_000_000))

    def full(_chunk: bytes) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        client.pull_blob("app", digest, full)
    assert client.blob_size("app", digest) == 1_000_000


def test_a_registry_that_does_not_tell_digests(proxy: FaultyProxy, through_proxy: RegistryClient) -> None:
    digest = push_image(through_proxy, "app", "1")
    resolved = through_proxy.resolve("app", "1")
    proxy.spoil("manifests", without("Docker-Content-Digest"))
    assert through_proxy.resolve("app", "1") == resolved
    assert resolved.digest == digest


# Something else that answers


@pytest.mark.parametrize("code", [200, 400, 404])
def test_the_html_of_another_product(proxy: FaultyProxy, through_proxy: RegistryClient, code: int) -> None:
    proxy.spoil("", html(code))
    digest = Digest.of(b"x")
    for call in (
        through_proxy.ping,
        lambda: list(through_proxy.repositories()),
        lambda: list(through_proxy.tags("app")),
        lambda: through_proxy.resolve("app", "1"),
        lambda: through_proxy.manifest("app", "1"),
        lambda: through_proxy.blob_size("app", digest),
        lambda: pull(through_proxy, "app", digest),
        lambda: through_proxy.push_blob("app", b"x"),
        lambda: through_proxy.delete_manifest("app", digest),
    ):
        with pytest.raises(
            NotARegistry, match=f"no registry \\({code}, text/html, no Docker-Distribution-Api"
        ):
            call()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"404 page not found\n", r"\(404 '404 page not found'\)"),
        (b"", r"\(404\)"),
        (b"<html><body>Not Found</body></html>", r"\(404\)"),
        (b"\xff\x00" * 500, r"\(404 '.{80,400}'\)"),
    ],
)
def test_a_404_of_something_in_between(
    proxy: FaultyProxy, through_proxy: RegistryClient, body: bytes, said: str
) -> None:
    """How it begins tells who it came from: the registry has a code."""
    proxy.spoil("", status(404, body, Docker_Distribution_Api_Version="registry/2.0"))
    with pytest.raises(NotFound, match=f"there is no such object {said}$"):
        through_proxy.ping()


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"{}", b"\xff", b'{"repositories": 1}', b'{"repositories": [1]}']
)
def test_json_that_is_no_list_of_repositories(
    proxy: FaultyProxy, through_proxy: RegistryClient, body: bytes
) -> None:
    proxy.spoil("_catalog", status(200, body, Docker_Distribution_Api_Version="registry/2.0"))
    with pytest.raises(NotARegistry, match="repositories"):
        list(through_proxy.repositories())


def test_manifest_of_an_unknown_kind(proxy: FaultyProxy, through_proxy: RegistryClient) -> None:
    proxy.spoil("manifests", status(200, b"{}", Docker_Distribution_Api_Version="registry/2.0"))
    with pytest.raises(NotARegistry, match="text/plain, which is no manifest"):
        through_proxy.resolve("app", "1")


def test_an_answer_without_end(
    proxy: FaultyProxy, through_proxy: RegistryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_image(through_proxy, "app", "1")
    monkeypatch.setattr(_http, "BODY_LIMIT", 10)
    for change in (lambda answer: answer, without("Content-Length")):
        proxy.heal()
        proxy.spoil("GET", change)
        with pytest.raises(NotARegistry, match="larger than 10 bytes"):
            list(through_proxy.repositories())


def test_something_that_is_not_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, _address = server.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                connection.recv(1000)

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(NotARegistry, match="not HTTP"):
            RegistryClient(f"http://127.0.0.1:{server.getsockname()[1]}").ping()
        thread.join()


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Unreachable, match=f"refused; is the registry running and is {port} its port"):
        RegistryClient(f"http://127.0.0.1:{port}").ping()


def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(Unreachable, match=r"name registry\.invalid cannot be resolved"):
        RegistryClient("http://registry.invalid").ping()


# Redirects


def test_a_redirect_names_the_address_to_use(proxy: FaultyProxy, through_proxy: RegistryClient) -> None:
    proxy.spoil("GET /v2/$", status(301, Location="https://registry.example.org/v2/?token=secret"))
    with pytest.raises(Misdirected, match=r"leads to https://registry\.example\.org; use that") as caught:
        through_proxy.ping()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("/login", "does a proxy ask for a login"),
        ("ftp://example.org/", "no http address"),
        ("http://[", "no http"),
    ],
)
def test_redirects_to_no_registry(
    proxy: FaultyProxy, through_proxy: RegistryClient, location: str, message: str
) -> None:
    proxy.spoil("GET /v2/$", status(302, Location=location))
    with pytest.raises(Misdirected, match=message):
        through_proxy.ping()


def test_blobs_from_a_storage_elsewhere(registry: RegistryProcess, proxy: FaultyProxy) -> None:
    """What the s3 driver does: it sends clients to signed addresses, which must not get the password."""
    with (
        FaultyProxy(registry.url) as storage,
        RegistryClient(proxy.url, username="alice", password=PASSWORD) as client,
    ):
        digest = client.push_blob("app", b"content")
        del proxy.authorizations[:]
        target = f"{storage.url}/v2/app/blobs/{digest}?X-Amz-Signature=secret"
        proxy.spoil("blobs/sha256", status(307, Location=target))
        storage.spoil("", without("Docker-Distribution-Api-Version"))
        assert pull(client, "app", digest) == b"content"
        assert client.blob_size("app", digest) == 7
        assert None not in proxy.authorizations
        assert storage.authorizations == [None, None]
        storage.spoil("", status(404), times=1)
        storage.heal()
        storage.spoil("", status(404))
        with pytest.raises(NotFound) as caught:
            client.blob_size("app", digest)
        assert caught.value.kind == "blob"


def test_redirects_without_end(proxy: FaultyProxy, through_proxy: RegistryClient) -> None:
    digest = Digest.of(b"x")
    proxy.spoil("GET", status(307, Location=f"/v2/app/blobs/{digest}"))
    with pytest.raises(Misdirected, match="more than 5 times"):
        pull(through_proxy, "app", digest)
    assert len(proxy.requests) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda url: url.replace("http:", "https:"), "X-Forwarded-Proto"),
        (
            lambda url: re.sub(r"//[^/]*", "//internal:5000", url),
            r"leads to http://internal:5000.*Host header",
        ),
        (lambda url: re.sub(r":\d+", "", url), "leads to http://127.0.0.1; "),
    ],
)
def test_a_proxy_that_hides_its_address_from_the_registry(
    proxy: FaultyProxy, through_proxy: RegistryClient, change: Callable[[str], str], message: str
) -> None:
    proxy.spoil("POST", header("Location", change))
    with pytest.raises(Misdirected, match=message):
        through_proxy.push_blob("app", b"content")


def test_a_proxy_that_limits_the_size(proxy: FaultyProxy, through_proxy: RegistryClient) -> None:
    proxy.spoil("PUT", html(413))
    with pytest.raises(Refused, match="client_max_body_size") as caught:
        through_proxy.push_blob("app", bytes(8_000_000))
    assert caught.value.status == 413


# TLS


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path, "127.0.0.1")


@pytest.fixture
def secure(registry_factory: Factory, certificates: Certificates) -> RegistryProcess:
    tls = {"certificate": str(certificates.certificate), "key": str(certificates.key)}
    return registry_factory(config_overrides={"http": {"tls": tls}})


def test_an_authority_of_ones_own(secure: RegistryProcess, certificates: Certificates) -> None:
    with RegistryClient(secure.url, ca_file=str(certificates.ca)) as client:
        digest = push_image(client, "app", "1")
        assert client.resolve("app", "1").digest == digest
    with RegistryClient(secure.url, verify=False) as client:
        assert client.resolve("app", "1").digest == digest


def test_a_certificate_that_is_not_trusted(secure: RegistryProcess, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = make_certificates(tmp_path / "other", "127.0.0.1")
    for ca_file in (None, str(other.ca)):
        with pytest.raises(WrongTls, match=r"certificate is not accepted.*ca_file"):
            RegistryClient(secure.url, ca_file=ca_file).ping()


def test_a_certificate_for_another_name(secure: RegistryProcess, certificates: Certificates) -> None:
    with pytest.raises(WrongTls, match=r"certificate is not accepted.*host name"):
        RegistryClient(f"https://localhost:{secure.port}", ca_file=str(certificates.ca)).ping()


def test_connections_are_kept_with_tls_too(secure: RegistryProcess, certificates: Certificates) -> None:
    with RegistryClient(secure.url, ca_file=str(certificates.ca)) as client:
        for _ in range(10):
            client.ping()
    assert len(client_ports(secure)) == 1


def test_http_and_https_mixed_up(secure: RegistryProcess, registry: RegistryProcess) -> None:
    with pytest.raises(WrongTls, match="it speaks HTTPS; write https instead of http"):
        RegistryClient(f"http://127.0.0.1:{secure.port}").ping()
    with pytest.raises(WrongTls, match="write http instead of https"):
        RegistryClient(f"https://127.0.0.1:{registry.port}").ping()


def test_ca_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidConnection, match="No such file"):
        RegistryClient("https://localhost", ca_file=str(tmp_path / "missing"))
    (tmp_path / "empty").touch()
    with pytest.raises(InvalidConnection, match="no certificate in PEM format"):
        RegistryClient("https://localhost", ca_file=str(tmp_path / "empty"))


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "localhost:5000"}, "write http:// or https://"),
        ({"url": "registry.example.org"}, "write http:// or https://"),
        ({"url": ""}, "write http:// or https://"),
        ({"url": "http://"}, "write http:// or https://"),
        ({"url": "http://host:port"}, "Port could not be cast"),
        ({"url": "http://host:0"}, "write http:// or https://"),
        ({"url": "http://host:99999"}, "Port out of range"),
        ({"url": "http://" + "x" * 64}, "label"),
        ({"url": "http://host/?x=1"}, r"ends before '\?'"),
        ({"username": "alice"}, "give both or none"),
        ({"password": PASSWORD}, "give both or none"),
        ({"username": "", "password": PASSWORD}, "give both or none"),
        ({"username": "a:b", "password": PASSWORD}, "cannot carry a user name with ':'"),
        ({"timeout": 0}, "more than 0 seconds"),
        ({"connections": 0}, "at least 1"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConnection, match=message) as caught:
        RegistryClient(**{"url": "http://localhost", **settings})
    assert PASSWORD not in str(caught.value)


def test_a_password_in_the_url_is_not_repeated() -> None:
    with pytest.raises(InvalidConnection, match="give username and password") as caught:
        RegistryClient("http://alice:hunter2@localhost")
    assert "hunter2" not in str(caught.value)


def test_every_error_is_an_expected_one() -> None:
    errors = {
        name
        for name, kind in vars(_http).items()
        if isinstance(kind, type) and issubclass(kind, Exception) and kind is not RegistryError
    }
    assert "Truncated" in errors
    assert errors <= set(_client.__all__)
    assert all(issubclass(getattr(_client, name), RegistryError) for name in errors)


# Many at once


def test_connections_are_kept(registry: RegistryProcess, client: RegistryClient) -> None:
    digest = push_image(client, "app", "1")
    for _ in range(10):
        client.resolve("app", "1")
        client.manifest("app", digest)
        list(client.tags("app"))
        pull(client, "app", Digest.of(b"{}"))
        with pytest.raises(NotFound):
            client.resolve("app", "missing")
    assert len(client_ports(registry)) == 1


def test_a_connection_that_the_registry_closed_is_not_used(registry: RegistryProcess) -> None:
    with RegistryClient(registry.url, retries=0) as client:
        push_image(client, "app", "1")
        registry.restart()
        client.push_blob("app", b"content")


def test_map_keeps_the_order(client: RegistryClient) -> None:
    tags = [f"v{number}" for number in range(50)]
    digests = list(client.map(lambda tag: push_image(client, "app", tag), tags))
    assert [
        resolved.digest for resolved in client.map(lambda tag: client.resolve("app", tag), tags)
    ] == digests
    assert len(set(digests)) == 50


def test_map_is_bounded(registry: RegistryProcess) -> None:
    client = RegistryClient(registry.url, connections=3)
    busy = threading.Semaphore(3)
    items = itertools.count()

    def work(number: int) -> int:
        assert busy.acquire(blocking=False), "more calls at once than connections"
        client.ping()
        busy.release()
        return number

    results = client.map(work, items)
    assert [next(results) for _ in range(10)] == list(range(10))
    results.close()  # type: ignore[attr-defined]
    assert next(items) < 50


def test_map_ends_at_the_first_error(client: RegistryClient) -> None:
    push_image(client, "app", "0", "1", "2")
    begun = []

    def resolve(number: int) -> int:
        begun.append(number)
        client.resolve("app", str(number))
        return number

    results = client.map(resolve, range(1000))
    assert [next(results), next(results), next(results)] == [0, 1, 2]
    with pytest.raises(NotFound, match="app:3"):
        next(results)
    assert len(begun) < 100
    assert list(results) == []


def test_map_of_nothing(client: RegistryClient) -> None:
    assert list(client.map(client.ping, [])) == []  # type: ignore[arg-type]


def test_threads_share_a_client(client: RegistryClient) -> None:
    def round_trip(number: int) -> bool:
        data = f"content {number}".encode()
        digest = client.push_blob(f"app-{number % 4}", data)
        return pull(client, f"app-{number % 4}", digest) == data

    assert all(client.map(round_trip, range(100)))
