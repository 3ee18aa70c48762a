# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry's layout on disk, read and changed, against what real registries make of it."""

from __future__ import annotations

import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils._client import NotFound, RegistryClient
from ansible_collections.dockyard.registry.plugins.module_utils._reference import Digest, InvalidReference
from ansible_collections.dockyard.registry.plugins.module_utils._storage import (
    MANIFEST_LIMIT,
    Blob,
    Code,
    Link,
    Problem,
    Repository,
    Storage,
    StorageError,
    Tag,
)

from tests.support.registry import RegistryProcess
from tests.support.store import (
    Store,
    digest_of,
    fill,
    push,
    random_store,
    read_tree,
    sample_store,
    verify,
    write_store,
)

Found = TypeVar("Found")
DATA = "docker/registry/v2"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def stored(root: Path, store: Store) -> Storage:
    write_store(root, store)
    return Storage(root)


def one_image() -> tuple[Store, Digest]:
    store = Store()
    return store, Digest(store.image("app", [b"layer"], tag="1.0")["digest"])


def good(found: Iterator[Found | Problem]) -> list[Found]:
    """What an iterator yields, which must be without a problem."""
    items = list(found)
    assert not [item for item in items if isinstance(item, Problem)]
    return [item for item in items if not isinstance(item, Problem)]


def everything(storage: Storage) -> Iterator[tuple[str, object]]:
    """All that the iterators of a storage yield, each with its repository or ""."""
    yield from (("", item) for item in storage.blobs())
    yield from (("", item) for item in storage.leftovers())
    for repository in storage.repositories():
        name = repository.name if isinstance(repository, Repository) else ""
        yield name, repository
        if name:
            yield from ((name, item) for item in _contents(storage, name))


def _contents(storage: Storage, name: str) -> Iterator[object]:
    yield from storage.revisions(name)
    yield from storage.layers(name)
    yield from storage.uploads(name)
    for tag in storage.tags(name):
        yield tag
        if isinstance(tag, Tag):
            yield from storage.history(name, tag.name)


def problems(storage: Storage) -> list[Problem]:
    return [item for _name, item in everything(storage) if isinstance(item, Problem)]


def make_old(path: Path) -> None:
    """Take something out of the time in which it may be in writing."""
    os.utime(path, (1, 1), follow_symlinks=False)


# What the tests stand on


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", [sample_store, random_store])
@pytest.mark.slow
def test_store_is_written_as_the_registry_writes_it(
    registry: RegistryProcess, root: Path, make: Callable[[random.Random], Store], seed: int
) -> None:
    store = make(random.Random(seed))
    push(registry.url, store)
    write_store(root, store)
    assert read_tree(root) == read_tree(registry.data)
    assert verify(registry.url, store).blobs > 0


# Reading


def test_lists_what_was_pushed(registry: RegistryProcess) -> None:
    begin = time.time() - 1
    store = fill(registry.url, 1)
    end = time.time() + 1
    storage = Storage(registry.data)
    assert {found.name for found in good(storage.repositories())} == set(store.repositories)
    for name, model in store.repositories.items():
        tags = good(storage.tags(name))
        assert [(tag.name, tag.digest) for tag in tags] == [(t, model.current(t)) for t in sorted(model.tags)]
        revisions = good(storage.revisions(name))
        assert [link.digest for link in revisions] == sorted(model.revisions)
        layers = good(storage.layers(name))
        assert {link.digest: link.target for link in layers} == model.layers
        for tag, history in model.tags.items():
            links = good(storage.history(name, tag))
            assert {link.digest for link in links} == set(history)
            assert max(links, key=lambda link: link.pushed or 0).digest == model.current(tag)
        for found in (*tags, *revisions, *layers):
            assert begin <= (found.pushed or 0) <= end
        uploads = good(storage.uploads(name))
        assert sorted(upload.size for upload in uploads) == sorted(map(len, model.uploads))
        for upload in uploads:
            assert begin <= (upload.started or 0) <= end
            assert begin <= upload.changed <= end
    assert dict(good(storage.blobs())) == {digest: len(content) for digest, content in store.blobs.items()}
    assert not list(storage.leftovers())


def test_tells_emptied_repositories_from_half_pushed_ones(registry: RegistryProcess) -> None:
    fill(registry.url, 1)
    storage = Storage(registry.data)
    found = {item.name: item for item in good(storage.repositories())}
    assert found["emptied"].manifests
    assert not good(storage.revisions("emptied"))
    assert not found["half-pushed"].manifests
    assert not found["half-pushed"].layers
    assert found["half-pushed"].uploads
    assert found["mounted"].layers
    assert not found["mounted"].uploads


def test_content_pushed_by_sha512(registry: RegistryProcess) -> None:
    store = Store()
    digest = Digest(store.blob("app", b"content", algorithm="sha512")["digest"])
    push(registry.url, store)
    canonical = Digest.of(b"content")
    links = good(Storage(registry.data).layers("app"))
    assert {(link.digest, link.target) for link in links} == {(digest, canonical), (canonical, canonical)}


def test_one_tag_and_one_revision(root: Path) -> None:
    store, digest = one_image()
    storage = stored(root, store)
    tag = storage.tag("app", "1.0")
    assert isinstance(tag, Tag)
    assert tag.digest == digest
    assert storage.tag("app", "2.0") is None
    assert storage.tag("other", "1.0") is None
    revision = storage.revision("app", digest)
    assert isinstance(revision, Link)
    assert revision.digest == digest
    assert storage.revision("app", Digest.of(b"other")) is None


def test_paths_lead_to_the_files(root: Path) -> None:
    store, digest = one_image()
    storage = stored(root, store)
    layer = Digest.of(b"layer")
    assert Path(storage.blob_path(layer)).read_bytes() == b"layer"
    for path in (
        storage.revision_path("app", digest),
        storage.tag_path("app", "1.0"),
        storage.history_path("app", "1.0", digest),
    ):
        assert Path(path).read_text() == digest
    assert Path(storage.layer_path("app", layer)).read_text() == layer


def test_reads_manifests_and_blobs(root: Path) -> None:
    store, digest = one_image()
    storage = stored(root, store)
    assert storage.read_manifest(digest) == store.content(digest)
    layer = Digest.of(b"layer")
    with storage.open_blob(layer) as file:
        assert file.read() == b"layer"
    assert storage.read_blob(layer, 5) == b"layer"
    with pytest.raises(StorageError, match="larger than 4 bytes"):
        storage.read_blob(layer, 4)
    Path(storage.blob_path(layer)).write_bytes(b"LAYER")
    with pytest.raises(StorageError, match="not what its digest says"):
        storage.read_blob(layer, 5)
    missing = Digest.of(b"missing")
    for read in (lambda: storage.open_blob(missing), lambda: storage.read_blob(missing, 5)):
        with pytest.raises(StorageError, match=missing.hex):
            read()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, Code.MANIFEST_MISSING),
        (b"", Code.MANIFEST_CORRUPT),
        (b"{}", Code.MANIFEST_CORRUPT),
        (b" " * (MANIFEST_LIMIT + 1), Code.MANIFEST_INVALID),
    ],
)
def test_damaged_manifests(root: Path, content: bytes | None, code: Code) -> None:
    store, digest = one_image()
    storage = stored(root, store)
    path = Path(storage.blob_path(digest))
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
        make_old(path)
    found = storage.read_manifest(digest)
    assert isinstance(found, Problem)
    assert (found.code, found.digest, found.path) == (code, digest, str(path))


# Damage: each kind is found, and only it

Damage = Callable[[Path, Digest], None]


def _overwrite(place: str, content: bytes) -> Damage:
    def damage(data: Path, digest: Digest) -> None:
        path = data / place.format(hex=digest.hex)
        path.write_bytes(content)
        make_old(path)

    return damage


def _add(place: str, content: bytes | None = b"") -> Damage:
    def damage(data: Path, digest: Digest) -> None:
        path = data / place.format(hex=digest.hex, other="0" * 64)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if content is None else path.write_bytes(content)
        make_old(path)

    return damage


def _replace(place: str, make: Callable[[Path], None]) -> Damage:
    def damage(data: Path, digest: Digest) -> None:
        path = data / place.format(hex=digest.hex)
        path.unlink()
        make(path)
        make_old(path.parent)
        make_old(path.parent.parent)

    return damage


def _link_out(place: str) -> Damage:
    def damage(data: Path, digest: Digest) -> None:
        path = data / place.format(hex=digest.hex)
        path.rename(data.parent / "elsewhere")
        path.symlink_to(data.parent / "elsewhere")

    return damage


APP = "repositories/app"
REVISION = f"{APP}/_manifests/revisions/sha256/{{hex}}"
TAG = f"{APP}/_manifests/tags/1.0"
EMPTY = Digest.of(b"").hex


@pytest.mark.parametrize(
    ("damage", "code", "place"),
    [
        (_overwrite(f"{REVISION}/link", b""), Code.LINK_TORN, f"{REVISION}/link"),
        (_overwrite(f"{TAG}/current/link", b""), Code.LINK_TORN, f"{TAG}/current/link"),
        (_overwrite(f"{TAG}/index/sha256/{{hex}}/link", b"sha256:ab"), Code.LINK_TORN, f"{TAG}/index"),
        (_overwrite(f"{REVISION}/link", b"\xff" * 71), Code.LINK_TORN, f"{REVISION}/link"),
        (_overwrite(f"{REVISION}/link", b"sha256:" + b"0" * 64), Code.LINK_MISMATCH, f"{REVISION}/link"),
        (_overwrite(f"{REVISION}/link", b"sha512:" + b"0" * 128), Code.LINK_MISMATCH, f"{REVISION}/link"),
        (_replace(f"{REVISION}/link", Path.mkdir), Code.NOT_A_FILE, f"{REVISION}/link"),
        (_replace(f"{TAG}/current/link", os.mkfifo), Code.NOT_A_FILE, f"{TAG}/current/link"),
        (_link_out(f"{REVISION}/link"), Code.SYMLINK, f"{REVISION}/link"),
        (_link_out(f"{TAG}/current"), Code.SYMLINK, f"{TAG}/current"),
        (_link_out(REVISION), Code.SYMLINK, REVISION),
        (_link_out(APP), Code.SYMLINK, APP),
        (_replace(f"{TAG}/current/link", lambda _path: None), Code.TAG_WITHOUT_CURRENT, TAG),
        (_add(f"{APP}/_manifests/tags/.no/current/link", b"sha256:" + b"0" * 64), Code.TAG_NAME, "tags/.no"),
        (_add("repositories/App/_layers", None), Code.REPOSITORY_NAME, "repositories/App"),
        (_add("repositories/bytes-\udcff/_layers", None), Code.REPOSITORY_NAME, "bytes-\\xff"),
        (_add(f"{APP}/_uploads/id/data", b"abc"), Code.UPLOAD_INVALID, "_uploads/id"),
        (_add(f"{APP}/_uploads/id/startedat", b"yesterday"), Code.UPLOAD_INVALID, "_uploads/id"),
        (_add(f"{APP}/_other", None), Code.STRAY, f"{APP}/_other"),
        (_add("repositories/_layers", None), Code.STRAY, "repositories/_layers"),
        (_add("repositories/notes.txt"), Code.STRAY, "repositories/notes.txt"),
        (_add(f"{APP}/_manifests/revisions/sha384", None), Code.STRAY, "revisions/sha384"),
        (_add(f"{APP}/_manifests/revisions/sha256/abc", None), Code.STRAY, "sha256/abc"),
        (_add("blobs/md5", None), Code.STRAY, "blobs/md5"),
        (_add("blobs/sha256/11/{other}/data"), Code.BLOB_MISPLACED, "sha256/11"),
        (_add("blobs/sha256/00/{other}", None), Code.BLOB_FOLDER_EMPTY, "sha256/00"),
        (_add("blobs/sha256/00/{other}/data"), Code.BLOB_EMPTY, "sha256/00"),
        (_add("blobs/sha256/00/{other}/data", None), Code.NOT_A_FILE, "sha256/00"),
        (_add(f"{REVISION}/link.1234.tmp"), Code.LEFTOVER, f"{REVISION}/link.1234.tmp"),
        (_add(f"{TAG}/current/link.1234.tmp"), Code.LEFTOVER, f"{TAG}/current"),
        (_add(f"{TAG}/backup", None), Code.STRAY, f"{TAG}/backup"),
        (_add(f"blobs/sha256/{EMPTY[:2]}/{EMPTY}/data", b""), None, ""),
    ],
)
def test_damage_is_found_and_nothing_else(root: Path, damage: Damage, code: Code | None, place: str) -> None:
    store, digest = one_image()
    # Another repository, so that the iterators have something to go on with.
    store.image("other", [b"layer"], tag="1.0")
    storage = stored(root, store)
    untouched = {(name, item) for name, item in everything(storage) if name != "app"}
    damage(root / DATA, digest)
    found = problems(storage)
    assert {problem.code for problem in found} == ({code} if code else set())
    assert all(place.format(hex=digest.hex) in problem.path for problem in found)
    assert untouched <= set(everything(storage))


def test_layer_links_of_leftovers_are_looked_at(root: Path) -> None:
    store, _digest = one_image()
    storage = stored(root, store)
    layer = Path(storage.layer_path("app", Digest.of(b"layer")))
    (layer.parent / "link.1.tmp").touch()
    blob = Path(storage.blob_path(Digest.of(b"layer")))
    (blob.parent / "data.1.tmp").touch()
    assert {problem.path for problem in storage.leftovers()} == {f"{layer}.1.tmp", f"{blob}.1.tmp"}


def test_a_link_in_writing_is_read_again(root: Path) -> None:
    """Registries up to 3.0 truncate the file first: a reader can catch it empty."""
    store, digest = one_image()
    storage = stored(root, store)
    path = Path(storage.tag_path("app", "1.0"))
    path.write_bytes(b"")
    writer = threading.Timer(0.03, path.write_text, [digest])
    writer.start()
    found = storage.tag("app", "1.0")
    writer.join()
    assert isinstance(found, Tag)
    assert found.digest == digest


# Roots


def test_a_registry_that_nobody_pushed_to(root: Path) -> None:
    (root / "lost+found").mkdir()
    storage = Storage(root)
    assert not list(storage.repositories())
    assert not list(storage.blobs())
    assert not storage.remove_repository("app")
    assert not storage.remove_blob(Digest.of(b""))


def test_a_root_that_is_none(root: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        Storage(root / "missing")
    (root / "config.yml").touch()
    with pytest.raises(StorageError, match=r"not a registry's data.*/var/lib/registry"):
        Storage(root)
    with pytest.raises(StorageError, match="Not a directory"):
        Storage(root / "config.yml")


def test_a_root_that_leads_out(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write_store(outside, one_image()[0])
    (root / "docker").symlink_to(outside / "docker")
    with pytest.raises(StorageError, match="a symbolic link in it leads out"):
        Storage(root)


def test_a_root_that_is_a_link_itself(root: Path, tmp_path: Path) -> None:
    write_store(root, one_image()[0])
    (tmp_path / "link").symlink_to(root)
    assert [found.name for found in good(Storage(tmp_path / "link").repositories())] == ["app"]


@pytest.mark.parametrize(
    "folder", ["_manifests", "_manifests/tags", "_manifests/revisions", "_manifests/tags/1.0"]
)
def test_folders_that_lead_out_are_not_followed(root: Path, tmp_path: Path, folder: str) -> None:
    store, digest = one_image()
    storage = stored(root, store)
    path = root / DATA / "repositories/app" / folder
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    before = read_tree(tmp_path / "outside")
    if folder == "_manifests/tags/1.0":
        assert [problem.code for problem in problems(storage)] == [Code.SYMLINK]
    else:
        with pytest.raises(StorageError, match="which is not followed; mount"):
            problems(storage)
    if folder != "_manifests/revisions":
        with pytest.raises(StorageError, match="write"):
            storage.write_tag("app", "1.0", digest)
    storage.remove_repository("app")
    assert read_tree(tmp_path / "outside") == before


def test_blobs_without_repositories_are_no_empty_registry(root: Path) -> None:
    storage = stored(root, one_image()[0])
    (root / DATA / "repositories").rename(root / "unmounted")
    with pytest.raises(StorageError, match="is something not mounted"):
        list(storage.repositories())


@pytest.fixture
def open_root() -> Iterator[Path]:
    """A root below folders that everybody may enter."""
    with tempfile.TemporaryDirectory(prefix="dockyard-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize(
    "place", ["repositories/app/_manifests/tags", "repositories/app/_layers/sha256", "blobs"]
)
def test_what_the_system_refuses_is_an_error(open_root: Path, place: str) -> None:
    storage = stored(open_root, one_image()[0])
    closed = open_root / DATA / place
    closed.chmod(0)
    try:
        assert str(closed) in _as_nobody(lambda: problems(storage))
    finally:
        closed.chmod(0o755)


def _as_nobody(action: Callable[[], object]) -> str:
    """The message of the StorageError that an action raises for a user without rights."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            action()
        except StorageError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as message:
        text = message.read()
    os.waitpid(child, 0)
    assert "Permission denied; run this as root" in text
    return text


# Changes


def test_a_deleted_image_can_be_brought_back(registry: RegistryProcess) -> None:
    store = fill(registry.url, 1)
    digest = Digest(store.repositories["app"].current("1.0"))
    with RegistryClient(registry.url) as client:
        client.delete_manifest("app", digest)
        with pytest.raises(NotFound):
            client.manifest("app", "1.0")
    storage = Storage(registry.data)
    begin = time.time()
    storage.write_revision("app", digest)
    storage.write_tag("app", "1.0", digest)
    verify(registry.url, store)
    tag = storage.tag("app", "1.0")
    assert isinstance(tag, Tag)
    assert begin - 1 <= (tag.pushed or 0) <= time.time() + 1
    assert [link.digest for link in good(storage.history("app", "1.0"))] == [digest]
    assert not problems(storage)


def test_a_tag_can_be_moved_back_along_its_history(registry: RegistryProcess) -> None:
    store = fill(registry.url, 1)
    earlier = Digest(store.repositories["app"].tags["moving"][0])
    storage = Storage(registry.data)
    storage.write_tag("app", "moving", earlier)
    store.tag("app", earlier, "moving")
    verify(registry.url, store)
    assert max(good(storage.history("app", "moving")), key=lambda link: link.pushed or 0).digest == earlier


def test_a_lost_layer_link_can_be_written_again(registry: RegistryProcess) -> None:
    store = fill(registry.url, 1)
    storage = Storage(registry.data)
    layer = Digest(min(store.repositories["app"].layers))
    path = Path(storage.layer_path("app", layer))
    path.unlink()
    path.parent.rmdir()
    storage.write_layer("app", layer)
    verify(registry.url, store)
    assert read_tree(registry.data)[str(path.relative_to(registry.data))] == layer.encode()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_what_is_written_belongs_to_the_owner_of_the_data(root: Path) -> None:
    store, digest = one_image()
    storage = stored(root, store)
    for folder, _folders, files in os.walk(root):
        os.chown(folder, 1234, 2345)
        Path(folder).chmod(0o2750)
        for name in files:
            os.chown(f"{folder}/{name}", 1234, 2345)
    storage.write_tag("app", "new", digest)
    storage.write_revision("brand/new", digest)
    for path in (storage.tag_path("app", "new"), storage.revision_path("brand/new", digest)):
        status = Path(path).stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1234, 2345, 0o640)
        folder_status = Path(path).parent.parent.stat()
        assert (folder_status.st_uid, folder_status.st_gid) == (1234, 2345)
        assert folder_status.st_mode & 0o7777 == 0o2750
    assert not problems(storage)


@pytest.mark.parametrize("name", ["../app", "/app", "app/../../x", "", "app/_manifests", "App"])
def test_names_that_lead_elsewhere_are_refused(root: Path, name: str) -> None:
    store, digest = one_image()
    storage = stored(root, store)
    before = read_tree(root)
    for change in (
        lambda: storage.remove_repository(name),
        lambda: storage.write_tag(name, "1.0", digest),
        lambda: storage.write_revision(name, digest),
        lambda: storage.write_layer(name, digest),
        lambda: storage.write_tag("app", "../1.0", digest),
    ):
        with pytest.raises(InvalidReference):
            change()
    assert read_tree(root) == before


def test_a_removed_repository_is_out_of_the_catalogue_at_once(registry: RegistryProcess) -> None:
    store = fill(registry.url, 1)
    storage = Storage(registry.data)
    with RegistryClient(registry.url) as client:
        assert {"emptied", "team/signed"} <= set(client.repositories())
        assert storage.remove_repository("emptied")
        assert storage.remove_repository("team/signed")
        assert not storage.remove_repository("team/signed")
        listed = set(client.repositories())
    assert not {"emptied", "team/signed"} & listed
    assert {"team", "team/signed/inner", "team/emptied"} <= listed
    del store.repositories["emptied"], store.repositories["team/signed"]
    verify(registry.url, store)
    tree = read_tree(registry.data)
    assert not any(".dockyard-removed" in path for path in tree)
    assert {path for path in tree if "/emptied" in path} == {
        path for path in tree if path.startswith(f"{DATA}/repositories/team/emptied")
    }
    assert dict(good(storage.blobs())) == {digest: len(content) for digest, content in store.blobs.items()}


def test_empty_folders_go_with_the_last_repository_in_them(root: Path) -> None:
    store = Store()
    store.image("a/b/c", [b"layer"], tag="1")
    store.image("a/d", [b"layer"], tag="1")
    storage = stored(root, store)
    storage.remove_repository("a/b/c")
    assert sorted(path.name for path in (root / DATA / "repositories/a").iterdir()) == ["d"]
    storage.remove_repository("a/d")
    assert not list((root / DATA / "repositories").iterdir())


def test_what_a_killed_removal_left_is_deleted_by_the_next(root: Path) -> None:
    store, _digest = one_image()
    storage = stored(root, store)
    left = root / DATA / ".dockyard-removed-0123" / "revisions"
    left.mkdir(parents=True)
    assert [found.name for found in good(storage.repositories())] == ["app"]
    assert not problems(storage)
    assert storage.remove_repository("app")
    assert sorted(path.name for path in (root / DATA).iterdir()) == ["blobs", "repositories"]


def test_remove_blob(root: Path) -> None:
    store, _digest = one_image()
    storage = stored(root, store)
    layer = Digest.of(b"layer")
    assert storage.remove_blob(layer)
    assert not storage.remove_blob(layer)
    del store.blobs[layer]
    assert {blob.digest for blob in good(storage.blobs())} == set(store.blobs)
    assert not problems(storage)


def test_a_removed_blob_can_be_pushed_again(registry: RegistryProcess) -> None:
    """Unlike a damaged one, which the registry keeps whatever is pushed over it."""
    store = fill(registry.url, 1)
    layer = Digest(max(store.repositories["app"].layers))
    storage = Storage(registry.data)
    Path(storage.blob_path(layer)).write_bytes(b"damage")
    storage.remove_blob(layer)
    registry.restart()
    with RegistryClient(registry.url) as client:
        assert client.push_blob("app", store.content(layer)) == layer
    verify(registry.url, store)
    assert Blob(layer, len(store.content(layer))) in good(storage.blobs())
    assert digest_of(Path(storage.blob_path(layer)).read_bytes()) == layer
