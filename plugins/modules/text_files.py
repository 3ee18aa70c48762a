#!/usr/bin/python
# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: text_files
short_description: Several small text files of one folder, in one task
version_added: 0.1.0
description:
  - Writes each file that is missing or has another content, owner or mode. A loop over M(ansible.builtin.copy) does
    the same, and takes a second for each file even where nothing changes.
  - Each file is replaced atomically. A symbolic link in its place is replaced, not followed.
  - Other files of the folder are left alone.
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
  folder:
    description: The folder, which must exist outside of check mode.
    type: path
    required: true
  files:
    description: Names, without a slash, and the content of each.
    type: dict
    required: true
  owner:
    description: Name or number of the files' owner. By default it stays as it is.
    type: str
  group:
    description: Name or number of the files' group. By default it stays as it is.
    type: str
  mode:
    description: Their mode, octal and quoted.
    type: raw
    default: "0644"
author:
  - Dockyard maintainers (@dockyard)
"""

EXAMPLES = r"""
- name: Two files
  dockyard.registry.text_files:
    folder: /opt/registry/proxy
    files:
      run: "{{ lookup('ansible.builtin.template', 'run.j2') }}"
      reload: "{{ lookup('ansible.builtin.template', 'reload.j2') }}"
    mode: "0640"
"""

RETURN = r"""
written:
  description: Names of the files that were written, or in check mode would be.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.registry.plugins.module_utils import _files
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError


def ensure_content(path: Path, content: str, wanted: _files.Attributes, *, check_mode: bool) -> str | None:
    """Write the file where its content is another. Returns the old one then ("" where there was none), else None."""
    present = None if path.is_symlink() else _files.read_file(path)
    if present and present[0] == content.encode():
        return None
    if not check_mode:
        _files.atomic_write(path, content.encode(), mode=wanted.mode, uid=wanted.uid, gid=wanted.gid)
    return present[0].decode(errors="replace") if present else ""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "files": {"type": "dict", "required": True},
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "mode": {"type": "raw", "default": "0644"},
        },
        supports_check_mode=True,
    )
    params = module.params
    folder = Path(params["folder"])
    before: dict[str, str] = {}
    corrected = False
    try:
        wanted = _files.attributes_from(params["mode"], params["owner"], params["group"])
        for name, content in params["files"].items():
            if not name or "/" in name or not isinstance(content, str):
                module.fail_json(msg=f"files: {name!r} must be a name without a slash, and have a text")
            found = ensure_content(folder / name, content, wanted, check_mode=module.check_mode)
            if found is not None:
                before[name] = found
            elif _files.ensure_attributes(folder / name, wanted, check_mode=module.check_mode):
                corrected = True
    except RegistryError as error:
        module.fail_json(msg=str(error))
    result = {"changed": bool(before) or corrected, "written": list(before)}
    if module._diff:
        result["diff"] = [
            {
                "before": content,
                "after": params["files"][name],
                "before_header": str(folder / name),
                "after_header": str(folder / name),
            }
            for name, content in before.items()
        ]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
