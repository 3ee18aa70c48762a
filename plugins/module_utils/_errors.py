# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The root of every error that the engine room raises on purpose.

Private to the collection: no stable interface.
"""

from __future__ import annotations


class RegistryError(Exception):
    """An expected failure: bad input, a refusing registry, a damaged file.

    The message is for a person: the operation, the object, the cause, and what to do next.
    """
