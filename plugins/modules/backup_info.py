#!/usr/bin/python
# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_info
short_description: Which backups there are, and which can be restored
version_added: 0.1.0
description:
  - Lists the archives in a folder, what each builds on, and whether all that it needs is there. Sizes are compared
    with what was noted; contents are not read.
extends_documentation_fragment:
  - dockyard.registry.attributes
  - dockyard.registry.attributes.info
options:
  folder:
    description: Where the backups are.
    type: path
    default: /var/backups/registry
seealso:
  - module: dockyard.registry.backup
author:
  - Dockyard maintainers (@dockyard)
"""

EXAMPLES = r"""
- name: Which backups there are
  dockyard.registry.backup_info:
  register: kept

- name: Show them
  ansible.builtin.debug:
    msg: "{{ kept.table }}"
"""

RETURN = r"""
backups:
  description: Every archive, the oldest first.
  returned: success
  type: list
  elements: dict
  contains:
    name: {description: Its name., type: str}
    file: {description: Its path., type: str}
    kind: {description: V(full) or V(incremental). Empty where nothing tells., type: str}
    parent: {description: The name of the archive that it builds on. V(null) where there is none., type: str}
    chain: {description: "All archives that it takes to restore it, the full one first.", type: list, elements: str}
    created: {description: When it was made., type: str, sample: "2026-01-31T12:00:00Z"}
    size: {description: Its bytes., type: int}
    sha256: {description: Its SHA-256 as noted., type: str}
    encrypted: {description: Whether it is encrypted., type: bool}
    hostname: {description: The host that it was made on., type: str}
    root: {description: The folder of the registry there., type: str}
    counts: {description: "How many tags, blobs and others are in it, as M(dockyard.registry.backup) says.", type: dict}
    complete: {description: Whether it and all that it builds on is there., type: bool}
    problem: {description: What is wrong with it otherwise., type: str}
newest:
  description: The name of the newest that is complete. Empty where there is none.
  returned: success
  type: str
table:
  description: All of this for people.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.registry.plugins.module_utils import _backup_report
from ansible_collections.dockyard.registry.plugins.module_utils._backup_folder import list_backups
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError


def main() -> None:
    module = AnsibleModule(
        argument_spec={"folder": {"type": "path", "default": "/var/backups/registry"}},
        supports_check_mode=True,
    )
    try:
        found = list_backups(module.params["folder"])
    except RegistryError as error:
        module.fail_json(msg=str(error))
    complete = [backup.name for backup in found if backup.is_complete]
    module.exit_json(
        changed=False,
        backups=[_backup_report.described(backup) for backup in found],
        newest=complete[-1] if complete else "",
        table=_backup_report.backups_table(found),
    )


if __name__ == "__main__":
    main()
