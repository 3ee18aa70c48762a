# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module endpoint_check: what it finds out about real registries, and that it leaves no trace."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils import _canary, _media
from ansible_collections.dockyard.registry.plugins.module_utils._client import RegistryClient
from ansible_collections.dockyard.registry.plugins.module_utils._reference import Digest

from tests.support.faulty_proxy import FaultyProxy, broken_off, header, html, status
from tests.support.modules import module_result, run_ansible, run_module, start_module
from tests.support.registry import RegistryProcess, free_port
from tests.support.tls import make_certificates

Factory = Callable[..., RegistryProcess]
PASSWORD = "correct horse battery staple"
USER = {"username": "alice", "password": PASSWORD}


def check(url: str, check_mode: bool = False, **options: Any) -> dict[str, Any]:
    return run_module("endpoint_check", {"url": url, "wait": 0, **options}, check=check_mode)


def steps(result: dict[str, Any]) -> dict[str, str]:
    return {step["step"]: step["status"] for step in result["steps"]}


def files(registry: RegistryProcess) -> set[str]:
    """Every repository's and every blob's folders and files; not the 256 folders that all blobs share."""
    root = registry.data / "docker/registry/v2"
    found = [*(root / "repositories").rglob("*"), *(root / "blobs").glob("*/*/**/*")]
    return {str(path.relative_to(root)) for path in found if path.parent.parent != root / "blobs"}


def push(client: RegistryClient, repository: str, content: bytes, tag: str = "1") -> Digest:
    """An artifact whose config and only layer are this content."""
    blob = client.push_blob(repository, content)
    part = {"mediaType": "application/octet-stream", "digest": blob, "size": len(content)}
    raw = json.dumps(
        {"schemaVersion": 2, "mediaType": _media.OCI_MANIFEST, "config": part, "layers": [part]}
    ).encode()
    return client.put_manifest(repository, tag, raw, _media.OCI_MANIFEST)


def test_the_whole_check_leaves_no_trace(registry_factory: Factory) -> None:
    registry = registry_factory(auth={"alice": PASSWORD})
    client = RegistryClient(registry.url, **USER)
    kept = push(client, "app", b"content")
    before = files(registry)
    for _ in range(2):
        result = check(registry.url, **USER, write=True, data=str(registry.data))
        assert "failed" not in result, result["msg"]
        assert result["changed"] is False
        assert (result["reachable"], result["anonymous"]) == (True, False)
        assert result["api_version"] == "registry/2.0"
        assert steps(result) == dict.fromkeys(
            ("answer", "anonymous", "login", "push", "pull", "delete", "clean"), "ok"
        )
        assert all(step["seconds"] >= 0 for step in result["steps"])
        assert result["leftovers"] == []
    assert files(registry) == before
    assert list(client.repositories()) == ["app"]
    assert client.resolve("app", "1").digest == kept
    assert PASSWORD not in str(result)


def test_on_an_empty_registry_too(registry: RegistryProcess) -> None:
    result = check(registry.url, anonymous=True, write=True, data=str(registry.data))
    assert steps(result)["clean"] == "ok"
    assert files(registry) == set()


def test_check_mode_only_reads(registry_factory: Factory) -> None:
    registry = registry_factory(auth={"alice": PASSWORD})
    result = check(registry.url, True, **USER, write=True, data=str(registry.data))
    assert steps(result) == dict.fromkeys(("answer", "anonymous", "login"), "ok")
    assert "POST" not in registry.log.read_text()


def test_without_the_data_it_says_what_is_left(registry: RegistryProcess) -> None:
    client = RegistryClient(registry.url)
    for _ in range(2):
        result = check(registry.url, anonymous=True, write=True)
        assert steps(result)["delete"] == "ok"
        assert len(result["leftovers"]) == 1
        assert "dockyard-check/shared: it stays listed" in result["leftovers"][0]
    assert list(client.repositories()) == ["dockyard-check/shared"]
    assert list(client.tags("dockyard-check/shared")) == []


@pytest.mark.parametrize("with_data", [True, False])
def test_deletion_disabled(registry_factory: Factory, with_data: bool) -> None:
    registry = registry_factory(delete=False)
    data = {"data": str(registry.data)} if with_data else {}
    result = check(registry.url, anonymous=True, write=True, **data)
    assert "failed" not in result, result
    assert steps(result)["delete"] == "unsupported"
    assert steps(result)["clean"] == "ok"
    assert (files(registry) == set()) == with_data
    assert len(result["leftovers"]) == (0 if with_data else 1)


def test_through_ansible(registry_factory: Factory) -> None:
    registry = registry_factory(auth={"alice": PASSWORD})
    options = {"url": registry.url, **USER, "write": True, "data": str(registry.data)}
    done = run_ansible("endpoint_check", options, verbosity=3)
    assert done.returncode == 0, done.stdout
    assert "registry/2.0" in done.stdout
    assert PASSWORD not in done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr


# What it finds


def test_a_registry_that_lets_everybody_in(registry: RegistryProcess) -> None:
    for options in ({}, USER):
        result = check(registry.url, **options)
        assert "lets everybody in, though it should ask for a user" in result["msg"]
        assert result["failed"]
        assert result["anonymous"] is True
        assert steps(result) == {"answer": "ok", "anonymous": "failed"}


def test_a_registry_that_should_let_everybody_in(registry_factory: Factory) -> None:
    result = check(registry_factory(auth={"alice": PASSWORD}).url, anonymous=True)
    assert "anybody should get in" in result["msg"]
    assert result["anonymous"] is False


def test_a_wrong_password(registry_factory: Factory) -> None:
    registry = registry_factory(auth={"alice": PASSWORD})
    result = check(registry.url, username="alice", password=f"not {PASSWORD}", write=True)
    assert "does not accept user alice with the password given" in result["msg"]
    assert PASSWORD not in str(result["msg"])
    assert steps(result) == {"answer": "ok", "anonymous": "ok", "login": "failed"}


def test_asking_without_a_user_is_enough_for_401(registry_factory: Factory) -> None:
    registry = registry_factory(auth={"alice": PASSWORD})
    result = check(registry.url)
    assert "failed" not in result
    assert result["api_version"] == ""
    assert steps(result) == dict.fromkeys(("answer", "anonymous"), "ok")
    result = check(registry.url, write=True)
    assert "asks for a user and a password, and none was given" in result["msg"]
    assert steps(result)["push"] == "failed"


def test_a_read_only_registry(registry_factory: Factory) -> None:
    registry = registry_factory(readonly=True)
    result = check(registry.url, anonymous=True, write=True, data=str(registry.data))
    assert "the registry is read-only" in result["msg"]
    assert steps(result)["push"] == "unsupported"
    assert result["leftovers"] == []
    assert check(registry.url, anonymous=True)["changed"] is False


def test_nobody_listens() -> None:
    result = check(f"http://127.0.0.1:{free_port()}")
    assert "connection refused" in result["msg"]
    assert (result["reachable"], result["anonymous"]) == (False, None)


def test_it_waits_for_a_registry_that_starts(registry: RegistryProcess) -> None:
    registry.stop()
    process = start_module("endpoint_check", {"url": registry.url, "anonymous": True, "wait": 60})
    _wait_until_asked(registry.port)
    registry.start()
    assert module_result(process)["reachable"] is True


def _wait_until_asked(port: int) -> None:
    """Listen there until somebody connects, and turn them away."""
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(30)
        server.accept()[0].close()


@pytest.mark.parametrize("fault", [html(502), html(404), broken_off])
def test_it_waits_for_a_proxy_that_starts(registry: RegistryProcess, fault: Any) -> None:
    with FaultyProxy(registry.url) as proxy:
        proxy.spoil("GET", fault, times=6)
        assert check(proxy.url, anonymous=True, wait=60)["reachable"] is True
        assert len(proxy.requests) > 6


def test_it_does_not_wait_for_another_product(registry: RegistryProcess) -> None:
    with FaultyProxy(registry.url) as proxy:
        proxy.spoil("GET", html())
        result = check(proxy.url, wait=300)
        assert "what answers is no registry (200, text/html" in result["msg"]
        assert len(proxy.requests) == 1


def test_certificates(registry_factory: Factory, tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path, "127.0.0.1")
    tls = {"certificate": str(certificates.certificate), "key": str(certificates.key)}
    registry = registry_factory(config_overrides={"http": {"tls": tls}})
    assert "certificate is not accepted" in check(registry.url, wait=300)["msg"]
    assert "write https instead of http" in check(registry.url.replace("https", "http"), wait=300)["msg"]
    trusted = check(registry.url, ca_file=str(certificates.ca), anonymous=True)
    assert trusted["reachable"] is True


def test_https_to_a_registry_without(registry: RegistryProcess) -> None:
    result = check(registry.url.replace("http", "https"), wait=300)
    assert "write http instead of https" in result["msg"]


def test_a_proxy_that_hides_its_scheme(registry: RegistryProcess) -> None:
    """docker push would be sent to the wrong address, though reading works."""
    with FaultyProxy(registry.url) as proxy:
        proxy.spoil("POST", header("Location", lambda url: url.replace("http:", "https:")))
        result = check(proxy.url, anonymous=True, write=True, data=str(registry.data))
    assert "X-Forwarded-Proto" in result["msg"]
    assert steps(result)["push"] == "failed"
    assert files(registry) == set()


def test_content_that_changes_on_the_way(registry: RegistryProcess) -> None:
    with FaultyProxy(registry.url) as proxy:
        proxy.spoil(
            "GET .*/blobs/", status(200, b"something else", Docker_Distribution_Api_Version="registry/2.0")
        )
        result = check(proxy.url, anonymous=True, write=True, data=str(registry.data))
    assert "not the content of that digest" in result["msg"]
    assert steps(result)["pull"] == "failed"
    assert files(registry) == set()


def test_a_deletion_that_does_nothing(registry: RegistryProcess) -> None:
    with FaultyProxy(registry.url) as proxy:
        proxy.spoil("DELETE", status(202, Docker_Distribution_Api_Version="registry/2.0"))
        result = check(proxy.url, anonymous=True, write=True, data=str(registry.data))
    assert "it can still be pulled" in result["msg"]
    assert files(registry) == set()


def test_the_data_of_another_registry(registry_factory: Factory) -> None:
    registry, other = registry_factory(), registry_factory()
    push(RegistryClient(other.url), "app", b"content")
    before = files(other)
    result = check(registry.url, anonymous=True, write=True, data=str(other.data))
    assert "this is not the data of the registry" in result["msg"]
    assert steps(result)["clean"] == "failed"
    assert files(other) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "127.0.0.1:5000"}, "write http:// or https://"),
        ({"url": f"http://alice:{PASSWORD.split()[0]}@127.0.0.1"}, "give username and password"),
        ({"username": "alice"}, "give both or none"),
        ({"timeout": 0}, "more than 0"),
        ({"write": True, "data": "/nonexistent"}, "/nonexistent"),
        ({"url": "https://127.0.0.1", "ca_file": "/nonexistent"}, "ca_file /nonexistent: No such file"),
        ({"wait": "soon"}, "wait"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], message: str) -> None:
    result = run_module("endpoint_check", {"url": "http://127.0.0.1:1", "wait": 0, **options})
    assert result["failed"]
    assert message in result["msg"]
    assert "correct" not in result["msg"]


# What earlier checks left


def abandoned(client: RegistryClient, age: float) -> str:
    """What a check that was killed before it could delete anything leaves, `age` seconds ago."""
    artifact = _canary.make_artifact(shared=False)
    began = f"{int(time.time() - age):08x}"
    repository = f"{_canary.FOLDER}/{began}{secrets.token_hex(8)}"
    for content in artifact.blobs.values():
        client.push_blob(repository, content.replace(artifact.repository.encode(), repository.encode()))
    return repository


def test_what_a_killed_check_left_is_removed(registry: RegistryProcess) -> None:
    client = RegistryClient(registry.url)
    before = files(registry)
    abandoned(client, age=_canary.ABANDONED_AFTER + 60)
    running = abandoned(client, age=_canary.ABANDONED_AFTER - 60)
    assert files(registry) > before
    check(registry.url, anonymous=True, write=True, data=str(registry.data))
    left = [path for path in files(registry) if path.startswith("repositories/dockyard-check/")]
    assert {"/".join(path.split("/")[1:3]) for path in left} == {running}
    assert len([path for path in files(registry) if path.endswith("/data")]) == 2


def test_what_others_put_there_stays(registry: RegistryProcess) -> None:
    """Layers of an image that somebody pushed below dockyard-check, by whatever name, are not the check's."""
    client = RegistryClient(registry.url)
    app = push(client, "app", b"shared content")
    old = f"{_canary.FOLDER}/{int(time.time()) - 86400:08x}{secrets.token_hex(8)}"
    push(client, old, b"shared content")
    push(client, f"{_canary.FOLDER}/mine", b"mine")
    check(registry.url, anonymous=True, write=True, data=str(registry.data))
    registry.restart()
    assert client.manifest("app", app).digest == app
    received = bytearray()
    client.pull_blob("app", Digest.of(b"shared content"), received.extend)
    assert received == b"shared content"
    assert sorted(client.repositories()) == ["app", f"{_canary.FOLDER}/mine"]


def test_a_killed_check_is_cleaned_up_by_a_later_one(
    registry: RegistryProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled = threading.Event()
    with FaultyProxy(registry.url) as proxy:

        def stop_here(answer: Any) -> Any:
            pulled.set()
            return proxy.hang(answer)

        proxy.spoil("GET .*/manifests/", stop_here)
        options = {"url": proxy.url, "anonymous": True, "write": True, "data": str(registry.data)}
        process = start_module("endpoint_check", options)
        assert pulled.wait(60)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert [path for path in files(registry) if "dockyard-check" in path]
    client = RegistryClient(registry.url)
    later = time.time() + _canary.ABANDONED_AFTER + 60
    monkeypatch.setattr(_canary.time, "time", lambda: later)
    _canary.EndpointCheck(client, client, _canary.Storage(registry.data)).write()
    assert files(registry) == set()


def test_several_checks_at_once(registry: RegistryProcess) -> None:
    options = {"url": registry.url, "anonymous": True, "write": True, "data": str(registry.data)}
    processes = [start_module("endpoint_check", options) for _ in range(6)]
    for result in map(module_result, processes):
        assert "failed" not in result, result["msg"]
    assert files(registry) == set()
