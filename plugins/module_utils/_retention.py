# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tags and untagged manifests of a registry go by its retention policies, and why each stays or goes.

    decisions = decide(graph, policies, protect, time.time(), Images(graph, source))
    decisions.tags, decisions.plan

The first policy that selects a tag decides about it; what none selects stays. What a policy cannot judge
stays too: a version rule a tag that is no version, a date rule an image without a date. Tags of one image
stand or fall together under one policy, and count once. Tags that are about an image, such as cosign's, are
never judged: they go with their image.

Deciding again after the plan was carried out changes nothing.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from ._graph import Graph, ManifestName, TagName, UnknownContent
from ._images import EARLIEST, Created
from ._keep_rules import Image, judge
from ._manifest import Manifest
from ._patterns import Pattern
from ._plan import PLACEHOLDER_TYPE, Plan, Target, plan
from ._policy import Duration, Order, Policy, Protect
from ._reference import Digest
from ._semver import parse as parse_version
from ._storage import Tag
from ._table import counted, short, timestamp

# A clock may be a little ahead; a date further in the future is none.
_AHEAD_SECONDS = 24 * 3600.0
_REPOSITORIES_NAMED = 5
_ABOUT = re.compile(r"sha256-([0-9a-f]{64})(?:\..*)?")


class Dates(Protocol):
    """Where dates of creation come from; class Images is one."""

    def load(self, names: Iterable[ManifestName]) -> None:
        """Find out about these manifests, all at once."""

    def created(self, digest: Digest) -> Created:
        """When one of them was built."""


class Decision(NamedTuple):
    """What becomes of a tag, or of an untagged manifest (`tag` is empty), and by which policy and rule."""

    repository: str
    tag: str
    digest: Digest
    #: Unix time; None where it is not known.
    pushed: float | None
    delete: bool
    #: Empty where no policy decided.
    policy: str
    rule: str

    @property
    def target(self) -> Target:
        return self.repository, self.tag or self.digest


class Decisions(NamedTuple):
    """All tags of the registry and all its untagged manifests, both in the order of names."""

    tags: tuple[Decision, ...]
    untagged: tuple[Decision, ...]
    #: What a person should know: policies that select nothing, images that could not be judged, damage.
    notes: tuple[str, ...]
    #: By repository that a policy is about: its tags, and those that go, without tags about images.
    judged: Counter[str]
    lost: Counter[str]
    #: How to carry it out, for _deletion.execute().
    plan: Plan


def needs_disk(policies: Iterable[Policy]) -> list[str]:
    """Why these policies cannot be followed over HTTP: a message each."""
    messages = []
    remedy = "which only the registry's disk shows: run it on that host, with data"
    for policy in policies:
        keep = policy.keep
        if keep is not None and keep.reads_clock and keep.order is not Order.CREATED:
            messages.append(
                f"policy {policy.name!r}: it goes by times of pushes, {remedy}, or write order: created"
            )
        if policy.untagged is not None:
            messages.append(f"policy {policy.name!r}: it is about untagged manifests, {remedy}")
    return messages


def decide(graph: Graph, policies: Sequence[Policy], protect: Protect, now: float, dates: Dates) -> Decisions:
    """Decide about everything in a registry. `now` is Unix time; files of `protect` were read by then."""
    return _Decider(graph, policies, protect, now, dates).decisions()


def refusal(decisions: Decisions, *, max_percent: int, max_count: int | None) -> str:
    """Why so much must not go at once; empty where it may.

    `max_percent` is the largest share of the tags in the repositories that policies are about, `max_count`
    the largest number of tags and untagged manifests.
    """
    lost, judged = sum(decisions.lost.values()), sum(decisions.judged.values())
    largest = decisions.lost.most_common(_REPOSITORIES_NAMED)
    shown = ", ".join(f"{name} {count} of {decisions.judged[name]}" for name, count in largest)
    more = len(decisions.lost) - len(largest)
    shown += f" and {more} more" if more else ""
    remedy = "Look at the table of what would go; then correct the policies, or raise it for this run"
    if lost * 100 > judged * max_percent:
        return (
            f"retention would delete {lost} of {counted(judged, 'tag')} ({lost / judged:.0%}: {shown})"
            f", and max_delete_percent is {max_percent}. {remedy}"
        )
    number = len(decisions.plan.tags) + len(decisions.plan.manifests)
    if max_count is not None and number > max_count:
        return (
            f"retention would delete {number} tags and manifests{f' ({shown})' if shown else ''}, "
            f"and max_delete_count is {max_count}. {remedy}"
        )
    return ""


class _View:
    """What a repository has, as retention sees it."""

    def __init__(self, graph: Graph, name: str) -> None:
        self.name = name
        self._graph = graph
        self.tags = graph.tags(name)
        self.is_uncertain = graph.blind or graph.is_uncertain(name)
        self._manifests = frozenset(graph.manifests(name))
        #: Tags that are about an image, and that image where the repository has it.
        self.about = {tag.tag: tag.subject for tag in graph.referrer_tags(name)}
        for tag in self.tags:
            subject = self._subject(tag.digest)
            if subject in self._manifests:
                self.about.setdefault(tag.name, subject)
        #: Manifests that stay because they, or what they hold, is protected.
        self.protected: set[Digest] = set()

    def protect(self, digests: frozenset[Digest], patterns: Sequence[Pattern]) -> None:
        """Find out which manifests stay because of protected digests, and of protected tags about images."""
        waiting = [digest for digest in self._manifests if digests and self._is_one_of(digest, digests)]
        for tag, subject in self.about.items():
            if subject is not None and _first_match(patterns, tag):
                waiting.append(subject)
        while waiting:
            digest = waiting.pop()
            if digest not in self.protected:
                self.protected.add(digest)
                waiting += self._above(digest)

    def is_placeholder(self, tag: Tag) -> bool:
        """Whether it is what a deletion on registry 2.8 leaves when it breaks off."""
        manifest = _manifest(self._graph, tag.digest)
        return manifest is not None and manifest.artifact_type == PLACEHOLDER_TYPE

    def pushed(self, digest: Digest) -> float | None:
        return self._graph.pushed(self.name, digest)

    def without_bonds(self, manifests: Sequence[Digest], kept: set[Digest]) -> set[Digest]:
        """Those that neither lead to a kept one nor are led to by one, at any distance.

        An old index would take its children along, though one was pushed again just now, for another index.
        """
        bonds: dict[Digest, set[Digest]] = defaultdict(set)
        for digest in manifests:
            holders = self._graph.holders(self.name, digest)
            for other in (*holders.indexes, *holders.subjects):
                bonds[digest].add(other)
                bonds[other].add(digest)
        bound, waiting = set(kept), list(kept)
        while waiting:
            more = bonds[waiting.pop()] - bound
            bound |= more
            waiting += more
        return set(manifests) - bound

    def _above(self, digest: Digest) -> Iterator[Digest]:
        """What must stay for a manifest to stay: indexes that list it, and images that it is about."""
        holders = self._graph.holders(self.name, digest)
        yield from holders.indexes
        yield from holders.subjects
        for tag in holders.tags:
            subject = self.about.get(tag)
            if subject is not None:
                yield subject

    def _subject(self, digest: Digest) -> Digest | None:
        manifest = _manifest(self._graph, digest)
        return manifest.subject if manifest else None

    def _is_one_of(self, digest: Digest, digests: frozenset[Digest]) -> bool:
        """Whether these name a manifest, or the config of one."""
        if digest in digests:
            return True
        manifest = _manifest(self._graph, digest)
        return manifest is not None and manifest.config is not None and manifest.config.digest in digests


class _Claim(NamedTuple):
    """The tags of a repository that a policy decides about."""

    view: _View
    policy: Policy
    tags: list[Tag]


class _Decider:
    """Decides repository by repository; then, over all, what follows."""

    def __init__(
        self, graph: Graph, policies: Sequence[Policy], protect: Protect, now: float, dates: Dates
    ) -> None:
        self._graph = graph
        self._policies = policies
        self._protect = protect
        self._now = now
        self._dates = dates
        self._digests = protect.digests.union(*(policy.protect.digests for policy in policies))
        self._tags: dict[Target, Decision] = {}
        self._untagged: dict[Target, Decision] = {}
        #: Tags about an image, and its manifest where it is there.
        self._about: dict[TagName, ManifestName | None] = {}
        self._notes: list[str] = []
        #: Tags that a policy may delete, and by repository how many tags there are beside those about images.
        self._candidates: set[Target] = set()
        self._judged: Counter[str] = Counter()
        #: By name of policy: repositories and tags that it selects.
        self._repositories: Counter[str] = Counter()
        self._claimed: Counter[str] = Counter()

    def decisions(self) -> Decisions:
        views = [_View(self._graph, name) for name in self._graph.repositories()]
        claims = [claim for view in views for claim in self._claim(view)]
        self._load_dates(claims)
        for claim in claims:
            self._judge(claim)
        orphans = defaultdict(list)
        for repository, digest in self._graph.orphans().manifests:
            orphans[repository].append(digest)
        for view in views:
            self._judge_untagged(view, orphans[view.name])
        found = self._follow()
        self._note_idle_policies()
        tags = sorted(self._tags.values())
        return Decisions(
            tuple(tags),
            tuple(sorted(self._untagged.values())),
            tuple(self._notes),
            self._judged,
            Counter(tag.repository for tag in tags if tag.delete and tag.target in self._candidates),
            found,
        )

    # Who decides

    def _claim(self, view: _View) -> Iterator[_Claim]:
        """The policies that decide in a repository, each with its tags. Decides about all other tags."""
        policies = [policy for policy in self._policies if policy.repositories.selects(view.name)]
        self._repositories.update(policy.name for policy in policies)
        patterns = [*self._protect.tags, *(tag for policy in policies for tag in policy.protect.tags)]
        view.protect(self._digests, patterns)
        claimed: dict[str, list[Tag]] = defaultdict(list)
        for tag in view.tags:
            if tag.name in view.about:
                self._await_image(view, tag)
                continue
            if policies and view.is_placeholder(tag):
                self._decide(view, tag, "", "its deletion broke off", delete=True)
                continue
            if any(policy.keep for policy in policies):
                self._judged[view.name] += 1
            policy = next((each for each in policies if each.keep and each.tags.selects(tag.name)), None)
            exemption = _exemption(view, tag, patterns)
            if policy is None:
                self._decide(view, tag, "", exemption or "no policy selects it")
                continue
            self._claimed[policy.name] += 1
            if exemption:
                self._decide(view, tag, policy.name, exemption)
            else:
                claimed[policy.name].append(tag)
                self._candidates.add((view.name, tag.name))
        if view.is_uncertain and policies:
            self._notes.append(
                f"{view.name}: all of it stays, since something in it is damaged; run check.yml"
            )
        return (_Claim(view, policy, claimed[policy.name]) for policy in policies if policy.name in claimed)

    def _await_image(self, view: _View, tag: Tag) -> None:
        """Keep a tag that is about an image, for as long as that one stays."""
        subject = view.about[tag.name]
        self._about[view.name, tag.name] = (view.name, subject) if subject else None
        rule = f"about {short(subject)}, which stays" if subject else "about an image that is not here"
        self._decide(view, tag, "", rule)

    def _decide(self, view: _View, tag: Tag, policy: str, rule: str, *, delete: bool = False) -> None:
        decision = Decision(view.name, tag.name, tag.digest, tag.pushed, delete, policy, rule)
        self._tags[decision.target] = decision

    # What a policy says

    def _load_dates(self, claims: Iterable[_Claim]) -> None:
        wanted = [
            (claim.view.name, tag.digest)
            for claim in claims
            if claim.policy.keep and claim.policy.keep.order is Order.CREATED
            for tag in claim.tags
        ]
        if wanted:
            self._dates.load(wanted)

    def _judge(self, claim: _Claim) -> None:
        view, policy, tags = claim
        by_digest: dict[Digest, list[Tag]] = defaultdict(list)
        for tag in tags:
            by_digest[tag.digest].append(tag)
        images = [self._image(policy, digest, found) for digest, found in by_digest.items()]
        self._note_undated(claim, images)
        verdicts = judge(policy, images, self._now)
        for tag in tags:
            verdict = verdicts[tag.digest]
            self._decide(view, tag, policy.name, verdict.rule, delete=not verdict.keep)

    def _image(self, policy: Policy, digest: Digest, tags: Iterable[Tag]) -> Image:
        pushed = max((tag.pushed for tag in tags if tag.pushed is not None), default=None)
        versions = [version for version in (parse_version(tag.name) for tag in tags) if version is not None]
        if policy.keep and policy.keep.order is Order.CREATED:
            age = self._dates.created(digest)
        else:
            age = self._age(pushed)
        if age.time is not None and age.time > self._now + _AHEAD_SECONDS:
            age = Created(None, f"its date is in the future, {timestamp(age.time)}")
        return Image(digest, pushed, age, max(versions, default=None))

    def _age(self, pushed: float | None) -> Created:
        if pushed is None:
            return Created(None, "when it was pushed is not known")
        # A copy of a store that lost its times has them all at the beginning of time.
        if pushed < EARLIEST:
            return Created(None, f"its files say that it was pushed in {timestamp(pushed)}")
        return Created(pushed)

    # Manifests without a tag

    def _judge_untagged(self, view: _View, orphans: Sequence[Digest]) -> None:
        policy = next(
            (each for each in self._policies if each.untagged and each.repositories.selects(view.name)), None
        )
        reasons = {digest: self._reason_to_keep(view, digest, policy) for digest in orphans}
        doomed = view.without_bonds(orphans, {digest for digest, reason in reasons.items() if reason})
        for digest in orphans:
            rule = reasons[digest] or "belongs to a manifest without a tag that stays"
            if digest in doomed and policy and policy.untagged:
                rule = f"without a tag for more than {policy.untagged.keep_within.text}"
            name = policy.name if policy else ""
            decision = Decision(view.name, "", digest, view.pushed(digest), digest in doomed, name, rule)
            self._untagged[decision.target] = decision
        if policy and policy.untagged and policy.untagged.orphaned_referrers:
            self._judge_orphaned_tags(view, policy, policy.untagged.keep_within)

    def _reason_to_keep(self, view: _View, digest: Digest, policy: Policy | None) -> str:
        """Why a manifest without a tag stays; empty where it may go."""
        if policy is None or policy.untagged is None:
            return "no policy is about it"
        if view.is_uncertain:
            return "something in the repository is damaged"
        if digest in view.protected:
            return "protected digest"
        return self._youth(view.pushed(digest), policy.untagged.keep_within)

    def _youth(self, pushed: float | None, keep_within: Duration) -> str:
        """Why something is too young to go; empty where it is old enough."""
        age = self._age(pushed)
        if age.time is None:
            return f"of unknown age: {age.fault}"
        return f"pushed within {keep_within.text}" if self._now - age.time < keep_within.seconds else ""

    def _judge_orphaned_tags(self, view: _View, policy: Policy, keep_within: Duration) -> None:
        """Tags about images that this registry does not have, in no repository."""
        for tag in view.tags:
            if tag.name not in view.about or view.about[tag.name] is not None:
                continue
            match = _ABOUT.fullmatch(tag.name)
            if (
                match is None
                or view.is_uncertain
                or tag.digest in view.protected
                or self._graph.blob_size(Digest(f"sha256:{match[1]}")) is not None
                or self._youth(tag.pushed, keep_within)
            ):
                continue
            self._decide(view, tag, policy.name, "about an image that no repository has", delete=True)

    # What follows

    def _follow(self) -> Plan:
        """Have tags about images go with their image, and find out what really goes."""
        targets = {
            decision.target
            for decision in (*self._tags.values(), *self._untagged.values())
            if decision.delete
        }
        # As if all of them followed; a plan would keep an image for those that it is not told of.
        followers: set[TagName] = set()
        while True:
            tags = [target for target in targets | followers if not isinstance(target[1], Digest)]
            named = [(name, digest) for name, digest in targets if isinstance(digest, Digest)]
            gone = self._graph.released_by(tags, named, follow=True).manifests
            more = self._followers(gone) - followers - targets
            if not more:
                break
            followers |= more
        while True:
            found = plan(self._graph, sorted(targets | followers))
            staying = followers - self._followers(found.manifests)
            if not staying:
                break
            followers -= staying
        self._settle(followers, found)
        return found

    def _followers(self, manifests: Iterable[ManifestName]) -> set[TagName]:
        """The tags about these images."""
        gone = set(manifests)
        return {tag for tag, image in self._about.items() if image in gone}

    def _settle(self, followers: Iterable[TagName], found: Plan) -> None:
        """Make the decisions agree with the plan."""
        for name in followers:
            decision = self._tags[name]
            image = self._about[name]
            rule = f"about {short(image[1])}, which goes" if image else decision.rule
            self._tags[name] = decision._replace(delete=True, rule=rule)
        gone = set(found.manifests)
        # Without the advice for who has named a single manifest.
        reasons = {refused.target: refused.reason.partition(";")[0] for refused in found.refused}
        for target, decision in self._untagged.items():
            if decision.delete and (decision.repository, decision.digest) not in gone:
                self._untagged[target] = decision._replace(delete=False, rule=reasons[target])

    # What a person should know

    def _note_undated(self, claim: _Claim, images: Sequence[Image]) -> None:
        keep = claim.policy.keep
        faults = [image.age.fault for image in images if image.age.fault]
        if keep is not None and keep.reads_clock and faults:
            self._notes.append(
                f"{claim.view.name}: {len(faults)} of {counted(len(images), 'image')} stay because policy "
                f"{claim.policy.name!r} cannot tell their age: {faults[0]}"
            )

    def _note_idle_policies(self) -> None:
        if not self._policies:
            self._notes.append("there are no policies, so that everything stays")
        for policy in self._policies:
            if not self._repositories[policy.name]:
                self._notes.append(f"policy {policy.name!r}: it selects no repository")
            elif policy.keep and not self._claimed[policy.name]:
                self._notes.append(f"policy {policy.name!r}: it selects no tag that no policy before it does")


def _exemption(view: _View, tag: Tag, patterns: Sequence[Pattern]) -> str:
    """Why a tag stays whatever a policy says; empty where that decides."""
    if view.is_uncertain:
        return "something in the repository is damaged"
    pattern = _first_match(patterns, tag.name)
    if pattern is not None:
        return f"protected by the pattern {pattern.text}"
    return "protected digest" if tag.digest in view.protected else ""


def _first_match(patterns: Sequence[Pattern], name: str) -> Pattern | None:
    return next((pattern for pattern in patterns if pattern.matches(name)), None)


def _manifest(graph: Graph, digest: Digest) -> Manifest | None:
    """What a manifest says; None where it is damaged."""
    try:
        return graph.manifest(digest)
    except UnknownContent:
        return None
