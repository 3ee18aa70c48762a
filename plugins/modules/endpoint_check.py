#!/usr/bin/python
# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: endpoint_check
short_description: Ask a running registry whether it does its work
version_added: 0.1.0
description:
  - Asks a registry through the address that its clients use, so that proxies, certificates and users are part
    of the check.
  - Without a user the registry must answer 401, and with O(username) and O(password) 200.
  - With O(write=true), pushes a tiny artifact of random content, pulls it, compares every byte and deletes
    it. Nothing of it is left where O(data) is given.
  - Fails with the cause where something is not as it should be.
extends_documentation_fragment:
  - dockyard.registry.connection
  - dockyard.registry.attributes
attributes:
  check_mode:
    support: full
    details: In check mode only the reading part runs.
  diff_mode:
    support: N/A
    details: Changes nothing that lasts.
  idempotent:
    support: full
    details: Never reports a change.
options:
  anonymous:
    description:
      - Whether anybody is meant to get in without a user. It is an error when a registry lets anybody in and
        this is V(false), and the other way round.
    type: bool
    default: false
  write:
    description:
      - Whether to push, pull and delete an artifact, in a repository of its own below C(dockyard-check).
      - Where deletion is disabled in the registry, the step C(delete) is V(unsupported), which is no error.
    type: bool
    default: false
  data:
    description:
      - The folder on this host that is mounted at C(/var/lib/registry). With it, the repository and its blobs
        are removed from the disk, and so is what earlier checks left that were killed.
      - Without it, all checks use one repository, which stays listed and empty.
    type: path
  wait:
    description: Seconds that the registry may take until it answers.
    type: float
    default: 30
seealso:
  - module: ansible.builtin.uri
  - module: dockyard.registry.htpasswd_user
author:
  - Dockyard maintainers (@dockyard)
"""

EXAMPLES = r"""
- name: The registry answers, and only users get in
  dockyard.registry.endpoint_check:
    url: https://registry.example.org
    ca_file: /opt/registry/certs/ca.crt
    username: maintenance
    password: "{{ maintenance_password }}"

- name: It stores and gives back what is pushed
  dockyard.registry.endpoint_check:
    url: http://127.0.0.1:5000
    username: maintenance
    password: "{{ maintenance_password }}"
    write: true
    data: /opt/registry/data

- name: A registry for everybody, while it comes up
  dockyard.registry.endpoint_check:
    url: http://127.0.0.1:5000
    anonymous: true
    wait: 120
"""

RETURN = r"""
reachable:
  description: Whether a registry answered.
  returned: always, once the options could be used
  type: bool
api_version:
  description: What the registry says it speaks. Empty where it did not let us in.
  returned: always, once the options could be used
  type: str
  sample: registry/2.0
anonymous:
  description: Whether it lets anybody in without a user. V(null) where it did not answer.
  returned: always, once the options could be used
  type: bool
steps:
  description: What was done, in order.
  returned: always, once the options could be used
  type: list
  elements: dict
  contains:
    step:
      description:
        - V(answer), V(anonymous) and V(login), and with O(write) V(push), V(pull), V(delete) and V(clean).
      type: str
    status:
      description: V(ok), V(failed), or V(unsupported) where the registry is set not to do this.
      type: str
    seconds:
      description: How long it took.
      type: float
  sample:
    - {step: answer, status: ok, seconds: 0.004}
leftovers:
  description: What could not be removed again, and why.
  returned: always, once the options could be used
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.registry.plugins.module_utils._canary import EndpointCheck
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._module import CONNECTION_OPTIONS, client_from
from ansible_collections.dockyard.registry.plugins.module_utils._storage import Storage


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_OPTIONS,
            "anonymous": {"type": "bool", "default": False},
            "write": {"type": "bool", "default": False},
            "data": {"type": "path"},
            "wait": {"type": "float", "default": 30.0},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        user = client_from(params)
        nobody = user
        if params["username"] is not None:
            nobody = client_from({**params, "username": None, "password": None})
        storage = Storage(params["data"]) if params["data"] and params["write"] else None
        check = EndpointCheck(nobody, user, storage)
    except RegistryError as error:
        module.fail_json(msg=str(error))
    try:
        check.read(anonymous=params["anonymous"], wait=params["wait"])
        if params["write"] and not module.check_mode:
            check.write()
    except RegistryError as error:
        module.fail_json(msg=str(error), **check.result())
    module.exit_json(changed=False, **check.result())


if __name__ == "__main__":
    main()
