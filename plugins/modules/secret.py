#!/usr/bin/python
# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: secret
short_description: Secrets that a host makes once and keeps in files
version_added: 0.1.0
description:
  - Makes a random secret, keeps it in a file that only its owner may read, and returns it in every run.
  - A secret consists of letters, digits, V(-) and V(_), and begins with a letter. It is safe in URLs and
    shells.
  - A value that a person wrote into the file is kept. An empty or damaged file is an error that names it,
    never a reason to make another secret.
  - Parallel runs get the same secret.
extends_documentation_fragment:
  - dockyard.registry.attributes
attributes:
  check_mode:
    support: full
    details: Returns a text in the place of a secret that a real run would make.
  diff_mode:
    support: full
    details: Says which files are made or get another owner or mode. Never shows a secret.
  idempotent:
    support: full
options:
  path:
    description: The file that keeps the secret. Its folder must exist. Exclusive with O(paths).
    type: path
  paths:
    description: Several files, each with a secret of its own.
    type: list
    elements: path
  bits:
    description: How many random bits a new secret has at least, 128 to 384.
    type: int
    default: 192
  owner:
    description: Name or number of the file's owner. By default it stays as it is.
    type: str
  group:
    description: Name or number of the file's group. By default it stays as it is.
    type: str
  mode:
    description: The file's mode, octal and quoted.
    type: raw
    default: "0600"
notes:
  - The result holds the secrets. Use C(no_log) on the task.
  - A lock file C(.secrets.lock) stays in the folder of the secrets.
seealso:
  - module: dockyard.registry.htpasswd_user
author:
  - Dockyard maintainers (@dockyard)
"""

EXAMPLES = r"""
- name: One secret
  dockyard.registry.secret:
    path: /opt/registry/secrets/http
  register: http_secret
  no_log: true

- name: Two secrets in one task
  dockyard.registry.secret:
    paths:
      - /opt/registry/secrets/http
      - /opt/registry/secrets/redis
  register: secrets
  no_log: true

- name: Use one of them
  ansible.builtin.debug:
    msg: "It has {{ secrets.by_path['/opt/registry/secrets/redis'] | length }} characters"
"""

RETURN = r"""
value:
  description: The secret. In check mode, a text in its place where the file is missing.
  returned: success, with O(path)
  type: str
by_path:
  description: The secrets of all files by path, also with O(path).
  returned: success
  type: dict
  sample: {/opt/registry/secrets/http: hX0…}
created:
  description: The files that were made, in check mode would be.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.registry.plugins.module_utils import _files
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._secrets import Secret, ensure_secret


def words(secret: Secret, *, after: bool) -> str:
    """What the diff says about a secret's file, before and after."""
    if secret.created:
        return "a secret" if after else "missing"
    return "a secret, owner and mode as asked for" if after else "a secret, another owner or mode"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path"},
            "paths": {"type": "list", "elements": "path"},
            "bits": {"type": "int", "default": 192},
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "mode": {"type": "raw", "default": "0600"},
        },
        mutually_exclusive=[("path", "paths")],
        required_one_of=[("path", "paths")],
        supports_check_mode=True,
    )
    params = module.params
    try:
        attributes = _files.attributes_from(params["mode"], params["owner"], params["group"])
        made = {
            path: ensure_secret(
                path, bits=params["bits"], attributes=attributes, check_mode=module.check_mode
            )
            for path in params["paths"] or [params["path"]]
        }
    except RegistryError as error:
        module.fail_json(msg=str(error))
    touched = {path: secret for path, secret in made.items() if secret.created or secret.corrected}
    result = {
        "changed": bool(touched),
        "by_path": {path: secret.value for path, secret in made.items()},
        "created": [path for path, secret in made.items() if secret.created],
    }
    if params["path"]:
        result["value"] = made[params["path"]].value
    if module._diff:
        result["diff"] = {
            "before": "".join(f"{path}: {words(touched[path], after=False)}\n" for path in touched),
            "after": "".join(f"{path}: {words(touched[path], after=True)}\n" for path in touched),
        }
    module.exit_json(**result)


if __name__ == "__main__":
    main()
