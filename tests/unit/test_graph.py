# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The graph of a registry: against plain slow answers from the model, random damage, and real registries."""

from __future__ import annotations

import json
import os
import random
import re
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils import _media
from ansible_collections.dockyard.registry.plugins.module_utils._client import RegistryClient
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._graph import (
    Graph,
    Referrer,
    ReferrerTag,
    UnknownContent,
    read_graph,
)
from ansible_collections.dockyard.registry.plugins.module_utils._manifest import parse_manifest
from ansible_collections.dockyard.registry.plugins.module_utils._reference import Digest
from ansible_collections.dockyard.registry.plugins.module_utils._source import DiskSource, HttpSource
from ansible_collections.dockyard.registry.plugins.module_utils._storage import Code, Problem, Storage
from ansible_collections.dockyard.registry.plugins.module_utils._walk import State
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.registry import RegistryProcess
from tests.support.store import (
    Store,
    digest_of,
    fill,
    push,
    random_store,
    sample_store,
    verify,
    write_store,
)

Named = tuple[str, str]
SEEDS = st.integers(0, 2**32)
# Every example writes a store to the disk.
on_stores = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def graph_of(root: Path) -> Graph:
    return read_graph(DiskSource(Storage(root)))


def written(store: Store) -> Graph:
    """The graph of a store on a disk that is gone by now."""
    with tempfile.TemporaryDirectory(prefix="dockyard-") as folder:
        write_store(Path(folder), store)
        return graph_of(Path(folder))


def over_http(registry: RegistryProcess, **options: Any) -> Graph:
    with RegistryClient(registry.url) as client:
        return read_graph(HttpSource(client, **options))


def sample(seed: int = 1) -> Store:
    return sample_store(random.Random(seed))


# The plain way: everything is a set, and every question looks at everything


class Plain:
    """What the graph should say of a store, in the most obvious way."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.tags = {
            (name, tag): (name, model.current(tag))
            for name, model in store.repositories.items()
            for tag in model.tags
        }
        self.manifests = {
            (name, digest) for name, model in store.repositories.items() for digest in model.revisions
        }

    def document(self, digest: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.store.content(digest))
        return document

    def children(self, manifest: Named) -> set[Named]:
        name, digest = manifest
        listed = {(name, child["digest"]) for child in self.document(digest).get("manifests", [])}
        return listed & self.manifests

    def lost_children(self, manifest: Named) -> set[Named]:
        """Those that were deleted, whose content is still there."""
        name, digest = manifest
        return {
            (name, child["digest"]) for child in self.document(digest).get("manifests", [])
        } - self.manifests

    def referrers(self, manifest: Named) -> set[Named]:
        name, digest = manifest
        return {
            other
            for other in self.manifests
            if other[0] == name and self.document(other[1]).get("subject", {}).get("digest") == digest
        }

    def dependents(self, manifest: Named) -> set[Named]:
        return self.children(manifest) | self.referrers(manifest) | self.lost_children(manifest)

    def closure(self, manifests: Iterable[Named]) -> set[Named]:
        found = set(manifests)
        while True:
            more = {other for manifest in found for other in self.dependents(manifest)} - found
            if not more:
                return found
            found |= more

    def blobs(self, manifests: Iterable[Named]) -> set[str]:
        """Under the digests by which they are stored."""
        found = set()
        for _name, digest in manifests:
            found |= {digest_of(self.store.content(needed)) for needed in self.store.references(digest)}
            found.add(digest)
        return found

    def size(self, blobs: Iterable[str]) -> int:
        return sum(len(self.store.blobs[digest]) for digest in blobs)

    def everything(self) -> set[Named]:
        """All manifests, and what their indexes list although it was deleted."""
        return self.closure(self.manifests)

    def released_by(
        self, tags: set[Named], named: set[Named], keep: set[Named]
    ) -> tuple[set[Named], set[str]]:
        """Manifests that go with these tags and manifests, and the blobs that are freed."""
        lost = tags | {tag for tag, manifest in self.tags.items() if manifest in named}
        doubtful = self.closure(named | {self.tags[tag] for tag in lost})
        kept = self.everything() - doubtful | keep
        kept |= {manifest for tag, manifest in self.tags.items() if tag not in lost}
        kept -= named
        while True:
            more = {other for manifest in kept for other in self.dependents(manifest)} - kept - named
            if not more:
                break
            kept |= more
        gone = self.everything() - kept
        return gone & self.manifests, self.blobs(gone) - self.blobs(kept)


def digests(manifests: Iterable[Named]) -> list[tuple[str, Digest]]:
    return [(name, Digest(digest)) for name, digest in manifests]


def check_release(
    graph: Graph,
    plain: Plain,
    tags: set[Named],
    named: set[Named],
    keep: frozenset[Named] | set[Named] = frozenset(),
) -> None:
    release = graph.released_by(tags, digests(named), keep=digests(keep))
    manifests, blobs = plain.released_by(tags, named, set(keep))
    assert set(release.manifests) == manifests
    assert {blob.digest for blob in release.blobs} == blobs
    assert release.bytes == plain.size(blobs)


@given(SEEDS)
@on_stores
@pytest.mark.slow
def test_says_what_the_store_says(seed: int) -> None:
    store = random_store(random.Random(seed))
    graph, plain = written(store), Plain(store)
    assert graph.repositories() == sorted(store.repositories)
    for name, model in store.repositories.items():
        assert [(tag.name, tag.digest) for tag in graph.tags(name)] == [
            (tag, model.current(tag)) for tag in sorted(model.tags)
        ]
        assert graph.manifests(name) == sorted(model.revisions)
        expected = State.UNFINISHED if not model.revisions | model.deleted else State.EMPTIED
        expected = State.UNTAGGED if plain.closure((name, d) for d in model.revisions) else expected
        assert graph.state(name) is (State.LIVE if model.tags else expected)
        for digest in map(Digest, model.revisions):
            body = store.content(digest)
            assert graph.manifest(digest) == parse_manifest(body)
            assert graph.manifest_size(digest) == len(body)
            assert graph.pushed(name, digest) is not None
    assert {problem.code for problem in graph.problems} <= {Code.CHILD_UNLINKED}
    for digest, content in store.blobs.items():
        assert graph.blob_size(Digest(digest)) == len(content)


@given(SEEDS, st.data())
@on_stores
@pytest.mark.slow
def test_release_is_what_the_plain_way_finds(seed: int, data: st.DataObject) -> None:
    store = random_store(random.Random(seed))
    graph, plain = written(store), Plain(store)
    tags = data.draw(st.sets(st.sampled_from(sorted(plain.tags)))) if plain.tags else set()
    named = data.draw(st.sets(st.sampled_from(sorted(plain.manifests)))) if plain.manifests else set()
    keep = data.draw(st.sets(st.sampled_from(sorted(plain.manifests)))) if plain.manifests else set()
    check_release(graph, plain, tags, set())
    check_release(graph, plain, tags, named)
    check_release(graph, plain, tags, named, keep)
    for tag in plain.tags:
        check_release(graph, plain, {tag}, set())


@given(SEEDS, st.data())
@on_stores
@pytest.mark.slow
def test_nothing_that_a_kept_tag_leads_to_is_released(seed: int, data: st.DataObject) -> None:
    store = random_store(random.Random(seed))
    graph, plain = written(store), Plain(store)
    if not plain.tags:
        return
    tags = data.draw(st.sets(st.sampled_from(sorted(plain.tags))))
    kept = plain.closure(manifest for tag, manifest in plain.tags.items() if tag not in tags)
    free = sorted(plain.manifests - kept)
    named = data.draw(st.sets(st.sampled_from(free))) if free else set()
    release = graph.released_by(tags, digests(named), follow=False)
    assert not kept & set(release.manifests)
    assert not plain.blobs(kept) & {blob.digest for blob in release.blobs}
    followed = graph.released_by(tags, follow=True)
    kept = plain.closure(manifest for tag, manifest in plain.tags.items() if tag not in followed.tags)
    assert not kept & set(followed.manifests)
    assert not plain.blobs(kept) & {blob.digest for blob in followed.blobs}


@given(SEEDS)
@on_stores
def test_sizes_add_up(seed: int) -> None:
    store = random_store(random.Random(seed))
    graph, plain = written(store), Plain(store)
    everything = plain.everything()
    for name, model in store.repositories.items():
        own = {manifest for manifest in everything if manifest[0] == name}
        size = graph.size(name)
        assert size.total == plain.size(plain.blobs(own))
        assert size.exclusive == plain.size(plain.blobs(own) - plain.blobs(everything - own))
        assert size.shared == size.total - size.exclusive >= 0
        for tag in model.tags:
            by_tag = graph.size(name, tag)
            assert by_tag.total == plain.size(plain.blobs(plain.closure([plain.tags[name, tag]])))
            assert by_tag.exclusive == graph.released_by([(name, tag)]).bytes
            assert by_tag.shared >= 0
        assert sum(graph.size(name, tag).exclusive for tag in model.tags) <= size.total
    whole = plain.size(plain.blobs(everything))
    assert sum(graph.size(name).exclusive for name in store.repositories) <= whole


@given(SEEDS)
@on_stores
@pytest.mark.slow
def test_reachable_and_orphans_are_what_the_plain_way_finds(seed: int) -> None:
    store = random_store(random.Random(seed))
    graph, plain = written(store), Plain(store)
    tagged = plain.closure(plain.tags.values())
    for reach, expected in (
        (graph.reachable(), tagged),
        (graph.reachable(untagged=True), plain.everything()),
        (graph.reachable(digests(plain.tags.values())), tagged),
        (graph.reachable([]), set()),
    ):
        found = {(name, digest) for name in store.repositories for digest in reach.manifests(name)}
        assert found == expected & plain.manifests
        assert {blob.digest for blob in reach.blobs()} == plain.blobs(expected)
        assert all(
            reach.has_manifest(*manifest) == (manifest in expected) for manifest in graph_manifests(graph)
        )
        assert all(reach.has_blob(Digest(d)) == (d in plain.blobs(expected)) for d in store.blobs)
    orphans = graph.orphans()
    assert set(orphans.manifests) == plain.manifests - tagged
    assert {blob.digest for blob in orphans.blobs} == set(store.blobs) - plain.blobs(plain.everything())
    needed = {
        (name, digest)
        for name, manifest in plain.everything()
        for needed in store.references(manifest)
        for digest in (needed, digest_of(store.content(needed)))
    }
    links = {(name, digest) for name, model in store.repositories.items() for digest in model.layers}
    assert set(orphans.links) == links - needed
    assert not set(graph.released_by(manifests=orphans.manifests).manifests) - set(orphans.manifests)


def graph_manifests(graph: Graph) -> list[tuple[str, Digest]]:
    return [(name, digest) for name in graph.repositories() for digest in graph.manifests(name)]


@given(SEEDS)
@on_stores
@pytest.mark.slow
def test_holders_are_what_the_plain_way_finds(seed: int) -> None:
    store = random_store(random.Random(seed))
    graph, plain = written(store), Plain(store)
    for name, digest in graph_manifests(graph):
        manifest, holders = (name, str(digest)), graph.holders(name, digest)
        assert set(holders.tags) == {
            tag for (where, tag), m in plain.tags.items() if m == manifest and where == name
        }
        assert set(holders.indexes) == {
            d for n, d in plain.everything() if manifest in plain.children((n, d))
        }
        assert set(holders.subjects) == {
            d for n, d in plain.everything() if manifest in plain.referrers((n, d))
        }
        bare = {referrer.digest for referrer in holders.referrers if not referrer.tag}
        assert bare == {d for _n, d in plain.referrers(manifest)}
        about = {tag for where, tag in plain.tags if where == name and tag.startswith(f"sha256-{digest.hex}")}
        assert {referrer.tag for referrer in holders.referrers if referrer.tag} == about
        assert set(holders.repositories) == {n for n, d in plain.everything() if d == digest and n != name}


@given(SEEDS)
@on_stores
@pytest.mark.slow
def test_the_same_store_gives_the_same_answers(seed: int) -> None:
    store = random_store(random.Random(seed))
    first = written(store)
    for name in store.repositories:
        model = store.repositories.pop(name)
        model.revisions = set(model.revisions)
        store.repositories[name] = model
    store.blobs = dict(reversed(store.blobs.items()))
    second = written(store)
    assert [p.code for p in first.problems] == [p.code for p in second.problems]
    assert [p.digest for p in first.problems] == [p.digest for p in second.problems]
    assert first.orphans() == second.orphans()
    for name in first.repositories():
        for tag in first.tags(name):
            release = first.released_by([(name, tag.name)])
            assert release == second.released_by([(name, tag.name)])
            assert list(release.blobs) == sorted(release.blobs)
    for name, digest in graph_manifests(first):
        assert first.holders(name, digest) == second.holders(name, digest)


# Damage


def _empty(path: Path) -> None:
    path.write_bytes(b"")
    os.utime(path, (1, 1))


def _garble(path: Path) -> None:
    path.write_bytes(b"{" + path.read_bytes()[1:-1])
    os.utime(path, (1, 1))


def _lie(path: Path) -> None:
    """Another text of the same kind: a link elsewhere, a manifest that refers to nothing."""
    lie = f"sha256:{'0' * 64}" if path.name == "link" else '{"schemaVersion": 2, "layers": []}'
    path.write_text(lie)
    os.utime(path, (1, 1))


def _turn_into_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _turn_into_symlink(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/null")


def _replace_folder_by_symlink(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()
    path.parent.symlink_to("/nowhere")


def damageable(root: Path, store: Store) -> list[Path]:
    """Links of all kinds but histories, and the blobs of manifests."""
    links = [path for path in root.rglob("link") if "/index/" not in str(path) and path.is_file()]
    blobs = [root / "docker/registry/v2/blobs/sha256" / d[7:9] / d[7:] / "data" for d in store.media_types]
    return sorted(links) + sorted(path for path in blobs if path.is_file())


DAMAGES: list[Callable[[Path], None]] = [
    _empty,
    _garble,
    _lie,
    _turn_into_folder,
    _turn_into_symlink,
    _replace_folder_by_symlink,
]


def deletable(graph: Graph) -> tuple[set[Any], dict[Any, set[Any]]]:
    """All that may be deleted: at once, and with each tag. Blobs stand without their sizes."""
    orphans = graph.orphans()
    with_orphans = graph.released_by(manifests=orphans.manifests)
    at_once = {*orphans.manifests, *orphans.links, *with_orphans.manifests}
    at_once |= {blob.digest for blob in (*orphans.blobs, *with_orphans.blobs)}
    with_tags: dict[Any, set[Any]] = {}
    for name in graph.repositories():
        for tag in graph.tags(name):
            release = graph.released_by([(name, tag.name)])
            with_tags[name, tag.name, tag.digest] = {
                *release.manifests,
                *(blob.digest for blob in release.blobs),
            }
    return at_once, with_tags


def deleted_children(store: Store) -> set[str]:
    """Manifests that are kept since an index lists them, although they were deleted and cannot be pulled."""
    plain = Plain(store)
    return {digest for _name, digest in plain.everything() - plain.manifests}


@given(SEEDS, st.data())
@on_stores
@pytest.mark.slow
def test_damage_makes_nothing_more_deletable(seed: int, data: st.DataObject) -> None:
    store = random_store(random.Random(seed))
    with tempfile.TemporaryDirectory(prefix="dockyard-") as folder:
        root = Path(folder)
        write_store(root, store)
        at_once, with_tags = deletable(graph_of(root))
        paths = damageable(root, store)
        if not paths:
            return
        for path in data.draw(st.lists(st.sampled_from(paths), min_size=1, max_size=3, unique=True)):
            data.draw(st.sampled_from(DAMAGES))(path)
        graph = graph_of(root)
        now_at_once, now_with_tags = deletable(graph)
        assert graph.problems
        assert now_at_once <= at_once | deleted_children(store)
        assert all(released <= with_tags.get(tag, released) for tag, released in now_with_tags.items())


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("place", ["second tag", "index", "index's manifest"])
def test_what_a_damaged_thing_may_have_held_stays(
    tmp_path: Path, place: str, damage: Callable[[Path], None]
) -> None:
    """A second tag of the same image, or an index that lists it, cannot be read any more."""
    store = Store()
    image = store.image("app", [b"layer"], tag="1.0")
    if place == "second tag":
        store.tag("app", image["digest"], "2.0")
    else:
        index = Digest(store.index("app", [image], tag="multi")["digest"])
    store.image("other", [b"layer", b"own"], tag="1.0")
    write_store(tmp_path, store)
    storage = Storage(tmp_path)
    assert not graph_of(tmp_path).released_by([("app", "1.0")]).manifests
    if place == "second tag":
        damage(Path(storage.tag_path("app", "2.0")))
    elif place == "index":
        damage(Path(storage.revision_path("app", index)))
    else:
        damage(Path(storage.blob_path(index)))
    graph = graph_of(tmp_path)
    assert graph.problems
    release = graph.released_by([("app", "1.0")])
    assert release.tags == (("app", "1.0"),)
    assert not release.manifests
    assert not release.blobs
    assert not graph.orphans().manifests
    assert Digest.of(b"layer") not in {blob.digest for blob in graph.released_by([("other", "1.0")]).blobs}
    assert graph.is_uncertain("app") or graph.blind
    assert not graph.is_uncertain("other")


@pytest.mark.parametrize("place", ["revision_path", "tag_path"])
def test_a_lost_link_loses_nothing(tmp_path: Path, place: str) -> None:
    """As the registry's own garbage collection would: fact 1."""
    store = Store()
    image = store.image("app", [b"layer"], tag="1.0")
    store.image("app", [b"other"], tag="2.0")
    write_store(tmp_path, store)
    storage = Storage(tmp_path)
    lost = (
        storage.tag_path("app", "1.0")
        if place == "tag_path"
        else storage.revision_path("app", Digest(image["digest"]))
    )
    Path(lost).unlink()
    graph = graph_of(tmp_path)
    assert graph.problems
    assert not graph.orphans().blobs
    assert not graph.orphans().manifests
    assert graph.reachable().has_blob(Digest.of(b"layer"))
    assert Digest.of(b"layer") not in {blob.digest for blob in graph.released_by([("app", "2.0")]).blobs}
    if place == "revision_path":
        assert [problem.code for problem in graph.problems] == [Code.TAG_DANGLING]
        assert not graph.reachable(unlinked=False).has_blob(Digest.of(b"layer"))


def test_a_deleted_child_is_told(tmp_path: Path) -> None:
    store = Store()
    index = store.multi_arch(
        "app", {"linux/amd64": [b"amd"], "linux/arm64": [b"arm"]}, tag="1.0", docker=True
    )
    child = json.loads(store.content(index["digest"]))["manifests"][0]["digest"]
    store.delete("app", child)
    write_store(tmp_path, store)
    graph = graph_of(tmp_path)
    assert [(p.code, p.digest, p.path) for p in graph.problems] == [
        (Code.CHILD_UNLINKED, child, f"app@{index['digest']}")
    ]
    assert graph.reachable().has_blob(Digest.of(b"amd"))
    assert not graph.reachable(unlinked=False).has_blob(Digest.of(b"amd"))
    assert Digest(child) not in graph.manifests("app")
    storage = Storage(tmp_path)
    storage.remove_blob(Digest(child))
    graph = graph_of(tmp_path)
    assert [problem.code for problem in graph.problems] == [Code.CHILD_MISSING]
    assert not graph.is_uncertain("app")
    assert {blob.digest for blob in graph.orphans().blobs} >= {Digest.of(b"amd")}


def test_references_that_lead_nowhere(tmp_path: Path) -> None:
    store = Store()
    store.image("app", [b"gone", b"unlinked", b"shorter"], tag="1.0")
    write_store(tmp_path, store)
    storage = Storage(tmp_path)
    storage.remove_blob(Digest.of(b"gone"))
    Path(storage.layer_path("app", Digest.of(b"unlinked"))).unlink()
    Path(storage.blob_path(Digest.of(b"shorter"))).write_bytes(b"short")
    graph = graph_of(tmp_path)
    assert {(problem.code, problem.digest) for problem in graph.problems} == {
        (Code.BLOB_MISSING, Digest.of(b"gone")),
        (Code.LAYER_UNLINKED, Digest.of(b"unlinked")),
        (Code.BLOB_SIZE, Digest.of(b"shorter")),
    }
    assert {problem.repository for problem in graph.problems} == {"app"}
    assert graph.blob_size(Digest.of(b"gone")) is None
    assert Digest.of(b"gone") not in {blob.digest for blob in graph.reachable().blobs()}


def test_a_store_that_cannot_be_seen_whole_frees_nothing(tmp_path: Path) -> None:
    store = sample()
    write_store(tmp_path, store)
    outside = tmp_path / "docker/registry/v2/repositories/team"
    outside.rename(tmp_path / "team")
    outside.symlink_to(tmp_path / "team")
    graph = graph_of(tmp_path)
    assert graph.blind
    assert [problem.code for problem in graph.problems] == [Code.SYMLINK]
    assert graph.orphans() == ((), (), ())
    release = graph.released_by([("app", "1.0")], [("app", Digest(store.repositories["app"].current("2.0")))])
    assert not release.blobs
    assert release.manifests == (("app", store.repositories["app"].current("2.0")),)
    assert graph.reachable().has_blob(Digest.of(b"never heard of"))
    assert graph.size("app").exclusive == 0
    assert graph.size("app", "1.0").exclusive == 0


# Kinds of manifests


def test_sample_store(tmp_path: Path) -> None:
    store = sample()
    write_store(tmp_path, store)
    graph = graph_of(tmp_path)
    assert not graph.problems
    assert {name: graph.state(name).value for name in graph.repositories()} == {
        "app": "live",
        "emptied": "emptied",
        "half-pushed": "unfinished",
        "legacy": "live",
        "mounted": "unfinished",
        "multi": "live",
        "no-manifest": "unfinished",
        "sha512": "live",
        "team": "live",
        "team/emptied": "emptied",
        "team/signed": "live",
        "team/signed/inner": "live",
        "untagged-only": "untagged",
    }
    index = graph.manifest(graph.resolve("multi", "1.0"))
    assert [child.platform for child in index.children] == [
        "linux/amd64",
        "unknown/unknown",
        "linux/arm64",
        "unknown/unknown",
    ]
    assert len([child for child in index.children if child.is_attestation]) == 2
    assert graph.manifest(graph.resolve("legacy", "1")).media_type == _media.DOCKER_LIST
    assert graph.holders("app", graph.resolve("app", "2.0")).tags == ("2.0", "latest")
    assert graph.released_by([("app", "2.0")]) == ((("app", "2.0"),), (), ())
    assert graph.holders("multi", graph.resolve("multi", "1.0")).indexes == (
        graph.resolve("multi", "nested-index"),
    )
    assert not graph.released_by([("multi", "1.0")]).manifests
    assert len(graph.orphans().manifests) == 2 + 1
    # Of content pushed by SHA-512, the link by SHA-256 belongs to it.
    assert "sha512" not in {name for name, _digest in graph.orphans().links}


def test_signed_image(tmp_path: Path) -> None:
    store = sample()
    write_store(tmp_path, store)
    graph = graph_of(tmp_path)
    name = "team/signed"
    image = graph.resolve(name, "1.0")
    tags = [f"sha256-{image.hex}", *(f"sha256-{image.hex}.{suffix}" for suffix in ("att", "sbom", "sig"))]
    assert graph.referrer_tags(name) == [ReferrerTag(tag, image) for tag in tags]
    holders = graph.holders(name, image)
    assert [r for r in holders.referrers if r.tag] == [
        Referrer(graph.resolve(name, tag), tag) for tag in tags
    ]
    bare = [referrer.digest for referrer in holders.referrers if not referrer.tag]
    assert len(bare) == 2
    assert all(graph.holders(name, referrer).subjects == (image,) for referrer in bare)
    assert graph.manifest(bare[0]).artifact_type == "application/vnd.example.sbom"
    # The one that the fallback index lists, and its own referrer, stay unless those tags follow.
    alone = graph.released_by([(name, "1.0")])
    assert len(alone.manifests) == 2
    followed = graph.released_by([(name, "1.0")], follow=True)
    assert {tag for _name, tag in followed.tags} == {"1.0", *tags}
    assert len(followed.manifests) == 8
    assert graph.released_by(manifests=[(name, image)], follow=True) == followed
    others = {tag.name for tag in graph.tags(name)} - {"1.0", *tags}
    assert others == {"plain-artifact"}


def test_tags_about_an_image_that_is_gone(tmp_path: Path) -> None:
    store = Store()
    image = store.image("app", [b"layer"], tag="1.0")
    store.cosign("app", image)
    store.tag("app", image["digest"], "sha256-abc.sig")  # not of that form, so a tag like any other
    store.tag("app", image["digest"], f"sha256-{image['digest'][7:]}.other")
    signature = f"sha256-{image['digest'][7:]}.sig"
    store.delete("app", image["digest"])
    write_store(tmp_path, store)
    graph = graph_of(tmp_path)
    assert graph.referrer_tags("app") == [ReferrerTag(signature, None)]
    assert not graph.orphans().manifests


def test_schema1(tmp_path: Path) -> None:
    store = Store()
    layer = store.blob("old", b"layer")
    history = [{"v1Compatibility": "{}"}]
    document = {"schemaVersion": 1, "fsLayers": [{"blobSum": layer["digest"]}], "history": history}
    store.manifest("old", document, tag="1", media_type=_media.DOCKER_SCHEMA1)
    write_store(tmp_path, store)
    graph = graph_of(tmp_path)
    assert not graph.problems
    assert graph.manifest(graph.resolve("old", "1")).media_type == _media.DOCKER_SCHEMA1
    assert graph.reachable().has_blob(Digest(layer["digest"]))


def test_build_cache(registry_factory: Callable[..., RegistryProcess]) -> None:
    """An index whose entries are blobs, as BuildKit exports its cache; 3.x must be told to accept it."""
    accept = {"validation": {"manifests": {"indexes": {"platforms": "none"}}}}
    registry = registry_factory(config_overrides=accept)
    store = Store()
    entries = [
        store.blob("cache", b"layer"),
        store.blob("cache", b"config", "application/vnd.buildkit.cacheconfig.v0"),
    ]
    store.index("cache", entries, tag="main")
    push(registry.url, store)
    graph = graph_of(registry.data)
    assert not graph.problems
    assert not graph.orphans().blobs
    assert graph.size("cache", "main").total == sum(map(len, store.blobs.values()))
    assert {blob.digest for blob in graph.released_by([("cache", "main")]).blobs} == set(store.blobs)


def test_bonds_in_a_circle(tmp_path: Path) -> None:
    """An index that is about its own child: the child lives as long as the index, and the reverse."""
    store = Store()
    child = store.image("app", [b"layer"])
    store.index("app", [child], subject=child)
    store.image("app", [b"other"], tag="1.0")
    write_store(tmp_path, store)
    graph = graph_of(tmp_path)
    assert len(graph.orphans().manifests) == 2
    released = graph.released_by(manifests=[("app", Digest(child["digest"]))])
    assert len(released.manifests) == 2


def test_each_manifest_is_read_once(tmp_path: Path) -> None:
    store = Store()
    for name in ("a", "b", "c"):
        image = store.image(name, [b"layer"], tag="1")
        store.index(name, [image, image], tag="2")
    write_store(tmp_path, store)
    read: list[Digest] = []

    class Counting(DiskSource):
        def manifests(self, wanted: Iterable[tuple[str, Digest]]) -> Iterator[bytes | Problem]:
            items = list(wanted)
            read.extend(digest for _name, digest in items)
            return super().manifests(items)

    read_graph(Counting(Storage(tmp_path)))
    assert sorted(read) == sorted(store.media_types)


def test_one_repository_alone(tmp_path: Path) -> None:
    write_store(tmp_path, sample())
    graph = read_graph(DiskSource(Storage(tmp_path), only=["app"]))
    assert graph.repositories() == ["app"]
    assert not graph.complete
    assert graph.orphans() == ((), (), ())


def test_unknown_names(tmp_path: Path) -> None:
    store = sample()
    write_store(tmp_path, store)
    graph = graph_of(tmp_path)
    missing = Digest.of(b"missing")
    known = graph.resolve("app", "1.0")
    for ask, message in (
        (lambda: graph.tags("nothing"), "nothing: there is no such repository"),
        (lambda: graph.size("app", "0.9"), "app:0.9: the repository has no such tag"),
        (lambda: graph.holders("app", missing), f"app@{missing}: the repository has no such manifest"),
        (lambda: graph.holders("team", known), f"team@{known}: the repository has no such manifest"),
        (lambda: graph.manifest(missing), f"{missing}: there is no such manifest"),
        (lambda: graph.released_by([("app", "0.9")]), "app:0.9"),
    ):
        with pytest.raises(UnknownContent, match=re.escape(message)):
            ask()


# Real registries


def test_disk_and_http_agree(registry: RegistryProcess) -> None:
    for seed in range(3):
        store = random_store(random.Random(seed))
        push(registry.url, _renamed(store, f"random-{seed}"))
    fill(registry.url, 1)
    disk, http = graph_of(registry.data), over_http(registry)
    assert disk.complete
    assert not http.complete
    for name in http.repositories():
        assert [(tag.name, tag.digest) for tag in http.tags(name)] == [
            (t.name, t.digest) for t in disk.tags(name)
        ]
        assert all(tag.pushed is None for tag in http.tags(name))
        # Nobody sees over HTTP what is neither tagged nor listed: untagged images, bare referrers.
        assert set(http.manifests(name)) == _listed(disk, name)
        for digest in http.manifests(name):
            assert http.manifest(digest) == disk.manifest(digest)
            assert http.manifest_size(digest) == disk.manifest_size(digest)
            both = disk.holders(name, digest), http.holders(name, digest)
            assert both[0].tags == both[1].tags
            assert set(both[1].indexes) <= set(both[0].indexes)
        for tag in http.tags(name):
            if not _has_bare_referrers(disk, name, tag.digest):
                visible = disk.reachable([(name, tag.digest)], unlinked=False)
                assert http.size(name, tag.name).total == sum(blob.size for blob in visible.blobs())
    blobs = {blob for blob in http.reachable().blobs() if blob.digest.algorithm == "sha256"}
    assert blobs <= set(disk.reachable().blobs())


def _renamed(store: Store, prefix: str) -> Store:
    store.steps = [step._replace(repository=f"{prefix}/{step.repository}") for step in store.steps]
    return store


def _listed(graph: Graph, name: str) -> set[Digest]:
    """The manifests that tags lead to without referrers."""
    found: set[Digest] = set()
    waiting = [tag.digest for tag in graph.tags(name)]
    while waiting:
        digest = waiting.pop()
        if digest not in found and digest in graph.manifests(name):
            found.add(digest)
            waiting += [child.digest for child in graph.manifest(digest).children]
    return found


def _has_bare_referrers(graph: Graph, name: str, digest: Digest) -> bool:
    return any(
        not referrer.tag
        for manifest in graph.reachable([(name, digest)]).manifests(name)
        for referrer in graph.holders(name, manifest).referrers
    )


def test_disk_and_http_agree_on_sizes_where_everything_is_tagged(registry: RegistryProcess) -> None:
    store = Store()
    store.image("app", [b"base", b"one"], tag="1")
    store.image("app", [b"base", b"two"], tag="2")
    store.tag("app", store.image("team/app", [b"base", b"three"], tag="3")["digest"], None)
    del store.steps[-1], store.repositories["app"].revisions
    store.multi_arch("team/app", {"linux/amd64": [b"base", b"amd"], "linux/arm64": [b"arm"]}, tag="4")
    push(registry.url, store)
    disk, http = graph_of(registry.data), over_http(registry)
    for name in ("app", "team/app"):
        assert http.size(name) == disk.size(name)
        for tag in disk.tags(name):
            assert http.size(name, tag.name) == disk.size(name, tag.name)
            assert http.released_by([(name, tag.name)]) == disk.released_by([(name, tag.name)])
    assert disk.size("app", "1").shared == len(b"base") + len(b"{}")


def test_http_for_one_repository(registry: RegistryProcess) -> None:
    fill(registry.url, 1)
    graph = over_http(registry, only=["app", "missing"])
    assert graph.repositories() == ["app", "missing"]
    assert graph.state("missing") is State.UNFINISHED
    assert len(graph.tags("app")) == 4


def test_states_over_http(registry: RegistryProcess) -> None:
    fill(registry.url, 1)
    graph = over_http(registry)
    assert graph.state("app") is State.LIVE
    assert graph.state("emptied") is State.EMPTIED
    assert not graph.orphans().manifests


def test_damage_over_http(registry: RegistryProcess) -> None:
    store = Store()
    bad = store.image("app", [b"bad"], tag="bad")
    lost = store.image("app", [b"lost"], tag="lost")
    index = store.multi_arch(
        "app", {"linux/amd64": [b"amd"], "linux/arm64": [b"arm"]}, tag="multi", docker=True
    )
    store.image("app", [b"good"], tag="good")
    store.image("other", [b"other"], tag="1")
    push(registry.url, store)
    child = json.loads(store.content(index["digest"]))["manifests"][0]["digest"]
    storage = Storage(registry.data)
    Path(storage.blob_path(Digest(bad["digest"]))).write_bytes(b"{}")
    Path(storage.revision_path("app", Digest(lost["digest"]))).unlink()
    Path(storage.revision_path("app", Digest(child))).unlink()
    registry.restart()
    graph = over_http(registry)
    assert {tag.name for tag in graph.tags("app")} == {"good", "multi"}
    assert sorted((problem.code, problem.path) for problem in graph.problems) == [
        (Code.CHILD_MISSING, f"app@{index['digest']}"),
        (Code.MANIFEST_CORRUPT, "app:bad"),
        (Code.TAG_DANGLING, "app:lost"),
    ]
    assert graph.is_uncertain("app")
    assert not graph.is_uncertain("other")
    assert not graph.released_by([("app", "good")]).manifests
    assert graph.released_by([("other", "1")]).manifests


def test_small_blobs_can_be_read_from_either(registry: RegistryProcess) -> None:
    store = Store()
    store.image("app", [b"layer"], tag="1", config=b'{"os": "linux"}')
    push(registry.url, store)
    config = Digest.of(b'{"os": "linux"}')
    with RegistryClient(registry.url) as client:
        for source in (DiskSource(Storage(registry.data)), HttpSource(client)):
            assert source.read_blob("app", config, 100) == b'{"os": "linux"}'
            with pytest.raises(RegistryError, match="larger than 3 bytes"):
                source.read_blob("app", config, 3)
            with pytest.raises(RegistryError):
                source.read_blob("app", Digest.of(b"missing"), 100)


# What the registry's own garbage collection makes of it


def eligible(registry: RegistryProcess, kind: str = "blob eligible for deletion") -> set[str]:
    """The blobs that the registry's garbage collection would delete."""
    run = registry.garbage_collect("--dry-run")
    assert run.returncode == 0, run.stderr
    return set(re.findall(rf"^{kind}: (\S+)$", run.stdout, re.MULTILINE))


@pytest.mark.slow
def test_orphaned_blobs_are_those_that_the_registry_would_delete(registry: RegistryProcess) -> None:
    for seed in range(4):
        push(registry.url, _renamed(random_store(random.Random(seed)), f"random-{seed}"))
    store = sample()
    push(registry.url, store)
    graph = graph_of(registry.data)
    would = eligible(registry)
    reach = graph.reachable(untagged=True, unlinked=False)
    # By the way: it would destroy what was pushed by SHA-512, which is in use.
    lost = {digest for digest in would if reach.has_blob(Digest(digest))}
    by_sha512 = [
        d for d in store.references(store.repositories["sha512"].current("1")) if d.startswith("sha512:")
    ]
    assert digest_of(store.content(by_sha512[0])) in lost
    orphans = {blob.digest for blob in graph.orphans().blobs}
    assert orphans <= would
    unlinked = {blob.digest for blob in graph.reachable(untagged=True).blobs()} - {
        blob.digest for blob in reach.blobs()
    }
    assert would - lost - unlinked == orphans - unlinked


@pytest.mark.parametrize("follow", [False, True])
def test_a_release_is_what_garbage_collection_frees(registry: RegistryProcess, follow: bool) -> None:
    store = sample()
    del store.repositories["sha512"]  # see the test above
    store.steps = [step for step in store.steps if step.repository != "sha512"]
    push(registry.url, store)
    registry.stop()
    registry.garbage_collect()
    registry.start()
    tags = [
        ("multi", "1.0"),
        ("multi", "nested-index"),
        ("team/signed", "1.0"),
        ("app", "latest"),
        ("legacy", "1"),
    ]
    graph = graph_of(registry.data)
    release = graph.released_by(tags, follow=follow)
    assert len(release.manifests) > 8
    with RegistryClient(registry.url) as client:
        for name, digest in release.manifests:
            client.delete_manifest(name, digest)
            store.delete(name, digest)
    before = {
        blob.digest: blob.size for blob in Storage(registry.data).blobs() if not isinstance(blob, Problem)
    }
    registry.stop()
    assert registry.garbage_collect().returncode == 0
    after = {blob.digest for blob in Storage(registry.data).blobs() if not isinstance(blob, Problem)}
    freed = {digest: size for digest, size in before.items() if digest not in after}
    assert freed == dict(release.blobs)
    assert sum(freed.values()) == release.bytes
    registry.start()
    assert verify(registry.url, store).manifests > 20


# While the registry works


def test_walks_while_others_push_and_delete(registry: RegistryProcess) -> None:
    store = fill(registry.url, 1)
    storage = Storage(registry.data)
    stable = {
        (name, tag): model.current(tag) for name, model in store.repositories.items() for tag in model.tags
    }
    # What lasts too long, on a machine with much to do, to be waited for.
    momentary = {Code.TAG_DANGLING, Code.TAG_WITHOUT_CURRENT, Code.CHILD_MISSING, Code.CHILD_UNLINKED}
    done = threading.Event()
    traffic = [
        threading.Thread(target=_push_and_delete, args=(registry.url, number, done)) for number in range(3)
    ]
    for thread in traffic:
        thread.start()
    try:
        walks = 0
        while walks < 15:
            graph = read_graph(DiskSource(storage))
            http = over_http(registry)
            walks += 1
            for found in (graph, http):
                assert {problem.code for problem in found.problems} <= momentary
                assert not {problem.repository for problem in found.problems} & set(store.repositories)
                assert (
                    stable.items()
                    <= {
                        (name, tag.name): tag.digest
                        for name in found.repositories()
                        for tag in found.tags(name)
                    }.items()
                )
            # What is tagged now and was when the walk began is not in the way of anybody who deletes orphans.
            orphans = set(graph.orphans().manifests)
            assert not orphans & {(name, digest) for (name, _tag), digest in stable.items()}
            assert graph.reachable().has_manifest("app", Digest(stable["app", "1.0"]))
    finally:
        done.set()
        for thread in traffic:
            thread.join()
    assert verify(registry.url, store).blobs > 0
    assert not graph_of(registry.data).problems
    assert not over_http(registry).problems


def _push_and_delete(url: str, number: int, done: threading.Event) -> None:
    """Push new images and indexes, move a tag, delete the images again."""
    rng = random.Random(number)
    # Not the same for all: registry 2.8 fails to delete while another tag of the repository is being written.
    name = f"busy-{number}"
    while not done.is_set():
        store = Store()
        image = store.image(name, [rng.randbytes(100)], tag=f"tag-{number}")
        store.image(name, [rng.randbytes(100)], tag=f"tag-{number}")
        index = store.multi_arch(name, {"linux/amd64": [rng.randbytes(50)]}, tag=f"tag-{number}")
        store.delete(name, image["digest"])
        store.delete(name, index["digest"])
        push(url, store)
