# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The integrity check: each damage is found, and it alone; what is sound, or in motion, is no damage."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils._check import (
    Options,
    Report,
    Which,
    check,
    render,
)
from ansible_collections.dockyard.registry.plugins.module_utils._check_content import Rate
from ansible_collections.dockyard.registry.plugins.module_utils._check_findings import Severity
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._reference import Digest
from ansible_collections.dockyard.registry.plugins.module_utils._storage import Code, Storage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.modules import CHECKOUT, COLLECTIONS
from tests.support.registry import RegistryProcess
from tests.support.store import OCI_INDEX, Store, digest_of, push, random_store, sample_store, write_store

SEEDS = st.integers(0, 2**32)
on_stores = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


class Contents(NamedTuple):
    """A small sound store, and the digests that damage is done to."""

    store: Store
    root: Path
    base: str
    own: str
    first: str
    listing: str
    child: str
    spare: str
    layer512: str

    @property
    def data(self) -> Path:
        return self.root / "docker/registry/v2"

    def blob(self, digest: str) -> Path:
        value = digest.partition(":")[2]
        return self.data / "blobs/sha256" / value[:2] / value / "data"

    def layer(self, repository: str, digest: str) -> Path:
        return self.data / "repositories" / repository / "_layers" / digest.replace(":", "/") / "link"

    def manifests(self, repository: str) -> Path:
        return self.data / "repositories" / repository / "_manifests"

    def revision(self, repository: str, digest: str) -> Path:
        return self.manifests(repository) / "revisions" / digest.replace(":", "/") / "link"

    def tag(self, repository: str, tag: str) -> Path:
        return self.manifests(repository) / "tags" / tag / "current/link"


def age(root: Path, seconds: float = 3600.0) -> None:
    """Make everything so old that nobody can be about to write it."""
    then = time.time() - seconds
    for folder, _folders, files in os.walk(root):
        for name in (".", *files):
            os.utime(Path(folder, name), (then, then), follow_symlinks=False)


def make_contents(root: Path) -> Contents:
    store = Store()
    base = b"the layer that all share"
    first = store.image("app", [base, b"only in 1.0"], tag="1.0", config=b'{"of": "1.0"}')
    store.image("app", [base], tag="2.0", config=b'{"of": "2.0"}')
    store.tag("app", first["digest"], "moved")
    store.image("app", [base, b"moved"], tag="moved", config=b'{"of": "moved"}')
    index = store.multi_arch("team/multi", {"linux/amd64": [base], "linux/arm64": [b"arm"]}, tag="1")
    store.cosign("team/multi", index)
    spare = store.blob("app", b"a blob that nothing needs")
    store.manifest(
        "long",
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": store.blob("long", b"config of long"),
            "layers": [store.blob("long", b"pushed by SHA-512", algorithm="sha512")],
        },
        tag="1",
    )
    write_store(root, store)
    age(root)
    return Contents(
        store,
        root,
        digest_of(base),
        digest_of(b"only in 1.0"),
        first["digest"],
        index["digest"],
        json.loads(store.content(index["digest"]))["manifests"][0]["digest"],
        spare["digest"],
        digest_of(b"pushed by SHA-512", "sha512"),
    )


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    return make_contents(tmp_path / "data")


def look(root: Path, **options: Any) -> Report:
    return check(Storage(root), Options(patience=0.1, **options))


class Expected(NamedTuple):
    code: Code
    severity: Severity
    path: str
    breaks: tuple[str, ...]


def found(report: Report) -> list[Expected]:
    return sorted(Expected(item.code, item.severity, item.path, item.breaks) for item in report.findings)


def flip(path: Path) -> None:
    """Change one bit, as a disk does: nothing else of the file changes."""
    status = path.stat()
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def rewrite(path: Path, body: bytes) -> None:
    path.write_bytes(body)
    age(path.parent)


def write_new(path: Path, body: bytes = b"") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    age(path.parent)


def add_manifest(c: Contents, repository: str, document: object, tag: str) -> Digest:
    """A manifest as no client of today pushes one, with a tag."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    digest = digest_of(body)
    write_new(c.blob(digest), body)
    write_new(c.revision(repository, digest), digest.encode())
    write_new(c.tag(repository, tag), digest.encode())
    write_new(
        c.manifests(repository) / "tags" / tag / "index" / digest.replace(":", "/") / "link", digest.encode()
    )
    return Digest(digest)


ALL_OF_BASE = ("app:1.0", "app:2.0", "app:moved", "team/multi:1")

Damage = Callable[[Contents], list[tuple[Code, Severity, Path, tuple[str, ...]]]]
DAMAGES: dict[str, Damage] = {}


def damage(function: Damage) -> Damage:
    DAMAGES[function.__name__] = function
    return function


@damage
def nothing(_c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    return []


@damage
def corrupt_layer(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    flip(c.blob(c.base))
    return [(Code.BLOB_CORRUPT, ERROR, c.blob(c.base), ALL_OF_BASE)]


@damage
def corrupt_spare(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    flip(c.blob(c.spare))
    return [(Code.BLOB_CORRUPT, ERROR, c.blob(c.spare), ())]


@damage
def corrupt_layer_of_sha512(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    blob = c.blob(digest_of(b"pushed by SHA-512"))
    flip(blob)
    return [(Code.BLOB_CORRUPT, ERROR, blob, ("long:1",))]


@damage
def truncated_layer(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    rewrite(c.blob(c.own), b"only")
    return [(Code.BLOB_CORRUPT, ERROR, c.blob(c.own), ("app:1.0",))]


@damage
def empty_layer(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    rewrite(c.blob(c.own), b"")
    return [(Code.BLOB_EMPTY, ERROR, c.blob(c.own), ("app:1.0",))]


@damage
def empty_layer_just_now(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    c.blob(c.own).write_bytes(b"")
    return [(Code.BLOB_EMPTY, ERROR, c.blob(c.own), ("app:1.0",))]


@damage
def corrupt_manifest(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    flip(c.blob(c.child))
    return [(Code.MANIFEST_CORRUPT, ERROR, c.blob(c.child), ("team/multi:1",))]


@damage
def empty_manifest(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    rewrite(c.blob(c.first), b"")
    return [(Code.MANIFEST_CORRUPT, ERROR, c.blob(c.first), ("app:1.0",))]


@damage
def no_manifest(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    add_manifest(c, "app", b"this is no JSON", "odd")
    digest = add_manifest(c, "app", b"this is no JSON", "odd")
    return [(Code.MANIFEST_INVALID, ERROR, c.blob(digest), ("app:odd",))]


@damage
def missing_layer(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    shutil.rmtree(c.blob(c.base).parent)
    return [(Code.BLOB_MISSING, ERROR, c.blob(c.base), ALL_OF_BASE)]


@damage
def missing_layer_with_folder(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    c.blob(c.own).unlink()
    age(c.blob(c.own).parent)
    return [(Code.BLOB_MISSING, ERROR, c.blob(c.own), ("app:1.0",))]


@damage
def missing_spare(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    shutil.rmtree(c.blob(c.spare).parent)
    return [(Code.LAYER_DANGLING, NOTE, c.layer("app", c.spare), ())]


@damage
def missing_manifest(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    shutil.rmtree(c.blob(c.child).parent)
    return [(Code.REVISION_DANGLING, ERROR, c.revision("team/multi", c.child), ("team/multi:1",))]


@damage
def wrong_size(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    layer = c.store.blob("app", b"of another size than they say")
    c.blob(layer["digest"]).parent.mkdir(parents=True)
    write_new(c.blob(layer["digest"]), b"of another size than they say")
    write_new(c.layer("app", layer["digest"]), layer["digest"].encode())
    document = json.loads(c.store.content(c.first))
    add_manifest(c, "app", {**document, "layers": [{**layer, "size": 7}]}, "odd")
    return [(Code.BLOB_SIZE, ERROR, c.blob(layer["digest"]), ("app:odd",))]


@damage
def folder_for_blob(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    c.blob(c.own).unlink()
    c.blob(c.own).mkdir()
    age(c.blob(c.own).parent)
    return [(Code.NOT_A_FILE, ERROR, c.blob(c.own), ("app:1.0",))]


@damage
def empty_blob_folder(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    folder = c.blob(digest_of(b"not there")).parent
    folder.mkdir(parents=True)
    age(folder)
    return [(Code.BLOB_FOLDER_EMPTY, NOTE, folder, ())]


@damage
def misplaced_blob(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    value = c.spare.partition(":")[2]
    folder = c.data / "blobs/sha256/zz" / value
    write_new(folder / "data", b"anything")
    return [(Code.BLOB_MISPLACED, WARNING, folder, ())]


@damage
def stray_folder_among_blobs(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    write_new(c.data / "blobs/md5/aa/aa/data")
    return [(Code.STRAY, WARNING, c.data / "blobs/md5", ())]


@damage
def stray_file_among_links(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    stray = c.revision("app", c.first).with_name("note.txt")
    write_new(stray)
    return [(Code.STRAY, NOTE, stray, ())]


@damage
def leftover_of_a_registry(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    leftover = c.tag("app", "1.0").with_name("link.0123.tmp")
    write_new(leftover)
    return [(Code.LEFTOVER, NOTE, leftover, ())]


@damage
def torn_tag(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    rewrite(c.tag("app", "1.0"), b"")
    return [(Code.LINK_TORN, ERROR, c.tag("app", "1.0"), ("app:1.0",))]


@damage
def torn_revision(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    rewrite(c.revision("app", c.first), c.first.encode()[:40])
    return [(Code.LINK_TORN, ERROR, c.revision("app", c.first), ("app:1.0",))]


@damage
def torn_revision_just_now(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    c.revision("app", c.first).write_bytes(b"")
    return [(Code.LINK_TORN, ERROR, c.revision("app", c.first), ("app:1.0",))]


@damage
def torn_layer(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    rewrite(c.layer("app", c.base), b"")
    return [(Code.LINK_TORN, ERROR, c.layer("app", c.base), ("app:1.0", "app:2.0", "app:moved"))]


@damage
def torn_history(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    path = c.manifests("app") / "tags/moved/index" / c.first.replace(":", "/") / "link"
    rewrite(path, b"")
    return [(Code.LINK_TORN, WARNING, path, ())]


@damage
def link_to_something_else(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    rewrite(c.layer("app", c.own), c.base.encode())
    return [(Code.LINK_MISMATCH, ERROR, c.layer("app", c.own), ("app:1.0",))]


@damage
def tag_without_current(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    shutil.rmtree(c.tag("app", "1.0").parent)
    folder = c.manifests("app") / "tags/1.0"
    age(folder)
    return [(Code.TAG_WITHOUT_CURRENT, ERROR, folder, ("app:1.0",))]


@damage
def dangling_tag(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    lost = digest_of(b"not there")
    rewrite(c.tag("app", "1.0"), lost.encode())
    return [(Code.TAG_DANGLING, ERROR, c.tag("app", "1.0"), ("app:1.0",))]


@damage
def tag_of_a_lost_link(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    shutil.rmtree(c.revision("app", c.first).parent)
    return [(Code.TAG_DANGLING, ERROR, c.tag("app", "1.0"), ("app:1.0",))]


@damage
def tag_of_no_name(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    folder = c.manifests("app") / "tags/-odd"
    write_new(folder / "current/link", c.first.encode())
    return [(Code.TAG_NAME, WARNING, folder, ())]


@damage
def repository_of_no_name(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    folder = c.data / "repositories/Capital"
    shutil.copytree(c.data / "repositories/long", folder)
    return [(Code.REPOSITORY_NAME, WARNING, folder, ())]


@damage
def lost_link_of_a_layer(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    shutil.rmtree(c.layer("team/multi", c.base).parent)
    return [(Code.LAYER_UNLINKED, ERROR, c.layer("team/multi", c.base), ("team/multi:1",))]


@damage
def lost_link_of_a_child(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    shutil.rmtree(c.revision("team/multi", c.child).parent)
    return [(Code.CHILD_UNLINKED, ERROR, c.revision("team/multi", c.child), ("team/multi:1",))]


@damage
def deleted_child(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    c.revision("team/multi", c.child).unlink()
    return [(Code.CHILD_DELETED, NOTE, c.revision("team/multi", c.child), ("team/multi:1",))]


@damage
def symbolic_link(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    link = c.data / "repositories/elsewhere"
    link.symlink_to(c.root)
    return [(Code.SYMLINK, WARNING, link, ())]


@damage
def schema1(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    digest = add_manifest(c, "app", {"schemaVersion": 1, "fsLayers": [{"blobSum": c.base}]}, "old")
    return [(Code.SCHEMA1, WARNING, c.revision("app", digest), ())]


@damage
def subject_missing(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    document = json.loads(c.store.content(c.first))
    subject = {"mediaType": document["mediaType"], "digest": digest_of(b"gone"), "size": 4}
    digest = add_manifest(c, "app", {**document, "subject": subject}, "sbom")
    return [(Code.SUBJECT_MISSING, NOTE, c.revision("app", digest), ())]


@damage
def sparse_index(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    document = json.loads(c.store.content(c.listing))
    child = {**document["manifests"][0], "digest": digest_of(b"never pushed")}
    document["manifests"].append(child)
    digest = add_manifest(c, "team/multi", document, "sparse")
    return [(Code.CHILD_MISSING, NOTE, Path(f"team/multi@{digest}"), ())]


def referrer_tag(suffix: str) -> Damage:
    def apply(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
        tag = f"{digest_of(b'gone').replace(':', '-')}{suffix}"
        write_new(c.tag("app", tag), c.first.encode())
        write_new(
            c.manifests("app") / "tags" / tag / "index" / c.first.replace(":", "/") / "link", c.first.encode()
        )
        return [(Code.REFERRER_WITHOUT_IMAGE, NOTE, c.tag("app", tag), ())]

    return apply


DAMAGES.update({f"referrer_tag{suffix}": referrer_tag(suffix) for suffix in ("", ".sig", ".att", ".sbom")})


@damage
def no_layers(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    add_manifest(c, "bare", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}, "1")
    return [(Code.REPOSITORY_WITHOUT_LAYERS, WARNING, c.data / "repositories/bare", ())]


@damage
def no_manifests(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    write_new(c.layer("half", c.base), c.base.encode())
    return [(Code.LAYERS_WITHOUT_MANIFESTS, NOTE, c.data / "repositories/half", ())]


@damage
def old_upload(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    upload = c.data / "repositories/app/_uploads/1234"
    write_new(upload / "data", b"some")
    write_new(upload / "startedat", b"2026-01-02T03:04:05Z")
    age(upload, 8 * 86400)
    return [(Code.UPLOAD_OLD, NOTE, upload, ())]


@damage
def invalid_upload(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    upload = c.data / "repositories/app/_uploads/1234"
    write_new(upload / "data", b"some")
    return [(Code.UPLOAD_INVALID, NOTE, upload, ())]


@damage
def own_leftovers(c: Contents) -> list[tuple[Code, Severity, Path, tuple[str, ...]]]:
    places = [".dockyard-aside/0123", ".dockyard-removed-0123", ".dockyard-gc", ".dockyard-quarantine/1"]
    for place in places:
        (c.data / place).mkdir(parents=True)
    (c.data / ".dockyard-deleted-tags").write_text("")
    (c.root / ".dockyard-old").mkdir()
    return [
        *((Code.OWN_LEFTOVER, NOTE, c.data / place, ()) for place in places),
        (Code.OWN_LEFTOVER, NOTE, c.root / ".dockyard-old", ()),
    ]


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_is_found_and_nothing_else(contents: Contents, name: str) -> None:
    before = found(look(contents.root))
    expected = [
        Expected(code, severity, str(path), breaks)
        for code, severity, path, breaks in DAMAGES[name](contents)
    ]
    report = look(contents.root)
    known = [item for item in found(report) if item in before and item not in expected]
    hidden = set(before) - set(found(report))
    assert sorted(expected) == [item for item in found(report) if item not in known]
    assert not hidden
    assert report.is_healthy == all(item.severity is not ERROR for item in expected)


def test_every_code_has_a_damage_that_shows_it() -> None:
    covered: set[Code] = set()
    for name, apply in DAMAGES.items():
        with tempfile.TemporaryDirectory(prefix="dockyard-") as folder:
            contents = make_contents(Path(folder) / name)
            covered.update(code for code, *_rest in apply(contents))
    # Owners, and files that cannot be read, have tests of their own; the last is only seen over HTTP.
    assert set(Code) - covered == {Code.ACCESS, Code.UNREADABLE, Code.MANIFEST_MISSING}


# What is sound


def by_severity(report: Report) -> list[Expected]:
    """All but the notes."""
    return [item for item in found(report) if item.severity is not NOTE]


@on_stores
@given(SEEDS)
def test_a_sound_store_is_healthy(seed: int) -> None:
    rng = random.Random(seed)
    store = sample_store(rng) if seed % 3 == 0 else random_store(rng, 30)
    bare = {name for name, model in store.repositories.items() if model.revisions and not model.layers}
    with tempfile.TemporaryDirectory(prefix="dockyard-") as folder:
        write_store(Path(folder), store)
        report = look(Path(folder))
    assert report.is_healthy
    assert {item.code for item in by_severity(report)} <= {Code.REPOSITORY_WITHOUT_LAYERS}
    assert {Path(item.path).name for item in by_severity(report)} <= bare
    assert report.counts.hashed_blobs == report.counts.blobs == len(store.blobs)
    assert report.counts.hashed_bytes == report.counts.bytes == sum(map(len, store.blobs.values()))
    assert report.counts.reachable_bytes + report.counts.unreachable_bytes == report.counts.bytes


def test_what_a_registry_has_written_is_healthy(registry: RegistryProcess) -> None:
    push(registry.url, sample_store(random.Random(1)))
    push(registry.url, random_store(random.Random(2)))
    report = look(registry.data, uid=os.getuid(), gid=os.getgid())
    assert by_severity(report) == []
    assert report.counts.hashed_blobs == report.counts.blobs > 0


def test_an_empty_registry_is_healthy(tmp_path: Path) -> None:
    assert found(look(tmp_path)) == []


def test_pushes_and_deletions_meanwhile_are_no_damage(registry: RegistryProcess) -> None:
    push(registry.url, sample_store(random.Random(1)))
    stop = threading.Event()
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        number = 0
        while not stop.is_set() and number < 200:
            store = random_store(random.Random(seed + number), 15)
            number += 1
            # Each in repositories of its own, so that the steps of one do not disturb those of another.
            for step in store.steps:
                if stop.is_set():
                    return
                renamed = step._replace(repository=f"w{seed}/{number}/{step.repository}")
                single = Store()
                single.steps = [renamed]
                single._contents, single.media_types = store._contents, store.media_types
                try:
                    push(registry.url, single)
                except BaseException as error:
                    failures.append(error)
                    return

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1000, 2000)]
    for thread in threads:
        thread.start()
    try:
        reports = [check(Storage(registry.data)) for _ in range(6)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert reports[-1].counts.blobs > reports[0].counts.blobs
    for report in reports:
        assert {item.code for item in by_severity(report)} <= {Code.REPOSITORY_WITHOUT_LAYERS}, render(report)


def test_a_manifest_that_is_being_written_is_no_damage(contents: Contents) -> None:
    """Registries up to 3.0 write a manifest in place: it is there with nothing in it, then with half of it."""
    path, body = contents.blob(contents.first), contents.store.content(contents.first)

    def write_slowly(stop: threading.Event) -> None:
        while not stop.wait(0.005):
            with path.open("wb") as file:
                for begin in range(0, len(body), 100):
                    file.write(body[begin : begin + 100])
                    file.flush()
                    time.sleep(0.001)
            time.sleep(0.02)

    stop = threading.Event()
    thread = threading.Thread(target=write_slowly, args=(stop,))
    thread.start()
    try:
        reports = [check(Storage(contents.root)) for _ in range(5)]
    finally:
        stop.set()
        thread.join()
    assert all(report.is_healthy for report in reports)


# What cannot be read


def test_blobs_links_and_manifests_that_the_disk_does_not_give(contents: Contents) -> None:
    """A bad sector is a finding, and the rest is looked at all the same."""
    bad = [
        contents.blob(contents.own),
        contents.blob(contents.listing),
        contents.layer("app", contents.base),
        contents.tag("app", "2.0"),
    ]
    flip(contents.blob(contents.spare))
    report = look_with_bad_sectors(contents.root, bad)
    assert sorted((item["code"], item["path"], item["breaks"]) for item in report) == sorted(
        [
            ("unreadable", str(bad[0]), ["app:1.0"]),
            ("unreadable", str(bad[1]), ["team/multi:1"]),
            ("unreadable", str(bad[2]), ["app:1.0", "app:moved"]),
            ("unreadable", str(bad[3]), ["app:2.0"]),
            ("blob-corrupt", str(contents.blob(contents.spare)), []),
        ]
    )


_LOOK = """
import json, sys
from pathlib import Path
from ansible_collections.dockyard.registry.plugins.module_utils._check import check, Options
from ansible_collections.dockyard.registry.plugins.module_utils._storage import Storage
report = check(Storage(sys.argv[1]), Options())
found = [(item.code.value, item.path, list(item.breaks)) for item in report.findings if item.severity.value != "note"]
print(json.dumps([dict(zip(("code", "path", "breaks"), item)) for item in found]))
"""


def look_with_bad_sectors(root: Path, bad: list[Path]) -> list[dict[str, Any]]:
    """Check in a process for which reading these files fails as a broken disk's do."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed: it makes the system calls fail")
    paths = [argument for path in bad for argument in ("-P", str(path))]
    calls = "read,pread64,preadv,preadv2"
    done = subprocess.run(
        [
            *("strace", "-f", "-qq", "-o", "/dev/null", *paths, "-e", f"inject={calls}:error=EIO"),
            *(sys.executable, "-c", _LOOK, str(root)),
        ],
        env={**os.environ, "PYTHONPATH": f"{COLLECTIONS}:{CHECKOUT}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    result: list[dict[str, Any]] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("whose", ["owner", "group", "others"])
def test_what_the_registry_may_not_use(contents: Contents, whose: str) -> None:
    for folder, _folders, files in os.walk(contents.root):
        for name in (".", *files):
            os.chown(Path(folder, name), 1234, 1234)
    user = {"owner": (1234, 1), "group": (1, 1234), "others": (1, 1)}[whose]
    shift = {"owner": 6, "group": 3, "others": 0}[whose]
    grant(contents.root, 0o7 << shift)
    options = {"uid": user[0], "gid": user[1], "content": Which.NONE}
    before = found(look(contents.root, **options))
    blob, link = contents.blob(contents.base), contents.tag("app", "1.0")
    links, repository = (
        contents.layer("team/multi", contents.base).parent,
        contents.data / "repositories/long",
    )
    blob.chmod(0o7777 & ~(0o4 << shift))
    link.chmod(0o7777 & ~(0o2 << shift))
    links.chmod(0o7777 & ~(0o1 << shift))
    repository.chmod(0o7777 & ~(0o2 << shift))
    report = found(look(contents.root, **options))
    assert [item for item in report if item not in before] == sorted(
        [
            Expected(Code.ACCESS, ERROR, str(blob), ALL_OF_BASE),
            Expected(Code.ACCESS, ERROR, str(link), ("app:1.0",)),
            Expected(Code.ACCESS, ERROR, str(links), ("team/multi:1",)),
            Expected(Code.ACCESS, ERROR, str(repository), ("long:1",)),
        ]
    )


def grant(root: Path, mode: int) -> None:
    for folder, _folders, files in os.walk(root):
        for name in (".", *files):
            Path(folder, name).chmod(mode)


def test_a_store_of_another_owner_is_one_finding(contents: Contents) -> None:
    grant(contents.root, 0o700)
    report = look(contents.root, uid=1234, gid=1234, content=Which.NONE)
    access = [item for item in report.findings if item.code is Code.ACCESS]
    folders = ["", "docker", "docker/registry", "docker/registry/v2"]
    assert [item.path for item in access] == [str(contents.root / folder).rstrip("/") for folder in folders]
    assert "things below it" in access[-1].detail


# Reading


def test_only_what_changed_is_read_and_what_was_found_is_said_again(
    contents: Contents, tmp_path: Path
) -> None:
    state = tmp_path / "maintenance/check-state"
    flip(contents.blob(contents.own))
    first = look(contents.root, state=state)
    again = look(contents.root, content=Which.CHANGED, state=state)
    assert found(again) == found(first)
    assert [item.code for item in again.findings if item.severity is ERROR] == [Code.BLOB_CORRUPT]
    assert again.counts.hashed_blobs == 0
    assert again.counts.unchanged_blobs == first.counts.blobs
    # Another file in its place, with the time and size of the old one, as a push or a restore may make it.
    blob = contents.blob(contents.own)
    status = blob.stat()
    fresh = blob.with_name("fresh")
    fresh.write_bytes(b"only in 1.0")
    os.utime(fresh, ns=(status.st_atime_ns, status.st_mtime_ns))
    fresh.rename(blob)
    healed = look(contents.root, content=Which.CHANGED, state=state)
    assert healed.is_healthy
    assert healed.counts.hashed_blobs == 1
    assert look(contents.root, content=Which.CHANGED, state=state).counts.hashed_blobs == 0
    assert state.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("harm", ["cut", "other", "bits", "empty"])
def test_a_damaged_state_is_no_state(contents: Contents, tmp_path: Path, harm: str) -> None:
    state = tmp_path / "check-state"
    first = look(contents.root, state=state)
    body = state.read_bytes()
    harmed = {"cut": body[:-50], "other": b"x" + body, "empty": b"", "bits": body[:60] + b"\xff" + body[61:]}
    state.write_bytes(harmed[harm])
    again = look(contents.root, content=Which.CHANGED, state=state)
    assert again.counts.hashed_blobs == first.counts.blobs
    assert look(contents.root, content=Which.CHANGED, state=state).counts.hashed_blobs == 0


def test_what_changed_a_moment_ago_is_read_again(contents: Contents, tmp_path: Path) -> None:
    os.utime(contents.blob(contents.own))
    state = tmp_path / "check-state"
    look(contents.root, state=state)
    assert look(contents.root, content=Which.CHANGED, state=state).counts.hashed_blobs == 1


def test_without_content_sizes_still_tell(contents: Contents) -> None:
    rewrite(contents.blob(contents.own), b"longer than it was before")
    report = look(contents.root, content=Which.NONE)
    assert [(item.code, item.breaks) for item in report.findings if item.severity is ERROR] == [
        (Code.BLOB_SIZE, ("app:1.0",))
    ]
    assert report.counts.hashed_blobs == 0


def test_a_large_blob_in_pieces(contents: Contents) -> None:
    rng = random.Random(1)
    body = rng.randbytes(3 * 1024 * 1024 + 17)
    digest = digest_of(body)
    write_new(contents.blob(digest), body)
    assert look(contents.root, threads=4).is_healthy
    flip(contents.blob(digest))
    report = look(contents.root, threads=4)
    assert [item.path for item in report.findings if item.code is Code.BLOB_CORRUPT] == [
        str(contents.blob(digest))
    ]


def test_the_rate_is_kept_over_all_threads() -> None:
    rate = Rate(1_000_000)
    begin = time.monotonic()

    def take() -> None:
        for _ in range(10):
            rate.take(10_000)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The first piece is free; that it is slower on a busy machine is no failure.
    assert time.monotonic() - begin >= 0.39


def test_what_was_in_memory_stays_there(contents: Contents) -> None:
    body = random.Random(1).randbytes(4 * 1024 * 1024)
    paths = []
    for number in range(2):
        piece = body + bytes([number])
        paths.append(contents.blob(digest_of(piece)))
        write_new(paths[-1], piece)
        with paths[-1].open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    hot, cold = paths
    hot.read_bytes()
    if is_in_memory(cold):
        pytest.skip("this file system keeps all in memory")
    look(contents.root)
    assert is_in_memory(hot)
    assert not is_in_memory(cold)


def is_in_memory(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            # This look may itself begin to read there, which must not be where the check looks.
            return bool(os.preadv(file.fileno(), [bytearray(1)], 5 * 1024 * 1024 // 2, os.RWF_NOWAIT))
        except OSError:
            return False


def test_bad_options(contents: Contents) -> None:
    for options in ({"threads": 0}, {"rate": -1}):
        with pytest.raises(RegistryError, match="positive"):
            look(contents.root, **options)


def test_people_can_read_it(contents: Contents, tmp_path: Path) -> None:
    flip(contents.blob(contents.base))
    text = render(look(contents.root))
    assert "app:1.0, app:2.0, app:moved and 1 more" in text
    assert "DAMAGED: 1 error" in text
    assert text.splitlines()[0].split() == ["SEVERITY", "CODE", "BREAKS", "PATH", "DETAIL"]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "healthy: nothing found" in render(look(empty))
