# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""delete.yml and undelete.yml on a registry with users, which goes on working."""

from __future__ import annotations

import random

from tests.support.site import Run, Site
from tests.support.store import Store, push, sample_store, verify


def said(run: Run, what: str) -> str:
    """What a run told a person at its end."""
    message = run.ok().result(what)["msg"]
    return message if isinstance(message, str) else "\n".join(message)


def forget(store: Store, tag: str, *, manifest: bool) -> None:
    app = store.repositories["app"]
    digest = app.tags.pop(tag)[-1]
    if manifest:
        app.revisions.remove(digest)
        app.deleted.add(digest)


def test_delete_and_undelete(deployed: Site) -> None:
    user = ("admin", deployed.password())
    store = sample_store(random.Random(1))
    push(deployed.url, store, auth=user)
    app = store.repositories["app"]
    first, shared = app.current("1.0"), app.current("2.0")

    foreseen = deployed.play("delete", check=True, diff=True, image="app:1.0").ok()
    assert foreseen.changed == ["delete_named | Delete what is named"]
    assert f"app:1.0 {first}" in foreseen.result("Delete what is named")["diff"]["before"]
    verify(deployed.url, store, auth=user)

    refused = deployed.play("delete", image=f"app@{shared}").failed()
    assert f"delete app@{shared}: still tagged 2.0, latest; pass untag=true" in refused.message
    assert "there is no such repository" in deployed.play("delete", image="ap:1.0").failed().message
    assert "name what to delete" in deployed.play("delete").failed().message
    verify(deployed.url, store, auth=user)

    done = deployed.play("delete", image="app:1.0, app:latest")
    assert f"deleted manifest app@{first}" in said(done, "delete | Say what was done")
    assert "keep the manifest of app:latest: also tagged 2.0" in said(done, "delete | Say what was done")
    forget(store, "1.0", manifest=True)
    forget(store, "latest", manifest=False)
    verify(deployed.url, store, auth=user)
    again = deployed.play("delete", image=["app:1.0", "app:latest"]).ok()
    assert again.changed == []
    assert said(again, "delete | Say what was done") == "gone already: app:1.0\ngone already: app:latest"

    listed = said(deployed.play("undelete", image="app"), "undelete | Show it")
    assert f"app:1.0@{first}" in listed
    back = deployed.play("undelete", image="app:1.0").ok()
    assert back.changed == ["undelete_named | Bring it back"]
    assert deployed.play("undelete", image="app:1.0").ok().changed == []
    app.tags["1.0"] = [first]
    app.revisions.add(first)
    app.deleted.remove(first)
    verify(deployed.url, store, auth=user)

    untagged = deployed.play("delete", image=f"app@{shared}", untag=True).ok()
    assert untagged.changed == ["delete_named | Delete what is named"]
    forget(store, "2.0", manifest=True)
    verify(deployed.url, store, auth=user)
