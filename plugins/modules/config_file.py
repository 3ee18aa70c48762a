#!/usr/bin/python
# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: config_file
short_description: The registry's config.yml, checked before it is written
version_added: 0.1.0
description:
  - Writes the configuration of a registry from data. Keys and types are checked against what the registry's version
    knows, because the registry itself takes anything and silently ignores what it does not know.
  - The file is replaced atomically. The difference that is shown has its secrets masked.
extends_documentation_fragment:
  - dockyard.registry.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Secrets are masked; where only a secret changes, both sides look the same.
  idempotent:
    support: full
requirements:
  - PyYAML on the host
options:
  path:
    description: The file. Its folder must exist.
    type: path
    required: true
  config:
    description: The configuration, or the part of it that logs may show.
    type: dict
    required: true
  secrets:
    description:
      - The part of the configuration that logs must not show, merged over O(config).
      - The filter P(dockyard.registry.config_split#filter) takes a configuration apart.
    type: dict
    default: {}
  version:
    description: The registry's version, such as V(2.8.3) or V(3.1.1).
    type: str
    required: true
  owner:
    description: Name or number of the file's owner.
    type: str
  group:
    description: Name or number of the file's group. The registry must be able to read it.
    type: str
  mode:
    description: Permissions of the file, octal. The file holds secrets.
    type: raw
    default: "0640"
seealso:
  - plugin: dockyard.registry.config_errors
    plugin_type: filter
author:
  - Dockyard maintainers (@dockyard)
"""

EXAMPLES = r"""
- name: Configuration of the registry
  dockyard.registry.config_file:
    path: /opt/registry/config/config.yml
    version: "2.8.3"
    secrets:
      http:
        secret: "{{ vault_registry_http_secret }}"
    group: "65532"
    config:
      version: "0.1"
      storage:
        filesystem:
          rootdirectory: /var/lib/registry
      http:
        addr: ":5000"
"""

RETURN = r"""
sha256:
  description: SHA-256 of the file's content, hexadecimal. Changes whenever the configuration does, secrets included.
  returned: success
  type: str
  sample: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.dockyard.registry.plugins.module_utils import _config, _config_file, _files
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "config": {"type": "dict", "required": True},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "version": {"type": "str", "required": True},
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "mode": {"type": "raw", "default": "0640"},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        attributes = _files.attributes_from(options["mode"], options["owner"], options["group"])
        config = _config.merge(options["config"], options["secrets"])
        written = _config_file.write(
            options["path"], config, options["version"], attributes, check_mode=module.check_mode
        )
    except ImportError:
        module.fail_json(msg=missing_required_lib("PyYAML"))
    except RegistryError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=written.changed,
        sha256=written.sha256,
        diff={
            "before_header": options["path"],
            "after_header": options["path"],
            "before": written.before,
            "after": written.after,
        },
    )


if __name__ == "__main__":
    main()
