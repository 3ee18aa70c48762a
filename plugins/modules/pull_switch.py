#!/usr/bin/python
# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pull_switch
short_description: Let pulls go on while the registry behind a proxy is away
version_added: 0.1.0
description:
  - Of a stack with a proxy, starts a second, read-only registry on the same storage and lets it take the pulls, and
    the other way round. The proxy is reloaded gracefully.
  - Meanwhile pushes get an answer that makes their client come back - 503 for docker, 429 for podman, skopeo and
    buildah.
  - Requests under way are waited for.
extends_documentation_fragment:
  - dockyard.registry.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  root:
    description: The folder of the registry on the host.
    type: path
    required: true
  mode:
    description:
      - With V(maintenance), the reader takes the pulls, and the registry may go away.
      - With V(normal), the registry takes everything. It must answer first; until it does, pulls stay with the reader.
    type: str
    choices: [normal, maintenance]
    required: true
  wait:
    description: Seconds that a registry has to answer, and the proxy to go by the switch.
    type: float
    default: 60
  drain:
    description: Seconds that requests under way are waited for.
    type: float
    default: 60
author:
  - Dockyard maintainers (@dockyard)
"""

EXAMPLES = r"""
- name: Pulls go on while the registry is away
  dockyard.registry.pull_switch:
    root: /opt/registry
    mode: maintenance

- name: The registry takes over again
  dockyard.registry.pull_switch:
    root: /opt/registry
    mode: normal
"""

RETURN = r"""
mode:
  description: What the switch says now.
  returned: success
  type: str
drained:
  description: Whether every request that was under way to the registry has ended.
  returned: with O(mode=maintenance), success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._switch import MAINTENANCE, NORMAL, Switch


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "mode": {"type": "str", "choices": [NORMAL, MAINTENANCE], "required": True},
            "wait": {"type": "float", "default": 60.0},
            "drain": {"type": "float", "default": 60.0},
        },
        supports_check_mode=True,
    )
    params = module.params
    switch = Switch(params["root"], patience=params["wait"], drain=params["drain"])
    changes = switch.mode() != params["mode"]
    if module.check_mode:
        module.exit_json(changed=changes, mode=params["mode"], drained=True)
    try:
        if params["mode"] == MAINTENANCE:
            module.exit_json(drained=switch.enter(), changed=changes, mode=switch.mode())
        changes = switch.leave()
    except RegistryError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changes, mode=switch.mode())


if __name__ == "__main__":
    main()
