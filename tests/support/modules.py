# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run modules of the collection: quickly as plain processes, or really through Ansible."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
COLLECTIONS = CHECKOUT / ".ansible" / "collections"
TIMEOUT = 300.0


def start_module(
    name: str, args: Mapping[str, Any], *, check: bool = False, diff: bool = False
) -> subprocess.Popen[str]:
    """Start the module file `name` as a process of its own; module_result() waits for it.

    What Ansible does on top, the transfer to a host and the display, is left out: a tenth of the time.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", f"ansible_collections.dockyard.registry.plugins.modules.{name}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
    )
    parameters = {**args, "_ansible_check_mode": check, "_ansible_diff": diff}
    assert process.stdin is not None
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": parameters}))
    process.stdin.close()
    process.stdin = None
    return process


def module_result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The result of a module that was started; a failed one has `failed` in it. No result is an assertion."""
    output, errors = process.communicate(timeout=TIMEOUT)
    try:
        result: dict[str, Any] = json.loads(output)
    except ValueError as error:
        raise AssertionError(
            f"the module gave no result (exit code {process.returncode})\n{output}\n{errors}"
        ) from error
    return result


def run_module(name: str, args: Mapping[str, Any], check: bool = False, diff: bool = False) -> dict[str, Any]:
    """Run a module as a process and return its result; a failed one has `failed` in it."""
    return module_result(start_module(name, args, check=check, diff=diff))


def ansible_environment() -> dict[str, str]:
    """The environment for Ansible's commands: settings of the checkout, modules run by this interpreter."""
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        "ANSIBLE_NOCOLOR": "1",
    }


def run_ansible(
    name: str, args: Mapping[str, Any], check: bool = False, diff: bool = False, verbosity: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run a module through `ansible localhost`, as a person would; everything Ansible printed is returned."""
    command = [
        str(Path(sys.executable).with_name("ansible")),
        *("localhost", "-i", "localhost,", "-c", "local"),
        *("-m", f"dockyard.registry.{name}", "-a", json.dumps(args)),
        *(["--check"] if check else []),
        *(["--diff"] if diff else []),
        *(["-" + "v" * verbosity] if verbosity else []),
    ]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        cwd=CHECKOUT,
        env=ansible_environment(),
    )
