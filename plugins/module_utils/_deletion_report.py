# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was deleted or brought back, or would be: as plain data for programs and as text for people.

The documentation of the modules manifest, undelete and undelete_info says what the data is.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from . import _table
from ._deletion import Outcome
from ._plan import Plan, name_of
from ._reference import Digest
from ._undelete import Former, Restored

Report = dict[str, Any]


def foreseen(found: Plan) -> Outcome:
    """The outcome of a plan where nothing comes between."""
    return Outcome([(tag.repository, tag.name) for tag in found.tags], list(found.manifests))


def report(found: Plan, outcome: Outcome, *, verb: str = "deleted") -> Report:
    """What a run did; with another verb, what it would do."""
    digests = {(tag.repository, tag.name): tag.digest for tag in found.tags}
    told: Report = {
        "changed": outcome.changed,
        "tags": [
            {"repository": repository, "tag": tag, "digest": digests[repository, tag]}
            for repository, tag in sorted(outcome.tags)
        ],
        "manifests": [
            {"repository": repository, "digest": digest} for repository, digest in sorted(outcome.manifests)
        ],
        # What somebody needs again is few, and its blobs are not worth another walk.
        "bytes": found.bytes,
        "bytes_exact": found.exact and not outcome.spared,
        "absent": [name_of(target) for target in found.absent],
        "kept_manifests": [str(protection) for protection in found.protected],
        "spared": [f"{name_of(target)}: {reason}" for target, reason in outcome.spared],
    }
    told["summary"] = "\n".join(_summary(told, verb))
    return told


def _summary(told: Report, verb: str) -> Iterator[str]:
    for tag in told["tags"]:
        name = _table.shortened(f"{tag['repository']}:{tag['tag']}")
        yield f"{verb} tag {name} ({_table.short(tag['digest'])})"
    for manifest in told["manifests"]:
        yield f"{verb} manifest {manifest['repository']}@{manifest['digest']}"
    yield from (f"gone already: {name}" for name in told["absent"])
    yield from told["kept_manifests"]
    yield from (f"spared {text}" for text in told["spared"])
    if told["manifests"]:
        at_most = "" if told["bytes_exact"] else "at most "
        yield f"garbage collection then frees {at_most}{_table.size(told['bytes'])}"


def difference(told: Report) -> dict[str, str]:
    """What is there before a run, and not after it."""
    lines = [f"{tag['repository']}:{tag['tag']} {tag['digest']}" for tag in told["tags"]]
    lines += [f"{manifest['repository']}@{manifest['digest']}" for manifest in told["manifests"]]
    if told["manifests"]:
        lines.append(f"{'' if told['bytes_exact'] else 'at most '}{told['bytes']} bytes")
    return {"before": "".join(f"{line}\n" for line in lines), "after": ""}


def former(found: Former) -> Report:
    """Something that can be brought back, or not any more."""
    return {
        "image": found.name,
        "repository": found.repository,
        "tag": found.tag,
        "digest": found.digest,
        "how": found.how.value,
        "since": _table.timestamp(found.since),
        "complete": not found.missing,
        "missing": [str(missing) for missing in found.missing],
        "media_type": found.media_type,
        "platforms": list(found.platforms),
        "created": found.created,
    }


def formers_table(told: Iterable[Report]) -> str:
    """The same for people."""
    rows = [
        (
            each["image"],
            f"{each['how']} {_table.minute(each['since'])}",
            ", ".join(each["platforms"]),
            _table.minute(each["created"]),
            "yes" if each["complete"] else "no longer",
        )
        for each in told
    ]
    return _table.table(("IMAGE", "SINCE (UTC)", "PLATFORMS", "BUILT", "COMPLETE"), rows)


def restored(found: Restored) -> Report:
    """What was brought back, or would be."""
    told: Report = {
        "changed": found.changed,
        "tags": [
            {"repository": found.repository, "tag": tag, "before": before, "digest": digest}
            for tag, before, digest in found.tags
        ],
        "manifests": [{"repository": found.repository, "digest": digest} for digest in found.manifests],
        "layers": list(found.layers),
        "incomplete": [str(missing) for missing in found.incomplete],
    }
    lines = [f"{_tag_line(tag)} (before: {tag['before'] or 'no such tag'})" for tag in told["tags"]]
    lines += [f"manifest {found.repository}@{digest} is back" for digest in found.manifests]
    lines += [f"not brought back, since it is not complete: {text}" for text in told["incomplete"]]
    told["summary"] = "\n".join(lines or ["it is all there; nothing to bring back"])
    return told


def restored_difference(told: Report) -> dict[str, str]:
    """Tags and manifests before and after."""
    before = [_tag_line({**tag, "digest": tag["before"]}) for tag in told["tags"] if tag["before"]]
    after = [_tag_line(tag) for tag in told["tags"]]
    after += [f"{manifest['repository']}@{manifest['digest']}" for manifest in told["manifests"]]
    return {
        "before": "".join(f"{line}\n" for line in before),
        "after": "".join(f"{line}\n" for line in after),
    }


def _tag_line(tag: dict[str, Any]) -> str:
    digest: Digest = tag["digest"]
    return f"{tag['repository']}:{tag['tag']} {digest}"
