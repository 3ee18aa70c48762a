# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What images say of themselves in their configs, which manifests do not: platform, and date of creation.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from typing import Any, NamedTuple

from ._errors import RegistryError
from ._graph import Graph, ManifestName, UnknownContent
from ._manifest import Descriptor, Manifest
from ._media import DOCKER_CONFIG, OCI_CONFIG, is_index
from ._reference import Digest
from ._source import Source

# Far more than any image needs.
_LIMIT = 4 * 1024 * 1024
_CREATED = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.\d+)?(?:[Zz]|([+-]\d\d:\d\d))",
    re.ASCII,
)
# Builds that are to be reproducible state 1970, 1980 (buildpacks) or the year 1: no date of a real build.
EARLIEST = datetime(2000, 1, 1, tzinfo=timezone.utc).timestamp()

#: Something like the built-in map(), which may work on several items at once.
Run = Callable[[Callable[[ManifestName], "Config"], Iterable[ManifestName]], Iterable["Config"]]


class Created(NamedTuple):
    """When an image was built, as a Unix time; or None, and why it is not known."""

    time: float | None
    fault: str = ""


class Config(NamedTuple):
    """`platform` is like that of an index's entry, or empty."""

    platform: str
    created: Created


class Images:
    """The configs of images; each is read once. `run` makes several requests at once where that helps."""

    def __init__(self, graph: Graph, source: Source, run: Run = map) -> None:
        self._graph = graph
        self._source = source
        self._run = run
        self._configs: dict[Digest, Config] = {}

    def load(self, names: Iterable[ManifestName]) -> None:
        """Read the configs of these images, and of all images of these indexes."""
        wanted: dict[Digest, str] = {}
        for repository, digest in names:
            for image in self._images(digest):
                if image.config is not None and image.config.digest not in self._configs:
                    wanted[image.config.digest] = repository
        configs = self._run(self._read, ((repository, digest) for digest, repository in wanted.items()))
        self._configs.update(zip(wanted, configs))

    def platforms(self, digest: Digest) -> tuple[str, ...]:
        """What it runs on: of an index what it lists, of an image what its config says if that was read."""
        try:
            manifest = self._graph.manifest(digest)
        except UnknownContent:
            return ()
        if is_index(manifest.media_type):
            return tuple(dict.fromkeys(child.platform for child in _listed(manifest) if child.platform))
        config = self._config(manifest)
        return (config.platform,) if config is not None and config.platform else ()

    def created(self, digest: Digest) -> Created:
        """When an image was built, or the latest image of an index. load() must have read it."""
        dates = [config.created for config in map(self._config, self._images(digest)) if config is not None]
        known = [date for date in dates if date.time is not None]
        if known:
            return max(known)
        return dates[0] if dates else Created(None, "it is no image, and has no date of creation")

    def _images(self, digest: Digest) -> Iterator[Manifest]:
        """The image itself, or those of an index, as far as they are there."""
        waiting, seen = [digest], {digest}
        while waiting:
            try:
                manifest = self._graph.manifest(waiting.pop())
            except UnknownContent:
                continue
            if is_index(manifest.media_type):
                children = {child.digest for child in _listed(manifest)} - seen
                seen |= children
                waiting += sorted(children)
            elif manifest.config is not None and _is_image_config(manifest.config):
                yield manifest

    def _config(self, image: Manifest) -> Config | None:
        return None if image.config is None else self._configs.get(image.config.digest)

    def _read(self, name: ManifestName) -> Config:
        try:
            return parse_config(self._source.read_blob(*name, _LIMIT))
        except RegistryError as error:
            return Config("", Created(None, f"its config cannot be read: {error}"))


def parse_config(body: bytes) -> Config:
    """What the config of an image says; of anything else, nothing."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        return Config("", Created(None, "its config is no JSON object"))
    parts = [document.get(key) for key in ("os", "architecture", "variant")]
    platform = "/".join(part for part in parts if isinstance(part, str) and part)
    return Config(platform, _created(document.get("created")))


def _created(text: Any) -> Created:
    if text is None:
        return Created(None, "its config has no date of creation")
    match = _CREATED.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return Created(None, "the date of creation in its config is none")
    day, clock, offset = match.groups()
    try:
        time = datetime.fromisoformat(f"{day}T{clock}{offset or '+00:00'}").timestamp()
    except (ValueError, OverflowError):
        return Created(None, f"its config says it was created {day}, which is no date")
    if time < EARLIEST:
        return Created(None, f"its config says it was created {day}, which is no date of a real build")
    return Created(time)


def _listed(index: Manifest) -> Iterator[Descriptor]:
    return (child for child in index.children if not child.is_attestation)


def _is_image_config(config: Descriptor) -> bool:
    return config.media_type in (OCI_CONFIG, DOCKER_CONFIG)
