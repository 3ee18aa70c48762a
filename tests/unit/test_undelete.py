# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Undelete: what was deleted or moved comes back to a working registry, whole, or not at all."""

from __future__ import annotations

import copy
import os
import random
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils import _storage
from ansible_collections.dockyard.registry.plugins.module_utils._client import RegistryClient
from ansible_collections.dockyard.registry.plugins.module_utils._deletion import (
    execute,
    look,
    parse_targets,
    plan,
)
from ansible_collections.dockyard.registry.plugins.module_utils._reference import Digest, parse_reference
from ansible_collections.dockyard.registry.plugins.module_utils._storage import DeletedTag, Storage
from ansible_collections.dockyard.registry.plugins.module_utils._undelete import (
    CannotUndelete,
    How,
    Restored,
    formers,
    undelete,
)

from tests.support.modules import run_module
from tests.support.registry import RegistryProcess
from tests.support.store import Store, digest_of, fill, push, read_tree, sample_store, verify, write_store


def delete(registry: RegistryProcess, *images: str, on_disk: bool = True, untag: bool = False) -> None:
    """Delete on the registry's host, or as anybody could."""
    storage = Storage(registry.data) if on_disk else None
    targets = parse_targets(images)
    with RegistryClient(registry.url) as client:
        found = plan(look(targets, client, storage), targets, untag=untag)
        assert not found.refused
        execute(found, client, storage=storage, settle=0)


def bring_back(registry: RegistryProcess, image: str, **options: Any) -> Restored:
    return undelete(Storage(registry.data), parse_reference(image), **options)


def assert_as_before(registry: RegistryProcess, store: Store) -> None:
    """Everything can be pulled, and no tag is missing or new."""
    verify(registry.url, store)
    with RegistryClient(registry.url) as client:
        for name, held in store.repositories.items():
            if held.has_tags_folder:
                assert sorted(client.tags(name)) == sorted(held.tags), name


def test_a_deleted_tag_comes_back_with_all_that_went(registry: RegistryProcess) -> None:
    store = fill(registry.url, 1)
    images = ["app:1.0", "app:latest", "multi:2.0", "legacy:1", "sha512:1", "team/signed:1.0"]
    delete(registry, *images)
    for image in images:
        foreseen = bring_back(registry, image, check_mode=True)
        restored = bring_back(registry, image)
        assert restored == foreseen
        assert restored.changed
        assert restored.incomplete == ()
        assert not bring_back(registry, image).changed
    assert_as_before(registry, store)


def test_what_was_deleted_over_http_comes_back_by_its_digest(registry: RegistryProcess) -> None:
    store = fill(registry.url, 2)
    multi = store.repositories["multi"].current("2.0")
    delete(registry, "multi:2.0", on_disk=False)
    with pytest.raises(CannotUndelete, match=rf"not noted.*multi:2\.0@sha256:….*{multi}"):
        bring_back(registry, "multi:2.0")
    assert len(bring_back(registry, f"multi:2.0@{multi}").manifests) == 5
    assert_as_before(registry, store)


def test_a_manifest_comes_back_without_a_tag(registry: RegistryProcess) -> None:
    store = Store()
    image = store.image("app", [b"layer"])
    store.image("app", [b"other"], tag="1.0")
    push(registry.url, store)
    delete(registry, f"app@{image['digest']}")
    restored = bring_back(registry, f"app@{image['digest']}")
    assert restored.manifests == (image["digest"],)
    assert restored.tags == ()
    assert_as_before(registry, store)


def test_a_moved_tag_goes_back(registry: RegistryProcess) -> None:
    store = fill(registry.url, 3)
    history = store.repositories["app"].tags["moving"]
    known = formers(Storage(registry.data), "app", "moving")
    assert [former.digest for former in known if former.how is How.MOVED] == history[-2::-1], "latest first"
    assert all(not former.missing for former in known)

    oldest = history[0]
    with pytest.raises(CannotUndelete, match=r"the tag is there, at .*; name the manifest") as caught:
        bring_back(registry, "app:moving")
    assert oldest in str(caught.value)
    restored = bring_back(registry, f"app:moving@{oldest}")
    assert restored.tags == (("moving", history[-1], oldest),)
    assert not bring_back(registry, f"app:moving@{oldest}").changed
    history.append(oldest)
    assert_as_before(registry, store)


def test_referrers_can_be_left(registry: RegistryProcess) -> None:
    store = fill(registry.url, 4)
    delete(registry, "team/signed:1.0")
    restored = bring_back(registry, "team/signed:1.0", referrers=False)
    assert [tag for tag, _before, _now in restored.tags] == ["1.0"]
    assert restored.manifests == (store.repositories["team/signed"].current("1.0"),)


def test_referrers_that_were_deleted_before_stay_away(registry: RegistryProcess) -> None:
    store = Store()
    image = store.image("app", [b"layer"], tag="1.0")
    old = store.artifact("app", b"old", subject=image)
    new = store.artifact("app", b"new", subject=image)
    push(registry.url, store)
    storage = Storage(registry.data)
    delete(registry, f"app@{old['digest']}")
    folder = Path(storage.revision_path("app", Digest(old["digest"]))).parent
    os.utime(folder, (0, folder.stat().st_mtime - 3600))
    delete(registry, "app:1.0")
    assert bring_back(registry, "app:1.0").manifests == (image["digest"], new["digest"])
    assert not bring_back(registry, "app:1.0").changed


def test_after_garbage_collection_it_is_refused(registry: RegistryProcess) -> None:
    store = Store()
    digest = store.image("app", [b"layer"], tag="1.0")["digest"]
    store.image("app", [b"other"], tag="2.0", config=b'{"other": 1}')
    push(registry.url, store)
    delete(registry, "app:1.0")
    registry.stop()
    assert registry.garbage_collect().returncode == 0
    registry.start()
    with pytest.raises(
        CannotUndelete, match=rf"app:1\.0: not all of it is there any more: {digest} \(there is no"
    ):
        bring_back(registry, "app:1.0")
    listed = [former for former in formers(Storage(registry.data), "app") if former.digest == digest]
    assert [(former.tag, former.how, bool(former.missing)) for former in listed] == [
        ("1.0", How.DELETED, True)
    ]


def written(folder: Path, store: Store) -> Storage:
    write_store(folder, store)
    return Storage(folder)


def remove_manifest(storage: Storage, repository: str, tag: str) -> Digest:
    """Delete a tag and its manifest as somebody else would."""
    found = storage.tag(repository, tag)
    assert isinstance(found, _storage.Tag)
    Path(storage.revision_path(repository, found.digest)).unlink()
    link = Path(storage.tag_path(repository, tag))
    link.unlink()
    for history in link.parents[1].rglob("link"):
        history.unlink()
    for folder in sorted(link.parents[1].rglob("*"), reverse=True):
        folder.rmdir()
    link.parents[1].rmdir()
    return found.digest


@pytest.mark.parametrize("part", ["layer", "config", "child"])
def test_an_incomplete_image_is_refused_and_named(tmp_path: Path, part: str) -> None:
    store = Store()
    child = store.image("app", [b"layer"])
    index = store.index("app", [child], tag="1.0")
    storage = written(tmp_path, store)
    Path(storage.revision_path("app", Digest(child["digest"]))).unlink()
    remove_manifest(storage, "app", "1.0")
    lost = {"layer": digest_of(b"layer"), "config": digest_of(b"{}"), "child": child["digest"]}[part]
    Path(storage.blob_path(Digest(lost))).unlink()
    before = read_tree(tmp_path)
    with pytest.raises(CannotUndelete, match=f"{lost} .there is no such blob"):
        undelete(storage, parse_reference(f"app:1.0@{index['digest']}"))
    assert read_tree(tmp_path) == before
    (former,) = [each for each in formers(storage, "app") if each.digest == index["digest"]]
    assert [missing.digest for missing in former.missing] == [lost]


def test_a_cut_blob_is_missing(tmp_path: Path) -> None:
    store = Store()
    image = store.image("app", [b"layer"], tag="1.0")
    storage = written(tmp_path, store)
    remove_manifest(storage, "app", "1.0")
    Path(storage.blob_path(Digest(digest_of(b"layer")))).write_bytes(b"lay")
    with pytest.raises(CannotUndelete, match="5 bytes, of which 3 are there"):
        undelete(storage, parse_reference(f"app:1.0@{image['digest']}"))


def test_a_blob_that_others_kept_is_linked_again(registry: RegistryProcess) -> None:
    """As garbage collection of 3.x leaves it: the blob is in use elsewhere, the repository's link is gone."""
    store = Store()
    store.image("app", [b"shared"], tag="1.0")
    store.image("other", [b"shared"], tag="1.0", config=b'{"other": 1}')
    push(registry.url, store)
    storage = Storage(registry.data)
    delete(registry, "app:1.0")
    registry.stop()
    Path(storage.layer_path("app", Digest(digest_of(b"shared")))).unlink()
    registry.start()
    assert bring_back(registry, "app:1.0").layers == (digest_of(b"shared"),)
    assert_as_before(registry, store)


def test_lists_what_can_be_brought_back(registry: RegistryProcess) -> None:
    store = fill(registry.url, 6)
    before = copy.deepcopy(store.repositories["team/signed"])
    delete(registry, "team/signed:1.0")
    delete(registry, "multi:2.0", on_disk=False)
    found = formers(Storage(registry.data), "team/signed")
    assert {former.tag for former in found if former.tag} == before.tags.keys() - {"plain-artifact"}
    signed = next(former for former in found if former.tag == "1.0")
    assert signed.how is How.DELETED
    assert signed.name == f"team/signed:1.0@{before.current('1.0')}"
    assert signed.missing == ()

    multi = formers(Storage(registry.data), "multi")
    assert [former.digest for former in multi] == [store.repositories["multi"].current("2.0")], (
        "an index stands for its children"
    )
    assert multi[0].tag == ""
    assert multi[0].platforms == ("linux/amd64", "linux/s390x")


def test_there_is_no_such_repository(tmp_path: Path) -> None:
    storage = written(tmp_path, sample_store(random.Random(1)))
    for call in (
        lambda: formers(storage, "nowhere"),
        lambda: undelete(storage, parse_reference("nowhere:1")),
    ):
        with pytest.raises(CannotUndelete, match="nowhere: there is no such repository"):
            call()


def test_notes_of_what_is_gone_for_good_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    image = store.image("app", [b"layer"], tag="1.0")
    storage = written(tmp_path, store)
    there, gone = Digest(image["digest"]), Digest.of(b"gone")
    monkeypatch.setattr(_storage, "_NOTES_LIMIT", 4)
    for number in range(4):
        storage.note_deleted_tags(
            [DeletedTag("app", str(number), gone if number % 2 else there, float(number))]
        )
    assert len(storage.deleted_tags()) == 4
    storage.note_deleted_tags([DeletedTag("app", "4", gone, 4.0)])
    storage.note_deleted_tags([DeletedTag("app", "5", there, 5.0)])
    assert [(note.name, note.digest) for note in storage.deleted_tags()] == [
        (number, there) for number in "025"
    ]


def test_damaged_notes_are_skipped(tmp_path: Path) -> None:
    store = Store()
    image = store.image("app", [b"layer"], tag="1.0")
    storage = written(tmp_path, store)
    storage.note_deleted_tags([DeletedTag("app", "1.0", Digest(image["digest"]), 1.5)])
    (notes,) = tmp_path.rglob(".dockyard-deleted-tags")
    notes.write_bytes(
        b"\xff\n\nx app:1\n1.0 ../etc:1@sha256:zz\n" + notes.read_bytes() + b"2.0 app:2.0@sha256:12"
    )
    assert storage.deleted_tags() == [DeletedTag("app", "1.0", Digest(image["digest"]), 1.5)]


# The modules


def test_module_undelete(registry: RegistryProcess) -> None:
    store = Store()
    image = store.image("app", [b"layer"], tag="1.0")
    push(registry.url, store)
    delete(registry, "app:1.0")
    args = {"data": str(registry.data), "image": "app:1.0"}
    tag = {"repository": "app", "tag": "1.0", "before": None, "digest": image["digest"]}

    listed = run_module("undelete_info", {"data": str(registry.data), "repository": "app", "tag": "1.0"})
    (former,) = listed["images"]
    assert (former["image"], former["how"], former["complete"]) == (
        f"app:1.0@{image['digest']}",
        "deleted",
        True,
    )
    assert former["image"] in listed["table"]
    assert listed["changed"] is False

    foreseen = run_module("undelete", args, check=True, diff=True)
    assert foreseen["changed"] is True
    assert foreseen["tags"] == [tag]
    assert foreseen["diff"]["before"] == ""
    assert foreseen["diff"]["after"].splitlines() == [f"app:1.0 {image['digest']}", f"app@{image['digest']}"]
    assert Storage(registry.data).tag("app", "1.0") is None
    assert {**run_module("undelete", args, diff=True), "invocation": None} == {**foreseen, "invocation": None}
    assert_as_before(registry, store)
    for check in (False, True):
        again = run_module("undelete", args, check=check)
        assert again["changed"] is False
        assert "nothing to bring back" in again["summary"]


@pytest.mark.parametrize(
    ("module", "args", "message"),
    [
        ("undelete", {"image": "app"}, "it has no tag and no digest"),
        ("undelete", {"image": "app:1.0@sha256:12"}, "64 hexadecimal digits"),
        ("undelete", {"image": "nowhere:1"}, "no such repository"),
        ("undelete", {"image": "app:1", "data": "/nonexistent"}, "read /nonexistent: No such file"),
        ("undelete_info", {"repository": "../etc"}, "repository ../etc"),
        ("undelete_info", {"repository": "app", "tag": "a/b"}, "a tag has no '/'"),
    ],
)
def test_bad_input(tmp_path: Path, module: str, args: dict[str, str], message: str) -> None:
    store = Store()
    store.image("app", [b"layer"], tag="1.0")
    write_store(tmp_path, store)
    result = run_module(module, {"data": str(tmp_path), **args})
    assert result["failed"] is True
    assert message in result["msg"]
