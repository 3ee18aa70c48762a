# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters for configuration and version, through Ansible's templates."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.modules import CHECKOUT

VARIABLES = """
rack: 7
data_folder: /srv/registry
base:
  version: 0.1
  log:
    level: info
    fields:
      rack: "{{ rack }}"
  storage:
    filesystem:
      rootdirectory: "{{ data_folder }}/data"
    delete:
      enabled: "{{ rack == 7 }}"
  http:
    addr: 127.0.0.1:5000
extra:
  log:
    level: debug
  storage:
    filesystem: null
    inmemory: {}
  http:
    headers:
      X-Rack: ["{{ rack }}"]
nothing:
mistaken:
  storage:
    delete:
      enabled: "{{ 'true' }}"
incomplete:
  http:
    host: "https://{{ not_there }}"
"""


def render(directory: Path, expressions: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Have Ansible evaluate these expressions over VARIABLES; its output ends in JSON when it could."""
    variables = directory / "variables.yml"
    variables.write_text(VARIABLES, encoding="utf-8")
    message = {name: "{{ " + expression + " }}" for name, expression in expressions.items()}
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible")),
            *("localhost", "-i", "localhost,", "-c", "local", "-e", f"@{variables}"),
            *("-m", "ansible.builtin.debug", "-a", json.dumps({"msg": message})),
        ],
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
            "ANSIBLE_NOCOLOR": "1",
        },
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )


def evaluate(directory: Path, expressions: dict[str, str]) -> dict[str, Any]:
    """The values of the expressions, by their names."""
    result = render(directory, expressions)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "WARNING" not in result.stderr
    values: dict[str, Any] = json.loads(result.stdout.partition("=>")[2])["msg"]
    return values


def test_filters_on_templated_values(tmp_path: Path) -> None:
    merge = "base | dockyard.registry.config_merge"
    version = "'/bin/registry github.com/docker/distribution 2.8.2+ds1' | dockyard.registry.registry_version"
    values = evaluate(
        tmp_path,
        {
            "valid": "base | dockyard.registry.config_errors('3.1.1')",
            "mistaken": f"{merge}(mistaken) | dockyard.registry.config_errors(2.8)",
            "merged": f"{merge}(extra)",
            "merged_valid": f"{merge}(extra) | dockyard.registry.config_errors(3)",
            "unchanged": f"{merge}(nothing) == base",
            "as_yaml": f"{merge}(extra) | to_nice_yaml(sort_keys=false)",
            "version": version,
            "checked": f"base | dockyard.registry.config_errors({version})",
        },
    )
    merged = {
        "version": 0.1,
        "log": {"level": "debug", "fields": {"rack": 7}},
        "storage": {"delete": {"enabled": True}, "inmemory": {}},
        "http": {"addr": "127.0.0.1:5000", "headers": {"X-Rack": [7]}},
    }

    assert values["valid"] == values["checked"] == []
    assert [message.partition(":")[0] for message in values["mistaken"]] == ["storage.delete.enabled"]
    assert values["merged"] == merged
    assert yaml.safe_load(values["as_yaml"]) == merged
    assert [message.partition(":")[0] for message in values["merged_valid"]] == ["http.headers.X-Rack[0]"]
    assert values["unchanged"] is True
    assert values["version"] == "2.8.2+ds1"


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("base | dockyard.registry.config_errors('1.0')", "version 1.0.0 is not supported; use 2.8 or 3.x"),
        ("base | dockyard.registry.config_errors('latest')", "that is no version"),
        (
            "'text' | dockyard.registry.config_errors('3')",
            "config_errors: the configuration must be a mapping",
        ),
        (
            "base | dockyard.registry.config_merge([1])",
            "config_merge: what to merge into it must be a mapping",
        ),
        ("'Docker version 20' | dockyard.registry.registry_version", '"Docker version 20" was printed'),
        ("not_there | dockyard.registry.config_errors('3')", "'not_there' is undefined"),
        ("base | dockyard.registry.config_errors(not_there)", "'not_there' is undefined"),
        ("incomplete | dockyard.registry.config_errors('3')", "'not_there' is undefined"),
        ("base | dockyard.registry.config_merge(incomplete)", "'not_there' is undefined"),
    ],
)
def test_errors_are_for_people(tmp_path: Path, expression: str, message: str) -> None:
    result = render(tmp_path, {"value": expression})
    assert result.returncode != 0
    assert message in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
