#!/usr/bin/python
# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_info
short_description: What a host has for a registry
version_added: 0.1.0
description:
  - Looks at a host before anything is changed on it - the engine and Compose v2, the Python libraries that the modules
    of this collection import, who holds the registry's port, and how much disk is free.
  - Only reads. One call, so that a converged host is recognised cheaply.
extends_documentation_fragment:
  - dockyard.registry.attributes
  - dockyard.registry.attributes.info
options:
  address:
    description: The address the registry listens on.
    type: str
    default: 127.0.0.1
  port:
    description: The TCP port the registry listens on.
    type: int
    default: 5000
  more_ports:
    description: Further TCP ports it listens on, see RV(listeners).
    type: list
    elements: int
    default: []
  libraries:
    description: Further Python libraries that this host needs, see RV(python.missing).
    type: list
    elements: str
    default: []
  root:
    description: The folder of the registry on the host. It need not exist.
    type: path
    default: /opt/registry
  paths:
    description: Absolute paths to look at, see RV(paths).
    type: list
    elements: str
    default: []
author:
  - Dockyard maintainers (@dockyard)
"""

EXAMPLES = r"""
- name: Look at the host
  dockyard.registry.host_info:
    port: 5000
  register: host

- name: The port must be free or ours
  ansible.builtin.assert:
    that: host.listener is none or host.listener.ours
"""

RETURN = r"""
engine:
  description: The Docker Engine as the host's own client sees it.
  returned: success
  type: dict
  contains:
    installed: {description: "Whether its daemon is on the host, running or not.", type: bool}
    answers: {description: Whether the engine answers., type: bool}
    error: {description: Why it does not; empty where it does., type: str}
    version: {description: Version of the engine., type: str}
    compose_version: {description: Version of Compose v2; empty where there is none., type: str}
    data_root: {description: Where the engine keeps its data., type: str}
  sample:
    installed: true
    answers: true
    error: ""
    version: 20.10.24
    compose_version: 2.26.1
    data_root: /var/lib/docker
python:
  description: The interpreter that runs modules on this host.
  returned: success
  type: dict
  contains:
    executable: {description: Its path., type: str}
    version: {description: Its version., type: str}
    missing: {description: Libraries that it lacks., type: list, elements: str}
os:
  description: The keys of C(/etc/os-release), lower case.
  returned: success
  type: dict
  sample: {id: debian, version_id: "12"}
listener:
  description: Who holds the port; V(none) where it is free.
  returned: success
  type: dict
  contains:
    address: {description: The address that is listened on., type: str}
    process: {description: Name of the process; empty where unknown., type: str}
    pid: {description: Its process ID., type: int}
    container: {description: The container that publishes the port., type: str}
    project_directory: {description: Folder of the compose project that the container belongs to., type: str}
    ours: {description: Whether that folder is O(root)., type: bool}
listeners:
  description: As RV(listener), one entry for each of O(port) and O(more_ports) that is not free.
  returned: success
  type: list
  elements: dict
  contains:
    port: {description: The port., type: int}
    ours: {description: "Whether it is held by the compose project in O(root).", type: bool}
    problem: {description: Who holds it, type: str, sample: port 80 on 127.0.0.1 is in use by process nginx (1234)}
disk:
  description: The file system that O(root) is on or would be created on.
  returned: success
  type: dict
  contains:
    free_bytes: {description: Bytes that an unprivileged process can still write., type: int}
    total_bytes: {description: Size of the file system., type: int}
    free_inodes: {description: Files that can still be created., type: int}
    writable: {description: Whether it is mounted for writing., type: bool}
paths:
  description: What is at each of O(paths), by path. Links are not followed.
  returned: success
  type: dict
  sample:
    /opt/registry/auth: {exists: true, type: directory, uid: 0, gid: 65532, mode: "0750"}
    /opt/registry/proxy: {exists: false, type: null, uid: null, gid: null, mode: null}
"""

import platform
import sys
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.registry.plugins.module_utils import _host


def look(
    address: str, port: int, more_ports: list[int], libraries: list[str], root: str, paths: list[str]
) -> dict[str, Any]:
    """Everything RETURN names."""
    listeners = []
    for each in (port, *more_ports):
        held = _host.listener(address, each)
        if held:
            ours = held.project_directory == root
            problem = f"port {each} on {address} is in use by {held.holder}"
            listeners.append({**held._asdict(), "port": each, "ours": ours, "problem": problem})
    return {
        "engine": _host.engine()._asdict(),
        "python": {
            "executable": sys.executable,
            "version": platform.python_version(),
            "missing": _host.missing_libraries(*libraries),
        },
        "os": _host.operating_system(),
        "listener": next((held for held in listeners if held["port"] == port), None),
        "listeners": listeners,
        "disk": _host.disk(root)._asdict(),
        "paths": {path: _host.entry(path)._asdict() for path in paths},
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "default": "127.0.0.1"},
            "port": {"type": "int", "default": 5000},
            "more_ports": {"type": "list", "elements": "int", "default": []},
            "libraries": {"type": "list", "elements": "str", "default": []},
            "root": {"type": "path", "default": "/opt/registry"},
            "paths": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        result = look(**module.params)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"look at the host: {error}")
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
