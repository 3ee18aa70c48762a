#!/usr/bin/python
# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup
short_description: Back up a registry that goes on working
version_added: 0.1.0
description:
  - Writes one archive with all that a registry holds, its users, its configuration and its secrets. The registry
    goes on working, pushes included. The archive holds what the registry was at one moment; every blob is checked
    against its digest.
  - An incremental archive carries only the blobs that the archives it builds on do not have. It restores together
    with those, which M(dockyard.registry.restore) does by itself.
  - The archive is a tar file. A full one that is not encrypted can be restored without this collection, with
    C(tar -xf) in the registry's folder and C(chown) to the registry's user.
  - An archive gets its name when all of it is on the disk. A run that is killed leaves nothing that the next
    one does not remove.
  - Beside an archive are a file C(.json) that says what is in it, and a file C(.blobs) that the next incremental
    backup needs.
  - Meanwhile the lock of the storage is held, which only keeps out garbage collection, restore, repair and check.
extends_documentation_fragment:
  - dockyard.registry.maintenance
  - dockyard.registry.maintenance.progress
  - dockyard.registry.attributes
attributes:
  check_mode:
    support: full
    details: Says what would be written and removed. The size of the archive is not known then.
  diff_mode:
    support: N/A
    details: There is no difference to show.
  idempotent:
    support: none
    details: Every run writes a backup.
options:
  data:
    description: The folder on this host that is mounted at C(/var/lib/registry).
    type: path
    required: true
  root:
    description:
      - The registry's own folder, with C(compose.yml), C(config), C(auth), C(secrets) and C(proxy), which are backed
        up too. Without it, the data alone is.
    type: path
  folder:
    description: Where the backups are. Made if it is missing. Not inside the data.
    type: path
    default: /var/backups/registry
  kind:
    description:
      - V(full) carries all blobs. V(incremental) builds on an earlier backup of this registry, and is an error where
        there is none. V(auto) is incremental where that can be, and else full.
    type: str
    choices: [auto, full, incremental]
    default: auto
  parent:
    description: The name of the backup to build on. The newest by default.
    type: str
  longest_chain:
    description:
      - With O(kind=auto), how many archives a chain may have before the next is a full one. V(0) is no limit.
    type: int
    default: 30
  verify_parent:
    description: Whether the archives that this one builds on are read first, and compared with their sums.
    type: bool
    default: false
  untagged:
    description: Whether manifests without a tag are backed up.
    type: bool
    default: true
  certificates:
    description: Whether C(certs) is backed up, with the private keys in it.
    type: bool
    default: false
  compression:
    description:
      - V(none) suits layers, which are compressed already. V(zstd) needs the program C(zstd) on this host.
    type: str
    choices: [none, gzip, zstd]
    default: none
  encryption:
    description:
      - Encrypts for C(recipients), by the C(tool) V(age) or V(gpg), which must be on this host. The key to decrypt
        should not be. Such an archive is read again by its sum alone.
    type: dict
  corrupt_blobs:
    description:
      - What happens where a blob cannot be read or is not what its digest says. V(fail) writes no backup.
        V(leave_out) does without it and names what needs it; every blob is read twice then.
    type: str
    choices: [fail, leave_out]
    default: fail
  verify:
    description: Whether the archive is read again from the disk, and removed if it is damaged.
    type: bool
    default: true
  keep:
    description:
      - Which backups of this registry are kept; by default all. Those are removed that none of these keeps.
      - C(count) is a number of newest ones, C(full) one of newest full ones with all that builds on them, C(age)
        a time such as V(30d) since it was made.
      - What a kept one builds on is kept, and so is the newest. Damaged ones are left to a person.
    type: dict
    default: {}
  registry_version:
    description: Noted in the archive.
    type: str
    default: ""
  collection_version:
    description: Noted in the archive.
    type: str
    default: ""
seealso:
  - module: dockyard.registry.backup_info
  - module: dockyard.registry.backup_fetch
author:
  - Dockyard maintainers (@dockyard)
"""

EXAMPLES = r"""
- name: Every night; a month of them, and no more than a week in one chain
  dockyard.registry.backup:
    data: /opt/registry/data
    root: /opt/registry
    longest_chain: 7
    keep:
      age: 30d
      full: 2

- name: For a place that is not trusted
  dockyard.registry.backup:
    data: /opt/registry/data
    root: /opt/registry
    folder: /mnt/elsewhere
    encryption:
      tool: age
      recipients: [age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p]
"""

RETURN = r"""
file: {description: The archive., returned: success, type: str, sample: /backups/registry-20260131T120000Z-full.tar}
size: {description: Its bytes. V(null) in check mode., returned: success, type: int}
sha256: {description: Its SHA-256. V(null) in check mode., returned: success, type: str}
kind: {description: V(full) or V(incremental)., returned: success, type: str}
parent: {description: The name of the archive that it builds on. V(null) for a full one., returned: success, type: str}
repositories: {description: How many repositories are in it., returned: success, type: int}
tags: {description: How many tags., returned: success, type: int}
manifests: {description: How many manifests., returned: success, type: int}
blobs: {description: "How many blobs it restores, with what it builds on.", returned: success, type: int}
bytes: {description: Their bytes., returned: success, type: int}
carried_blobs: {description: How many of them it carries itself., returned: success, type: int}
carried_bytes: {description: Their bytes., returned: success, type: int}
dropped:
  description:
    - Tags, as C(repository:tag), that led nowhere and are left out. Somebody was deleting them, or they are broken.
  returned: success
  type: list
  elements: str
left_out:
  description: Blobs that are left out, with O(corrupt_blobs=leave_out).
  returned: success
  type: list
  elements: dict
  contains:
    digest: {description: The blob., type: str}
    path: {description: Its file., type: str}
    reason: {description: What is wrong with it., type: str}
    needed_by:
      description: The tags that cannot be pulled without it, and manifests without a tag.
      type: list
      elements: str
problems:
  description: Damage in the registry that is no reason to fail.
  returned: success
  type: list
  elements: str
removed:
  description: Backups that were removed, or in check mode would be.
  returned: success
  type: list
  elements: str
leftovers: {description: What killed runs had left and was removed., returned: success, type: list, elements: str}
verified: {description: Whether the archive was read again., returned: success, type: bool}
notes: {description: What one should know., returned: success, type: list, elements: str}
seconds: {description: How long it took., returned: success, type: float}
table: {description: All of this for people., returned: success, type: str}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.registry.plugins.module_utils import _backup_report
from ansible_collections.dockyard.registry.plugins.module_utils._archive import Compression
from ansible_collections.dockyard.registry.plugins.module_utils._backup import Kind, Request, run
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._maintenance import WORK_OPTIONS, locked
from ansible_collections.dockyard.registry.plugins.module_utils._progress import FileProgress


def read_request(params: dict[str, Any], check_mode: bool) -> Request:
    """The module's options as a request. Raises BackupError."""
    return Request(
        data=params["data"],
        folder=params["folder"],
        root=params["root"],
        kind=Kind(params["kind"]),
        parent=params["parent"],
        longest_chain=params["longest_chain"] or None,
        verify_parent=params["verify_parent"],
        untagged=params["untagged"],
        certificates=params["certificates"],
        compression=Compression(params["compression"]),
        encryption=_backup_report.encryption_from(params["encryption"]),
        leave_out=params["corrupt_blobs"] == "leave_out",
        verify=params["verify"],
        keep=_backup_report.keep_from(params["keep"]),
        registry_version=params["registry_version"],
        collection_version=params["collection_version"],
        check_mode=check_mode,
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "data": {"type": "path", "required": True},
            "root": {"type": "path"},
            "folder": {"type": "path", "default": "/var/backups/registry"},
            "kind": {"type": "str", "choices": [kind.value for kind in Kind], "default": "auto"},
            "parent": {"type": "str"},
            "longest_chain": {"type": "int", "default": 30},
            "verify_parent": {"type": "bool", "default": False},
            "untagged": {"type": "bool", "default": True},
            "certificates": {"type": "bool", "default": False},
            "compression": {
                "type": "str",
                "choices": [compression.value for compression in Compression],
                "default": "none",
            },
            "encryption": {"type": "dict"},
            "corrupt_blobs": {"type": "str", "choices": ["fail", "leave_out"], "default": "fail"},
            "verify": {"type": "bool", "default": True},
            "keep": {"type": "dict", "default": {}},
            "registry_version": {"type": "str", "default": ""},
            "collection_version": {"type": "str", "default": ""},
            **WORK_OPTIONS,
        },
        supports_check_mode=True,
    )
    params = module.params
    progress = FileProgress(params["progress_file"])
    try:
        with locked(params, "backup", storage_only=True):
            result = run(read_request(params, module.check_mode), progress)
    except RegistryError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result, table=_backup_report.report(result, check_mode=module.check_mode))


if __name__ == "__main__":
    main()
