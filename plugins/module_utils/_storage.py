# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry's layout on disk. The only file of the collection that knows a path below the data folder.

    docker/registry/v2/
      blobs/<algorithm>/<hex[:2]>/<hex>/data                      layers, configs and manifests
      repositories/<name>/_layers/<algorithm>/<hex>/link
      repositories/<name>/_manifests/revisions/<algorithm>/<hex>/link
      repositories/<name>/_manifests/tags/<tag>/current/link
      repositories/<name>/_manifests/tags/<tag>/index/<algorithm>/<hex>/link
      repositories/<name>/_uploads/<uuid>/{startedat,data,hashstates/...}

A link is a file whose text is a digest. A damaged one is handed out as a Problem between the good ones, so
that nobody takes it for a missing one. What vanishes while we look (the registry goes on working) is skipped.
What the system refuses to show raises a StorageError, because a store that is read in part looks like a store
with less in it.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

from ._errors import RegistryError
from ._reference import (
    HEX_LENGTHS,
    Digest,
    InvalidReference,
    parse_reference,
    parse_repository,
    parse_tag,
)

# What the registry itself accepts as the body of a manifest.
MANIFEST_LIMIT = 4 * 1024 * 1024

_REMOVED = ".dockyard-removed"
_ASIDE = ".dockyard-aside"
_NET = ".dockyard-gc"
_DELETED_TAGS = ".dockyard-deleted-tags"
_QUARANTINE = ".dockyard-quarantine"
_OWN_PREFIX = ".dockyard-"
# With more notes than this, those are dropped whose manifest is gone.
_NOTES_LIMIT = 10_000

# Registries up to 3.0 write links and manifests in place: for a moment a reader finds them empty or cut off.
_IN_WRITING_SECONDS = 60.0
_READ_ATTEMPTS = 10
_READ_PAUSE_SECONDS = 0.02

# Not through symbolic links, and without waiting for the other end of a pipe.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_FOLDER = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY
_LINK_LIMIT = 256
# What a damaged disk or file system says of one file, where all others can be read.
_DAMAGE = frozenset({errno.EIO, errno.EBADMSG, errno.EUCLEAN})
_DELETING_THREADS = 8
_HEX_DIGITS = "0123456789abcdef"

_Content = TypeVar("_Content")


class StorageError(RegistryError):
    """The data folder, or something in it, cannot be read or written."""


class Code(str, enum.Enum):
    """What can be wrong with a store."""

    LINK_TORN = "link-torn"
    LINK_MISMATCH = "link-mismatch"
    TAG_WITHOUT_CURRENT = "tag-without-current"
    TAG_NAME = "tag-name"
    TAG_DANGLING = "tag-dangling"
    REPOSITORY_NAME = "repository-name"
    UPLOAD_INVALID = "upload-invalid"
    BLOB_MISSING = "blob-missing"
    BLOB_EMPTY = "blob-empty"
    BLOB_SIZE = "blob-size"
    BLOB_MISPLACED = "blob-misplaced"
    BLOB_FOLDER_EMPTY = "blob-folder-empty"
    MANIFEST_MISSING = "manifest-missing"
    MANIFEST_CORRUPT = "manifest-corrupt"
    MANIFEST_INVALID = "manifest-invalid"
    CHILD_UNLINKED = "child-unlinked"
    CHILD_MISSING = "child-missing"
    LAYER_UNLINKED = "layer-unlinked"
    NOT_A_FILE = "not-a-file"
    STRAY = "stray"
    LEFTOVER = "leftover"
    SYMLINK = "symlink"
    # Found by the integrity check only (_check.py).
    BLOB_CORRUPT = "blob-corrupt"
    UNREADABLE = "unreadable"
    ACCESS = "access"
    REVISION_DANGLING = "revision-dangling"
    LAYER_DANGLING = "layer-dangling"
    CHILD_DELETED = "child-deleted"
    REPOSITORY_WITHOUT_LAYERS = "repository-without-layers"
    LAYERS_WITHOUT_MANIFESTS = "layers-without-manifests"
    SCHEMA1 = "schema1"
    SUBJECT_MISSING = "subject-missing"
    REFERRER_WITHOUT_IMAGE = "referrer-without-image"
    UPLOAD_OLD = "upload-old"
    OWN_LEFTOVER = "own-leftover"


class Problem(NamedTuple):
    """Something that is not as the registry leaves it."""

    code: Code
    #: A path on this host, or `repository@digest` where there is none.
    path: str
    detail: str
    #: Empty where it belongs to no repository.
    repository: str = ""
    digest: Digest | None = None


class Repository(NamedTuple):
    """A folder that the registry takes for a repository, and which of its parts are there.

    Registry 2.8 lists those with layers, 3.x those with manifests.
    """

    name: str
    layers: bool
    manifests: bool
    uploads: bool


class Link(NamedTuple):
    """A manifest or a blob that a repository has, or a manifest that a tag has had."""

    digest: Digest
    #: The blob that is served for it: the same, or for content pushed by its SHA-512 the one of its SHA-256.
    target: Digest
    #: Unix time at which the link was last written, as every push does; None from a source that cannot tell.
    pushed: float | None


class Tag(NamedTuple):
    name: str
    digest: Digest
    #: Unix time of the push that pointed it there; None from a source that cannot tell, which HTTP is.
    pushed: float | None


class Blob(NamedTuple):
    digest: Digest
    size: int


class Upload(NamedTuple):
    """A blob that is being pushed, or whose push broke off."""

    uuid: str
    #: Unix times; `started` is None where its file is missing or damaged.
    started: float | None
    changed: float
    #: Bytes that have arrived.
    size: int


class Kind(str, enum.Enum):
    """What a file of a store is."""

    BLOB = "blob"
    LAYER = "layer"
    REVISION = "revision"
    TAG = "tag"
    HISTORY = "history"


class Place(NamedTuple):
    """What a path of the store is for; place_of() makes it, and Storage.path_of() the path again."""

    kind: Kind
    #: None of a tag, whose link says it.
    digest: Digest | None
    repository: str = ""
    tag: str = ""


class DeletedTag(NamedTuple):
    """A tag that we deleted, and what it pointed to."""

    repository: str
    name: str
    digest: Digest
    #: Unix time.
    deleted: float

    def __str__(self) -> str:
        return f"{self.deleted:.3f} {self.repository}:{self.name}@{self.digest}\n"


class Sink:
    """What the content of a blob is written to: a file, and the sum that tells whether it is all."""

    def __init__(self, file: BinaryIO, digest: Digest) -> None:
        self._file = file
        self._digest = digest
        self._hasher = digest.hasher()

    def write(self, data: bytes) -> int:
        self._hasher.update(data)
        return self._file.write(data)

    def is_whole(self) -> bool:
        """Whether what was written is the content of the digest."""
        return self._hasher.hexdigest() == self._digest.hex


class Storage:
    """The storage of a registry below `root`, the folder that is mounted at /var/lib/registry.

    Iterators go through folders in the order of names, and yield a Problem for what they cannot make sense
    of. They, and the writing methods, raise StorageError for what the system refuses, and where a folder on
    the way is a symbolic link.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self._data = _data_folder(self.root)
        self._repositories = f"{self._data}/repositories"
        self._blobs = f"{self._data}/blobs"

    # Where things are

    def blob_path(self, digest: Digest) -> str:
        return f"{self._blob_folder(digest)}/data"

    def layers_path(self, repository: str) -> str:
        """The folder with the links to the blobs that a repository has."""
        return self._layers(repository)

    def layer_path(self, repository: str, digest: Digest) -> str:
        return f"{self._layers(repository)}/{digest.algorithm}/{digest.hex}/link"

    def revision_path(self, repository: str, digest: Digest) -> str:
        return f"{self._revisions(repository)}/{digest.algorithm}/{digest.hex}/link"

    def tag_path(self, repository: str, tag: str) -> str:
        return f"{self._tags(repository)}/{tag}/current/link"

    def history_path(self, repository: str, tag: str, digest: Digest) -> str:
        return f"{self._tags(repository)}/{tag}/index/{digest.algorithm}/{digest.hex}/link"

    def path_of(self, place: Place) -> str:
        """Where a file lies, or would."""
        if place.digest is None:
            return self.tag_path(place.repository, place.tag)
        if place.kind is Kind.BLOB:
            return self.blob_path(place.digest)
        if place.kind is Kind.HISTORY:
            return self.history_path(place.repository, place.tag, place.digest)
        by_kind = {Kind.LAYER: self.layer_path, Kind.REVISION: self.revision_path}
        return by_kind[place.kind](place.repository, place.digest)

    def repository_path(self, repository: str) -> str:
        return f"{self._repositories}/{repository}"

    def upload_path(self, repository: str, uuid: str) -> str:
        return f"{self._repositories}/{repository}/_uploads/{uuid}"

    def is_among_blobs(self, path: str) -> bool:
        return f"{path}/".startswith(f"{self._blobs}/")

    def place_below(self, path: str) -> str:
        """The path of something in the store as it is below docker/registry/v2."""
        return path[len(self._data) + 1 :]

    def place_at(self, path: str) -> Place | None:
        """What a path, such as that of a Problem, is for; the reverse of path_of()."""
        return place_of(path[len(self._data) + 1 :]) if path.startswith(f"{self._data}/") else None

    # What there is

    def repositories(self) -> Iterator[Repository | Problem]:
        """Every repository, those inside others included."""
        if not os.path.isdir(self._repositories) and os.path.isdir(self._blobs):  # noqa: PTH112
            raise StorageError(
                f"read {self._repositories}: it is missing though there are blobs; is something not mounted?"
            )
        _require_real(self._repositories)
        waiting = [""]
        while waiting:
            name = waiting.pop()
            path = f"{self._repositories}/{name}".rstrip("/")
            folders, others = _list(path)
            yield from _strays(path, others, name)
            parts = {folder for folder in folders if folder.startswith("_")}
            unknown = parts - {"_layers", "_manifests", "_uploads"} if name else parts
            yield from (_stray_folder(f"{path}/{folder}", name) for folder in sorted(unknown))
            if parts - unknown:
                yield from _name_problems(path, name)
                yield Repository(name, "_layers" in parts, "_manifests" in parts, "_uploads" in parts)
            prefix = f"{name}/" if name else ""
            waiting += [f"{prefix}{folder}" for folder in reversed(folders) if folder not in parts]

    def tags(self, repository: str) -> Iterator[Tag | Problem]:
        """The tags of a repository, and the manifest that each points to."""
        path = self._tags(repository)
        _require_real(path)
        names, others = _list(path)
        yield from _strays(path, others, repository)
        for name in names:
            found = self.tag(repository, name)
            if found is not None:
                yield found

    def tag(self, repository: str, name: str) -> Tag | Problem | None:
        """One tag as it is at this moment; None where there is none."""
        folder = f"{self._tags(repository)}/{name}"
        if _is_symlink(f"{folder}/current"):
            return _symlink(f"{folder}/current", repository)
        attempts = _READ_ATTEMPTS
        while (link := _read_link(f"{folder}/current/link")) is None:
            # Pushes and deletions leave a tag like this for a moment.
            found = [status for status in (_stat(folder), _stat(f"{folder}/current")) if status]
            if not found:
                return None
            attempts -= 1
            if not attempts or not any(_is_recent(status) for status in found):
                return _problem(Code.TAG_WITHOUT_CURRENT, folder, "it points to no manifest", repository)
            time.sleep(_READ_PAUSE_SECONDS)
        if isinstance(link, Problem):
            return link._replace(repository=repository)
        try:
            return Tag(parse_tag(name), *link)
        except InvalidReference as error:
            return _problem(Code.TAG_NAME, folder, str(error), repository, link[0])

    def history(self, repository: str, tag: str) -> Iterator[Link | Problem]:
        """Every manifest that a tag has pointed to, the present one included, and when it last began to.

        A tag that is deleted takes its history with it.
        """
        return _links(f"{self._tags(repository)}/{tag}/index", repository)

    def revisions(self, repository: str) -> Iterator[Link | Problem]:
        """Every manifest of a repository, tagged or not."""
        return _links(self._revisions(repository), repository)

    def revision(self, repository: str, digest: Digest) -> Link | Problem | None:
        """One manifest of a repository as it is at this moment; None where it has no such manifest."""
        folder = f"{self._revisions(repository)}/{digest.algorithm}"
        _require_real(folder)
        if _is_symlink(f"{folder}/{digest.hex}"):
            return _symlink(f"{folder}/{digest.hex}", repository)._replace(digest=digest)
        return _link(f"{folder}/{digest.hex}", digest, repository)

    def was_just_deleted(self, repository: str, digest: Digest) -> bool:
        """Whether a manifest was deleted a moment ago, so that tags pointing to it may be about to go."""
        path = self.revision_path(repository, digest)
        folder = _stat(path.rpartition("/")[0])
        return folder is not None and _is_recent(folder) and _stat(path) is None

    def deleted_revisions(self, repository: str) -> Iterator[tuple[Digest, float]]:
        """Manifests that a repository had, and the Unix time at which each was deleted.

        The registry keeps an empty folder of each, and so do we.
        """
        path = self._revisions(repository)
        for algorithm in _algorithms(path, repository):
            if isinstance(algorithm, Problem):
                continue
            for name in _list(f"{path}/{algorithm}")[0]:
                digest = _digest(algorithm, name)
                folder = _stat(f"{path}/{algorithm}/{name}")
                if digest and folder and _stat(f"{path}/{algorithm}/{name}/link") is None:
                    yield digest, folder.st_mtime

    def layers(self, repository: str) -> Iterator[Link | Problem]:
        """Every blob that can be pulled from a repository."""
        return _links(self._layers(repository), repository)

    def layer(self, repository: str, digest: Digest) -> Link | Problem | None:
        """One blob of a repository; None where it has no such blob."""
        path = self.layer_path(repository, digest)
        _require_real(path)
        return _link(path[: -len("/link")], digest, repository)

    def revision_folders(self, repository: str) -> Iterator[Digest]:
        """The manifests that a repository has or had, by the folders of their links alone, which are not read."""
        return _digest_folders(self._revisions(repository))

    def layer_folders(self, repository: str) -> Iterator[Digest]:
        """The blobs that a repository has or had, by the folders of their links alone, which are not read."""
        return _digest_folders(self._layers(repository))

    def written(self, path: str) -> float | None:
        """The mtime of a blob or a link; None where there is none."""
        status = _stat(path)
        return status.st_mtime if status else None

    def uploads(self, repository: str) -> Iterator[Upload | Problem]:
        """The blobs whose push to a repository goes on or broke off."""
        path = f"{self._repositories}/{repository}/_uploads"
        _require_real(path)
        folders, others = _list(path)
        yield from _strays(path, others, repository)
        for uuid in folders:
            folder = f"{path}/{uuid}"
            data = _stat(f"{folder}/data")
            status = data or _stat(folder)
            if status is None:
                continue
            started = _read_time(f"{folder}/startedat")
            if started is None:
                yield _problem(Code.UPLOAD_INVALID, folder, "it does not say when it began", repository)
            yield Upload(uuid, started, status.st_mtime, data.st_size if data else 0)

    def blobs(self) -> Iterator[Blob | Problem]:
        """Every blob with the size of its file; an empty one that should not be is also a Problem."""
        for algorithm in _algorithms(self._blobs):
            if isinstance(algorithm, Problem):
                yield algorithm
                continue
            folder = f"{self._blobs}/{algorithm}"
            shards, others = _list(folder)
            yield from _strays(folder, others)
            for shard in shards:
                yield from _blobs_of_shard(f"{folder}/{shard}", algorithm, shard)

    def leftovers(self) -> Iterator[Problem]:
        """What else lies in the folders of links and blobs, such as `*.tmp` of a registry that was killed.

        The other iterators do not list those folders; there are as many as links.
        """
        for repository in self.repositories():
            if isinstance(repository, Problem):
                continue
            for path in (self._layers(repository.name), self._revisions(repository.name)):
                yield from _leftovers_below(path, "link", repository.name)
            tags = self._tags(repository.name)
            for tag in _list(tags)[0]:
                yield from _unexpected(f"{tags}/{tag}", {"current", "index"}, repository.name)
                yield from _unexpected(f"{tags}/{tag}/current", {"link"}, repository.name)
                yield from _leftovers_below(f"{tags}/{tag}/index", "link", repository.name)
        for algorithm in _list(self._blobs)[0]:
            yield from _leftovers_below(f"{self._blobs}/{algorithm}", "data")

    def own_leftovers(self) -> Iterator[Problem]:
        """What this collection keeps beside the registry's data: put aside, or left by a run that was killed."""
        for folder in dict.fromkeys((os.path.realpath(self.root), self._data)):
            folders, others = _list(folder)
            for name in (*folders, *(name for name, _is_link in others)):
                if name.startswith(_OWN_PREFIX) and name != _DELETED_TAGS:
                    yield from _own_leftovers_in(f"{folder}/{name}", name)

    def inaccessible(self, uid: int, gid: int) -> Iterator[Problem]:
        """Files and folders that a registry run by this user and group cannot work with, the topmost ones."""
        for folder in _folders_down_to(os.path.realpath(self.root), self._data):
            status = _stat(folder)
            if status is not None and not _may_use(status, uid, gid, writing=True):
                yield _no_access(folder, status, 0)
        for path, status, inside in self._denied_below(self._data, uid, gid):
            yield _no_access(path, status, sum(1 for _path in inside))

    # What is in it

    def read_blob(self, digest: Digest, limit: int) -> bytes:
        """A small blob. Raises StorageError if it is missing, larger than `limit` bytes, or corrupt."""
        path = self.blob_path(digest)
        found = _read(path, limit)
        if found is None or isinstance(found, Problem):
            raise StorageError(f"read {path}: {found.detail if found else 'there is no such blob'}")
        body, _status = found
        if len(body) > limit:
            raise StorageError(f"read {path}: it is larger than {limit} bytes")
        if Digest.of(body, digest.algorithm) != digest:
            raise StorageError(f"read {path}: its content is not what its digest says")
        return body

    def open_blob(self, digest: Digest) -> BinaryIO:
        """The file of a blob, for the caller to read and close. Raises StorageError where there is none."""
        path = self.blob_path(digest)
        try:
            return open(os.open(path, _READ), "rb")
        except OSError as error:
            raise _failed("read", path, error) from error

    def blob_size(self, digest: Digest) -> int | None:
        """The size of a blob in bytes; None where there is none."""
        status = _stat(self.blob_path(digest))
        return status.st_size if status and stat.S_ISREG(status.st_mode) else None

    def blob_status(self, digest: Digest) -> os.stat_result | None:
        """The status of a blob's file; None where there is none."""
        status = _stat(self.blob_path(digest))
        return status if status and stat.S_ISREG(status.st_mode) else None

    def read_manifest(self, digest: Digest) -> bytes | Problem:
        """The body of a manifest, checked against its digest."""
        path = self.blob_path(digest)
        found = _read_settled(path, MANIFEST_LIMIT, lambda body: _checked_manifest(path, body, digest))
        if found is None:
            return _problem(Code.MANIFEST_MISSING, path, "there is no such blob", digest=digest)
        return found._replace(digest=digest) if isinstance(found, Problem) else found[0]

    # Changes

    def write_tag(self, repository: str, tag: str, digest: Digest) -> None:
        """Point a tag at a manifest that the repository has. As a push does, write first its history."""
        folder = f"{self._tags(parse_repository(repository))}/{parse_tag(tag)}"
        self._write_link(f"{folder}/index/{digest.algorithm}/{digest.hex}", digest)
        self._write_link(f"{folder}/current", digest)

    def write_history(self, repository: str, tag: str, digest: Digest) -> None:
        """Note that a tag has pointed to a manifest."""
        folder = f"{self._tags(parse_repository(repository))}/{parse_tag(tag)}/index"
        self._write_link(f"{folder}/{digest.algorithm}/{digest.hex}", digest)

    def write_revision(self, repository: str, digest: Digest) -> None:
        """Give a repository a manifest whose blob is there."""
        self._write_link(
            f"{self._revisions(parse_repository(repository))}/{digest.algorithm}/{digest.hex}", digest
        )

    def write_layer(self, repository: str, digest: Digest) -> None:
        """Give a repository a blob that is there."""
        self._write_link(
            f"{self._layers(parse_repository(repository))}/{digest.algorithm}/{digest.hex}", digest
        )

    def deleted_tags(self) -> list[DeletedTag]:
        """The tags that we deleted, in order, as long as their manifests may be there."""
        path = f"{self._data}/{_DELETED_TAGS}"
        try:
            with open(os.open(path, _READ), encoding="utf-8", errors="replace") as file:
                return [note for note in map(_deleted_tag, file) if note is not None]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _failed("read", path, error) from error

    def note_deleted_tags(self, tags: Iterable[DeletedTag]) -> None:
        """Remember tags that are about to be deleted: nothing else would tell their manifests from others."""
        path = f"{self._data}/{_DELETED_TAGS}"
        try:
            with self._open_folder(self._data) as folder:
                fcntl.flock(folder, fcntl.LOCK_EX)
                notes = self.deleted_tags()
                if len(notes) > _NOTES_LIMIT:
                    notes = [note for note in notes if self.blob_size(note.digest) is not None]
                _write_file(folder, _DELETED_TAGS, "".join(map(str, [*notes, *tags])).encode())
        except OSError as error:
            raise _failed("write", path, error) from error

    def remove_repository(self, repository: str) -> bool:
        """Take a repository out of the registry's sight at once, then delete it; False where there is none.

        Repositories inside it stay, and so do its blobs until garbage collection. A push to it at that moment
        fails.
        """
        folder = f"{self._repositories}/{parse_repository(repository)}"
        # Manifests first: layers without manifests are an empty repository to the registry; the reverse stops
        # the garbage collection of 3.x.
        removed = [self._remove(folder, part) for part in ("_manifests", "_layers", "_uploads")]
        self._remove_empty_folders(repository)
        return any(removed)

    def remove_blob(self, digest: Digest) -> bool:
        """Take a blob out of the registry's sight at once, whoever needs it; False where there is none."""
        folder, _slash, name = self._blob_folder(digest).rpartition("/")
        return self._remove(folder, name)

    def link_at(self, path: str) -> tuple[Digest, float] | Problem | None:
        """What a link says and its mtime, wherever it lies; None where there is none."""
        return _read_link(path)

    def take_aside(self, path: str, aside: str) -> bool:
        """Rename a file or folder of the store to a new name in a folder aside; False where it is gone."""
        folder, _slash, name = path.rpartition("/")
        place, _slash, new_name = aside.rpartition("/")
        try:
            with self._open_folder(folder) as source, self._open_folder(place) as target:
                os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _failed("remove", path, error) from error
        return True

    def put_back(self, aside: str, path: str) -> bool:
        """Undo take_aside(); False where something new is in its place, or that place is gone."""
        folder, _slash, name = path.rpartition("/")
        place, _slash, old_name = aside.rpartition("/")
        try:
            with self._open_folder(place) as source, self._open_folder(folder) as target:
                if stat.S_ISDIR(os.stat(old_name, dir_fd=source, follow_symlinks=False).st_mode):
                    os.rename(old_name, name, src_dir_fd=source, dst_dir_fd=target)
                else:  # a rename would replace what is there
                    os.link(old_name, name, src_dir_fd=source, dst_dir_fd=target)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                return False
            raise _failed("put back", path, error) from error
        return True

    def quarantine(self, path: str, run: str, *, copy: bool = False) -> str | None:
        """Move a file or folder of the store to the quarantine, under its own path below the folder `run`.

        With `copy`, a file stays in its place too, until another one is put there. Returns where it is now; None
        where it is gone. Nothing is ever deleted there by itself.
        """
        aside = self.quarantine_path(path, run)
        try:
            with self._open_folder(aside.rpartition("/")[0], create=True):
                pass
        except OSError as error:
            raise _failed("make a folder for", aside, error) from error
        kept = self.put_back(aside=path, path=aside) if copy else self.take_aside(path, aside)
        return aside if kept else None

    def quarantine_path(self, path: str, run: str) -> str:
        """Where quarantine() moves a path."""
        return f"{self._data}/{_QUARANTINE}/{run}/{path[len(self._data) + 1 :]}"

    def fetch_blob(self, digest: Digest, fetch: Callable[[Sink], bool], run: str) -> bool:
        """Put a blob in its place, whose content `fetch` writes; False where that fails or is something else.

        What is in its place goes to the quarantine at the last moment. A run that is killed leaves both there.
        """
        name = f"incoming-{digest.hex}"
        place = f"{self._data}/{_QUARANTINE}/{run}"
        folder = self._blob_folder(digest)
        try:
            with self._open_folder(place, create=True) as staging:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
                with open(os.open(name, flags, 0o600, dir_fd=staging), "wb") as file:
                    sink = Sink(file, digest)
                    try:
                        whole = fetch(sink) and sink.is_whole()
                        file.flush()
                        os.fsync(file.fileno())
                    except BaseException:
                        os.unlink(name, dir_fd=staging)
                        raise
                    if not whole:
                        os.unlink(name, dir_fd=staging)
                        return False
                    self.quarantine(folder, run)
                    with self._open_folder(folder, create=True) as target:
                        _belong_to(file.fileno(), target, 0o666)
                        os.rename(name, "data", src_dir_fd=staging, dst_dir_fd=target)
                        os.fsync(target)
        except OSError as error:
            raise _failed("write", f"{folder}/data", error) from error
        return True

    def grant_access(self, path: str, uid: int, gid: int, run: str) -> str:
        """Give a path and all below it that a registry run by this user needs to that user.

        Returns the path of a file that says what they were, one a line: mode, owner, group, path.
        """
        tops = self._denied_below(path, uid, gid)
        denied = [found for top, _status, inside in tops for found in (top, *inside)]
        lines = []
        for item in denied:
            status = _stat(item)
            if status is not None:
                lines.append(f"{stat.S_IMODE(status.st_mode):04o} {status.st_uid} {status.st_gid} {item}\n")
        name = f"access-{secrets.token_hex(4)}"
        place = f"{self._data}/{_QUARANTINE}/{run}"
        try:
            with self._open_folder(place, create=True) as folder:
                _write_file(folder, name, "".join(lines).encode("utf-8", "surrogateescape"))
            for item in denied:
                _give_to(item, uid, gid)
        except OSError as error:
            raise _failed("set owner and mode below", path, error) from error
        return f"{place}/{name}"

    # What garbage collection takes lies in a net below the data folder, each thing at the same place as before.

    def take_blobs(self, digests: Iterable[Digest]) -> None:
        """Move blobs into the net."""
        self._take_all(self._blob_folder(digest) for digest in digests)

    def take_layers(self, links: Iterable[tuple[str, Digest]]) -> None:
        """Move links of repositories to blobs into the net."""
        self._take_all(self.layer_path(*link)[: -len("/link")] for link in links)

    def take_repository(self, repository: str) -> None:
        """Move a repository into the net. Those inside it stay."""
        parts = ("_manifests", "_layers", "_uploads")
        self._take_all(f"{self._repositories}/{repository}/{part}" for part in parts)
        self._remove_empty_folders(repository)

    def has_taken(self) -> bool:
        """Whether something lies in the net."""
        return os.path.isdir(f"{self._data}/{_NET}")  # noqa: PTH112

    def put_all_back(self) -> None:
        """Empty the net into the store. What was pushed anew meanwhile stays as it is."""
        net = f"{self._data}/{_NET}"
        try:
            with self._open_folder(net) as source, self._open_folder(self._data) as target:
                _merge(source, target)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _failed("put back", net, error) from error
        self.drop_taken()

    def drop_taken(self) -> None:
        """Delete what lies in the net."""
        net = f"{self._data}/{_NET}"
        # Side by side: waiting for the disk after each takes many times as long.
        with ThreadPoolExecutor(_DELETING_THREADS) as executor:
            for folder in _innermost(net):
                executor.submit(shutil.rmtree, folder, ignore_errors=True)
        shutil.rmtree(net, ignore_errors=True)
        if os.path.lexists(net):
            raise StorageError(f"delete {net}: not all of it could be deleted; remove it")

    @contextmanager
    def own_folder_aside(self) -> Iterator[str]:
        """A folder for take_aside(), deleted at the end; so are those of runs that were killed."""
        parent = f"{self._data}/{_ASIDE}"
        name = secrets.token_hex(8)
        try:
            with self._open_folder(parent, create=True) as folder:
                # One at a time, or a new folder might be taken for abandoned before it is locked.
                fcntl.flock(folder, fcntl.LOCK_EX)
                _delete_abandoned(folder)
                os.mkdir(name, 0o700, dir_fd=folder)
                own = os.open(name, _FOLDER, dir_fd=folder)
                fcntl.flock(own, fcntl.LOCK_EX)
        except OSError as error:
            raise _failed("make a folder in", parent, error) from error
        try:
            yield f"{parent}/{name}"
        finally:
            _delete_tree(f"{parent}/{name}")
            os.close(own)

    # Below this line: how

    def _blob_folder(self, digest: Digest) -> str:
        return f"{self._blobs}/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"

    def _layers(self, repository: str) -> str:
        return f"{self._repositories}/{repository}/_layers"

    def _revisions(self, repository: str) -> str:
        return f"{self._repositories}/{repository}/_manifests/revisions"

    def _tags(self, repository: str) -> str:
        return f"{self._repositories}/{repository}/_manifests/tags"

    def _denied_below(
        self, path: str, uid: int, gid: int
    ) -> Iterator[tuple[str, os.stat_result, Iterator[str]]]:
        """The topmost things at or below a path that a user cannot work with, each with all such inside it."""
        status = _stat(path)
        if status is None or stat.S_ISLNK(status.st_mode):
            return
        # The registry only ever reads a blob, and takes the place of other files.
        writing = stat.S_ISDIR(status.st_mode) or not path.startswith(f"{self._blobs}/")
        if not _may_use(status, uid, gid, writing=writing):
            inside = (
                found
                for name in _all_names(path, status)
                for denied, _status, deeper in self._denied_below(f"{path}/{name}", uid, gid)
                for found in (denied, *deeper)
            )
            yield path, status, inside
            return
        for name in _all_names(path, status):
            if not (path == self._data and name.startswith(_OWN_PREFIX)):
                yield from self._denied_below(f"{path}/{name}", uid, gid)

    def _write_link(self, folder: str, digest: Digest) -> None:
        try:
            with self._open_folder(folder, create=True) as descriptor:
                _write_file(descriptor, "link", digest.encode())
        except OSError as error:
            raise _failed("write", f"{folder}/link", error) from error

    def _take_all(self, paths: Iterable[str]) -> None:
        """Move folders into the net; those that are gone are nothing to take."""
        by_folder: dict[str, list[str]] = {}
        for path in paths:
            folder, _slash, name = path.rpartition("/")
            by_folder.setdefault(folder, []).append(name)
        for folder, names in by_folder.items():
            place = f"{self._data}/{_NET}{folder[len(self._data) :]}"
            try:
                with self._open_folder(folder) as source, self._open_folder(place, create=True) as target:
                    for name in names:
                        with suppress(FileNotFoundError):
                            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _failed("remove something from", folder, error) from error

    def _remove(self, folder: str, name: str) -> bool:
        """Move a folder aside, then delete it, and whatever a killed run has left there."""
        aside = f"{_REMOVED}-{secrets.token_hex(8)}"
        try:
            with self._open_folder(folder) as source:
                os.rename(name, f"{self._data}/{aside}", src_dir_fd=source)
            removed = True
        except FileNotFoundError:
            removed = False
        except OSError as error:
            raise _failed("remove", f"{folder}/{name}", error) from error
        self._delete_what_is_aside()
        if os.path.lexists(f"{self._data}/{aside}"):
            raise StorageError(f"delete {self._data}/{aside}: not all of it could be deleted; remove it")
        return removed

    def _delete_what_is_aside(self) -> None:
        """Every process deletes what any has moved aside: that something is gone already is no failure."""
        folders, others = _list(self._data)
        for name in folders:
            if name.startswith(f"{_REMOVED}-"):
                shutil.rmtree(f"{self._data}/{name}", ignore_errors=True)
        for name, _is_link in others:
            if name.startswith(f"{_REMOVED}-"):
                with suppress(FileNotFoundError):
                    Path(self._data, name).unlink()

    def _remove_empty_folders(self, repository: str) -> None:
        """Remove a repository's folder and those it lies in, as far as they are empty."""
        parts = repository.split("/")
        try:
            while parts:
                with self._open_folder("/".join((self._repositories, *parts[:-1]))) as parent:
                    os.rmdir(parts.pop(), dir_fd=parent)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise _failed("remove", f"{self._repositories}/{repository}", error) from error

    @contextmanager
    def _open_folder(self, path: str, *, create: bool = False) -> Iterator[int]:
        """Open a folder of the store step by step, so that no symbolic link can lead out of it."""
        descriptor = os.open(self._data, _FOLDER)
        try:
            for name in filter(None, path[len(self._data) :].split("/")):
                inner = _step_into(name, descriptor, create=create)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)


# The root


def _data_folder(root: Path) -> str:
    """The real path of docker/registry/v2 below root, which is not there before the first push."""
    try:
        names = set(os.listdir(root)) - {"lost+found"}  # noqa: PTH208 (strings, as everywhere here)
    except OSError as error:
        raise _failed("read", os.fspath(root), error) from error
    if names and "docker" not in names:
        raise StorageError(
            f"{root}: this is not a registry's data; name the folder that is mounted at /var/lib/registry, "
            "the one with a folder `docker` in it"
        )
    real_root = os.path.realpath(root)
    data = os.path.realpath(f"{real_root}/docker/registry/v2")
    if os.path.commonpath([real_root, data]) != real_root:
        raise StorageError(
            f"{root}: a symbolic link in it leads out, to {data}; mount that folder there instead"
        )
    return data


def _require_real(path: str) -> None:
    """Raise unless no part of a path of the store is a symbolic link."""
    real = os.path.realpath(path)
    if real != path:
        raise StorageError(
            f"read {path}: there is a symbolic link in this path, to {real}, which is not followed; "
            "mount that folder there instead"
        )


# Folders


def _list(path: str) -> tuple[list[str], list[tuple[str, bool]]]:
    """In order: the names of a folder's folders; (name, whether it is a symbolic link) of everything else."""
    folders: list[str] = []
    others: list[tuple[str, bool]] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                else:
                    others.append((entry.name, entry.is_symlink()))
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise _failed("read", path, error) from error
    folders.sort()
    others.sort()
    return folders, others


def _algorithms(path: str, repository: str = "") -> Iterator[str | Problem]:
    """The folders of digests in a folder, by algorithm."""
    _require_real(path)
    folders, others = _list(path)
    yield from _strays(path, others, repository)
    for name in folders:
        yield name if name in HEX_LENGTHS else _stray_folder(f"{path}/{name}", repository)


def _links(path: str, repository: str) -> Iterator[Link | Problem]:
    """The links in <algorithm>/<hex>/ below a folder."""
    for algorithm in _algorithms(path, repository):
        if isinstance(algorithm, Problem):
            yield algorithm
            continue
        names, others = _list(f"{path}/{algorithm}")
        yield from _strays(f"{path}/{algorithm}", others, repository)
        for name in names:
            folder = f"{path}/{algorithm}/{name}"
            digest = _digest(algorithm, name)
            if digest is None:
                yield _stray_folder(folder, repository)
                continue
            link = _link(folder, digest, repository)
            if link is not None:
                yield link


def _digest_folders(path: str) -> Iterator[Digest]:
    """The folders in <algorithm>/ below a folder that are named after a digest."""
    for algorithm in _algorithms(path):
        if not isinstance(algorithm, Problem):
            for name in _list(f"{path}/{algorithm}")[0]:
                digest = _digest(algorithm, name)
                if digest is not None:
                    yield digest


def _link(folder: str, digest: Digest, repository: str) -> Link | Problem | None:
    """The link in the folder named after a digest; None where a deletion has left the folder without."""
    link = _read_link(f"{folder}/link")
    if link is None:
        return None
    if isinstance(link, Problem):
        return link._replace(repository=repository, digest=digest)
    target, pushed = link
    if target != digest and (digest.algorithm == "sha256" or target.algorithm != "sha256"):
        detail = f"it says {target}, which is not where it lies"
        return _problem(Code.LINK_MISMATCH, f"{folder}/link", detail, repository, digest)
    return Link(digest, target, pushed)


def _blobs_of_shard(path: str, algorithm: str, shard: str) -> Iterator[Blob | Problem]:
    names, others = _list(path)
    yield from _strays(path, others)
    for name in names:
        folder = f"{path}/{name}"
        digest = _digest(algorithm, name)
        if digest is None or name[:2] != shard:
            yield _problem(
                Code.BLOB_MISPLACED, folder, "the registry does not look for a blob here", digest=digest
            )
            continue
        status = _stat(f"{folder}/data")
        if status is None:
            made = _stat(folder)
            if made is not None and not _is_recent(made):
                yield _problem(Code.BLOB_FOLDER_EMPTY, folder, "there is no blob in it", digest=digest)
        elif not stat.S_ISREG(status.st_mode):
            yield _no_file(f"{folder}/data", status)._replace(digest=digest)
        else:
            if status.st_size == 0 and digest != Digest.of(b"", algorithm) and not _is_recent(status):
                yield _problem(Code.BLOB_EMPTY, f"{folder}/data", "the blob has 0 bytes", digest=digest)
            yield Blob(digest, status.st_size)


def _leftovers_below(path: str, expected: str, repository: str = "") -> Iterator[Problem]:
    """What else is in the innermost folders below a folder, each of which should hold one file."""
    waiting = [path]
    while waiting:
        folder = waiting.pop()
        inner, _others = _list(folder)
        if len(folder.rpartition("/")[2]) in HEX_LENGTHS.values():
            yield from _unexpected(folder, {expected}, repository)
        else:
            waiting += [f"{folder}/{name}" for name in reversed(inner)]


def _unexpected(path: str, expected: set[str], repository: str) -> Iterator[Problem]:
    """What is in a folder besides these. Whether they are what they should be, their readers find out."""
    folders, others = _list(path)
    yield from _strays(path, [other for other in others if other[0] not in expected], repository)
    yield from (_stray_folder(f"{path}/{name}", repository) for name in folders if name not in expected)


def _own_leftovers_in(path: str, name: str) -> Iterator[Problem]:
    """What one of our own folders holds that nobody works with any more."""
    if name == _ASIDE:
        detail = "a deletion that was killed has left this; the next one deletes it"
        yield from (
            _problem(Code.OWN_LEFTOVER, f"{path}/{inside}", detail)
            for inside in _list(path)[0]
            if not _is_locked(f"{path}/{inside}")
        )
    elif name == _QUARANTINE:
        detail = "a repair has put aside what is in it; delete it when nobody misses that"
        yield from (_problem(Code.OWN_LEFTOVER, f"{path}/{inside}", detail) for inside in _list(path)[0])
    else:
        detail = "maintenance that was killed has left this; the next run of it goes on or cleans up"
        yield _problem(Code.OWN_LEFTOVER, path, detail)


def _is_locked(folder: str) -> bool:
    """Whether a living process works with a folder aside, or the folder is gone."""
    try:
        descriptor = os.open(folder, _FOLDER)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


# Access


def _folders_down_to(root: str, data: str) -> list[str]:
    """The folders from the root to the one that holds v2."""
    parts = os.path.relpath(data, root).split("/")
    return ["/".join((root, *parts[:count])) for count in range(len(parts))]


def _may_use(status: os.stat_result, uid: int, gid: int, *, writing: bool) -> bool:
    """Whether a user may read and list, and if asked write. Being root is no help: the container has no such right."""
    wanted = (0o4 if not stat.S_ISDIR(status.st_mode) else 0o5) | (0o2 if writing else 0)
    if status.st_uid == uid:
        return (status.st_mode >> 6) & wanted == wanted
    if status.st_gid == gid:
        return (status.st_mode >> 3) & wanted == wanted
    return status.st_mode & wanted == wanted


def _all_names(path: str, status: os.stat_result) -> list[str]:
    """The names in a folder; none in a file."""
    if not stat.S_ISDIR(status.st_mode):
        return []
    folders, others = _list(path)
    return sorted([*folders, *(name for name, _is_link in others)])


def _no_access(path: str, status: os.stat_result, inside: int) -> Problem:
    more = f", and so have {inside} things below it" if inside else ""
    detail = (
        f"the registry's user cannot work with it: it has owner {status.st_uid}:{status.st_gid} "
        f"and mode {stat.S_IMODE(status.st_mode):04o}{more}"
    )
    return _problem(Code.ACCESS, path, detail)


def _give_to(path: str, uid: int, gid: int) -> None:
    """Make a file or folder a user's own, with the right to read and write it."""
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError:
        return
    try:
        status = os.fstat(descriptor)
        os.fchown(descriptor, uid, gid)
        needed = 0o700 if stat.S_ISDIR(status.st_mode) else 0o600
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode) | needed)
    finally:
        os.close(descriptor)


# Files


def _read(path: str, limit: int) -> tuple[bytes, os.stat_result] | Problem | None:
    """Up to limit + 1 bytes of a file; None where there is none."""
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return _symlink(path)
        if error.errno in _DAMAGE:
            return unreadable(path, error)
        raise _failed("read", path, error) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return _no_file(path, status)
        content = os.read(descriptor, limit + 1)
        while len(content) < min(status.st_size, limit + 1):
            more = os.read(descriptor, limit + 1 - len(content))
            if not more:
                break
            content += more
        return content, status
    except OSError as error:
        if error.errno in _DAMAGE:
            return unreadable(path, error)
        raise _failed("read", path, error) from error
    finally:
        os.close(descriptor)


def is_damage(error: OSError) -> bool:
    """Whether it is this one file that cannot be read, and not all of them."""
    return error.errno in _DAMAGE


def unreadable(path: str, error: OSError) -> Problem:
    """The Problem of a file that the disk does not give."""
    return _problem(Code.UNREADABLE, path, f"the disk does not give it: {error.strerror or error}")


def _read_settled(
    path: str, limit: int, understand: Callable[[bytes], _Content | Problem]
) -> tuple[_Content, float] | Problem | None:
    """What a file says, and its mtime. One that makes no sense and may be in writing is read again."""
    attempts = _READ_ATTEMPTS
    while True:
        found = _read(path, limit)
        if found is None or isinstance(found, Problem):
            return found
        body, status = found
        content = understand(body)
        if not isinstance(content, Problem):
            return content, status.st_mtime
        attempts -= 1
        if not attempts or not _is_recent(status):
            return content
        time.sleep(_READ_PAUSE_SECONDS)


def _read_link(path: str) -> tuple[Digest, float] | Problem | None:
    """The digest in a link and its mtime; None where there is no link."""
    return _read_settled(path, _LINK_LIMIT, lambda body: _parse_link(path, body))


def _parse_link(path: str, body: bytes) -> Digest | Problem:
    try:
        return Digest(body.decode("ascii"))
    except (UnicodeDecodeError, InvalidReference):
        detail = f"{len(body)} bytes that are no digest" if body else "it is empty"
        return _problem(Code.LINK_TORN, path, detail)


def _checked_manifest(path: str, body: bytes, digest: Digest) -> bytes | Problem:
    if len(body) > MANIFEST_LIMIT:
        detail = f"it is larger than {MANIFEST_LIMIT} bytes, which no registry accepts as a manifest"
        return _problem(Code.MANIFEST_INVALID, path, detail)
    hasher = digest.hasher()
    hasher.update(body)
    if hasher.hexdigest() != digest.hex:
        detail = "its content is not what its digest says" if body else "the blob has 0 bytes"
        return _problem(Code.MANIFEST_CORRUPT, path, detail)
    return body


def _read_time(path: str) -> float | None:
    found = _read(path, _LINK_LIMIT)
    if found is None or isinstance(found, Problem):
        return None
    try:
        # fromisoformat() reads the Z of UTC only from Python 3.11 on.
        return datetime.fromisoformat(found[0].decode("ascii").replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return None


def _deleted_tag(line: str) -> DeletedTag | None:
    """What str(DeletedTag) has written; None for anything else."""
    moment, _space, text = line.strip().partition(" ")
    try:
        repository, tag, digest = parse_reference(text)
        return DeletedTag(repository, tag, digest, float(moment)) if tag and digest else None
    except (ValueError, InvalidReference):
        return None


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _failed("read", path, error) from error


def _is_recent(status: os.stat_result) -> bool:
    """Whether somebody may be about to finish what is not finished there."""
    return time.time() - status.st_mtime < _IN_WRITING_SECONDS


def is_recent(status: os.stat_result) -> bool:
    """Whether somebody may be about to finish what is not finished there."""
    return _is_recent(status)


def _is_symlink(path: str) -> bool:
    status = _stat(path)
    return status is not None and stat.S_ISLNK(status.st_mode)


def _step_into(name: str, parent: int, *, create: bool) -> int:
    """Open a folder in an open folder; a new one gets the owner and mode of that."""
    if not create:
        return os.open(name, _FOLDER, dir_fd=parent)
    try:
        os.mkdir(name, dir_fd=parent)
    except FileExistsError:
        return os.open(name, _FOLDER, dir_fd=parent)
    folder = os.open(name, _FOLDER, dir_fd=parent)
    _belong_to(folder, parent, 0o7777)
    os.fsync(parent)
    return folder


def _write_file(folder: int, name: str, content: bytes) -> None:
    """Replace a file in an open folder: others see the old or the new one, whole, also after a power cut."""
    # The name that registry 3.1 gives to its own.
    temporary = f"{name}.{secrets.token_hex(16)}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            _belong_to(descriptor, folder, 0o666)
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(temporary, dir_fd=folder)
        raise
    os.fsync(folder)


def _innermost(path: str) -> Iterator[str]:
    """The folders below a folder that are named after digests."""
    for parent, folders, _files in os.walk(path):
        found = [name for name in folders if len(name) in HEX_LENGTHS.values()]
        yield from (f"{parent}/{name}" for name in found)
        folders[:] = set(folders).difference(found)


def _merge(source: int, target: int) -> None:
    """Move all that is in an open folder into another, and replace nothing there."""
    for name in os.listdir(source):
        try:
            os.stat(name, dir_fd=target, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
            continue
        try:
            inner = os.open(name, _FOLDER, dir_fd=source)
        except NotADirectoryError:
            continue
        try:
            other = os.open(name, _FOLDER, dir_fd=target)
            try:
                _merge(inner, other)
            finally:
                os.close(other)
        finally:
            os.close(inner)


def _delete_tree(path: str) -> None:
    """Delete a folder, those in it side by side: waiting for the disk after each takes many times as long."""
    with ThreadPoolExecutor(_DELETING_THREADS) as executor:
        for inside in Path(path).iterdir():
            executor.submit(_delete_one, inside)
    shutil.rmtree(path, ignore_errors=True)


def _delete_one(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def _delete_abandoned(parent: int) -> None:
    """Delete the folders in an open folder that no living process has locked."""
    for name in os.listdir(parent):
        folder = os.open(name, _FOLDER, dir_fd=parent)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _delete_tree(f"/proc/self/fd/{parent}/{name}")
        except BlockingIOError:
            pass
        finally:
            os.close(folder)


def _belong_to(descriptor: int, folder: int, mode_mask: int) -> None:
    """Give a new file or folder the owner of the folder it is in, and of its mode what the mask allows."""
    wanted, status = os.fstat(folder), os.fstat(descriptor)
    if (wanted.st_uid, wanted.st_gid) != (status.st_uid, status.st_gid):
        os.fchown(descriptor, wanted.st_uid, wanted.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(wanted.st_mode) & mode_mask)


# Words

_ALGORITHM_AND_HEX = rf"(?P<algorithm>{'|'.join(HEX_LENGTHS)})/(?P<hex>[0-9a-f]+)"
_IN_REPOSITORY = r"repositories/(?P<repository>.+?)"
_PLACES = {
    Kind.BLOB: rf"blobs/(?P<algorithm>{'|'.join(HEX_LENGTHS)})/[0-9a-f]{{2}}/(?P<hex>[0-9a-f]+)/data",
    Kind.LAYER: rf"{_IN_REPOSITORY}/_layers/{_ALGORITHM_AND_HEX}/link",
    Kind.REVISION: rf"{_IN_REPOSITORY}/_manifests/revisions/{_ALGORITHM_AND_HEX}/link",
    Kind.TAG: rf"{_IN_REPOSITORY}/_manifests/tags/(?P<tag>[^/]+)/current/link",
    Kind.HISTORY: rf"{_IN_REPOSITORY}/_manifests/tags/(?P<tag>[^/]+)/index/{_ALGORITHM_AND_HEX}/link",
}
_PLACE_PATTERNS = {kind: re.compile(pattern) for kind, pattern in _PLACES.items()}


def deleted_tags_of(path: str, content: bytes) -> list[DeletedTag] | None:
    """What a file below docker/registry/v2 notes of tags that we deleted; None of any other file."""
    if path != _DELETED_TAGS:
        return None
    lines = content.decode("utf-8", "replace").splitlines()
    return [note for note in map(_deleted_tag, lines) if note is not None]


def place_of(path: str) -> Place | None:
    """What a path below docker/registry/v2 is for; None where the registry keeps nothing there."""
    for kind, pattern in _PLACE_PATTERNS.items():
        found = pattern.fullmatch(path)
        if found is None:
            continue
        parts = found.groupdict()
        try:
            return Place(
                kind,
                Digest(f"{parts['algorithm']}:{parts['hex']}") if "hex" in parts else None,
                parse_repository(parts["repository"]) if "repository" in parts else "",
                parse_tag(parts["tag"]) if "tag" in parts else "",
            )
        except InvalidReference:
            return None
    return None


def _digest(algorithm: str, name: str) -> Digest | None:
    """The digest that a folder is named after; None where it is no such name."""
    if len(name) != HEX_LENGTHS[algorithm] or name.strip(_HEX_DIGITS):
        return None
    # Checked already, and this runs once for every link.
    return str.__new__(Digest, f"{algorithm}:{name}")


def _name_problems(path: str, name: str) -> Iterator[Problem]:
    try:
        parse_repository(name)
    except InvalidReference as error:
        yield _problem(Code.REPOSITORY_NAME, path, str(error), name)


def _strays(path: str, others: Iterable[tuple[str, bool]], repository: str = "") -> Iterator[Problem]:
    """Problems for what lies where folders are expected."""
    for name, is_link in others:
        if is_link:
            yield _symlink(f"{path}/{name}", repository)
        elif name.endswith(".tmp"):
            detail = "a registry or this collection was killed while it wrote this"
            yield _problem(Code.LEFTOVER, f"{path}/{name}", detail, repository)
        else:
            yield _problem(Code.STRAY, f"{path}/{name}", "the registry puts no file here", repository)


def _stray_folder(path: str, repository: str) -> Problem:
    return _problem(Code.STRAY, path, "the registry makes no folder of this name", repository)


def _symlink(path: str, repository: str = "") -> Problem:
    return _problem(Code.SYMLINK, path, "a symbolic link, which is not followed", repository)


def _no_file(path: str, status: os.stat_result) -> Problem:
    if stat.S_ISLNK(status.st_mode):
        return _symlink(path)
    return _problem(Code.NOT_A_FILE, path, "there should be a file here")


def _problem(
    code: Code, path: str, detail: str, repository: str = "", digest: Digest | None = None
) -> Problem:
    # Names are bytes on disk, and not all are text.
    return Problem(code, os.fsencode(path).decode("utf-8", "backslashreplace"), detail, repository, digest)


def _failed(operation: str, path: str, error: OSError) -> StorageError:
    reason = error.strerror or str(error)
    hint = "; run this as root or as the owner of the data" if isinstance(error, PermissionError) else ""
    return StorageError(f"{operation} {path}: {reason}{hint}")
