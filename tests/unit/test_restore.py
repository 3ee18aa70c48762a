# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restoring on real registries: whole, broken off at every step, onto full disks, from evil archives."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from ansible_collections.dockyard.registry.plugins.module_utils import _backup
from ansible_collections.dockyard.registry.plugins.module_utils._archive import (
    DATA,
    END,
    HEADER,
    INVENTORY,
    ArchiveError,
    Compression,
    Encryption,
)
from ansible_collections.dockyard.registry.plugins.module_utils._client import RegistryClient, Unauthorized
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._journal import Journal
from ansible_collections.dockyard.registry.plugins.module_utils._reference import Digest
from ansible_collections.dockyard.registry.plugins.module_utils._restore import (
    Request,
    RestoreError,
    recover,
    run,
)
from ansible_collections.dockyard.registry.plugins.module_utils._storage import Storage

from tests.support.modules import run_module
from tests.support.processes import run_killed_at, start_python
from tests.support.registry import RegistryProcess, hash_password
from tests.support.service import ProcessService, as_service
from tests.support.store import Store, fill, push, sample_store, verify, write_store

PUSHED = 1_700_000_000.25


class Site(NamedTuple):
    """A registry as on a host: root/{data,auth,config.yml}, and a folder with backups."""

    root: Path
    registry: RegistryProcess
    service: ProcessService
    backups: Path
    client: RegistryClient

    @property
    def data(self) -> Path:
        return self.registry.data

    def back_up(self, **options: Any) -> str:
        request = _backup.Request(
            data=str(self.data), root=str(self.root), folder=str(self.backups), **options
        )
        return Path(_backup.run(request)["file"]).name

    def request(self, backup: str, **options: Any) -> Request:
        return Request(root=str(self.root), backup=backup, folder=str(self.backups), **options)

    def restore(self, backup: str, **options: Any) -> dict[str, Any]:
        return run(self.request(backup, **options), self.service, self.client)


@contextmanager
def site_of(registry: RegistryProcess, auth: tuple[str, str] | None = None) -> Iterator[Site]:
    root = registry.config.parent
    user, password = auth or (None, None)
    with (
        as_service(registry) as service,
        RegistryClient(registry.url, username=user, password=password, retries=0) as client,
    ):
        yield Site(root, registry, service, root.with_name(f"{root.name}-backups"), client)


@pytest.fixture
def site(registry: RegistryProcess) -> Iterator[Site]:
    with site_of(registry) as made:
        yield made


@pytest.fixture
def filled(site: Site) -> tuple[Site, Store]:
    return site, fill(site.registry.url, 1)


def tree(root: Path) -> dict[str, str]:
    """Everything below a folder: path to kind, mode, time and sum. Locks and logs of the test are left out."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        when = status.st_mtime_ns if content else 0
        found[str(path.relative_to(root))] = f"{status.st_mode:o} {when} {content}"
    return {
        name: text
        for name, text in found.items()
        if name not in ("registry.log", "registry.pid", "maintenance")
    }


def change(site: Site) -> Store:
    """Push something more to a registry with the sample store, and return the model of all of it."""
    store = sample_store(random.Random(1))
    begin = len(store.steps)
    store.image("app", [b"another layer"], tag="1.0")
    store.image("new", [b"new layer"], tag="1")
    push(site.registry.url, store, begin=begin)
    return store


# Whole


def test_everything_comes_back(filled: tuple[Site, Store]) -> None:
    site, store = filled
    link = site.data / "docker/registry/v2/repositories/app/_manifests/tags/1.0/current/link"
    os.utime(link, (PUSHED, PUSHED))
    backup = site.back_up()
    change(site)
    result = site.restore(backup)
    assert link.stat().st_mtime == PUSHED
    assert result["difference"]["removed"] == ["new:1"]
    assert result["difference"]["changed"] == ["app:1.0"]
    assert result["difference"]["added"] == []
    assert result["notes"] == []
    found = verify(site.registry.url, store)
    assert found.tags == sum(len(one.tags) for one in store.repositories.values())
    assert "new" not in list(site.client.repositories())
    assert not Journal(site.root, "restore").path.exists()
    assert [path.name for path in site.root.iterdir() if "dockyard" in path.name] == []


def test_other_history_of_tags_and_owner_come_back(filled: tuple[Site, Store]) -> None:
    site, _store = filled
    before = {
        path.relative_to(site.data): (path.read_bytes(), path.stat().st_mtime)
        for path in site.data.glob("docker/registry/v2/repositories/*/_manifests/tags/*/*/**/link")
    }
    os.chown(site.data, 1234, 1235)
    site.data.chmod(0o750)
    site.restore(site.back_up())
    after = {
        path.relative_to(site.data): (path.read_bytes(), path.stat().st_mtime)
        for path in site.data.glob("docker/registry/v2/repositories/*/_manifests/tags/*/*/**/link")
    }
    assert after.keys() == before.keys()
    for path, (content, when) in after.items():
        assert content == before[path][0]
        assert when == pytest.approx(before[path][1], abs=1e-5)
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in [site.data, *site.data.rglob("*")]}
    assert owners == {(1234, 1235)}
    assert site.data.stat().st_mode & 0o7777 == 0o750


@pytest.mark.parametrize("compression", list(Compression))
def test_chain_restores_as_one(filled: tuple[Site, Store], compression: Compression) -> None:
    site, store = filled
    full = site.back_up(compression=compression)
    more = Store()
    more.image("later", [b"a layer of later"], tag="1")
    push(site.registry.url, more)
    incremental = site.back_up(kind=_backup.Kind.INCREMENTAL, compression=compression)
    empty(site)
    result = site.restore("latest")
    assert result["kind"] == "incremental"
    assert result["chain"] == [incremental, full]
    verify(site.registry.url, store)
    verify(site.registry.url, more)


def age_key(path: Path) -> str:
    """Make a key; returns its recipient."""
    made = subprocess.run(["age-keygen", "-o", str(path)], capture_output=True, text=True, check=True)
    return made.stderr.split()[-1]


@contextmanager
def gpg_keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A keyring of its own, empty; in a folder whose name the socket of its agent has room for."""
    with tempfile.TemporaryDirectory(prefix="dockyard-gpg-") as home, monkeypatch.context() as patch:
        patch.setenv("GNUPGHOME", home)
        try:
            yield
        finally:
            subprocess.run(["gpgconf", "--kill", "all"], check=True)


@pytest.mark.parametrize("compression", list(Compression))
def test_chain_encrypted_with_age(
    filled: tuple[Site, Store], tmp_path: Path, compression: Compression
) -> None:
    site, store = filled
    encryption = Encryption("age", (age_key(tmp_path / "key"),))
    full = site.back_up(compression=compression, encryption=encryption)
    store = change(site)
    incremental = site.back_up(kind=_backup.Kind.INCREMENTAL, compression=compression, encryption=encryption)
    empty(site)
    before = tree(site.root)
    age_key(tmp_path / "another")
    for identity, message in [
        (None, r"name the file with the key \(identity\)"),
        ("absent", "there is no file .*absent with the key"),
        ("another", "age: .*no identity matched"),
    ]:
        with pytest.raises(ArchiveError, match=message):
            site.restore("latest", identity=str(tmp_path / identity) if identity else None)
        assert tree(site.root) == before
    result = site.restore("latest", identity=str(tmp_path / "key"))
    assert result["chain"] == [incremental, full]
    assert result["notes"] == []
    verify(site.registry.url, store)


def empty(site: Site) -> None:
    """Lose all data."""
    site.service.stop()
    subprocess.run(["rm", "-rf", str(site.data / "docker")], check=True)
    site.service.start()


def test_chain_encrypted_with_gpg(filled: tuple[Site, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose keys gpg finds by itself."""
    site, store = filled
    with gpg_keys(monkeypatch):
        key = ["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", "backup@example.org"]
        subprocess.run([*key, "future-default", "default", "never"], capture_output=True, check=True)
        encryption = Encryption("gpg", ("backup@example.org",))
        full = site.back_up(compression=Compression.GZIP, encryption=encryption)
        store = change(site)
        incremental = site.back_up(kind=_backup.Kind.INCREMENTAL, encryption=encryption)
        empty(site)
        before = tree(site.root)
        with gpg_keys(monkeypatch), pytest.raises(ArchiveError, match=r"gpg: .*[Nn]o secret key"):
            site.restore("latest")
        assert tree(site.root) == before
        result = site.restore("latest")
    assert result["chain"] == [incremental, full]
    assert result["notes"] == []
    verify(site.registry.url, store)


def test_repository_without_layers_can_be_garbage_collected(site: Site) -> None:
    """Registry 3.x ends its garbage collection where the folder is missing, and archives have no empty ones."""
    body = json.dumps(
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}
    ).encode()
    digest = Digest.of(body, "sha256")
    storage = Storage(site.data)
    blob = Path(storage.blob_path(digest))
    blob.parent.mkdir(parents=True)
    blob.write_bytes(body)
    storage.write_revision("only/indexes", digest)
    storage.write_tag("only/indexes", "1", digest)
    site.restore(site.back_up())
    assert Path(storage.layers_path("only/indexes")).is_dir()
    site.service.stop()
    assert site.service.garbage_collect(dry_run=True).code == 0
    site.service.start()


def test_old_data_is_kept_when_asked(filled: tuple[Site, Store]) -> None:
    site, _store = filled
    backup = site.back_up()
    change(site)
    before = tree(site.data)
    kept = site.restore(backup, keep_old=True)["kept"]
    assert tree(Path(kept)) == before


def test_onto_a_fresh_host(
    filled: tuple[Site, Store], registry_factory: Callable[..., RegistryProcess]
) -> None:
    site, store = filled
    backup = site.back_up()
    with site_of(registry_factory()) as other:
        result = other.restore(str(site.backups / backup))
        assert result["difference"]["removed"] == []
        verify(other.registry.url, store)


def test_empty_registry_comes_back_empty(site: Site) -> None:
    backup = site.back_up()
    store = Store()
    store.image("new", [b"new layer"], tag="1")
    push(site.registry.url, store)
    os.chown(site.data, 1234, 1235)
    site.restore(backup)
    assert list(site.client.repositories()) == []
    assert {path.stat().st_uid for path in [site.data, *site.data.rglob("*")]} == {1234}
    push(site.registry.url, store)


def test_a_stopped_registry_stays_stopped(filled: tuple[Site, Store]) -> None:
    site, store = filled
    backup = site.back_up()
    site.service.stop()
    site.restore(backup)
    assert not site.service.is_running()
    site.service.start()
    verify(site.registry.url, store)


def test_check_mode_says_it_and_touches_nothing(filled: tuple[Site, Store]) -> None:
    site, _store = filled
    backup = site.back_up()
    change(site)
    before = tree(site.root)
    result = site.restore(backup, check_mode=True)
    assert tree(site.root) == before
    assert result["difference"]["removed"] == ["new:1"]
    assert result["difference"]["blobs_removed"] >= 3
    assert "new:1@sha256:" in result["diff"]["before"]
    assert "new:1@sha256:" not in result["diff"]["after"]


@pytest.mark.parametrize("prefix", ["registry/", "./registry/", "srv/some/where/registry/"])
def test_tar_made_by_hand(filled: tuple[Site, Store], tmp_path: Path, prefix: str) -> None:
    site, store = filled
    (site.root / "auth").mkdir(exist_ok=True)
    (site.root / "auth/htpasswd").write_text(f"alice:{hash_password('x')}\n", encoding="ascii")
    archive = tmp_path / "by-hand.tgz"
    site.service.stop()
    move = f"s,^,{prefix},"
    subprocess.run(
        ["tar", "-czf", archive, "-C", site.root, f"--transform={move}", "auth", "data", "config.yml"],
        check=True,
    )
    site.service.start()
    change(site)
    (site.root / "auth/htpasswd").unlink()
    result = site.restore(str(archive), parts=["data", "users"])
    assert result["kind"] == "by hand"
    assert result["parts"] == ["data", "users", "config"]
    verify(site.registry.url, _without_uploads(store))
    assert (site.root / "auth/htpasswd").read_text(encoding="ascii").startswith("alice:$2")


def _without_uploads(store: Store) -> Store:
    for repository in store.repositories.values():
        repository.uploads.clear()
    return store


def test_corrupt_blob_in_a_tar_made_by_hand(filled: tuple[Site, Store], tmp_path: Path) -> None:
    site, store = filled
    digest = store.repositories["app"].current("1.0")
    layer = json.loads(store.content(digest))["layers"][1]["digest"]
    blob = site.data / f"docker/registry/v2/blobs/sha256/{layer[7:9]}/{layer[7:]}/data"
    blob.write_bytes(b"x" * blob.stat().st_size)
    archive = tmp_path / "by-hand.tar"
    subprocess.run(["tar", "-cf", archive, "-C", site.root, "data"], check=True)
    before = tree(site.root)
    with pytest.raises(RestoreError, match=f"blob {layer}"):
        site.restore(str(archive))
    assert tree(site.root) == before
    result = site.restore(str(archive), allow_damage=True)
    assert any(layer in note for note in result["notes"])
    assert not blob.exists()
    # A push heals what is missing.
    push(site.registry.url, store)


# Parts besides the data


def test_users_come_back_but_our_own_stays(registry_factory: Callable[..., RegistryProcess]) -> None:
    registry = registry_factory(auth={"alice": "a", "maintenance": "old"})
    with site_of(registry, ("maintenance", "new")) as site:
        fill(registry.url, 2, auth=("alice", "a"))
        backup = site.back_up()
        registry.write_users({"bob": "b", "maintenance": "new"})
        future = registry.htpasswd.stat().st_mtime_ns + 10**12
        os.utime(registry.htpasswd, ns=(future, future))
        site.restore(backup, parts=["users"], own_user="maintenance")
        assert registry.htpasswd.stat().st_mtime_ns > future
        assert site.client.ping() == 200
        with RegistryClient(registry.url, username="alice", password="a") as alice:
            assert alice.ping() == 200
        with RegistryClient(registry.url, username="bob", password="b") as bob:
            assert bob.ping() == 401


def test_not_let_in_is_said_before_anything_is_touched(
    registry_factory: Callable[..., RegistryProcess],
) -> None:
    registry = registry_factory(auth={"alice": "a"})
    fill(registry.url, 2, auth=("alice", "a"))
    with site_of(registry, ("alice", "wrong")) as site:
        backup = site.back_up()
        before = tree(site.root)
        with pytest.raises(Unauthorized):
            site.restore(backup)
        assert tree(site.root) == before


def test_registry_that_does_not_come_back_gets_its_old_contents(filled: tuple[Site, Store]) -> None:
    site, _store = filled
    good = site.registry.config.read_bytes()
    place = site.root / "config/config.yml"
    place.parent.mkdir()
    # As on a host, where the configuration has a folder.
    bad = {**yaml.safe_load(good), "storage": {"nonsense": {}}}
    place.write_text(yaml.safe_dump(bad), encoding="ascii")
    backup = site.back_up()
    site.registry.config.unlink()
    site.registry.config.symlink_to("config/config.yml")
    place.write_bytes(good)
    extra = change(site)
    before = tree(site.root)
    with pytest.raises(RestoreError, match="former contents are in their place"):
        site.restore(backup, parts=["data", "config"])
    assert yaml.safe_load(place.read_bytes()) == yaml.safe_load(good)
    after = tree(site.root)
    for files in (before, after):
        del files["config/config.yml"]  # its time moved forward
    assert after == before
    assert site.service.is_running()
    verify(site.registry.url, extra)


# Broken off

_RESTORE = """
from pathlib import Path
from ansible_collections.dockyard.registry.plugins.module_utils._client import RegistryClient
from ansible_collections.dockyard.registry.plugins.module_utils._restore import Request, recover, run
from tests.support.service import ProcessService
service = ProcessService(Path({root!r}), {binary!r})
"""
_RUN = """
run(
    Request(root={root!r}, backup={backup!r}, folder={backups!r}, parts={parts!r}, keep_old={keep!r}),
    service,
    RegistryClient({url!r}),
)
"""
_RECOVER = "recover({root!r}, service)\n"


def _code(site: Site, backup: str, action: str, *, parts: list[str], keep: bool = False) -> str:
    return (_RESTORE + action).format(
        root=str(site.root),
        binary=site.registry.binary,
        backup=backup,
        backups=str(site.backups),
        url=site.registry.url,
        parts=parts,
        keep=keep,
    )


_STEPS = [
    *(("os.rename", count) for count in range(1, 8)),
    ("os.remove", 1),
    ("shutil.rmtree", 1),
    ("os.kill", 1),
    ("subprocess.Popen", 1),
]


_KILLS = [*((*step, False) for step in _STEPS), *(("os.rename", n, True) for n in (7, 8))]
# Among the swaps.
_WORST_KILL = ("os.rename", 5, False)


@pytest.mark.parametrize(
    ("event", "count", "keep"),
    [pytest.param(*kill, marks=[] if kill == _WORST_KILL else pytest.mark.slow) for kill in _KILLS],
)
def test_killed_at_any_step(filled: tuple[Site, Store], event: str, count: int, keep: bool) -> None:
    site, store = filled
    (site.root / "auth").mkdir()
    users = site.root / "auth/htpasswd"
    restored = f"alice:{hash_password('x')}\n"
    users.write_text(restored, encoding="ascii")
    backup = site.back_up()
    users.write_text("# somebody has changed it\n", encoding="ascii")
    extra = change(site)
    code = _code(site, backup, _RUN, parts=["data", "users"], keep=keep)
    process = start_python(code, signal_at=event, count=count)
    output, errors = process.communicate(timeout=120)
    if process.returncode == 0:
        pytest.skip(f"{event} does not come {count} times")
    assert process.returncode == -9, f"{output}\n{errors}"
    told = recover(str(site.root), site.service)
    is_finished = "new" not in list(site.client.repositories())
    if told:
        assert is_finished == ("worked already" in told[0])
    assert recover(str(site.root), site.service) == []
    assert site.service.is_running()
    if is_finished:
        verify(site.registry.url, store)
        assert users.read_text(encoding="ascii") == restored
    else:
        verify(site.registry.url, extra)
        assert users.read_text(encoding="ascii") == "# somebody has changed it\n"
    left = [path.name for path in site.root.iterdir() if ".dockyard-" in path.name]
    assert len(left) == (1 if keep and is_finished else 0), left
    # What a journal that was being written left, the next one removes.
    assert not list((site.root / "maintenance").glob("[!.]*"))


@pytest.mark.parametrize("count", [2, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 3))])
def test_recovery_that_is_killed_goes_on(filled: tuple[Site, Store], count: int) -> None:
    site, _store = filled
    backup = site.back_up()
    extra = change(site)
    # Just before the journal says that the new data has answered: both folders have changed places.
    run_killed_at("os.rename", _code(site, backup, _RUN, parts=["data"]), count=5)
    recovery = _code(site, backup, _RECOVER, parts=["data"])
    start_python(recovery, signal_at="os.rename", count=count).communicate(timeout=120)
    recover(str(site.root), site.service)
    verify(site.registry.url, extra)
    assert not Journal(site.root, "restore").path.exists()


# Full disks


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[None]:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "dockyard-test", folder], check=False)
    if mounted.returncode:
        pytest.skip("this user may not mount a tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [("size=8m", "it needs [0-9]+ bytes"), ("size=300m,nr_inodes=120", "No space left")],
    ids=["bytes", "inodes"],
)
def test_full_disk(filled: tuple[Site, Store], tmp_path: Path, options: str, message: str) -> None:
    site, _store = filled
    backup = site.back_up()
    disk = tmp_path / "disk"
    disk.mkdir()
    with small_disk(disk, options):
        (disk / "data").mkdir()
        few = Store()
        few.image("app", [b"few"], tag="1")
        write_store(disk / "data", few)
        before = tree(disk)
        with pytest.raises(RegistryError, match=message):
            run(Request(root=str(disk), backup=backup, folder=str(site.backups)), site.service, site.client)
        assert tree(disk) == before


def test_data_that_is_a_file_system_of_its_own(filled: tuple[Site, Store], tmp_path: Path) -> None:
    site, store = filled
    backup = site.back_up()
    root = tmp_path / "root"
    (root / "data").mkdir(parents=True)
    settings = yaml.safe_load(site.registry.config.read_text(encoding="utf-8"))
    settings["storage"]["filesystem"]["rootdirectory"] = str(root / "data")
    (root / "config.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    site.service.stop()
    service = ProcessService(root, site.registry.binary)
    with small_disk(root / "data", "size=300m"):
        service.start()
        try:
            few = Store()
            few.image("few", [b"few"], tag="1")
            push(site.registry.url, few)
            request = Request(root=str(root), backup=backup, folder=str(site.backups))
            run(request, service, site.client)
            verify(site.registry.url, store)
            assert os.listdir(root / "data") == ["docker"]  # noqa: PTH208
        finally:
            service.stop()


# Evil and broken archives


def _header(**changes: Any) -> bytes:
    header = {
        "program": "dockyard.registry",
        "format": 1,
        "name": "evil.tar",
        "kind": "full",
        "parent": None,
        "created": "2026-01-01T00:00:00Z",
        "parts": ["data"],
    }
    return json.dumps({**header, **changes}).encode()


_NOTHING = json.dumps({"repositories": {}, "blobs": {}}).encode()
_LINK = f"{DATA}repositories/app/_layers/sha256/{'0' * 64}/link"


def _end(files: dict[str, bytes]) -> bytes:
    sums = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    return json.dumps({"dropped": [], "files": len(files), "sums": sums}).encode()


def _write_tar(path: Path, files: dict[str, bytes], *special: tarfile.TarInfo) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if name == END:
                for one in special:
                    tar.addfile(one)
            tar.addfile(info, io.BytesIO(content))
        if END not in files:
            for one in special:
                tar.addfile(one)


def _special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


def _ours(extra: dict[str, bytes] | None = None, **header: Any) -> dict[str, bytes]:
    files = {HEADER: _header(**header), INVENTORY: _NOTHING, **(extra or {})}
    return {**files, END: _end(files)}


def _without_end(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name != END}


_BAD_SUM = {**_ours({_LINK: b"sha256:" + b"0" * 64}), _LINK: b"sha256:" + b"1" * 64}
_BAD_BLOB = _ours({f"{DATA}blobs/sha256/00/{'0' * 64}/data": b"not that"})
_HAND = "registry/data/docker/registry/v2/repositories/app/_layers/sha256"

EVIL: dict[str, tuple[dict[str, bytes], list[tarfile.TarInfo]]] = {
    "upwards": (_ours({f"{DATA}../../../../evil": b"x"}), []),
    "absolute": (_ours({"/tmp/evil": b"x"}), []),
    "symbolic link": (_ours(), [_special(f"{DATA}repositories/app", tarfile.SYMTYPE, "/etc")]),
    "hard link": (_ours(), [_special(_LINK, tarfile.LNKTYPE, "/etc/passwd")]),
    "device": (_ours(), [_special(_LINK, tarfile.CHRTYPE)]),
    "pipe": (_ours(), [_special(_LINK, tarfile.FIFOTYPE)]),
    "elsewhere": (_ours({"somewhere/else": b"x"}), []),
    "no end": (_without_end(_ours()), []),
    "wrong sum": (_BAD_SUM, []),
    "wrong blob": (_BAD_BLOB, []),
    "other program": (_ours(program="another"), []),
    "newer format": (_ours(format=2), []),
    "missing parent": (_ours(kind="incremental", parent="gone-20260101T000000Z-full.tar"), []),
    "parent elsewhere": (_ours(kind="incremental", parent="../../evil.tar"), []),
    "no inventory": ({HEADER: _header()}, []),
    "evil inventory": ({**_ours(), INVENTORY: b'{"repositories": {"../x": {}}, "blobs": {}}'}, []),
    "nothing of a registry": ({"some/file": b"x"}, []),
    "by hand, upwards": ({f"{_HAND}/../../../../../../../../../evil": b"x"}, []),
    "by hand, absolute": ({f"/{_HAND}/x": b"x"}, []),
    "by hand, link": ({f"{_HAND}/x": b"x"}, [_special(f"{_HAND}/y", tarfile.SYMTYPE, "/etc/passwd")]),
    "by hand, device": ({f"{_HAND}/x": b"x"}, [_special(f"{_HAND}/y", tarfile.BLKTYPE)]),
    "by hand, two registries": ({f"{_HAND}/x": b"x", f"other/{_HAND}/x": b"x"}, []),
}


@pytest.mark.parametrize("kind", EVIL)
def test_evil_archive_is_refused_before_anything_is_touched(
    filled: tuple[Site, Store], tmp_path: Path, kind: str
) -> None:
    site, store = filled
    files, special = EVIL[kind]
    archive = tmp_path / "evil.tar"
    _write_tar(archive, files, *special)
    before = tree(tmp_path), tree(site.root)
    with pytest.raises(RegistryError) as caught:
        site.restore(str(archive))
    assert (tree(tmp_path), tree(site.root)) == before
    assert "Traceback" not in str(caught.value)
    verify(site.registry.url, store)


@pytest.mark.parametrize("by_hand", [False, True])
def test_archive_cut_off_anywhere(filled: tuple[Site, Store], tmp_path: Path, by_hand: bool) -> None:
    site, _store = filled
    if by_hand:
        whole = tmp_path / "whole.tar"
        subprocess.run(["tar", "-cf", whole, "-C", site.root, "data"], check=True)
    else:
        whole = site.backups / site.back_up()
    content = whole.read_bytes()
    before = tree(site.root)
    rng = random.Random(7)
    # At random, and between two files, where a tar archive could well end.
    lengths = {rng.randrange(1, len(content) - 20_000) for _ in range(6)}
    lengths |= {length // 512 * 512 for length in lengths if length > 512}
    cut = tmp_path / "cut.tar"
    for length in lengths:
        cut.write_bytes(content[:length])
        with pytest.raises(RegistryError):
            site.restore(str(cut))
        assert tree(site.root) == before


def test_unknown_names_say_what_there_is(filled: tuple[Site, Store]) -> None:
    site, _store = filled
    with pytest.raises(ArchiveError, match="there are: none"):
        site.restore("latest")
    backup = site.back_up()
    with pytest.raises(ArchiveError, match=f"there are: {backup}"):
        site.restore("unknown.tar")
    with pytest.raises(RestoreError, match="it has no repository nothing; it has: app, "):
        site.restore(backup, repositories=["nothing"])
    with pytest.raises(RestoreError, match=r"there is no such tag in it; app has: 1\.0, 2\.0, latest"):
        site.restore(backup, images=["app:9"])
    with pytest.raises(RestoreError, match=r"certificates from .*: it has data"):
        site.restore(backup, parts=["data", "certificates"])


# Parts of a backup into a registry that works


def test_everything_repository_by_repository(
    filled: tuple[Site, Store], registry_factory: Callable[..., RegistryProcess]
) -> None:
    site, store = filled
    backup = site.back_up()
    with site_of(registry_factory()) as other:
        names = [name for name, one in store.repositories.items() if one.revisions]
        result = other.restore(str(site.backups / backup), repositories=names)
        assert result["restored"]["kept"] == []
        kept = {name: store.repositories[name] for name in names}
        store.repositories.clear()
        store.repositories.update(kept)
        verify(other.registry.url, store)
        again = other.restore(str(site.backups / backup), repositories=names)
        assert not again["changed"]
        assert sorted(again["restored"]["unchanged"]) == sorted(result["restored"]["tags"])


def test_deleted_tag_comes_back_with_its_signatures_while_others_push(filled: tuple[Site, Store]) -> None:
    site, store = filled
    backup = site.back_up()
    signed = store.repositories["team/signed"]
    index = store.repositories["multi"].current("1.0")
    for digest in sorted(signed.revisions):
        site.client.delete_manifest("team/signed", Digest(digest))
    site.client.delete_manifest("multi", Digest(index))
    site.service.stop()
    site.registry.garbage_collect()
    site.service.start()
    busy = Store()
    done = threading.Event()

    def push_on() -> None:
        while not done.is_set():
            begin = len(busy.steps)
            busy.image("busy", [b"layer %d" % begin], tag=f"t{begin}")
            push(site.registry.url, busy, begin=begin)

    pusher = threading.Thread(target=push_on)
    pusher.start()
    try:
        result = site.restore(backup, images=["team/signed:1.0", "multi:1.0"])
    finally:
        done.set()
        pusher.join()
    tags = result["restored"]["tags"]
    assert {"team/signed:1.0", "multi:1.0"} <= set(tags)
    assert sum(".sig" in tag or ".att" in tag or ".sbom" in tag for tag in tags) == 3
    assert site.client.resolve("team/signed", "1.0").digest == signed.current("1.0")
    only = Store()
    only.__dict__.update(store.__dict__)
    only.repositories = {"multi": store.repositories["multi"]}
    verify(site.registry.url, only)
    assert verify(site.registry.url, busy).tags > 1


def test_tag_in_the_way(filled: tuple[Site, Store]) -> None:
    site, store = filled
    backup = site.back_up()
    change(site)
    moved = site.client.resolve("app", "1.0").digest
    before = tree(site.root)
    with pytest.raises(RestoreError, match=rf"app:1\.0 points to {moved}"):
        site.restore(backup, repositories=["app"])
    assert tree(site.root) == before
    beside = site.restore(backup, repositories=["app"], as_repository="team/app-as-it-was")
    assert "team/app-as-it-was:1.0" in beside["restored"]["tags"]
    assert beside["restored"]["blobs"] == 0
    assert beside["restored"]["mounted"] > 0
    foreseen = site.restore(backup, images=["app:1.0"], overwrite=True, check_mode=True)
    assert foreseen["restored"]["tags"] == ["app:1.0"]
    assert site.client.resolve("app", "1.0").digest == moved
    site.restore(backup, images=["app:1.0"], overwrite=True)
    assert site.client.resolve("app", "1.0").digest == store.repositories["app"].current("1.0")


def test_content_by_sha512_into_a_fresh_registry(registry_factory: Callable[..., RegistryProcess]) -> None:
    store = Store()
    layer = store.blob("sha512", b"by sha512" * 1000, algorithm="sha512")
    config = store.blob("sha512", b"{}")
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
    }
    store.manifest("sha512", document, tag="1")
    with site_of(registry_factory()) as site, site_of(registry_factory()) as other:
        push(site.registry.url, store)
        other.restore(str(site.backups / site.back_up()), images=["sha512:1"])
        verify(other.registry.url, store)


# Drills


def test_drill_pulls_everything_and_leaves_nothing(filled: tuple[Site, Store]) -> None:
    site, store = filled
    backup = site.back_up()
    change(site)
    before = tree(site.root), tree(site.backups)
    result = site.restore(backup, verify=True)
    assert (tree(site.root), tree(site.backups)) == before
    assert not result["changed"]
    assert result["drill"]["tags"] == sum(len(one.tags) for one in store.repositories.values())
    assert result["drill"]["blobs"] > 20
    assert result["drill"]["bytes"] > 10_000


def test_drill_finds_a_corrupted_archive(filled: tuple[Site, Store]) -> None:
    site, store = filled
    path = site.backups / site.back_up()
    content = path.read_bytes()
    layer = max(store.blobs.values(), key=len)
    path.write_bytes(content.replace(layer, bytes([layer[0] ^ 1]) + layer[1:]))
    before = tree(site.root), tree(site.backups)
    with pytest.raises(RegistryError, match="not what its digest says"):
        site.restore(path.name, verify=True)
    assert (tree(site.root), tree(site.backups)) == before


def test_killed_drill_is_cleaned_up_by_the_next(filled: tuple[Site, Store]) -> None:
    site, _store = filled
    backup = site.back_up()
    code = _code(site, backup, _RUN.replace("keep_old=", "verify=True, keep_old="), parts=["data"])
    run_killed_at("os.utime", code, count=5)
    assert list(site.backups.glob(".dockyard-scratch-*"))
    site.restore(backup, verify=True)
    assert not list(site.backups.glob(".dockyard-scratch-*"))


# The module


def test_module(filled: tuple[Site, Store]) -> None:
    site, _store = filled
    backup = site.back_up()
    change(site)
    options = {"url": site.registry.url, "root": str(site.root), "dir": str(site.backups), "backup": backup}
    foreseen = run_module("restore", options, check=True, diff=True)
    assert foreseen["changed"]
    assert foreseen["difference"]["removed"] == ["new:1"]
    assert "new:1" in foreseen["diff"]["before"]
    refused = run_module("restore", {**options, "images": ["app:1.0"]})
    assert refused["failed"]
    assert "overwrite=true" in refused["msg"]
    lock = str(site.root / "x.lock")
    done = run_module("restore", {**options, "images": ["app:1.0"], "overwrite": True, "lock": lock})
    assert done["changed"], done
    assert done["restored"]["tags"] == ["app:1.0"]
    same = run_module("restore", {**options, "images": ["app:1.0"]})
    assert not same["changed"]


def test_sample_store_has_what_this_relies_on() -> None:
    store = sample_store(random.Random(1))
    assert {"app", "multi", "team/signed", "sha512"} <= store.repositories.keys()
