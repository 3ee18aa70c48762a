# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The media types of manifests, in one place.

Private to the collection: no stable interface.
"""

from __future__ import annotations

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
# Schema 1: only registry 2.8 still stores it; the signed form carries its signature inside the body.
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"

OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"

INDEX_TYPES = (OCI_INDEX, DOCKER_LIST)
SCHEMA1_TYPES = (DOCKER_SCHEMA1_SIGNED, DOCKER_SCHEMA1)
# Schema 1 last: a registry that can convert must not be asked to.
ALL_MANIFEST_TYPES = (DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX, *SCHEMA1_TYPES)


def is_index(media_type: str) -> bool:
    """Whether it lists manifests, one per platform: an OCI index or a Docker manifest list."""
    return media_type in INDEX_TYPES


def is_schema1(media_type: str) -> bool:
    """Whether it is Docker's schema 1, which registry 3.x refuses."""
    return media_type in SCHEMA1_TYPES


def is_manifest(media_type: str) -> bool:
    """Whether it is any kind of manifest, index included."""
    return media_type in ALL_MANIFEST_TYPES
