# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What retention decided, as plain data for programs and as a table for people.

The documentation of module dockyard.registry.retention says what the data is.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from . import _table
from ._graph import Graph
from ._plan import name_of
from ._retention import Decision, Decisions

Report = dict[str, Any]


def report(graph: Graph, decisions: Decisions) -> Report:
    """Everything about a run, before anything is deleted."""
    deleted = [decision for decision in (*decisions.tags, *decisions.untagged) if decision.delete]
    found = decisions.plan
    return {
        "tags": [_tag(graph, decision) for decision in decisions.tags],
        "untagged": [_decision(decision) for decision in decisions.untagged] if graph.complete else None,
        "delete_tags": sum(1 for decision in deleted if decision.tag),
        "delete_manifests": len(found.manifests),
        "bytes": found.bytes,
        "bytes_exact": found.exact,
        "policies": list(_by_policy(decisions)),
        "kept_manifests": [str(protection) for protection in found.protected],
        "notes": list(decisions.notes),
        "spared": [],
    }


def render(told: Report) -> str:
    """A report for people: what goes, what each policy did, and what to know."""
    gone = _table.table(("REPOSITORY", "TAG", "DIGEST", "POLICY", "REASON", "PUSHED (UTC)"), _rows(told))
    policies = _table.table(
        ("POLICY", "KEEPS", "DELETES"),
        ([each["policy"] or "(none)", str(each["keep"]), str(each["delete"])] for each in told["policies"]),
        right=("KEEPS", "DELETES"),
    )
    tags = _table.counted(told["delete_tags"], "tag")
    manifests = _table.counted(told["delete_manifests"], "manifest")
    freed = f"{'' if told['bytes_exact'] else 'at most '}{_table.size(told['bytes'])}"
    total = f"{tags} and {manifests} go; garbage collection then frees {freed}."
    spared = (f"spared {text}" for text in told["spared"])
    parts = [gone, policies, "\n".join((total, *spared, *told["notes"]))]
    return "\n\n".join(parts if told["delete_tags"] or told["delete_manifests"] else parts[1:])


def difference(decisions: Decisions) -> dict[str, str]:
    """The tags of the repositories in which some go, and the untagged manifests that go: before and after."""
    gone = {(tag.repository, tag.name) for tag in decisions.plan.tags}
    touched = {repository for repository, _name in gone}
    tags = [tag for tag in decisions.tags if tag.repository in touched]
    untagged = (decision for decision in decisions.untagged if decision.delete)
    return {
        "before": "".join(_line(decision) for decision in (*tags, *untagged)),
        "after": "".join(_line(tag) for tag in tags if tag.target not in gone),
    }


def _line(decision: Decision) -> str:
    return f"{name_of(decision.target)} {decision.digest if decision.tag else '(no tag)'}\n"


def _tag(graph: Graph, decision: Decision) -> dict[str, Any]:
    holders = graph.holders(decision.repository, decision.digest)
    others = (f"{decision.repository}:{tag}" for tag in holders.tags if tag != decision.tag)
    return {
        **_decision(decision),
        "tag": decision.tag,
        "shared_with": [*others, *holders.repositories],
        "bytes": graph.size(decision.repository, decision.tag).exclusive,
    }


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "repository": decision.repository,
        "digest": decision.digest,
        "decision": "delete" if decision.delete else "keep",
        "policy": decision.policy,
        "rule": decision.rule,
        "pushed": _table.timestamp(decision.pushed),
    }


def _by_policy(decisions: Decisions) -> Iterator[dict[str, Any]]:
    """How many tags and untagged manifests each policy keeps and deletes; without a policy, last."""
    deleted, kept = Counter[str](), Counter[str]()
    for decision in (*decisions.tags, *decisions.untagged):
        (deleted if decision.delete else kept)[decision.policy] += 1
    for name in sorted(deleted.keys() | kept.keys(), key=lambda name: (not name, name)):
        yield {"policy": name, "keep": kept[name], "delete": deleted[name]}


def _rows(told: Report) -> Iterator[list[str]]:
    for decision in (*told["tags"], *(told["untagged"] or ())):
        if decision["decision"] == "delete":
            yield [
                decision["repository"],
                _table.shortened(decision.get("tag", "")),
                _table.short(decision["digest"]),
                decision["policy"],
                decision["rule"],
                _table.minute(decision["pushed"]),
            ]
