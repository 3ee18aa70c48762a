# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry behind a proxy: TLS, streaming, what listens, and that nothing breaks while it is changed."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.images import BASE
from tests.support.proxied import NAME, ProxiedSite, fresh_behind
from tests.support.store import write_layer
from tests.support.tls import Certificates, make_certificates

BLOB_MIB = 2048


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[ProxiedSite]:
    with fresh_behind("nginx", tmp_path) as site:
        yield site


def with_files(files: Certificates) -> dict[str, Any]:
    return {
        "registry_tls": "files",
        "registry_tls_certificate": str(files.certificate),
        "registry_tls_key": str(files.key),
    }


def put_image(site: ProxiedSite, name: str) -> str:
    """Push an image with Docker's client; returns its address."""
    image = f"{site.address}/{name}"
    assert site.login()
    assert site.docker("tag", BASE, image).returncode == 0
    pushed = site.docker("push", image)
    assert pushed.returncode == 0, pushed.stderr
    assert site.docker("image", "rm", image).returncode == 0
    return image


def test_a_second_run_changes_nothing(proxied: ProxiedSite) -> None:
    assert proxied.services() == ["gate", "network", "proxy", "registry"]
    assert proxied.play().ok().changed == []


def test_only_the_proxy_can_be_reached(proxied: ProxiedSite) -> None:
    listening = subprocess.run(
        ["ss", "-Hltn", "src", "127.0.0.1"], capture_output=True, text=True, check=True
    ).stdout
    ports = {int(line.split()[3].rpartition(":")[2]) for line in listening.splitlines()}
    assert {proxied.port, proxied.http_port} <= ports
    published = {
        (service, port)
        for service in proxied.services()
        for port, bound in (proxied.service(service)["HostConfig"]["PortBindings"] or {}).items()
        if bound
    }
    assert published == {("network", "8443/tcp"), ("network", "8080/tcp")}
    # Not even a user of the host, who can reach every container's own address.
    networks = proxied.service("network")["NetworkSettings"]["Networks"].values()
    addresses = [network["IPAddress"] for network in networks]
    assert addresses
    for address in addresses:
        with socket.create_connection((address, 8443), timeout=5):
            pass
        for port in (5000, 5001, 5002, 8081, 2019):
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((address, port), timeout=5)


@pytest.mark.parametrize("service", ["network", "gate", "proxy", "registry"])
def test_containers_are_closed(proxied: ProxiedSite, service: str) -> None:
    container = proxied.service(service)
    host = container["HostConfig"]
    assert container["Config"]["User"] == "65532:65532"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    # The official image's program carries this capability, and cannot be run where it is forbidden altogether.
    needed = ["NET_BIND_SERVICE"] if (proxied.proxy, service) == ("caddy", "proxy") else None
    assert host["CapAdd"] in (needed, ["CAP_NET_BIND_SERVICE"] if needed else needed)
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    writable = [mount["Destination"] for mount in container["Mounts"] if mount["RW"]]
    assert writable == (["/var/lib/registry"] if service == "registry" else [])


def test_docker_logs_in_pushes_and_pulls(proxied: ProxiedSite) -> None:
    assert not proxied.login(password="wrong")
    image = put_image(proxied, "team/app:1.0")
    pulled = proxied.docker("pull", image)
    assert pulled.returncode == 0, pulled.stderr
    assert proxied.docker("image", "rm", image).returncode == 0
    proxied.docker("logout", proxied.address)
    assert proxied.docker("pull", image).returncode != 0


def test_skopeo_checks_the_certificate(proxied: ProxiedSite, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    assert proxied.docker("save", "-o", str(archive), BASE).returncode == 0
    name = f"docker://{proxied.address}/team/skopeo:1"
    pushed = proxied.skopeo("copy", f"docker-archive:{archive}", name)
    assert pushed.returncode == 0, pushed.stderr
    pulled = proxied.skopeo("copy", name, f"dir:{tmp_path / 'pulled'}")
    assert pulled.returncode == 0, pulled.stderr
    untrusting = subprocess.run(["skopeo", "inspect", name], capture_output=True, text=True, check=False)
    assert "certificate" in untrusting.stderr


def test_an_upload_is_streamed(proxied: ProxiedSite, tmp_path: Path) -> None:
    """No size limit, and neither memory nor disk of the proxy holds it: both are smaller than the upload."""
    blob = tmp_path / "blob"
    digest = write_layer(blob, BLOB_MIB)
    status, headers = proxied.headers("/v2/big/blobs/uploads/", "-X", "POST")
    assert status == 202
    location = headers["location"][0]
    assert location.startswith(proxied.url + "/v2/big/"), "where the client asked, with scheme and port"
    target = f"{location.removeprefix(proxied.url)}&digest={digest}"
    octets = ("-H", "Content-Type: application/octet-stream")
    done = proxied.curl(
        target, "-X", "PUT", "-T", str(blob), *octets, "-o", "/dev/null", "-w", "%{http_code}"
    )
    assert done.stdout == "201", done.stderr
    container = proxied.service("proxy")
    assert container["HostConfig"]["Tmpfs"]["/tmp"].startswith("size=64m")
    changed = proxied.docker("diff", container["Id"]).stdout.split()
    assert set(changed) <= {"A", "C", "/certs", "/proxy", "/tmp"}, "a file was written in the container"
    held = proxied.docker("exec", container["Id"], "/bin/busybox", "du", "-sk", "/tmp").stdout
    assert int(held.split()[0]) < 1024

    blob.unlink()
    assert proxied.digest_of(f"/v2/big/blobs/{digest}") == digest


def test_plain_http_is_redirected(proxied: ProxiedSite) -> None:
    plain = f"http://{NAME}:{proxied.http_port}"
    done = subprocess.run(
        ["curl", "-sSI", "--resolve", f"{NAME}:{proxied.http_port}:127.0.0.1", f"{plain}/v2/"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert " 308 " in done.splitlines()[0]
    assert f"location: {proxied.url}/v2/" in done.lower()


def test_http2_and_headers(proxied: ProxiedSite) -> None:
    version = proxied.curl("/v2/", "--http2", "-o", "/dev/null", "-w", "%{http_version}").stdout
    assert version == "2"
    for user, expected in (("admin", 200), (None, 401)):
        status, headers = proxied.headers("/v2/", user=user)
        assert status == expected
        assert headers["strict-transport-security"] == ["max-age=31536000"]
        assert headers["x-content-type-options"] == ["nosniff"]
        assert headers["docker-distribution-api-version"] == ["registry/2.0"]
        assert ("www-authenticate" in headers) is (status == 401)
        assert not re.search(r"[0-9]", "".join(headers.get("server", []))), "its version is nobody's business"
    body = json.loads(proxied.curl("/v2/", user=None).stdout)
    assert body["errors"][0]["code"] == "UNAUTHORIZED"


def test_health_needs_no_user(proxied: ProxiedSite) -> None:
    assert proxied.headers("/healthz", user=None)[0] == 200
    assert proxied.headers("/", user=None)[0] == 404


def test_old_protocols_are_refused(proxied: ProxiedSite) -> None:
    for option in (("--tls-max", "1.1"), ("--tls-max", "1.2", "--ciphers", "AES128-SHA")):
        assert proxied.curl("/healthz", *option, user=None).returncode == 35, option


def test_testssl_finds_nothing(proxied: ProxiedSite, tmp_path: Path) -> None:
    """No finding of severity MEDIUM or worse."""
    report = tmp_path / "testssl.json"
    # Protocols, ciphers, forward secrecy, the certificate, known attacks, headers; no DNS, no question to the network.
    checks = ("-p", "-s", "-f", "-S", "-U", "-h")
    done = subprocess.run(
        [
            *("testssl", "--quiet", "--color", "0", "--warnings", "batch", "--nodns", "none", *checks),
            *("--severity", "MEDIUM", "--jsonfile", str(report), "--add-ca", str(proxied.ca)),
            *("--ip", "127.0.0.1", f"{NAME}:{proxied.port}"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    for checked in ("TLS 1.3", "FS is offered", "Strict Transport Security", "ROBOT", "Chain of trust"):
        assert checked in done.stdout, done.stdout + done.stderr
    found = {
        one["id"]: f"{one['severity']}: {one['finding']}"
        for one in json.loads(report.read_text(encoding="utf-8"))
        # The rest is about testssl itself.
        if one["severity"] in ("MEDIUM", "HIGH", "CRITICAL")
    }
    # An own authority has no server to ask whether a certificate was revoked.
    assert found.pop("cert_revocation").startswith("HIGH: Neither CRL nor OCSP")
    assert found == {}


def test_the_access_log_knows_who_and_no_secret(proxied: ProxiedSite) -> None:
    status, headers = proxied.headers("/v2/logged/blobs/uploads/", "-X", "POST")
    assert status == 202
    state = headers["location"][0].partition("?")[2]
    assert state
    proxied.curl(headers["location"][0].removeprefix(proxied.url), "-X", "DELETE")
    text = "".join(proxied.docker("logs", f"{proxied.project}-proxy-1").stdout.split())
    for secret in (proxied.password(), state, "Authorization", "Basic"):
        assert secret not in text
    entry = next(one for one in proxied.log() if one["path"] == "/v2/logged/blobs/uploads/")
    assert entry["user"] == "admin"
    assert entry["method"] == "POST"
    assert entry["status"] == 202
    assert entry["seconds"] >= 0
    assert entry["sent"] >= 0


def test_pushes_are_told_to_come_back(proxied: ProxiedSite) -> None:
    proxied.switch("maintenance")
    try:
        for agent, status, code in (
            ("docker/27.3.1 go/go1.22", 503, "UNAVAILABLE"),
            ("skopeo/1.18.0", 429, "TOOMANYREQUESTS"),
            ("containers/5.30 (github.com/containers/image)", 429, "TOOMANYREQUESTS"),
        ):
            done = proxied.curl("/v2/x/blobs/uploads/", "-X", "POST", "-A", agent, "-D", "/dev/stderr")
            assert json.loads(done.stdout)["errors"][0]["code"] == code
            assert f" {status}" in done.stderr.splitlines()[0]
            assert "retry-after: 5" in done.stderr.lower()
        assert proxied.headers("/v2/")[0] == 200
        assert proxied.headers("/v2/", user=None)[0] == 401, "the reader is no way around the gate"
        # A run that was killed there is healed by the next one.
        assert "stack | Pulls go to the registry" in proxied.play().ok().changed
        assert proxied.headers("/v2/x/blobs/uploads/", "-X", "POST")[0] == 202
    finally:
        proxied.switch("normal")


def test_a_broken_snippet_is_refused(proxied: ProxiedSite) -> None:
    folder = proxied.root / "proxy"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    broken = "http:\n  no_such_directive: on\n" if proxied.proxy == "traefik" else "no_such_directive on;"
    run = proxied.play(registry_proxy_config_extra=broken).failed()
    assert f"{proxied.proxy} refuses its new configuration" in run.message
    assert "no_such_directive" in run.message
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert proxied.headers("/v2/")[0] == 200


def test_a_snippet_is_used_and_a_certificate_renewed(proxied: ProxiedSite) -> None:
    """Both by a reload; and the authority stays."""
    snippets = {
        "nginx": "location = /hello { return 200 normal; }",
        "caddy": "handle /hello {\n\trespond normal\n}",
        # Traefik has no answers of its own.
        "traefik": "http:\n  routers:\n    hello: {entryPoints: [websecure], rule: Path(`/hello`), tls: {},"
        " middlewares: [mode], service: gate}\n",
    }
    authority, key = proxied.ca.read_bytes(), (proxied.root / "secrets" / "ca.key")
    assert key.stat().st_mode & 0o777 == 0o600
    before, started = proxied.served(), proxied.service("proxy")["State"]["StartedAt"]
    proxied.play(registry_proxy_config_extra=snippets[proxied.proxy]).ok()
    assert proxied.curl("/hello", user=None).stdout == "normal"
    assert proxied.served() == before
    # Longer than it is valid: it must be renewed now.
    renewed = proxied.play(registry_tls_days=900, registry_tls_renew_days=600).ok()
    assert "certificates_selfsigned | Make or renew it" in renewed.changed
    assert proxied.ca.read_bytes() == authority
    assert proxied.served() != before
    assert proxied.headers("/hello", user=None)[0] == 404, "the snippet is gone"
    assert proxied.service("proxy")["State"]["StartedAt"] == started, "it was reloaded, not restarted"
    assert proxied.play(check=True, diff=True).ok().changed == []


def test_certificate_and_key_from_files(fresh: ProxiedSite, tmp_path: Path) -> None:
    for name in ("first", "renewed"):
        (tmp_path / name).mkdir()
    files = make_certificates(tmp_path / "first", NAME)
    # The registry's own plays trust what the system trusts, and these authorities are not among that.
    run = fresh.play(**with_files(files), environment={"SSL_CERT_FILE": str(files.ca)}).ok()
    assert "certificates | From files" in run.changed
    assert "PRIVATE KEY" not in run.output
    fresh.ca = files.ca
    assert fresh.headers("/v2/")[0] == 200
    assert (fresh.root / "certs" / "server" / "server.key").stat().st_mode & 0o777 == 0o640

    started = fresh.service("proxy")["State"]["StartedAt"]
    files = make_certificates(tmp_path / "renewed", NAME)
    run = fresh.play(**with_files(files), environment={"SSL_CERT_FILE": str(files.ca)}).ok()
    assert run.changed == ["certificates | From files", "stack | The proxy reads its files again"]
    fresh.ca = files.ca
    assert fresh.headers("/v2/")[0] == 200
    assert fresh.service("proxy")["State"]["StartedAt"] == started, "it was reloaded, not restarted"


def test_check_mode_on_a_fresh_host(fresh: ProxiedSite) -> None:
    run = fresh.play(check=True, diff=True).ok()
    assert "present | Check mode makes no certificate and no configuration of the proxy" in run.changed
    assert not fresh.root.exists()
    assert fresh.services() == []


def test_files_that_cannot_be_used(fresh: ProxiedSite, tmp_path: Path) -> None:
    for name in ("one", "two", "old"):
        (tmp_path / name).mkdir()
    one, two = make_certificates(tmp_path / "one", NAME), make_certificates(tmp_path / "two", "other.test")
    old = make_certificates(tmp_path / "old", NAME, valid_for=-timedelta(hours=1))
    cases = (
        (one._replace(key=two.key), "registry_tls_key: it does not belong to the certificate"),
        (two, f"registry_tls_certificate: it is for other.test, not for {NAME}"),
        (old, "registry_tls_certificate: it expired on"),
        (one._replace(certificate=tmp_path / "missing.crt"), "missing.crt"),
        (one._replace(certificate=one.key), "registry_tls_certificate: there is none in PEM format"),
    )
    for files, message in cases:
        run = fresh.play(**with_files(files)).failed()
        assert message in run.message
        assert run.changed == []
        assert "PRIVATE KEY" not in run.output
    assert not fresh.root.exists()


def test_a_port_in_use(fresh: ProxiedSite) -> None:
    with socket.create_server(("127.0.0.1", fresh.http_port)):
        run = fresh.play().failed()
    assert f"port {fresh.http_port} on 127.0.0.1 is in use by process" in run.message
    assert "registry_http_port" in run.message
    assert not fresh.root.exists()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"registry_tls": "none"}, "registry_proxy: nginx needs a certificate"),
        ({"registry_proxy": "none"}, "registry_tls: selfsigned needs a proxy"),
        ({"registry_hostname": ""}, "registry_hostname: a proxy needs the name"),
        ({"registry_tls": "files"}, "name both files"),
        ({"registry_https_port": 0}, "is not a TCP port"),
        ({"registry_tls": "acme", "registry_http_port": 0}, "ACME asks for the challenge on port 80"),
        ({"registry_tls_renew_days": 400}, "must be less than registry_tls_days"),
        (
            {"registry_config": {"auth": {"htpasswd": {"realm": "r", "path": "/p"}}}},
            "registry_config: auth: behind",
        ),
        ({"registry_config": {"http": {"addr": ":6000"}}}, "registry_config: http.addr: behind a proxy"),
        (
            {
                "registry_image_source": "archive",
                "registry_image_archive": "a",
                "registry_proxy_image_archive": "b",
            },
            "registry_proxy_image_archive, registry_gate_image_archive: name the files",
        ),
        ({"registry_users": [{"name": "a", "permissions": ["fly"]}]}, "'fly' is no permission"),
        ({"registry_users": [{"name": "a", "permissions": []}]}, "permissions is empty"),
        ({"registry_proxy": "apache"}, "value of registry_proxy must be one of"),
        (
            {"registry_proxy": "traefik"},
            "traefik is in no package of the distribution. Use registry_image_source",
        ),
        (
            {"registry_proxy": "traefik", "registry_proxy_config_extra": "no_such_directive on;"},
            "for Traefik, write YAML",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_inputs(fresh: ProxiedSite, variables: dict[str, Any], message: str) -> None:
    run = fresh.play(**variables).failed()
    assert message in run.message
    assert run.changed == []
    assert not fresh.root.exists()
