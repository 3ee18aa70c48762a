#!/usr/bin/python
# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: storage_check
short_description: Check that all a registry holds can be pulled, and repair what can be
version_added: 0.1.0
description:
  - Reads the registry's storage on this host and finds every damage. Each has a code, a path and a severity, and
    names the tags that cannot be pulled because of it.
  - The registry goes on working. What a push or a deletion leaves for a moment is not taken for damage.
  - Damage does not make the module fail; RV(healthy) says whether there is any.
  - With O(repair), repairs what can be. Nothing is deleted by that. What is damaged is moved to the folder
    C(.dockyard-quarantine) in C(docker/registry/v2), and RV(repaired) says how to take each step back.
  - Repairs are made in this order. Owners and modes are set. Blobs that are missing or damaged are fetched from
    O(sources) and O(backups); damaged ones that nobody has are moved away, after which a push brings them
    again, which the registry otherwise discards. Links are written whose targets are there. Links and tags
    that lead nowhere are moved away. Then the registry is restarted, if something was moved away that it may
    have in memory, and everything is checked again.
  - With O(repair), both locks are held. Without it only that of the storage, so that just garbage collection,
    restores, repairs, backups and other checks are kept away.
extends_documentation_fragment:
  - dockyard.registry.maintenance
  - dockyard.registry.maintenance.progress
  - dockyard.registry.attributes
attributes:
  check_mode:
    support: full
    details: With O(repair), says what would be done about each finding, without asking the sources.
  diff_mode:
    support: none
    details: RV(repaired) says what was done.
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
  content:
    description:
      - Which blobs to read, to compare their sums with their names.
      - V(all) reads all. V(changed) reads those whose files look different from when they were last read, and says
        again what was found then. A disk that loses bits does not make a file look different, so read V(all) now
        and then.
      - V(none) reads none and compares sizes only.
    type: str
    choices: [all, changed, none]
    default: all
  rate:
    description: Read at most so many bytes a second, such as V(50M). V(0) for as many as the disk gives.
    type: bytes
    default: 0
  threads:
    description: How many blobs to read at once. V(0) for as many as there are processors, at most four.
    type: int
    default: 0
  upload_age:
    description: Report uploads to which nothing was added for so long, in seconds or as V(12h) or V(7d).
    type: str
    default: 7d
  uid:
    description:
      - The number of the user that the registry runs as. Without it and O(gid), owners and modes are not looked at.
    type: int
  gid:
    description: The number of the group that the registry runs as.
    type: int
  repair:
    description: Whether to repair.
    type: bool
    default: false
  sources:
    description: Other registries from which to fetch what is missing or damaged, in this order.
    type: list
    elements: dict
    default: []
    suboptions:
      url:
        description: Its address.
        type: str
        required: true
      username:
        description: The user to log in as.
        type: str
      password:
        description: The user's password.
        type: str
      ca_file:
        description: A file with the certificates of trusted authorities, in PEM format.
        type: path
      repository:
        description: Where it has what is looked for. Under the name of the repository that needs it by default.
        type: str
  backups:
    description: A folder with backups of this collection to fetch from after O(sources).
    type: path
seealso:
  - module: dockyard.registry.garbage_collection
  - module: dockyard.registry.repository_info
author:
  - Dockyard maintainers (@dockyard)
"""

EXAMPLES = r"""
- name: Every night, what changed, without disturbing those who pull
  dockyard.registry.storage_check:
    root: /opt/registry
    content: changed
    rate: 50M
  register: checked
  failed_when: not checked.healthy

- name: Repair, from the machine that this one is a copy of
  dockyard.registry.storage_check:
    root: /opt/registry
    uid: 1000
    gid: 1000
    repair: true
    sources:
      - url: https://registry.example.org
        username: maintenance
        password: "{{ maintenance_password }}"
    backups: /var/backups/registry
"""

RETURN = r"""
healthy:
  description: Whether everything can be pulled, after repairs if any were made.
  returned: success
  type: bool
findings:
  description: What was found, the worst first.
  returned: success
  type: list
  elements: dict
  contains:
    code: {description: "What it is, such as V(blob-corrupt).", type: str}
    severity:
      description:
        - V(error) where something cannot be pulled or will be lost; V(warning) for what stands in the way of garbage
          collection or of an upgrade; V(note) for the rest.
      type: str
    path: {description: Where it is., type: str}
    detail: {description: What is wrong., type: str}
    repositories: {description: "Those that it is in, or that need the blob.", type: list, elements: str}
    digest: {description: The manifest or blob. V(null) where it is none., type: str}
    breaks:
      description: The tags that cannot be pulled whole because of it, as V(repository:tag).
      type: list
      elements: str
counts:
  description:
    - Numbers of C(repositories), C(tags) and C(blobs); C(bytes) of all blobs, of these C(reachable_bytes) from tags
      and C(unreachable_bytes); C(hashed_blobs) and C(hashed_bytes), which were read, and C(unchanged_blobs), which
      were not.
  returned: success
  type: dict
repaired:
  description: What was done, or in check mode would be.
  returned: success
  type: list
  elements: dict
  contains:
    code: {description: The code of the finding., type: str}
    path: {description: Its path., type: str}
    action: {description: What was done., type: str}
    undo: {description: The command that takes it back; those of later actions go first., type: str}
left:
  description: What is found after the repairs. Without any, the same as RV(findings).
  returned: success
  type: list
  elements: dict
lost:
  description: Tags that were broken and that the repair could not make whole. Push them again.
  returned: success
  type: list
  elements: str
table:
  description: The report for people.
  returned: success
  type: str
"""

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.registry.plugins.module_utils._check import (
    Options,
    Report,
    Which,
    check,
    render,
)
from ansible_collections.dockyard.registry.plugins.module_utils._check_findings import Finding
from ansible_collections.dockyard.registry.plugins.module_utils._client import RegistryClient
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._maintenance import WORK_OPTIONS, locked
from ansible_collections.dockyard.registry.plugins.module_utils._progress import FileProgress
from ansible_collections.dockyard.registry.plugins.module_utils._recovery import recover_all
from ansible_collections.dockyard.registry.plugins.module_utils._repair import (
    Action,
    BlobSource,
    Outcome,
    RegistrySource,
    plan,
    render_actions,
    repair,
)
from ansible_collections.dockyard.registry.plugins.module_utils._repair_backup import BackupSource
from ansible_collections.dockyard.registry.plugins.module_utils._stack import Stack
from ansible_collections.dockyard.registry.plugins.module_utils._storage import Storage
from ansible_collections.dockyard.registry.plugins.module_utils._times import parse_time

_MOST_THREADS = 4
_NOT_RESTARTED = (
    "The registry was not restarted, for there is no compose.yml in {root}: restart it, or it goes on to believe "
    "that it has what was moved away."
)


def options_from(params: dict[str, Any], check_mode: bool) -> Options:
    state = None if check_mode else Path(params["root"]) / "maintenance" / "check-state"
    return Options(
        content=Which(params["content"]),
        threads=params["threads"] or min(_MOST_THREADS, os.cpu_count() or 1),
        rate=params["rate"],
        upload_age=parse_time(params["upload_age"], "upload_age") or 0.0,
        uid=params["uid"],
        gid=params["gid"],
        state=state,
    )


def sources_from(params: dict[str, Any]) -> list[BlobSource]:
    sources: list[BlobSource] = [
        RegistrySource(
            RegistryClient(
                source["url"],
                username=source["username"],
                password=source["password"],
                ca_file=source["ca_file"],
            ),
            source["repository"],
        )
        for source in params["sources"]
    ]
    return sources + ([BackupSource(params["backups"])] if params["backups"] else [])


def as_dict(finding: Finding) -> dict[str, Any]:
    return {**finding._asdict(), "code": finding.code.value, "severity": finding.severity.value}


def result_of(before: Report, after: Report, actions: list[Action], lost: tuple[str, ...]) -> dict[str, Any]:
    return {
        "healthy": after.is_healthy and not lost,
        "findings": [as_dict(finding) for finding in before.findings],
        "left": [as_dict(finding) for finding in after.findings],
        "counts": before.counts._asdict(),
        "repaired": [
            {"code": action.code.value, "path": action.path, "action": action.action, "undo": action.undo}
            for action in actions
        ],
        "lost": list(lost),
        "table": render(before) if not actions else f"{render_actions(actions)}\n\nLEFT\n{render(after)}",
    }


def work(module: AnsibleModule) -> dict[str, Any]:
    """Check, and repair if asked, under the locks. Raises RegistryError."""
    params = module.params
    options = options_from(params, module.check_mode)
    storage = Storage(params["data"] or f"{params['root']}/data")
    progress = FileProgress(params["progress_file"])
    repairing = params["repair"] and not module.check_mode
    with locked(params, "storage check", storage_only=not repairing):
        if repairing:
            return {**repair_all(module, storage, options, progress)}
        if params["repair"]:
            report, actions = plan(storage, options, progress=progress)
            return {"changed": bool(actions), **result_of(report, report, actions, ())}
        report = check(storage, options, progress)
        return {"changed": False, **result_of(report, report, [], ())}


def repair_all(
    module: AnsibleModule, storage: Storage, options: Options, progress: FileProgress
) -> dict[str, Any]:
    root = module.params["root"]
    service = Stack(root) if Path(root, "compose.yml").exists() else None
    healed = recover_all(root, service) if service else []
    sources = sources_from(module.params)
    outcome: Outcome = repair(root, storage, options, sources=sources, service=service, progress=progress)
    for warning in (*healed, *outcome.warnings):
        module.warn(warning)
    if outcome.restarted is None:
        module.warn(_NOT_RESTARTED.format(root=root))
    return {
        "changed": bool(outcome.actions),
        **result_of(outcome.before, outcome.after, outcome.actions, outcome.lost),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "data": {"type": "path"},
            "content": {"type": "str", "choices": ["all", "changed", "none"], "default": "all"},
            "rate": {"type": "bytes", "default": 0},
            "threads": {"type": "int", "default": 0},
            "upload_age": {"type": "str", "default": "7d"},
            "uid": {"type": "int"},
            "gid": {"type": "int"},
            "repair": {"type": "bool", "default": False},
            "sources": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "url": {"type": "str", "required": True},
                    "username": {"type": "str"},
                    "password": {"type": "str", "no_log": True},
                    "ca_file": {"type": "path"},
                    "repository": {"type": "str"},
                },
            },
            "backups": {"type": "path"},
            **WORK_OPTIONS,
        },
        required_together=[("uid", "gid")],
        supports_check_mode=True,
    )
    try:
        result = work(module)
    except RegistryError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
