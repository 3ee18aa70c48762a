# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the images that a retention policy has claimed in a repository stay, and by which of its rules.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ._images import Created
from ._policy import Keep, Order, Policy
from ._reference import Digest
from ._semver import Levels, Newest, Version

# Below all versions that there are.
_NO_VERSION = Version((-1, -1, -1), False, ())


class Image(NamedTuple):
    """A manifest, by the tags of it that one policy has claimed: they stand or fall together."""

    digest: Digest
    #: Unix time of the latest push of these tags.
    pushed: float | None
    #: The age that counts, by pushes or creation as the policy says; or why it is not known.
    age: Created
    #: The highest version among the tags.
    version: Version | None


class Verdict(NamedTuple):
    keep: bool
    #: The rules that keep it, or all that do not.
    rule: str


class _Rule(NamedTuple):
    """A rule that has looked at all images, with those that satisfy it."""

    passed: str
    failed: str
    images: frozenset[Digest]


def judge(policy: Policy, images: Sequence[Image], now: float) -> dict[Digest, Verdict]:
    """Decide about all images at once. What cannot be judged stays, and takes no place of another."""
    keep = policy.keep or Keep()
    verdicts = {}
    judged = []
    for image in images:
        reason = _unjudgeable(keep, image)
        if reason:
            verdicts[image.digest] = Verdict(True, reason)
        else:
            judged.append(image)
    rules = list(_rules(keep, judged, now))
    for image in judged:
        verdicts[image.digest] = _verdict(rules, image.digest, needs_all=policy.needs_all)
    missing = policy.min_keep - sum(verdict.keep for verdict in verdicts.values())
    if missing > 0:
        lost = [image for image in judged if not verdicts[image.digest].keep]
        for image in sorted(lost, key=lambda image: _rank(keep.order, image), reverse=True)[:missing]:
            verdicts[image.digest] = Verdict(True, f"min_keep {policy.min_keep}")
    return verdicts


def _unjudgeable(keep: Keep, image: Image) -> str:
    if keep.reads_clock and image.age.time is None:
        return f"of unknown age: {image.age.fault}"
    if keep.reads_versions and image.version is None and not keep.drops_unversioned:
        return "its tag is no semantic version"
    return ""


def _verdict(rules: Sequence[_Rule], digest: Digest, *, needs_all: bool) -> Verdict:
    passed = [rule.passed for rule in rules if digest in rule.images]
    if len(passed) == len(rules) or (passed and not needs_all):
        return Verdict(True, ", ".join(passed))
    return Verdict(False, ", ".join(rule.failed for rule in rules if digest not in rule.images))


def _rank(order: Order, image: Image) -> tuple[object, ...]:
    """A key that puts the newest last, and no two images on one place."""
    version = image.version or _NO_VERSION
    age = image.age.time or 0.0
    first = (version, age) if order is Order.SEMVER else (age, version)
    return (*first, image.pushed or 0.0, image.digest)


def _rules(keep: Keep, images: Sequence[Image], now: float) -> Iterator[_Rule]:
    if keep.newest is not None:
        name = f"newest {keep.newest}"
        newest = _newest(keep, keep.newest, images)
        yield _Rule(name, f"not among the {name}", frozenset(newest))
    if keep.within is not None:
        verb = "built" if keep.order is Order.CREATED else "pushed"
        oldest = now - keep.within.seconds
        recent = (image.digest for image in images if (image.age.time or 0.0) >= oldest)
        text = keep.within.text
        yield _Rule(f"{verb} within {text}", f"{verb} more than {text} ago", frozenset(recent))
    if keep.semver is not None:
        given = ((level, count) for level, count in zip(Levels._fields, keep.semver) if count is not None)
        name = "newest versions (" + ", ".join(f"{level} {count}" for level, count in given) + ")"
        counted = Newest(keep.semver, _counted_versions(keep, images))
        current = (image.digest for image in images if image.version and counted.has(image.version))
        yield _Rule(name, f"not among the {name}", frozenset(current))


def _newest(keep: Keep, count: int, images: Sequence[Image]) -> Iterator[Digest]:
    """Those that are not older than the last that has a place. Of several just as old, all stay."""
    if keep.order is not Order.SEMVER:
        ages = sorted((image.age.time or 0.0 for image in images), reverse=True)
        oldest = ages[count - 1] if len(ages) >= count else 0.0
        return (image.digest for image in images if (image.age.time or 0.0) >= oldest)
    versions = sorted(_counted_versions(keep, images), reverse=True)
    least = versions[count - 1] if len(versions) >= count else _NO_VERSION
    if not keep.counts_prereleases:
        # A pre-release stays beside the releases for as long as its own release would.
        least = Version(least.core, False, ())
    return (image.digest for image in images if image.version and image.version >= least)


def _counted_versions(keep: Keep, images: Iterable[Image]) -> Iterator[Version]:
    for image in images:
        if image.version and (keep.counts_prereleases or image.version.is_release):
            yield image.version
