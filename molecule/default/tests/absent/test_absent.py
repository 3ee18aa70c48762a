# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""registry_state: absent took the stack away and nothing else."""

from __future__ import annotations

from testinfra.host import Host

from tests.support.hosts import PROJECT, DeployedRegistry


def test_nothing_runs_or_listens(host: Host, registry: DeployedRegistry) -> None:
    assert host.check_output("docker ps --all --quiet --filter label=%s", PROJECT) == ""
    assert host.check_output("docker network ls --quiet --filter label=%s", PROJECT) == ""
    assert registry.status() == 0


def test_images_users_and_secrets_are_kept(host: Host, generated: str) -> None:
    tag = "/opt/registry/data/docker/registry/v2/repositories/team/app/_manifests/tags/1/current/link"
    assert host.file(tag).exists
    assert host.file("/opt/registry/auth/htpasswd").contains(f"^{generated}:")
    assert host.file(f"/opt/registry/secrets/users/{generated}.password").exists
