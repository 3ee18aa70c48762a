# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""config.yml from data: checked, atomic, its secrets never shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dockyard.registry.plugins.module_utils import _config, _config_file
from ansible_collections.dockyard.registry.plugins.module_utils._files import Attributes
from hypothesis import given
from hypothesis import strategies as st

PRIVATE = Attributes(0o640)
CONFIG: dict[str, Any] = {
    "version": "0.1",
    "storage": {"s3": {"accesskey": "an-id", "secretkey": "a-secret-key", "region": "r", "bucket": "b"}},
    "http": {"addr": ":5000", "secret": "a-http-secret"},
}
SECRETS = ("an-id", "a-secret-key", "a-http-secret")


def test_written_once_with_its_secrets(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    foreseen = _config_file.write(str(file), CONFIG, "2.8.3", PRIVATE, check_mode=True)
    assert foreseen.changed
    assert not file.exists()
    written = _config_file.write(str(file), CONFIG, "2.8.3", PRIVATE)
    assert written == foreseen
    assert yaml.safe_load(file.read_text(encoding="utf-8")) == CONFIG
    assert file.stat().st_mode & 0o777 == 0o640
    again = _config_file.write(str(file), CONFIG, "2.8.3", PRIVATE)
    assert not again.changed
    assert again.sha256 == written.sha256


def test_secrets_are_not_shown_but_count(tmp_path: Path) -> None:
    file = str(tmp_path / "config.yml")
    first = _config_file.write(file, CONFIG, "2.8.3", PRIVATE)
    other = {**CONFIG, "http": {**CONFIG["http"], "secret": "another-secret"}}
    second = _config_file.write(file, other, "2.8.3", PRIVATE)
    assert second.changed
    assert second.sha256 != first.sha256
    for text in (first.after, second.before, second.after):
        assert not [secret for secret in (*SECRETS, "another-secret") if secret in text]
        assert 'secretkey: "********"' in text
        assert 'addr: ":5000"' in text


@pytest.mark.parametrize("strange", ["- a list\n", "just text", "a: [b\n", "\x00"])
def test_a_strange_old_file_is_replaced_and_not_shown(tmp_path: Path, strange: str) -> None:
    file = tmp_path / "config.yml"
    file.write_text(strange, encoding="utf-8")
    written = _config_file.write(str(file), CONFIG, "2.8.3", PRIVATE)
    assert written.changed
    assert written.before == f"(not readable as YAML: {len(strange)} characters)\n"


def test_a_configuration_that_is_none_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    with pytest.raises(_config_file.ConfigError, match=r"registry 3\.1\.1 would not take") as raised:
        _config_file.write(str(file), {**CONFIG, "htpp": {}}, "3.1.1", PRIVATE)
    assert "htpp" in str(raised.value)
    assert not file.exists()


KEYS = st.sampled_from(["secret", "password", "addr", "secretkey", "token", "http", "Authorization"])
TREES = st.recursive(
    st.text(min_size=1) | st.integers() | st.booleans() | st.lists(st.text()),
    lambda below: st.dictionaries(KEYS, below),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, TREES))
def test_the_parts_are_the_whole(config: dict[str, Any]) -> None:
    public, secret = _config_file.split(config)
    assert _config.merge(public, secret) == config

    def leaves(tree: dict[str, Any]) -> list[str]:
        found: list[str] = []
        for key, value in tree.items():
            found += leaves(value) if isinstance(value, dict) else [key]
        return found

    assert not {"secret", "password", "secretkey", "token", "Authorization"} & set(leaves(public))
    assert not {"addr", "http"} & set(leaves(secret))
