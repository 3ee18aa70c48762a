# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deletion: what a plan takes and leaves, against a plain model; on real registries, while pushes go on."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import urllib3
from ansible_collections.dockyard.registry.plugins.module_utils._aside import set_aside
from ansible_collections.dockyard.registry.plugins.module_utils._client import (
    RegistryClient,
    Unauthorized,
    Unsupported,
)
from ansible_collections.dockyard.registry.plugins.module_utils._deletion import (
    DanglingTag,
    DeletionFailed,
    DoomedTag,
    Outcome,
    Plan,
    Referrers,
    Target,
    UnknownRepository,
    WrongData,
    execute,
    look,
    parse_targets,
    placeholder,
    plan,
)
from ansible_collections.dockyard.registry.plugins.module_utils._graph import Graph, read_graph
from ansible_collections.dockyard.registry.plugins.module_utils._reference import Digest, InvalidReference
from ansible_collections.dockyard.registry.plugins.module_utils._source import DiskSource
from ansible_collections.dockyard.registry.plugins.module_utils._storage import Link, Storage, Tag
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.faulty_proxy import Answer, FaultyProxy, status
from tests.support.modules import COLLECTIONS, run_module
from tests.support.registry import RegistryProcess
from tests.support.store import (
    MANIFEST_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Store,
    digest_of,
    push,
    random_store,
    read_tree,
    sample_store,
    verify,
    write_store,
)

Named = tuple[str, str]
SEEDS = st.integers(0, 2**32)
# Every example writes a store to the disk.
on_stores = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def written(store: Store) -> Graph:
    """The graph of a store on a disk that is gone by now."""
    with tempfile.TemporaryDirectory(prefix="dockyard-") as folder:
        write_store(Path(folder), store)
        return read_graph(DiskSource(Storage(folder)))


def digest(descriptor: Descriptor) -> Digest:
    return Digest(descriptor["digest"])


def planned(store: Store, *targets: Target, **options: Any) -> Plan:
    return plan(written(store), targets, **options)


def tags_of(found: Plan) -> set[Named]:
    return {(tag.repository, tag.name) for tag in found.tags}


def reasons(found: Plan) -> list[str]:
    return [protection.reason for protection in found.protected]


# What a plan takes


def test_a_tag_takes_what_only_it_held() -> None:
    store = Store()
    image = store.image("app", [b"base", b"own"], tag="1.0")
    store.image("app", [b"base"], tag="2.0", config=b'{"other": 1}')
    found = planned(store, ("app", "1.0"))
    assert tags_of(found) == {("app", "1.0")}
    assert found.manifests == (("app", digest(image)),)
    assert {blob.digest for blob in found.blobs} == {digest_of(b"own"), digest_of(b"{}"), image["digest"]}
    assert found.bytes == len(b"own") + len(b"{}") + image["size"]
    assert found.protected == ()
    assert found.exact


def test_a_tag_leaves_a_digest_that_others_share() -> None:
    store = Store()
    image = store.image("app", [b"layer"], tag="1.0")
    store.tag("app", image["digest"], "latest")
    found = planned(store, ("app", "1.0"))
    assert tags_of(found) == {("app", "1.0")}
    assert found.manifests == ()
    assert found.bytes == 0
    assert reasons(found) == ["also tagged latest"]
    assert not found.refused

    both = planned(store, ("app", "1.0"), ("app", "latest"))
    assert both.manifests == (("app", digest(image)),)
    assert both.protected == ()


def test_a_tagged_digest_is_refused() -> None:
    store = Store()
    image = store.image("app", [b"layer"], tag="1.0")
    store.tag("app", image["digest"], "latest")
    target = ("app", digest(image))
    found = planned(store, target)
    assert not found.changes
    assert [str(refusal) for refusal in found.refused] == [
        f"delete app@{image['digest']}: still tagged 1.0, latest; pass untag=true to remove those tags too"
    ]
    partly = planned(store, target, ("app", "latest"))
    assert tags_of(partly) == {("app", "latest")}
    assert partly.manifests == ()
    assert "still tagged 1.0;" in partly.refused[0].reason

    for found in (
        planned(store, target, untag=True),
        planned(store, target, ("app", "1.0"), ("app", "latest")),
    ):
        assert tags_of(found) == {("app", "1.0"), ("app", "latest")}
        assert found.manifests == (target,)
        assert found.protected == ()


def test_children_go_with_the_last_index() -> None:
    store = Store()
    shared = store.image("app", [b"shared"])
    own = store.image("app", [b"own"])
    one = store.index("app", [shared, own], tag="1")
    two = store.index("app", [shared], tag="2")
    found = planned(store, ("app", "1"))
    assert set(found.manifests) == {("app", digest(one)), ("app", digest(own))}
    assert [len(wave) for wave in found.waves] == [1, 1], "the index before its child"
    assert found.waves[0][0].digest == digest(one)
    everything = planned(store, ("app", "1"), ("app", "2"))
    assert set(everything.manifests) == {("app", digest(item)) for item in (one, two, own, shared)}


def test_a_child_of_an_index_that_stays_is_refused() -> None:
    store = Store()
    child = store.image("app", [b"child"])
    index = store.index("app", [child], tag="1")
    target = ("app", digest(child))
    found = planned(store, target, untag=True)
    assert not found.changes
    assert "listed in the index app:1, which would break" in found.refused[0].reason

    with_index = planned(store, target, ("app", digest(index)), untag=True)
    assert set(with_index.manifests) == {target, ("app", digest(index))}
    forced = planned(store, target, force=True)
    assert forced.manifests == (target,)
    assert forced.forced == {target}


def test_referrers_follow_their_image() -> None:
    store = sample_store(random.Random(1))
    signed = store.repositories["team/signed"].current("1.0")
    found = planned(store, ("team/signed", "1.0"))
    plain = store.repositories["team/signed"].current("plain-artifact")
    assert {item for _name, item in found.manifests} == store.repositories["team/signed"].revisions - {plain}
    assert tags_of(found) == {
        ("team/signed", tag) for tag in store.repositories["team/signed"].tags if tag != "plain-artifact"
    }
    levels = [{item.digest for item in wave} for wave in found.waves]
    assert Digest(signed) in levels[0]


def test_referrers_can_be_kept() -> None:
    store = sample_store(random.Random(1))
    signed = Digest(store.repositories["team/signed"].current("1.0"))
    found = planned(store, ("team/signed", "1.0"), referrers=Referrers.KEEP)
    assert tags_of(found) == {("team/signed", "1.0")}
    assert found.manifests == (("team/signed", signed),)


def test_the_subject_of_a_referrer_that_stays_is_kept() -> None:
    store = Store()
    image = store.image("app", [b"layer"], tag="1.0")
    store.artifact("app", b"sbom", subject=image, tag="sbom")
    by_tag = planned(store, ("app", "1.0"))
    assert tags_of(by_tag) == {("app", "1.0")}
    assert by_tag.manifests == ()
    assert reasons(by_tag) == ["the subject of app:sbom, which stays"]

    by_digest = planned(store, ("app", digest(image)), untag=True)
    assert not by_digest.changes
    assert "the subject of app:sbom" in by_digest.refused[0].reason
    assert planned(store, ("app", digest(image)), untag=True, force=True).manifests == (
        ("app", digest(image)),
    )

    both = planned(store, ("app", "1.0"), ("app", "sbom"))
    assert len(both.manifests) == 2
    assert both.protected == ()


def test_a_referrer_that_is_named_goes_alone() -> None:
    store = Store()
    image = store.image("app", [b"layer"], tag="1.0")
    sbom = store.artifact("app", b"sbom", subject=image)
    found = planned(store, ("app", digest(sbom)))
    assert found.manifests == (("app", digest(sbom)),)
    assert found.tags == ()


def test_a_tag_of_a_referrer_leaves_it_with_its_image() -> None:
    store = Store()
    image = store.image("app", [b"layer"], tag="1.0")
    store.artifact("app", b"sbom", subject=image, tag="sbom")
    found = planned(store, ("app", "sbom"))
    assert found.manifests == ()
    assert reasons(found) == ["about app:1.0, which stays"]


def test_what_cannot_be_understood_keeps_everything(tmp_path: Path) -> None:
    store = Store()
    image = store.image("app", [b"layer"], tag="1.0")
    broken = store.image("app", [b"other"])
    write_store(tmp_path, store)
    path = Storage(tmp_path).blob_path(digest(broken))
    Path(path).write_bytes(b"{")
    graph = read_graph(DiskSource(Storage(tmp_path)))

    by_tag = plan(graph, [("app", "1.0")])
    assert tags_of(by_tag) == {("app", "1.0")}
    assert by_tag.manifests == ()
    by_digest = plan(graph, [("app", digest(image))], untag=True)
    assert not by_digest.changes
    for reason in (*reasons(by_tag), *reasons(by_digest)):
        assert "cannot be understood" in reason
        assert str(path) in reason
    assert plan(graph, [("app", digest(image))], untag=True, force=True).manifests == (
        ("app", digest(image)),
    )


def test_what_is_gone_is_no_change() -> None:
    store = sample_store(random.Random(1))
    nowhere = Digest.of(b"nowhere")
    targets: list[Target] = [("app", "no-such-tag"), ("app", nowhere), ("emptied", "gone")]
    found = planned(store, *targets)
    assert not found.changes
    assert found.absent == tuple(targets)
    with pytest.raises(UnknownRepository, match=r"nowhere: there is no such repository"):
        planned(store, ("nowhere", "1.0"))
    with pytest.raises(UnknownRepository):
        planned(store, ("half-pushed", "1.0"))


def test_an_untag_that_broke_off_is_finished() -> None:
    store = Store()
    image = store.image("app", [b"layer"], tag="1.0")
    left = store.manifest("app", json.loads(placeholder("app", "old")), tag="old")
    found = planned(store, ("app", "1.0"))
    assert tags_of(found) == {("app", "1.0"), ("app", "old")}
    assert set(found.manifests) == {("app", digest(image)), ("app", digest(left))}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("app", "it has no tag and no digest"),
        ("app:1.0@sha256:" + "a" * 64, "not both"),
        ("app@sha256:abc", "sha256 has 64 hexadecimal digits, not 3"),
        ("app@md5:" + "a" * 32, "the algorithm must be one of"),
        ("app:a/b", "a tag has no '/'"),
        ("App:1", "capital letters are not allowed"),
        ("registry.example.org:5000/app:1", "leave the host out"),
        ("app:1 ", "whitespace"),
        ("", "it is empty"),
    ],
)
def test_what_is_no_reference_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidReference, match=message):
        parse_targets([text])


def test_targets_are_parsed_once_each() -> None:
    one = "sha256:" + "a" * 64
    assert parse_targets(["a/b:1", f"a@{one}", "a/b:1"]) == [("a/b", "1"), ("a", Digest(one))]


# Against a plain model of random stores


class Model:
    """What a store holds, as sets."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.tags = {
            (name, tag): (name, held.current(tag))
            for name, held in store.repositories.items()
            for tag in held.tags
        }
        self.manifests = {
            (name, item) for name, held in store.repositories.items() for item in held.revisions
        }

    def document(self, manifest: Named) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.store.content(manifest[1]))
        return found

    def children(self, manifest: Named) -> set[Named]:
        listed = self.document(manifest).get("manifests", [])
        return {(manifest[0], child["digest"]) for child in listed} & self.manifests

    def subject(self, manifest: Named) -> Named | None:
        found = self.document(manifest).get("subject")
        return (manifest[0], found["digest"]) if found else None

    def with_deleted(self, manifests: set[Named]) -> set[Named]:
        """These, and what indexes among them list though it was deleted: the graph keeps the contents."""
        found = set(manifests)
        while True:
            listed = {
                (manifest[0], child["digest"])
                for manifest in found
                for child in self.document(manifest).get("manifests", [])
            }
            more = listed - self.manifests - found
            if not more:
                return found
            found |= more

    def is_about(self, tag: Named, manifests: Iterable[Named]) -> bool:
        """Whether a tag stands for something about one of these."""
        name = tag[1].partition(".")[0]
        return any((tag[0], name.replace("-", ":", 1)) == manifest for manifest in manifests)

    def blobs(self, manifests: Iterable[Named]) -> set[str]:
        found = set()
        for _name, item in manifests:
            found |= {digest_of(self.store.content(needed)) for needed in self.store.references(item)} | {
                item
            }
        return found


@given(SEEDS, st.data())
@on_stores
@pytest.mark.slow
def test_nothing_that_stays_is_broken(seed: int, data: st.DataObject) -> None:
    store = random_store(random.Random(seed), 40)
    model = Model(store)
    tags = data.draw(st.sets(st.sampled_from(sorted(model.tags)), max_size=6)) if model.tags else set()
    named = (
        data.draw(st.sets(st.sampled_from(sorted(model.manifests)), max_size=3)) if model.manifests else set()
    )
    untag, force = data.draw(st.booleans()), data.draw(st.booleans())
    referrers = data.draw(st.sampled_from(Referrers))
    targets: list[Target] = [*tags, *((name, Digest(item)) for name, item in named)]
    found = planned(store, *targets, untag=untag, force=force, referrers=referrers)

    gone: set[Named] = set(found.manifests)
    lost = tags_of(found)
    refused: set[Named] = {refusal.target for refusal in found.refused}
    accepted = named - refused
    stay = model.manifests - gone

    assert tags <= lost, "a tag that is named goes"
    for tag in lost - tags:
        follows = referrers is Referrers.FOLLOW and model.is_about(tag, gone)
        assert follows or (untag and model.tags[tag] in accepted), "no other tag does"
    assert accepted <= gone
    assert not refused & gone
    assert found.absent == ()

    for tag, manifest in model.tags.items():
        assert tag in lost or manifest in stay, "no tag leads nowhere"
    for index in stay:
        assert force or not model.children(index) & gone, "no index loses a child"
        if referrers is Referrers.FOLLOW and not force:
            assert model.subject(index) not in gone, "no referrer loses its subject"
    for manifest in gone - accepted:
        by_tag = manifest in {model.tags[tag] for tag in tags}
        by_index = any(manifest in model.children(other) for other in gone)
        by_subject = model.subject(manifest) in gone
        by_name = any(model.tags[tag] == manifest for tag in lost)
        assert by_tag or by_index or by_subject or by_name, "nothing goes without a reason"
        assert referrers is Referrers.FOLLOW or by_tag or by_index or not by_subject

    if not force:
        freed = model.blobs(model.with_deleted(gone)) - model.blobs(model.with_deleted(stay))
        assert {blob.digest for blob in found.blobs} == freed
    explained = {protection.target for protection in found.protected}
    for tag in tags:
        assert (model.tags[tag] in gone) != (tag in explained), "what stays is explained"

    place = {
        manifest: number for number, wave in enumerate(found.waves) for manifest in map(name_of_doomed, wave)
    }
    assert place.keys() == gone
    for index in gone:
        for child in model.children(index) & gone:
            assert place[index] < place[child], "an index goes before what it lists"


def name_of_doomed(manifest: Any) -> Named:
    return manifest.repository, manifest.digest


# Carried out on real registries


@pytest.fixture(params=["http", "disk"])
def on_disk(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "disk")


def storage_of(registry: RegistryProcess, on_disk: bool) -> Storage | None:
    return Storage(registry.data) if on_disk else None


def deleted(
    registry: RegistryProcess, targets: list[Target], on_disk: bool, **options: Any
) -> tuple[Plan, Outcome]:
    """Look, plan, execute."""
    storage = storage_of(registry, on_disk)
    with RegistryClient(registry.url) as client:
        found = plan(look(targets, client, storage), targets, **options)
        return found, execute(found, client, storage=storage, settle=0.1)


def carry_out(store: Store, outcome: Outcome) -> None:
    """Do to the model what was done to the registry."""
    for repository, tag in outcome.tags:
        del store.repositories[repository].tags[tag]
    for repository, item in outcome.manifests:
        store.repositories[repository].revisions.remove(item)
        store.repositories[repository].deleted.add(item)


def assert_tags(registry: RegistryProcess, store: Store) -> None:
    """The registry lists the tags that the model has, also where it has none."""
    with RegistryClient(registry.url) as client:
        for name, held in store.repositories.items():
            if held.has_tags_folder:
                assert sorted(client.tags(name)) == sorted(held.tags), name


def assert_store(registry: RegistryProcess, store: Store) -> None:
    verify(registry.url, store)
    assert_tags(registry, store)


def test_deletes_what_was_planned_and_nothing_else(registry: RegistryProcess, on_disk: bool) -> None:
    store = sample_store(random.Random(7))
    push(registry.url, store)
    by_digest = Digest(store.repositories["legacy"].current("single"))
    rounds: list[list[Target]] = [
        [("app", "1.0")],
        [("app", "latest"), ("app", "moving")],
        [("multi", "2.0"), ("legacy", "1"), ("legacy", by_digest)],
        [("multi", "1.0"), ("multi", "nested-index"), ("team/signed", "1.0")],
        [("team", "outer"), ("sha512", "1"), ("app", "2.0")],
    ]
    for targets in rounds:
        found, outcome = deleted(registry, targets, on_disk, untag=True)
        assert sorted(outcome.tags) == sorted(tags_of(found))
        assert sorted(outcome.manifests) == sorted(found.manifests)
        assert outcome.spared == []
        carry_out(store, outcome)
        assert_store(registry, store)
        again, nothing = deleted(registry, targets, on_disk, untag=True)
        assert again.absent == tuple(targets)
        assert not nothing.changed


@pytest.mark.parametrize("seed", range(4))
def test_random_deletions(registry: RegistryProcess, on_disk: bool, seed: int) -> None:
    rng = random.Random(seed)
    store = random_store(rng, 40)
    push(registry.url, store)
    for _round in range(3):
        model = Model(store)
        tags = rng.sample(sorted(model.tags), min(3, len(model.tags)))
        named = rng.sample(sorted(model.manifests), min(2, len(model.manifests)))
        targets: list[Target] = [*tags, *((name, Digest(item)) for name, item in named)]
        found, outcome = deleted(registry, targets, on_disk, untag=rng.random() < 0.5)
        assert sorted(outcome.tags) == sorted(tags_of(found))
        assert sorted(outcome.manifests) == sorted(found.manifests)
        carry_out(store, outcome)
        assert_store(registry, store)


def test_a_plan_that_somebody_else_carried_out_is_no_error(registry: RegistryProcess, on_disk: bool) -> None:
    store = sample_store(random.Random(3))
    push(registry.url, store)
    targets: list[Target] = [("app", "1.0"), ("app", "latest"), ("multi", "1.0")]
    storage = storage_of(registry, on_disk)
    with RegistryClient(registry.url) as client:
        found = plan(look(targets, client, storage), targets)
        first = execute(found, client, storage=storage, settle=0)
        second = execute(found, client, storage=storage, settle=0)
    assert first.changed
    assert not second.changed
    assert second.spared == []
    carry_out(store, first)
    assert_store(registry, store)


def test_progress_ends_with_everything(registry: RegistryProcess, on_disk: bool) -> None:
    store = sample_store(random.Random(5))
    push(registry.url, store)
    targets: list[Target] = [("app", "1.0"), ("multi", "2.0")]
    storage = storage_of(registry, on_disk)
    steps: list[tuple[int, int]] = []
    with RegistryClient(registry.url) as client:
        found = plan(look(targets, client, storage), targets)
        execute(found, client, storage=storage, settle=0, progress=lambda *step: steps.append(step))
    total = len(found.tags) + len(found.manifests)
    assert steps[-1] == (total, total)
    assert steps == sorted(steps)


def test_over_http_a_manifest_without_a_tag_is_found_by_its_digest(registry: RegistryProcess) -> None:
    store = Store()
    untagged = store.image("app", [b"layer"])
    store.image("app", [b"other"], tag="1.0")
    never_tagged = store.image("untagged", [b"layer"])
    push(registry.url, store)
    for repository, image in (("app", untagged), ("untagged", never_tagged)):
        targets: list[Target] = [(repository, digest(image))]
        found, outcome = deleted(registry, targets, on_disk=False)
        assert found.bytes > image["size"]
        assert not found.exact
        assert outcome.manifests == targets
        again, _nothing = deleted(registry, targets, on_disk=False)
        assert again.absent == tuple(targets)
    with pytest.raises(UnknownRepository, match="no such repository"):
        deleted(registry, [("nowhere", digest(untagged))], on_disk=False)


def test_a_tag_that_leads_nowhere(registry: RegistryProcess) -> None:
    store = Store()
    image = store.image("app", [b"layer"], tag="1.0")
    store.image("app", [b"other"], tag="2.0")
    push(registry.url, store)
    registry.stop()  # and forget what is cached
    Path(Storage(registry.data).revision_path("app", digest(image))).unlink()
    registry.start()
    with pytest.raises(
        DanglingTag, match=r"app:1\.0: the tag points to a manifest that the repository does not"
    ):
        deleted(registry, [("app", "1.0")], on_disk=False)
    _found, outcome = deleted(registry, [("app", "1.0")], on_disk=True)
    assert outcome.tags == [("app", "1.0")]
    store.repositories["app"].revisions.remove(image["digest"])
    del store.repositories["app"].tags["1.0"]
    assert_store(registry, store)


# A registry that does not let us


def test_three_refusals_are_told_apart(
    registry_factory: Callable[..., RegistryProcess], on_disk: bool
) -> None:
    messages = []
    users = {"alice": "wonderland"}
    for error, reason, options in (
        (Unsupported, Unsupported.DELETE_DISABLED, {"delete": False}),
        (Unsupported, Unsupported.READ_ONLY, {}),
        (Unauthorized, None, {"auth": users}),
    ):
        registry = registry_factory(**options)
        store = Store()
        store.image("app", [b"layer"], tag="1.0")
        push(registry.url, store, auth=next(iter(users.items())))
        if reason == Unsupported.READ_ONLY:
            registry.restart({"storage": {"maintenance": {"readonly": {"enabled": True}}}})
        storage = Storage(registry.data)
        found = plan(look([("app", "1.0")], RegistryClient(registry.url), storage), [("app", "1.0")])
        wrong = {"username": "alice", "password": "mistyped"} if error is Unauthorized else {}
        with RegistryClient(registry.url, **wrong) as client, pytest.raises(error) as caught:
            execute(found, client, storage=storage if on_disk else None)
        assert getattr(caught.value, "reason", None) == reason
        messages.append(str(caught.value).partition("): ")[0])
        verify(registry.url, store, auth=next(iter(users.items())))
    assert "storage.delete.enabled" in messages[0]
    assert "read-only" in messages[1]
    assert "does not accept user alice" in messages[2]


@pytest.mark.slow
def test_another_registrys_data_is_refused(
    registry_factory: Callable[..., RegistryProcess], tmp_path: Path
) -> None:
    registry = registry_factory()
    store = sample_store(random.Random(1))
    write_store(tmp_path, store)
    before = read_tree(tmp_path)
    push(registry.url, random_store(random.Random(1)))
    targets: list[Target] = [("app", "1.0"), ("team", "outer")]
    with RegistryClient(registry.url) as client:
        found = plan(look(targets, client, Storage(tmp_path)), targets)
        with pytest.raises(WrongData, match="this is not the data of the registry"):
            execute(found, client, storage=Storage(tmp_path))
    assert read_tree(tmp_path) == before


def test_a_failure_half_way_says_what_was_done(registry: RegistryProcess) -> None:
    store = Store()
    for number in range(6):
        store.image("app", [b"layer %d" % number], tag=str(number))
    push(registry.url, store)
    targets: list[Target] = [("app", str(number)) for number in range(5)]
    stuck = store.repositories["app"].current("3")
    with FaultyProxy(registry.url) as proxy, RegistryClient(proxy.url, connections=1) as client:
        found = plan(look(targets, client), targets)
        proxy.spoil(f"DELETE .*{stuck}", status(500))
        with pytest.raises(DeletionFailed) as caught:
            execute(found, client)
        outcome = caught.value.outcome
        assert f"delete app@{stuck}" in str(caught.value)
        assert f"deleted before: tags {len(outcome.tags)}, manifests {len(outcome.manifests)}" in str(
            caught.value
        )
        carry_out(store, outcome)
        assert_store(registry, store)
        proxy.heal()
        targets = [target for target in targets if target[1] in store.repositories["app"].tags]
        targets.append(("app", Digest(stuck)))
        rest = execute(plan(look(targets, client), targets), client)
    carry_out(store, rest)
    assert_store(registry, store)
    assert list(store.repositories["app"].tags) == ["5"]


def test_waits_when_told_to(registry: RegistryProcess) -> None:
    store = Store()
    image = store.image("app", [b"layer"], tag="1.0")
    store.tag("app", image["digest"], "latest")
    push(registry.url, store)
    with FaultyProxy(registry.url) as proxy, RegistryClient(proxy.url, backoff=0.01) as client:
        proxy.spoil("DELETE", status(429, Retry_After="0"), times=3)
        found = plan(look([("app", "latest")], client), [("app", "latest")])
        carry_out(store, execute(found, client))
    assert_store(registry, store)


def test_an_untag_that_breaks_off_leaves_a_sign(registry: RegistryProcess) -> None:
    """Registry 2.8: between the push of the placeholder and its deletion."""
    if registry.major != "2":
        pytest.skip("3.x deletes tags by name")
    store = Store()
    image = store.image("app", [b"layer"], tag="1.0")
    store.tag("app", image["digest"], "latest")
    push(registry.url, store)
    targets: list[Target] = [("app", "latest")]
    with FaultyProxy(registry.url) as proxy, RegistryClient(proxy.url) as client:
        found = plan(look(targets, client), targets)

        def break_what_follows(answer: Answer) -> Answer:
            proxy.spoil("DELETE", status(500))
            return answer

        proxy.spoil("PUT .*/manifests/latest", break_what_follows)
        with pytest.raises(DeletionFailed):
            execute(found, client)
    with RegistryClient(registry.url) as client:
        assert client.resolve("app", "latest").digest != image["digest"]
        assert client.resolve("app", "1.0").digest == image["digest"]
    _found, outcome = deleted(registry, targets, on_disk=False)
    assert ("app", "latest") in outcome.tags
    del store.repositories["app"].tags["latest"]
    assert_store(registry, store)


# While others push


def replan(registry: RegistryProcess, targets: list[Target], on_disk: bool) -> Plan:
    with RegistryClient(registry.url) as client:
        found = plan(look(targets, client, storage_of(registry, on_disk)), targets)
    # As if it were old, so that execute() looks again at once.
    return dataclasses.replace(found, read=0.0)


def test_what_was_pushed_since_is_spared(registry: RegistryProcess, on_disk: bool) -> None:
    store = Store()
    images = [store.image("app", [b"layer %d" % number], tag=str(number)) for number in range(5)]
    child, other_child = store.image("app", [b"child"]), store.image("app", [b"other child"])
    store.index("app", [child], tag="index")
    other_index = store.index("app", [other_child], tag="other-index")
    push(registry.url, store)
    targets: list[Target] = [("app", tag) for tag in store.repositories["app"].tags]
    found = replan(registry, targets, on_disk)
    assert len(found.manifests) == 9

    begin = len(store.steps)
    store.image("app", [b"another"], tag="0")  # the tag moves
    store.tag("app", images[1]["digest"], "new")  # the digest gets another tag
    store.index("app", [child], tag="multi")  # an index lists the child
    store.index("app", [images[2]])  # and one without a tag, which only the disk shows
    store.tag("app", images[3]["digest"], None)  # pushed again by digest, which only the disk shows
    store.tag("app", other_index["digest"], None)  # an index too, whose child must stay with it
    push(registry.url, store, begin=begin)

    with RegistryClient(registry.url) as client:
        outcome = execute(found, client, storage=storage_of(registry, on_disk), settle=0.1)
    spared = {protection.target for protection in outcome.spared}
    assert {("app", "0"), ("app", digest(images[1])), ("app", digest(child))} <= spared
    assert ("app", "1") in outcome.tags, "the tag goes all the same"
    if on_disk:
        assert ("app", digest(images[2])) in spared
    if on_disk and registry.major == "2":
        assert {("app", digest(item)) for item in (images[3], other_index, other_child)} <= spared
    carry_out(store, outcome)
    if not on_disk:  # what nobody could know
        store.repositories["app"].revisions -= {images[2]["digest"]}
    assert_store(registry, store)


class Pusher:
    """Clients that push to a registry until they are told to stop, and remember what it acknowledged."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        #: By tag or digest: the manifest that must be pulled there.
        self.acknowledged: dict[str, str] = {}
        self.errors: list[BaseException] = []

    def __enter__(self) -> Pusher:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self.errors, self.errors

    def start(self, push_once: Callable[[urllib3.PoolManager, int], object]) -> None:
        """Repeat in a thread of its own."""

        def work() -> None:
            pool = urllib3.PoolManager(retries=False)
            number = 0
            try:
                while not self._stop.is_set():
                    push_once(pool, number)
                    number += 1
            except BaseException as error:
                self.errors.append(error)

        self._threads.append(threading.Thread(target=work))
        self._threads[-1].start()

    def put(self, pool: urllib3.PoolManager, reference: str, body: bytes, media_type: str) -> bool:
        """Push a manifest; whether the registry took it."""
        url = f"{self._url}/v2/app/manifests/{reference}"
        answer = pool.request("PUT", url, body=body, headers={"Content-Type": media_type})
        if answer.status == 201:
            self.acknowledged[reference] = digest_of(body)
        return answer.status == 201


def pulled(registry: RegistryProcess, reference: str) -> bytes | None:
    """A manifest that the registry serves."""
    url = f"{registry.url}/v2/app/manifests/{reference}"
    answer = urllib3.request("GET", url, headers={"Accept": ",".join(MANIFEST_TYPES)})
    return answer.data if answer.status == 200 else None


@pytest.mark.parametrize("cache", ["inmemory", None])
@pytest.mark.slow
def test_what_is_acknowledged_stays_while_tags_go(
    registry_factory: Callable[..., RegistryProcess], cache: str | None
) -> None:
    """On disk, with pushes of the same tags, of the same manifests and of indexes that list them.

    With 3.x manifests go through the registry, which deletes what is pushed at that moment: there the clients
    only push to the tags that go.
    """
    registry = registry_factory(
        config_overrides={"storage": {"cache": {"blobdescriptor": cache} if cache else None}}
    )
    store = Store()
    images = [store.image("app", [b"layer %d" % number], tag=f"old-{number}") for number in range(120)]
    kept = store.multi_arch("app", {"linux/amd64": [b"a"], "linux/arm64": [b"b"]}, tag="kept")
    push(registry.url, store)
    for reference in (*store.repositories["app"].tags, *store.repositories["app"].revisions):
        pulled(registry, reference)  # so that whatever is cached is in the cache
    targets: list[Target] = [("app", f"old-{number}") for number in range(120)]
    bodies = {image["digest"]: store.content(image["digest"]) for image in images}
    other = store.content(kept["digest"])

    with RegistryClient(registry.url) as client, Pusher(registry.url) as pusher:
        found = plan(look(targets, client, Storage(registry.data)), targets)
        assert len(found.manifests) == 120

        def same_tag(pool: urllib3.PoolManager, number: int) -> None:
            pusher.put(pool, f"old-{number % 10}", other, OCI_INDEX)

        def same_digest_under_another_tag(pool: urllib3.PoolManager, number: int) -> None:
            pusher.put(pool, f"new-{number}", bodies[images[10 + number % 10]["digest"]], OCI_MANIFEST)

        def the_digest_again(pool: urllib3.PoolManager, number: int) -> None:
            item = images[20 + number % 10]["digest"]
            pusher.put(pool, item, bodies[item], OCI_MANIFEST)

        def index_of_it(pool: urllib3.PoolManager, number: int) -> None:
            listed = [images[30 + number % 10]]
            body = json.dumps(
                {
                    "schemaVersion": 2,
                    "mediaType": OCI_INDEX,
                    "manifests": listed,
                    "annotations": {"n": str(number)},
                }
            ).encode()
            if pusher.put(pool, f"index-{number}" if number % 2 else digest_of(body), body, OCI_INDEX):
                pusher.acknowledged[listed[0]["digest"]] = listed[0]["digest"]

        pusher.start(same_tag)
        if registry.major == "2":
            pusher.start(same_digest_under_another_tag)
            pusher.start(the_digest_again)
            pusher.start(index_of_it)
        outcome = execute(found, client, storage=Storage(registry.data), settle=1.0)

    assert pusher.acknowledged
    for reference, item in pusher.acknowledged.items():
        body = pulled(registry, reference)
        assert body is not None, f"{reference} was acknowledged"
        assert digest_of(body) == item, reference
    for image in images[40:]:
        assert pulled(registry, image["digest"]) is None
        assert ("app", digest(image)) in outcome.manifests
    for number in range(10, 120):
        assert pulled(registry, f"old-{number}") is None, "what was deleted does not come back"
        assert ("app", f"old-{number}") in outcome.tags
    assert digest_of(pulled(registry, "kept") or b"") == kept["digest"]
    for child in store.references(kept["digest"]):
        assert pulled(registry, child) is not None

    # Once more, with a registry that has forgotten what it knew.
    registry.restart()
    for reference, item in pusher.acknowledged.items():
        assert digest_of(pulled(registry, reference) or b"") == item, reference
    # And what was deleted can be pushed again.
    begin = len(store.steps)
    store.image("app", [b"layer 50"], tag="old-50")
    push(registry.url, store, begin=begin)
    assert pulled(registry, "old-50") == bodies[images[50]["digest"]]


def test_a_manifest_that_is_a_blob_too(registry: RegistryProcess, on_disk: bool) -> None:
    """Registry 2.8 serves a manifest that a repository has among its layers."""
    store = Store()
    image = store.image("app", [b"layer"], tag="1.0")
    store.image("app", [b"other"], tag="2.0")
    store.blob("app", store.content(image["digest"]))
    push(registry.url, store)
    _found, outcome = deleted(registry, [("app", "1.0"), ("app", "2.0")], on_disk)
    assert len(outcome.manifests) == 2
    assert pulled(registry, image["digest"]) is None


def test_why_manifests_of_3x_are_deleted_by_the_registry_only(registry: RegistryProcess) -> None:
    """A link that somebody else removes: 2.8 sees it at once, 3.x serves the manifest from its cache."""
    store = Store()
    image = store.image("app", [b"layer"], tag="1.0")
    push(registry.url, store)
    assert pulled(registry, image["digest"]) is not None
    Path(Storage(registry.data).revision_path("app", digest(image))).unlink()
    assert (pulled(registry, image["digest"]) is None) == (registry.major == "2")


# What is aside


def test_a_link_that_was_open_for_writing_is_put_back(tmp_path: Path) -> None:
    """As registries up to 3.0 write it: opened, cut off, written."""
    store = Store()
    old = store.image("app", [b"old"], tag="1.0")
    new = store.image("app", [b"new"])
    write_store(tmp_path, store)
    storage = Storage(tmp_path)
    doomed = planned_tags(storage, ("app", "1.0"))[0]
    with open(storage.tag_path("app", "1.0"), "r+b") as link, set_aside(storage) as aside:
        assert aside.take_tag(doomed)
        assert storage.tag("app", "1.0") is None
        assert aside.written() == []
        link.truncate(0)
        link.write(new["digest"].encode())
        link.flush()
        assert aside.written() == [("app", "1.0")]
        aside.put_back(("app", "1.0"))
    tag = storage.tag("app", "1.0")
    assert isinstance(tag, Tag)
    assert tag.digest == new["digest"]
    assert [link.digest for link in storage.history("app", "1.0") if isinstance(link, Link)] == [
        old["digest"]
    ]


def planned_tags(storage: Storage, *targets: Target) -> tuple[DoomedTag, ...]:
    return plan(read_graph(DiskSource(storage)), targets).tags


def test_what_was_pushed_in_its_place_stays(tmp_path: Path) -> None:
    store = Store()
    old = store.image("app", [b"old"], tag="1.0")
    new = store.image("app", [b"new"])
    write_store(tmp_path, store)
    storage = Storage(tmp_path)
    found = plan(read_graph(DiskSource(storage)), [("app", "1.0")])
    with set_aside(storage) as aside:
        assert aside.take_tag(found.tags[0])
        assert aside.take_manifest(found.waves[0][0])
        storage.write_tag("app", "1.0", digest(new))
        storage.write_revision("app", digest(old))
        written_at = Path(storage.revision_path("app", digest(old))).stat().st_mtime_ns
        for target in aside.taken():
            aside.put_back(target)
    tag = storage.tag("app", "1.0")
    assert isinstance(tag, Tag)
    assert tag.digest == new["digest"]
    assert Path(storage.revision_path("app", digest(old))).stat().st_mtime_ns == written_at


def test_an_exception_puts_everything_back(tmp_path: Path) -> None:
    store = sample_store(random.Random(1))
    write_store(tmp_path, store)
    before = read_tree(tmp_path)
    storage = Storage(tmp_path)
    found = plan(read_graph(DiskSource(storage)), [("team/signed", "1.0"), ("multi", "2.0")])

    def break_off() -> None:
        with set_aside(storage) as aside:
            assert all(aside.take_tag(tag) for tag in found.tags)
            assert all(aside.take_manifest(manifest) for wave in found.waves for manifest in wave)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    left = {path: content for path, content in read_tree(tmp_path).items() if ".dockyard-aside" not in path}
    assert left == before


def test_runs_do_not_delete_what_another_has_aside(tmp_path: Path) -> None:
    store = sample_store(random.Random(1))
    write_store(tmp_path, store)
    storage = Storage(tmp_path)
    tags = planned_tags(storage, ("app", "1.0"), ("multi", "2.0"))
    with set_aside(storage) as one:
        assert one.take_tag(tags[0])
        with set_aside(storage) as two:
            assert two.take_tag(tags[1])
        assert one.written() == []
        one.put_back(one.taken()[0])
    assert isinstance(storage.tag("app", "1.0"), Tag)
    assert storage.tag("multi", "2.0") is None


def test_a_run_that_was_killed_leaves_nothing_for_long(tmp_path: Path) -> None:
    store = sample_store(random.Random(1))
    write_store(tmp_path, store)
    code = (
        "import os, sys\n"
        "from ansible_collections.dockyard.registry.plugins.module_utils import _aside, _graph, _plan\n"
        "from ansible_collections.dockyard.registry.plugins.module_utils import _source, _storage\n"
        "storage = _storage.Storage(sys.argv[1])\n"
        "found = _plan.plan(_graph.read_graph(_source.DiskSource(storage)), [('app', '1.0')])\n"
        "with _aside.set_aside(storage) as aside:\n"
        "    aside.take_tag(found.tags[0])\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(COLLECTIONS)}
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=False)
    assert killed.returncode == -9
    storage = Storage(tmp_path)
    assert storage.tag("app", "1.0") is None
    with set_aside(storage):
        pass
    assert not [path for path in read_tree(tmp_path) if "/current/link" in path and ".dockyard-aside" in path]


# The module


def module_args(registry: RegistryProcess, on_disk: bool, **options: Any) -> dict[str, Any]:
    return {"url": registry.url, **({"data": str(registry.data)} if on_disk else {}), **options}


@pytest.mark.slow
def test_module_in_four_steps(registry: RegistryProcess, on_disk: bool) -> None:
    store = sample_store(random.Random(11))
    push(registry.url, store)
    app = store.repositories["app"]
    args = module_args(registry, on_disk, images=["app:1.0", "app:latest"])
    first, shared = app.current("1.0"), app.current("latest")

    foreseen = run_module("manifest", args, check=True, diff=True)
    assert foreseen["changed"] is True
    assert foreseen["tags"] == [
        {"repository": "app", "tag": "1.0", "digest": first},
        {"repository": "app", "tag": "latest", "digest": shared},
    ]
    assert foreseen["manifests"] == [{"repository": "app", "digest": first}]
    assert foreseen["kept_manifests"] == ["keep the manifest of app:latest: also tagged 2.0"]
    assert foreseen["bytes_exact"] is on_disk
    at_most = "" if on_disk else "at most "
    assert foreseen["diff"] == {
        "before": f"app:1.0 {first}\napp:latest {shared}\napp@{first}\n{at_most}{foreseen['bytes']} bytes\n",
        "after": "",
    }
    assert foreseen["summary"].startswith("would delete tag app:1.0 (sha256:")
    assert_store(registry, store)

    done = run_module("manifest", args, diff=True)
    same = ("changed", "tags", "manifests", "bytes", "kept_manifests", "diff")
    assert {key: done[key] for key in same} == {key: foreseen[key] for key in same}
    del app.tags["1.0"], app.tags["latest"]
    app.revisions.remove(first)
    app.deleted.add(first)
    assert_store(registry, store)

    for check in (False, True):
        again = run_module("manifest", args, check=check, diff=True)
        assert again["changed"] is False
        assert again["absent"] == ["app:1.0", "app:latest"]
        assert again["diff"] == {"before": "", "after": ""}
    assert_store(registry, store)


def test_module_says_what_protects(registry: RegistryProcess) -> None:
    store = sample_store(random.Random(12))
    push(registry.url, store)
    shared = store.repositories["app"].current("latest")
    child = store.references(store.repositories["multi"].current("2.0"))[0]
    args = module_args(registry, True, images=["app:1.0", f"app@{shared}", f"multi@{child}"])
    for check in (True, False):
        refused = run_module("manifest", args, check=check)
        assert refused["failed"] is True
        assert refused["msg"].splitlines() == [
            f"delete app@{shared}: still tagged 2.0, latest; pass untag=true to remove those tags too",
            f"delete multi@{child}: listed in the index multi:2.0, which would break; "
            "delete that too, or pass force=true",
        ]
        assert refused["tags"] == []
        assert_store(registry, store)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": "app"}, "it has no tag and no digest"),
        ({"image": "app@sha256:12"}, "64 hexadecimal digits, not 2"),
        ({"image": "app:1.0", "data": "/nonexistent"}, "read /nonexistent: No such file"),
        ({"image": "app:1.0", "url": "127.0.0.1:5000"}, "write http:// or https://"),
        ({"image": "app:1.0"}, "connection refused"),
        ({"image": "app:1.0", "username": "alice"}, "give both or none"),
        ({"image": "app:1.0", "state": "present"}, "value of state must be one of: absent"),
        ({}, "missing required arguments: images"),
    ],
)
def test_module_with_bad_input(options: dict[str, str], message: str) -> None:
    result = run_module("manifest", {"url": "http://127.0.0.1:1", **options})
    assert result["failed"] is True
    assert message in result["msg"]


def test_module_with_a_misspelt_repository(registry: RegistryProcess, on_disk: bool) -> None:
    store = Store()
    store.image("app", [b"layer"], tag="1.0")
    push(registry.url, store)
    result = run_module("manifest", module_args(registry, on_disk, images=["ap:1.0", "app:1.0"]))
    assert result["failed"] is True
    assert "ap: there is no such repository" in result["msg"]
    verify(registry.url, store)


def test_module_checks_whether_it_may(registry_factory: Callable[..., RegistryProcess]) -> None:
    registry = registry_factory(delete=False)
    store = Store()
    store.image("app", [b"layer"], tag="1.0")
    push(registry.url, store)
    for check in (True, False):
        result = run_module("manifest", module_args(registry, True, image="app:1.0"), check=check)
        assert result["failed"] is True
        assert "storage.delete.enabled" in result["msg"]
    gone = run_module("manifest", module_args(registry, True, image="app:2.0"))
    assert gone["changed"] is False, "nothing to do needs no right"
    verify(registry.url, store)
