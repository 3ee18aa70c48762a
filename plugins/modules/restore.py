#!/usr/bin/python
# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: restore
short_description: Restore a registry from a backup
version_added: 0.1.0
description:
  - Restores a backup that M(dockyard.registry.backup) has made, with those that it builds on, or a tar archive
    of a registry's folder that somebody made by hand.
  - Everything is read, checked and unpacked beside the present data first. A backup that is damaged, cut off,
    of another program or of a newer format is refused, and so are paths and links in it that lead elsewhere,
    before anything is touched.
  - Then the registry is stopped, the folders change places, it is started and asked for every tag. The former
    data stays until that has succeeded, and comes back where it does not.
  - A run that is killed is taken back or finished by the next run of any maintenance.
  - With O(repositories) or O(images), what is named is pushed into the running registry instead, which nobody
    notices.
  - Both locks are held while everything is restored, only that of the storage otherwise, and none in check mode.
extends_documentation_fragment:
  - dockyard.registry.connection
  - dockyard.registry.maintenance
  - dockyard.registry.maintenance.progress
  - dockyard.registry.attributes
attributes:
  check_mode:
    support: full
    details: Reads the backup's inventory and says what would change.
  diff_mode:
    support: full
    details: Shows all tags with their digests, before and after.
  idempotent:
    support: partial
    details: Parts of a backup are. All of it is restored whenever it is asked for.
options:
  backup:
    description:
      - The name of a backup in O(dir), or its path, or V(latest) for the newest that is whole.
      - An archive made by hand may be packed with gzip or zstd. It needs the folder C(docker/registry/v2),
        whatever is in front of it, and may have C(auth/htpasswd) and C(config.yml) where that is C(data/).
    type: str
    required: true
  dir:
    description: The folder with the backups.
    type: path
    default: /var/backups/registry
  root:
    description: The registry's folder on this host, with C(compose.yml).
    type: path
    default: /opt/registry
  data:
    description: The folder that is mounted at C(/var/lib/registry). By default C(data) below O(root).
    type: path
  parts:
    description:
      - What is restored. V(users) is C(auth/), V(config) C(config/), V(secrets) C(secrets/) and
        V(certificates) C(certs/) below O(root). Files that the backup does not have stay.
      - The password of O(username) stays that of this host, since it is how the plays get in.
      - C(compose.yml) and C(proxy/) are in a backup, too; the role writes them, so they are left alone.
    type: list
    elements: str
    choices: [data, users, config, secrets, certificates]
    default: [data]
  repositories:
    description: Restore only these repositories, into the running registry.
    type: list
    elements: str
    default: []
  images:
    description:
      - Restore only these tags, such as V(app:1.0), into the running registry, with what they need and their
        signatures.
    type: list
    elements: str
    default: []
  as_repository:
    description: Restore the only repository that is named under this name.
    type: str
  overwrite:
    description:
      - Whether tags are moved that point to something else by now. Otherwise they are named, and nothing is
        restored.
    type: bool
    default: false
  verify:
    description:
      - Only try it. Restores into O(scratch_dir), starts a second registry on that, pulls every tag with all
        that belongs to it, and removes both. Nothing of the running registry is touched.
    type: bool
    default: false
  scratch_dir:
    description: Where a trial and a part of a backup are unpacked. By default O(dir).
    type: path
  keep_old:
    description: Whether the former data is kept, beside the new, as RV(kept) says.
    type: bool
    default: false
  allow_damage:
    description:
      - Whether to go on where blobs or links are missing or damaged, so that some tags cannot be pulled. They
        are named in RV(notes).
      - Without effect on archives whose own sums are wrong.
    type: bool
    default: false
  identity:
    description: A file on this host with the key of backups that are encrypted with age. gpg finds its keys.
    type: path
  config:
    description: The registry's configuration, which names its Redis. C(config/config.yml) in O(root) by default.
    type: path
seealso:
  - module: dockyard.registry.backup
author:
  - Dockyard maintainers (@dockyard)
"""

EXAMPLES = r"""
- name: Bring back everything as it was in the last backup
  dockyard.registry.restore:
    url: http://127.0.0.1:5000
    username: maintenance
    password: "{{ maintenance_password }}"
    backup: latest

- name: Bring back one tag that was deleted
  dockyard.registry.restore:
    url: http://127.0.0.1:5000
    username: maintenance
    password: "{{ maintenance_password }}"
    backup: registry-20260301T020000Z-full.tar
    images: [team/app:1.0]

- name: Prove that the last backup can be restored
  dockyard.registry.restore:
    url: http://127.0.0.1:5000
    username: maintenance
    password: "{{ maintenance_password }}"
    backup: latest
    verify: true
    scratch_dir: /var/tmp
"""

RETURN = r"""
backup:
  description: The name of the archive.
  returned: success
  type: str
chain:
  description: All archives that were read, the newest first.
  returned: success
  type: list
  elements: str
kind:
  description: V(full), V(incremental) or V(by hand).
  returned: success
  type: str
created:
  description: When it was made. Empty for one made by hand.
  returned: success
  type: str
parts:
  description: What could be restored from it.
  returned: success
  type: list
  elements: str
counts:
  description: The numbers of C(repositories), C(tags) and C(blobs) in it, and C(bytes).
  returned: success
  type: dict
recovered:
  description: What was done about earlier maintenance that broke off.
  returned: success
  type: list
  elements: str
difference:
  description: What the whole backup changes.
  returned: when everything is restored
  type: dict
  contains:
    added: {description: Tags that come., type: list, elements: str}
    removed: {description: Tags that go., type: list, elements: str}
    changed: {description: Tags that point to something else., type: list, elements: str}
    blobs_added: {description: Blobs that come., type: int}
    blobs_removed: {description: Blobs that go., type: int}
    bytes_added: {description: Their bytes., type: int}
    bytes_removed: {description: Their bytes., type: int}
restored:
  description: What was pushed, or would be.
  returned: with O(repositories) or O(images)
  type: dict
  contains:
    tags: {description: Tags that were written., type: list, elements: str}
    unchanged: {description: Tags that were right already., type: list, elements: str}
    kept: {description: Tags that point to something else and stay., type: list, elements: str}
    manifests: {description: Manifests that the registry lacked., type: int}
    blobs: {description: Blobs that came from the backup., type: int}
    bytes: {description: Their bytes., type: int}
    mounted: {description: Blobs that another repository had., type: int}
drill:
  description: What was pulled from the scratch registry, each compared with its digest.
  returned: with O(verify=true), not in check mode
  type: dict
  contains:
    tags: {description: Tags., type: int}
    manifests: {description: Manifests., type: int}
    blobs: {description: Configs and layers., type: int}
    bytes: {description: Bytes of all of them., type: int}
    seconds: {description: How long it took with unpacking., type: float}
kept:
  description: Where the former data is. Empty where it is not kept.
  returned: when everything is restored
  type: str
notes:
  description: What one should know, such as damage that was let pass.
  returned: success
  type: list
  elements: str
"""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.registry.plugins.module_utils._collection import read_config
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._maintenance import WORK_OPTIONS, locked
from ansible_collections.dockyard.registry.plugins.module_utils._module import CONNECTION_OPTIONS, client_from
from ansible_collections.dockyard.registry.plugins.module_utils._progress import FileProgress
from ansible_collections.dockyard.registry.plugins.module_utils._restore import Request, run
from ansible_collections.dockyard.registry.plugins.module_utils._stack import Stack


def read_request(params: dict[str, Any], check_mode: bool) -> Request:
    """The module's options as a request. Raises RegistryError."""
    return Request(
        root=params["root"],
        backup=params["backup"],
        folder=params["dir"],
        data=params["data"] or "",
        identity=params["identity"],
        parts=params["parts"],
        repositories=params["repositories"],
        images=params["images"],
        as_repository=params["as_repository"] or "",
        overwrite=params["overwrite"],
        verify=params["verify"],
        keep_old=params["keep_old"],
        allow_damage=params["allow_damage"],
        scratch_dir=params["scratch_dir"] or "",
        own_user=params["username"] or "",
        config=read_config(params["config"] or Path(params["root"], "config", "config.yml")),
        check_mode=check_mode,
    )


def locks(params: dict[str, Any], request: Request) -> AbstractContextManager[None]:
    """What keeps other maintenance away while this works."""
    if request.check_mode:
        return nullcontext()
    return locked(params, "restore", storage_only=request.is_partial or request.verify)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_OPTIONS,
            "backup": {"type": "str", "required": True},
            "dir": {"type": "path", "default": "/var/backups/registry"},
            "root": {"type": "path", "default": "/opt/registry"},
            "data": {"type": "path"},
            "parts": {
                "type": "list",
                "elements": "str",
                "choices": ["data", "users", "config", "secrets", "certificates"],
                "default": ["data"],
            },
            "repositories": {"type": "list", "elements": "str", "default": []},
            "images": {"type": "list", "elements": "str", "default": []},
            "as_repository": {"type": "str"},
            "overwrite": {"type": "bool", "default": False},
            "verify": {"type": "bool", "default": False},
            "scratch_dir": {"type": "path"},
            "keep_old": {"type": "bool", "default": False},
            "allow_damage": {"type": "bool", "default": False},
            "identity": {"type": "path"},
            "config": {"type": "path"},
            **WORK_OPTIONS,
        },
        supports_check_mode=True,
    )
    try:
        request = read_request(module.params, module.check_mode)
        service = Stack(request.root, url=module.params["url"])
        with locks(module.params, request), client_from(module.params) as client:
            result = run(request, service, client, FileProgress(module.params["progress_file"]))
    except RegistryError as error:
        module.fail_json(msg=str(error))
    difference = result.pop("diff", None)
    if module._diff and difference is not None:
        result["diff"] = difference
    module.exit_json(**result)


if __name__ == "__main__":
    main()
