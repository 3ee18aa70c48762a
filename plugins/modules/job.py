#!/usr/bin/python
# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: job
short_description: Long work on a host, looked at from the control machine
version_added: 0.1.0
description:
  - What the action plugins of M(dockyard.registry.garbage_collection), M(dockyard.registry.backup),
    M(dockyard.registry.restore) and M(dockyard.registry.storage_check) ask a host while the work goes on there.
    Useful by itself only to see whether something is at work.
  - Never reports a change - what it writes is of the jobs themselves.
extends_documentation_fragment:
  - dockyard.registry.attributes
attributes:
  check_mode:
    support: full
    details: Does the same in check mode, for what it writes is of the jobs themselves.
  diff_mode:
    support: N/A
    details: There is no difference to show.
  idempotent:
    support: full
options:
  lock:
    description: The registry's lock file. What is kept about jobs is beside it.
    type: path
    required: true
  state:
    description:
      - V(present) only looks.
      - V(prepared) makes room for jobs, throws away what ended ones have left, and frees the locks of O(known_dead).
      - V(absent) forgets a job that has ended.
    type: str
    choices: [present, prepared, absent]
    default: present
  job:
    description: Name of a job.
    type: str
    default: ""
  wrapper:
    description: Name that Ansible gave it.
    type: str
    default: ""
  root:
    description: The registry's folder. Where it is given, says what is there.
    type: path
  known_dead:
    description: Tokens of lock holders that the control machine knows to have ended.
    type: list
    elements: str
    default: []
author:
  - Dockyard maintainers (@dockyard)
"""

EXAMPLES = r"""
- name: See who is at work, and what broke off
  dockyard.registry.job:
    lock: /run/dockyard.registry/opt-registry.lock
    root: /opt/registry
  register: job
"""

RETURN = r"""
folder:
  description: Where jobs are kept.
  returned: success
  type: str
finished:
  description: Whether the job has ended with a result.
  returned: O(job) is named
  type: bool
alive:
  description: Whether its process is there. V(none) where it does not say.
  returned: O(job) is named
  type: bool
progress:
  description: How far it is, with C(phase), C(done), C(total) and the C(time) of that.
  returned: O(job) is named
  type: dict
installed:
  description: Whether there is a registry in O(root).
  returned: O(root) is given
  type: bool
pending:
  description: Maintenance that broke off in O(root), and is for M(dockyard.registry.recovery) to heal.
  returned: O(root) is given
  type: list
  elements: str
  sample: [garbage-collection]
waits_for:
  description: Somebody else who holds a lock of the registry, with C(progress) where that one tells. V(none) otherwise.
  returned: success
  type: dict
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._job import Jobs
from ansible_collections.dockyard.registry.plugins.module_utils._journal import pending


def look(jobs: Jobs, options: dict[str, Any]) -> dict[str, Any]:
    """Everything RETURN names. Raises RegistryError, OSError."""
    result: dict[str, Any] = {"folder": str(jobs.folder), "waits_for": None}
    if options["state"] == "absent":
        jobs.remove(options["job"], options["wrapper"])
        return result
    if options["state"] == "prepared":
        jobs.prepare(options["known_dead"])
    if options["job"]:
        status = jobs.status(options["job"], options["wrapper"])
        result.update(status._asdict(), progress=status.progress and status.progress._asdict())
    other = jobs.waits_for(options["job"])
    if other:
        result["waits_for"] = {
            **other.holder._asdict(),
            "progress": other.progress and other.progress._asdict(),
        }
    if options["root"]:
        result["installed"] = Path(options["root"], "compose.yml").exists()
        # What is under way, in living hands, needs no healing.
        result["pending"] = [] if other else pending(options["root"])
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "lock": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "prepared", "absent"], "default": "present"},
            "job": {"type": "str", "default": ""},
            "wrapper": {"type": "str", "default": ""},
            "root": {"type": "path"},
            "known_dead": {"type": "list", "elements": "str", "default": [], "no_log": False},
        },
        supports_check_mode=True,
    )
    try:
        result = look(Jobs(module.params["lock"]), module.params)
    except (RegistryError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
