# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users of a registry as declared state: check what is asked for, hash, write the file, prove the effect.

Private to the collection: no stable interface.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from . import _htpasswd, _passwords
from ._errors import RegistryError
from ._files import (
    Attributes,
    atomic_write,
    attributes_of,
    ensure_attributes,
    locked,
    read_file,
    require_folder,
)
from ._htpasswd import UsersFile
from ._proof import Proof, Witness, WrongAnswer
from ._secrets import PLACEHOLDER, Secret, ensure_secret, generate

#: Users of this kind exist for a moment only, to see whether the registry has read the file.
PROBE_PREFIX = "dockyard-probe-"

DEFAULT_ATTRIBUTES = Attributes(0o640)


class User(NamedTuple):
    """What is wanted of one user. At most one of `password`, `password_file` and `reset` is set."""

    #: How messages call it: "users[3] (alice)".
    label: str
    name: str
    present: bool = True
    password: str | None = None
    password_file: str | None = None
    cost: int | None = None
    reset: bool = False


@dataclass(frozen=True)
class Request:
    """A users file and what should be in it."""

    path: str
    users: Sequence[User]
    #: Remove every user that is neither in `users` nor in `keep`.
    exclusive: bool = False
    keep: frozenset[str] = frozenset()
    #: Leave the passwords of users that exist alone.
    only_on_create: bool = False
    #: Owner and group None: those of the file that is there.
    attributes: Attributes = DEFAULT_ATTRIBUTES
    lock_timeout: float = 60
    check_mode: bool = False
    #: The registry that is asked after a change.
    proof: Proof | None = None


@dataclass
class Outcome:
    """What was done, or in check mode would be. The lists hold user names."""

    changed: bool = False
    added: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    #: Of the users asked for: those that needed nothing.
    unchanged: list[str] = field(default_factory=list)
    #: Everybody in the file afterwards.
    users: list[str] = field(default_factory=list)
    #: The passwords that were made and are kept nowhere else.
    generated: dict[str, str] = field(default_factory=dict)
    #: What the registry was asked and answered, see Witness.
    verified: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    #: The file before and after in words, without hashes.
    before: str = ""
    after: str = ""

    def result(self) -> dict[str, Any]:
        """What a module returns of it."""
        return {
            key: value for key, value in asdict(self).items() if key not in ("warnings", "before", "after")
        }


class NoEffect(RegistryError):
    """The users file is written, but the registry does not answer so. `outcome` says what is in it."""

    def __init__(self, message: str, outcome: Outcome) -> None:
        super().__init__(message)
        self.outcome = outcome


def read_users(entries: Sequence[Mapping[str, Any]], *, listed: bool) -> list[User]:
    """Check users as people wrote them: mappings with the options of module htpasswd_user as keys.

    `listed` says whether they come from a list, for the messages. Raises RegistryError naming every problem.
    """
    users: list[User] = []
    problems: list[str] = []
    first: dict[str, str] = {}
    for index, entry in enumerate(entries):
        name = entry.get("name")
        place = f"users[{index}]" if listed else "user"
        label = place if _problem_of_name(name) else f"{place} ({name})"
        found = _problems_of(entry)
        if isinstance(name, str) and first.setdefault(name, place) != place:
            found.append(f"the same name as {first[name]}")
        problems.extend(f"{label}: {problem}" for problem in found)
        if not found:
            users.append(_read_user(entry, label))
    if problems:
        raise RegistryError("; ".join(problems))
    return users


def _read_user(entry: Mapping[str, Any], label: str) -> User:
    return User(
        label=label,
        name=entry["name"],
        present=entry.get("state") != "absent",
        password=entry.get("password"),
        password_file=entry.get("password_file"),
        cost=entry.get("cost"),
        reset=bool(entry.get("reset")),
    )


def _problems_of(entry: Mapping[str, Any]) -> list[str]:
    problems = [_problem_of_name(entry.get("name"))]
    password = entry.get("password")
    if isinstance(password, str):
        problems.append(_passwords.problem_of(password))
    elif password is not None:
        # YAML reads 0123 as a number and no as a boolean: the password would be another one.
        problems.append("the password is not a string: put it in quotes")
    given = [key for key in ("password", "password_file", "reset") if entry.get(key) not in (None, False)]
    if len(given) > 1:
        problems.append(f"{' and '.join(given)} exclude each other")
    state = entry.get("state")
    if state not in (None, "present", "absent"):
        problems.append(f"state {state!r} is neither present nor absent")
    if entry.get("reset") and state == "absent":
        problems.append("reset makes no sense for a user that should be absent")
    cost = entry.get("cost")
    if cost is not None and cost not in range(_passwords.MIN_COST, _passwords.MAX_COST + 1):
        problems.append(f"cost {cost!r} is no number from {_passwords.MIN_COST} to {_passwords.MAX_COST}")
    return [problem for problem in problems if problem]


def _problem_of_name(name: object) -> str | None:
    if name is None:
        return "the user name is missing"
    if not isinstance(name, str):
        return f"the user name {name!r} is not a string: put it in quotes"
    if name.startswith(PROBE_PREFIX):
        return f"names that begin with {PROBE_PREFIX} are reserved"
    return _htpasswd.problem_of(name)


def apply(request: Request) -> Outcome:
    """Make a users file hold what is asked for: read, changed and written in one go, under its lock.

    Check mode takes no lock and changes nothing. Raises RegistryError before the users file is touched; only
    NoEffect comes after it is written.
    """
    for user in request.users:
        if not user.present and user.name in request.keep:
            raise RegistryError(f"{user.label}: should be absent, yet is one of the users to keep")
    path = Path(os.path.realpath(request.path))
    if request.check_mode:
        return _Run(request, path).plan()
    require_folder(path)
    with locked(path.with_name(f".{path.name}.lock"), timeout=request.lock_timeout):
        run = _Run(request, path)
        outcome = run.plan()
        run.carry_out()
        return outcome


class _Job(NamedTuple):
    """A user that should be present with a known password."""

    user: User
    password: str
    cost: int
    #: None for a new user.
    old_hash: str | None


class _Run:
    """One read-modify-write of a users file."""

    def __init__(self, request: Request, path: Path) -> None:
        self._request = request
        self._path = path
        found = read_file(path)
        self._data = found[0] if found else b""
        self._status = found[1] if found else None
        self._table = UsersFile.parse(self._data, str(path))
        self._attributes = _attributes(request.attributes, self._status)
        self._mtime_ns = self._status.st_mtime_ns if self._status else None
        # In check mode the registry, and a CA file for it, need not exist yet.
        self._witness = Witness(request.proof) if request.proof and not request.check_mode else None
        #: Users that the registry cannot let in with this password before it has read the new file.
        self._newcomers: dict[str, str] = {}
        #: Users that it must no longer let in with this password, as far as we were told one.
        self._leavers: dict[str, str] = {}
        #: Lines for the diff about other files.
        self._notes: list[str] = []
        self._outcome = Outcome()

    def plan(self) -> Outcome:
        """Find out what is to be done, hashes included. Changes no users file; makes password files."""
        outcome, table = self._outcome, self._table
        outcome.warnings = self._warnings()
        outcome.before = self._describe(self._status and attributes_of(self._status))

        outcome.removed = self._leaving()
        wanted = [user for user in self._request.users if user.present and self._needs_password(user)]
        table.require_usable(except_for=[*outcome.removed, *(user.name for user in wanted)])
        self._leavers = self._old_passwords(outcome.removed)
        self._change(wanted)

        touched = {*outcome.added, *outcome.updated, *outcome.removed}
        outcome.unchanged = [user.name for user in self._request.users if user.name not in touched]
        outcome.users = table.names()
        rewritten = self._is_rewritten()
        outcome.after = self._describe(self._attributes if self._status or rewritten else None)
        outcome.changed |= rewritten or (
            self._status is not None and attributes_of(self._status) != self._attributes
        )
        return outcome

    def carry_out(self) -> None:
        """Write what is planned, and prove it."""
        if not self._is_rewritten():
            if self._status:
                ensure_attributes(self._path, self._attributes)
            return
        if self._witness is None:
            self._write()
            return
        try:
            self._write_and_prove(self._witness)
        except WrongAnswer as error:
            raise NoEffect(f"{self._path} is written, but {error}", self._outcome) from error
        finally:
            self._outcome.verified = self._witness.answers

    def _is_rewritten(self) -> bool:
        if self._status is None:
            # Without a file the registry would make one, with a user of its own.
            return bool(self._table.names()) or self._request.exclusive
        return self._table.to_bytes() != self._data

    def _leaving(self) -> list[str]:
        """Who has to go, in the order of the file."""
        request = self._request
        listed = {user.name: user.present for user in request.users}
        return [
            name
            for name in self._table.names()
            if name.startswith(PROBE_PREFIX)  # of a run that was killed
            or not listed.get(name, not request.exclusive or name in request.keep)
        ]

    def _needs_password(self, user: User) -> bool:
        if user.name not in self._table or user.reset:
            return True
        return not self._request.only_on_create and bool(user.password or user.password_file)

    def _change(self, wanted: Sequence[User]) -> None:
        """Give the wanted users their hashes, on all cores, and take out who has to go."""
        if self._needs_bcrypt(wanted):
            _passwords.load()
        jobs = self._jobs(wanted)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            hashes = list(pool.map(self._new_hash, jobs))
        for job, password_hash in zip(jobs, hashes):
            if password_hash is not None:
                self._enter(job, password_hash)
        for name in self._outcome.removed:
            self._table.remove(name)

    def _needs_bcrypt(self, wanted: Sequence[User]) -> bool:
        """Whether anything is to be hashed or verified. In check mode, new users need neither."""
        if self._request.check_mode:
            return any(user.name in self._table for user in wanted)
        return bool(wanted) or self._witness is not None

    def _jobs(self, wanted: Sequence[User]) -> list[_Job]:
        for user in wanted:
            if user.password_file:
                self._secret(user, check_mode=True)  # all are read before the first is made
        jobs = []
        for user in wanted:
            password = self._password(user)
            cost = user.cost or _passwords.default_cost(password)
            old_hash = self._table.hash_of(user.name) if user.name in self._table else None
            jobs.append(_Job(user, password, cost, old_hash))
        return jobs

    def _password(self, user: User) -> str:
        """A user's password: given, kept in a file, or made now."""
        if user.password:
            return user.password
        if user.password_file:
            secret = self._secret(user, check_mode=self._request.check_mode)
            if secret.created or secret.corrected:
                self._outcome.changed = True
                self._notes.append(
                    f"{user.password_file}: {'made' if secret.created else 'owner or mode set'}"
                )
            return secret.value
        password = PLACEHOLDER if self._request.check_mode else generate()
        self._outcome.generated[user.name] = password
        return password

    def _secret(self, user: User, *, check_mode: bool) -> Secret:
        file = user.password_file or ""
        secret = ensure_secret(file, lock_timeout=self._request.lock_timeout, check_mode=check_mode)
        problem = _passwords.problem_of(secret.value)
        if problem:
            raise RegistryError(f"{user.label}: {problem}; it is in {file}")
        return secret

    def _old_passwords(self, leaving: Sequence[str]) -> dict[str, str]:
        passwords = {}
        for user in self._request.users:
            if user.name not in leaving:
                continue
            if user.password:
                passwords[user.name] = user.password
            elif user.password_file:
                secret = ensure_secret(user.password_file, check_mode=True)
                if not secret.created:
                    passwords[user.name] = secret.value
        return passwords

    def _new_hash(self, job: _Job) -> str | None:
        """None where the old one is right already. Runs in several threads."""
        old = job.old_hash
        if old is not None and _passwords.cost_of(old) == job.cost and _passwords.verify(job.password, old):
            return None
        if self._request.check_mode:
            return _passwords.sample(job.cost)
        return _passwords.make_hash(job.password, job.cost)

    def _enter(self, job: _Job, password_hash: str) -> None:
        name, old = job.user.name, job.old_hash
        (self._outcome.added if old is None else self._outcome.updated).append(name)
        if old is None or _passwords.cost_of(old) == job.cost:
            self._newcomers[name] = job.password
        self._table.set(name, password_hash)

    def _write(self) -> None:
        # The registry reads the file again when its mtime is another one than before.
        self._mtime_ns = atomic_write(
            self._path, self._table.to_bytes(), **self._attributes._asdict(), newer_than_ns=self._mtime_ns
        )

    def _write_and_prove(self, witness: Witness) -> None:
        if self._newcomers:
            self._write()
            name, password = next(iter(self._newcomers.items()))
            witness.expect_let_in(name, password, "the new password")
            # A registry that lets everybody in has proven nothing.
            witness.expect_turned_away(name, generate(), "a wrong password")
        else:
            self._write_with_probe(witness)
        for name, password in self._leavers.items():
            witness.expect_turned_away(name, password, "the old password")

    def _write_with_probe(self, witness: Witness) -> None:
        """Write the file with one user more, let the registry see it, then without, and let it see that."""
        name, password = f"{PROBE_PREFIX}{secrets.token_hex(6)}", generate()
        self._table.set(name, _passwords.make_hash(password, _passwords.GENERATED_COST))
        try:
            self._write()
            witness.expect_let_in(name, password, "a probe's password")
        finally:
            self._table.remove(name)
            self._write()
        witness.expect_turned_away(name, password, "a removed probe's password")

    def _warnings(self) -> list[str]:
        warnings = []
        for name, numbers in self._table.duplicates().items():
            lines = " and ".join(map(str, numbers))
            warnings.append(
                f"users file {self._path}: {name!r} has lines {lines}; the registry goes by the last one"
            )
        if self._table.has_crlf():
            warnings.append(
                f"users file {self._path}: lines end in CR LF; the registry ignores the CR, a proxy may not"
            )
        if self._request.check_mode and not self._path.parent.is_dir():
            warnings.append(f"users file {self._path}: its folder does not exist yet; a real run needs it")
        return warnings

    def _describe(self, attributes: Attributes | None) -> str:
        """The users file in words, one line per user with the cost of its hash. Empty for a missing file."""
        if attributes is None:
            return ""
        marks = dict.fromkeys(self._outcome.added, " (added)")
        marks.update((name, " (changed)") for name in self._outcome.updated)
        kinds = self._table.kinds().items()
        lines = [
            str(attributes),
            *(f"{name}: <{kind}>{marks.get(name, '')}" for name, kind in kinds),
            *self._notes,
        ]
        return "".join(f"{line}\n" for line in lines)


def _attributes(wanted: Attributes, status: os.stat_result | None) -> Attributes:
    """A file that is replaced keeps its owner unless another one is wanted."""
    if status is None:
        return wanted
    uid = status.st_uid if wanted.uid is None else wanted.uid
    gid = status.st_gid if wanted.gid is None else wanted.gid
    return Attributes(wanted.mode, uid, gid)
