# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Retention policies as people write them, their patterns, and semantic versions."""

from __future__ import annotations

import random
from typing import Any

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils import _semver
from ansible_collections.dockyard.registry.plugins.module_utils._patterns import (
    REPOSITORY,
    TAG,
    InvalidPattern,
    Kind,
    Pattern,
)
from ansible_collections.dockyard.registry.plugins.module_utils._policy import (
    InvalidPolicies,
    Order,
    parse_digests,
    parse_policies,
    parse_protect,
)
from ansible_collections.dockyard.registry.plugins.module_utils._semver import Levels, Newest

DIGEST = f"sha256:{'a' * 64}"
OTHER = f"sha256:{'b' * 64}"


# Patterns


@pytest.mark.parametrize(
    ("pattern", "matched", "others"),
    [
        ("app", ["app"], ["apps", "my-app", "team/app"]),
        ("app*", ["app", "apps", "app-1"], ["app/web", "my-app"]),
        ("*", ["app"], ["team/app"]),
        ("**", ["app", "team/app", "a/b/c"], []),
        ("ci/**", ["ci/a", "ci/a/b"], ["ci", "ci2/a", "x/ci/a"]),
        ("**/web", ["web", "a/web", "a/b/web"], ["webs", "web/a"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["a/bz", "az"]),
        ("a/**/**", ["a/b", "a/b/c"], ["a"]),
        ("a?c", ["abc", "a-c"], ["ac", "a/c"]),
        ("app-[0-9]", ["app-1"], ["app-a", "app-10"]),
        ("app-[!0-9]", ["app-a"], ["app-1", "app-/"]),
        ("a.c", ["a.c"], ["abc"]),
        (r"regex:^ci/[a-z]+$", ["ci/a"], ["ci/a/b", "ci/1", "xci/a"]),
        (r"regex:^a|b$", ["a", "b"], ["ab", "axx", "xxb"]),
    ],
)
def test_repository_patterns(pattern: str, matched: list[str], others: list[str]) -> None:
    parsed = Pattern.of(pattern, REPOSITORY)
    assert [name for name in matched + others if parsed.matches(name)] == matched


@pytest.mark.parametrize(
    ("pattern", "matched", "others"),
    [
        ("*", ["latest", "1.0"], []),
        ("v1.*", ["v1.0", "v1.2.3"], ["v10", "v1"]),
        ("*-SNAPSHOT", ["1-SNAPSHOT"], ["1-snapshot"]),
        (r"regex:^pr-\d+$", ["pr-1"], ["pr-1a", "xpr-1"]),
    ],
)
def test_tag_patterns(pattern: str, matched: list[str], others: list[str]) -> None:
    parsed = Pattern.of(pattern, TAG)
    assert [name for name in matched + others if parsed.matches(name)] == matched


@pytest.mark.parametrize(
    ("pattern", "kind", "message"),
    [
        ("", TAG, "it is empty"),
        ("^v1", TAG, "looks like a regular expression"),
        (r"v\d+", TAG, "looks like a regular expression"),
        (".*", TAG, "no tag begins with '.'"),
        ("-rc", TAG, "no tag begins with '-'"),
        ("{a,b}", TAG, "one pattern for each"),
        ("v[1", TAG, "brackets are not closed"),
        ("v[]", TAG, "brackets are not closed"),
        ("v[9-1]", TAG, "a range that ends before it begins"),
        ("team/app", TAG, "tags have no '/'"),
        ("v 1", TAG, "no tag has ' ' in it"),
        ("Team/*", REPOSITORY, "no capital letters"),
        ("app:1", REPOSITORY, "without a tag"),
        ("a//b", REPOSITORY, "no part between two '/' is empty"),
        ("a/", REPOSITORY, "no part between two '/' is empty"),
        ("ci**", REPOSITORY, "inside one write *"),
        ("regex:^(", TAG, "no regular expression"),
        ("regex:v1", TAG, "write regex:^v1$, or regex:^v1.*$"),
        ("regex:^v1", TAG, "write regex:^v1$, or regex:^v1.*$"),
        (r"regex:^v1\$", TAG, "must cover the whole name"),
    ],
)
def test_patterns_that_match_nothing_are_refused(pattern: str, kind: Kind, message: str) -> None:
    with pytest.raises(InvalidPattern) as caught:
        Pattern.of(pattern, kind)
    assert message in str(caught.value)


# Semantic versions


def test_precedence() -> None:
    # In the order of semver.org, with what tags add to it.
    ordered = [
        *("0.0.1", "0.9.9", "1.0.0-0", "1.0.0-9", "1.0.0-10", "1.0.0-alpha", "1.0.0-alpha.1"),
        *("1.0.0-alpha.beta", "1.0.0-beta", "v1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "v1.0.0"),
        *("1.0.1", "1.2.0", "1.10.0", "2.0.0-alpine", "2.0.0", "10.0.0"),
    ]
    shuffled = random.Random(7).sample(ordered, len(ordered))
    assert sorted(shuffled, key=_semver.parse) == ordered  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "tag", ["1", "1.2", "1.2.3.4", "01.2.3", "1.2.3-", "1.2.3-01", "latest", "V1.2.3", "1.2.3-a..b", "x1.2.3"]
)
def test_no_versions(tag: str) -> None:
    assert _semver.parse(tag) is None


def test_build_metadata_has_no_precedence() -> None:
    assert _semver.parse("1.2.3_build.7") == _semver.parse("v1.2.3")


@pytest.mark.parametrize(
    ("levels", "kept"),
    [
        (Levels(major=1), ["2.0.0", "2.1.0", "2.1.1"]),
        (Levels(minor=1), ["0.9.0", "1.4.0", "1.4.2", "2.1.0", "2.1.1"]),
        (Levels(major=2, minor=2), ["1.3.0", "1.4.0", "1.4.2", "2.0.0", "2.1.0", "2.1.1"]),
        (Levels(patch=1), ["0.9.0", "1.2.0", "1.3.0", "1.4.2", "2.0.0", "2.1.1"]),
        (Levels(major=1, minor=1, patch=1), ["2.1.1"]),
        (Levels(major=9, minor=9, patch=9), None),
        (Levels(), None),
    ],
)
def test_levels(levels: Levels, kept: list[str] | None) -> None:
    tags = ["0.9.0", "1.2.0", "1.3.0", "1.4.0", "1.4.2", "2.0.0", "2.1.0", "2.1.1"]
    versions = {tag: version for tag in tags if (version := _semver.parse(tag))}
    newest = Newest(levels, versions.values())
    assert [tag for tag, version in versions.items() if newest.has(version)] == (kept or tags)


# Policies


def policy(**keys: Any) -> dict[str, Any]:
    """A policy that is fine, but for what is given; None takes a key out."""
    whole = {"name": "builds", "repositories": ["ci/**"], "keep": {"newest": 10}, **keys}
    return {key: value for key, value in whole.items() if value is not None}


def problems(*policies: Any) -> list[str]:
    with pytest.raises(InvalidPolicies) as caught:
        parse_policies(list(policies))
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def test_a_policy_with_everything() -> None:
    (parsed,) = parse_policies(
        [
            {
                "name": "all",
                "repositories": ["team/**", "regex:^app$"],
                "exclude_repositories": ["team/base"],
                "tags": {"match": ["v*"], "exclude": ["*-lts"]},
                "keep": {
                    "newest": 5,
                    "order": "semver",
                    "within": "2w",
                    "semver": {"major": 2, "minor": 3, "patch": 1},
                    "prereleases": "count",
                    "unversioned": "drop",
                },
                "combine": "all",
                "min_keep": 2,
                "protect": {"tags": ["v1.0.0"], "digests": [DIGEST], "files": ["/in-use"]},
                "untagged": {"keep_within": "12h", "orphaned_referrers": True},
            }
        ]
    )
    assert parsed.keep is not None
    assert parsed.keep.order is Order.SEMVER
    assert parsed.keep.within is not None
    assert parsed.keep.within.seconds == 14 * 86400
    assert parsed.keep.semver == Levels(2, 3, 1)
    assert parsed.keep.counts_prereleases
    assert parsed.keep.drops_unversioned
    assert parsed.needs_all
    assert parsed.min_keep == 2
    assert parsed.protect.digests == {DIGEST}
    assert parsed.untagged is not None
    assert parsed.untagged.keep_within.seconds == 12 * 3600
    assert parsed.untagged.orphaned_referrers
    assert parsed.repositories.selects("team/web")
    assert parsed.repositories.selects("app")
    assert not parsed.repositories.selects("team/base")
    assert not parsed.tags.selects("v1-lts")


def test_defaults_keep_more() -> None:
    (parsed,) = parse_policies([policy()])
    assert parsed.keep is not None
    assert parsed.keep.order is Order.PUSHED
    assert parsed.min_keep == 1
    assert not parsed.needs_all
    assert not parsed.keep.counts_prereleases
    assert not parsed.keep.drops_unversioned
    assert parsed.untagged is None
    assert parsed.tags.selects("anything")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        # No policy
        ("builds", 'policies[0]: a mapping belongs here, got the string "builds"'),
        (policy(name=None), "policies[0]: name is missing"),
        (policy(name=7), "name: text belongs here, got the number 7. Put it in quotes"),
        (policy(repositories=None), "repositories is missing"),
        # Keys
        (policy(repositores=["a"]), "repositores: there is no such key. Did you mean repositories?"),
        (policy(exclude=["a"]), "exclude: there is no such key. Write exclude_repositories"),
        (policy(whatever=1), "There are: name, repositories, "),
        (policy(keep={"newst": 3}), "keep.newst: there is no such key. Did you mean newest?"),
        (policy(keep={"newest": 3, "semver": {"majors": 1}}), "keep.semver.majors: there is no such key"),
        ({**policy(), "tags": None}, "tags: it has no value"),
        # Texts and lists: the class of gitlab#325429, where an empty value widened a policy to everything
        (policy(repositories="ci/**"), "repositories: a list belongs here, got the string"),
        (policy(repositories=[]), "repositories: an empty list matches nothing"),
        (policy(tags={"match": []}), "tags.match: an empty list matches nothing"),
        (policy(tags={"match": None}), "tags.match: it has no value"),
        (policy(tags={"exclude": []}), "tags.exclude: an empty list matches nothing"),
        (policy(tags={"match": [""]}), "tags.match[0]: it is empty"),
        (policy(tags={"match": [1.1]}), "tags.match[0]: text belongs here, got the number 1.1. Put it in qu"),
        (policy(tags=["v*"]), "tags: a mapping belongs here, got a list"),
        (policy(tags={"match": ["^v1"]}), "tags.match[0]: ^v1: it looks like a regular expression"),
        (policy(exclude_repositories=["Base"]), "exclude_repositories[0]: Base: it matches nothing"),
        # Numbers and times
        (policy(keep={"newest": "10"}), 'got the string "10". Write 10 without quotes'),
        (policy(keep={"newest": True}), "keep.newest: a whole number belongs here, got the boolean true"),
        (policy(keep={"newest": 2.5}), "keep.newest: a whole number belongs here"),
        (policy(keep={"newest": 0}), "keep.newest: the least is 1, got 0: nothing would be kept"),
        (policy(keep={"newest": -1}), "keep.newest: the least is 1, got -1"),
        (policy(min_keep=-1), "min_keep: the least is 0, got -1"),
        (policy(keep={"semver": {"major": "all"}}), "Leave the key out to keep all"),
        (
            policy(keep={"within": 30}),
            "keep.within: a time in hours, days or weeks belongs here (12h, 30d, 8w)",
        ),
        (policy(keep={"within": "30"}), "keep.within: a time in hours"),
        (policy(keep={"within": "1m"}), "keep.within: a time in hours"),
        (policy(keep={"within": "0d"}), "keep.within: a time in hours"),
        (
            policy(keep={"newest": 1, "order": "name"}),
            'keep.order: the string "name" is none of pushed, created,',
        ),
        (policy(combine="or"), 'combine: the string "or" is none of any, all'),
        # Deleting everything
        (policy(keep=None), "it says nothing to keep, so that every tag would go"),
        (policy(keep={}), "keep: it names nothing to keep, so that every tag would go"),
        (policy(keep={"order": "created"}), "keep: it names nothing to keep"),
        (
            policy(repositories=["**"], keep={"within": "30d"}, min_keep=0),
            "min_keep: 0 for every tag of every repository",
        ),
        (
            policy(repositories=["**"], keep={"within": "30d", "newest": 3}, combine="all", min_keep=0),
            "min_keep: 0 for every tag of every repository",
        ),
        # Contradictions
        (policy(min_keep=11), "min_keep: 11 is more than keep.newest: 10"),
        (policy(tags={"match": ["v*"], "exclude": ["v*"]}), "tags.exclude: it excludes all that is matched"),
        (policy(tags={"exclude": ["*"]}), "tags.exclude: it excludes all that is matched"),
        (policy(exclude_repositories=["**"]), "exclude_repositories: it excludes all that is matched"),
        (policy(exclude_repositories=["ci/**"]), "exclude_repositories: it excludes all that is matched"),
        (policy(keep={"within": "1d", "order": "semver"}), "keep.order: it says how newest counts"),
        (
            policy(keep={"newest": 1, "prereleases": "count"}),
            "keep.prereleases: no rule here looks at versions",
        ),
        (
            policy(keep={"newest": 1, "unversioned": "drop"}),
            "keep.unversioned: no rule here looks at versions",
        ),
        (policy(keep={"semver": {}}), "keep.semver: it keeps every version"),
        (policy(protect={"tags": ["*"]}), "protect.tags: it protects every tag"),
        (policy(keep=None, untagged={"keep_within": "7d"}, min_keep=2), "min_keep: without keep the policy"),
        (policy(keep=None, untagged={"keep_within": "7d"}, tags={"match": ["v*"]}), "tags: without keep"),
        # Others
        (policy(untagged={}), "untagged.keep_within is missing: a push under way looks untagged"),
        (policy(untagged={"keep_within": "7d", "orphaned_referrers": "yes"}), "true or false belongs here"),
        (policy(protect={"digests": ["sha256:abc"]}), "protect.digests[0]: digest sha256:abc: sha256 has 64"),
        (policy(protect={"files": "/in-use"}), "protect.files: a list belongs here"),
    ],
)
def test_problems(given: Any, message: str) -> None:
    found = problems(given)
    assert len(found) == 1, found
    assert message in found[0]


@pytest.mark.parametrize(
    ("later", "message"),
    [
        (policy(), "name: an earlier policy has the same name"),
        (policy(name="x"), "it never decides, since the policy 'builds' before it claims all its tags"),
        (policy(name="x", tags={"match": ["v*"]}), "it never decides"),
    ],
)
def test_policies_that_never_decide(later: dict[str, Any], message: str) -> None:
    assert any(message in problem and "policies[1]" in problem for problem in problems(policy(), later))


def test_a_general_policy_before_a_special_one() -> None:
    general = policy(name="general", repositories=["**"], untagged={"keep_within": "7d"})
    special = policy(untagged={"keep_within": "1d"})
    found = problems(general, special)
    assert [problem.partition(", since")[0] for problem in found] == [
        "policies[1] (builds): it never decides",
        "policies[1] (builds): untagged: it never decides",
    ]
    assert len(parse_policies([special, general])) == 2


def test_all_problems_are_found_at_once() -> None:
    found = problems(policy(keep={"newest": 0, "within": 3}, combine="none"), policy(name="b", tags={"m": 1}))
    assert [problem.split(": ")[1] for problem in found] == [
        "keep.newest",
        "keep.within",
        "combine",
        "tags.m",
    ]


@pytest.mark.parametrize("given", [None, "x", {"name": "builds"}])
def test_no_list_of_policies(given: Any) -> None:
    with pytest.raises(InvalidPolicies, match="a list of policies belongs here"):
        parse_policies(given)


def test_protect_has_problems_too() -> None:
    with pytest.raises(InvalidPolicies) as caught:
        parse_protect({"tags": ["**"], "tag": ["v1"]})
    assert len(caught.value.problems) == 2
    assert parse_protect({"tags": [], "digests": []}).tags == ()


# A file of digests in use


def test_digests_in_use() -> None:
    text = f"""
    # pods
    {DIGEST}   # by itself
    docker-pullable://registry.example.org:5000/team/app@{OTHER}
    """
    assert parse_digests(text, "in-use") == {DIGEST, OTHER}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "in-use: it names no digest"),
        ("# none\n\n", "in-use: it names no digest"),
        (f"{DIGEST}\nregistry.example.org/app:1.0\n", "in-use, line 2: digest registry.example.org/app:1.0"),
        (f"{DIGEST[:20]}\n", "in-use, line 1: digest"),
    ],
)
def test_a_file_that_would_protect_less_than_meant(text: str, message: str) -> None:
    with pytest.raises(InvalidPolicies) as caught:
        parse_digests(text, "in-use")
    assert message in str(caught.value)
