#!/usr/bin/python
# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: client_info
short_description: What a machine has that pulls from and pushes to a registry
version_added: 0.1.0
description:
  - Looks which tools are installed, where the system keeps certificate authorities, and what the Docker Engine goes by.
extends_documentation_fragment:
  - dockyard.registry.attributes
  - dockyard.registry.attributes.info
options:
  name:
    description: Whose settings, as M(dockyard.registry.client_files) knows them, count as V(ours).
    type: str
    default: ""
seealso:
  - module: dockyard.registry.client_files
author:
  - Dockyard maintainers (@dockyard)
"""

EXAMPLES = r"""
- name: Look at the machine
  dockyard.registry.client_info:
  register: client
"""

RETURN = r"""
tools:
  description: Kinds of tools that are installed - V(docker), V(containers), V(containerd), V(k3s), V(buildkit).
  returned: success
  type: list
  elements: str
  sample: [docker, containerd]
store:
  description: The system's certificate store. Empty values where there is none that is known.
  returned: success
  type: dict
  contains:
    command: {description: Command that rebuilds the store., type: list, elements: str}
    folder: {description: Folder for authorities of one's own., type: str}
engine:
  description: What the running Docker Engine goes by.
  returned: success
  type: dict
  contains:
    answers: {description: Whether it answers., type: bool}
    mirrors: {description: Its mirrors of Docker Hub., type: list, elements: str}
    insecure: {description: Registries that it speaks plain HTTP to., type: list, elements: str}
containerd_config:
  description:
    - Whether C(/etc/containerd/config.toml) names a folder of C(hosts.toml) files, V(set) or V(unset).
      V(absent) where there is no such file. V(ours) where it does because of the settings O(name).
  returned: success
  type: str
  sample: unset
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.registry.plugins.module_utils import _client_host


def main() -> None:
    module = AnsibleModule(argument_spec={"name": {"type": "str", "default": ""}}, supports_check_mode=True)
    try:
        module.exit_json(
            changed=False,
            tools=_client_host.tools(),
            store=_client_host.store()._asdict(),
            engine=_client_host.engine()._asdict(),
            containerd_config=_client_host.containerd_config(module.params["name"]),
        )
    except (OSError, UnicodeDecodeError) as error:
        module.fail_json(msg=f"look at the machine: {error}")


if __name__ == "__main__":
    main()
