# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control machine's half of dockyard.registry.garbage_collection."""

from __future__ import annotations

from ansible_collections.dockyard.registry.plugins.plugin_utils._long_work import LongWork


class ActionModule(LongWork):
    """Watches the work, which goes on by itself on the host."""
