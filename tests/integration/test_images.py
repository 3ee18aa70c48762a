# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The four sources of the registry's image."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.images import BASE
from tests.support.registry import RegistryProcess, find_registry2, start_registry
from tests.support.site import Site


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[RegistryProcess]:
    """Another registry, to pull from."""
    folder = tmp_path / "upstream"
    folder.mkdir()
    process = start_registry(folder, binary=find_registry2())
    yield process
    process.stop()


@pytest.fixture
def push(site: Site, upstream: RegistryProcess) -> Callable[[str], str]:
    """Puts the built image into the other registry under a tag; returns its digest."""

    def put(tag: str) -> str:
        name = f"127.0.0.1:{upstream.port}/registry:{tag}"
        assert site.docker("tag", BASE, name).returncode == 0
        pushed = site.docker("push", name)
        assert pushed.returncode == 0, pushed.stderr
        site.docker("image", "rm", name)
        return next(word for word in pushed.stdout.split() if word.startswith("sha256:"))

    return put


@pytest.fixture(autouse=True)
def no_images_left(site: Site, upstream: RegistryProcess) -> Iterator[None]:
    yield
    site.remove()
    listed = site.docker("images", "--format", "{{.Repository}}:{{.Tag}}@{{.Digest}}").stdout.split()
    for name in listed:
        if f":{upstream.port}/" in name:
            repository, _at, digest = name.partition("@")
            site.docker("image", "rm", "-f", repository)
            site.docker("image", "rm", "-f", f"{repository.rpartition(':')[0]}@{digest}")


def test_pull(site: Site, upstream: RegistryProcess, push: Callable[[str], str]) -> None:
    push("2.8")
    image = {
        "registry_image_source": "pull",
        "registry_image": f"127.0.0.1:{upstream.port}/registry",
        "registry_version": "2.8",
    }
    foreseen = site.play(check=True, **image).ok()
    assert "image_pull | Pull" in " ".join(foreseen.changed)
    run = site.play(**image).ok()
    assert "pulled now" in run.result("present | Summary")["msg"]
    assert site.container()["Config"]["Image"] == f"127.0.0.1:{upstream.port}/registry:2.8"
    again = site.play(**image).ok()
    assert again.changed == []
    assert "pulled earlier" in again.result("present | Summary")["msg"]
    assert site.play(registry_image_refresh=True, **image).ok().changed == [], "the same image is no change"


def test_pull_by_digest(site: Site, upstream: RegistryProcess, push: Callable[[str], str]) -> None:
    digest = push("whatever")
    pinned = f"127.0.0.1:{upstream.port}/registry@{digest}"
    site.play(registry_image=pinned).ok()
    assert site.container()["Config"]["Image"] == pinned
    assert site.play(registry_image=pinned).ok().changed == []


def test_a_pinned_image_is_not_replaced_by_another(site: Site, upstream: RegistryProcess) -> None:
    pinned = f"127.0.0.1:{upstream.port}/registry@sha256:{'0' * 64}"
    run = site.play(registry_image=pinned).failed()
    assert "pinned by digest" in run.message
    assert not site.is_running()


def test_auto_builds_where_nothing_can_be_pulled(site: Site, upstream: RegistryProcess) -> None:
    run = site.play(registry_image=f"127.0.0.1:{upstream.port}/registry").ok()
    assert BASE in run.result("present | Summary")["msg"]


def test_auto_pulls_where_it_can(site: Site, upstream: RegistryProcess, push: Callable[[str], str]) -> None:
    push("2.8.2")
    image = {"registry_image": f"127.0.0.1:{upstream.port}/registry", "registry_version": "2.8.2"}
    run = site.play(**image).ok()
    assert "pulled now" in run.result("present | Summary")["msg"]
    again = site.play(**image).ok()
    assert again.changed == []
    assert "present already" in again.result("present | Summary")["msg"]


def test_archive(site: Site, tmp_path: Path) -> None:
    archive = tmp_path / "registry.tar"
    name = f"{site.project}/registry:archived"
    subprocess.run(["docker", "tag", BASE, name], check=True)
    subprocess.run(["docker", "save", "-o", str(archive), name], check=True)
    subprocess.run(["docker", "image", "rm", name], check=True)
    # BASE has the same content: the name must come from the archive all the same.
    image = {"registry_image_source": "archive", "registry_image_archive": str(archive)}
    try:
        site.play(**image).ok()
        assert site.container()["Config"]["Image"] == name
        assert site.play(**image).ok().changed == []
    finally:
        site.remove()
        subprocess.run(["docker", "image", "rm", name], check=False)


def test_archive_of_something_else(site: Site, tmp_path: Path) -> None:
    archive = tmp_path / "hello.tar"
    name = f"{site.project}/hello:1"
    context = tmp_path / "context"
    context.mkdir()
    subprocess.run(
        ["docker", "build", "-q", "-t", name, "-"],
        input=f'FROM {BASE}\nENTRYPOINT ["/bin/sh", "-c", "echo hello"]\n',
        text=True,
        check=True,
        capture_output=True,
        env={"DOCKER_BUILDKIT": "0", "PATH": "/usr/local/bin:/usr/bin:/bin"},
    )
    subprocess.run(["docker", "save", "-o", str(archive), name], check=True)
    try:
        run = site.play(registry_image_source="archive", registry_image_archive=str(archive)).failed()
        assert name in run.message
        assert "does not answer `--version` as a registry does (hello)" in run.message
        assert not site.is_running()
    finally:
        subprocess.run(["docker", "image", "rm", name], check=False)


def test_archive_that_is_none(site: Site, tmp_path: Path) -> None:
    text = tmp_path / "notes.tar"
    text.write_text("notes", encoding="utf-8")
    missing = tmp_path / "missing.tar"
    other = tmp_path / "other.tar"
    with tarfile.open(other, "w") as tar:
        tar.add(text)
    for file in (text, missing, other):
        run = site.play(registry_image_source="archive", registry_image_archive=str(file)).failed()
        assert f"{file} on the control machine: is not an image archive" in run.message
        assert "docker save" in run.message


def test_another_version_than_asked_for(site: Site) -> None:
    run = site.play(registry_image_source="packages", registry_version="3").failed()
    assert "registry_version asks for 3" in run.output
    assert "Set registry_version to 2" in run.output
    assert not site.is_running()
