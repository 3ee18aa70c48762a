# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logins of registry clients: what `docker login` and `podman login` keep, merged without touching the rest.

Private to the collection: no stable interface. Standard library only: machines that pull have nothing else.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import http.client
import json
import os
import pwd
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from . import _files
from ._errors import RegistryError
from ._secrets import has_control_characters

# Below the home of an account, by the tools that read it.
PLACES = {"docker": ".docker/config.json", "containers": ".config/containers/auth.json"}

# podman writes its own logins here, until the next boot, and reads them first. By user number.
_VOLATILE = ("/run/containers/{uid}/auth.json", "/run/user/{uid}/containers/auth.json")

_MODE = 0o600
_FOLDER_MODE = 0o700
_HELPER_SECONDS = 30
_NETWORK_SECONDS = 30.0
# What every helper says, by their protocol, of a registry that it does not know.
_HELPER_KNOWS_NOTHING = "credentials not found"


class LoginError(RegistryError):
    """A login that cannot be stored, or that the registry refuses."""


class Login(NamedTuple):
    """User and password; never shown."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Login(username={self.username!r})"


class Account(NamedTuple):
    """The unix account whose tools log in."""

    name: str
    uid: int
    gid: int
    home: str


class Outcome(NamedTuple):
    """What became of a login. `before` and `after` name users, never passwords."""

    changed: bool
    #: The credential helper that keeps the password; empty where the file does.
    helper: str
    before: str
    after: str
    #: A file that the tools read first, and that has another login for this registry; empty where there is none.
    shadowed_by: str


def account(name: str) -> Account:
    """The account of that name. Raises LoginError."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise LoginError(f"log in as account {name!r}: not known on this host") from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)


def require_usable(registry: str, login: Login) -> None:
    """Raise LoginError for names and passwords that no tool could send, or would send wrongly."""
    if not registry or "/" in registry or registry != registry.strip():
        raise LoginError(
            f"log in to {registry!r}: give the registry as HOST or HOST:PORT, without https:// and path"
        )
    if not login.username or ":" in login.username or has_control_characters(login.username):
        raise LoginError(
            f"log in to {registry}: the user name is empty, or holds a colon or control characters"
        )
    if not login.password or has_control_characters(login.password):
        raise LoginError(
            f"log in to {registry} as {login.username}: the password is empty or holds control characters"
        )


def verify(registry: str, login: Login, *, insecure: bool = False, ca_certificate: str = "") -> None:
    """Ask the registry whether it takes this login. Raises LoginError where it does not, or does not answer."""
    url = f"{'http' if insecure else 'https'}://{registry}/v2/"
    what = f"log in to {registry} as {login.username}"
    try:
        context = ssl.create_default_context(cadata=ca_certificate or None)
    except ssl.SSLError as error:
        raise LoginError(f"{what}: the CA certificate is none in PEM format ({error.reason})") from error
    # Proxies of the environment are for elsewhere; a redirect could carry the password to another host.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), _NoRedirect()
    )
    headers = {"Authorization": f"Basic {_encoded(login)}"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - always http:// or https://
    try:
        opener.open(request, timeout=_NETWORK_SECONDS).close()
    except urllib.error.HTTPError as error:
        with error:
            raise LoginError(f"{what}: {_refusal(error)}. Nothing was changed") from None
    except (OSError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)
        raise LoginError(
            f"{what}: {url} gives no answer that could be trusted ({cause}). Nothing was changed; "
            "see that it runs, that its name resolves here, and that its CA is given"
        ) from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: Any) -> None:
        return None


def _refusal(error: urllib.error.HTTPError) -> str:
    if error.code == 401:
        challenge = str(error.headers.get("WWW-Authenticate", ""))
        if challenge.lower().startswith("bearer"):
            return "this registry gives out tokens, which cannot be asked for here; set verify to false"
        return "the registry refuses this user and password (401)"
    return f"the registry answers {error.code} {error.reason}"


def ensure(
    path: str, registry: str, login: Login, owner: Account | None = None, *, check_mode: bool = False
) -> Outcome:
    """Keep this login in the file at `path`, or with the credential helper that the file names.

    `owner` is whom the file belongs to, and as whom everything is done; None: who runs this.
    """
    require_usable(registry, login)
    with _acting_as(owner), _locked(path, owner, check_mode):
        file = _read(path)
        helper = _helper_of(file, registry)
        stored = _helper_get(helper, registry) if helper else _stored(file, registry)
        changed = stored != login
        if helper:
            if changed and not check_mode:
                secret = {"ServerURL": registry, "Username": login.username, "Secret": login.password}
                _ask_helper(helper, "store", json.dumps(secret))
        elif changed:
            auths = {**_section(file, "auths"), registry: {"auth": _encoded(login)}}
            if not check_mode:
                _write(path, {**file, "auths": auths}, owner)
        else:
            changed = _files.ensure_attributes(path, _attributes(owner), check_mode=check_mode)
        return Outcome(
            changed,
            helper,
            _words(stored, login),
            f"user {login.username}",
            _shadow(registry, login, path, owner),
        )


def forget(
    path: str, registry: str, username: str = "", owner: Account | None = None, *, check_mode: bool = False
) -> Outcome:
    """Remove the login for this registry, of this user only where one is named. All else stays as it is."""
    if not Path(path).exists():
        return Outcome(False, "", "", "", "")
    with _acting_as(owner), _locked(path, owner, check_mode):
        file = _read(path)
        helper = _helper_of(file, registry)
        stored = _helper_get(helper, registry) if helper else _stored(file, registry)
        auths = _section(file, "auths")
        is_there = stored is not None if helper else registry in auths
        if not is_there or (username and stored is not None and stored.username != username):
            return Outcome(False, helper, _words(stored), _words(stored), "")
        if not check_mode:
            if helper:
                _ask_helper(helper, "erase", registry)
            else:
                rest = {**file, "auths": {name: entry for name, entry in auths.items() if name != registry}}
                if rest == {"auths": {}}:
                    Path(path).unlink()
                else:
                    _write(path, rest, owner)
        return Outcome(True, helper, _words(stored) or "a login", "", "")


def _words(stored: Login | None, wanted: Login | None = None) -> str:
    if stored is None:
        return ""
    same_user = wanted is not None and wanted.username == stored.username and wanted != stored
    return f"user {stored.username}" + (", another password" if same_user else "")


def _encoded(login: Login) -> str:
    return base64.b64encode(f"{login.username}:{login.password}".encode()).decode()


def _read(path: str) -> dict[str, Any]:
    found = _files.read_file(path)
    if found is None or not found[0].strip():
        return {}
    try:
        content = json.loads(found[0])
    except ValueError as error:
        # Without its text: it holds passwords.
        raise LoginError(
            f"read {path}: it is not JSON ({error.__class__.__name__}); correct or remove it"
        ) from None
    if not isinstance(content, dict):
        raise LoginError(f"read {path}: it holds no JSON object; correct or remove it")
    for key in ("auths", "credHelpers"):
        if not isinstance(content.get(key) or {}, dict):
            raise LoginError(f"read {path}: {key} is not an object; correct or remove it")
    return content


def _section(file: dict[str, Any], key: str) -> dict[str, Any]:
    return file.get(key) or {}


def _stored(file: dict[str, Any], registry: str) -> Login | None:
    """The login that the file has for this registry; None where there is none that tools could use."""
    entry = _section(file, "auths").get(registry)
    # A token stands before user and password.
    if not isinstance(entry, dict) or entry.get("identitytoken"):
        return None
    try:
        text = base64.b64decode(str(entry.get("auth", "")), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    username, colon, password = text.partition(":")
    return Login(username, password) if colon else None


def _write(path: str, content: dict[str, Any], owner: Account | None) -> None:
    # As docker and podman write it, so that their next login shows no other difference.
    text = json.dumps(content, indent="\t", ensure_ascii=False) + "\n"
    attributes = _attributes(owner)
    _files.atomic_write(path, text.encode(), mode=attributes.mode, uid=attributes.uid, gid=attributes.gid)


def _attributes(owner: Account | None) -> _files.Attributes:
    return _files.Attributes(_MODE, owner.uid, owner.gid) if owner else _files.Attributes(_MODE)


def _shadow(registry: str, login: Login, path: str, owner: Account | None) -> str:
    """The file of podman's own logins, where that has another one for this registry."""
    if not path.endswith(PLACES["containers"]):
        return ""
    for pattern in _VOLATILE:
        place = pattern.format(uid=owner.uid if owner else os.getuid())
        with suppress(RegistryError):
            file = _read(place)
            if registry in _section(file, "auths") and _stored(file, registry) != login:
                return place
    return ""


# --- Credential helpers: https://github.com/docker/docker-credential-helpers, one process for each request ---


def _helper_of(file: dict[str, Any], registry: str) -> str:
    """The helper that tools ask for this registry; empty where the file itself keeps the password."""
    return str(_section(file, "credHelpers").get(registry) or file.get("credsStore") or "")


def _helper_get(helper: str, registry: str) -> Login | None:
    answer = _ask_helper(helper, "get", registry)
    try:
        content = json.loads(answer) if answer else {}
        return Login(content["Username"], content["Secret"]) if content else None
    except (ValueError, KeyError, TypeError):
        raise LoginError(
            f"credential helper {helper}: its answer to `get` is not the JSON that tools expect"
        ) from None


def _ask_helper(helper: str, action: str, text: str) -> str:
    """What the helper answers; empty where it does not know the registry. Secrets go through pipes only."""
    program = shutil.which(f"docker-credential-{helper}")
    if program is None:
        raise LoginError(
            f"credential helper {helper}: docker-credential-{helper} is not on PATH, and the tools' configuration "
            "names it. Install it, or take credsStore or credHelpers out of that file"
        )
    # The real identity too, which _acting_as leaves.
    identity: dict[str, Any] = (
        {"user": os.geteuid(), "group": os.getegid()} if os.getuid() != os.geteuid() else {}
    )
    try:
        done = subprocess.run(
            [program, action],
            input=text,
            capture_output=True,
            text=True,
            timeout=_HELPER_SECONDS,
            check=False,
            env={**os.environ, "HOME": pwd.getpwuid(os.geteuid()).pw_dir},
            **identity,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LoginError(
            f"credential helper {helper}: `{action}` failed ({error.__class__.__name__})"
        ) from None
    if done.returncode == 0:
        answer: str = done.stdout
        return answer
    if _HELPER_KNOWS_NOTHING in done.stdout + done.stderr:
        return ""
    # Its words may repeat what it was given.
    raise LoginError(f"credential helper {helper}: `{action}` ended with {done.returncode}; try it by hand")


# --- Somebody else's home ---


@contextmanager
def _acting_as(owner: Account | None) -> Iterator[None]:
    """Be that account for a while: in a folder that it can write to, root follows links anywhere."""
    if owner is None or owner.uid == os.geteuid():
        yield
        return
    groups, gid, uid = os.getgroups(), os.getegid(), os.geteuid()
    try:
        os.setgroups(os.getgrouplist(owner.name, owner.gid))
        os.setegid(owner.gid)
        os.seteuid(owner.uid)
    except PermissionError:
        raise LoginError(f"log in as account {owner.name}: that needs root") from None
    try:
        yield
    finally:
        os.seteuid(uid)
        os.setegid(gid)
        os.setgroups(groups)


@contextmanager
def _locked(path: str, owner: Account | None, check_mode: bool) -> Iterator[None]:
    """Make the folder, and keep other runs of ours out of it while we read and write; no lock file is left."""
    folder = Path(path).parent
    if check_mode and not folder.is_dir():
        yield
        return
    try:
        for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
            missing.mkdir(_FOLDER_MODE)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        whose = f" as {owner.name}" if owner else ""
        raise LoginError(f"write {path}{whose}: {error.strerror or error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
