#!/usr/bin/python
# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: manifest
short_description: Delete tags and manifests from a registry, and nothing that others need
version_added: 0.1.0
description:
  - Deletes images and artifacts by tag or by digest. Works with registry 2.8, which has no call to delete a
    tag, and with 3.x.
  - A tag goes alone. Its manifest goes with it when no other tag, no index and no referrer that stays needs
    it, and so do children and referrers that only it held.
  - A manifest that is named by digest goes when nothing needs it; otherwise nothing at all is deleted, and
    the message says what needs it.
  - What is gone already is no change. A repository that was never there is an error.
  - The bytes are freed by the next garbage collection. Until then M(dockyard.registry.undelete) brings back
    what was deleted.
extends_documentation_fragment:
  - dockyard.registry.connection
  - dockyard.registry.attributes
attributes:
  check_mode:
    support: full
    details:
      - Says exactly what would go. Whether the registry would allow it is found out by deleting a digest that
        cannot exist.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description: Manifests are deleted. Pushing them is the work of docker, skopeo and others.
    type: str
    choices: [absent]
    default: absent
  images:
    description:
      - What to delete, each as V(repository:tag) or V(repository@sha256:digest), without the registry's name.
      - A tag is never taken for granted, not even V(latest).
    type: list
    elements: str
    required: true
    aliases: [image]
  untag:
    description: Whether manifests that are named by digest take along the tags that point to them.
    type: bool
    default: false
  force:
    description:
      - Delete manifests that are named by digest even where something that stays refers to them. An index
        that lists one can no longer be pulled for that platform.
      - Also where something in the repository is damaged, so that nobody can say what needs them.
    type: bool
    default: false
  referrers:
    description:
      - What becomes of signatures, SBOMs and attestations about an image that goes, whether they have it as
        C(subject) or a tag such as V(sha256-….sig). They go with it, or are kept.
    type: str
    choices: [follow, keep]
    default: follow
  data:
    description:
      - The folder on this host that is mounted at C(/var/lib/registry). With it, manifests without a tag are
        seen too, sizes are exact, deletions are noted for M(dockyard.registry.undelete), and on registry 2.8
        many deletions take a fraction of the time.
      - Without it, everything goes over HTTP, and manifests to which no tag leads are not known.
    type: path
seealso:
  - module: dockyard.registry.undelete
  - module: dockyard.registry.repository_info
  - module: dockyard.registry.retention
author:
  - Dockyard maintainers (@dockyard)
"""

EXAMPLES = r"""
- name: Delete a tag
  dockyard.registry.manifest:
    url: https://registry.example.org
    username: maintenance
    password: "{{ maintenance_password }}"
    image: myapp:1.0

- name: Delete an image with all of its tags, on the registry's host
  dockyard.registry.manifest:
    url: http://127.0.0.1:5000
    username: maintenance
    password: "{{ maintenance_password }}"
    data: /opt/registry/data
    image: myapp@sha256:4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce
    untag: true

- name: Delete several, and keep their signatures
  dockyard.registry.manifest:
    url: http://127.0.0.1:5000
    images: [team/app:1.0, team/app:1.1]
    referrers: keep
"""

RETURN = r"""
tags:
  description: The tags that were deleted.
  returned: when the options could be used
  type: list
  elements: dict
  contains:
    repository: {description: Its repository., type: str}
    tag: {description: The tag., type: str}
    digest: {description: The manifest that it pointed to., type: str}
manifests:
  description: The manifests that were deleted.
  returned: when the options could be used
  type: list
  elements: dict
  contains:
    repository: {description: Its repository., type: str}
    digest: {description: Its digest., type: str}
bytes:
  description: Bytes that the next garbage collection frees.
  returned: when the options could be used
  type: int
bytes_exact:
  description:
    - Whether RV(bytes) is exact. Over HTTP it is the most that can be freed, since other repositories may
      share blobs.
  returned: when the options could be used
  type: bool
absent:
  description: What of O(images) was gone already.
  returned: when the options could be used
  type: list
  elements: str
kept_manifests:
  description: Where a tag goes and its manifest stays, or a manifest was refused, and what needs it.
  returned: when the options could be used
  type: list
  elements: str
  sample: ["keep the manifest of myapp:1.0: also tagged latest"]
spared:
  description: What was to go and was pushed, or needed again, while this ran.
  returned: when the options could be used
  type: list
  elements: str
summary:
  description: All of this for people.
  returned: when the options could be used
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.registry.plugins.module_utils import _deletion, _deletion_report
from ansible_collections.dockyard.registry.plugins.module_utils._client import RegistryClient
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._module import CONNECTION_OPTIONS, client_from
from ansible_collections.dockyard.registry.plugins.module_utils._storage import Storage


def find(params: dict[str, Any], client: RegistryClient, storage: Storage | None) -> _deletion.Plan:
    """What goes. Raises RegistryError where the options cannot be used."""
    targets = _deletion.parse_targets(params["images"])
    return _deletion.plan(
        _deletion.look(targets, client, storage),
        targets,
        untag=params["untag"],
        force=params["force"],
        referrers=_deletion.Referrers(params["referrers"]),
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_OPTIONS,
            "state": {"type": "str", "choices": ["absent"], "default": "absent"},
            "images": {"type": "list", "elements": "str", "required": True, "aliases": ["image"]},
            "untag": {"type": "bool", "default": False},
            "force": {"type": "bool", "default": False},
            "referrers": {"type": "str", "choices": ["follow", "keep"], "default": "follow"},
            "data": {"type": "path"},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        client = client_from(params)
        storage = Storage(params["data"]) if params["data"] else None
        found = find(params, client, storage)
    except RegistryError as error:
        module.fail_json(msg=str(error))
    if found.refused:
        told = _deletion_report.report(found, _deletion.Outcome())
        module.fail_json(msg="\n".join(map(str, found.refused)), **told)
    try:
        if module.check_mode:
            if found.changes:
                _deletion.check(found, client, storage)
            told = _deletion_report.report(found, _deletion_report.foreseen(found), verb="would delete")
        else:
            outcome = _deletion.execute(found, client, storage=storage)
            told = _deletion_report.report(found, outcome)
    except _deletion.DeletionFailed as error:
        module.fail_json(msg=str(error), **_deletion_report.report(found, error.outcome))
    except RegistryError as error:
        module.fail_json(msg=str(error))
    if module._diff:
        told["diff"] = _deletion_report.difference(told)
    module.exit_json(**told)


if __name__ == "__main__":
    main()
