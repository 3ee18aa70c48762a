#!/usr/bin/python
# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: client_files
short_description: Settings in files that others write to as well
version_added: 0.1.0
description:
  - Brings files to what is wanted, and remembers in a ledger what it added. What is no longer wanted goes away again,
    exactly, and folders with it that were made for it. What others wrote stays.
  - A whole file that is there and was not written by this module is never replaced; that is an error which names it.
  - Everything is read and worked out before the first file changes. Files are replaced atomically.
extends_documentation_fragment:
  - dockyard.registry.attributes
attributes:
  check_mode:
    support: full
    details: The programs that O(files[].validate) names do not run.
  diff_mode:
    support: full
    details: Shows the part of each file that is set here, because the rest may hold secrets of others.
  idempotent:
    support: full
options:
  name:
    description: Whose settings these are. Several share a ledger without touching each other's.
    type: str
    required: true
  files:
    description: All that is wanted under O(name). An empty list takes away everything.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The file. Missing folders are made.
        type: path
        required: true
      kind:
        description:
          - V(file) is a whole file. V(json) and V(yaml) are merged into what is there, lists by adding to them.
            V(block) is marked lines at the end of a file, such as tables of TOML.
          - YAML that is merged loses its comments. Where the host's Python has no PyYAML, V(yaml) is written as JSON,
            which is YAML as well, and YAML of others cannot be merged into.
        type: str
        choices: [file, json, yaml, block]
        default: file
      text:
        description: The content, for V(file) and V(block).
        type: str
      data:
        description: What to merge, for V(json) and V(yaml).
        type: dict
      mode:
        description: Permissions of a new file, octal. Those of an existing file stay.
        type: raw
        default: "0644"
      validate:
        description:
          - A command that checks the new file before it replaces the old one, and gets its path as last argument.
          - A program that answers C(unknown flag) has no such check, and is taken as content.
        type: list
        elements: str
        default: []
  ledger:
    description: The file that remembers.
    type: path
    default: /var/lib/dockyard.registry/client.json
author:
  - Dockyard maintainers (@dockyard)
"""

EXAMPLES = r"""
- name: A mirror for Docker
  dockyard.registry.client_files:
    name: mirror.example.org
    files:
      - path: /etc/docker/daemon.json
        kind: json
        data:
          registry-mirrors: ["https://mirror.example.org"]
        validate: [dockerd, --validate, --config-file]

- name: Take it away again
  dockyard.registry.client_files:
    name: mirror.example.org
"""

RETURN = r"""
paths:
  description: The files that changed, in check mode would change.
  returned: success
  type: list
  elements: str
  sample: [/etc/docker/daemon.json]
kept:
  description: Files that are no longer wanted and stay, because somebody changed them.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.registry.plugins.module_utils import _client_files, _files
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError


def wanted_from(item: dict[str, Any]) -> _client_files.Wanted:
    """One of `files`. Raises ClientFilesError where its content is missing."""
    field = "data" if item["kind"] in ("json", "yaml") else "text"
    if item[field] is None:
        raise _client_files.ClientFilesError(f"files: {item['path']}: kind {item['kind']} needs {field}")
    mode = _files.parse_mode(item["mode"])
    return _client_files.Wanted(item["path"], item["kind"], item[field], mode, item["validate"])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "kind": {"type": "str", "choices": list(_client_files.KINDS), "default": "file"},
                    "text": {"type": "str"},
                    "data": {"type": "dict"},
                    "mode": {"type": "raw", "default": "0644"},
                    "validate": {"type": "list", "elements": "str", "default": []},
                },
            },
            "ledger": {"type": "path", "default": "/var/lib/dockyard.registry/client.json"},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        wanted = [wanted_from(item) for item in params["files"]]
        result = _client_files.converge(
            params["ledger"], params["name"], wanted, check_mode=module.check_mode
        )
    except RegistryError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"change the settings: {error}")
    for path in result.kept:
        module.warn(f"{path}: somebody changed it since it was written, so it was left there")
    module.exit_json(
        changed=bool(result.changes),
        paths=[change.path for change in result.changes],
        kept=result.kept,
        diff=[
            {
                "before_header": change.path,
                "after_header": change.path,
                "before": change.before,
                "after": change.after,
            }
            for change in result.changes
        ],
    )


if __name__ == "__main__":
    main()
