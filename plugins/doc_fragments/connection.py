# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of every module that talks to a registry over HTTP."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation only. The argument spec is CONNECTION_OPTIONS in module_utils/_module.py."""

    DOCUMENTATION = r"""
options:
  url:
    description:
      - The address of the registry, V(http://) or V(https://), as its clients use it.
      - Users and passwords in it are refused, so that none is logged.
    type: str
    required: true
  username:
    description: The user to log in as. Without it, the registry is asked as anybody could.
    type: str
  password:
    description: The password of O(username). Sent with every request and never shown.
    type: str
  connect_to:
    description:
      - The address to connect to instead of the one that the host in O(url) stands for, which still names the server.
      - For the registry's own host, where the public name may lead elsewhere or nowhere.
    type: str
  ca_file:
    description:
      - A file on the host that runs the module, with the certificates of trusted authorities in PEM format.
        It stands instead of those that the system trusts.
    type: path
  validate_certs:
    description: Whether the certificate must be valid. Only a test should say V(false).
    type: bool
    default: true
  timeout:
    description: Seconds to wait for a connection and for each part of an answer.
    type: float
    default: 30
  connections:
    description: How many requests may be under way at once.
    type: int
    default: 8
notes:
  - Proxies that the environment names are not used.
  - Requests that may safely be repeated are, after broken connections and the statuses 429, 502, 503 and 504.
"""
