# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Retention policies as people write them, read strictly: what is unclear is refused, never guessed.

    policies = parse_policies([
        {"name": "builds", "repositories": ["ci/**"], "keep": {"newest": 10, "within": "30d"}},
    ])

All problems are found at once. A slip in a policy deletes images, so that much is refused here which could be
understood: empty lists, unknown keys, numbers where names belong, rules that can never decide.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import difflib
import enum
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ._config_nodes import describe
from ._errors import RegistryError
from ._patterns import REPOSITORY, TAG, InvalidPattern, Kind, Pattern, matches_any
from ._reference import Digest, InvalidReference
from ._semver import Levels

_DURATION = re.compile(r"([1-9][0-9]*)([hdw])")
_SECONDS = {"h": 3600.0, "d": 24 * 3600.0, "w": 7 * 24 * 3600.0}

_POLICY_KEYS = (
    *("name", "repositories", "exclude_repositories", "tags"),
    *("keep", "combine", "min_keep", "protect", "untagged"),
)
_KEEP_KEYS = ("newest", "order", "within", "semver", "prereleases", "unversioned")
_PROTECT_KEYS = ("tags", "digests", "files")
_NO_MAPPING = "a mapping belongs here, got {}. Write its keys, each on a line"
_HINTS = {
    "exclude": "Write exclude_repositories, or exclude below tags",
    "match": "Write repositories, or match below tags",
    "referrers": "Signatures and other referrers always go with their image",
}


class InvalidPolicies(RegistryError):
    """Policies that cannot be followed. `problems` has a message for everything that is wrong with them."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Order(str, enum.Enum):
    """What makes one image newer than another."""

    #: The last push of a tag. Only the disk shows it.
    PUSHED = "pushed"
    #: The date in the image's own configuration, which whoever builds it is free to choose.
    CREATED = "created"
    SEMVER = "semver"


class Duration(NamedTuple):
    text: str
    seconds: float


class Selector(NamedTuple):
    """Names that are matched and not excluded."""

    match: tuple[Pattern, ...] = ()
    exclude: tuple[Pattern, ...] = ()

    def selects(self, name: str) -> bool:
        return matches_any(self.match, name) and not matches_any(self.exclude, name)

    def is_everything(self, kind: Kind) -> bool:
        return not self.exclude and any(pattern.is_everything(kind) for pattern in self.match)

    def is_nothing(self, kind: Kind) -> bool:
        excluded = {pattern.text for pattern in self.exclude}
        return any(pattern.is_everything(kind) for pattern in self.exclude) or all(
            pattern.text in excluded for pattern in self.match
        )


class Protect(NamedTuple):
    """What is never deleted."""

    tags: tuple[Pattern, ...] = ()
    #: Manifests, or configs of images (which docker calls image ID).
    digests: frozenset[Digest] = frozenset()
    #: Files on the host with more digests.
    files: tuple[str, ...] = ()


class Keep(NamedTuple):
    """Which images stay. A rule that is None does not count."""

    newest: int | None = None
    order: Order = Order.PUSHED
    within: Duration | None = None
    semver: Levels | None = None
    #: Whether pre-releases count as versions of their own; if not, each stays as long as its release would.
    counts_prereleases: bool = False
    #: Whether a tag that is no version fails the rules about versions; if not, it is kept.
    drops_unversioned: bool = False

    @property
    def reads_clock(self) -> bool:
        """Whether a rule needs a time: of pushes, or with that order of creation."""
        return self.within is not None or (self.newest is not None and self.order is not Order.SEMVER)

    @property
    def reads_versions(self) -> bool:
        return self.semver is not None or (self.newest is not None and self.order is Order.SEMVER)


class Untagged(NamedTuple):
    """What becomes of manifests that no tag leads to."""

    keep_within: Duration
    #: Whether tags of signatures and the like go too once no repository has their image.
    orphaned_referrers: bool = False


class Policy(NamedTuple):
    name: str
    repositories: Selector
    tags: Selector
    #: None where the policy is about untagged manifests only.
    keep: Keep | None = None
    #: Whether an image must satisfy all rules to stay; if not, one is enough.
    needs_all: bool = False
    #: So many images of a repository stay, whatever the rules say.
    min_keep: int = 1
    protect: Protect = Protect()
    untagged: Untagged | None = None


def parse_policies(value: Any) -> tuple[Policy, ...]:
    """Read a list of policies, in the order in which they apply. Raises InvalidPolicies."""
    problems: list[str] = []
    policies = _read_policies(value, "policies", problems)
    if problems:
        raise InvalidPolicies(problems)
    return policies


def parse_protect(value: Any) -> Protect:
    """Read what no policy may delete. Raises InvalidPolicies."""
    problems: list[str] = []
    protect = _read_protect(_Section(value, "protect", "", _PROTECT_KEYS, problems))
    if problems:
        raise InvalidPolicies(problems)
    return protect


def find_problems(policies: Any, protect: Any) -> list[str]:
    """What is wrong with the role's variables: a message for each problem."""
    problems: list[str] = []
    _read_policies(policies, "registry_retention", problems)
    _read_protect(_Section(protect, "registry_retention_protect", "", _PROTECT_KEYS, problems))
    return problems


def parse_digests(text: str, path: str) -> frozenset[Digest]:
    """Read a file of digests in use: one a line, also behind a name (`registry.example.org/app@sha256:…`).

    Raises InvalidPolicies for a line without a digest, and for a file without any: whoever wrote it failed,
    and taking it for "nothing is in use" would delete what is.
    """
    digests = set()
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        try:
            digests.add(Digest(entry.rpartition("@")[2]))
        except InvalidReference as error:
            raise InvalidPolicies([f"{path}, line {number}: {error}"]) from None
    if not digests:
        raise InvalidPolicies(
            [f"{path}: it names no digest. If nothing is in use, take the file out of protect.files"]
        )
    return frozenset(digests)


def read_files(protect: Protect, policies: Iterable[Policy]) -> Protect:
    """The same with the digests of all files that it and the policies name. Raises InvalidPolicies."""
    paths = dict.fromkeys((*protect.files, *(path for policy in policies for path in policy.protect.files)))
    digests = protect.digests.union(*map(_read_digests, paths))
    return protect._replace(digests=digests, files=())


def _read_digests(path: str) -> frozenset[Digest]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else error
        raise InvalidPolicies(
            [f"read {path}, which protects digests: {cause}. Nothing is deleted without it"]
        ) from error
    return parse_digests(text, path)


def _read_policies(value: Any, place: str, problems: list[str]) -> tuple[Policy, ...]:
    if not isinstance(value, (list, tuple)):
        problems.append(f"{place}: a list of policies belongs here, got {describe(value)}. Write a list")
        return ()
    sections = [_policy_section(item, f"{place}[{index}]", problems) for index, item in enumerate(value)]
    policies = [_read_policy(section) for section in sections if section.is_mapping]
    # What a broken policy covers is not known.
    if not problems:
        for index, policy in enumerate(policies):
            problems += map(sections[index].says, _hidden_by(policy, policies[:index]))
    return tuple(policies)


def _policy_section(item: Any, place: str, problems: list[str]) -> _Section:
    name = item.get("name") if isinstance(item, Mapping) else None
    shown = f" ({name})" if isinstance(name, str) and name else ""
    return _Section(item, f"{place}{shown}", "", _POLICY_KEYS, problems)


def _read_policy(section: _Section) -> Policy:
    tags = section.section("tags", ("match", "exclude"))
    keep = section.section("keep", _KEEP_KEYS) if "keep" in section else None
    untagged = section.section("untagged", ("keep_within", "orphaned_referrers"))
    policy = Policy(
        section.text("name", required="reports name the policy that decided"),
        Selector(
            section.patterns("repositories", REPOSITORY, required="say where the policy applies, as ['**']"),
            section.patterns("exclude_repositories", REPOSITORY),
        ),
        Selector(
            tags.patterns("match", TAG) or (Pattern.of("*", TAG),),
            tags.patterns("exclude", TAG),
        ),
        None if keep is None else _read_keep(keep),
        section.choice("combine", ("any", "all")) == "all",
        section.whole("min_keep", 0, 1),
        _read_protect(section.section("protect", _PROTECT_KEYS)),
        _read_untagged(untagged) if "untagged" in section else None,
    )
    if section.is_sound:
        section.complain(_contradictions(policy, section))
    return policy


def _read_keep(section: _Section) -> Keep:
    levels = section.section("semver", Levels._fields)
    return Keep(
        section.optional_whole("newest", 1),
        Order(section.choice("order", [order.value for order in Order])),
        section.duration("within"),
        Levels(*(levels.optional_whole(level, 1) for level in Levels._fields))
        if "semver" in section
        else None,
        section.choice("prereleases", ("follow", "count")) == "count",
        section.choice("unversioned", ("keep", "drop")) == "drop",
    )


def _read_untagged(section: _Section) -> Untagged:
    keep_within = section.duration("keep_within")
    if "keep_within" not in section:
        section.complain(
            ["keep_within is missing: a push under way looks untagged until its tag comes. Write 7d"]
        )
    return Untagged(keep_within or Duration("", 0), section.flag("orphaned_referrers"))


def _read_protect(section: _Section) -> Protect:
    tags = section.patterns("tags", TAG, empty=True)
    if any(pattern.is_everything(TAG) for pattern in tags):
        section.complain(["tags: it protects every tag, so that nothing is ever deleted. Name some"])
    return Protect(tags, frozenset(section.digests("digests")), tuple(section.texts("files", empty=True)))


# What contradicts itself


def _contradictions(policy: Policy, section: _Section) -> Iterator[str]:
    keep = policy.keep
    if keep is None:
        yield from _needless(policy, section)
    else:
        yield from _deciding_nothing(keep, section.section("keep", _KEEP_KEYS))
        if keep.newest is not None and policy.min_keep > keep.newest:
            yield (
                f"min_keep: {policy.min_keep} is more than keep.newest: {keep.newest}, which then never "
                "decides. Lower the one or raise the other"
            )
        if _may_delete_everything(policy, keep):
            yield (
                "min_keep: 0 for every tag of every repository: after a time without pushes the registry "
                "would be empty. Leave min_keep out, or name repositories or tags"
            )
    for key, selector, kind in (
        ("exclude_repositories", policy.repositories, REPOSITORY),
        ("tags.exclude", policy.tags, TAG),
    ):
        if selector.is_nothing(kind):
            yield f"{key}: it excludes all that is matched, so that the policy applies to nothing"


def _needless(policy: Policy, section: _Section) -> Iterator[str]:
    """Problems of a policy without `keep`."""
    if policy.untagged is None:
        yield (
            "it says nothing to keep, so that every tag would go. Add keep with newest, within or semver "
            "(or untagged, for manifests without a tag only)"
        )
        return
    for key in ("tags", "combine", "min_keep"):
        if key in section:
            yield f"{key}: without keep the policy is about untagged manifests only. Add keep or remove {key}"


def _deciding_nothing(keep: Keep, section: _Section) -> Iterator[str]:
    if keep.newest is None and keep.within is None and keep.semver is None:
        yield "keep: it names nothing to keep, so that every tag would go. Add newest, within or semver"
        return
    if keep.semver == Levels():
        yield "keep.semver: it keeps every version. Say how many with major, minor or patch"
    used_by_within = keep.order is Order.CREATED and keep.within is not None
    if "order" in section and keep.newest is None and not used_by_within:
        yield "keep.order: it says how newest counts, and there is no newest. Add it or remove order"
    if not keep.reads_versions:
        for key in ("prereleases", "unversioned"):
            if key in section:
                yield f"keep.{key}: no rule here looks at versions. Add semver, or newest with order: semver"


def _may_delete_everything(policy: Policy, keep: Keep) -> bool:
    return (
        policy.min_keep == 0
        and policy.repositories.is_everything(REPOSITORY)
        and policy.tags.is_everything(TAG)
        and (policy.needs_all or (keep.newest is None and keep.semver is None))
        and keep.within is not None
    )


def _hidden_by(policy: Policy, earlier: list[Policy]) -> Iterator[str]:
    """Why a policy never applies: an earlier one has claimed all before."""
    for other in earlier:
        if other.name == policy.name:
            yield "name: an earlier policy has the same name. Reports could not tell them apart"
        if policy.keep and other.keep and _covers(other, policy):
            yield (
                f"it never decides, since the policy {other.name!r} before it claims all its tags. "
                "Put the special before the general"
            )
        if policy.untagged and other.untagged and _covers_repositories(other, policy):
            yield f"untagged: it never decides, since the policy {other.name!r} before it does"


def _covers(earlier: Policy, later: Policy) -> bool:
    return _covers_repositories(earlier, later) and (
        earlier.tags == later.tags or earlier.tags.is_everything(TAG)
    )


def _covers_repositories(earlier: Policy, later: Policy) -> bool:
    return earlier.repositories == later.repositories or earlier.repositories.is_everything(REPOSITORY)


# Values


class _Section:
    """A mapping in a policy. What is wrong with it goes to `problems`; then a default is returned."""

    def __init__(self, value: Any, place: str, path: str, keys: Collection[str], problems: list[str]) -> None:
        self._place = place
        self._path = path
        self._problems = problems
        self._count = len(problems)
        self._values: Mapping[str, Any] = {}
        self.is_mapping = isinstance(value, Mapping)
        if not isinstance(value, Mapping):
            where = f"{place}: {path}" if path else place
            problems.append(f"{where}: {_NO_MAPPING.format(describe(value))}")
            return
        self._values = value
        for key, inner in value.items():
            if key not in keys:
                self.complain([_unknown(key, keys)])
            elif inner is None:
                self.complain([f"{key}: it has no value. Give one or leave the key out"])

    def __contains__(self, key: str) -> bool:
        return key in self._values

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found wrong since it was begun."""
        return len(self._problems) == self._count

    def says(self, problem: str) -> str:
        path = f"{self._path}." if self._path else ""
        return f"{self._place}: {path}{problem}"

    def complain(self, problems: Iterable[str]) -> None:
        self._problems += [self.says(problem) for problem in problems]

    def section(self, key: str, keys: Collection[str]) -> _Section:
        """The mapping below a key; an empty one where it is missing."""
        path = f"{self._path}.{key}" if self._path else key
        value = self._value(key)
        return _Section({} if value is None else value, self._place, path, keys, self._problems)

    def text(self, key: str, *, required: str) -> str:
        if key not in self:
            self.complain([f"{key} is missing: {required}"])
        value = self._value(key)
        return "" if value is None else self._as_text(key, value)

    def texts(self, key: str, *, empty: bool = False) -> list[str]:
        value = self._value(key)
        if value is None:
            return []
        if not isinstance(value, (list, tuple)):
            hint = f"[{value}]" if isinstance(value, str) else "a list"
            self.complain([f"{key}: a list belongs here, got {describe(value)}. Write {hint}"])
            return []
        if not value and not empty:
            self.complain([f"{key}: an empty list matches nothing. Leave the key out, or name something"])
        texts = [self._as_text(f"{key}[{index}]", item) for index, item in enumerate(value)]
        return [text for text in texts if text]

    def patterns(
        self, key: str, kind: Kind, *, required: str = "", empty: bool = False
    ) -> tuple[Pattern, ...]:
        if required and key not in self:
            self.complain([f"{key} is missing: {required}"])
        patterns = []
        for index, text in enumerate(self.texts(key, empty=empty)):
            try:
                patterns.append(Pattern.of(text, kind))
            except InvalidPattern as error:
                self.complain([f"{key}[{index}]: {error}"])
        return tuple(patterns)

    def digests(self, key: str) -> Iterator[Digest]:
        for index, text in enumerate(self.texts(key, empty=True)):
            try:
                yield Digest(text)
            except InvalidReference as error:
                self.complain([f"{key}[{index}]: {error}"])

    def choice(self, key: str, choices: Collection[str]) -> str:
        """One of the choices, the first where there is none."""
        value = self._value(key)
        if value is None:
            return next(iter(choices))
        if value not in choices:
            self.complain([f"{key}: {describe(value)} is none of {', '.join(choices)}. Write one of them"])
            return next(iter(choices))
        return str(value)

    def flag(self, key: str) -> bool:
        value = self._value(key)
        if value is not None and not isinstance(value, bool):
            self.complain([f"{key}: true or false belongs here, without quotes, got {describe(value)}"])
        return value is True

    def whole(self, key: str, least: int, default: int) -> int:
        value = self.optional_whole(key, least)
        return default if value is None else value

    def optional_whole(self, key: str, least: int) -> int | None:
        value = self._value(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self.complain([f"{key}: a whole number belongs here, got {describe(value)}. {_remedy(value)}"])
            return None
        if value < least:
            remedy = "nothing would be kept" if value == 0 else "it counts images"
            self.complain([f"{key}: the least is {least}, got {value}: {remedy}"])
            return None
        return value

    def duration(self, key: str) -> Duration | None:
        value = self._value(key)
        if value is None:
            return None
        match = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            self.complain(
                [f"{key}: a time in hours, days or weeks belongs here (12h, 30d, 8w), got {describe(value)}"]
            )
            return None
        return Duration(match[0], int(match[1]) * _SECONDS[match[2]])

    def _value(self, key: str) -> Any:
        return self._values.get(key)

    def _as_text(self, key: str, value: Any) -> str:
        if isinstance(value, str) and value:
            return value
        if isinstance(value, str):
            self.complain([f"{key}: it is empty"])
        else:
            # YAML reads an unquoted 1.10 as the number 1.1.
            self.complain([f"{key}: text belongs here, got {describe(value)}. Put it in quotes"])
        return ""


def _remedy(value: Any) -> str:
    """What to write instead of something that is no number."""
    if value == "all":
        return "Leave the key out to keep all"
    return (
        f"Write {value} without quotes" if isinstance(value, str) and value.isdecimal() else "Write a number"
    )


def _unknown(key: Any, keys: Collection[str]) -> str:
    hint = _HINTS.get(key) if isinstance(key, str) else None
    similar = difflib.get_close_matches(str(key), keys, n=1)
    if similar:
        hint = f"Did you mean {similar[0]}?"
    return f"{key}: there is no such key. {hint or 'There are: ' + ', '.join(keys)}"
