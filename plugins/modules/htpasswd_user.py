#!/usr/bin/python
# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: htpasswd_user
short_description: Users in a registry's htpasswd file
version_added: 0.1.0
description:
  - Adds, changes and removes users in the htpasswd file of a registry (CNCF distribution), one user or
    any number in one call, and can prove that the running registry goes by the new file.
  - The file is replaced in one piece, under a lock, and its modification time always moves forward,
    because that is what makes the registry read it again. No restart is needed. Parallel runs lose
    nothing.
  - Comments, blank lines and the order of the file stay.
  - Hashes are bcrypt, the only kind that the registry knows. They are computed on all cores of the host.
extends_documentation_fragment:
  - dockyard.registry.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Shows users and the cost of their hashes, never a hash or a password.
  idempotent:
    support: partial
    details: A user with O(reset=true) gets a new password in every run. Everything else is idempotent.
options:
  path:
    description:
      - The htpasswd file. It is created when needed; its folder must exist.
      - A container must mount the folder, not the file, or it never sees a change.
      - A file with a line that the registry cannot use is left alone, and the error says which line and why.
    type: path
    required: true
  name:
    description:
      - The name of the user. Exclusive with O(users).
      - It must not be empty, hold V(:) or control characters, begin with V(#), or begin or end with a blank.
    type: raw
  password:
    description:
      - The password of the user, at most 72 bytes, without control characters. It must be a string, so
        put it in quotes, for YAML reads V(0123) as the number 83.
      - Without a password and O(password_file), a user that exists is left alone, and a new user gets a
        generated password, see RV(generated).
      - For a user that should be absent, the old password. With O(verify_url), the registry must refuse
        it afterwards.
    type: raw
  password_file:
    description:
      - A file on the host that keeps the password. Where it is missing, a password is generated and kept
        there, readable by its owner only. Exclusive with O(password).
      - To change the password, remove the file and run again.
    type: path
  state:
    description: Whether the user should be there. V(present) by default.
    type: str
    choices: [present, absent]
  cost:
    description:
      - The cost of the bcrypt hash, 4 to 15. The registry computes it for every request, and each step
        doubles that.
      - The default is 10 for a password that a person chose, and 5 for one that this module or
        M(dockyard.registry.secret) generated, which nobody can guess at any cost.
      - A user whose hash has another cost gets a new hash.
    type: int
  reset:
    description: Give the user a new generated password, returned in RV(generated).
    type: bool
  users:
    description: Any number of users, with the options above. Exclusive with O(name).
    type: list
    elements: dict
    suboptions:
      name:
        description: See O(name).
        type: raw
        required: true
      password:
        description: See O(password).
        type: raw
      password_file:
        description: See O(password_file).
        type: path
      state:
        description: See O(state).
        type: str
        choices: [present, absent]
      cost:
        description: See O(cost).
        type: int
      reset:
        description: See O(reset).
        type: bool
      permissions:
        description: Ignored here, so that entries of the role's C(registry_users) can be passed on. A
          proxy enforces it.
        type: list
        elements: str
      repositories:
        description: Ignored here, as O(users[].permissions).
        type: list
        elements: str
  exclusive:
    description: Remove all users that are neither listed in O(users) (or O(name)) nor in O(keep).
    type: bool
    default: false
  keep:
    description: Names of users that O(exclusive) does not remove.
    type: list
    elements: str
    default: []
  update_password:
    description: Whether a password applies to every user, or with V(on_create) only to users that are not
      there yet.
    type: str
    choices: [always, on_create]
    default: always
  owner:
    description: Name or number of the file's owner. By default that of the old file, or the user that
      runs the module.
    type: str
  group:
    description: Name or number of the file's group. By default that of the old file, or of the user that
      runs the module.
    type: str
  mode:
    description: The file's mode, octal and quoted.
    type: raw
    default: "0640"
  lock_timeout:
    description: Seconds to wait for other runs that change the same file.
    type: int
    default: 60
  verify_url:
    description:
      - Address of the running registry, V(http://) or V(https://). After a change it is asked whether it
        goes by the new file, see RV(verified), and the module fails where it does not; the new file
        stays.
      - Where nobody was added or got another password, that is proven by a user that is in the file for a
        moment only, with a random name and password.
    type: str
  connect_to:
    description: The address to connect to instead of the one that the host in O(verify_url) stands for.
    type: str
  ca_file:
    description: A PEM file with the certificate authorities to trust for O(verify_url) instead of the
      host's own.
    type: path
  validate_certs:
    description: Whether the certificate of O(verify_url) must be valid.
    type: bool
    default: true
  verify_timeout:
    description: Seconds until the registry must have answered as it should.
    type: int
    default: 10
requirements:
  - passlib 1.7.4 with bcrypt 3.2 to 4 (Debian packages C(python3-passlib) and C(python3-bcrypt)), or libpass
notes:
  - Two lines for one user are left as they are, with a warning, until that user changes. The registry
    goes by the last.
  - A lock file C(.htpasswd.lock) stays beside the file.
seealso:
  - module: dockyard.registry.secret
  - module: community.general.htpasswd
    description: For other servers. Its default hash is one that the registry does not know.
author:
  - Dockyard maintainers (@dockyard)
"""

EXAMPLES = r"""
- name: Alice may log in
  dockyard.registry.htpasswd_user:
    path: /opt/registry/auth/htpasswd
    name: alice
    password: "{{ vault_alice_password }}"
    verify_url: https://registry.example.org

- name: A user for our own plays, its password kept on the host
  dockyard.registry.htpasswd_user:
    path: /opt/registry/auth/htpasswd
    name: maintenance
    password_file: /opt/registry/secrets/maintenance

- name: These users and nobody else, except for the maintenance user
  dockyard.registry.htpasswd_user:
    path: /opt/registry/auth/htpasswd
    users: "{{ registry_users }}"
    exclusive: true
    keep: [maintenance]

- name: Bob forgot his password
  dockyard.registry.htpasswd_user:
    path: /opt/registry/auth/htpasswd
    name: bob
    reset: true
  register: result
  no_log: true
"""

RETURN = r"""
added:
  description: Names of the users that were added, in check mode would be; so are all lists here.
  returned: success
  type: list
  elements: str
updated:
  description: Names of the users that got a new hash.
  returned: success
  type: list
  elements: str
removed:
  description: Names of the users that were removed.
  returned: success
  type: list
  elements: str
unchanged:
  description: Of the users asked for, those that needed nothing.
  returned: success
  type: list
  elements: str
users:
  description: Names of all users in the file afterwards.
  returned: success
  type: list
  elements: str
generated:
  description:
    - The passwords that were generated now, by user name. They are kept nowhere else and are never
      returned again. In check mode, a text in their place.
    - Passwords in O(password_file) are not among them.
    - Also returned when the module fails because the registry does not go by the new file.
  returned: success
  type: dict
  sample: {alice: hX0…}
verified:
  description: What the registry at O(verify_url) was asked and answered. Empty where nothing was asked.
  returned: success
  type: list
  elements: dict
  contains:
    user: {description: As whom it was asked., type: str}
    password: {description: "With which password, in words.", type: str}
    status: {description: "The HTTP status, 200 or 401.", type: int}
  sample:
    - {user: alice, password: the new password, status: 200}
    - {user: alice, password: a wrong password, status: 401}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.registry.plugins.module_utils import _files, _users
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._proof import Proof

USER_OPTIONS: dict[str, dict[str, Any]] = {
    "password": {"type": "raw", "no_log": True},
    "password_file": {"type": "path", "no_log": False},
    "state": {"type": "str", "choices": ["present", "absent"]},
    "cost": {"type": "int"},
    "reset": {"type": "bool"},
}

LISTED_USER_OPTIONS: dict[str, dict[str, Any]] = {
    "name": {"type": "raw", "required": True},
    **USER_OPTIONS,
    "permissions": {"type": "list", "elements": "str"},
    "repositories": {"type": "list", "elements": "str"},
}


def read_request(params: dict[str, Any], check_mode: bool) -> _users.Request:
    """The module's options as a request. Raises RegistryError for what the argument spec cannot express."""
    listed = params["users"] is not None
    proof = Proof(
        params["verify_url"],
        params["ca_file"],
        params["validate_certs"],
        float(params["verify_timeout"]),
        params["connect_to"],
    )
    return _users.Request(
        path=params["path"],
        users=_users.read_users(params["users"] if listed else [params], listed=listed),
        exclusive=params["exclusive"],
        keep=frozenset(params["keep"]),
        only_on_create=params["update_password"] == "on_create",  # noqa: S105
        attributes=_files.attributes_from(params["mode"], params["owner"], params["group"]),
        lock_timeout=params["lock_timeout"],
        check_mode=check_mode,
        proof=proof if params["verify_url"] else None,
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "name": {"type": "raw"},
            **USER_OPTIONS,
            "users": {"type": "list", "elements": "dict", "options": LISTED_USER_OPTIONS},
            "exclusive": {"type": "bool", "default": False},
            "keep": {"type": "list", "elements": "str", "default": []},
            "update_password": {
                "type": "str",
                "choices": ["always", "on_create"],
                "default": "always",
                "no_log": False,
            },
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "mode": {"type": "raw", "default": "0640"},
            "lock_timeout": {"type": "int", "default": 60},
            "verify_url": {"type": "str"},
            "connect_to": {"type": "str"},
            "ca_file": {"type": "path"},
            "validate_certs": {"type": "bool", "default": True},
            "verify_timeout": {"type": "int", "default": 10},
        },
        mutually_exclusive=[(option, "users") for option in ("name", *USER_OPTIONS)],
        required_one_of=[("name", "users")],
        supports_check_mode=True,
    )
    try:
        outcome = _users.apply(read_request(module.params, module.check_mode))
    except _users.NoEffect as error:
        module.fail_json(msg=str(error), **error.outcome.result())
    except RegistryError as error:
        module.fail_json(msg=str(error))
    for warning in outcome.warnings:
        module.warn(warning)
    result = outcome.result()
    if module._diff:
        result["diff"] = {
            "before_header": module.params["path"],
            "after_header": module.params["path"],
            "before": outcome.before,
            "after": outcome.after,
        }
    module.exit_json(**result)


if __name__ == "__main__":
    main()
