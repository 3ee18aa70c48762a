# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Listing: against the model of a store, from disk and over HTTP, as data and for people."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils import _table
from ansible_collections.dockyard.registry.plugins.module_utils._client import RegistryClient, Unauthorized
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._images import parse_config
from ansible_collections.dockyard.registry.plugins.module_utils._inventory import (
    Inventory,
    read_disk,
    read_http,
    render,
)
from ansible_collections.dockyard.registry.plugins.module_utils._reference import Digest
from ansible_collections.dockyard.registry.plugins.module_utils._storage import Storage

from tests.support.modules import run_module
from tests.support.registry import RegistryProcess
from tests.support.store import Store, digest_of, push, random_store, sample_store, write_store


def by_name(inventory: Inventory) -> dict[str, dict[str, Any]]:
    return {repository["name"]: repository for repository in inventory["repositories"]}


def tags(inventory: Inventory) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (repository["name"], tag["name"]): tag
        for repository in inventory["repositories"]
        for tag in repository["tags"]
    }


@pytest.fixture(scope="module")
def store() -> Store:
    return sample_store(random.Random(1))


@pytest.fixture(scope="module")
def root(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    write_store(folder, store)
    return folder


@pytest.fixture(scope="module")
def inventory(root: Path) -> Inventory:
    return read_disk(root)


# As data


def test_everything_is_there(store: Store, inventory: Inventory) -> None:
    assert set(by_name(inventory)) == set(store.repositories)
    assert {(name, tag): found["digest"] for (name, tag), found in tags(inventory).items()} == {
        (name, tag): model.current(tag) for name, model in store.repositories.items() for tag in model.tags
    }
    assert {found["digest"]: found["media_type"] for found in tags(inventory).values()} == {
        model.current(tag): store.media_types[model.current(tag)]
        for model in store.repositories.values()
        for tag in model.tags
    }
    assert inventory["tags"] == len(tags(inventory))
    assert inventory["complete"]
    assert inventory["problems"] == []


def test_states(inventory: Inventory) -> None:
    """An emptied repository is told from a live one, and from what was never one."""
    states = {name: repository["state"] for name, repository in by_name(inventory).items()}
    assert {
        state: sorted(name for name in states if states[name] == state) for state in {*states.values()}
    } == {
        "live": ["app", "legacy", "multi", "sha512", "team", "team/signed", "team/signed/inner"],
        "emptied": ["emptied", "team/emptied"],
        "untagged": ["untagged-only"],
        "unfinished": ["half-pushed", "mounted", "no-manifest"],
    }


def test_sizes(store: Store, inventory: Inventory) -> None:
    """By hand: an image with a layer that others share, and one that two tags share."""
    first = store.repositories["app"].current("1.0")
    blobs = {digest: len(store.content(digest)) for digest in (first, *store.references(first))}
    own = store.references(first)[1]
    size = tags(inventory)["app", "1.0"]["size"]
    assert size["total"] == sum(blobs.values())
    assert size["exclusive"] == blobs[first] + blobs[own]
    assert size["shared"] == size["total"] - size["exclusive"]
    assert tags(inventory)["app", "2.0"]["size"]["exclusive"] == 0
    assert tags(inventory)["app", "2.0"]["same_digest"] == ["latest"]
    # Stored once, though one is named by two algorithms.
    stored = {
        digest_of(store.content(digest))
        for model in store.repositories.values()
        for manifest in model.revisions
        for digest in (manifest, *store.references(manifest))
    }
    assert inventory["bytes"] == sum(len(store.blobs[digest]) for digest in stored)
    assert inventory["bytes"] + inventory["unreferenced_bytes"] == sum(map(len, store.blobs.values()))


def test_indexes(inventory: Inventory) -> None:
    multi = tags(inventory)["multi", "1.0"]
    assert multi["platforms"] == ["linux/amd64", "linux/arm64"]
    assert [
        (child["platform"], child["is_attestation"], child["is_there"]) for child in multi["children"]
    ] == [
        ("linux/amd64", False, True),
        ("unknown/unknown", True, True),
        ("linux/arm64", False, True),
        ("unknown/unknown", True, True),
    ]


def test_referrers(inventory: Inventory) -> None:
    signed = tags(inventory)["team/signed", "1.0"]
    about = signed["digest"].replace(":", "-")
    assert sorted(referrer["tag"] for referrer in signed["referrers"]) == sorted(
        ["", "", about, f"{about}.att", f"{about}.sbom", f"{about}.sig"]
    )
    assert {referrer["artifact_type"] for referrer in signed["referrers"] if not referrer["tag"]} == {
        "application/vnd.example.sbom"
    }
    signature = tags(inventory)["team/signed", f"{about}.sig"]
    assert signature["is_referrer_tag"]
    assert signature["subject"] == signed["digest"]
    assert not signed["is_referrer_tag"]
    assert signed["subject"] is None


def test_untagged(store: Store, inventory: Inventory) -> None:
    repositories = by_name(inventory)
    moved = store.repositories["app"].tags["moving"][:-1]
    assert {manifest["digest"] for manifest in repositories["app"]["untagged"]} == set(moved)
    for manifest in repositories["app"]["untagged"]:
        needed = {manifest["digest"], *store.references(manifest["digest"])}
        assert manifest["size"]["total"] == sum(len(store.content(digest)) for digest in needed)
        assert manifest["pushed"]
    assert repositories["multi"]["untagged"] == [], "children of an index with a tag are not without one"
    assert repositories["app"]["untagged_bytes"] > max(
        manifest["size"]["exclusive"] for manifest in repositories["app"]["untagged"]
    )


def test_times_of_pushes(store: Store, tmp_path: Path) -> None:
    write_store(tmp_path, store)
    os.utime(Storage(tmp_path).tag_path("app", "1.0"), (1_700_000_000, 1_700_000_000))
    assert tags(read_disk(tmp_path))["app", "1.0"]["pushed"] == "2023-11-14T22:13:20Z"


def test_configs_tell_platform_and_date(tmp_path: Path) -> None:
    store = Store()
    config = {"os": "linux", "architecture": "arm", "variant": "v7", "created": "2026-01-02T03:04:05.6Z"}
    store.image("app", [b"x"], tag="1", config=json.dumps(config).encode())
    store.image("app", [b"y"], tag="2", config=b'{"os": "linux", "created": "1970-01-01T00:00:00Z"}')
    store.image("app", [b"z"], tag="3", config=b"no JSON")
    write_store(tmp_path, store)
    found = tags(read_disk(tmp_path))
    assert (found["app", "1"]["platforms"], found["app", "1"]["created"]) == (
        ["linux/arm/v7"],
        "2026-01-02T03:04:05Z",
    )
    assert (found["app", "2"]["platforms"], found["app", "2"]["created"]) == (["linux"], None)
    assert (found["app", "3"]["platforms"], found["app", "3"]["created"]) == ([], None)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('{"created": "2026-13-01T00:00:00Z"}', "2026-13-01, which is no date"),
        ('{"created": "0001-01-01T00:00:00Z"}', "0001-01-01, which is no date of a real build"),
        ('{"created": 7}', "the date of creation in its config is none"),
        ("{}", "no date of creation"),
        ("[]", "no JSON object"),
    ],
)
def test_dates_that_are_none(body: str, fault: str) -> None:
    found = parse_config(body.encode()).created
    assert found.time is None
    assert fault in found.fault


@pytest.mark.parametrize("seed", range(8))
def test_random_stores(seed: int, tmp_path: Path) -> None:
    """Whatever is there, the sum is right and every manifest is listed or led to."""
    store = random_store(random.Random(seed))
    write_store(tmp_path, store)
    inventory = read_disk(tmp_path)
    assert inventory["bytes"] + inventory["unreferenced_bytes"] <= sum(map(len, store.blobs.values()))
    for name, repository in by_name(inventory).items():
        model = store.repositories[name]
        assert {tag["name"] for tag in repository["tags"]} == set(model.tags)
        listed = {item["digest"] for item in (*repository["tags"], *repository["untagged"])}
        assert listed <= model.revisions
        led_to = {
            child["digest"] for tag in repository["tags"] for child in tag["children"] if child["is_there"]
        }
        assert led_to <= model.revisions
    assert render(inventory)


# Choosing


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["app"], ["app"]),
        (["team/**"], ["team/emptied", "team/signed", "team/signed/inner"]),
        (["team/*", "app"], ["app", "team/emptied", "team/signed"]),
        (["regex:^m.*$"], ["mounted", "multi"]),
        (["nothing/*"], []),
    ],
)
def test_some_repositories(root: Path, inventory: Inventory, wanted: list[str], found: list[str]) -> None:
    """What they share with the others is counted as shared, though those are not listed."""
    some = by_name(read_disk(root, wanted))
    assert list(some) == found
    everything = by_name(inventory)
    assert all(some[name] == everything[name] for name in found)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["ap"], "ap: the registry has no such repository; did you mean app?"),
        (["nothing"], "nothing: the registry has no such repository"),
        (["App"], "capital letters are not allowed"),
        (["app:1.0"], "it is a name without tag and digest"),
        (["App*"], "repositories have no capital letters"),
    ],
)
def test_names_that_are_not_there(root: Path, wanted: list[str], message: str) -> None:
    with pytest.raises(RegistryError) as caught:
        read_disk(root, wanted)
    assert message in str(caught.value)


# Damage


def test_damage_is_named(store: Store, tmp_path: Path) -> None:
    write_store(tmp_path, store)
    storage = Storage(tmp_path)
    Path(storage.blob_path(Digest(store.repositories["app"].current("1.0")))).write_bytes(b"{")
    Path(storage.tag_path("multi", "2.0")).write_bytes(b"")
    inventory = read_disk(tmp_path)
    assert {(problem["code"], problem["repository"]) for problem in inventory["problems"]} == {
        ("manifest-corrupt", "app"),
        ("link-torn", "multi"),
    }
    assert tags(inventory)["app", "1.0"]["media_type"] == ""
    assert ("multi", "2.0") not in tags(inventory)
    assert "damaged" in render(inventory)
    assert "2 problems found" in render(inventory)
    assert read_disk(tmp_path, ["team"])["problems"] == [], "those of other repositories are not its own"


# Over HTTP


def known_over_http(inventory: Inventory) -> Iterator[dict[str, Any]]:
    """Of tags from the disk, what HTTP tells too."""
    for (name, _tag), tag in tags(inventory).items():
        referrers = [referrer for referrer in tag["referrers"] if referrer["tag"]]
        yield {**tag, "repository": name, "pushed": None, "size": None, "referrers": referrers}


def test_over_http(registry: RegistryProcess) -> None:
    store = sample_store(random.Random(2))
    push(registry.url, store)
    with RegistryClient(registry.url) as client:
        asked, named = read_http(client, configs=True), read_http(client, ["app"])
        some = read_http(client, ["team/**"])
    disk = read_disk(registry.data)
    assert list(known_over_http(asked)) == list(known_over_http(disk))
    assert not asked["complete"]
    assert asked["unreferenced_bytes"] is None
    assert all(repository["untagged"] is None for repository in asked["repositories"])
    assert list(by_name(named)) == ["app"]
    assert list(by_name(some)) == ["team/emptied", "team/signed", "team/signed/inner"]
    assert by_name(some)["team/emptied"]["state"] == "emptied"
    single = tags(asked)["app", "1.0"]
    assert single["size"] == tags(disk)["app", "1.0"]["size"]
    assert "PUSHED" not in render(asked)
    assert "untagged manifests and the times of pushes are not known" in render(asked)


def test_http_errors(registry_factory: Callable[..., RegistryProcess]) -> None:
    registry = registry_factory(auth={"me": "secret"})
    with RegistryClient(registry.url) as client, pytest.raises(Unauthorized):
        read_http(client)
    with RegistryClient(registry.url, username="me", password="secret") as client:
        with pytest.raises(RegistryError, match=r"app: the registry at http://.* has no such repository"):
            read_http(client, ["app"])
        assert read_http(client)["repositories"] == []


# For people


def test_table(inventory: Inventory) -> None:
    lines = render(inventory).splitlines()
    header = lines[0]
    assert header.split() == [
        "REPOSITORY",
        "TAG",
        "DIGEST",
        "CONTENT",
        "SIZE",
        "EXCLUSIVE",
        "PUSHED",
        "(UTC)",
    ]
    for line in lines[1 : lines.index("")]:
        # Every column begins or ends where its heading does.
        assert line[header.index("TAG") - 1] == " "
        assert line[: header.index("DIGEST")].rstrip() or line.startswith(" ")
    (first,) = [line for line in lines if re.match(r"app +1\.0 ", line)]
    assert re.fullmatch(
        r"app +1\.0 +sha256:[0-9a-f]{12} +image +[0-9.]+ KiB +\d+ B +\d{4}-\d\d-\d\d \d\d:\d\d", first
    )
    assert any(re.match(r"emptied +\(emptied\)$", line) for line in lines)
    assert any(re.match(r"app +2 untagged manifests +[0-9.]+ KiB$", line) for line in lines)
    assert any(re.match(r"multi +1\.0 .*linux/amd64, linux/arm64 ", line) for line in lines)
    assert any(re.match(r"team/signed +sha256-[0-9a-f]{12}…\.sig ", line) for line in lines)
    assert lines[-1].startswith("18 tags in 13 repositories, ")


def test_tags_are_sorted_as_people_count() -> None:
    names = ["1.10", "1.9", "latest", "1.9-rc10", "1.9-rc9", "10", "9"]
    assert sorted(names, key=_table.natural) == ["1.9", "1.9-rc9", "1.9-rc10", "1.10", "9", "10", "latest"]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (150 * 1024, "150 KiB"),
        (1000 * 1024, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (3000 * 1024**4, "3000 TiB"),
    ],
)
def test_human_sizes(count: int, text: str) -> None:
    assert _table.size(count) == text


# The module


def test_module(registry: RegistryProcess) -> None:
    store = sample_store(random.Random(3))
    push(registry.url, store)
    for arguments in ({"data": str(registry.data)}, {"url": registry.url}):
        result = run_module("repository_info", {**arguments, "repositories": ["app", "multi"]}, check=True)
        assert not result["changed"]
        assert [repository["name"] for repository in result["repositories"]] == ["app", "multi"]
        assert result["table"] == render(result)
    failed = run_module("repository_info", {"data": str(registry.data), "repositories": ["ap"]})
    assert failed["msg"] == "ap: the registry has no such repository; did you mean app?"
    assert "one of the following is required: data, url" in run_module("repository_info", {})["msg"]
