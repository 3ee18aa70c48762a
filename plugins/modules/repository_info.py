#!/usr/bin/python
# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: repository_info
short_description: What is in a registry
version_added: 0.1.0
description:
  - Lists repositories with their tags, digests, media types, platforms, sizes, times of pushes, referrers
    and untagged manifests.
  - With O(data), reads the registry's storage on this host, which is fast and shows everything. Without
    it, asks the registry at O(url), which tells neither the times of pushes nor what untagged manifests it
    has.
extends_documentation_fragment:
  - dockyard.registry.connection
  - dockyard.registry.attributes
  - dockyard.registry.attributes.info
options:
  data:
    description:
      - The folder on this host that is mounted at C(/var/lib/registry). The registry may go on working.
    type: path
  url:
    description:
      - The address of the registry, V(http://) or V(https://), as its clients use it. Required without
        O(data).
    required: false
  repositories:
    description:
      - Names of repositories, each of which must be there, or patterns, which need not match any.
      - In a pattern V(*) stands for anything but a slash, V(**) for any number of parts of a path, V(?)
        for one character, V([abc]) for one of these. A pattern that begins with V(regex:) is a regular
        expression for the whole name, V(regex:^…$).
      - All repositories by default.
    type: list
    elements: str
    default: []
  configs:
    description:
      - Whether to ask for the config of each image too, which tells the platform of an image that is in no
        index, and its date of creation.
      - Over HTTP that is two requests more for each image, and V(false) by default. With O(data), it is
        always done.
    type: bool
    default: false
seealso:
  - module: dockyard.registry.retention
author:
  - Dockyard maintainers (@dockyard)
"""

EXAMPLES = r"""
- name: Everything, from the registry's own disk
  dockyard.registry.repository_info:
    data: /opt/registry/data
  register: contents

- name: For people
  ansible.builtin.debug:
    msg: "{{ contents.table }}"

- name: Emptied repositories
  ansible.builtin.debug:
    msg: "{{ contents.repositories | selectattr('state', 'equalto', 'emptied') | map(attribute='name') }}"

- name: All repositories of a team, over HTTP
  dockyard.registry.repository_info:
    url: https://registry.example.org
    username: maintenance
    password: "{{ maintenance_password }}"
    repositories: [team/**]
"""

RETURN = r"""
repositories:
  description: The repositories, by name.
  returned: success
  type: list
  elements: dict
  contains:
    name: {description: Its name., type: str}
    state:
      description:
        - V(live) with at least one tag; V(untagged) with manifests but no tag; V(emptied) where all
          manifests were deleted, and only the name is left; V(unfinished) where nothing was ever pushed to
          the end. Over HTTP, an untagged one looks emptied.
      type: str
    size:
      description: Bytes of all its manifests and their blobs, as for tags.
      type: dict
    tags:
      description: The tags, sorted as people count (1.9 before 1.10).
      type: list
      elements: dict
      contains:
        name: {description: The tag., type: str}
        digest: {description: The manifest that it points to., type: str}
        media_type: {description: "The manifest's media type, empty where it is damaged.", type: str}
        artifact_type: {description: What kind of artifact it says it is. Empty for images., type: str}
        platforms:
          description: As V(linux/amd64) or V(linux/arm/v7). Without configs, those of indexes only.
          type: list
          elements: str
        created:
          description: When the image was built, as its config says. V(null) where it does not, where it
            names no date of a real build (such as 1970), and without configs.
          type: str
        pushed: {description: When the tag was last pushed. V(null) over HTTP., type: str}
        size:
          description:
            - C(total) bytes of the manifest, its children and referrers and their blobs, each counted once;
              C(exclusive) of these nothing else needs, so much is freed when the tag goes; C(shared)
              is the rest.
            - Over HTTP, only the repositories that are listed count as sharing.
          type: dict
        same_digest: {description: Other tags of the repository for it., type: list, elements: str}
        repositories: {description: Other repositories with this manifest., type: list, elements: str}
        children:
          description:
            - What an index lists, with C(digest), C(media_type), C(platform), C(is_attestation) and
              C(is_there).
          type: list
          elements: dict
        referrers:
          description:
            - Signatures and the like about this manifest, with C(digest), C(artifact_type), and C(tag) where
              a tag such as C(sha256-….sig) says so, not the manifest itself.
          type: list
          elements: dict
        is_referrer_tag:
          description: Whether the tag itself is such a tag, as those of cosign are.
          type: bool
        subject:
          description: The manifest that this one is about. V(null) for most.
          type: str
    untagged:
      description:
        - Manifests that no tag leads to, as tags but without C(name), and with C(indexes), the untagged
          indexes that list them. V(null) over HTTP, which does not show them.
      type: list
      elements: dict
    untagged_bytes:
      description: So much is freed when all of these go. V(null) over HTTP.
      type: int
tags:
  description: How many tags there are in these repositories.
  returned: success
  type: int
bytes:
  description: Bytes of all that these repositories have, each blob counted once.
  returned: success
  type: int
unreferenced_bytes:
  description:
    - Bytes of blobs in the whole registry that no manifest needs, which garbage collection frees. Pushes
      under way are among them. V(null) over HTTP.
  returned: success
  type: int
complete:
  description: Whether untagged manifests and times of pushes are known.
  returned: success
  type: bool
problems:
  description: What is damaged, with C(code), C(path), C(detail), C(repository) and C(digest).
  returned: success
  type: list
  elements: dict
table:
  description: The list for people, with aligned columns.
  returned: success
  type: str
  sample: |-
    REPOSITORY  TAG  DIGEST               CONTENT          SIZE  EXCLUSIVE  PUSHED (UTC)
    app         1.0  sha256:0123456789ab  linux/amd64  12.5 MiB    1.5 MiB  2026-01-31 12:00
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._inventory import (
    read_disk,
    read_http,
    render,
)
from ansible_collections.dockyard.registry.plugins.module_utils._module import CONNECTION_OPTIONS, client_from


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_OPTIONS,
            "url": {"type": "str"},
            "data": {"type": "path"},
            "repositories": {"type": "list", "elements": "str", "default": []},
            "configs": {"type": "bool", "default": False},
        },
        required_one_of=[("data", "url")],
        supports_check_mode=True,
    )
    params = module.params
    try:
        if params["data"]:
            inventory = read_disk(params["data"], params["repositories"])
        else:
            inventory = read_http(client_from(params), params["repositories"], configs=params["configs"])
    except RegistryError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, table=render(inventory), **inventory)


if __name__ == "__main__":
    main()
