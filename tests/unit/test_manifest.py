# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the parser of manifests finds, and what it refuses rather than overlook."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils._manifest import (
    Descriptor,
    InvalidManifest,
    parse_manifest,
)
from ansible_collections.dockyard.registry.plugins.module_utils._media import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    DOCKER_SCHEMA1,
    DOCKER_SCHEMA1_SIGNED,
    OCI_INDEX,
    OCI_MANIFEST,
)
from ansible_collections.dockyard.registry.plugins.module_utils._reference import Digest

A, B, C = (Digest.of(name) for name in (b"a", b"b", b"c"))
LONG = Digest.of(b"d", "sha512")


def body(**keys: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, **keys}).encode()


def reference(digest: str, **keys: Any) -> dict[str, Any]:
    return {"mediaType": "text/plain", "digest": digest, "size": 3, **keys}


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_image(media_type: str) -> None:
    manifest = parse_manifest(
        body(mediaType=media_type, config=reference(A), layers=[reference(B), reference(LONG, size=2**40)])
    )
    assert manifest.media_type == media_type
    assert manifest.config == Descriptor(A, "text/plain", 3)
    assert manifest.layers == (Descriptor(B, "text/plain", 3), Descriptor(LONG, "text/plain", 2**40))
    assert manifest.children == ()
    assert manifest.subject is None


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
def test_index(media_type: str) -> None:
    arm = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    unknown = {"os": "unknown", "architecture": "unknown"}
    manifest = parse_manifest(
        body(
            mediaType=media_type,
            manifests=[
                reference(A, mediaType=OCI_MANIFEST, platform=arm),
                reference(B, mediaType=OCI_MANIFEST, platform=unknown),
                reference(C, mediaType=OCI_INDEX),
            ],
        )
    )
    assert [child.platform for child in manifest.children] == ["linux/arm64/v8", "unknown/unknown", ""]
    assert [child.is_attestation for child in manifest.children] == [False, True, False]
    assert [child.digest for child in manifest.children] == [A, B, C]


def test_index_of_blobs() -> None:
    """A build cache is an index whose entries are layers."""
    manifest = parse_manifest(body(mediaType=OCI_INDEX, manifests=[reference(A), reference(B, mediaType="")]))
    assert manifest.layers == (Descriptor(A, "text/plain", 3),)
    assert manifest.children == (Descriptor(B, "", 3),)


def test_artifact() -> None:
    manifest = parse_manifest(
        body(
            mediaType=OCI_MANIFEST,
            artifactType="application/vnd.example.sbom",
            config=reference(A),
            layers=[],
            subject=reference(B, mediaType=OCI_MANIFEST),
        )
    )
    assert manifest.artifact_type == "application/vnd.example.sbom"
    assert manifest.subject == B


def test_foreign_layers() -> None:
    manifest = parse_manifest(
        body(layers=[reference(A, urls=["https://example.org/layer"]), reference(B, urls=[])])
    )
    assert [layer.elsewhere for layer in manifest.layers] == [True, False]


@pytest.mark.parametrize(
    ("keys", "expected"), [({"manifests": []}, OCI_INDEX), ({"layers": []}, OCI_MANIFEST)]
)
def test_media_type_may_be_missing(keys: dict[str, Any], expected: str) -> None:
    assert parse_manifest(body(**keys)).media_type == expected


@pytest.mark.parametrize(
    ("keys", "expected"), [({}, DOCKER_SCHEMA1), ({"signatures": [{}]}, DOCKER_SCHEMA1_SIGNED)]
)
def test_schema1(keys: dict[str, Any], expected: str) -> None:
    manifest = parse_manifest(body(schemaVersion=1, fsLayers=[{"blobSum": A}, {"blobSum": B}], **keys))
    assert manifest.media_type == expected
    assert [layer.digest for layer in manifest.layers] == [A, B]


@pytest.mark.parametrize("size", [None, "3", -1, True, 1.5, 2**63])
def test_sizes_that_are_none(size: object) -> None:
    assert parse_manifest(body(config=reference(A, size=size))).config == Descriptor(A, "text/plain", -1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "0 bytes that are not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not an object"),
        (b"{}", "schema version None"),
        (body(schemaVersion=3), "schema version 3"),
        (body(mediaType="text/html"), "media type 'text/html'"),
        (body(mediaType=7), "mediaType is no text"),
        (body(layers={}), "layers is no list"),
        (body(layers=["sha256:abc"]), "a reference without a proper digest"),
        (body(layers=[reference("sha256:abc")]), "a reference without a proper digest"),
        (body(layers=[{"Digest": A}]), "a reference without a proper digest"),
        (body(config=reference("sha384:" + "a" * 96)), "a reference without a proper digest"),
        (body(subject={}), "a reference without a proper digest"),
        (body(schemaVersion=1, fsLayers=[{}]), "a reference without a proper blobSum"),
        (body(Layers=[reference(A)]), "the key 'Layers'"),
        (body(mediaType=OCI_INDEX, layers=[reference(A)]), "an index"),
        (body(mediaType=OCI_INDEX, config=reference(A)), "an index"),
        (body(mediaType=OCI_MANIFEST, manifests=[reference(A)]), "an image"),
    ],
)
def test_refused(text: bytes, message: str) -> None:
    with pytest.raises(InvalidManifest, match=message):
        parse_manifest(text)
