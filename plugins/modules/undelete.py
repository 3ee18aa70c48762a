#!/usr/bin/python
# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: undelete
short_description: Bring back a tag that was deleted or moved by mistake
version_added: 0.1.0
description:
  - Points a tag again at a manifest that it had, and gives the repository back the manifest, what it lists
    and what it needs. Works until garbage collection has freed the contents.
  - Runs on the registry's host and writes to its storage what a push would write. The registry may be
    running; it sees it at once.
  - Refuses, naming what is missing, where not all of it is there any more. Then nothing is changed.
extends_documentation_fragment:
  - dockyard.registry.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  data:
    description: The folder on this host that is mounted at C(/var/lib/registry).
    type: path
    required: true
  image:
    description:
      - V(repository:tag@sha256:digest) points the tag at that manifest.
      - V(repository:tag) brings back a tag that was deleted by M(dockyard.registry.manifest) or
        M(dockyard.registry.retention) on this host, with their option C(data). Where its name was not noted,
        the message lists manifests that it may have had.
      - V(repository@sha256:digest) brings back a manifest that has no tag.
      - M(dockyard.registry.undelete_info) lists what there is.
    type: str
    required: true
  referrers:
    description: Whether signatures, SBOMs and attestations that were deleted with the image come back too.
    type: bool
    default: true
seealso:
  - module: dockyard.registry.undelete_info
  - module: dockyard.registry.manifest
author:
  - Dockyard maintainers (@dockyard)
"""

EXAMPLES = r"""
- name: Bring back a tag that was deleted
  dockyard.registry.undelete:
    data: /opt/registry/data
    image: myapp:1.0

- name: Let a tag that was moved point to what it had before
  dockyard.registry.undelete:
    data: /opt/registry/data
    image: myapp:latest@sha256:4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce
"""

RETURN = r"""
tags:
  description: Tags that point to another manifest now.
  returned: success
  type: list
  elements: dict
  contains:
    repository: {description: Its repository., type: str}
    tag: {description: The tag., type: str}
    before: {description: The manifest that it pointed to. V(null) where there was no such tag., type: str}
    digest: {description: The manifest that it points to., type: str}
manifests:
  description: Manifests that the repository has again.
  returned: success
  type: list
  elements: dict
  contains:
    repository: {description: Its repository., type: str}
    digest: {description: Its digest., type: str}
layers:
  description: Blobs that the repository has again.
  returned: success
  type: list
  elements: str
incomplete:
  description: Referrers that were deleted with it and are not all there any more.
  returned: success
  type: list
  elements: str
summary:
  description: All of this for people.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.registry.plugins.module_utils import _deletion_report, _undelete
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._reference import parse_reference
from ansible_collections.dockyard.registry.plugins.module_utils._storage import Storage


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "data": {"type": "path", "required": True},
            "image": {"type": "str", "required": True},
            "referrers": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        restored = _undelete.undelete(
            Storage(params["data"]),
            parse_reference(params["image"]),
            referrers=params["referrers"],
            check_mode=module.check_mode,
        )
    except RegistryError as error:
        module.fail_json(msg=str(error))
    told = _deletion_report.restored(restored)
    if module._diff:
        told["diff"] = _deletion_report.restored_difference(told)
    module.exit_json(**told)


if __name__ == "__main__":
    main()
