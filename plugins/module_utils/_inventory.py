# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in a registry, as plain data for programs and as a table for people.

    inventory = read_disk("/opt/registry/data", ["team/**"])
    print(render(inventory))

The documentation of module dockyard.registry.repository_info says what the data is.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from . import _table
from ._client import RegistryClient
from ._graph import Graph, ManifestName, Size, UnknownContent, read_graph
from ._images import Images
from ._manifest import Manifest
from ._media import is_index
from ._patterns import REPOSITORY, Pattern, is_pattern, matches_any
from ._reference import Digest, parse_repository
from ._source import DiskSource, HttpSource
from ._storage import Storage, Tag
from ._walk import State

Inventory = dict[str, Any]

_STATES = {
    State.UNTAGGED: "(no tag)",
    State.EMPTIED: "(emptied)",
    State.UNFINISHED: "(no manifest yet)",
}


def read_disk(root: str | os.PathLike[str], wanted: Collection[str] = ()) -> Inventory:
    """What a registry has on this host: everything, or the repositories that are wanted, by name or pattern.

    Always reads the whole store, since what repositories share shows only then. Raises UnknownContent for a
    name that is not there, and RegistryErrors.
    """
    source = DiskSource(Storage(root))
    graph = read_graph(source)
    names = _choose(wanted, graph.repositories())
    return _Description(graph, names, Images(graph, source), configs=True).inventory()


def read_http(client: RegistryClient, wanted: Collection[str] = (), *, configs: bool = False) -> Inventory:
    """The same over HTTP, of the wanted repositories only.

    A registry does not tell which untagged manifests it has, nor when anything was pushed. `configs` also
    asks for the config of each image. Raises UnknownContent for a name that is not there, and RegistryErrors.
    """
    named = {text for text in wanted if not is_pattern(text)}
    # A user who may not list the catalog can still ask by name.
    names = _choose(wanted, named if named and len(named) == len(wanted) else client.repositories())
    source = HttpSource(client, names)
    graph = read_graph(source)
    for name in named:
        if graph.state(name) is State.UNFINISHED:
            raise UnknownContent(f"{name}: the registry at {client.url} has no such repository")
    return _Description(graph, names, Images(graph, source, client.map), configs=configs).inventory()


def render(inventory: Inventory) -> str:
    """An inventory for people: a row for each tag, and what there is in all."""
    header = ["REPOSITORY", "TAG", "DIGEST", "CONTENT", "SIZE", "EXCLUSIVE"]
    if inventory["complete"]:
        header.append("PUSHED (UTC)")
    rows = (row[: len(header)] for repository in inventory["repositories"] for row in _rows(repository))
    return f"{_table.table(header, rows, right=('SIZE', 'EXCLUSIVE'))}\n\n{_summary(inventory)}"


def _choose(wanted: Collection[str], known: Iterable[str]) -> list[str]:
    """The known repositories that are wanted, in order; all where nothing is said."""
    there = set(known)
    if not wanted:
        return sorted(there)
    patterns = [Pattern.of(text, REPOSITORY) for text in wanted if is_pattern(text)]
    named = {parse_repository(text) for text in wanted if not is_pattern(text)}
    for name in sorted(named - there):
        similar = difflib.get_close_matches(name, there)
        hint = f"; did you mean {' or '.join(similar)}?" if similar else ""
        raise UnknownContent(f"{name}: the registry has no such repository{hint}")
    return sorted(named | {name for name in there if matches_any(patterns, name)})


class _Description:
    """Some repositories of a graph as plain data."""

    def __init__(self, graph: Graph, names: list[str], images: Images, *, configs: bool) -> None:
        self._graph = graph
        self._names = names
        self._images = images
        self._configs = configs
        self._linked = {name: frozenset(graph.manifests(name)) for name in names}
        self._orphans = graph.orphans()
        self._untagged: dict[str, list[Digest]] = {}
        for repository, digest in self._orphans.manifests:
            self._untagged.setdefault(repository, []).append(digest)
        if configs:
            images.load(self._manifests())

    def inventory(self) -> Inventory:
        graph = self._graph
        repositories = [self._repository(name) for name in self._names]
        everything = graph.reachable(self._manifests(), unlinked=False)
        chosen = {"", *self._names}
        return {
            "repositories": repositories,
            "tags": sum(len(repository["tags"]) for repository in repositories),
            "bytes": sum(blob.size for blob in everything.blobs()),
            "unreferenced_bytes": sum(blob.size for blob in self._orphans.blobs) if graph.complete else None,
            "complete": graph.complete,
            "problems": [
                {**problem._asdict(), "code": problem.code.value}
                for problem in graph.problems
                if problem.repository in chosen
            ],
        }

    def _manifests(self) -> Iterator[ManifestName]:
        return ((name, digest) for name, digests in self._linked.items() for digest in digests)

    def _repository(self, name: str) -> dict[str, Any]:
        graph = self._graph
        tags = sorted(graph.tags(name), key=lambda tag: _table.natural(tag.name))
        about = {tag.tag: tag.subject for tag in graph.referrer_tags(name)}
        untagged = self._untagged.get(name, [])
        freed = graph.released_by(manifests=[(name, digest) for digest in untagged])
        return {
            "name": name,
            "state": graph.state(name).value,
            "size": _size(graph.size(name)),
            "tags": [{**self._tag(name, tag), **_about(tag.name, about)} for tag in tags],
            "untagged": [self._untagged_manifest(name, digest) for digest in untagged]
            if graph.complete
            else None,
            "untagged_bytes": freed.bytes if graph.complete else None,
        }

    def _tag(self, name: str, tag: Tag) -> dict[str, Any]:
        holders = self._graph.holders(name, tag.digest)
        return {
            "name": tag.name,
            **self._manifest(name, tag.digest, self._graph.size(name, tag.name)),
            "pushed": _table.timestamp(tag.pushed),
            "same_digest": [other for other in holders.tags if other != tag.name],
            "children": self._children(name, tag.digest),
            "referrers": [
                {
                    "digest": referrer.digest,
                    "tag": referrer.tag,
                    "artifact_type": self._read(referrer.digest).artifact_type,
                }
                for referrer in holders.referrers
            ],
        }

    def _untagged_manifest(self, name: str, digest: Digest) -> dict[str, Any]:
        exclusive = self._graph.released_by(manifests=[(name, digest)]).bytes
        return {
            **self._manifest(name, digest, Size(self._total(name, digest), exclusive)),
            "pushed": _table.timestamp(self._graph.pushed(name, digest)),
            "indexes": list(self._graph.holders(name, digest).indexes),
        }

    def _manifest(self, name: str, digest: Digest, size: Size) -> dict[str, Any]:
        manifest = self._read(digest)
        created = self._images.created(digest).time if self._configs else None
        return {
            "digest": digest,
            "media_type": manifest.media_type,
            "artifact_type": manifest.artifact_type,
            "platforms": list(self._images.platforms(digest)),
            "created": _table.timestamp(created),
            "size": _size(size),
            "repositories": list(self._graph.holders(name, digest).repositories),
            "subject": manifest.subject,
        }

    def _children(self, name: str, digest: Digest) -> list[dict[str, Any]]:
        there = self._linked[name]
        return [
            {
                "digest": child.digest,
                "media_type": child.media_type,
                "platform": child.platform,
                "is_attestation": child.is_attestation,
                "is_there": child.digest in there,
            }
            for child in self._read(digest).children
        ]

    def _read(self, digest: Digest) -> Manifest:
        """What a manifest says; a damaged one says nothing."""
        try:
            return self._graph.manifest(digest)
        except UnknownContent:
            return Manifest("", "", None, (), (), None)

    def _total(self, name: str, digest: Digest) -> int:
        """The bytes of a manifest, its children and referrers, and the blobs of all of them."""
        blobs, waiting = {digest}, [digest]
        while waiting:
            current = waiting.pop()
            manifest = self._read(current)
            blobs.update(layer.digest for layer in manifest.layers)
            blobs.update([manifest.config.digest] if manifest.config else ())
            others = self._linked[name].intersection(child.digest for child in manifest.children)
            referrers = self._graph.holders(name, current).referrers
            others = others.union(referrer.digest for referrer in referrers if not referrer.tag)
            waiting += others - blobs
            blobs |= others
        return sum(self._graph.blob_size(blob) or 0 for blob in blobs)


def _size(size: Size) -> dict[str, int]:
    return {"total": size.total, "shared": size.shared, "exclusive": size.exclusive}


def _about(tag: str, about: dict[str, Digest | None]) -> dict[str, Any]:
    """What a tag's name says it is about, which counts before what its manifest says."""
    if tag not in about:
        return {"is_referrer_tag": False}
    return {"is_referrer_tag": True, "subject": about[tag]}


# For people


def _rows(repository: dict[str, Any]) -> Iterator[list[str]]:
    name = repository["name"]
    for tag in repository["tags"]:
        size = tag["size"]
        sizes = [_table.size(size["total"]), _table.size(size["exclusive"])]
        shown = [_table.shortened(tag["name"]), _table.short(tag["digest"]), _content(tag)]
        yield [name, *shown, *sizes, _table.minute(tag["pushed"])]
    if not repository["tags"]:
        yield [name, _STATES[State(repository["state"])], "", "", "", "", ""]
    if repository["untagged"]:
        content = _table.counted(len(repository["untagged"]), "untagged manifest")
        yield [name, "", "", content, "", _table.size(repository["untagged_bytes"]), ""]


def _content(tag: dict[str, Any]) -> str:
    """The platforms of an image, or what else it is."""
    if tag["is_referrer_tag"]:
        return f"about {_table.short(tag['subject'])}" if tag["subject"] else "about an image that is gone"
    if tag["artifact_type"]:
        return str(tag["artifact_type"])
    platforms = [platform for platform in tag["platforms"] if platform != "unknown/unknown"]
    if platforms:
        return ", ".join(platforms)
    if not tag["media_type"]:
        return "damaged"
    return "index" if is_index(tag["media_type"]) else "image"


def _summary(inventory: Inventory) -> str:
    repositories = inventory["repositories"]
    lines = [
        f"{_table.counted(inventory['tags'], 'tag')} in "
        f"{_table.counted(len(repositories), 'repository', 'repositories')}, "
        f"{_table.size(inventory['bytes'])}. EXCLUSIVE is what nothing else needs."
    ]
    if not inventory["complete"]:
        lines.append("Over HTTP, untagged manifests and the times of pushes are not known.")
    if inventory["problems"]:
        lines.append(f"{_table.counted(len(inventory['problems']), 'problem')} found: run check.yml.")
    return "\n".join(lines)
