# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The media types of manifests."""

from __future__ import annotations

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils import _media


@pytest.mark.parametrize("media_type", _media.ALL_MANIFEST_TYPES)
def test_a_manifest_is_exactly_one_of_index_image_or_schema1(media_type: str) -> None:
    is_image = media_type in (_media.OCI_MANIFEST, _media.DOCKER_MANIFEST)
    assert [_media.is_index(media_type), _media.is_schema1(media_type), is_image].count(True) == 1
    assert _media.is_manifest(media_type)


@pytest.mark.parametrize(
    "media_type", [_media.OCI_CONFIG, _media.DOCKER_CONFIG, _media.OCI_EMPTY, "text/html", ""]
)
def test_what_is_no_manifest(media_type: str) -> None:
    assert not _media.is_manifest(media_type)
    assert not _media.is_index(media_type)


def test_schema1_is_asked_for_last() -> None:
    wanted = list(_media.ALL_MANIFEST_TYPES)
    assert [_media.is_schema1(media_type) for media_type in wanted] == [False] * 4 + [True] * 2
