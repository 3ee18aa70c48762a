#!/usr/bin/python
# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: retention
short_description: Delete from a registry what its policies do not keep
version_added: 0.1.0
description:
  - Looks at all tags of a registry, decides by ordered policies which stay, and deletes the others.
  - The first policy that selects a tag decides about it. What no policy selects stays. What a policy
    cannot judge stays, such as an image without a usable date.
  - Deleting never breaks what stays. A manifest that other tags share, a child of an index that stays and
    a referrer of an image that stays are kept; only the tag goes. Signatures and other referrers go with
    their image.
  - The bytes are freed by the next garbage collection.
extends_documentation_fragment:
  - dockyard.registry.connection
  - dockyard.registry.attributes
attributes:
  check_mode:
    support: full
    details: The same report, and nothing is deleted.
  diff_mode:
    support: full
    details: Shows the tags of the repositories in which some go, and untagged manifests that go.
  idempotent:
    support: full
options:
  data:
    description:
      - The folder on this host that is mounted at C(/var/lib/registry). It shows when tags were pushed,
        and manifests without a tag.
      - Without it, everything is asked over HTTP. Policies that need what only the disk shows are an error
        then.
    type: path
  policies:
    description:
      - Policies, in the order in which they apply. Each is a mapping with the keys below. An unknown key,
        a pattern that cannot match and a policy that contradicts itself or another are errors.
      - C(name), required, appears in the report.
      - C(repositories), required, is a list of patterns, and C(exclude_repositories) another. In a pattern
        V(*) stands for anything but a slash, V(**) for any number of parts of a path, V(?) for one
        character, V([abc]) for one of these; V(regex:^…$) is a regular expression.
      - C(tags) has C(match) and C(exclude), lists of patterns. All tags by default.
      - C(keep) has the rules, at least one of C(newest), C(within) and C(semver). C(newest) is a number of
        images, by C(order) V(pushed) (default), V(created) or V(semver). C(within) is a time such as
        V(30d), since the push, or with C(order) V(created) since the build. C(semver) has C(major),
        C(minor) and C(patch), the numbers of newest majors, of minors in each and of patches in each of
        those; what is left out keeps all.
      - C(keep.prereleases) is V(follow) (default), which counts no pre-release and keeps it as long as its
        release would be kept, or V(count). C(keep.unversioned) is V(keep) (default) or V(drop), for tags
        that are no semantic version under a rule about versions.
      - C(combine) is V(any) (default), which keeps what satisfies one rule, or V(all).
      - C(min_keep), V(1) by default, is the number of images of each repository that stay whatever the
        rules say.
      - C(protect) has C(tags), C(digests) and C(files), as O(protect). Its tags are protected in the
        repositories of the policy, its digests everywhere.
      - C(untagged) has C(keep_within), a time after which manifests that no tag leads to go, and
        C(orphaned_referrers), V(false) by default, whether tags of signatures go too whose image is in no
        repository of this registry.
    type: list
    elements: dict
    required: true
  protect:
    description:
      - What is never deleted. C(tags) are patterns. C(digests) are those of manifests, or of image configs
        (what docker calls image ID). C(files) are files on this host with one digest a line, perhaps
        behind a name and C(@), such as those of all running containers; a file that is missing or names no
        digest is an error.
      - What holds a protected manifest stays too, such as the index that lists it.
    type: dict
    default:
      tags: [latest]
  max_delete_percent:
    description:
      - Delete nothing and fail where more than this share of the tags in the repositories that policies
        are about would go.
    type: int
    default: 50
  max_delete_count:
    description: Delete nothing and fail where more tags and manifests would go. No limit by default.
    type: int
seealso:
  - module: dockyard.registry.repository_info
author:
  - Dockyard maintainers (@dockyard)
"""

EXAMPLES = r"""
- name: Builds for a month and at least the last ten, releases by their versions
  dockyard.registry.retention:
    url: http://127.0.0.1:5000
    username: maintenance
    password: "{{ maintenance_password }}"
    data: /opt/registry/data
    policies:
      - name: pull requests
        repositories: ["**"]
        tags: {match: ["pr-*"]}
        keep: {within: 7d}
        min_keep: 0
      - name: builds
        repositories: [ci/**]
        exclude_repositories: [ci/base-images]
        keep: {newest: 10, within: 30d}
        untagged: {keep_within: 7d}
      - name: releases
        repositories: [team/*]
        tags: {exclude: ["*-lts"]}
        keep:
          semver: {major: 2, minor: 3, patch: 1}
    protect:
      tags: [latest, stable]
      files: [/var/lib/inventory/digests-in-use]
"""

RETURN = r"""
tags:
  description: Every tag, by repository and name.
  returned: success
  type: list
  elements: dict
  contains:
    repository: {description: Its repository., type: str}
    tag: {description: The tag., type: str}
    digest: {description: The manifest that it points to., type: str}
    decision: {description: V(keep) or V(delete)., type: str}
    policy: {description: The policy that selects it. Empty where none does., type: str}
    rule: {description: "What keeps it, or all that does not.", type: str, sample: not among the newest 10}
    pushed: {description: When it was last pushed. V(null) over HTTP., type: str}
    shared_with: {description: Other tags and repositories with this manifest., type: list, elements: str}
    bytes: {description: Bytes that nothing else needs., type: int}
untagged:
  description: Every manifest that no tag leads to, as tags. V(null) over HTTP.
  returned: success
  type: list
  elements: dict
delete_tags:
  description: How many tags go.
  returned: once everything was decided
  type: int
delete_manifests:
  description: How many manifests go, with a tag or without.
  returned: once everything was decided
  type: int
bytes:
  description: Bytes that garbage collection then frees. What images that stay share is not among them.
  returned: once everything was decided
  type: int
bytes_exact:
  description: Whether RV(bytes) is exact. Over HTTP, it is the most that can be freed.
  returned: once everything was decided
  type: bool
policies:
  description: By C(policy), how many tags and untagged manifests it does C(keep) and C(delete).
  returned: once everything was decided
  type: list
  elements: dict
kept_manifests:
  description: Where a tag goes and its manifest stays, what needs that.
  returned: success
  type: list
  elements: str
notes:
  description: What one should know, such as policies that select nothing and images that could not be judged.
  returned: once everything was decided
  type: list
  elements: str
spared:
  description: What was to go, and was pushed or needed again while this ran.
  returned: once everything was decided
  type: list
  elements: str
table:
  description: The report for people.
  returned: once everything was decided
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._module import CONNECTION_OPTIONS, client_from
from ansible_collections.dockyard.registry.plugins.module_utils._retention_run import (
    Request,
    RetentionFailed,
    run,
)


def read_request(params: dict[str, Any], check_mode: bool) -> Request:
    """The module's options as a request. Raises InvalidConnection."""
    return Request(
        client=client_from(params),
        data=params["data"],
        policies=params["policies"],
        protect=params["protect"],
        max_percent=params["max_delete_percent"],
        max_count=params["max_delete_count"],
        check_mode=check_mode,
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **CONNECTION_OPTIONS,
            "data": {"type": "path"},
            "policies": {"type": "list", "elements": "dict", "required": True},
            "protect": {"type": "dict", "default": {"tags": ["latest"]}},
            "max_delete_percent": {"type": "int", "default": 50},
            "max_delete_count": {"type": "int"},
        },
        supports_check_mode=True,
    )
    try:
        result = run(read_request(module.params, module.check_mode))
    except RetentionFailed as error:
        module.fail_json(msg=str(error), **error.report)
    except RegistryError as error:
        module.fail_json(msg=str(error))
    difference = result.pop("diff")
    if module._diff:
        result["diff"] = difference
    module.exit_json(**result)


if __name__ == "__main__":
    main()
