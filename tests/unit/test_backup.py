# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of real registries at work, restored by nothing but tar; and of stores that are damaged."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import urllib3
from ansible_collections.dockyard.registry.plugins.module_utils._archive import (
    DATA,
    ArchiveError,
    Compression,
    Encryption,
    iterate,
    read_header,
    read_inventory,
)
from ansible_collections.dockyard.registry.plugins.module_utils._backup import Kind, Request, run
from ansible_collections.dockyard.registry.plugins.module_utils._backup_contents import BackupError
from ansible_collections.dockyard.registry.plugins.module_utils._backup_folder import (
    Keep,
    Listed,
    choose_removed,
    clean,
    list_backups,
)
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._journal import Journal
from hypothesis import given
from hypothesis import strategies as st

from tests.support.modules import run_module
from tests.support.processes import run_killed_at, wait_for
from tests.support.registry import RegistryProcess, start_registry
from tests.support.store import (
    MANIFEST_TYPES,
    Store,
    digest_of,
    fill,
    push,
    sample_store,
    verify,
    write_store,
)

StartRegistry = Callable[..., RegistryProcess]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of a registry with one of everything, whose store write_store() wrote."""
    path = tmp_path / "registry"
    (path / "data").mkdir(parents=True)
    write_store(path / "data", sample_store(random.Random(1)))
    for name, content in {
        "compose.yml": "services: {}\n",
        "config/config.yml": "version: 0.1\n",
        "auth/htpasswd": "user:hash\n",
        "auth/.htpasswd.lock": "",
        "secrets/http": "secret\n",
        "certs/ca.key": "key\n",
    }.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(content)
    (path / "config/link").symlink_to("/etc/passwd")
    return path


def request_for(root: Path, **options: Any) -> Request:
    return Request(data=f"{root}/data", root=str(root), folder=f"{root.parent}/backups", **options)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def extract(files: Iterable[str | Path], target: Path) -> Path:
    """Restore archives with tar alone; returns the data folder."""
    target.mkdir()
    for file in files:
        subprocess.run(["tar", "-xf", str(file), "-C", str(target)], check=True)
    return target / "data"


@contextmanager
def serving(data: Path, directory: Path, binary: str) -> Iterator[RegistryProcess]:
    """A registry on restored data."""
    directory.mkdir()
    registry = start_registry(directory, binary=binary)
    registry.stop()
    registry.data.rmdir()
    data.rename(registry.data)
    registry.start()
    try:
        yield registry
    finally:
        registry.stop()


def pull_inventory(url: str, inventory: dict[str, Any]) -> int:
    """Pull and hash every tag and manifest of an inventory with all that they refer to; returns how many tags."""
    http = urllib3.PoolManager()
    accept = ",".join(MANIFEST_TYPES)
    tags = 0

    def get(path: str) -> bytes:
        answer = http.request("GET", f"{url}/v2/{path}", headers={"Accept": accept})
        assert answer.status == 200, f"{path}: {answer.status} {answer.data[:300]!r}"
        return answer.data

    for name, fields in inventory["repositories"].items():
        for tag, entry in fields["tags"].items():
            assert digest_of(get(f"{name}/manifests/{tag}")) == entry["digest"], f"{name}:{tag}"
            tags += 1
        for digest in fields["manifests"]:
            body = get(f"{name}/manifests/{digest}")
            assert digest_of(body) == digest
            document = json.loads(body)
            for descriptor in [*document.get("layers", ()), *filter(None, [document.get("config")])]:
                blob = get(f"{name}/blobs/{descriptor['digest']}")
                assert digest_of(blob, descriptor["digest"].partition(":")[0]) == descriptor["digest"]
            for child in document.get("manifests", ()):
                assert child["digest"] in fields["manifests"], f"{name}@{digest} lists {child['digest']}"
        listed = json.loads(get(f"{name}/tags/list"))["tags"] if fields["tags"] else []
        assert sorted(listed) == sorted(fields["tags"])
    return tags


# Of a registry


def test_tar_restores_all_that_was_pushed(
    registry_factory: StartRegistry, tmp_path: Path, registry_binary: str
) -> None:
    registry = registry_factory()
    store = fill(registry.url, 5)
    result = run(Request(data=str(registry.data), folder=str(tmp_path / "backups")))
    assert result["dropped"] == result["problems"] == []
    assert result["verified"]

    times = push_times(registry.data)
    data = extract([result["file"]], tmp_path / "restored")
    assert push_times(data) == times
    # Not what was deleted, and no uploads: folders that say so are no content.
    for repository in store.repositories.values():
        repository.deleted.clear()
    with serving(data, tmp_path / "again", registry_binary) as restored:
        pulled = verify(restored.url, store)
        assert pulled.tags == result["tags"] > 10
        # It is a registry as any other: it takes the same pushes again.
        push(restored.url, sample_store(random.Random(6)))


def push_times(data: Path) -> dict[str, float]:
    pattern = "**/_manifests/tags/**/link"
    found = {str(path.relative_to(data)): path.stat().st_mtime for path in data.glob(pattern)}
    assert found
    return found


@pytest.mark.slow
def test_under_load(registry_factory: StartRegistry, tmp_path: Path, registry_binary: str) -> None:
    registry = registry_factory()
    fill(registry.url, 5)
    stop = threading.Event()
    errors: list[BaseException] = []

    def work(number: int) -> None:
        # Each in a repository of its own, so that what one deletes nobody else has just mounted.
        rng = random.Random(number)
        name = f"load/{number}"
        store = Store()
        begin = 0
        try:
            while not stop.is_set():
                layers = [rng.randbytes(rng.choice([100, 3000, 200_000])) for _ in range(2)]
                if rng.random() < 0.3:
                    platforms = {"linux/amd64": layers[:1], "linux/arm64": layers[1:]}
                    image = store.multi_arch(name, platforms, tag=f"t{rng.randrange(4)}")
                else:
                    image = store.image(name, layers, tag=f"t{rng.randrange(4)}")
                if rng.random() < 0.3:
                    store.delete(name, image["digest"])
                push(registry.url, store, begin=begin)
                begin = len(store.steps)
        except BaseException as error:
            errors.append(error)
            raise

    workers = [threading.Thread(target=work, args=[number]) for number in range(3)]
    for worker in workers:
        worker.start()
    try:
        results = [
            run(Request(data=str(registry.data), folder=str(tmp_path / "backups"), kind=Kind.AUTO))
            for _ in range(6)
        ]
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    assert not errors
    assert [result["kind"] for result in results] == ["full"] + ["incremental"] * 5
    assert results[-1]["tags"] > results[0]["tags"]
    for number, result in enumerate(results):
        assert result["problems"] == []
        chain = [each["file"] for each in results[: number + 1]]
        data = extract(chain[-1:], tmp_path / f"restored-{number}")
        add_blobs(chain[:-1], data.parent)
        with serving(data, tmp_path / f"again-{number}", registry_binary) as restored:
            assert pull_inventory(restored.url, read_inventory(result["file"])) == result["tags"]


def add_blobs(files: Iterable[str], target: Path) -> None:
    """What the archives that another one builds on have and it lacks."""
    for file in files:
        # One that was made before anything new was pushed has none, which tar takes for an error.
        if any(member.path.startswith(f"{DATA}blobs/") for member in iterate(file)):
            command = ["tar", "-xf", file, "-C", str(target), "--skip-old-files", f"{DATA}blobs"]
            subprocess.run(command, check=True)


# What is in it


def members(file: str) -> dict[str, bytes]:
    return {member.path: member.stream.read() for member in iterate(file)}


def test_what_is_taken(root: Path) -> None:
    result = run(request_for(root, registry_version="2.8.3", collection_version="0.1.0"))
    found = members(result["file"])
    beside = {path for path in found if not path.startswith(DATA)}
    assert beside == {"compose.yml", "config/config.yml", "auth/htpasswd", "secrets/http"}
    assert not any("_uploads" in path or "half-pushed" in path for path in found)
    header = read_header(result["file"])
    assert header["parts"] == ["data", "config", "users", "secrets"]
    assert (header["registry_version"], header["collection_version"]) == ("2.8.3", "0.1.0")
    assert header["counts"]["tags"] == result["tags"]
    inventory = read_inventory(result["file"])
    assert inventory["repositories"]["untagged-only"]["manifests"]

    with_certificates = members(run(request_for(root, certificates=True))["file"])
    assert with_certificates.keys() - found.keys() == {"certs/ca.key"}


def test_without_untagged_manifests(root: Path) -> None:
    result = run(request_for(root, untagged=False))
    inventory = read_inventory(result["file"])
    assert "untagged-only" not in inventory["repositories"]
    # The children of an index and the referrers of an image have no tag, and stay.
    assert len(inventory["repositories"]["multi"]["manifests"]) > len(
        inventory["repositories"]["multi"]["tags"]
    )
    assert result["tags"] == run(request_for(root))["tags"]


def test_deleted_tags_can_be_brought_back_later(root: Path) -> None:
    note = f"1700000000.000 app:gone@sha256:{'0' * 64}\n"
    path = f"{DATA}.dockyard-deleted-tags"
    (root / path).write_text(note)
    (root / DATA / ".dockyard-aside").mkdir()
    found = members(run(request_for(root))["file"])
    assert found[path].decode() == note
    assert not any("aside" in name for name in found)


@pytest.mark.parametrize("compression", list(Compression))
def test_packed(root: Path, compression: Compression) -> None:
    plain = members(run(request_for(root))["file"])
    result = run(request_for(root, compression=compression, kind=Kind.FULL))
    assert members(result["file"]) == plain


def test_encrypted_chains(root: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    made = subprocess.run(["age-keygen", "-o", str(key)], capture_output=True, text=True, check=True)
    encryption = Encryption("age", (made.stderr.split()[-1],))
    first = run(request_for(root, encryption=encryption))
    # Without the key, which is not on the host.
    second = run(request_for(root, encryption=encryption, kind=Kind.INCREMENTAL))
    assert (second["carried_blobs"], second["parent"]) == (0, Path(first["file"]).name)
    assert read_header(second["file"], identity=str(key))["parent"] == second["parent"]
    assert all(one.is_complete and one.encrypted for one in list_backups(tmp_path / "backups"))


# Chains


def grow(root: Path, seed: int) -> str:
    """Push one more image, all of it new; returns its digest."""
    rng = random.Random(seed)
    store = Store()
    image = store.image(f"grown/{seed}", [rng.randbytes(500)], tag="1", config=rng.randbytes(20))
    write_store(root / "data", store)
    return str(image["digest"])


def test_a_chain(root: Path) -> None:
    first = run(request_for(root))
    grow(root, 1)
    second = run(request_for(root, kind=Kind.AUTO))
    grow(root, 2)
    third = run(request_for(root, kind=Kind.AUTO, verify_parent=True))
    assert [one["carried_blobs"] for one in (first, second, third)] == [first["blobs"], 3, 3]
    assert third["blobs"] == first["blobs"] + 6
    names = [Path(one["file"]).name for one in (first, second, third)]
    assert list_backups(root.parent / "backups")[-1].chain == tuple(names)

    branch = run(request_for(root, kind=Kind.AUTO, parent=names[0]))
    assert (branch["parent"], branch["carried_blobs"]) == (names[0], 6)
    longest = run(request_for(root, kind=Kind.AUTO, longest_chain=2))
    assert (longest["kind"], longest["parent"]) == ("full", None)
    assert "is number 2 of its chain" in longest["notes"][0]


def test_a_chain_with_a_part_missing_is_not_built_on(root: Path) -> None:
    first, second = run(request_for(root)), run(request_for(root, kind=Kind.AUTO))
    Path(first["file"]).unlink()
    listed = list_backups(root.parent / "backups")
    assert [(one.name, one.problem) for one in listed] == [
        (Path(second["file"]).name, f"it builds on {second['parent']}, which is not there")
    ]
    third = run(request_for(root, kind=Kind.AUTO))
    assert third["kind"] == "full"
    with pytest.raises(BackupError, match="which is not there"):
        run(request_for(root, kind=Kind.AUTO, parent=Path(second["file"]).name))


def test_a_damaged_parent_is_not_built_on(root: Path) -> None:
    path = Path(run(request_for(root))["file"])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BackupError, match="it is damaged; make a full backup"):
        run(request_for(root, kind=Kind.INCREMENTAL, verify_parent=True))
    assert run(request_for(root, kind=Kind.AUTO, verify_parent=True))["kind"] == "full"
    path.write_bytes(content[:-1])
    assert "should have" in list_backups(path.parent)[0].problem


def test_names_of_backups_that_are_not_there(root: Path) -> None:
    name = Path(run(request_for(root))["file"]).name
    with pytest.raises(BackupError, match=f"there are: {name}"):
        run(request_for(root, kind=Kind.AUTO, parent="unknown.tar"))


def test_nothing_to_build_on(root: Path) -> None:
    with pytest.raises(BackupError, match="no backup of this registry that it could build on; make a full"):
        run(request_for(root, kind=Kind.INCREMENTAL))


# Which are kept


@st.composite
def folders(draw: st.DrawFn) -> list[Listed]:
    """Archives as a folder may hold them, some damaged."""
    backups: list[Listed] = []
    for number in range(draw(st.integers(1, 12))):
        good = [one for one in backups if not one.problem]
        parent = draw(st.sampled_from([None, *good]))
        name = f"r-{number:02}.tar"
        chain = (*(parent.chain if parent else ()), name)
        problem = draw(st.sampled_from(["", "", "", "damaged"]))
        backups.append(
            Listed(
                name,
                Path(name),
                "incremental" if parent else "full",
                parent.name if parent else "",
                float(number),
                1,
                "",
                "host",
                "/root",
                {},
                False,
                problem,
                () if problem else chain,
            )
        )
    return draw(st.permutations(backups))


@given(
    folders(),
    st.builds(
        Keep,
        st.none() | st.integers(1, 5),
        st.none() | st.integers(1, 3),
        st.none() | st.floats(0.5, 12),
    ),
)
def test_what_is_kept_can_be_restored(backups: list[Listed], keep: Keep) -> None:
    now = 12.0
    removed = choose_removed(backups, keep, now)
    kept = {one.name for one in backups} - {one.name for one in removed}
    good = sorted((one for one in backups if not one.problem), key=lambda one: one.created)
    for one in backups:
        if one.name in kept:
            assert one.parent in {"", *kept}, "a kept one lost what it builds on"
            assert kept.issuperset(one.chain)
        else:
            assert not one.problem
            assert keep.age is None or now - one.created >= keep.age
    if good:
        assert good[-1].name in kept
    if keep.newest:
        assert kept.issuperset(one.name for one in good[-keep.newest :])
    # At every moment of the removal, too.
    gone: set[str] = set()
    for one in removed:
        gone.add(one.name)
        assert all(not gone.intersection(other.chain) for other in good if other.name not in gone)
    if keep == Keep():
        assert not removed
    elif keep.full and not keep.newest and not keep.age:
        fulls = [one.name for one in good if one.kind == "full"][-keep.full :]
        surplus = [
            one
            for one in good
            if one.name in kept and one.chain[0] not in fulls and one.name not in good[-1].chain
        ]
        held = {name for one in backups if one.problem for name in _ancestors(backups, one)}
        assert {one.name for one in surplus} <= held


def _ancestors(backups: list[Listed], one: Listed) -> set[str]:
    by_name = {each.name: each for each in backups}
    found: set[str] = set()
    while one.parent:
        found.add(one.parent)
        one = by_name[one.parent]
    return found


def test_old_ones_are_removed(root: Path) -> None:
    first = run(request_for(root))
    second = run(request_for(root, kind=Kind.AUTO))
    wanted = request_for(root, keep=Keep(newest=1))
    names = [Path(one["file"]).name for one in (first, second)]
    before = names_in(root.parent / "backups")
    assert run(wanted._replace(check_mode=True))["removed"] == names[::-1]
    assert names_in(root.parent / "backups") == before
    third = run(wanted)
    assert third["removed"] == names[::-1]
    name = Path(third["file"]).name
    assert names_in(root.parent / "backups") == [name, f"{name}.blobs", f"{name}.json"]


def test_backups_of_other_registries_are_left_alone(root: Path) -> None:
    other = Path(run(request_for(root))["file"])
    sidecar = other.with_name(f"{other.name}.json")
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "hostname": "another"}))
    result = run(request_for(root, kind=Kind.AUTO, keep=Keep(newest=1)))
    assert (result["kind"], result["removed"]) == ("full", [])
    assert other.exists()


# Damage


def blob_path(root: Path, digest: str) -> Path:
    value = digest.partition(":")[2]
    return root / DATA / "blobs/sha256" / value[:2] / value / "data"


def some_layer(root: Path, size: int) -> tuple[str, str]:
    """Push an image with a layer of `size` bytes; the layer and the tag."""
    store = Store()
    store.image("damaged", [random.Random(size).randbytes(size)], tag="1")
    write_store(root / "data", store)
    return next(digest for digest, content in store.blobs.items() if len(content) == size), "damaged:1"


def corrupt(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("size", [1000, 9_000_000])
@pytest.mark.parametrize("damage", [corrupt, replace_by_folder])
def test_a_blob_that_cannot_be_backed_up(root: Path, size: int, damage: Callable[[Path], None]) -> None:
    layer, tag = some_layer(root, size)
    damage(blob_path(root, layer))
    wanted = request_for(root)
    if damage is corrupt:
        with pytest.raises((BackupError, ArchiveError), match=layer.partition(":")[2]):
            run(wanted)
        assert not names_in(root.parent / "backups")
        result = run(wanted._replace(leave_out=True))
        assert [(one["digest"], one["needed_by"]) for one in result["left_out"]] == [(layer, [tag])]
    else:
        # The walk sees that it is missing.
        result = run(wanted)
        assert any(layer in problem for problem in result["problems"])
    assert layer not in read_inventory(result["file"])["blobs"]
    list(iterate(result["file"]))

    # A next one does not take it for backed up.
    path = blob_path(root, layer)
    if path.is_dir():
        path.rmdir()
    path.write_bytes(random.Random(size).randbytes(size))
    again = run(wanted._replace(kind=Kind.AUTO))
    assert (again["carried_blobs"], again["problems"]) == (1, [])


def test_a_blob_that_the_disk_does_not_give(root: Path, tmp_path: Path) -> None:
    layer, _tag = some_layer(root, 9_000_000)
    path = blob_path(root, layer)
    code = (
        "from ansible_collections.dockyard.registry.plugins.module_utils._backup import Request, run\n"
        f"run(Request(data={str(root / 'data')!r}, folder={str(tmp_path / 'backups')!r}))"
    )
    injected = ["strace", "-f", "-qq", "-P", str(path), "-e", "trace=read", "-e", "inject=read:error=EIO"]
    done = subprocess.run(
        [*injected, sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"ArchiveError: read {path}: Input/output error; see what the disk says" in done.stderr
    assert not names_in(tmp_path / "backups")


def test_a_tag_that_leads_nowhere_is_dropped(root: Path) -> None:
    tag = root / DATA / "repositories/app/_manifests/tags/2.0/current/link"
    value = tag.read_text().partition(":")[2]
    os.utime(tag)
    (root / DATA / f"repositories/app/_manifests/revisions/sha256/{value}/link").unlink()
    # Deleted long ago, so that nobody is about to delete the tags.
    os.utime(root / DATA / f"repositories/app/_manifests/revisions/sha256/{value}", (0, 0))
    result = run(request_for(root))
    assert result["dropped"] == ["app:2.0", "app:latest"]
    tags = read_inventory(result["file"])["repositories"]["app"]["tags"]
    assert tags.keys() == {"1.0", "moving"}
    assert not any("/app/_manifests/tags/2.0/" in path for path in members(result["file"]))


def test_torn_links_are_whole_in_the_backup(root: Path) -> None:
    path = next((root / DATA / "repositories/app/_layers/sha256").glob("*/link"))
    path.write_bytes(b"")
    os.utime(path, (0, 0))
    found = members(run(request_for(root))["file"])
    assert found[str(path.relative_to(root))].decode() == f"sha256:{path.parent.name}"


def test_a_symbolic_link_in_the_store(root: Path) -> None:
    folder = root / DATA / "repositories/app"
    folder.rename(root / "elsewhere")
    folder.symlink_to(root / "elsewhere")
    with pytest.raises(BackupError, match="app is a symbolic link"):
        run(request_for(root))


# Bad input and broken off runs


@pytest.mark.parametrize("inside", ["data", "data/backups", "data/docker/registry/v2/backups"])
def test_a_folder_inside_the_data(root: Path, inside: str) -> None:
    with pytest.raises(BackupError, match="inside the registry's data"):
        run(request_for(root)._replace(folder=str(root / inside)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folder": "relative"}, "by its whole path"),
        ({"root": "/nowhere"}, "no such folder"),
        ({"data": "/nowhere"}, "No such file"),
        ({"folder": "/dev/null/x"}, "Not a directory"),
        ({"encryption": Encryption("age", ())}, "no recipients"),
        ({"parent": "x.tar"}, "a full backup builds on nothing"),
    ],
)
def test_bad_input(root: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        run(request_for(root)._replace(**changes))
    assert not (root.parent / "backups").exists() or not names_in(root.parent / "backups")


@pytest.mark.parametrize("operation", ["garbage-collection", "restore"])
def test_maintenance_that_was_broken_off(root: Path, operation: str) -> None:
    Journal(root, operation).write({"state": "sweeping"})
    with pytest.raises(BackupError, match=r"was broken off.*run any playbook"):
        run(request_for(root))


def test_check_mode_writes_nothing(root: Path) -> None:
    would = run(request_for(root, check_mode=True))
    assert not (root.parent / "backups").exists()
    result = run(request_for(root))
    for key in ("kind", "parent", "tags", "blobs", "bytes", "carried_blobs", "carried_bytes", "removed"):
        assert would[key] == result[key]


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[None]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_no_space_is_known_before(root: Path) -> None:
    with small_disk(root.parent / "backups", 8):
        with pytest.raises(BackupError, match=r"it takes [0-9.]+ MiB \([0-9]+ bytes\) and .* are free"):
            run(request_for(root))
        assert not names_in(root.parent / "backups")


@pytest.mark.parametrize(("phase", "done"), [("write", 0), ("write", 1), ("wait for the disk", 0)])
def test_a_disk_that_gets_full_meanwhile(root: Path, phase: str, done: int) -> None:
    """While the archive is written, while the small files beside it are, and before its end."""
    some_layer(root, 6_000_000)
    with small_disk(root.parent / "backups", 40):

        def fill_up(now: str, count: int = 0, total: int = 1) -> None:
            if (now, count // total) == (phase, done):
                with open(root.parent / "backups/other", "ab", buffering=0) as file, suppress(OSError):
                    while file.write(bytes(1 << 16)):
                        pass

        # Either of the archive or of a file beside it, depending on what the threads are at.
        with pytest.raises(RegistryError, match="No space left on device; free some space"):
            run(request_for(root), fill_up)
        assert names_in(root.parent / "backups") == ["other"]
        (root.parent / "backups/other").unlink()
        assert run(request_for(root))["verified"]


def test_an_archive_that_the_disk_spoils_is_not_kept(root: Path) -> None:
    folder = root.parent / "backups"

    def spoil(phase: str, done: int = 0, total: int = 0) -> None:  # noqa: ARG001
        if phase == "wait for the disk":
            # What is written last is still to come.
            partial = next(folder.glob(".*.partial"))
            wait_for("its first MiB is written", lambda: partial.stat().st_size > 1 << 20)
            with open(partial, "r+b") as file:
                file.seek(1_000_000)
                file.write(b"spoiled")

    some_layer(root, 3_000_000)
    with pytest.raises(BackupError, match="it is removed, see what the disk says"):
        run(request_for(root), spoil)
    assert not names_in(folder)


KILLED = """
import sys
from ansible_collections.dockyard.registry.plugins.module_utils._backup import Kind, Request, run
run(Request(data={data!r}, root={root!r}, folder={folder!r}, kind=Kind.AUTO),
    lambda *progress: sys.audit("test.progress"))
"""


@pytest.mark.parametrize(
    ("event", "count"),
    # Before it gets its name, and between two blobs; all others take long.
    [("os.rename", 3), ("test.progress", 40)]
    + [
        pytest.param(event, count, marks=pytest.mark.slow)
        for event, counts in {
            "os.rename": (1, 2),
            "os.mkdir": (1,),
            "fcntl.flock": (1, 2),
            "os.scandir": (150,),
            "test.progress": (1, 2, 3, 77, 78),
        }.items()
        for count in counts
    ],
)
def test_killed(root: Path, event: str, count: int) -> None:
    folder = root.parent / "backups"
    code = KILLED.format(data=f"{root}/data", root=str(root), folder=str(folder))
    run_killed_at(event, code, count=count)
    assert not any(one.is_complete for one in list_backups(folder))
    left = set(names_in(folder)) if folder.exists() else set()
    result = run(request_for(root, kind=Kind.AUTO))
    assert (result["kind"], set(result["leftovers"])) == ("full", left)
    name = Path(result["file"]).name
    assert names_in(folder) == [name, f"{name}.blobs", f"{name}.json"]


def test_an_archive_in_writing_is_no_leftover(root: Path) -> None:
    folder = root.parent / "backups"

    def look(phase: str, done: int = 0, total: int = 0) -> None:  # noqa: ARG001
        if phase in ("write", "wait for the disk"):
            assert clean(folder) == []

    run(request_for(root), look)
    assert len(list_backups(folder)) == 1


# The modules


def test_the_modules(root: Path) -> None:
    folder = str(root.parent / "backups")
    options = {
        "data": f"{root}/data",
        "root": str(root),
        "folder": folder,
        "lock": str(root.parent / "run/r.lock"),
    }
    would = run_module("backup", options, check=True)
    assert would["changed"]
    assert would["table"].startswith(f"would write {folder}/registry-")
    assert "no backup of this registry" in would["notes"][0]
    result = run_module("backup", {**options, "keep": {"age": "30d", "count": 3}})
    assert "read again and good" in result["table"]
    info = run_module("backup_info", {"folder": folder})
    assert [one["file"] for one in info["backups"]] == [result["file"]]
    assert info["newest"] == Path(result["file"]).name
    assert info["backups"][0]["counts"]["tags"] == result["tags"]
    assert "complete" in info["table"]
    assert not (root.parent / "run/r.storage.lock").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": {"days": 3}}, "keep: days: unknown"),
        ({"keep": {"count": 0}}, "keep: count: a whole number from 1 on"),
        ({"keep": {"age": "soon"}}, "keep: age: a time such as"),
        ({"encryption": {"tool": "age"}}, "encryption: write {tool: age"),
        ({"encryption": {"tool": "rot13", "recipients": ["x"]}}, "use age or gpg"),
    ],
)
def test_options_that_make_no_sense(root: Path, options: dict[str, Any], message: str) -> None:
    result = run_module("backup", {"data": f"{root}/data", "folder": f"{root.parent}/backups", **options})
    assert result["failed"]
    assert message in result["msg"]
