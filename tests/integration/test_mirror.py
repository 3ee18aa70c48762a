# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pull-through cache: what real registries do as one, and what the playbooks do with it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils._client import ClientError, RegistryClient
from ansible_collections.dockyard.registry.plugins.module_utils._media import OCI_MANIFEST
from ansible_collections.dockyard.registry.plugins.module_utils._reference import Digest
from ansible_collections.dockyard.registry.plugins.module_utils._stack import Stack

from tests.support.images import BASE, registry3_variables
from tests.support.processes import wait_for
from tests.support.proxied import ProxiedSite
from tests.support.registry import RegistryProcess, free_port, needs_registry3
from tests.support.site import Site

LAYER = b"what everybody pulls" * 1000
PASSWORD = "secret-of-the-mirror"
TTL_SECONDS = 3


def push(url: str, **login: str) -> tuple[Digest, Digest]:
    """Push an image; its manifest's digest and its layer's are returned."""
    with RegistryClient(url, **login) as client:
        config, layer = client.push_blob("team/app", b"{}"), client.push_blob("team/app", LAYER)
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": str(config),
                "size": 2,
            },
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": str(layer),
                    "size": len(LAYER),
                }
            ],
        }
        raw = json.dumps(manifest).encode()
        return client.put_manifest("team/app", "1", raw, OCI_MANIFEST), layer


def pull(url: str, layer: Digest, **login: str) -> bytes:
    """What a client gets: by the tag, then the layer."""
    parts: list[bytes] = []
    with RegistryClient(url, retries=0, **login) as client:
        client.manifest("team/app", "1")
        client.pull_blob("team/app", layer, parts.append)
    return b"".join(parts)


def blobs(data: Path) -> list[str]:
    return sorted(path.parent.name for path in data.glob("docker/registry/v2/blobs/*/*/*/data"))


def test_gives_on_what_it_got_when_the_other_is_away(
    registry_factory: Callable[..., RegistryProcess],
) -> None:
    upstream = registry_factory()
    manifest, layer = push(upstream.url)
    mirror = registry_factory(config_overrides={"proxy": {"remoteurl": upstream.url}})
    assert pull(mirror.url, layer) == LAYER
    wait_for(
        "the image is kept",
        lambda: layer.hex in blobs(mirror.data) and manifest.hex in blobs(mirror.data),
        seconds=30,
    )
    upstream.stop()
    assert pull(mirror.url, layer) == LAYER


def test_takes_no_change(registry_factory: Callable[..., RegistryProcess]) -> None:
    """Why the playbooks refuse, and why endpoint_check must not write there."""
    upstream = registry_factory()
    manifest, layer = push(upstream.url)
    mirror = registry_factory(config_overrides={"proxy": {"remoteurl": upstream.url}})
    pull(mirror.url, layer)
    with RegistryClient(mirror.url, retries=0) as client:
        for change in (
            lambda: client.push_blob("team/app", b"new"),
            lambda: client.delete_manifest("team/app", manifest),
        ):
            with pytest.raises(ClientError):
                change()
    assert pull(mirror.url, layer) == LAYER


def test_logs_in_there(registry_factory: Callable[..., RegistryProcess]) -> None:
    """With user and password only 3.x does; 2.8 knows tokens only."""
    upstream = registry_factory(auth={"mirror": PASSWORD})
    _, layer = push(upstream.url, username="mirror", password=PASSWORD)
    login = {"remoteurl": upstream.url, "username": "mirror", "password": PASSWORD}
    mirror = registry_factory(config_overrides={"proxy": login})
    if mirror.major == "2":
        with pytest.raises(ClientError):
            pull(mirror.url, layer)
        return
    assert pull(mirror.url, layer) == LAYER
    stranger = registry_factory(config_overrides={"proxy": {**login, "password": "wrong"}})
    with pytest.raises(ClientError):
        pull(stranger.url, layer)


def test_content_expires(registry_factory: Callable[..., RegistryProcess]) -> None:
    upstream = registry_factory()
    _, layer = push(upstream.url)
    proxy = {"remoteurl": upstream.url, "ttl": f"{TTL_SECONDS}s"}
    mirror = registry_factory(config_overrides={"proxy": proxy})
    if mirror.major == "2":
        pytest.skip("registry 2.8 has no TTL: it keeps content for 7 days")
    assert pull(mirror.url, layer) == LAYER
    wait_for("the layer is kept", lambda: layer.hex in blobs(mirror.data), seconds=30)
    wait_for("the layer has expired", lambda: layer.hex not in blobs(mirror.data), seconds=30)
    # And comes again.
    assert pull(mirror.url, layer) == LAYER


MIRROR = {
    "registry_mode": "mirror",
    "registry_mirror_url": "https://upstream.test",
    "registry_mirror_username": "mirror",
    "registry_mirror_password": PASSWORD,
}


def test_the_password_is_shown_nowhere(site: Site) -> None:
    run = site.play(check=True, diff=True, **MIRROR).ok()
    assert "https://upstream.test" in run.output
    assert PASSWORD not in run.output


def test_a_registry_does_not_become_a_mirror(site: Site) -> None:
    config = site.root / "config" / "config.yml"
    config.parent.mkdir(parents=True)
    config.write_text("version: 0.1\n")
    run = site.play(**MIRROR).failed()
    assert "is a registry that keeps what is pushed, and cannot become a mirror" in run.message
    assert sorted(site.root.rglob("*")) == [config.parent, config]


def test_playbooks_that_change_images_refuse(site: Site) -> None:
    for playbook, more in (
        ("delete", {"image": "team/app:1"}),
        ("undelete", {"image": "team/app:1"}),
        ("retention", {}),
        ("gc", {}),
        ("check", {"repair": True}),
        ("backup", {}),
        ("restore", {"backup": "latest"}),
    ):
        run = site.play(playbook, **MIRROR, **more).failed()
        assert "this registry is a mirror of https://upstream.test" in run.message, playbook
        assert run.changed == []


class Upstream:
    """The registry that a mirror stands for: a container in a network that the mirror is put into, too."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._name = f"dockyard-upstream-{secrets.token_hex(4)}"
        port = free_port()
        #: For this machine.
        self.url = f"http://127.0.0.1:{port}"
        #: For containers in its network.
        self.inner_url = f"http://{self._name}:5000"
        #: What makes a stack its mirror, in its network.
        self.variables: dict[str, Any] = {
            "registry_mode": "mirror",
            "registry_mirror_url": self.inner_url,
            "registry_compose": {"networks": {"default": {"name": self._name, "external": True}}},
        }
        self._published = f"--publish=127.0.0.1:{port}:5000"

    def start(self) -> None:
        self._docker("network", "create", self._name)
        where = (f"--name={self._name}", f"--network={self._name}", self._published)
        self._docker("run", "--detach", *where, BASE)
        wait_for("the upstream answers", lambda: answers(self.url), seconds=30)

    def stop(self) -> None:
        self._docker("stop", "--time=1", self._name)

    def remove(self) -> None:
        self._site.docker("rm", "--force", "--volumes", self._name)
        self._site.docker("network", "rm", self._name)

    def _docker(self, *arguments: str) -> None:
        done = self._site.docker(*arguments)
        assert done.returncode == 0, done.stderr


def answers(url: str) -> bool:
    try:
        with RegistryClient(url, retries=0) as client:
            client.ping()
    except ClientError:
        return False
    return True


@contextmanager
def upstream_of(site: Site) -> Iterator[Upstream]:
    """Ends after the mirror, which is in its network."""
    upstream = Upstream(site)
    try:
        upstream.start()
        yield upstream
    finally:
        site.remove()
        upstream.remove()


@pytest.fixture
def upstream(site: Site) -> Iterator[Upstream]:
    with upstream_of(site) as upstream:
        yield upstream


@pytest.mark.parametrize("version", ["2.8", pytest.param("3.x", marks=needs_registry3)])
def test_site_deploys_a_mirror(site: Site, upstream: Upstream, version: str, tmp_path: Path) -> None:
    """The life of a mirror, in order: each step stands on the one before."""
    _, layer = push(upstream.url)
    variables = upstream.variables | (registry3_variables(tmp_path) if version == "3.x" else {})
    site.play(**variables).ok()
    assert site.play(**variables).ok().changed == []

    site.play("users", **variables, user="bob", password=PASSWORD).ok()
    bob = {"username": "bob", "password": PASSWORD}
    assert pull(site.url, layer, **bob) == LAYER
    with pytest.raises(ClientError):
        pull(site.url, layer)
    with pytest.raises(ClientError):
        push(site.url, **bob)
    wait_for("the layer is kept", lambda: layer.hex in blobs(site.root / "data"), seconds=30)
    assert "team/app" in site.play("images", **variables).ok().output

    assert "is a mirror, and cannot become one that does" in site.play().failed().message
    upstream.stop()
    assert pull(site.url, layer, **bob) == LAYER

    # A start needs the other one, and the run says so.
    site.docker("restart", "--time=1", site.container()["Id"])
    run = site.play(**variables, registry_start_timeout=3).failed()
    assert f'panic: Get "{upstream.inner_url}/v2/"' in run.message
    assert "goroutine" not in run.message


def test_a_mirror_behind_a_proxy(tmp_path: Path) -> None:
    """Rights are checked in front of it, and what it has can be pulled while it is away."""
    site = ProxiedSite(tmp_path, "nginx")
    site.variables["registry_users"] = [
        {"name": "admin"},
        {"name": "reader", "permissions": ["pull"], "repositories": ["team/*"]},
    ]
    with upstream_of(site) as upstream:
        _, layer = push(upstream.url)
        site.variables |= upstream.variables
        site.play().ok()
        assert site.play().ok().changed == []

        def status(path: str, *options: str, user: str | None = "reader") -> int:
            return site.headers(path, *options, user=user)[0]

        image = ("/v2/team/app/manifests/1", "-H", f"Accept: {OCI_MANIFEST}")
        assert status(*image) == 200
        assert status(f"/v2/team/app/blobs/{layer}") == 200
        assert status(*image, user=None) == 401
        assert status("/v2/other/app/manifests/1") == 403
        assert status("/v2/team/app/blobs/uploads/", "-X", "POST") == 403
        assert status("/v2/team/app/blobs/uploads/", "-X", "POST", user="admin") == 405, "it takes no pushes"
        wait_for("the layer is kept", lambda: layer.hex in blobs(site.root / "data"), seconds=30)

        site.switch("maintenance")
        stack = Stack(site.root, url=site.url)
        stack.stop()
        try:
            assert status(*image) == 200
            assert status(f"/v2/team/app/blobs/{layer}") == 200
        finally:
            stack.start()
            site.switch("normal")
        assert status(*image) == 200


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"registry_mirror_url": "upstream.test"}, "registry_mirror_url: upstream.test must be https://"),
        ({"registry_mirror_url": "https://u:p@upstream.test"}, "without user and path"),
        ({"registry_mirror_password": ""}, "give both or neither"),
        ({"registry_mirror_ttl": "72h"}, "registry 2.8 keeps content for 7 days"),
        ({"registry_delete_enabled": False}, "a mirror removes what has expired"),
        (
            {"registry_retention": [{"name": "a", "repositories": ["**"], "keep": {"newest": 1}}]},
            "a mirror keeps nothing for good",
        ),
        (
            {"registry_version": "3", "registry_mirror_ttl": "soon"},
            "proxy.ttl",
        ),
    ],
)
def test_bad_input(site: Site, variables: dict[str, Any], message: str) -> None:
    run = site.play(**{**MIRROR, **variables}).failed()
    assert message in run.message
    assert PASSWORD not in run.output
    assert not site.root.exists()
