# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""images.yml and retention.yml, with users, on a registry that works meanwhile."""

from __future__ import annotations

import os
import time
from typing import Any

from ansible_collections.dockyard.registry.plugins.module_utils._storage import Storage

from tests.support.site import Run, Site
from tests.support.store import Store, push, verify

DAY = 86400.0
POLICIES = [
    {"name": "releases", "repositories": ["team/*"], "keep": {"semver": {"minor": 1}}},
    {"name": "builds", "repositories": ["ci/**"], "keep": {"newest": 2}, "untagged": {"keep_within": "7d"}},
]


def contents() -> Store:
    """Builds, one of them signed, and releases; a multi-arch image among both."""
    store = Store()
    base = b"base" * 500
    for number in range(4):
        image = store.image("ci/app", [base, b"build %d" % number], tag=f"build-{number}")
        store.cosign("ci/app", image)
    store.tag("ci/app", store.repositories["ci/app"].current("build-0"), "latest")
    for version in ("1.0.0", "1.1.0"):
        store.multi_arch(
            "team/web", {"linux/amd64": [base, version.encode()], "linux/arm64": [b"a"]}, tag=version
        )
    emptied = store.image("emptied", [b"gone"], tag="1")
    store.delete("emptied", emptied["digest"])
    return store


def shown(run: Run, task: str) -> str:
    message = run.ok().result(task)["msg"]
    assert isinstance(message, str)
    return message


def deleted(run: Run) -> set[str]:
    result: dict[str, Any] = run.result("retention_apply | Decide and delete")
    return {f"{tag['repository']}:{tag['tag']}" for tag in result["tags"] if tag["decision"] == "delete"}


def test_list_and_keep_by_policy(deployed: Site) -> None:
    store = contents()
    admin = ("admin", deployed.password())
    push(deployed.url, store, auth=admin)
    storage = Storage(deployed.root / "data")
    for number in range(4):
        pushed = time.time() - (4 - number) * DAY
        os.utime(storage.tag_path("ci/app", f"build-{number}"), (pushed, pushed))

    run = deployed.play("images").ok()
    assert run.changed == []
    table = shown(run, "images | Show it")
    assert "linux/amd64, linux/arm64" in table
    assert "(emptied)" in table
    some = shown(deployed.play("images", repository="team/*"), "images | Show it")
    assert "team/web" in some
    assert "ci/app" not in some
    assert "did you mean team/web?" in deployed.play("images", repository="team/wbe").failed().message

    assert deployed.play("retention").ok().changed == [], "without policies everything stays"
    verify(deployed.url, store, auth=admin)

    options = {"registry_retention": POLICIES}
    refused = deployed.play("retention", registry_retention_max_delete_percent=10, **options).failed()
    assert "max_delete_percent is 10" in refused.message
    assert "build-1" in refused.result("retention_apply | Decide and delete")["table"]
    foreseen = deployed.play("retention", check=True, diff=True, **options).ok()
    assert foreseen.changed == ["retention_apply | Decide and delete"]
    verify(deployed.url, store, auth=admin)

    signatures = {
        number: f"{store.repositories['ci/app'].current(f'build-{number}').replace(':', '-')}.sig"
        for number in range(4)
    }
    done = deployed.play("retention", diff=True, **options).ok()
    # The image of build-0 is latest too, so only that tag goes, and its signature stays.
    expected = {"ci/app:build-0", "ci/app:build-1", f"ci/app:{signatures[1]}", "team/web:1.0.0"}
    assert deleted(done) == deleted(foreseen) == expected
    assert "build-1" in shown(done, "retention | Show what was done")

    result = done.result("retention_apply | Decide and delete")
    forget(store, expected, result["delete_manifests"])
    verify(deployed.url, store, auth=admin)
    again = deployed.play("retention", **options).ok()
    assert again.changed == []
    assert again.result("retention_apply | Decide and delete")["delete_tags"] == 0


def forget(store: Store, tags: set[str], manifests: int) -> None:
    """Take these tags out of the model, and what no tag leads to then."""
    before = sum(len(model.revisions) for model in store.repositories.values())
    for name in tags:
        repository, _colon, tag = name.rpartition(":")
        del store.repositories[repository].tags[tag]
    for model in store.repositories.values():
        led_to = {model.current(tag) for tag in model.tags}
        led_to |= {child for digest in led_to for child in store.references(digest)}
        model.deleted |= model.revisions - led_to
        model.revisions &= led_to
    after = sum(len(model.revisions) for model in store.repositories.values())
    assert before - after == manifests


def test_policies_that_cannot_be_followed(deployed: Site) -> None:
    """Said before anything is done, by site.yml too, and all at once."""
    policies = [
        {"name": "a", "repositories": ["**"], "keep": {"newst": 3}},
        {"name": "b", "keep": {"newest": 0}},
    ]
    for playbook in ("retention", "site"):
        message = deployed.play(playbook, registry_retention=policies).failed().message
        assert "registry_retention[0] (a): keep.newst: there is no such key. Did you mean newest?" in message
        assert "registry_retention[1] (b): repositories is missing" in message
        assert "registry_retention[1] (b): keep.newest: the least is 1" in message
