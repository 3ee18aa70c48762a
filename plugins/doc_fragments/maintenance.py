# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of every module that maintains a registry on its host."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation only. The argument specs are LOCK_OPTIONS and WORK_OPTIONS in module_utils/_maintenance.py."""

    DOCUMENTATION = r"""
options:
  lock:
    description:
      - The registry's lock file on this host. The lock of its storage is beside it.
      - Without it, nothing keeps others out meanwhile.
    type: path
  lock_wait:
    description: Seconds to wait for each lock.
    type: float
    default: 0
"""

    # Together with the fragment above, for modules that work for long.
    PROGRESS = r"""
options:
  progress_file:
    description: A file that says how far the work is while it goes on.
    type: path
"""
