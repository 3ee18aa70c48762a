#!/usr/bin/python
# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: recovery
short_description: Put right what maintenance of a registry left behind that was killed
version_added: 0.1.0
description:
  - Garbage collection and restores write down what they are in the middle of. Where one was killed, by a signal, a
    reboot or a full disk, this finishes it or takes it back, and starts the registry if that had been stopped.
  - Every run of such maintenance does this first. Nothing happens where nothing broke off.
extends_documentation_fragment:
  - dockyard.registry.maintenance
  - dockyard.registry.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: The result says what was done.
  idempotent:
    support: full
options:
  root:
    description: The registry's folder on this host, with its C(compose.yml).
    type: path
    required: true
  url:
    description: Where the registry must answer after a start if it publishes no port.
    type: str
    default: ""
seealso:
  - module: dockyard.registry.garbage_collection
author:
  - Dockyard maintainers (@dockyard)
"""

EXAMPLES = r"""
- name: After a power cut
  dockyard.registry.recovery:
    root: /opt/registry
"""

RETURN = r"""
pending:
  description: The maintenance that had broken off.
  returned: success
  type: list
  elements: str
  sample: [garbage-collection]
healed:
  description: What was done about it. Empty in check mode.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._journal import pending
from ansible_collections.dockyard.registry.plugins.module_utils._maintenance import LOCK_OPTIONS, locked
from ansible_collections.dockyard.registry.plugins.module_utils._recovery import recover_all
from ansible_collections.dockyard.registry.plugins.module_utils._stack import Stack


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "url": {"type": "str", "default": ""},
            **LOCK_OPTIONS,
        },
        supports_check_mode=True,
    )
    root = module.params["root"]
    healed: list[str] = []
    try:
        if module.check_mode:
            broken_off = pending(root)
        else:
            with locked(module.params, "recovery", storage_only=False):
                broken_off = pending(root)
                healed = recover_all(root, Stack(root, url=module.params["url"]))
    except RegistryError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(broken_off or healed), pending=broken_off, healed=healed)


if __name__ == "__main__":
    main()
