#!/usr/bin/python
# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_fetch
short_description: Copy a backup from a host to the control machine
version_added: 0.1.0
description:
  - Copies an archive, all that it builds on, and the small files beside them to a folder on the machine that
    Ansible runs on. In pieces, so that their size does not matter; through the connection of the task, whatever
    that is, with C(become) too.
  - Each is checked against its sum before it gets its name. What is there already with the same sum stays. A copy
    that was broken off goes on where it stopped.
extends_documentation_fragment:
  - dockyard.registry.attributes
attributes:
  check_mode:
    support: full
    details: Says what would be copied.
  diff_mode:
    support: N/A
    details: There is no difference to show.
  idempotent:
    support: full
options:
  folder:
    description: Where the backups are on the host.
    type: path
    default: /var/backups/registry
  backup:
    description: The name of a backup, or V(latest), the newest that is complete.
    type: str
    default: latest
  dest:
    description: A folder on the control machine. Made if it is missing.
    type: str
    required: true
  piece:
    description: Bytes that are copied at a time.
    type: int
    default: 8388608
  path:
    description: Not for people. The file of which the module hands a piece to its other half.
    type: str
  offset:
    description: Not for people. Where that piece begins.
    type: int
    default: 0
seealso:
  - module: dockyard.registry.backup
author:
  - Dockyard maintainers (@dockyard)
"""

EXAMPLES = r"""
- name: Keep the newest backup on the control machine, too
  dockyard.registry.backup_fetch:
    dest: /srv/backups/{{ inventory_hostname }}
"""

RETURN = r"""
backup: {description: The name of the backup., returned: success, type: str}
files:
  description: What belongs to it, the full archive first.
  returned: success
  type: list
  elements: dict
  contains:
    name: {description: Its name., type: str}
    file: {description: Its path on the control machine., type: str}
    size: {description: Its bytes., type: int}
    sha256: {description: Its SHA-256., type: str}
    copied: {description: "Bytes that were copied, or in check mode would be.", type: int}
bytes: {description: "All bytes that were copied, or in check mode would be.", returned: success, type: int}
"""

import base64
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.registry.plugins.module_utils._archive import is_archive_name
from ansible_collections.dockyard.registry.plugins.module_utils._backup_folder import beside, chain_of
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError


def read_piece(path: str, offset: int, length: int) -> dict[str, Any]:
    """A piece of an archive as text. Raises RegistryError."""
    if not is_archive_name(Path(path).name):
        raise RegistryError(f"read {path}: by its name it is no backup")
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return {"content": base64.b64encode(file.read(length)).decode("ascii")}
    except OSError as error:
        raise RegistryError(f"read {path}: {error.strerror or error}") from error


def describe(folder: str, backup: str) -> dict[str, Any]:
    """What there is to be copied. Raises RegistryError."""
    chain = chain_of(folder, backup)
    return {
        "backup": chain[-1].name,
        "files": [
            {
                "name": one.name,
                "path": str(one.path),
                "size": one.size,
                "sha256": one.sha256,
                "beside": beside(one.path),
            }
            for one in chain
        ],
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "default": "/var/backups/registry"},
            "backup": {"type": "str", "default": "latest"},
            "dest": {"type": "str", "required": True},
            "piece": {"type": "int", "default": 8 * 1024 * 1024},
            "path": {"type": "str"},
            "offset": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        if params["path"] is None:
            result = describe(params["folder"], params["backup"])
        else:
            result = read_piece(params["path"], params["offset"], params["piece"])
    except RegistryError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
