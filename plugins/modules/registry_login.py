#!/usr/bin/python
# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_login
short_description: Logins of docker, podman, skopeo and buildah
version_added: 0.1.0
description:
  - Keeps the login for one registry in the file of one account, as C(docker login) or C(podman login) would, and
    leaves every other entry of that file as it is. The file is replaced atomically, with mode 0600.
  - The registry is asked first. A user and password that it refuses are an error before anything changes.
  - Where the file names a credential helper (C(credsStore), C(credHelpers)), that keeps the password, through its own
    protocol.
  - The password is in no command line, log or diff.
  - M(community.docker.docker_login) needs the Docker SDK and an engine on the host, and knows docker's file only. This
    module needs Python, and works for tools that have no engine.
extends_documentation_fragment:
  - dockyard.registry.attributes
attributes:
  check_mode:
    support: full
    details: Asks the registry, and changes nothing.
  diff_mode:
    support: full
    details: Names users, never passwords.
  idempotent:
    support: full
options:
  registry:
    description: The registry as it stands in names of images, C(HOST) or C(HOST:PORT).
    type: str
    required: true
  username:
    description:
      - The user to log in as. Needed with O(state=present).
      - With O(state=absent), only a login of this user is removed. Without it, any.
    type: str
  password:
    description: The password of O(username). Needed with O(state=present).
    type: str
  state:
    description: Whether the login is there.
    type: str
    choices: [present, absent]
    default: present
  tool:
    description: Whose file. V(containers) is what podman, skopeo and buildah read.
    type: str
    choices: [docker, containers]
    default: docker
  account:
    description:
      - The unix account whose file it is, and as whom it is written. Another one than the module's own needs root.
      - By default the one that the module runs as.
    type: str
  path:
    description:
      - The file. By default C(~/.docker/config.json) or C(~/.config/containers/auth.json) of O(account). The latter
        stays over a reboot, unlike the one that C(podman login) writes by itself.
    type: path
  verify:
    description: Whether to ask the registry first.
    type: bool
    default: true
  insecure:
    description: Whether the registry speaks plain HTTP.
    type: bool
    default: false
  ca_certificate:
    description: Certificates of authorities in PEM format, instead of those that the system trusts.
    type: str
seealso:
  - module: community.docker.docker_login
author:
  - Dockyard maintainers (@dockyard)
"""

EXAMPLES = r"""
- name: Let root's docker push
  dockyard.registry.registry_login:
    registry: registry.example.org:5000
    username: ci
    password: "{{ vault_registry_ci }}"

- name: Let alice's podman pull
  dockyard.registry.registry_login:
    registry: registry.example.org:5000
    username: alice
    password: "{{ vault_registry_alice }}"
    tool: containers
    account: alice

- name: Take that login away
  dockyard.registry.registry_login:
    registry: registry.example.org:5000
    username: alice
    tool: containers
    account: alice
    state: absent
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
  sample: /root/.docker/config.json
helper:
  description: The credential helper that keeps the password. Empty where the file does.
  returned: success
  type: str
  sample: pass
verified:
  description: Whether the registry was asked, and took the login.
  returned: success
  type: bool
"""

import os
import pwd
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.registry.plugins.module_utils import _login
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError


def converge(params: dict[str, Any], path: str, owner: _login.Account, check_mode: bool) -> _login.Outcome:
    """Ask the registry, then keep or remove the login."""
    registry = params["registry"]
    if params["state"] == "absent":
        return _login.forget(path, registry, params["username"] or "", owner, check_mode=check_mode)
    login = _login.Login(params["username"], params["password"])
    _login.require_usable(registry, login)
    if params["verify"]:
        _login.verify(
            registry, login, insecure=params["insecure"], ca_certificate=params["ca_certificate"] or ""
        )
    return _login.ensure(path, registry, login, owner, check_mode=check_mode)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "registry": {"type": "str", "required": True},
            "username": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "tool": {"type": "str", "choices": ["docker", "containers"], "default": "docker"},
            "account": {"type": "str"},
            "path": {"type": "path"},
            "verify": {"type": "bool", "default": True},
            "insecure": {"type": "bool", "default": False},
            "ca_certificate": {"type": "str"},
        },
        required_if=[("state", "present", ("username", "password"))],
        supports_check_mode=True,
    )
    params = module.params
    try:
        owner = _login.account(params["account"] or pwd.getpwuid(os.geteuid()).pw_name)
        path = params["path"] or f"{owner.home}/{_login.PLACES[params['tool']]}"
        outcome = converge(params, path, owner, module.check_mode)
    except RegistryError as error:
        module.fail_json(msg=str(error))
    if outcome.shadowed_by:
        module.warn(
            f"{outcome.shadowed_by} has another login for {params['registry']}, which podman and skopeo take first "
            "until the next boot. Remove it with podman logout"
        )
    where = f"{params['registry']} in {outcome.helper or path}"
    module.exit_json(
        changed=outcome.changed,
        path=path,
        helper=outcome.helper,
        verified=params["state"] == "present" and params["verify"],
        diff={
            "before": f"{where}: {outcome.before or 'no login'}\n",
            "after": f"{where}: {outcome.after or 'no login'}\n",
        },
    )


if __name__ == "__main__":
    main()
