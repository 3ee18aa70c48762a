# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a request needs, and who has it: every role on every path, and every spelling that is not the one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest
from ansible_collections.dockyard.registry.plugins.module_utils._permissions import (
    PERMISSIONS,
    InvalidPolicy,
    Policy,
    build_document,
    find_problems,
)
from ansible_collections.dockyard.registry.plugins.module_utils._request import (
    MAX_TARGET,
    Refused,
    read_request,
)
from hypothesis import given
from hypothesis import strategies as st

DIGEST = "sha256:" + "a" * 64
UPLOAD = "5b7c9e2a-1234-4abc-8def-0123456789ab"
STATE = "_state=q1W-_e%3D%3D"
METHODS = (
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "CONNECT",
    "TRACE",
    "get",
    "PROPFIND",
    "",
)

# What a role needs for a method on a path: a permission, "look" (pull or push), "login", "anybody", or nothing here
# where nobody may.
MANIFEST = {"GET": "pull", "HEAD": "look", "PUT": "push", "DELETE": "delete", "OPTIONS": "anybody"}
UPLOADS = dict.fromkeys(("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"), "push")
READ = {"GET": "pull", "HEAD": "pull", "OPTIONS": "anybody"}
PATHS: dict[str, Mapping[str, str]] = {
    "/v2/": {"GET": "login", "HEAD": "login", "OPTIONS": "anybody"},
    "/v2/_catalog": {"GET": "all", "HEAD": "all", "OPTIONS": "anybody"},
    "/v2/_catalog?n=100&last=a%2Fb": {"GET": "all", "HEAD": "all", "OPTIONS": "anybody"},
    "/v2/team/app/tags/list": READ,
    "/v2/team/app/tags/list?n=10&last=1.0": READ,
    "/v2/team/app/manifests/1.0": MANIFEST,
    f"/v2/team/app/manifests/{DIGEST}": MANIFEST,
    "/v2/team/app/manifests/latest?ns=docker.io": MANIFEST,
    f"/v2/team/app/blobs/{DIGEST}": {"GET": "pull", "HEAD": "look", "DELETE": "delete", "OPTIONS": "anybody"},
    "/v2/team/app/blobs/uploads/": {"POST": "push", "OPTIONS": "anybody"},
    f"/v2/team/app/blobs/uploads/?digest={DIGEST}": {"POST": "push", "OPTIONS": "anybody"},
    f"/v2/team/app/blobs/uploads/{UPLOAD}?{STATE}": UPLOADS,
    f"/v2/team/app/blobs/uploads/{UPLOAD}?{STATE}&digest=sha256%3A{'a' * 64}": UPLOADS,
    f"/v2/team/app/referrers/{DIGEST}?artifactType=application%2Fx.y%2Bjson": READ,
}

GRANTS: dict[str, set[str]] = {
    "+".join(chosen) or "none": set(chosen)
    for chosen in (
        [name for name, wanted in zip(PERMISSIONS, mask) if wanted]
        for mask in product((True, False), repeat=len(PERMISSIONS))
    )
}


def policy(**users: Any) -> Policy:
    """A policy of users' grants, as it comes back from its file."""
    return Policy.of(json.loads(json.dumps({**build_document([]), "users": users})))


def allowed(of: Policy, user: str | None, method: str, target: str, content_type: str = "") -> bool:
    try:
        return of.allows(user, read_request(method, target, content_type))
    except Refused:
        return False


@pytest.mark.parametrize("role", GRANTS)
@pytest.mark.parametrize("target", PATHS)
def test_every_role_method_and_path(role: str, target: str) -> None:
    held = GRANTS[role]
    for where, patterns in {"here": ["team/**"], "elsewhere": ["other/**"], "everywhere": ["**"]}.items():
        rules = policy(alice={"permissions": sorted(held), "repositories": patterns})
        reaches = where != "elsewhere"
        for method in METHODS:
            need = PATHS[target].get(method)
            expected = {
                None: False,
                "anybody": True,
                "login": True,
                "all": "pull" in held and where == "everywhere",
                "look": reaches and bool(held & {"pull", "push"}),
            }.get(need, reaches and need in held)
            assert allowed(rules, "alice", method, target) is expected, (where, method)
            assert allowed(rules, None, method, target) is (need == "anybody"), (where, method)


def test_a_mount_needs_pull_where_it_comes_from() -> None:
    rules = policy(
        both={"permissions": ["pull", "push"], "repositories": ["mine/**", "shared"]},
        mine={"permissions": ["pull", "push"], "repositories": ["mine/**"]},
        push={"permissions": ["push"], "repositories": ["**"]},
    )
    for source in ("from=shared", "from=%73hared", "from=share%64"):
        for query in (f"mount={DIGEST}&{source}", f"{source}&mount=sha256%3A{'a' * 64}", source):
            target = f"/v2/mine/app/blobs/uploads/?{query}"
            assert allowed(rules, "both", "POST", target), target
            assert not allowed(rules, "mine", "POST", target), target
            assert not allowed(rules, "push", "POST", target), target
    assert allowed(rules, "mine", "POST", f"/v2/mine/app/blobs/uploads/?mount={DIGEST}&from=mine%2Fbase")


# Each would reach a repository, or a right, that the plain reading does not show.
TRICKS = [
    "",
    "/",
    "*",
    "/v2",
    "/v2//",
    "//v2/",
    "/v1/",
    "/V2/",
    "/v2/?",
    "/v2/?=",
    "/v2/#",
    "/v2/;x=1",
    "/v2/..",
    "/v2/./",
    "/v2/%2e/",
    "/healthz",
    "/v2/_catalog/",
    "/v2/_catalog?n",
    "/v2/_catalog;n=1",
    "http://registry/v2/",
    "//registry/v2/",
    "v2/",
    "/v2/team%2Fapp/manifests/1.0",
    "/v2/team%2fapp/manifests/1.0",
    "/v2/team/%61pp/manifests/1.0",
    "/v2/team/app%00/manifests/1.0",
    "/v2/team/app/%6danifests/1.0",
    "/v2/team/app/manifests/1%2e0",
    "/v2/team//app/manifests/1.0",
    "/v2//team/app/manifests/1.0",
    "/v2/team/app//manifests/1.0",
    "/v2/team/app/manifests//1.0",
    "/v2/team/app/manifests/1.0/",
    "/v2/team/app/manifests/",
    "/v2/team/./app/manifests/1.0",
    "/v2/team/../app/manifests/1.0",
    "/v2/team/x/../app/manifests/1.0",
    "/v2/team/app/manifests/..",
    "/v2/team/app/manifests/../../other/manifests/1.0",
    "/v2/team\\app/manifests/1.0",
    "/v2/team/app\\..\\other/manifests/1.0",
    "/v2/Team/app/manifests/1.0",
    "/v2/team/app/Manifests/1.0",
    "/v2/team/app;x/manifests/1.0",
    "/v2/team/app/manifests;x/1.0",
    "/v2/team/app/manifests/1.0;x",
    "/v2/team/app/manifests/1.0#x",
    "/v2/team/app/manifests/1.0 ",
    "/v2/team/app/manifests/1.0\t",
    "/v2/team/app/manifests/1.0\x00",
    "/v2/team/app/manifests/1.0\r\nX: y",
    "/v2/team/app/manifests/ä",
    f"/v2/team/app/manifests/{DIGEST[:-1]}",
    f"/v2/team/app/manifests/{DIGEST}a",
    f"/v2/team/app/manifests/{DIGEST.upper()}",
    "/v2/team/app/manifests/sha256:" + "A" * 64,
    f"/v2/team/app/manifests/1.0@{DIGEST}",
    "/v2/team/app/manifests/" + "a" * 129,
    "/v2/team/app/manifests/.1",
    f"/v2/team/app/blobs/{DIGEST}/",
    "/v2/team/app/blobs/1.0",
    "/v2/team/app/blobs/uploads",
    "/v2/team/app/blobs/uploads//",
    "/v2/team/app/blobs/uploads/..",
    f"/v2/team/app/blobs/uploads/{UPLOAD}/",
    f"/v2/team/app/blobs/uploads/{UPLOAD.upper()}",
    f"/v2/team/app/blobs/uploads/{UPLOAD[:-1]}",
    f"/v2/team/app/blobs/uploads/{UPLOAD}%3Fx",
    "/v2/team/app/tags/list/",
    "/v2/team/app/tags",
    "/v2/team/app/tags/list2",
    "/v2/team/app/referrers/1.0",
    "/v2/manifests/1.0",
    "/v2/tags/list",
    f"/v2/blobs/{DIGEST}",
    "/v2/blobs/uploads/",
    "/v2/" + "a" * 256 + "/manifests/1.0",
    "/v2/team/app/manifests/1.0?" + "a=" + "b" * MAX_TARGET,
    "/v2/team/app/manifests/1.0?a=1&a=1",
    "/v2/team/app/manifests/1.0?a=1&&b=1",
    "/v2/team/app/manifests/1.0?a=1;b=2",
    "/v2/team/app/manifests/1.0?a=1&",
    "/v2/team/app/manifests/1.0?a=%",
    "/v2/team/app/manifests/1.0?a=%2",
    "/v2/team/app/manifests/1.0?a=%zz",
    "/v2/team/app/manifests/1.0?a=%00",
    "/v2/team/app/manifests/1.0?a=%0d%0a",
    "/v2/team/app/manifests/1.0?a=%ff",
    "/v2/team/app/manifests/1.0??a=1",
    f"/v2/team/app/blobs/uploads/?mount={DIGEST}&from=team/a&from=other",
    f"/v2/team/app/blobs/uploads/?mount={DIGEST}&from=team/a&mount={DIGEST}",
    f"/v2/team/app/blobs/uploads/?mount={DIGEST}&from=",
    f"/v2/team/app/blobs/uploads/?mount={DIGEST}&from=team/a;from=other",
    f"/v2/team/app/blobs/uploads/?mount={DIGEST}&from=team%252Fa",
    f"/v2/team/app/blobs/uploads/?mount={DIGEST}&from=team/../other",
    f"/v2/team/app/blobs/uploads/?mount={DIGEST}&from=Team/a",
    f"/v2/team/app/blobs/uploads/?mount={DIGEST}&from=team+a",
    f"/v2/team/app/blobs/uploads/?mount={DIGEST}&from=team/a%00",
    f"/v2/team/app/blobs/uploads/?mount={DIGEST}&%66rom=other",
    "/v2/team/app/blobs/uploads/?mount=1.0&from=team/a",
    "/v2/team/app/blobs/uploads/?mount=&from=team/a",
]


@pytest.mark.parametrize("target", TRICKS)
def test_what_has_two_readings_nobody_may(target: str) -> None:
    everything = policy(root={"permissions": list(PERMISSIONS), "repositories": ["**"]})
    for method in METHODS:
        assert not allowed(everything, "root", method, target), method


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "Application/X-WWW-Form-URLencoded; charset=utf-8",
        " multipart/form-data; boundary=x",
        "MULTIPART/FORM-DATA",
    ],
)
def test_forms_are_refused_since_the_registry_reads_mount_and_from_out_of_them(content_type: str) -> None:
    everything = policy(root={"permissions": list(PERMISSIONS), "repositories": ["**"]})
    assert not allowed(everything, "root", "POST", "/v2/team/app/blobs/uploads/", content_type)
    for harmless in ("", "application/octet-stream", "application/json"):
        assert allowed(everything, "root", "POST", "/v2/team/app/blobs/uploads/", harmless)


# Written once more, as one expression: what the registry's own routes take, in the one spelling.
_NAME = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = rf"{_NAME}(?:/{_NAME})*"
_DIGEST = r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})"
CANONICAL = re.compile(
    rf"/v2/(?:|_catalog|{_NAME}/(?:tags/list|manifests/(?:[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}}|{_DIGEST})"
    rf"|(?:blobs|referrers)/{_DIGEST}|blobs/uploads/(?:[0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}})?))"
)
PIECES = [
    "/v2/",
    "/",
    "a",
    "team",
    "manifests",
    "/manifests/",
    "/blobs/",
    "uploads/",
    "/tags/list",
    "/referrers/",
    "_catalog",
    DIGEST,
    UPLOAD,
    "1.0",
    "..",
    ".",
    "%2f",
    "%2e",
    "\\",
    ";",
    " ",
    "A",
    "\x00",
    "é",
]


@given(st.lists(st.sampled_from(PIECES), max_size=9), st.sampled_from(METHODS))
def test_nothing_but_the_one_spelling_is_ever_allowed(pieces: list[str], method: str) -> None:
    target = "/v2/" + "".join(pieces)
    everything = policy(root={"permissions": list(PERMISSIONS), "repositories": ["**"]})
    if allowed(everything, "root", method, target):
        assert CANONICAL.fullmatch(target)
    elif method == "OPTIONS":
        assert not CANONICAL.fullmatch(target)


@given(st.text(max_size=40), st.text(max_size=10), st.text(max_size=40))
def test_any_text_is_answered_and_never_more_than_refused(
    target: str, method: str, content_type: str
) -> None:
    try:
        read_request(method, target, content_type)
    except Refused:
        return
    assert CANONICAL.fullmatch(target.partition("?")[0])


@given(st.sampled_from(METHODS), st.data())
def test_a_canonical_target_with_anything_put_in_is_another_request_or_none(
    method: str, data: st.DataObject
) -> None:
    plain = data.draw(st.sampled_from([path for path in PATHS if "?" not in path]))
    place = data.draw(st.integers(1, len(plain)))
    junk = data.draw(
        st.sampled_from(["%2f", "//", "/./", "/../", "\\", "%00", ";", "A/", "\t", "/.", "#", "%"])
    )
    target = plain[:place] + junk + plain[place:]
    everything = policy(root={"permissions": list(PERMISSIONS), "repositories": ["**"]})
    # A capital letter is right in a tag.
    assert not allowed(everything, "root", method, target) or (junk == "A/" and CANONICAL.fullmatch(target))


def test_anonymous_pull_is_pull_and_nothing_else() -> None:
    document = build_document([], anonymous_pull=["public/**"])
    rules = Policy.of(document)
    for target, needs in PATHS.items():
        public = target.replace("team/", "public/")
        for method, need in needs.items():
            expected = need == "anybody" or (need in ("pull", "look") and "public/" in public)
            assert allowed(rules, None, method, public) is expected, (method, public)
            assert allowed(rules, None, method, target) is (need == "anybody"), (method, target)
    everything = Policy.of(build_document([], anonymous_pull=True))
    assert allowed(everything, None, "GET", "/v2/_catalog")
    assert not allowed(everything, None, "GET", "/v2/"), "clients learn there that they can log in"


def test_users_that_no_entry_names() -> None:
    target = "/v2/team/app/manifests/1.0"
    open_to_all = Policy.of(build_document([{"name": "alice"}]))
    assert allowed(open_to_all, "bob", "DELETE", target), "as before there were rights"
    limited = build_document([{"name": "alice", "permissions": ["pull"]}, {"name": "bob", "state": "absent"}])
    for method in ("GET", "PUT", "DELETE"):
        assert not allowed(Policy.of(limited), "carol", method, target), method
    going = Policy.of(build_document([{"name": "bob", "permissions": ["pull"], "state": "absent"}]))
    assert allowed(going, "carol", "DELETE", target)
    assert not allowed(going, "bob", "GET", target), "until the users file is written"
    chosen = Policy.of(build_document([{"name": "alice", "permissions": ["pull"]}], default=["pull"]))
    assert allowed(chosen, "bob", "GET", target)
    assert not allowed(chosen, "bob", "PUT", target)


def test_entries_and_the_own_user() -> None:
    entries = [
        {"name": "all"},
        {"name": "reader", "permissions": ["pull"]},
        {"name": "team", "repositories": ["team/**"]},
    ]
    document = build_document(entries, superuser="maintenance")
    assert document == {
        "format": 1,
        "users": {
            "all": {"permissions": ["pull", "push", "delete"], "repositories": ["**"]},
            "maintenance": {"permissions": ["pull", "push", "delete"], "repositories": ["**"]},
            "reader": {"permissions": ["pull"], "repositories": ["**"]},
            "team": {"permissions": ["pull", "push", "delete"], "repositories": ["team/**"]},
        },
        "default": {"permissions": [], "repositories": ["**"]},
        "anonymous": [],
    }
    assert allowed(Policy.of(document), "maintenance", "DELETE", "/v2/team/app/manifests/1.0")


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"format": 2, "users": {}, "default": {}, "anonymous": []},
        {"format": 1, "users": [], "default": {"permissions": [], "repositories": []}, "anonymous": []},
        {
            "format": 1,
            "users": {"a": None},
            "default": {"permissions": [], "repositories": []},
            "anonymous": [],
        },
        {"format": 1, "users": {}, "default": {"permissions": ["all"], "repositories": []}, "anonymous": []},
        {"format": 1, "users": {}, "default": {"permissions": [], "repositories": ["A"]}, "anonymous": []},
        {"format": 1, "users": {}, "default": {"permissions": [], "repositories": []}, "anonymous": "**"},
    ],
)
def test_a_policy_that_is_not_understood_is_none(document: Any) -> None:
    with pytest.raises(InvalidPolicy):
        Policy.of(document)


def test_problems_are_named() -> None:
    entries = [
        {"name": "alice", "permissions": ["pul", "write"]},
        {"name": "bob", "permissions": []},
        {"name": "carol", "repositories": ["Team/*"]},
        {"name": "dave", "repositories": []},
        {"name": "erin", "permissions": "pull"},
        {"name": "fine", "permissions": ["pull"], "repositories": ["team/**", "regex:^ci-[0-9]+$"]},
    ]
    problems = find_problems(entries, anonymous_pull=["["], default=["everything"])
    text = "\n".join(problems)
    assert (
        "users[0] (alice): 'pul' is no permission; there are pull, push, delete. Did you mean pull?" in text
    )
    assert "Did you mean push?" in text
    assert "users[1] (bob): permissions is empty" in text
    assert "users[2] (carol)" in text
    assert "capital letters" in text
    assert "users[3] (dave): repositories is empty" in text
    assert "users[4] (erin): permissions must be a list" in text
    assert "anonymous_pull: no pattern" in text
    assert "default_permissions: 'everything' is no permission" in text
    assert "fine" not in text


def test_limits_need_something_that_enforces_them() -> None:
    limited = [{"name": "a"}, {"name": "b", "permissions": ["pull"]}, {"name": "c", "repositories": ["x/*"]}]
    assert find_problems(limited, anonymous_pull=True, default=["pull"], enforced=True) == []
    problems = find_problems(limited, anonymous_pull=True, default=["pull"], enforced=False)
    assert [problem.partition(":")[0] for problem in problems] == [
        "users[1] (b)",
        "users[2] (c)",
        "anonymous_pull",
        "default_permissions",
    ]
    assert all("registry_proxy" in problem for problem in problems)
    everything = [{"name": "a", "permissions": ["delete", "push", "pull"], "repositories": ["**"]}]
    assert find_problems(everything, default=list(PERMISSIONS), enforced=False) == []
