# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Retention: what stays and what goes, by hand-made stores, random stores, and real registries."""

from __future__ import annotations

import copy
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils._client import RegistryClient
from ansible_collections.dockyard.registry.plugins.module_utils._deletion import placeholder
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._graph import read_graph
from ansible_collections.dockyard.registry.plugins.module_utils._images import Images
from ansible_collections.dockyard.registry.plugins.module_utils._policy import (
    InvalidPolicies,
    parse_policies,
    parse_protect,
)
from ansible_collections.dockyard.registry.plugins.module_utils._reference import Digest
from ansible_collections.dockyard.registry.plugins.module_utils._retention import (
    Decisions,
    decide,
    needs_disk,
    refusal,
)
from ansible_collections.dockyard.registry.plugins.module_utils._retention_run import (
    Request,
    RetentionFailed,
    run,
)
from ansible_collections.dockyard.registry.plugins.module_utils._source import DiskSource
from ansible_collections.dockyard.registry.plugins.module_utils._storage import Blob, Storage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.faulty_proxy import FaultyProxy, corrupt, half, html, status
from tests.support.modules import run_module
from tests.support.registry import RegistryProcess
from tests.support.store import Descriptor, Store, push, random_store, sample_store, verify, write_store

NOW = 1_800_000_000.0
DAY = 86400.0
Ages = Mapping[tuple[str, str], float]
Policies = list[dict[str, Any]]

# Every example writes a store to the disk twice.
on_stores = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def set_ages(root: Path, store: Store, ages: Ages, now: float = NOW) -> None:
    """Have each tag, or manifest, been pushed so many days ago; all others just now."""
    storage = Storage(root)
    for name, repository in store.repositories.items():
        paths = {tag: storage.tag_path(name, tag) for tag in repository.tags}
        paths |= {digest: storage.revision_path(name, Digest(digest)) for digest in repository.revisions}
        for what, path in paths.items():
            pushed = now - ages.get((name, what), 0.0) * DAY
            os.utime(path, (pushed, pushed))


def decided(store: Store, policies: Policies, ages: Ages | None = None, **protect: Any) -> Decisions:
    """What retention decides about a store."""
    with tempfile.TemporaryDirectory(prefix="dockyard-") as folder:
        write_store(Path(folder), store)
        set_ages(Path(folder), store, ages or {})
        return decide_on(Path(folder), policies, **protect)


def decide_on(root: Path, policies: Policies, **protect: Any) -> Decisions:
    source = DiskSource(Storage(root))
    graph = read_graph(source)
    return decide(graph, parse_policies(policies), parse_protect(protect), NOW, Images(graph, source))


def apply(store: Store, decisions: Decisions) -> None:
    """Do to the model what a plan says."""
    for tag in decisions.plan.tags:
        del store.repositories[tag.repository].tags[tag.name]
    for name, digest in decisions.plan.manifests:
        store.repositories[name].revisions.remove(digest)
        store.repositories[name].deleted.add(digest)


def kept(decisions: Decisions, repository: str = "app") -> list[str]:
    return [tag.tag for tag in decisions.tags if tag.repository == repository and not tag.delete]


def rules(decisions: Decisions, repository: str = "app") -> dict[str, str]:
    return {tag.tag: tag.rule for tag in decisions.tags if tag.repository == repository}


def images(tags: Iterable[str], repository: str = "app", store: Store | None = None) -> Store:
    """An image of its own for each tag."""
    store = store or Store()
    for tag in tags:
        store.image(repository, [f"layer of {repository}:{tag}".encode()], tag=tag)
    return store


def by_age(*tags: str, repository: str = "app") -> dict[tuple[str, str], float]:
    """Ages of one day, two days, and so on."""
    return {(repository, tag): index + 1.0 for index, tag in enumerate(tags)}


def policy(keep: Mapping[str, Any], **keys: Any) -> dict[str, Any]:
    return {"name": "p", "repositories": ["**"], "keep": dict(keep), **keys}


# Rules

VERSIONS = ["0.9.0", "1.0.0", "1.1.0", "1.1.1", "1.2.0", "2.0.0", "2.1.0-rc.1", "v2.1.0", "3.0.0-rc.1"]


@pytest.mark.parametrize(
    ("rule", "stays"),
    [
        (policy({"newest": 1}), "a"),
        (policy({"newest": 3}), "abc"),
        (policy({"newest": 9}), "abcde"),
        (policy({"within": "2d"}), "ab"),
        (policy({"within": "48h"}), "ab"),
        (policy({"within": "1w"}), "abcde"),
        (policy({"newest": 1, "within": "3d"}), "abc"),
        (policy({"newest": 4, "within": "2d"}, combine="any"), "abcd"),
        (policy({"newest": 4, "within": "2d"}, combine="all"), "ab"),
        (policy({"newest": 1, "within": "3d"}, combine="all"), "a"),
        (policy({"within": "12h"}), "a"),  # nothing is that new: at least one stays
        (policy({"within": "12h"}, min_keep=3), "abc"),
        (policy({"within": "12h"}, min_keep=0, tags={"match": ["?"]}), ""),
        (policy({"newest": 1}, tags={"match": ["[ab]"]}), "acde"),
        (policy({"newest": 1}, tags={"exclude": ["e"]}), "ae"),
        (policy({"newest": 1}, tags={"match": [r"regex:^[b-e]$"], "exclude": ["b"]}), "abc"),
        (policy({"newest": 1}, repositories=["other"]), "abcde"),
        (policy({"newest": 1}, exclude_repositories=["a*"]), "abcde"),
        (policy({"newest": 1}, protect={"tags": ["d"]}), "ad"),
    ],
)
def test_rules_by_time(rule: dict[str, Any], stays: str) -> None:
    decisions = decided(images("abcde"), [rule], by_age(*"abcde"))
    assert kept(decisions) == list(stays)
    assert {tag.name for tag in decisions.plan.tags} == set("abcde") - set(stays)
    assert len(decisions.plan.manifests) == 5 - len(stays)


@pytest.mark.parametrize(
    ("keep", "gone"),
    [
        ({"newest": 1, "order": "semver"}, ["0.9.0", "1.0.0", "1.1.0", "1.1.1", "1.2.0", "2.0.0"]),
        ({"newest": 2, "order": "semver"}, ["0.9.0", "1.0.0", "1.1.0", "1.1.1", "1.2.0"]),
        ({"newest": 2, "order": "semver", "prereleases": "count"}, [*VERSIONS[:7]]),
        ({"newest": 20, "order": "semver"}, []),
        ({"semver": {"major": 1}}, VERSIONS[:5]),
        ({"semver": {"major": 2}}, ["0.9.0"]),
        ({"semver": {"minor": 1}}, ["1.0.0", "1.1.0", "1.1.1", "2.0.0"]),
        ({"semver": {"minor": 2}}, ["1.0.0"]),
        ({"semver": {"patch": 1}}, ["1.1.0"]),
        ({"semver": {"major": 2, "minor": 1, "patch": 1}}, ["0.9.0", "1.0.0", "1.1.0", "1.1.1", "2.0.0"]),
        ({"semver": {"major": 1, "minor": 1}, "prereleases": "count"}, VERSIONS[:8]),
    ],
)
def test_rules_by_version(keep: dict[str, Any], gone: list[str]) -> None:
    others = ["latest", "1", "1.2", "stable"]
    decisions = decided(images([*VERSIONS, *others]), [policy(keep)])
    assert sorted(kept(decisions)) == sorted({*VERSIONS, *others} - set(gone))
    assert rules(decisions)["stable"] == "its tag is no semantic version"
    strict = decided(images([*VERSIONS, *others]), [policy({**keep, "unversioned": "drop"})])
    assert sorted(kept(strict)) == sorted(set(VERSIONS) - set(gone))


def test_a_prerelease_does_not_push_releases_out() -> None:
    """Three release candidates are semantically the newest three versions."""
    store = images(["1.0.0", "1.1.0", "2.0.0-rc.1", "2.0.0-rc.2", "2.0.0-rc.3"])
    decisions = decided(store, [policy({"newest": 1, "order": "semver"})])
    assert kept(decisions) == ["1.1.0", "2.0.0-rc.1", "2.0.0-rc.2", "2.0.0-rc.3"]


def created(store: Store, tag: str | None, date: str | None) -> Descriptor:
    """An image with that date of creation in its config."""
    config = {"tag": tag, **({} if date is None else {"created": date})}
    return store.image("app", [f"layer of {tag}".encode()], tag=tag, config=json.dumps(config).encode())


def test_order_by_creation() -> None:
    """Not what was pushed last counts, and not the name."""
    store = Store()
    created(store, "z-old", "2024-01-01T00:00:00.123456789Z")
    created(store, "a-new", "2026-05-01T10:00:00+02:00")
    created(store, "m-middle", "2025-01-01T00:00:00Z")
    ages = by_age("z-old", "m-middle", "a-new")
    decisions = decided(store, [policy({"newest": 1, "order": "created"})], ages)
    assert kept(decisions) == ["a-new"]
    decisions = decided(store, [policy({"within": "800d", "order": "created"})], ages)
    assert kept(decisions) == ["a-new", "m-middle"]
    assert rules(decisions)["z-old"] == "built more than 800d ago"


def test_dates_of_no_build_are_refused() -> None:
    """gitlab#377417: images were ordered by dates that meant nothing, and the wrong ones deleted."""
    store = Store()
    for year in ("0001", "1970", "1980"):
        created(store, year, f"{year}-01-01T00:00:00Z")
    created(store, "none", None)
    created(store, "future", "2999-01-01T00:00:00Z")
    created(store, "words", "yesterday")
    store.artifact("app", b"an SBOM", tag="sbom")
    created(store, "old", "2020-01-01T00:00:00Z")
    created(store, "new", "2026-01-01T00:00:00Z")
    decisions = decided(store, [policy({"newest": 1, "order": "created"})])
    assert sorted({*store.repositories["app"].tags} - set(kept(decisions))) == ["old"]
    assert "1970-01-01, which is no date of a real build" in rules(decisions)["1970"]
    assert "in the future" in rules(decisions)["future"]
    assert [note for note in decisions.notes if "7 of 9 images stay because policy 'p' cannot tell" in note]


def test_an_index_is_as_old_as_its_newest_image() -> None:
    store = Store()
    for tag, dates in {"old": ("2024-01-01", "2025-01-01"), "new": ("2023-01-01", "2026-01-01")}.items():
        store.index("app", [created(store, None, f"{date}T00:00:00Z") for date in dates], tag=tag)
    decisions = decided(store, [policy({"newest": 1, "order": "created"})])
    assert kept(decisions) == ["new"]


def test_lost_times_of_pushes() -> None:
    """A copy of a store that lost its times has them all at the same moment, or at none."""
    store = images("abcd")
    same = dict.fromkeys(by_age(*"abcd"), 50.0)
    assert kept(decided(store, [policy({"newest": 1})], same)) == list("abcd"), "all are just as new"
    lost = dict.fromkeys(by_age(*"abcd"), NOW / DAY)
    decisions = decided(store, [policy({"within": "30d"})], lost)
    assert kept(decisions) == list("abcd")
    assert "of unknown age: its files say that it was pushed in 1970" in rules(decisions)["a"]
    ahead = {**by_age(*"abc"), ("app", "d"): -400.0}
    assert kept(decided(store, [policy({"newest": 1})], ahead)) == ["a", "d"], "the future takes no place"


# Who decides


def test_the_first_policy_that_selects_a_tag_decides() -> None:
    policies = [
        policy({"newest": 1}, name="builds", tags={"match": ["b*"]}),
        policy({"newest": 2}, name="team", repositories=["team/*"]),
        policy({"newest": 3}, name="rest", exclude_repositories=["team/base"]),
    ]
    store = images(["b1", "b2", "r1", "r2", "r3", "r4"])
    images(["b1", "b2", "r1", "r2", "r3"], "team/web", store)
    images(["r1", "r2", "r3", "r4"], "team/base", store)
    ages = {
        **by_age("b2", "b1", "r4", "r3", "r2", "r1"),
        **by_age("b2", "b1", "r3", "r2", "r1", repository="team/web"),
        **by_age("r4", "r3", "r2", "r1", repository="team/base"),
    }
    decisions = decided(store, policies, ages)
    assert kept(decisions) == ["b2", "r2", "r3", "r4"]
    assert kept(decisions, "team/web") == ["b2", "r2", "r3"]
    assert kept(decisions, "team/base") == ["r3", "r4"]
    deciders = {(tag.repository, tag.tag): tag.policy for tag in decisions.tags}
    assert deciders["app", "b1"] == "builds"
    assert deciders["team/web", "r1"] == "team"
    assert deciders["app", "r1"] == "rest"


def test_what_no_policy_selects_stays() -> None:
    """zot deletes what no rule keeps; here one must say what goes."""
    decisions = decided(images(["v1", "v2", "x"]), [policy({"newest": 1}, tags={"match": ["v*"]})])
    assert rules(decisions)["x"] == "no policy selects it"
    assert kept(decided(images("abc"), [])) == list("abc")


def test_policies_that_select_nothing_are_noted() -> None:
    policies = [
        policy({"newest": 1}, name="typo", repositories=["ap"]),
        policy({"newest": 1}, name="none", tags={"match": ["z*"]}),
        policy({"newest": 1}, name="fine"),
    ]
    assert decided(images("a"), policies).notes == (
        "policy 'typo': it selects no repository",
        "policy 'none': it selects no tag that no policy before it does",
    )


def test_an_idle_repository_keeps_its_last_image() -> None:
    """Nothing was pushed for a year: `within` alone would empty the repository."""
    decisions = decided(images("ab"), [policy({"within": "30d"})], {("app", "a"): 400.0, ("app", "b"): 500.0})
    assert kept(decisions) == ["a"]
    assert rules(decisions)["a"] == "min_keep 1"


# Shared digests


def shared_store() -> Store:
    """Three images; the newest has four tags, as the releases of most projects do."""
    store = images(["1.0.0", "1.1.0", "1.2.0"])
    newest = store.repositories["app"].current("1.2.0")
    for tag in ("1.2", "1", "latest"):
        store.tag("app", newest, tag)
    return store


def test_tags_of_one_image_count_once() -> None:
    """harbor#8717: tags of one digest took each other's places, and were kept or deleted one by one."""
    ages = {("app", "1.0.0"): 30.0, ("app", "1.1.0"): 20.0}
    assert kept(decided(shared_store(), [policy({"newest": 2})], ages)) == [
        *("1", "1.1.0", "1.2", "1.2.0", "latest"),
    ]


def test_tags_of_one_image_stand_together() -> None:
    store = images(["old", "other"])
    store.tag("app", store.repositories["app"].current("old"), "again")
    ages = {("app", "old"): 90.0, ("app", "other"): 60.0}
    assert kept(decided(store, [policy({"within": "30d"})], ages)) == ["again", "old"]


def test_only_the_tag_goes_where_others_share_the_manifest() -> None:
    """harbor#8717 too: a digest was deleted with a tag, and with it the tags that were to stay."""
    store = shared_store()
    ages = {("app", "1.2.0"): 90.0, ("app", "1.2"): 90.0}
    builds = policy({"within": "30d"}, tags={"match": ["1.2*"]}, min_keep=0)
    decisions = decided(store, [builds], ages)
    assert sorted(tag.name for tag in decisions.plan.tags) == ["1.2", "1.2.0"]
    assert decisions.plan.manifests == ()
    assert decisions.plan.bytes == 0
    assert any("also tagged 1, latest" in str(reason) for reason in decisions.plan.protected)


# Indexes


def test_children_of_an_index_that_stays() -> None:
    """harbor#11273: children were judged by themselves, and indexes that were kept lost theirs."""
    store = Store()
    shared = store.image("app", [b"shared platform"], tag="amd64")
    own = store.image("app", [b"own platform"])
    store.index("app", [shared, own], tag="multi")
    old = store.image("app", [b"old"])
    store.index("app", [shared, old], tag="old-multi")
    ages = by_age("multi", "amd64", "old-multi")
    untagged = {"keep_within": "1h"}
    ages |= {("app", item["digest"]): 90.0 for item in (shared, own, old)}
    decisions = decided(store, [policy({"newest": 1}, untagged=untagged)], ages)
    assert kept(decisions) == ["multi"]
    gone = {digest for _repository, digest in decisions.plan.manifests}
    assert {shared["digest"], own["digest"]}.isdisjoint(gone)
    assert old["digest"] in gone
    assert decisions.untagged == (), "children of indexes with a tag are not without one"


# Referrers


def signed_store() -> tuple[Store, Descriptor, Descriptor]:
    """Two signed images, the first one older."""
    store = Store()
    pair = []
    for tag in ("old", "new"):
        image = store.image("app", [tag.encode()], tag=tag)
        for suffix in ("sig", "att"):
            store.cosign("app", image, suffix)
        listed = store.artifact("app", f"listed {tag}".encode(), subject=image)
        store.fallback_referrers("app", image, [listed])
        store.artifact("app", f"tagged {tag}".encode(), subject=image, tag=f"sbom-{tag}")
        store.artifact("app", f"untagged {tag}".encode(), subject=image)
        pair.append(image)
    return store, pair[0], pair[1]


def test_referrers_follow_their_image() -> None:
    """harbor#16434: accessories were judged as images, so that signatures took places and outlived images."""
    store, old, _new = signed_store()
    decisions = decided(store, [policy({"newest": 1}, untagged={"keep_within": "1h"})], by_age("new", "old"))
    assert [tag for tag in kept(decisions) if old["digest"][7:] in tag or "old" in tag] == []
    assert len(kept(decisions)) == len(decisions.tags) - len(kept(decisions)) == 5
    assert decisions.judged == {"app": 2}
    assert decisions.lost == {"app": 1}
    assert len(decisions.plan.manifests) == 7
    assert rules(decisions)["sbom-old"] == f"about {old['digest'][:19]}, which goes"
    apply(store, decisions)
    again = decided(store, [policy({"newest": 1}, untagged={"keep_within": "1h"})], by_age("new", "old"))
    assert not again.plan.changes


def test_a_referrer_stays_with_an_image_that_stays() -> None:
    """The image has lost its tag, but not the index that lists what is about it."""
    store = Store()
    image = store.image("app", [b"old"], tag="old")
    listed = store.artifact("app", b"an SBOM", subject=image, tag="sbom")
    store.index("app", [listed], tag="bundle")
    decisions = decided(store, [policy({"newest": 1})], by_age("bundle", "old"))
    assert kept(decisions) == ["bundle", "sbom"]
    assert decisions.plan.manifests == ()
    assert rules(decisions)["sbom"] == f"about {image['digest'][:19]}, which stays"


def test_signatures_of_images_elsewhere_stay() -> None:
    store = images("ab")
    elsewhere = store.image("team/web", [b"web"], tag="1")
    gone = {"digest": f"sha256:{'5' * 64}"}
    for image in (elsewhere, gone):
        store.cosign("app", image)
    ages = dict.fromkeys((("app", tag) for tag in store.repositories["app"].tags), 90.0)
    tag_of_gone = f"sha256-{'5' * 64}.sig"
    for extra, stays in (({}, True), ({"orphaned_referrers": True}, False)):
        rule = policy({"newest": 5}, untagged={"keep_within": "7d", **extra})
        decisions = decided(store, [rule], ages)
        assert (tag_of_gone in kept(decisions)) is stays
        assert f"{elsewhere['digest'].replace(':', '-')}.sig" in kept(decisions)
        assert {"a", "b"} <= set(kept(decisions))
    young = decided(
        store, [policy({"newest": 5}, untagged={"keep_within": "7d", "orphaned_referrers": True})]
    )
    assert tag_of_gone in kept(young), "a copy may bring the signature first"


# Protection


def test_protected_digests() -> None:
    store = Store()
    child = store.image("app", [b"child"], config=b'{"child": 1}')
    store.index("app", [child], tag="index")
    signed = store.image("app", [b"signed"], tag="signed")
    signature = store.cosign("app", signed)
    single = store.image("app", [b"single"], tag="single", config=b'{"single": 1}')
    images("ab", store=store)
    ages = {("app", tag): 90.0 for tag in store.repositories["app"].tags}
    ages["app", "a"] = 1.0
    config = store.references(single["digest"])[-1]
    for digest, tag in (
        (child["digest"], "index"),
        (signature["digest"], "signed"),
        (signed["digest"], "signed"),
        (single["digest"], "single"),
        (config, "single"),
    ):
        rule = policy({"newest": 1})
        for protect, policies in (
            ({"digests": [digest]}, [rule]),
            (
                {},
                [
                    rule,
                    policy(
                        {"newest": 1}, name="elsewhere", repositories=["x"], protect={"digests": [digest]}
                    ),
                ],
            ),
        ):
            if protect == {}:
                policies.reverse()  # the general one last
            decisions = decided(store, policies, ages, **protect)
            assert [name for name in kept(decisions) if not name.startswith("sha256-")] == ["a", tag]
            assert rules(decisions)[tag] == "protected digest"


def test_protected_tags() -> None:
    store, _old, _new = signed_store()
    images(["latest", "stable"], store=store)
    ages = {("app", tag): 90.0 for tag in store.repositories["app"].tags}
    ages["app", "new"] = 1.0
    decisions = decided(store, [policy({"newest": 1})], ages, tags=["latest", "st*"])
    assert {"latest", "stable", "new"} <= set(kept(decisions))
    assert "old" not in kept(decisions)
    assert rules(decisions)["stable"] == "protected by the pattern st*"
    # A protected signature keeps its image.
    for pattern in ("*.sig", "sbom-old"):
        assert "old" in kept(decided(store, [policy({"newest": 1})], ages, tags=[pattern]))


def test_protection_beats_untagged() -> None:
    """harbor#16335: the rule for untagged artifacts deleted immutable ones."""
    store = images("a")
    untagged = store.image("app", [b"in use by digest"])
    ages = {("app", untagged["digest"]): 90.0}
    rule = policy({"newest": 1}, untagged={"keep_within": "7d"})
    assert [each.delete for each in decided(store, [rule], ages).untagged] == [True]
    decisions = decided(store, [rule], ages, digests=[untagged["digest"]])
    assert [(each.delete, each.rule) for each in decisions.untagged] == [(False, "protected digest")]


def test_a_broad_rule_does_not_widen_a_narrow_one() -> None:
    """harbor#16065: beside a rule for everything, the others no longer counted."""
    policies = [
        policy({"newest": 1}, name="builds", tags={"match": ["build-*"]}),
        policy({"newest": 100}, name="everything"),
    ]
    decisions = decided(images(["build-1", "build-2", "v1"]), policies, by_age("build-2", "build-1", "v1"))
    assert kept(decisions) == ["build-2", "v1"]


# Manifests without a tag


def test_untagged_manifests() -> None:
    store = images("a")
    old = store.image("app", [b"old"])
    young = store.image("app", [b"young"])
    child = store.image("app", [b"child"])
    store.index("app", [child])  # pushed just now
    again = store.image("app", [b"pushed again just now"])
    listing = store.index("app", [again])
    lone = store.image("app", [b"lone"])
    index = store.index("app", [lone])
    ages = {("app", item["digest"]): 90.0 for item in (old, child, listing, lone, index)}
    only = {"name": "untagged", "repositories": ["**"], "untagged": {"keep_within": "7d"}}
    decisions = decided(store, [only], ages)
    assert {digest for _name, digest in decisions.plan.manifests} == {
        item["digest"] for item in (old, lone, index)
    }
    said = {each.digest: each.rule for each in decisions.untagged}
    assert said[Digest(young["digest"])] == "pushed within 7d"
    for bound in (child, listing):
        assert said[Digest(bound["digest"])] == "belongs to a manifest without a tag that stays"
    assert said[Digest(old["digest"])] == "without a tag for more than 7d"
    assert kept(decisions) == ["a"]
    assert decisions.judged == {}, "no policy is about tags"
    decisions = decided(store, [policy({"newest": 1})], ages)
    assert {each.rule for each in decisions.untagged} == {"no policy is about it"}


# Damage


@pytest.mark.parametrize("damage", ["link", "manifest"])
def test_damage_is_never_a_reason_to_delete_more(tmp_path: Path, damage: str) -> None:
    store = images("abcd")
    images("abcd", "fine", store)
    write_store(tmp_path, store)
    set_ages(tmp_path, store, {**by_age(*"abcd"), **by_age(*"abcd", repository="fine")})
    storage = Storage(tmp_path)
    digest = Digest(store.repositories["app"].current("a"))
    path = storage.tag_path("app", "a") if damage == "link" else storage.blob_path(digest)
    Path(path).write_bytes(b"")
    os.utime(path, (NOW - 90 * DAY,) * 2)
    decisions = decide_on(tmp_path, [policy({"newest": 1})])
    assert not any(tag.delete for tag in decisions.tags if tag.repository == "app")
    assert kept(decisions, "fine") == ["a"], "other repositories are not held up"
    assert any(note.startswith("app: all of it stays") for note in decisions.notes)


# Deletions that broke off


def test_a_deletion_that_broke_off_is_finished() -> None:
    """On registry 2.8 a tag is pointed at an empty index first, which takes no place of an image."""
    store = images("abc")
    body = json.loads(placeholder("app", "gone"))
    store.manifest("app", body, tag="gone")
    decisions = decided(store, [policy({"newest": 1})], by_age("a", "b", "c"))
    assert kept(decisions) == ["a"]
    assert rules(decisions)["gone"] == "its deletion broke off"
    assert decisions.judged == {"app": 3}
    assert decisions.lost == {"app": 2}
    assert "gone" in kept(decided(store, [policy({"newest": 1}, repositories=["other"])]))


# Limits


@pytest.mark.parametrize(
    ("percent", "count", "message"),
    [
        (100, None, ""),
        (75, None, ""),
        (74, None, "retention would delete 6 of 8 tags (75%: app 3 of 4, team/web 3 of 4)"),
        (0, None, "max_delete_percent is 0"),
        (100, 6, ""),
        (100, 5, "retention would delete 6 tags and manifests"),
    ],
)
def test_limits(percent: int, count: int | None, message: str) -> None:
    store = images("abcd")
    images("abcd", "team/web", store)
    images("abcd", "not-judged", store)
    ages = {**by_age(*"abcd"), **by_age(*"abcd", repository="team/web")}
    decisions = decided(store, [policy({"newest": 1}, exclude_repositories=["not-judged"])], ages)
    if count is not None:
        count += 6  # as many manifests as tags
    reason = refusal(decisions, max_percent=percent, max_count=count)
    assert message.replace("6 tags and", "12 tags and") in reason
    assert bool(reason) == bool(message)


def test_what_needs_the_disk() -> None:
    policies = parse_policies(
        [
            policy({"newest": 1}, name="pushes"),
            policy({"within": "1d", "newest": 2, "order": "semver"}, name="mixed", repositories=["a"]),
            policy({"newest": 1, "order": "created"}, name="fine", repositories=["b"]),
            policy({"semver": {"major": 1}}, name="fine too", repositories=["c"]),
            {"name": "untagged", "repositories": ["**"], "untagged": {"keep_within": "1d"}},
        ][1:]
    )
    assert [message.partition(":")[0] for message in needs_disk(policies)] == [
        "policy 'mixed'",
        "policy 'untagged'",
    ]


# Random stores

POLICY = st.fixed_dictionaries(
    {
        "repositories": st.sampled_from([["**"], ["a"], ["a/**"], ["c"]]),
        "keep": st.sampled_from(
            [
                {"newest": 1},
                {"newest": 2},
                {"within": "5d"},
                {"newest": 1, "within": "3d"},
                {"newest": 1, "order": "created"},
                {"semver": {"major": 1}},
                {"newest": 1, "order": "semver", "unversioned": "drop", "within": "2d"},
            ]
        ),
    },
    optional={
        "tags": st.sampled_from([{"match": ["1"]}, {"exclude": ["latest"]}]),
        "combine": st.sampled_from(["any", "all"]),
        "min_keep": st.sampled_from([0, 1]),
        "untagged": st.sampled_from(
            [{"keep_within": "1h"}, {"keep_within": "4d", "orphaned_referrers": True}]
        ),
        "protect": st.sampled_from([{"tags": ["2"]}, {"tags": ["*.sig"]}]),
    },
)


def usable(policies: Policies) -> Policies:
    """Named policies without those that contradict themselves or the ones before."""
    found: Policies = []
    for number, keys in enumerate(policies):
        candidate = [*found, {"name": f"p{number}", **keys}]
        try:
            parse_policies(candidate)
        except InvalidPolicies:
            continue
        found = candidate
    return found


def random_ages(rng: random.Random, store: Store) -> Ages:
    return {
        (name, what): rng.choice([0.0, 1.0, 2.0, 3.5, 6.0, 10.0])
        for name, model in store.repositories.items()
        for what in (*model.tags, *sorted(model.revisions))
    }


class Closure:
    """What a store has that tags lead to, in the most obvious way."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def dependents(self, name: str, digest: str) -> set[str]:
        """Children and referrers that are there."""
        revisions = self._store.repositories[name].revisions
        document = json.loads(self._store.content(digest))
        listed = {child["digest"] for child in document.get("manifests", [])}
        about = {other for other in revisions if self.subject(other) == digest}
        return (listed & revisions) | about

    def subject(self, digest: str) -> str | None:
        found: str | None = json.loads(self._store.content(digest)).get("subject", {}).get("digest")
        return found

    def of(self, name: str, digest: str) -> set[str]:
        found, waiting = {digest}, [digest]
        while waiting:
            more = self.dependents(name, waiting.pop()) - found
            found |= more
            waiting += more
        return found


@on_stores
@given(st.integers(0, 2**32), st.lists(POLICY, min_size=1, max_size=3), st.booleans())
@pytest.mark.slow
def test_random_stores(seed: int, drawn: Policies, protect_one: bool) -> None:
    rng = random.Random(seed)
    store = random_store(rng, 25)
    policies = usable(drawn)
    ages = random_ages(rng, store)
    protect: dict[str, Any] = {"tags": ["latest"]}
    everything = sorted(
        (name, digest) for name, model in store.repositories.items() for digest in model.revisions
    )
    protected = rng.choice(everything) if protect_one and everything else None
    if protected:
        protect["digests"] = [protected[1]]
    decisions = decided(store, policies, ages, **protect)

    # The report and the plan say the same.
    assert {each.target for each in decisions.tags if each.delete} == {
        (tag.repository, tag.name) for tag in decisions.plan.tags
    }
    gone = set(decisions.plan.manifests)
    assert gone >= {(each.repository, each.digest) for each in decisions.untagged if each.delete}
    assert gone.isdisjoint((each.repository, each.digest) for each in decisions.untagged if not each.delete)

    # Nothing protected is deleted.
    assert not any(tag.name == "latest" for tag in decisions.plan.tags)
    if protected:
        assert protected not in gone
    for keys in policies:
        if keys.get("protect") == {"tags": ["2"]} and keys["repositories"] == ["**"]:
            assert not any(tag.name == "2" for tag in decisions.plan.tags)

    # Nothing that stays loses what it leads to.
    before = copy.deepcopy(store)
    apply(store, decisions)
    closure = Closure(before)
    for name, model in store.repositories.items():
        for tag in model.tags:
            assert (
                closure.of(name, model.current(tag)) & before.repositories[name].revisions <= model.revisions
            )
        for digest in model.revisions:
            assert closure.dependents(name, digest) <= model.revisions

    # Twice is no change.
    again = decided(store, policies, ages, **protect)
    assert not again.plan.changes, [each for each in (*again.tags, *again.untagged) if each.delete]


# Real registries

KEEP_ONE = [policy({"newest": 1}, name="keep one", untagged={"keep_within": "1h"})]


def request(registry: RegistryProcess, *, disk: bool = True, check: bool = False, **keys: Any) -> Request:
    fields: dict[str, Any] = {
        "client": RegistryClient(registry.url, timeout=20),
        "data": str(registry.data) if disk else None,
        "policies": KEEP_ONE,
        "protect": {"tags": ["latest"]},
        "max_percent": 100,
        "max_count": None,
        "check_mode": check,
    }
    return Request(**{**fields, **keys})


def filled(registry: RegistryProcess, seed: int) -> Store:
    """A sample store on a registry, with tags and manifests of random ages."""
    rng = random.Random(seed)
    store = sample_store(rng)
    # The registry's own garbage collection takes for unused what was pushed by SHA-512.
    del store.repositories["sha512"]
    store.steps = [step for step in store.steps if step.repository != "sha512"]
    push(registry.url, store)
    set_ages(registry.data, store, random_ages(rng, store), time.time())
    return store


def blobs(registry: RegistryProcess) -> set[str]:
    return {blob.digest for blob in Storage(registry.data).blobs() if isinstance(blob, Blob)}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_on_a_registry(registry: RegistryProcess, seed: int) -> None:
    """Foreseen, done, done again; what stays can be pulled, and garbage collection frees what was said."""
    store = filled(registry, seed)
    before = verify(registry.url, store)
    foreseen = run(request(registry, check=True))
    assert foreseen["changed"]
    assert verify(registry.url, store) == before, "check mode changes nothing"

    decisions = decide_now(registry.data)
    unused = {blob.digest for blob in read_graph(DiskSource(Storage(registry.data))).orphans().blobs}
    done = run(request(registry))
    assert done["changed"]
    assert done["spared"] == []
    assert {key: done[key] for key in ("tags", "untagged", "bytes")} == {
        key: foreseen[key] for key in ("tags", "untagged", "bytes")
    }
    apply(store, decisions)
    verify(registry.url, store)

    again = run(request(registry))
    assert not again["changed"]
    assert again["delete_tags"] == again["delete_manifests"] == 0
    verify(registry.url, store)

    registry.stop()
    whole = blobs(registry)
    collected = registry.garbage_collect()
    assert collected.returncode == 0, collected.stdout + collected.stderr
    freed = whole - blobs(registry)
    assert freed == {blob.digest for blob in decisions.plan.blobs} | unused
    registry.start()
    verify(registry.url, store)


def decide_now(root: Path) -> Decisions:
    """What KEEP_ONE means at this moment."""
    source = DiskSource(Storage(root))
    graph = read_graph(source)
    protect = parse_protect({"tags": ["latest"]})
    return decide(graph, parse_policies(KEEP_ONE), protect, time.time(), Images(graph, source))


def test_over_http(registry: RegistryProcess) -> None:
    """By dates of creation, without the disk; the same tags go as with it."""
    store = Store()
    for number in range(6):
        created(store, f"b{number}", f"202{number}-01-01T00:00:00Z")
    shared = store.repositories["app"].current("b0")
    store.tag("app", shared, "latest")
    images("ab", "other", store)
    push(registry.url, store)
    policies = [policy({"newest": 2, "order": "created"}, repositories=["app"])]
    foreseen = run(request(registry, check=True, policies=policies))
    done = run(request(registry, disk=False, policies=policies))
    assert [tag["tag"] for tag in done["tags"] if tag["decision"] == "delete"] == ["b0", "b1", "b2", "b3"]
    assert [(tag["tag"], tag["rule"]) for tag in done["tags"]] == [
        (tag["tag"], tag["rule"]) for tag in foreseen["tags"] if tag["repository"] == "app"
    ]
    assert done["untagged"] is None
    assert not done["bytes_exact"]
    for tag in ("b0", "b1", "b2", "b3"):
        digest = store.repositories["app"].current(tag)
        del store.repositories["app"].tags[tag]
        if digest != shared:
            store.repositories["app"].revisions.remove(digest)
            store.repositories["app"].deleted.add(digest)
    verify(registry.url, store)
    assert not run(request(registry, disk=False, policies=policies))["changed"]


FAULTS: list[Any] = [status(401), status(429), status(500), html(), half, corrupt]


@pytest.mark.parametrize("place", ["_catalog", "app/tags/list", "app/manifests/b[35]", "app/blobs/"])
def test_a_faulty_registry_is_never_a_reason_to_delete(registry: RegistryProcess, place: str) -> None:
    """Whether it ends with an error or in keeping everything."""
    store = Store()
    for number in range(6):
        created(store, f"b{number}", f"202{number}-01-01T00:00:00Z")
    push(registry.url, store)
    policies = [policy({"newest": 2, "order": "created"})]
    with FaultyProxy(registry.url) as proxy:
        client = RegistryClient(proxy.url, retries=0)
        for fault in FAULTS:
            proxy.heal()
            proxy.spoil(f"GET /v2/{place}", fault)
            with suppress(RegistryError):
                assert not run(request(registry, disk=False, policies=policies, client=client))["changed"]
        verify(registry.url, store)
        proxy.heal()
        assert run(request(registry, disk=False, policies=policies, client=client))["delete_tags"] == 4


def test_too_much_at_once(registry: RegistryProcess) -> None:
    store = filled(registry, 1)
    for limits in ({"max_percent": 10}, {"max_count": 3}):
        for check in (True, False):
            with pytest.raises(RetentionFailed) as caught:
                run(request(registry, check=check, **limits))
            assert next(iter(limits)).replace("max_", "max_delete_") in str(caught.value)
            assert caught.value.report["delete_tags"] > 3
            assert "REPOSITORY" in caught.value.report["table"]
    verify(registry.url, store)


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("options", [{"delete": False}, {"readonly": True}, {"auth": {"me": "secret"}}])
def test_a_registry_that_does_not_let_us(
    registry_factory: Callable[..., RegistryProcess], options: dict[str, Any], check: bool
) -> None:
    """Check mode says so too. From the disk all was decided by then."""
    registry = registry_factory()
    filled(registry, 1)
    registry.stop()
    refusing = registry_factory(**options)
    with pytest.raises(RetentionFailed) as caught:
        run(request(refusing, check=check, data=str(registry.data)))
    assert caught.value.report["delete_tags"] > 0
    registry.start()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"disk": False},
            "policy 'keep one': it goes by times of pushes, which only the registry's disk shows",
        ),
        (
            {"policies": [policy({"newst": 1})]},
            "policies[0] (p): keep.newst: there is no such key. Did you mean",
        ),
        (
            {"protect": {"files": ["/there/is/none"]}},
            "read /there/is/none, which protects digests: No such file",
        ),
        ({"max_percent": 101}, "max_delete_percent: 101 is no share"),
        ({"max_count": -1}, "max_delete_count: -1"),
    ],
)
def test_bad_input(registry: RegistryProcess, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(RegistryError) as caught:
        run(request(registry, **keys))
    assert message in str(caught.value)


def test_files_protect(registry: RegistryProcess, tmp_path: Path) -> None:
    store = filled(registry, 1)
    in_use = tmp_path / "in-use"
    digests = {digest for model in store.repositories.values() for digest in model.revisions}
    in_use.write_text(
        "".join(f"registry.example.org/x@{digest}\n" for digest in sorted(digests)), encoding="utf-8"
    )
    done = run(request(registry, protect={"files": [str(in_use)]}))
    assert not done["changed"]
    verify(registry.url, store)


def test_an_empty_registry(registry: RegistryProcess) -> None:
    done = run(request(registry))
    assert not done["changed"]
    assert done["tags"] == done["untagged"] == []


# The module


def test_module(registry: RegistryProcess) -> None:
    filled(registry, 1)
    arguments = {
        "url": registry.url,
        "data": str(registry.data),
        "policies": KEEP_ONE,
        "max_delete_percent": 100,
    }
    foreseen = run_module("retention", arguments, check=True, diff=True)
    assert foreseen["changed"]
    done = run_module("retention", arguments, diff=True)
    assert done["changed"]
    assert done["diff"] == foreseen["diff"]
    removed = set(done["diff"]["before"].splitlines()) - set(done["diff"]["after"].splitlines())
    tags = {f"{tag['repository']}:{tag['tag']}" for tag in done["tags"] if tag["decision"] == "delete"}
    assert {line.split()[0] for line in removed if line.split()[1] != "(no"} == tags
    assert len(tags) == done["delete_tags"]
    assert f"{done['delete_tags']} tags and {done['delete_manifests']} manifests go" in done["table"]
    again = run_module("retention", arguments, diff=True)
    assert not again["changed"]
    assert again["diff"] == {"before": "", "after": ""}
    failed = run_module("retention", {**arguments, "policies": [{"name": "x"}]})
    assert failed["failed"]
    assert "policies[0] (x): repositories is missing" in failed["msg"]
