# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a manifest refers to: OCI and Docker images, indexes and manifest lists, artifacts, and schema 1.

What this parser does not understand it refuses. A reference that it overlooked would be content that nobody
seems to need.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from ._errors import RegistryError
from ._media import (
    DOCKER_SCHEMA1,
    DOCKER_SCHEMA1_SIGNED,
    OCI_INDEX,
    OCI_MANIFEST,
    is_index,
    is_manifest,
    is_schema1,
)
from ._reference import Digest, InvalidReference

# The keys that refer to other content.
_REFERRING = ("config", "layers", "blobs", "manifests", "fsLayers", "subject")
_LOWER_REFERRING = frozenset(key.lower() for key in _REFERRING)
_LARGEST_SIZE = 2**63 - 1


class InvalidManifest(RegistryError):
    """It is no manifest, or one of a kind that we do not know; the message says what is wrong with it."""


class Descriptor(NamedTuple):
    """A reference from a manifest to other content."""

    digest: Digest
    media_type: str = ""
    #: In bytes, as the manifest states it; -1 where it does not.
    size: int = -1
    #: Of a child of an index: `os/architecture` or `os/architecture/variant`.
    platform: str = ""
    #: The content may lie on other servers (the manifest has URLs), so that the registry need not have it.
    elsewhere: bool = False

    @property
    def is_attestation(self) -> bool:
        """Whether it is what buildx adds to an index beside the images: provenance, an SBOM."""
        return self.platform == "unknown/unknown"


class Manifest(NamedTuple):
    media_type: str
    #: What kind of artifact it is, where it says so; an image is none.
    artifact_type: str
    config: Descriptor | None
    #: Blobs besides the config; in an index, its entries that are no manifests (a build cache has such).
    layers: tuple[Descriptor, ...]
    #: The manifests that an index lists.
    children: tuple[Descriptor, ...]
    #: The manifest that this one is about, which need not be there.
    subject: Digest | None

    @property
    def blobs(self) -> set[Digest]:
        """Its config and layers."""
        return {blob.digest for blob in (*((self.config,) if self.config else ()), *self.layers)}


def parse_manifest(body: bytes) -> Manifest:
    """Parse a manifest as it is stored. Raises InvalidManifest."""
    document = _load(body)
    media_type = _media_type(document)
    if is_schema1(media_type):
        layers = tuple(Descriptor(_digest(layer, "blobSum")) for layer in _objects(document, "fsLayers"))
        return Manifest(media_type, "", None, layers, (), None)
    listed = [_descriptor(entry) for entry in _objects(document, "manifests")]
    layers = (*_descriptors(document, "layers"), *_descriptors(document, "blobs"))
    config = document.get("config")
    if is_index(media_type) and (layers or config):
        raise InvalidManifest(f"an index ({media_type}) with layers or a config")
    if listed and not is_index(media_type):
        raise InvalidManifest(f"an image ({media_type}) that lists manifests")
    subject = document.get("subject")
    return Manifest(
        media_type,
        _text(document, "artifactType"),
        _descriptor(config) if config is not None else None,
        layers + tuple(entry for entry in listed if not _is_child(entry)),
        tuple(entry for entry in listed if _is_child(entry)),
        _digest(subject, "digest") if subject is not None else None,
    )


def _load(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise InvalidManifest(f"no manifest: {len(body)} bytes that are not JSON") from None
    if not isinstance(document, dict):
        raise InvalidManifest("no manifest: JSON, but not an object")
    # The registry's parser does not care about capitals in keys.
    for key in document:
        if key not in _REFERRING and key.lower() in _LOWER_REFERRING:
            raise InvalidManifest(f"the key {key!r} is not written as it should be")
    return document


def _media_type(document: dict[str, Any]) -> str:
    version = document.get("schemaVersion")
    media_type = _text(document, "mediaType")
    if version == 1:
        return DOCKER_SCHEMA1_SIGNED if "signatures" in document else DOCKER_SCHEMA1
    if version != 2:
        raise InvalidManifest(f"schema version {version!r}, which no registry knows")
    if not media_type:
        return OCI_INDEX if document.get("manifests") is not None else OCI_MANIFEST
    if not is_manifest(media_type) or is_schema1(media_type):
        raise InvalidManifest(f"media type {media_type!r}, which registries do not store as a manifest")
    return media_type


def _objects(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = document.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise InvalidManifest(f"{key} is no list")
    return found


def _descriptors(document: dict[str, Any], key: str) -> tuple[Descriptor, ...]:
    return tuple(_descriptor(entry) for entry in _objects(document, key))


def _descriptor(entry: Any) -> Descriptor:
    digest = _digest(entry, "digest")
    media_type = _text(entry, "mediaType")
    size = entry.get("size")
    return Descriptor(
        digest,
        media_type,
        size if isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= _LARGEST_SIZE else -1,
        _platform(entry["platform"]) if "platform" in entry else "",
        "urls" in entry and bool(entry["urls"]),
    )


def _is_child(entry: Descriptor) -> bool:
    return not entry.media_type or is_manifest(entry.media_type)


def _digest(entry: Any, key: str) -> Digest:
    text = entry.get(key) if isinstance(entry, dict) else None
    try:
        return Digest(text)  # type: ignore[arg-type]
    except InvalidReference as error:
        raise InvalidManifest(f"a reference without a proper {key}: {error}") from None


def _text(entry: dict[str, Any], key: str) -> str:
    text = entry.get(key)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise InvalidManifest(f"{key} is no text")
    return text


def _platform(platform: Any) -> str:
    if not isinstance(platform, dict):
        return ""
    names = [platform.get(key) for key in ("os", "architecture", "variant")]
    return "/".join(name for name in names if isinstance(name, str) and name)
