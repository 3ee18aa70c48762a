# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives: what is written is read again, also by tar; what is damaged or made up is refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils._archive import (
    BLOBS,
    DATA,
    END,
    HEADER,
    INVENTORY,
    Archive,
    ArchiveError,
    ArchiveWriter,
    Compression,
    Encryption,
    Written,
    archive_suffix,
    blob_of,
    iterate,
    read_header,
    read_inventory,
    read_sidecar,
    safe_members,
)
from ansible_collections.dockyard.registry.plugins.module_utils._reference import Digest

CREATED = 1_769_860_800.0
PUSHED = 1_700_000_000.25
LINK = f"{DATA}repositories/app/_manifests/tags/1.0/current/link"
CONTENTS = [
    b"",
    b"small",
    random.Random(1).randbytes(3 * 1024 * 1024 + 5),
    random.Random(2).randbytes(9 << 20),
]


def digests() -> list[tuple[Digest, bytes]]:
    return sorted((Digest.of(content), content) for content in CONTENTS)


def write(
    folder: Path,
    *,
    compression: Compression = Compression.NONE,
    encryption: Encryption | None = None,
    name: str = "registry",
) -> Written:
    suffix = archive_suffix(compression, encryption)
    with ArchiveWriter(
        folder, name + suffix, {"name": name}, created=CREATED, compression=compression, encryption=encryption
    ) as writer:
        writer.add_json(INVENTORY, {"blobs": {digest: len(content) for digest, content in digests()}})
        writer.add_file("config/config.yml", b"version: 0.1\n", CREATED, 0o640)
        writer.add_file(LINK, digests()[0][0].encode(), PUSHED)
        for digest, content in digests():
            writer.add_blob(digest, len(content), io.BytesIO(content), CREATED)
        return writer.finish({"dropped": ["app:gone"]}, {"kind": "full"})


def contents(path: Path, identity: str | None = None) -> dict[str, tuple[float, int, bytes]]:
    return {
        member.path: (member.mtime, member.mode, member.stream.read())
        for member in iterate(path, identity=identity)
    }


def expected() -> dict[str, tuple[float, int, bytes]]:
    return {
        "config/config.yml": (CREATED, 0o640, b"version: 0.1\n"),
        LINK: (PUSHED, 0o600, digests()[0][0].encode()),
        **{
            f"{BLOBS}sha256/{digest.hex[:2]}/{digest.hex}/data": (CREATED, 0o644, content)
            for digest, content in digests()
        },
    }


@pytest.fixture(scope="module")
def age_identity(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The file of a key, and its recipient."""
    path = tmp_path_factory.mktemp("age") / "key"
    done = subprocess.run(["age-keygen", "-o", str(path)], capture_output=True, text=True, check=True)
    return path, done.stderr.split()[-1]


@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("encrypted", [False, True])
def test_what_is_written_is_read_again(
    tmp_path: Path, compression: Compression, encrypted: bool, age_identity: tuple[Path, str]
) -> None:
    identity, recipient = age_identity
    encryption = Encryption("age", (recipient,)) if encrypted else None
    written = write(tmp_path, compression=compression, encryption=encryption)

    assert contents(written.path, str(identity) if encrypted else None) == expected()
    content = written.path.read_bytes()
    assert (written.size, written.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    sidecar = read_sidecar(written.path)
    assert sidecar is not None
    assert (sidecar["sha256"], sidecar["size"], sidecar["kind"]) == (written.sha256, written.size, "full")
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        written.path.name,
        f"{written.path.name}.json",
    ]
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


def test_gpg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    made = ["gpg", "--batch", "--passphrase", "", "--quick-generate-key", "backup@example.org"]
    subprocess.run(made, check=True, capture_output=True)
    written = write(tmp_path, encryption=Encryption("gpg", ("backup@example.org",)))
    assert contents(written.path) == expected()
    subprocess.run(["gpgconf", "--kill", "all"], check=True, capture_output=True)


def test_the_records(tmp_path: Path) -> None:
    path = write(tmp_path).path
    assert read_header(path)["created"] == "2026-01-31T12:00:00Z"
    assert read_inventory(path)["blobs"] == {digest: len(content) for digest, content in digests()}
    with Archive.open(path) as archive:
        unread = [member.path for member in archive.members()]
        assert sorted(unread) == sorted(expected())
        assert archive.end["dropped"] == ["app:gone"]


def test_tar_restores_it(tmp_path: Path) -> None:
    path = write(tmp_path).path
    subprocess.run(["tar", "-xf", str(path), "-C", str(tmp_path)], check=True)
    for name, (mtime, _mode, content) in expected().items():
        assert (tmp_path / name).read_bytes() == content
        assert (tmp_path / name).stat().st_mtime == mtime


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.GZIP])
def test_the_same_content_gives_the_same_archive(tmp_path: Path, compression: Compression) -> None:
    sums = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        sums.add(write(tmp_path / name, compression=compression).sha256)
    assert len(sums) == 1


# Writing that fails


def test_a_blob_with_other_content(tmp_path: Path) -> None:
    digest = Digest.of(b"x" * 5_000_000)
    with (  # noqa: PT012
        pytest.raises(ArchiveError, match="not what its digest says"),
        ArchiveWriter(tmp_path, "x.tar", {}, created=CREATED) as writer,
    ):
        writer.add_blob(digest, 5_000_000, io.BytesIO(b"y" * 5_000_000), CREATED)
        writer.finish({}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("length", [0, 4_999_999, 5_000_001])
def test_a_blob_of_another_size(tmp_path: Path, length: int) -> None:
    digest = Digest.of(b"x" * 5_000_000)
    with (
        pytest.raises(ArchiveError, match="has not the 5000000 bytes"),
        ArchiveWriter(tmp_path, "x.tar", {}, created=CREATED) as writer,
    ):
        writer.add_blob(digest, 5_000_000, io.BytesIO(b"x" * length), CREATED)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("compression", list(Compression))
def test_a_full_disk(tmp_path: Path, compression: Compression) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)], check=True)
    try:
        with pytest.raises(ArchiveError, match="No space left on device; free some space"):
            write(tmp_path, compression=compression)
        assert not list(tmp_path.iterdir())
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize(
    ("encryption", "message"),
    [
        (Encryption("age", ()), "there are no recipients"),
        (Encryption("rot13", ("x",)), "use age or gpg"),
        (Encryption("age", ("nonsense",)), "age: .*nonsense"),
    ],
)
def test_encryption_that_cannot_work(tmp_path: Path, encryption: Encryption, message: str) -> None:
    with pytest.raises(ArchiveError, match=message):
        write(tmp_path, encryption=encryption)
    assert not list(tmp_path.iterdir())


def test_a_program_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ArchiveError, match="run zstd: this host has no such program"):
        write(tmp_path, compression=Compression.ZSTD)
    assert not list(tmp_path.iterdir())


# Reading what is damaged

Change = Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]


def rewritten(path: Path, change: Change) -> Path:
    """The archive after `change` of its list of members."""
    with tarfile.open(path) as tar:
        members = []
        for info in tar:
            content = tar.extractfile(info)
            assert content is not None
            members.append((info, content.read()))
    change(members)
    target = path.with_name(f"changed-{path.name}")
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        for info, body in members:
            if info.isreg():
                info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return target


def place_of(members: list[tuple[tarfile.TarInfo, bytes]], path: str) -> int:
    return next(place for place, (info, _body) in enumerate(members) if info.name == path)


def put(path: str, body: bytes, before: str = "config/config.yml", **fields: object) -> Change:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        info = tarfile.TarInfo(path)
        for name, value in fields.items():
            setattr(info, name, value)
        members.insert(place_of(members, before), (info, body))

    return change


def replace(path: str, body: bytes) -> Change:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        place = place_of(members, path)
        members[place] = (members[place][0], body)

    return change


def remove(path: str) -> Change:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        del members[place_of(members, path)]

    return change


def swap_blobs(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    last = len(members) - 2
    members[last], members[last - 1] = members[last - 1], members[last]


def twice(path: str) -> Change:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        members.insert(place_of(members, path), members[place_of(members, path)])

    return change


BLOB = f"{BLOBS}sha256/{digests()[1][0].hex[:2]}/{digests()[1][0].hex}/data"
OTHER = json.dumps({"program": "something else", "format": 1}).encode()
NEWER = json.dumps({"program": "dockyard.registry", "format": 2, "collection_version": "9.0.0"}).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("../etc/passwd", b""), "no safe path"),
        (put("config/../../etc/passwd", b""), "no safe path"),
        (put("/etc/passwd", b""), "no safe path"),
        (put("config//x", b""), "no safe path"),
        (put("config/a\nb", b""), "no safe path"),
        (put("config/x", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "a link"),
        (put("config/x", b"", type=tarfile.LNKTYPE, linkname="config/config.yml"), "a link"),
        (put("config/x", b"", type=tarfile.CHRTYPE), "no plain file"),
        (put("config/x", b"", type=tarfile.BLKTYPE), "no plain file"),
        (put("config/x", b"", type=tarfile.FIFOTYPE), "no plain file"),
        (put("config/x", b"", pax_headers={"mtime": "nan"}), "no plain file"),
        (put("etc/passwd", b""), "which no backup does"),
        (put(f"{DATA}../../../../etc/passwd", b""), "no safe path"),
        (put(f"{BLOBS}sha256/00/11/data", b""), "which no backup does"),
        (put("config/x", b"x"), "not what its sum"),
        (put("config/x", b"x", before=END), "comes after blobs"),
        (replace("config/config.yml", b"version: 0.2\n"), "config.yml is not what its sum"),
        (replace(INVENTORY, b"{}"), "inventory.json is not what its sum"),
        (replace(INVENTORY, b"[]"), "no object"),
        (replace(INVENTORY, b"{"), "no JSON"),
        (remove(INVENTORY), "inventory.json is not where"),
        (remove("config/config.yml"), "config.yml is not what its sum"),
        (remove(BLOB), "it holds 7 files and says 8"),
        (remove(END), "cut off"),
        (lambda members: members.append(members[2]), "comes after its end record"),
        (remove(HEADER), "no backup of this collection"),
        (replace(HEADER, OTHER), "not written by dockyard.registry"),
        (replace(HEADER, NEWER), "its format is 2.*use the collection's version 9.0.0"),
        (replace(BLOB, b"damaged"), "not what its digest says"),
        (twice(BLOB), "not in its order, or in it twice"),
        (swap_blobs, "not in its order"),
        (twice("config/config.yml"), "in it twice"),
    ],
)
def test_archives_that_are_refused(tmp_path: Path, change: Change, message: str) -> None:
    path = rewritten(write(tmp_path).path, change)
    with pytest.raises(ArchiveError, match=message):
        contents(path)


def leave_alone(_members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    pass


def test_a_rewritten_archive_is_accepted(tmp_path: Path) -> None:
    # Else the test above would prove nothing.
    assert contents(rewritten(write(tmp_path).path, leave_alone)) == expected()


@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.97, 0.999])
def test_archives_that_are_cut_off(tmp_path: Path, compression: Compression, share: float) -> None:
    path = write(tmp_path, compression=compression).path
    # Behind the end record a tar file has only zeros.
    last = path.stat().st_size - (10240 if compression is Compression.NONE else 1)
    os.truncate(path, int(last * share))
    with pytest.raises(ArchiveError, match=r"cut off|damaged|no backup|zstd:|where it should be"):
        contents(path)


@pytest.mark.parametrize("compression", list(Compression))
def test_any_changed_byte_is_noticed(tmp_path: Path, compression: Compression) -> None:
    path = write(tmp_path, compression=compression).path
    good = path.read_bytes()
    rng = random.Random(7)
    for _ in range(20):
        # Not the zeros at the end, and not what pads the last block.
        place = rng.randrange(len(good) - 12000)
        damaged = bytearray(good)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            assert contents(path) == expected()  # a bit that means nothing, such as an owner's number
        except ArchiveError:
            continue


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"\0" * 20480, gzip.compress(b"hello"), b"\x28\xb5\x2f\xfd"],
    ids=["empty", "text", "zeroes", "gzip", "zstd"],
)
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match=r"x\.tar: (it is no|it is damaged|zstd)"):
        read_header(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no such file"):
        read_header(tmp_path / "missing.tar")
    with pytest.raises(ArchiveError, match="it is no file"):
        read_header(tmp_path)
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(ArchiveError, match="it is no file"):
        read_header(tmp_path / "pipe.tar")


def test_a_key_that_is_missing_or_another_one(tmp_path: Path, age_identity: tuple[Path, str]) -> None:
    path = write(tmp_path, encryption=Encryption("age", (age_identity[1],))).path
    with pytest.raises(ArchiveError, match="name the file with the key"):
        read_header(path)
    other = tmp_path / "other"
    subprocess.run(["age-keygen", "-o", str(other)], capture_output=True, check=True)
    with pytest.raises(ArchiveError, match=r"age: .*identit"):
        read_header(path, identity=str(other))


def test_a_name_without_an_end_is_not_read_into_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 1 << 33
    path = tmp_path / "bomb.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))
    with pytest.raises(ArchiveError, match="a name of 8589934592 bytes"):
        read_header(path)


def test_members_of_an_archive_of_tar_itself(tmp_path: Path) -> None:
    folder = tmp_path / "registry" / "data"
    folder.mkdir(parents=True)
    (folder / ("long" * 40)).write_bytes(b"content")
    subprocess.run(["tar", "-czf", str(tmp_path / "x.tgz"), "-C", str(tmp_path), "./registry"], check=True)

    def found() -> Iterator[tuple[str, bytes]]:
        with gzip.open(tmp_path / "x.tgz") as stream:
            for member in safe_members("x.tgz", stream):
                yield member.path, member.stream.read()

    assert list(found()) == [(f"./registry/data/{'long' * 40}", b"content")]


@pytest.mark.parametrize(
    ("path", "digest"),
    [
        (f"{BLOBS}sha256/ab/ab{'0' * 62}/data", f"sha256:ab{'0' * 62}"),
        (f"{BLOBS}sha256/00/ab{'0' * 62}/data", None),
        (f"{BLOBS}sha256/ab/ab{'0' * 61}/data", None),
        (f"{BLOBS}sha256/ab/ab{'0' * 62}/data/x", None),
        (f"{BLOBS}md5/ab/ab{'0' * 62}/data", None),
        (f"{DATA}repositories/blobs/sha256/ab/ab{'0' * 62}/data", None),
    ],
)
def test_paths_of_blobs(path: str, digest: str | None) -> None:
    assert blob_of(path) == digest
