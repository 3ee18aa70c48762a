#!/usr/bin/python
# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: garbage_collection
short_description: Free what a registry keeps and nothing needs
version_added: 0.1.0
description:
  - Frees blobs that no manifest refers to, and links to blobs that a repository does not need. Nothing that
    people can pull is ever freed, tagged or not.
  - While the registry works, this collection and the registry's own C(garbage-collect --dry-run) each find out
    what is unused. Only what both agree on goes. Where the dry run would free something that people can pull,
    nothing is freed and the result names it. Where it cannot work on this storage, which an empty registry or one
    torn file is enough for, the collection's own word counts, which keeps whatever it is not sure of.
  - The registry is then stopped for as long as a restart takes. What was pushed meanwhile is looked at again, and
    what is unused is moved aside by renames. After the start the storage is checked, and only then is what was
    moved aside deleted. Damage, a failure or a killed run puts it back.
  - Run it again with O(method=guarded) after anything that went wrong. Every run first heals what another left.
extends_documentation_fragment:
  - dockyard.registry.connection
  - dockyard.registry.maintenance
  - dockyard.registry.maintenance.progress
  - dockyard.registry.attributes
attributes:
  check_mode:
    support: full
    details: Says what would be freed. Stops nothing.
  diff_mode:
    support: none
    details: The result says how much goes and what stays.
  idempotent:
    support: full
options:
  root:
    description: The registry's folder on this host, with its C(compose.yml).
    type: path
    required: true
  data:
    description: The folder that is mounted at C(/var/lib/registry). C(data) in O(root) by default.
    type: path
  config:
    description: The registry's configuration, which names its Redis. C(config/config.yml) in O(root) by default.
    type: path
  untagged:
    description:
      - Delete manifests that no tag leads to and that were last pushed longer ago, such as V(7d). By default they stay.
      - Children of indexes and referrers of images stay as long as what they belong to. The registry must allow
        deletion (C(storage.delete.enabled)) and run.
    type: str
  remove_empty:
    description: Take repositories without a manifest out of the catalog, unless somebody pushes to them.
    type: bool
    default: false
  min_age:
    description:
      - What is younger stays, so that pushes under way find the layers that they have pushed.
      - Seconds, or a time such as V(90m), V(12h), V(7d).
    type: str
    default: 1h
  drain:
    description: How long uploads under way may take to end before the registry is stopped. A time as O(min_age).
    type: str
    default: 60s
  cut_uploads:
    description:
      - Whether to stop the registry although there are uploads left then. Clients have to push them again.
      - Without it nothing is stopped and the module fails.
    type: bool
    default: false
  method:
    description:
      - V(guarded) is the way described above.
      - V(plain) stops the registry, runs its own C(garbage-collect), and starts it. It still refuses where that
        would free what people can pull.
    type: str
    choices: [guarded, plain]
    default: guarded
seealso:
  - module: dockyard.registry.retention
  - module: dockyard.registry.recovery
author:
  - Dockyard maintainers (@dockyard)
"""

EXAMPLES = r"""
- name: Free what nothing needs
  dockyard.registry.garbage_collection:
    url: http://127.0.0.1:5000
    root: /opt/registry

- name: Images that lost their tag more than a week ago, and repositories that are empty, too
  dockyard.registry.garbage_collection:
    url: http://127.0.0.1:5000
    username: maintenance
    password: "{{ maintenance_password }}"
    root: /opt/registry
    untagged: 7d
    remove_empty: true
    drain: 10m
"""

RETURN = r"""
blobs:
  description: How many blobs were freed.
  returned: success
  type: int
bytes:
  description: Their bytes.
  returned: success
  type: int
manifests:
  description: How many manifests without a tag were deleted.
  returned: success
  type: int
layer_links:
  description: How many links to blobs were removed from repositories that do not need them.
  returned: success
  type: int
repositories:
  description: The empty repositories that were removed.
  returned: success
  type: list
  elements: str
kept:
  description: What nothing seems to need and stays, by reason.
  returned: success
  type: list
  elements: dict
  contains:
    reason: {description: Why., type: str}
    blobs: {description: How many., type: int}
    bytes: {description: Their bytes., type: int}
    examples: {description: The first few digests., type: list, elements: str}
seconds_stopped:
  description: For how long the registry was stopped.
  returned: success
  type: float
method:
  description: V(guarded) or V(plain).
  returned: success
  type: str
dry_run_stopped_by:
  description: What stopped the registry's own dry run. Empty where it worked.
  returned: success
  type: str
uploads_cut:
  description: Uploads that were broken off.
  returned: success
  type: list
  elements: str
redis_keys:
  description: How many keys of the registry's cache in Redis were deleted.
  returned: success
  type: int
healed:
  description: What was left by a run that broke off, and was put right.
  returned: success
  type: list
  elements: str
notes:
  description: What one should know.
  returned: success
  type: list
  elements: str
table:
  description: The report for people.
  returned: success
  type: str
endangered:
  description: What people can pull and the registry's own garbage collection would free.
  returned: when that is why nothing was freed
  type: list
  elements: dict
  contains:
    digest: {description: The blob., type: str}
    repository: {description: A repository that needs it., type: str}
    manifest: {description: The manifest that refers to it., type: str}
    tags: {description: The tags that lead to that., type: list, elements: str}
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.registry.plugins.module_utils._collection import (
    OPERATION,
    Request,
    read_config,
    run,
)
from ansible_collections.dockyard.registry.plugins.module_utils._collection_guard import GuardTripped
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._maintenance import WORK_OPTIONS, locked
from ansible_collections.dockyard.registry.plugins.module_utils._module import CONNECTION_OPTIONS, client_from
from ansible_collections.dockyard.registry.plugins.module_utils._progress import FileProgress
from ansible_collections.dockyard.registry.plugins.module_utils._recovery import recover_all
from ansible_collections.dockyard.registry.plugins.module_utils._stack import Stack
from ansible_collections.dockyard.registry.plugins.module_utils._times import parse_time


def read_request(params: dict[str, Any], check_mode: bool) -> Request:
    """The module's options as a request. Raises RegistryError."""
    root = Path(params["root"])
    return Request(
        root=str(root),
        data=params["data"] or str(root / "data"),
        untagged=parse_time(params["untagged"], "untagged"),
        remove_empty=params["remove_empty"],
        min_age=parse_time(params["min_age"], "min_age") or 0.0,
        drain=parse_time(params["drain"], "drain") or 0.0,
        cut_uploads=params["cut_uploads"],
        plain=params["method"] == "plain",
        check_mode=check_mode,
        config=read_config(params["config"] or root / "config" / "config.yml"),
    )


def collect(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    request = read_request(params, check_mode)
    progress = FileProgress(params["progress_file"])
    stack = Stack(params["root"], url=params["url"])
    with client_from(params) as client, locked(params, OPERATION, storage_only=False):
        if not check_mode:
            request = request._replace(healed=tuple(recover_all(request.root, stack)))
        return run(request, stack, client, progress)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_OPTIONS,
            "root": {"type": "path", "required": True},
            "data": {"type": "path"},
            "config": {"type": "path"},
            "untagged": {"type": "str"},
            "remove_empty": {"type": "bool", "default": False},
            "min_age": {"type": "str", "default": "1h"},
            "drain": {"type": "str", "default": "60s"},
            "cut_uploads": {"type": "bool", "default": False},
            "method": {"type": "str", "choices": ["guarded", "plain"], "default": "guarded"},
            **WORK_OPTIONS,
        },
        supports_check_mode=True,
    )
    try:
        result = collect(module.params, module.check_mode)
    except GuardTripped as error:
        module.fail_json(msg=str(error), endangered=[item.as_dict() for item in error.endangered])
    except RegistryError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
