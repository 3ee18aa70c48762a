# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every module of the collection says about check mode, diff mode and idempotence."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation only. Each module adds C(support), and C(details) where that is not V(full)."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Runs in check mode and says what a real run would change, without changing anything.
  diff_mode:
    description: In diff mode, says what was changed, or in check mode would be.
  idempotent:
    description: Run again with the same arguments, on a host that nobody else changed, it changes nothing.
"""

    # Together with the fragment above, for modules that only read.
    INFO = r"""
options: {}
attributes:
  check_mode:
    support: full
    details: Changes nothing in any mode.
  diff_mode:
    support: N/A
    details: Changes nothing in any mode.
  idempotent:
    support: full
    details: Changes nothing in any mode.
"""
