#!/usr/bin/python
# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lock
short_description: One lock per registry, held by a play
version_added: 0.1.0
description:
  - Takes or gives back the lock of a registry, so that two plays never change it at the same time.
  - The lock belongs to the C(ansible-playbook) process. When that was killed, the next run from the same control
    machine recognises it and takes the lock over; a run from another one does when the lease has ended.
  - Never reports a change - a lock that is taken and given back leaves nothing behind.
extends_documentation_fragment:
  - dockyard.registry.attributes
attributes:
  check_mode:
    support: full
    details: Takes no lock in check mode, since nothing is changed then.
  diff_mode:
    support: N/A
    details: There is no difference to show.
  idempotent:
    support: full
options:
  path:
    description: The lock file. Its folder is created where it is missing.
    type: path
    required: true
  state:
    description: Whether the play holds the lock.
    type: str
    choices: [present, absent]
    default: present
  operation:
    description: What the lock is taken for. Shown to whoever finds it taken.
    type: str
    default: a play
  token:
    description: The C(token) that taking it returned. Required to give it back.
    type: str
  lease:
    description: Seconds after which another control machine may take it over.
    type: int
    default: 3600
  wait:
    description: Seconds to wait for another run to end before giving up.
    type: int
    default: 0
  root:
    description: The registry's folder, to be told in RV(pending) what broke off there.
    type: path
  owner:
    description: The process that holds it. The action plugin fills this in.
    type: dict
    suboptions:
      node:
        description: Name of the control machine.
        type: str
        required: true
      machine:
        description: Boot and PID namespace of the control machine.
        type: str
        required: true
      pid:
        description: Process ID.
        type: int
        required: true
      started:
        description: Start time in clock ticks after boot.
        type: int
        required: true
  known_dead:
    description: Token of a holder that the control machine knows to have ended. The action plugin fills this in.
    type: str
    default: ""
author:
  - Dockyard maintainers (@dockyard)
"""

EXAMPLES = r"""
- name: Take the lock, waiting a minute for another run
  dockyard.registry.lock:
    path: /run/dockyard.registry/opt-registry.lock
    operation: upgrade
    wait: 60
  register: lock

- name: Give it back
  dockyard.registry.lock:
    path: /run/dockyard.registry/opt-registry.lock
    state: absent
    token: "{{ lock.token }}"
"""

RETURN = r"""
token:
  description: What gives the lock back.
  returned: O(state=present)
  type: str
took_over:
  description: The dead or expired holder that the lock was taken over from; V(none) where it was free.
  returned: O(state=present)
  type: dict
pending:
  description: Maintenance that broke off in O(root), and is for M(dockyard.registry.recovery) to heal.
  returned: O(state=present)
  type: list
  elements: str
  sample: [garbage-collection]
holder:
  description: Who holds the lock, where that is somebody else.
  returned: failure
  type: dict
released:
  description: Whether the lock was still ours.
  returned: O(state=absent)
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.registry.plugins.module_utils import _lock
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._journal import pending


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "operation": {"type": "str", "default": "a play"},
            "token": {"type": "str", "no_log": False},
            "lease": {"type": "int", "default": 3600},
            "wait": {"type": "int", "default": 0},
            "root": {"type": "path"},
            "owner": {
                "type": "dict",
                "options": {
                    "node": {"type": "str", "required": True},
                    "machine": {"type": "str", "required": True},
                    "pid": {"type": "int", "required": True},
                    "started": {"type": "int", "required": True},
                },
            },
            "known_dead": {"type": "str", "default": ""},
        },
        required_if=[("state", "present", ["owner"]), ("state", "absent", ["token"])],
        supports_check_mode=True,
    )
    options = module.params
    if module.check_mode:
        module.exit_json(changed=False, token="", took_over=None, pending=[], released=True)
    try:
        if options["state"] == "absent":
            module.exit_json(changed=False, released=_lock.release(options["path"], options["token"]))
        holder, stale = _lock.acquire(
            options["path"],
            options["operation"],
            _lock.Process(**options["owner"]),
            lease=options["lease"],
            known_dead=options["known_dead"],
        )
        interrupted = pending(options["root"]) if options["root"] else []
    except _lock.LockHeld as error:
        module.fail_json(msg=str(error), holder=error.holder._asdict())
    except (RegistryError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False, token=holder.token, took_over=stale and stale._asdict(), pending=interrupted
    )


if __name__ == "__main__":
    main()
