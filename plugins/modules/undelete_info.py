#!/usr/bin/python
# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: undelete_info
short_description: What was deleted or moved in a repository, and can be brought back
version_added: 0.1.0
description:
  - Lists, latest first, what the tags of a repository pointed to before, what was deleted, and manifests
    without a tag; and of each whether all of it is still there, so that M(dockyard.registry.undelete) can
    bring it back.
  - A registry forgets the name of a tag that is deleted. M(dockyard.registry.manifest) and
    M(dockyard.registry.retention) note it when they have the option C(data). What was deleted otherwise is
    listed without its tag.
extends_documentation_fragment:
  - dockyard.registry.attributes
  - dockyard.registry.attributes.info
options:
  data:
    description: The folder on this host that is mounted at C(/var/lib/registry).
    type: path
    required: true
  repository:
    description: The repository.
    type: str
    required: true
  tag:
    description: Leave out what is known to have had another tag.
    type: str
seealso:
  - module: dockyard.registry.undelete
author:
  - Dockyard maintainers (@dockyard)
"""

EXAMPLES = r"""
- name: What can be brought back
  dockyard.registry.undelete_info:
    data: /opt/registry/data
    repository: myapp
  register: former

- name: Show it
  ansible.builtin.debug:
    msg: "{{ former.table }}"
"""

RETURN = r"""
images:
  description: What there was, latest first.
  returned: success
  type: list
  elements: dict
  contains:
    image: {description: "What to bring back, with the tag where it is known.", type: str}
    repository: {description: Its repository., type: str}
    tag: {description: The tag that it had. Empty where that is not known., type: str}
    digest: {description: The manifest., type: str}
    how:
      description:
        - V(deleted); V(moved), where the tag points to another manifest now; or V(untagged), where the
          manifest is there and no tag leads to it.
      type: str
    since:
      description: When it was deleted; or else when it was last pushed.
      type: str
      sample: "2026-01-31T12:00:00Z"
    complete: {description: Whether it can be brought back., type: bool}
    missing: {description: What is not there any more., type: list, elements: str}
    media_type: {description: Of the manifest. Empty where that is gone., type: str}
    platforms: {description: "Of an image, or of those in an index.", type: list, elements: str}
    created: {description: When an image was built., type: str}
table:
  description: All of this for people.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.registry.plugins.module_utils import _deletion_report, _undelete
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._reference import parse_repository, parse_tag
from ansible_collections.dockyard.registry.plugins.module_utils._storage import Storage


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "data": {"type": "path", "required": True},
            "repository": {"type": "str", "required": True},
            "tag": {"type": "str"},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        repository = parse_repository(params["repository"])
        tag = parse_tag(params["tag"]) if params["tag"] is not None else ""
        found = _undelete.formers(Storage(params["data"]), repository, tag)
    except RegistryError as error:
        module.fail_json(msg=str(error))
    images = [_deletion_report.former(each) for each in found]
    module.exit_json(changed=False, images=images, table=_deletion_report.formers_table(images))


if __name__ == "__main__":
    main()
