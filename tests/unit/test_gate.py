# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate as a process: alone, and asked by real nginx, Caddy and Traefik in front of real registries."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import bcrypt
import pytest
from ansible_collections.dockyard.registry.plugins.module_utils import _bcrypt
from ansible_collections.dockyard.registry.plugins.module_utils._htpasswd import usable_hashes
from ansible_collections.dockyard.registry.plugins.module_utils._permissions import build_document
from ansible_collections.dockyard.registry.plugins.module_utils._throttle import Limits, Throttle, network
from ansible_collections.dockyard.registry.plugins.module_utils._watched import Unreadable, Watched

from tests.support.gate import (
    Gate,
    Reply,
    basic,
    deployed_files,
    replace,
    running_caddy,
    running_gate,
    running_nginx,
    running_traefik,
    send,
)
from tests.support.modules import CHECKOUT
from tests.support.registry import RegistryProcess, free_port
from tests.support.traefik import needs_traefik_binary

USERS = {"alice": "wonderland", "bob": "builder", "reader": "glasses"}
ENTRIES: list[dict[str, Any]] = [
    {"name": "alice", "repositories": ["team/**"]},
    {"name": "bob", "permissions": ["pull", "push"], "repositories": ["bob/*"]},
    {"name": "reader", "permissions": ["pull"]},
]
ALICE, BOB, READER = (f"{name}:{password}" for name, password in USERS.items())
MANIFEST = "/v2/team/app/manifests/1.0"


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with running_gate(tmp_path) as gate:
        gate.write_users(USERS)
        gate.write_policy(build_document(ENTRIES))
        yield gate


# --- Parts ---


def test_the_role_copies_all_that_the_gate_imports() -> None:
    folder = CHECKOUT / "plugins" / "module_utils"
    needed, todo = set[str](), ["_gate.py"]
    while todo:
        name = todo.pop()
        if name in needed:
            continue
        needed.add(name)
        for node in ast.walk(ast.parse((folder / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                modules = [node.module] if node.module else [alias.name for alias in node.names]
                todo.extend(f"{module}.py" for module in modules)
    assert sorted(needed) == deployed_files()


@pytest.mark.parametrize("find", [_bcrypt._from_libcrypt, _bcrypt._from_package, _bcrypt.load])
def test_bcrypt_is_the_registrys(find: Callable[[], _bcrypt.Verify | None]) -> None:
    verify = find()
    assert verify is not None
    for password in ("secret", "ÄÖÜ€", "\xff\xa3345", "x" * 72):
        tail = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()[3:]
        for kind in ("$2a", "$2b", "$2y"):
            assert verify(password, kind + tail)
            assert not verify("X" + password[1:], kind + tail)


def test_lines_that_are_no_users_are_passed_over() -> None:
    good = bcrypt.hashpw(b"x", bcrypt.gensalt(4)).decode()
    lines = [f"alice:{good}", "no colon", f":{good}", "# comment", "", "md5:$apr1$x$y", f" bob:{good}\r"]
    lines += [f"twice:{good}", "twice:plain"]
    assert set(usable_hashes("\n".join(lines).encode() + b"\n\xff:x")) == {"alice", "bob"}


def test_a_watched_file_is_what_it_is_now(tmp_path: Path) -> None:
    path = tmp_path / "file"
    watched = Watched(str(path), lambda data: json.loads(data)["value"])
    with pytest.raises(Unreadable):
        watched.get()
    for value in range(200):
        # Faster than the clock ticks that stamps files, and of the same size.
        path.write_text(json.dumps({"value": value + 1000}), encoding="utf-8")
        assert watched.get() == value + 1000
    path.write_text("{", encoding="utf-8")
    for _time in range(2):
        with pytest.raises(Unreadable):
            watched.get()
    path.unlink()
    with pytest.raises(Unreadable):
        watched.get()


def test_tries_are_limited_by_address_and_user() -> None:
    throttle = Throttle(Limits(for_user=3, for_address=5, window=60, remembered=100))
    assert [throttle.begin("192.0.2.1", "alice", 0) for _try in range(4)] == [0, 0, 0, 60]
    assert throttle.begin("192.0.2.2", "alice", 0) == 0, "another address"
    assert throttle.begin("192.0.2.1", "bob", 10) == 0, "another user"
    throttle.succeed("192.0.2.1", "bob")
    assert [throttle.begin("192.0.2.1", name, 20) for name in ("bob", "carol", "dave")] == [0, 0, 40]
    assert throttle.begin("192.0.2.1", "alice", 61) == 0, "after the window"
    assert network("2001:db8::1") == network("2001:db8::ffff:1") != network("2001:db8:0:1::1")


def test_tries_are_forgotten_rather_than_fill_the_memory() -> None:
    throttle = Throttle(Limits(remembered=100))
    for number in range(1000):
        throttle.begin(f"198.51.100.{number % 250}", f"user{number}", 0)
    assert len(throttle._users._counts) == 100


# --- Answers ---


def test_who_may_what(gate: Gate) -> None:
    assert gate.ask("GET", MANIFEST).status == 401
    assert gate.ask("GET", MANIFEST).headers["www-authenticate"] == 'Basic realm="registry"'
    reply = gate.ask("DELETE", MANIFEST, login=ALICE)
    assert (reply.status, reply.headers["x-user"]) == (200, "alice")
    assert gate.ask("GET", MANIFEST, login=BOB).error() == "DENIED"
    assert gate.ask("PUT", MANIFEST, login=READER).status == 403
    assert gate.ask("GET", MANIFEST, login="alice:wrong").error() == "UNAUTHORIZED"
    assert gate.ask("GET", MANIFEST, login="nobody:wonderland").status == 401
    assert gate.ask("GET", "/v2/", login=BOB).status == 200
    assert gate.ask("GET", "/v2/_catalog", login=BOB).status == 403
    assert gate.ask("GET", "/v2/_catalog", login=READER).status == 200
    assert gate.ask("OPTIONS", MANIFEST).status == 200
    refused = gate.ask("GET", "/v2/team%2Fapp/manifests/1.0", login=ALICE)
    assert refused.status == 403
    assert refused.headers["x-gate-body"] == refused.body.decode()
    assert send(gate.port, "GET /healthz HTTP/1.1").status == 200


@pytest.mark.parametrize(
    "authorization",
    [
        "Basic",
        "Basic !",
        "Basic Og==",
        "Basic YWxpY2U=",
        "Basic /w==",
        "Digest x",
        "Bearer x",
        "Bearer ..",
        "x",
    ],
)
def test_what_is_no_login(gate: Gate, authorization: str) -> None:
    assert gate.ask("GET", "/v2/", f"Authorization: {authorization}").status == 401


def test_longer_passwords_than_bcrypt_looks_at(gate: Gate) -> None:
    gate.write_users({"long": "x" * 72})
    assert gate.ask("GET", "/v2/", login="long:" + "x" * 72).status == 200
    assert gate.ask("GET", "/v2/", login="long:" + "x" * 73).status == 401
    assert gate.ask("GET", "/v2/", login="long:" + "x" * 72 + "\0").status == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 500),
        (["X-Original-Method: GET"], 500),
        (["X-Original-URI: /v2/"], 500),
        (["X-Original-Method:", "X-Original-URI: /v2/"], 500),
        (["X-Forwarded-Method: GET", "X-Forwarded-Uri: /v2/"], 200),
        (["X-Original-Method: GET", "X-Original-URI: /v2/", "X-Forwarded-Uri: /v2/"], 403),
        (["X-Original-Method: GET", "X-Original-URI: /v2/", "X-Original-URI: /v2/"], 403),
        (["X-Original-Method: GET", "X-Original-Method: GET", "X-Original-URI: /v2/"], 403),
        (["X-Original-Method: GET", "X-Original-URI: /v2/", "Authorization: Basic x"], 403),
        (["X-Original-Method: GET", "X-Original-URI: /v2/", "Content-Type: a/b", "Content-Type: a/b"], 403),
        (["X-Original-Method: GET", "X-Original-URI: /v2/", "no header"], 500),
        (["X-Original-Method: GET", "X-Original-URI: /v2/", " folded: yes"], 500),
    ],
)
def test_it_never_guesses_what_the_client_asked(gate: Gate, headers: list[str], status: int) -> None:
    assert send(gate.port, "GET /auth HTTP/1.1", *headers, *basic(READER)).status == status


@pytest.mark.parametrize(
    "line", ["POST /auth HTTP/1.1", "GET /auth", "GET auth HTTP/1.1", "x", "GET /auth HTTP/2.0"]
)
def test_what_is_no_question(gate: Gate, line: str) -> None:
    assert (
        send(gate.port, line, "X-Original-Method: GET", "X-Original-URI: /v2/", *basic(READER)).status == 500
    )


def test_without_its_files_it_lets_nobody_in(gate: Gate) -> None:
    for path in (gate.policy_file, gate.users_file):
        content = path.read_text(encoding="utf-8")
        assert gate.ask("GET", "/v2/", login=ALICE).status == 200
        path.unlink()
        assert gate.ask("GET", "/v2/", login=ALICE).status == 503
        assert send(gate.port, "GET /healthz HTTP/1.1").status == 503
        replace(path, content)
        assert gate.ask("GET", "/v2/", login=ALICE).status == 200
    replace(gate.policy_file, "{")
    assert gate.ask("GET", "/v2/", login=ALICE).status == 503


def test_a_removed_user_and_an_old_password_are_out_at_once(gate: Gate) -> None:
    for _round in range(20):
        gate.write_users(USERS, cost=4)
        assert gate.ask("GET", MANIFEST, login=ALICE).status == 200
        gate.write_users({**USERS, "alice": "changed"}, cost=4)
        assert gate.ask("GET", MANIFEST, login=ALICE).status == 401
        assert gate.ask("GET", MANIFEST, login="alice:changed").status == 200, "nor is the failure kept"
        gate.write_users({"bob": "builder"}, cost=4)
        assert gate.ask("GET", MANIFEST, login="alice:changed").status == 401
        gate.write_policy(build_document([{"name": "bob", "permissions": ["pull"]}]))
        assert gate.ask("PUT", "/v2/bob/app/manifests/1", login=BOB).status == 403
        gate.write_policy(build_document(ENTRIES))
        assert gate.ask("PUT", "/v2/bob/app/manifests/1", login=BOB).status == 200


def test_a_user_that_goes_while_bcrypt_runs_is_out(gate: Gate) -> None:
    gate.write_users({"slow": "coach"}, cost=13)
    gate.write_policy(build_document([]))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(gate.ask, "GET", "/v2/", login="slow:coach")
        # Its bcrypt takes half a second and more.
        wait_for_thread(gate.pid)
        gate.write_users({"other": "user"}, cost=4)
        assert answer.result().status == 401


def wait_for_thread(pid: int) -> None:
    """Wait until the process has a second thread: bcrypt has begun."""
    deadline = time.monotonic() + 30
    while len(list(Path(f"/proc/{pid}/task").iterdir())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_others_are_answered_while_bcrypt_runs(gate: Gate) -> None:
    gate.write_users({**USERS, "slow": "coach"}, cost=5)
    assert gate.ask("GET", "/v2/", login=ALICE).status == 200
    hashed = bcrypt.hashpw(b"coach", bcrypt.gensalt(14)).decode()
    with gate.users_file.open("a", encoding="utf-8") as file:
        file.write(f"slow:{hashed}\n")
    with ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(gate.ask, "GET", "/v2/", login="slow:coach") for _connection in range(2)]
        wait_for_thread(gate.pid)
        assert gate.ask("GET", "/v2/", login=ALICE).status == 200
        assert not any(answer.done() for answer in slow)
        assert [answer.result().status for answer in slow] == [200, 200]


def test_what_may_pass_is_held_until_the_registry_listens(gate: Gate) -> None:
    port = free_port()

    def ask(login: str) -> Reply:
        return gate.ask("PUT", MANIFEST, f"X-Hold: {port}", login=login)

    with ThreadPoolExecutor(1) as executor:
        held = executor.submit(ask, ALICE)
        assert ask(READER).status == 403, "what may not pass is not held"
        assert not held.done()
        with socket.create_server(("127.0.0.1", port)):
            assert held.result(timeout=30).status == 200
            assert ask(ALICE).status == 200


def test_too_many_tries(gate: Gate) -> None:
    replies = [
        gate.ask("GET", "/v2/", login=f"alice:guess{number}", client="192.0.2.7") for number in range(12)
    ]
    assert [reply.status for reply in replies] == [401] * 10 + [429] * 2
    assert replies[-1].error() == "TOOMANYREQUESTS"
    assert 0 < int(replies[-1].headers["retry-after"]) <= 60
    assert gate.ask("GET", "/v2/", login=ALICE, client="192.0.2.7").status == 429, (
        "the right guess comes too late"
    )
    assert gate.ask("GET", "/v2/", login=BOB, client="192.0.2.7").status == 200, "another user there"
    assert gate.ask("GET", "/v2/", login=ALICE, client="192.0.2.8").status == 200, "the same elsewhere"
    assert gate.ask("GET", "/v2/", login=ALICE, client="192.0.2.7").status == 200, "which is known by now"
    spoofed = "203.0.113.5, 192.0.2.7"
    assert gate.ask("GET", "/v2/", login="alice:guess", client=spoofed).status == 429, (
        "what the client adds is nothing"
    )


def test_the_same_wrong_password_is_no_further_try(gate: Gate) -> None:
    assert {gate.ask("GET", "/v2/", login="alice:old").status for _time in range(30)} == {401}
    assert gate.ask("GET", "/v2/", login=ALICE).status == 200


def test_questions_one_after_another_and_in_pieces(gate: Gate) -> None:
    question = "\r\n".join(
        ["GET /auth HTTP/1.1", "X-Original-Method: GET", "X-Original-URI: {}", *basic(ALICE), "", ""]
    )
    targets = ["/v2/", "/v2/bob/app/tags/list", MANIFEST, "/v2//"] * 5
    data = "".join(question.format(target) for target in targets).encode()
    with socket.create_connection(("127.0.0.1", gate.port), 30) as connection:
        for start in range(0, len(data), 97):
            connection.sendall(data[start : start + 97])
        received = b""
        while received.count(b"HTTP/1.1 ") < len(targets) or not received.endswith((b"\r\n\r\n", b"}")):
            piece = connection.recv(65536)
            assert piece
            received += piece
    statuses = [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200, 403, 200, 403] * 5


def test_a_head_without_end_is_cut_off(gate: Gate) -> None:
    with socket.create_connection(("127.0.0.1", gate.port), 30) as connection:
        try:
            for _piece in range(100):
                connection.sendall(b"GET /auth HTTP/1.1\r\nX: " + b"x" * 4096)
            assert connection.recv(1) == b""
        except ConnectionError:
            pass
    assert gate.ask("GET", "/v2/", login=ALICE).status == 200


def test_tokens_where_anybody_may_pull(gate: Gate) -> None:
    gate.write_policy(build_document(ENTRIES, anonymous_pull=["public/**"]))
    challenge = gate.ask("GET", "/v2/").headers["www-authenticate"]
    assert challenge == f'Bearer realm="http://127.0.0.1:{gate.port}/v2/token",service="registry"'
    public, private = "/v2/public/app/manifests/1", MANIFEST

    def token(login: str) -> str:
        reply = send(gate.port, "GET /v2/token?service=registry HTTP/1.1", *basic(login))
        assert reply.status == 200
        return f"Authorization: Bearer {json.loads(reply.body)['token']}"

    nobody, alice = token(""), token(ALICE)
    assert gate.ask("GET", public, nobody).status == 200
    assert gate.ask("PUT", public, nobody).status == 401
    assert gate.ask("GET", private, nobody).status == 401
    assert gate.ask("DELETE", private, alice).headers["x-user"] == "alice"
    assert gate.ask("GET", "/v2/bob/app/manifests/1", alice).status == 403
    assert gate.ask("GET", public).status == 200
    assert send(gate.port, "GET /v2/token HTTP/1.1", *basic("alice:wrong")).status == 401
    name, end, signature = alice.rpartition(" ")[2].split(".")
    bob = base64.urlsafe_b64encode(b"bob").decode()
    for forged in (
        f"{bob}.{end}.{signature}",
        f"{name}.{int(end) + 1}.{signature}",
        f"{name}.{end}.",
        f".{end}.x",
    ):
        assert gate.ask("GET", private, f"Authorization: Bearer {forged}").status == 401
    gate.write_users({**USERS, "alice": "changed"})
    assert gate.ask("DELETE", private, alice).status == 401, "it dies with the password"


@pytest.mark.parametrize(
    ("agent", "status", "code"),
    [
        ("docker/27.3.1 go/go1.22", 503, "UNAVAILABLE"),
        ("", 503, "UNAVAILABLE"),
        ("skopeo/1.18.0", 429, "TOOMANYREQUESTS"),
        ("containers/5.30 (github.com/containers/image)", 429, "TOOMANYREQUESTS"),
        ("Buildah/1.39", 429, "TOOMANYREQUESTS"),
        ("cri-o/1.31", 429, "TOOMANYREQUESTS"),
    ],
)
def test_a_client_is_told_to_come_back_as_it_understands(
    gate: Gate, agent: str, status: int, code: str
) -> None:
    reply = send(gate.port, "GET /closed HTTP/1.1", *([f"User-Agent: {agent}"] if agent else []))
    assert (reply.status, reply.error(), reply.headers["retry-after"]) == (status, code, "5")


def test_what_traefik_cannot_answer_itself(gate: Gate) -> None:
    reply = send(gate.port, "GET /unavailable HTTP/1.1", "User-Agent: skopeo/1.18.0")
    assert (reply.status, reply.error(), reply.headers["retry-after"]) == (503, "UNAVAILABLE", "5")
    for mode in ("normal", "maintenance"):
        assert send(gate.port, f"GET /mode/{mode} HTTP/1.1").body == mode.encode()
    assert send(gate.port, "GET /mode/other HTTP/1.1").status == 404


# --- Behind real proxies, before real registries ---


class Stack(NamedTuple):
    port: int
    gate: Gate
    registry: RegistryProcess

    def request(self, method: str, target: str, *headers: str, login: str = "", body: bytes = b"") -> Reply:
        length = [f"Content-Length: {len(body)}"] if body else []
        return send(self.port, f"{method} {target} HTTP/1.1", *basic(login), *length, *headers, body=body)

    def push(self, repository: str, content: bytes, login: str) -> str:
        """Push one layer and a manifest `1.0` of it; its digest."""
        digest = self.push_blob(repository, content, login)
        layer = {"mediaType": "application/octet-stream", "digest": digest, "size": len(content)}
        kind = "application/vnd.oci.image.manifest.v1+json"
        manifest = {"schemaVersion": 2, "mediaType": kind, "config": layer, "layers": [layer]}
        reply = self.request(
            "PUT",
            f"/v2/{repository}/manifests/1.0",
            f"Content-Type: {kind}",
            login=login,
            body=json.dumps(manifest).encode(),
        )
        assert reply.status == 201, reply
        return digest

    def push_blob(self, repository: str, content: bytes, login: str) -> str:
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        location = self.start_upload(repository, login)
        size = f"{len(content):x}\r\n".encode()
        chunked = size + content + b"\r\n0\r\n\r\n"
        header = "Transfer-Encoding: chunked"
        reply = send(self.port, f"PATCH {location} HTTP/1.1", header, *basic(login), body=chunked)
        assert reply.status == 202, reply
        location = self.path_of(reply)
        reply = self.request("PUT", f"{location}&digest={digest}", "Content-Length: 0", login=login)
        assert reply.status == 201, reply
        return digest

    def start_upload(self, repository: str, login: str) -> str:
        target = f"/v2/{repository}/blobs/uploads/"
        reply = self.request("POST", target, "Content-Length: 0", login=login)
        assert reply.status == 202, reply
        return self.path_of(reply)

    @staticmethod
    def path_of(reply: Reply) -> str:
        location = reply.headers["location"]
        return location[location.index("/v2/") :]


@pytest.fixture(params=["nginx", "caddy", pytest.param("traefik", marks=needs_traefik_binary)])
def stack(
    request: pytest.FixtureRequest, tmp_path: Path, gate: Gate, registry: RegistryProcess
) -> Iterator[Stack]:
    start = {"nginx": running_nginx, "caddy": running_caddy, "traefik": running_traefik}
    with start[request.param](tmp_path, gate.port, registry.port) as port:
        yield Stack(port, gate, registry)


SECRET = b"the content that nobody else may see"


def test_tricks_reach_nothing(stack: Stack) -> None:
    """Everything is sent raw; what carries the secret, or changes it, is a failure."""
    digest = stack.push("team/secret", SECRET, ALICE)
    stack.push("bob/app", b"bob's own", BOB)
    assert stack.request("GET", f"/v2/team/secret/blobs/{digest}", login=ALICE).body == SECRET
    blob, manifest = f"team/secret/blobs/{digest}", "team/secret/manifests/1.0"
    for target in (
        f"/v2/{blob}",
        f"/v2//{blob}",
        f"//v2/{blob}",
        f"/v2/./{blob}",
        f"/v2/bob/../{blob}",
        f"/v2/bob/app/../../{blob}",
        f"/v2/bob/%2e%2e/{blob}",
        f"/v2/bob/..%2f{blob}",
        f"/v2/bob%2f..%2f{blob}",
        f"/v2/bob/app/blobs/..%2f..%2f..%2f{blob}",
        f"/%76%32/{blob}",
        f"/v2/team%2Fsecret/blobs/{digest}",
        f"/v2/team/%73ecret/blobs/{digest}",
        f"/v2/team/secret/%62lobs/{digest}",
        f"/v2/team/secret/blobs/{digest.replace(':', '%3A')}",
        f"/v2/team/secret/blobs/{digest}/",
        f"/v2/team/secret//blobs/{digest}",
        f"/v2/team\\secret/blobs/{digest}",
        f"/v2/{blob};x=1",
        f"/v2/{blob}?",
        f"/v2/{blob}?x",
        f"/v2/{blob}#/v2/",
        f"/v2/#/{blob}",
        f"http://127.0.0.1:{stack.port}/v2/{blob}",
        f"http://127.0.0.1:{stack.port}//v2/{blob}",
        f"/v2/bob/app/blobs/{digest}",
        f"/v2/{manifest}",
        f"/v2//{manifest}",
        f"/v2/bob/app/../../{manifest}",
        "/v2/_catalog",
        "/v2//_catalog",
        "/v2/team/secret/tags/list",
        f"/_gate?/v2/{blob}",
        f"/auth/../v2/{blob}",
    ):
        for method in ("GET", "HEAD", "PUT", "DELETE", "POST", "PATCH", "OPTIONS", "TRACE", "GET\t", "get"):
            for login in (BOB, "", "alice:wrong"):
                reply = stack.request(method, target, "Content-Length: 0", login=login)
                assert SECRET not in reply.body, (method, target)
                assert b"team/secret" not in reply.body, (method, target)
                assert digest not in reply.headers.get("docker-content-digest", ""), (method, target)
                assert not 200 <= reply.status < 300 or method == "OPTIONS", (method, target, reply)
    for header in (
        "X-Original-URI: /v2/",
        "X-Original-Method: OPTIONS",
        "X-Forwarded-Uri: /v2/bob/app/tags/list",
        "X-Forwarded-Method: OPTIONS",
        "X-Rewrite-URL: /v2/",
        "X-HTTP-Method-Override: OPTIONS",
        "X-User: alice",
        "Connection: close, X-Original-URI, X-Forwarded-Uri, Authorization",
    ):
        reply = stack.request("GET", f"/v2/{blob}", header, login=BOB)
        assert reply.status in (400, 401, 403, 500, 503), header
        assert SECRET not in reply.body
    assert stack.request("GET", f"/v2/{blob}", *basic(ALICE), login=BOB).body != SECRET
    assert stack.request("GET", f"/v2/{blob}", login=ALICE).body == SECRET
    assert stack.request("GET", f"/v2/{blob}", login=READER).body == SECRET


def test_a_layer_is_not_mounted_from_where_one_may_not_read(stack: Stack) -> None:
    digest = stack.push("team/secret", SECRET, ALICE)
    mine, query = "/v2/bob/app/blobs/uploads/", f"mount={digest}&from=team/secret"
    form = "Content-Type: application/x-www-form-urlencoded"
    attempts: list[tuple[str, list[str], bytes]] = [
        (f"{mine}?{query}", [], b""),
        (f"{mine}?mount={digest}&from=team%2Fsecret", [], b""),
        (f"{mine}?mount={digest}&%66rom=team/secret", [], b""),
        (f"{mine}?mount={digest}&from=bob/app&from=team/secret", [], b""),
        (f"{mine}?mount={digest}&from=team/secret&from=bob/app", [], b""),
        (f"{mine}?mount={digest};from=team/secret", [], b""),
        # The registry reads the body of a form, too, and believes it rather than the address.
        (mine, [form], query.encode()),
        (f"{mine}?mount={digest}&from=bob/app", [form], query.encode()),
        (mine, ["content-type: Application/X-WWW-Form-Urlencoded;x=y"], query.encode()),
        (mine, ["Content-Type: application/json", form], query.encode()),
        (mine, [form, "Connection: close, Content-Type"], query.encode()),
        (
            mine,
            ["Content-Type: multipart/form-data; boundary=x"],
            b"".join(
                b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % pair
                for pair in ((b"mount", digest.encode()), (b"from", b"team/secret"))
            )
            + b"--x--\r\n",
        ),
    ]
    for target, headers, body in attempts:
        length = [] if body else ["Content-Length: 0"]
        reply = stack.request("POST", target, *headers, *length, login=BOB, body=body)
        assert reply.status != 201, (target, headers)
        assert stack.request("GET", f"/v2/bob/app/blobs/{digest}", login=BOB).status == 404, (target, headers)
    # The registry itself would have done it; and with the right it does.
    direct = send(
        stack.registry.port,
        f"POST {mine} HTTP/1.1",
        form,
        f"Content-Length: {len(query)}",
        body=query.encode(),
    )
    assert direct.status == 201, "the attack is a real one"
    reply = stack.request("POST", f"/v2/team/copy/blobs/uploads/?{query}", "Content-Length: 0", login=ALICE)
    assert reply.status == 201


def test_uploads_of_others(stack: Stack) -> None:
    location = stack.start_upload("team/secret", ALICE)
    foreign = location.replace("/v2/team/secret/", "/v2/bob/app/")
    for method in ("GET", "PATCH", "PUT", "DELETE", "HEAD", "OPTIONS"):
        for target, expected in ((location, {403}), (foreign, {400, 404})):
            reply = stack.request(method, target, "Content-Length: 0", login=BOB)
            # HEAD and OPTIONS of a foreign upload: the registry has no such upload there.
            assert reply.status in expected, (method, target, reply)
    assert stack.request("GET", location, login=READER).status == 403
    assert stack.request("GET", location, login=ALICE).status == 204, "it is still there"


def test_rights_as_people_use_them(stack: Stack) -> None:
    stack.push("bob/app", b"bob's own", BOB)
    manifest = "/v2/bob/app/manifests/1.0"
    accept = "Accept: application/vnd.oci.image.manifest.v1+json"
    found = stack.request("GET", manifest, accept, login=READER)
    assert found.status == 200
    by_digest = "/v2/bob/app/manifests/" + found.headers["docker-content-digest"]
    assert stack.request("HEAD", manifest, accept, login=READER).status == 200
    assert stack.request("DELETE", by_digest, login=BOB).error() == "DENIED"
    assert stack.request("PUT", manifest, login=READER, body=found.body).status == 403
    assert stack.request("GET", manifest).status == 401
    assert "www-authenticate" in stack.request("GET", "/v2/").headers
    stack.gate.write_policy(build_document([*ENTRIES, {"name": "bob"}]))
    assert stack.request("DELETE", by_digest, login=BOB).status == 202
    guesses = [stack.request("GET", "/v2/", login=f"bob:guess{number}") for number in range(11)]
    assert [guess.status for guess in guesses] == [401] * 10 + [429]
    assert guesses[-1].error() == "TOOMANYREQUESTS"
    assert int(guesses[-1].headers["retry-after"]) > 0
    stack.gate.policy_file.unlink()
    assert stack.request("GET", manifest, login=READER).status == 503


def test_a_client_pulls_without_a_password_and_with_one(stack: Stack) -> None:
    stack.push("team/secret", SECRET, ALICE)
    stack.push("bob/app", b"bob's own", BOB)

    def inspect(repository: str, *options: str) -> bool:
        image = f"docker://127.0.0.1:{stack.port}/{repository}:1.0"
        command = ["skopeo", "inspect", "--raw", "--tls-verify=false", *options, image]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    for anonymous in (False, ["bob/*"]):
        stack.gate.write_policy(build_document(ENTRIES, anonymous_pull=anonymous))
        assert inspect("bob/app", "--no-creds") is bool(anonymous)
        assert not inspect("team/secret", "--no-creds")
        assert inspect("team/secret", "--creds", READER)
        assert not inspect("team/secret", "--creds", BOB)
        assert not inspect("bob/app", "--creds", "reader:wrong")


def test_a_removed_user_is_out_under_load(stack: Stack) -> None:
    """No request that began after the file changed is let through."""
    stop = threading.Event()
    answers: list[tuple[float, int]] = []

    def pull() -> None:
        while not stop.is_set():
            begin = time.monotonic()
            answers.append((begin, stack.request("GET", "/v2/", login=READER).status))

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(pull) for _worker in range(4)]
        while sum(status == 200 for _begin, status in answers) < 50:
            time.sleep(0.01)
        stack.gate.write_users({"alice": "wonderland"})
        changed = time.monotonic()
        while sum(begin > changed for begin, _status in answers) < 50:
            time.sleep(0.01)
        stop.set()
        for worker in workers:
            worker.result()
    assert {status for begin, status in answers if begin > changed} == {401}
