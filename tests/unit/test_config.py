# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The check of the registry's configuration, and that real registries do what its messages say."""

from __future__ import annotations

import copy
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dockyard.registry.plugins.module_utils import _config, _config_yaml
from ansible_collections.dockyard.registry.plugins.module_utils._config_nodes import homes
from ansible_collections.dockyard.registry.plugins.module_utils._config_schema import SCHEMA
from ansible_collections.dockyard.registry.plugins.module_utils._errors import RegistryError
from ansible_collections.dockyard.registry.plugins.module_utils._version import parse, parse_version_output
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.registry import RegistryProcess

DATA = Path(__file__).with_name("data")
LINES = ("2.8", "3.x")
BOTH = "2.8 3.x"

BASE: dict[str, Any] = {
    "version": 0.1,
    "storage": {"filesystem": {"rootdirectory": "/srv/registry"}},
    "http": {"addr": "127.0.0.1:5000", "secret": "not-a-secret"},
}


def examples(line: str) -> list[dict[str, Any]]:
    """Valid configurations that hold everything registries of the line 2.8 or 3.x read."""
    return list(yaml.safe_load_all((DATA / f"config-{line}.yml").read_text(encoding="utf-8")))


EXAMPLES = [
    pytest.param(line, example, id=f"{line}-{number}")
    for line in LINES
    for number, example in enumerate(examples(line))
]


# --- What is valid ---


@pytest.mark.parametrize(("line", "config"), EXAMPLES)
def test_examples_are_valid(line: str, config: dict[str, Any]) -> None:
    assert _config.errors(config, line) == []


@pytest.mark.parametrize("line", LINES)
def test_examples_hold_every_key(line: str) -> None:
    """A key that the schema lost would fail the test above; one that it gained must be shown there."""

    def paths(value: Any, path: str = "") -> Iterator[str]:
        if isinstance(value, dict):
            for key, below in value.items():
                here = f"{path}.{key}" if path else key
                yield here
                yield from paths(below, here)
        elif isinstance(value, list):
            for item in value:
                yield from paths(item, f"{path}[]")

    shown = {path for example in examples(line) for path in paths(example)}
    # s3aws is another name of s3, and no example of 2.8 can have what never works there.
    left_out = ("storage.s3aws.", "http.tls.letsencrypt") if line == "2.8" else ("storage.s3aws.",)
    known = {path for _, path in homes(SCHEMA, parse(line)) if not path.startswith(left_out)}
    assert sorted(known - shown) == []


STORAGE_OPTIONS = ("cache", "delete", "maintenance", "redirect", "tag")


def test_real_registries_read_the_examples(registry_binary: str, tmp_path: Path) -> None:
    """No value in them is of a type that the registry's parser refuses."""
    for example in examples("2.8" if version_of(registry_binary).startswith("2.") else "3.x"):
        options = {key: value for key, value in example["storage"].items() if key in STORAGE_OPTIONS}
        readable = {**example, "storage": {**options, "filesystem": {"rootdirectory": str(tmp_path)}}}
        assert "configuration error" not in collect(registry_binary, _config_yaml.dump(readable), tmp_path)


@pytest.mark.parametrize(
    "version", ["2", "2.8", "2.8.3", "v2.8.3", "2.8.2+ds1", "2.8.2+ds1-1+b5", "2.8.0-beta.1"]
)
def test_versions_of_the_line_2_8(version: str) -> None:
    assert _config.errors(with_redis({"addr": "redis:6379"}), version) == []
    assert _config.errors(with_redis({"addrs": ["redis:6379"]}), version) != []


@pytest.mark.parametrize(
    "version", ["3", "3.0", "3.1", "3.1.1", "v3.1.1", "3.0.0-rc.4", "3.7.0", "v3.1.1-9-gabc.m"]
)
def test_versions_of_the_line_3(version: str) -> None:
    assert _config.errors(with_redis({"addrs": ["redis:6379"]}), version) == []
    assert _config.errors(with_redis({"addr": "redis:6379"}), version) != []


def with_redis(redis: dict[str, Any]) -> dict[str, Any]:
    return {**BASE, "redis": redis}


@pytest.mark.parametrize(
    ("key", "version", "known"),
    [
        ("catalog", "2.8.1", False),
        ("catalog", "2.8.2+ds1", True),
        ("tags", "3.0.0", False),
        ("tags", "3.1.0", True),
        ("tags", "3", True),
    ],
)
def test_keys_that_came_within_a_line(key: str, version: str, known: bool) -> None:
    section = {"catalog": {"maxentries": 10}, "tags": {"maxtags": 10}}[key]
    assert (_config.errors({**BASE, key: section}, version) == []) is known


@pytest.mark.parametrize("version", ["2.7.1", "1", "4.0.0"])
def test_other_versions_are_an_error(version: str) -> None:
    with pytest.raises(RegistryError, match=r"not supported; use 2\.8 or 3\.x"):
        _config.errors(BASE, version)


@pytest.mark.parametrize("version", ["", "latest", "three", "3.1.1 or so"])
def test_no_version_is_an_error(version: str) -> None:
    with pytest.raises(RegistryError, match="that is no version"):
        _config.errors(BASE, version)


# --- What is wrong ---

GONE = object()


def filesystem(**parameters: Any) -> dict[str, Any]:
    return {"storage": {"filesystem": parameters}}


def driver(name: str, **parameters: Any) -> dict[str, Any]:
    return {"storage": {"filesystem": GONE, name: parameters}}


def purging(**settings: Any) -> dict[str, Any]:
    complete = {"enabled": True, "age": "168h", "interval": "24h", "dryrun": False}
    return {"storage": {"maintenance": {"uploadpurging": {**complete, **settings}}}}


# versions, what is laid over BASE, the path in the message, pieces of the message
WRONG: list[tuple[str, dict[str, Any], str, list[str]]] = [
    # Keys
    (BOTH, {"storages": {}}, "storages", ["silently ignore", "did you mean storage?"]),
    (BOTH, {"http": {"Addr": ":1"}}, "http.Addr", ["did you mean http.addr?"]),
    (
        BOTH,
        filesystem(root_directory="/x"),
        "storage.filesystem.root_directory",
        ["filesystem.rootdirectory?"],
    ),
    (BOTH, {"delete": {"enabled": True}}, "delete", ["did you mean storage.delete?"]),
    (BOTH, {"secret": "x"}, "secret", ["did you mean http.secret?"]),
    (BOTH, driver("s3", bucket="b", region="r", secret="x"), "storage.s3.secret", ["storage.s3.secretkey?"]),
    (BOTH, {"storage": {"readonly": {}}}, "storage.readonly", ["did you mean storage.maintenance.readonly?"]),
    (BOTH, {"storage": {"caches": {}}}, "storage.caches", ["take it for a storage driver", "storage.cache?"]),
    (
        BOTH,
        {"http": {"tls": {"certificate": "c", "key": "k", "ciphers": []}}},
        "http.tls.ciphers",
        ["http.tls.ciphersuites?"],
    ),
    (BOTH, {"middleware": {"blob": []}}, "middleware.blob", ["use one of: registry, repository, storage"]),
    (BOTH, {"log": {"fields": {1: "a"}}}, "log.fields", ["the key the number 1 is no text"]),
    (BOTH, {"http": {True: "x"}}, "http", ["the key the boolean true", "put it in quotes"]),
    # Keys of the other version
    (
        "2.8",
        {"redis": {"addr": "a:1", "addrs": ["a:1"]}},
        "redis.addrs",
        ["2.8.3", "only 3.x", "Use redis.addr"],
    ),
    (
        "3.x",
        {"redis": {"addr": "a:1", "addrs": ["a:1"]}},
        "redis.addr",
        ["only 2.8", "Use redis.addrs, a list"],
    ),
    ("3.x", {"redis": {"addrs": ["a:1"], "pool": {}}}, "redis.pool", ["only 2.8", "redis.maxidleconns"]),
    ("2.8", {"tags": {"maxtags": 5}}, "tags", ["only 3.1.0 and later"]),
    ("2.8", {"storage": {"tag": {}}}, "storage.tag", ["only 3.x", "would not start"]),
    ("2.8", {"http": {"h2c": {}}}, "http.h2c", ["only 3.x"]),
    ("2.8", {"proxy": {"remoteurl": "http://a", "ttl": "1h"}}, "proxy.ttl", ["only 3.x", "2.8 always keeps"]),
    ("3.x", {"compatibility": {}}, "compatibility", ["only 2.8", "schema 1"]),
    ("3.x", {"reporting": {}}, "reporting", ["only 2.8"]),
    ("3.x", driver("swift"), "storage.swift", ["only 2.8", "would not start", "Move the data"]),
    ("3.x", driver("oss"), "storage.oss", ["only 2.8"]),
    (
        "3.0",
        {"redis": {"addrs": ["a:1"], "tls": {"rootcas": []}}},
        "redis.tls.rootcas",
        ["redis.tls.clientcas"],
    ),
    (
        "3.1",
        {"redis": {"addrs": ["a:1"], "tls": {"clientcas": []}}},
        "redis.tls.clientcas",
        ["redis.tls.rootcas"],
    ),
    (
        "3.x",
        {"redis": {"addrs": ["a:1"], "tls": {"enabled": True}}},
        "redis.tls.enabled",
        ["no registry reads"],
    ),
    # Booleans
    (
        BOTH,
        {"storage": {"delete": {"enabled": "true"}}},
        "storage.delete.enabled",
        ["silently be off", "Write true"],
    ),
    (BOTH, {"storage": {"delete": {"enabled": "no"}}}, "storage.delete.enabled", ["Write false"]),
    (BOTH, {"storage": {"delete": {"enabled": 1}}}, "storage.delete.enabled", ["the number 1", "Write true"]),
    (BOTH, {"storage": {"delete": {"enabled": None}}}, "storage.delete.enabled", ["no value"]),
    (BOTH, {"http": {"relativeurls": "yes"}}, "http.relativeurls", ["would not start", "Write true"]),
    (BOTH, {"http": {"relativeurls": "maybe"}}, "http.relativeurls", ["Write true or false"]),
    (BOTH, purging(enabled="false"), "storage.maintenance.uploadpurging.enabled", ["purging would be on"]),
    # Numbers and sizes
    (BOTH, {"catalog": {"maxentries": "5"}}, "catalog.maxentries", ["Write 5 without quotes"]),
    (BOTH, {"catalog": {"maxentries": 5.5}}, "catalog.maxentries", ["a whole number", "5.5"]),
    (BOTH, {"catalog": {"maxentries": True}}, "catalog.maxentries", ["the boolean true"]),
    (BOTH, {"catalog": {"maxentries": 0}}, "catalog.maxentries", ["too small", "would use 1000"]),
    (BOTH, filesystem(maxthreads=10), "storage.filesystem.maxthreads", ["would use 25"]),
    (
        BOTH,
        driver("s3", bucket="b", region="r", chunksize="32MB"),
        "storage.s3.chunksize",
        ["write 33554432"],
    ),
    (
        BOTH,
        driver("s3", bucket="b", region="r", chunksize=5),
        "storage.s3.chunksize",
        ["too small", "5242880"],
    ),
    (BOTH, driver("s3", bucket="b", region="r", chunksize=2**40), "storage.s3.chunksize", ["too large"]),
    (BOTH, driver("gcs", bucket="b", chunksize=262145), "storage.gcs.chunksize", ["no multiple of 262144"]),
    ("3.x", {"storage": {"tag": {"concurrencylimit": -1}}}, "storage.tag.concurrencylimit", ["too small"]),
    # Durations
    (BOTH, {"http": {"draintimeout": 60}}, "http.draintimeout", ["nanoseconds", 'Write "60s"']),
    (BOTH, {"http": {"draintimeout": "60"}}, "http.draintimeout", ["would not start", '"60s"']),
    (BOTH, {"http": {"draintimeout": "1 m"}}, "http.draintimeout", ['Write "1m"']),
    (BOTH, {"http": {"draintimeout": "2d"}}, "http.draintimeout", ['write "48h"']),
    (BOTH, {"http": {"draintimeout": "1w"}}, "http.draintimeout", ['write "168h"']),
    (BOTH, {"http": {"draintimeout": "soon"}}, "http.draintimeout", ["The units are"]),
    (BOTH, {"http": {"draintimeout": "-5s"}}, "http.draintimeout", ["negative"]),
    (BOTH, {"http": {"draintimeout": ["5s"]}}, "http.draintimeout", ["got a list"]),
    (BOTH, purging(age=0), "storage.maintenance.uploadpurging.age", ["would not start"]),
    # Text, lists, mappings
    (BOTH, filesystem(rootdirectory=7), "storage.filesystem.rootdirectory", ["wants text", "in quotes"]),
    (BOTH, filesystem(rootdirectory=True), "storage.filesystem.rootdirectory", ["unquoted yes, no, on"]),
    (BOTH, filesystem(rootdirectory=["/x"]), "storage.filesystem.rootdirectory", ["Write text"]),
    (BOTH, filesystem(rootdirectory=""), "storage.filesystem.rootdirectory", ["is empty", "/docker"]),
    (BOTH, {"http": {"headers": {"X-A": "b"}}}, "http.headers.X-A", ["a list", "list of one"]),
    (BOTH, {"notifications": {"endpoints": {}}}, "notifications.endpoints", ["a list", "got a mapping"]),
    (BOTH, {"storage": "inmemory"}, "storage", ["wants a mapping", "got a string"]),
    (BOTH, {"storage": {"delete": True}}, "storage.delete", ["wants a mapping", "a boolean"]),
    (BOTH, {"health": {"tcp": [{"addr": "a:1"}, 5]}}, "health.tcp[1]", ["wants a mapping", "got a number"]),
    # Values
    (BOTH, {"version": 0.2}, "version", ["wants 0.1"]),
    (BOTH, {"version": "1"}, "version", ["wants 0.1"]),
    (
        BOTH,
        {"log": {"level": "verbose"}},
        "log.level",
        ["none of error, warn, info, debug", "would not start"],
    ),
    (BOTH, {"loglevel": "trace"}, "loglevel", ["none of error"]),
    (BOTH, {"log": {"formatter": "xml"}}, "log.formatter", ["none of text, json, logstash"]),
    (BOTH, {"log": {"hooks": [{"type": "slack"}]}}, "log.hooks[0].type", ["never run"]),
    (
        BOTH,
        {"storage": {"cache": {"blobdescriptor": "memory"}}},
        "storage.cache.blobdescriptor",
        ["silently be off"],
    ),
    (BOTH, {"http": {"net": "udp"}}, "http.net", ["none of tcp, unix"]),
    (BOTH, {"http": {"addr": "5000"}}, "http.addr", ["no HOST:PORT"]),
    (BOTH, {"http": {"host": "registry.example.org"}}, "http.host", ["a URL", "silently be ignored"]),
    (BOTH, {"http": {"prefix": "images/"}}, "http.prefix", ["begins with /"]),
    (BOTH, {"http": {"secret": ""}}, "http.secret", ["empty", "uploads under way"]),
    (
        "3.x",
        {"http": {"tls": {"certificate": "c", "key": "k", "minimumtls": "tls1.0"}}},
        "http.tls.minimumtls",
        [],
    ),
    # What is missing
    (BOTH, {"version": GONE}, "version", ["missing", "would not start"]),
    (BOTH, {"http": GONE}, "http", ["missing", "random port"]),
    (BOTH, {"http": {"addr": GONE}}, "http.addr", ["missing", "random port"]),
    ("2.8", {"redis": {}}, "redis.addr", ["missing", "without redis"]),
    ("3.x", {"redis": {}}, "redis.addrs", ["missing", "without redis"]),
    (BOTH, {"proxy": {"username": "a"}}, "proxy.remoteurl", ["missing", "no pull-through cache"]),
    (BOTH, {"auth": {"htpasswd": {"realm": "a"}}}, "auth.htpasswd.path", ["missing"]),
    (BOTH, driver("s3", region="r"), "storage.s3.bucket", ["missing"]),
    (BOTH, driver("s3", bucket="b"), "storage.s3.region", ["missing"]),
    ("2.8", driver("s3", bucket="b", regionendpoint="http://a"), "storage.s3.region", ["missing"]),
    # Combinations
    (BOTH, {"storage": {"inmemory": {}}}, "storage", ["more than one storage driver (filesystem, inmemory)"]),
    (BOTH, {"storage": {"tape": {}}}, "storage", ["more than one storage driver (filesystem, tape)"]),
    (BOTH, {"storage": {"filesystem": GONE}}, "storage", ["no storage driver", "inmemory: {}"]),
    (BOTH, {"storage": {"redirect": {}}}, "storage.redirect.disable", ["missing", "would not start"]),
    (
        BOTH,
        {"storage": {"maintenance": {"readonly": True}}},
        "storage.maintenance.readonly",
        ["wants a mapping"],
    ),
    (
        BOTH,
        {"storage": {"cache": {"blobdescriptor": "redis"}}},
        "storage.cache.blobdescriptor",
        ["redis.addr"],
    ),
    (
        BOTH,
        driver("s3", bucket="b", region="r", accesskey="a"),
        "storage.s3.accesskey",
        ["without secretkey"],
    ),
    ("3.x", driver("azure", accountname="a", container="c"), "storage.azure.credentials", ["missing"]),
    (
        "3.x",
        driver("azure", accountname="a", container="c", credentials={"type": "shared_key"}),
        "storage.azure.accountkey",
        ["shared_key"],
    ),
    (
        BOTH,
        {"storage": {"maintenance": {"uploadpurging": {"age": "1h", "interval": "1h"}}}},
        "storage.maintenance.uploadpurging.dryrun",
        ["age, interval and dryrun", "would not start"],
    ),
    (BOTH, {"auth": {}}, "auth", ["everybody could pull, push and delete"]),
    (BOTH, {"auth": {"none": {}, "silly": {"realm": "a", "service": "b"}}}, "auth", ["more than one method"]),
    (BOTH, {"auth": {"ldap": {}}}, "auth.ldap", ["would not start", "htpasswd"]),
    ("3.x", {"auth": {"token": {"realm": "a", "service": "b", "issuer": "c"}}}, "auth.token", ["jwks"]),
    (
        BOTH,
        {"middleware": {"storage": [{"name": "redirect", "disabled": True}]}},
        "middleware.storage[0].disabled",
        ["would run"],
    ),
    (BOTH, {"http": {"debug": {"prometheus": {"enabled": True}}}}, "http.debug.addr", ["served nowhere"]),
    (BOTH, {"http": {"tls": {"key": "k"}}}, "http.tls", ["plain HTTP"]),
    (BOTH, {"http": {"tls": {"certificate": "c"}}}, "http.tls.key", ["certificate needs it"]),
    (
        "3.x",
        {"http": {"tls": {"letsencrypt": {"email": "a"}}}},
        "http.tls.letsencrypt.cachefile",
        ["plain HTTP"],
    ),
    (
        "3.x",
        {"http": {"tls": {"certificate": "c", "key": "k", "letsencrypt": {"cachefile": "f"}}}},
        "http.tls",
        ["exclude each other"],
    ),
    ("2.8", {"http": {"tls": {"letsencrypt": {"cachefile": "f"}}}}, "http.tls.letsencrypt", ["ACME v1"]),
    (
        "3.x",
        {"http": {"tls": {"certificate": "c", "key": "k", "clientauth": "request-client-cert"}}},
        "http.tls.clientauth",
        ["clientcas"],
    ),
    ("3.x", {"proxy": {"remoteurl": "http://a", "ttl": "1h"}}, "proxy.ttl", ["storage.delete.enabled"]),
    (
        "3.x",
        {"proxy": {"remoteurl": "http://a", "username": "u", "exec": {"command": "c"}}},
        "proxy.exec",
        ["ignored"],
    ),
    ("3.x", {"redis": {"addrs": ["a:1"], "tls": {"key": "k"}}}, "redis.tls.key", ["without certificate"]),
    (
        BOTH,
        {"health": {"tcp": [{"addr": "a:1"}, {"addr": "a:1"}]}},
        "health.tcp[1].addr",
        ["checked already"],
    ),
    (BOTH, {"validation": {"enabled": False}}, "validation.enabled", ["no effect", "disabled: true"]),
    (
        "3.x",
        {"validation": {"manifests": {"indexes": {"platformlist": [{"os": "linux"}]}}}},
        "validation.manifests.indexes.platformlist",
        ["platforms: list"],
    ),
]
WRONG_CASES = [
    pytest.param(version, change, path, pieces, id=f"{version}-{path}-{number}")
    for number, (versions, change, path, pieces) in enumerate(WRONG)
    for version in versions.split()
]


@pytest.mark.parametrize(("version", "change", "path", "pieces"), WRONG_CASES)
def test_what_is_wrong(version: str, change: dict[str, Any], path: str, pieces: list[str]) -> None:
    messages = _config.errors(lay_over(BASE, change), version)

    assert len(messages) == 1, messages
    assert messages[0].startswith(f"{path}: ")
    for piece in pieces:
        assert piece in messages[0]


def lay_over(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Like merge(), but GONE removes a key: a null is what some cases are about."""
    changed = {**base, **{key: value for key, value in change.items() if value is not GONE}}
    for key, value in change.items():
        if value is GONE:
            changed.pop(key)
        elif isinstance(value, dict) and isinstance(base.get(key), dict):
            changed[key] = lay_over(base[key], value)
    return changed


def test_everything_wrong_is_found_at_once() -> None:
    config = {"version": 0.1, "storage": {"delete": {"enabled": "true"}}, "http": {"addr": "5000", "adr": 1}}
    paths = [message.partition(":")[0] for message in _config.errors(config, "3.1.1")]
    assert paths == ["storage.delete.enabled", "storage", "http.adr", "http.addr"]


@pytest.mark.parametrize("section", ["storage", "auth", "http"])
def test_a_section_without_a_value(section: str) -> None:
    (message,) = _config.errors({**BASE, section: None}, "2.8")
    assert message.startswith(f"{section}: it has no value: ")


@pytest.mark.parametrize("value", [None, 5, "text", [1]])
def test_a_configuration_that_is_no_mapping(value: Any) -> None:
    assert _config.errors(value, "3") != []


@pytest.mark.parametrize(
    "change",
    [
        {"http": {"secret": 98765}},
        {"redis": {"addr": "a:1", "password": 98765}},
        {
            "storage": {
                "filesystem": None,
                "s3": {"bucket": "b", "region": "r", "secretkey": 98765, "accesskey": "a"},
            }
        },
        {
            "notifications": {
                "endpoints": [{"name": "a", "url": "http://a", "headers": {"Authorization": [98765]}}]
            }
        },
        {"proxy": {"remoteurl": "http://a", "password": [98765]}},
        {"proxy": {"remoteurl": "robot:98765@registry.example.org"}},
        {"redis": "redis://:98765@redis.example.org"},
        {"redis": ["98765"]},
        {"http": {"headers": {"Authorization": "Bearer 98765"}}},
    ],
)
def test_messages_hold_no_secrets(change: dict[str, Any]) -> None:
    messages = _config.errors(_config.merge(BASE, change), "2.8")
    assert messages
    assert not any("98765" in message for message in messages)


KEYS = st.sampled_from(
    sorted({name for line in LINES for name, _ in homes(SCHEMA, parse(line))} | {"what", "Http"})
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2**40)
    | st.floats()
    | st.sampled_from(["", "redis", "1h", "a:1"])
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.integers(), inner, max_size=4),
    max_leaves=25,
)


@settings(deadline=None)
@given(config=st.dictionaries(KEYS, ANYTHING, max_size=6), version=st.sampled_from(["2.8", "3.0", "3.1"]))
def test_nonsense_gets_messages_and_no_traceback(config: dict[str, Any], version: str) -> None:
    assert all(": " in message for message in _config.errors(config, version))


# --- Merging ---


def test_merge() -> None:
    base = {
        "log": {"level": "info", "fields": {"a": 1}},
        "storage": {"filesystem": {"maxthreads": 50}, "delete": {}},
    }
    extra = {
        "log": {"level": "debug", "hooks": [1]},
        "storage": {"filesystem": None, "inmemory": {}},
        "tags": {"maxtags": None},
    }
    untouched = copy.deepcopy((base, extra))

    assert _config.merge(base, extra) == {
        "log": {"level": "debug", "fields": {"a": 1}, "hooks": [1]},
        "storage": {"delete": {}, "inmemory": {}},
        "tags": {},
    }
    assert (base, extra) == untouched


@pytest.mark.parametrize(
    ("base", "extra", "merged"),
    [
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"b": 1}}, {"a": "text"}, {"a": "text"}),
        ({"a": "text"}, {"a": {"b": 1, "c": None}}, {"a": {"b": 1}}),
        ({"a": None}, {}, {"a": None}),
        ({"a": 1}, {"b": None}, {"a": 1}),
        ({"b": 1, "a": 1}, {"a": 2, "c": 3}, {"b": 1, "a": 2, "c": 3}),
    ],
)
def test_merge_replaces_all_but_mappings(
    base: dict[str, Any], extra: dict[str, Any], merged: dict[str, Any]
) -> None:
    result = _config.merge(base, extra)
    assert result == merged
    assert list(result) == list(merged)


@settings(deadline=None)
@given(base=st.dictionaries(KEYS, ANYTHING), extra=st.dictionaries(KEYS, ANYTHING))
def test_merging_again_changes_nothing(base: dict[str, Any], extra: dict[str, Any]) -> None:
    merged = _config.merge(base, extra)
    assert repr(_config.merge(merged, extra)) == repr(merged)


# --- Real registries do what the messages say ---


def version_of(binary: str) -> str:
    output = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    return parse_version_output(output)


def collect(binary: str, config: str, directory: Path) -> str:
    """What the registry says when it collects garbage with this configuration: it reads all of it first."""
    file = directory / "config.yml"
    file.write_text(config, encoding="utf-8")
    result = subprocess.run(
        [binary, "garbage-collect", "--dry-run", file.name],
        cwd=directory,
        env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout + result.stderr


def status(registry: RegistryProcess, path: str, method: str = "GET") -> int:
    """The status of the answer to a request without credentials."""
    request = urllib.request.Request(registry.url + path, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


MANIFEST = f"/v2/example/manifests/sha256:{'0' * 64}"
Factory = Callable[..., RegistryProcess]


def test_a_valid_configuration_has_its_effects(registry_factory: Factory, registry_binary: str) -> None:
    extra: dict[str, Any] = {
        "log": {"formatter": "json", "fields": {"rack": 7}},
        "storage": {"delete": {"enabled": True}, "filesystem": {"maxthreads": 30}, **purging()["storage"]},
        "http": {
            "relativeurls": True,
            "draintimeout": "1m30s",
            "headers": {"X-Example": ["yes"]},
            "host": "https://registry.example.org",
        },
        "health": {"storagedriver": {"enabled": True, "interval": "10s", "threshold": 3}},
        "notifications": {"endpoints": [{"name": "audit", "url": "http://127.0.0.1:9", "disabled": True}]},
        "validation": {"manifests": {"urls": {"allow": ["^https://example\\.org/"]}}},
    }
    registry = registry_factory(config_overrides=extra)
    written = yaml.safe_load(registry.config.read_text(encoding="utf-8"))

    assert _config.errors(written, version_of(registry_binary)) == []
    assert status(registry, MANIFEST, "DELETE") == 404
    with urllib.request.urlopen(f"{registry.url}/v2/", timeout=30) as answer:
        assert answer.headers["X-Example"] == "yes"
    registry.stop()
    log = registry.log.read_text(encoding="utf-8")
    assert '"rack":7' in log
    assert "endpoint audit disabled, skipping" in log
    assert "Starting upload purge in" in log
    assert "Draining connections for 1m30s" in log


def refused(registry: RegistryProcess, path: str, consequence: str) -> bool:
    """Whether errors() refuses the configuration of this registry for that reason."""
    written = yaml.safe_load(registry.config.read_text(encoding="utf-8"))
    found = _config.errors(written, version_of(registry.binary))
    return any(message.startswith(f"{path}: ") and consequence in message for message in found)


def test_deletion_is_silently_off_with_a_string(registry_factory: Factory) -> None:
    registry = registry_factory(config_overrides={"storage": {"delete": {"enabled": "true"}}})
    assert status(registry, MANIFEST, "DELETE") == 405
    assert refused(registry, "storage.delete.enabled", "silently be off")

    registry = registry_factory(config_overrides={"storage": {"delete": {"enabled": True}}})
    assert status(registry, MANIFEST, "DELETE") == 404
    assert not refused(registry, "storage.delete.enabled", "")


def test_an_empty_auth_lets_everybody_in(registry_factory: Factory) -> None:
    registry = registry_factory(config_overrides={"auth": {}})
    assert status(registry, "/v2/_catalog") == 200
    assert refused(registry, "auth", "everybody could pull")


def test_unknown_keys_are_silently_ignored(registry_factory: Factory) -> None:
    extra = {"htpp": {"secret": 1}, "http": {"http2": {"disable": 1}, "drain_timeout": "1m"}}
    registry = registry_factory(config_overrides=extra)
    assert status(registry, "/v2/") == 200
    for path in ("htpp", "http.http2.disable", "http.drain_timeout"):
        assert refused(registry, path, "silently ignore")


@pytest.mark.parametrize(
    ("extra", "path", "consequence", "said"),
    [
        (
            {"storage": {"cache": {"blobdescriptor": "memory"}}},
            "storage.cache.blobdescriptor",
            "silently be off",
            "caching disabled",
        ),
        (
            purging(enabled="false"),
            "storage.maintenance.uploadpurging.enabled",
            "be on",
            "Starting upload purge",
        ),
        ({"http": {"draintimeout": 60}}, "http.draintimeout", "nanoseconds", "Draining connections for 60ns"),
        ({"http": {"secret": ""}}, "http.secret", "make up another", "generated random secret"),
        ({"redis": {"password": "a"}}, "redis.addr", "without redis", "redis not configured"),
    ],
)
def test_what_starts_and_does_something_else(
    registry_factory: Factory, extra: dict[str, Any], path: str, consequence: str, said: str
) -> None:
    registry = registry_factory(config_overrides=extra)
    registry.stop()
    assert said in registry.log.read_text(encoding="utf-8")
    if path == "redis.addr" and registry.major == "3":
        path = "redis.addrs"
    assert refused(registry, path, consequence)


@pytest.mark.parametrize(
    "extra",
    [
        {"version": "0.2"},
        {"http": {"relativeurls": "true"}},
        {"http": {"draintimeout": "60"}},
        {"http": {"headers": {"X-A": "b"}}},
        {"http": {"net": "udp"}},
        {"log": {"level": "verbose"}},
        {"log": {"formatter": "xml"}},
        {"storage": {"inmemory": {}}},
        {"storage": {"filesystem": None}},
        {"storage": {"redirect": {}}},
        {"storage": {"maintenance": {"readonly": {"enabled": "true"}}}},
        {"storage": {"maintenance": {"uploadpurging": {"enabled": True, "age": "168h"}}}},
        {"storage": {"cache": {"blobdescriptor": "redis"}}},
        {"auth": {"none": {}, "silly": {"realm": "a", "service": "b"}}},
        {"auth": {"htpasswd": {"realm": "a"}}},
        {"health": {"tcp": [{"addr": "127.0.0.1:9"}, {"addr": "127.0.0.1:9"}]}},
        {"middleware": {"storage": [{"name": "redirect", "disabled": True}]}},
    ],
    ids=str,
)
def test_what_does_not_start(registry_factory: Factory, registry_binary: str, extra: dict[str, Any]) -> None:
    assert _config.errors(_config.merge(BASE, extra), version_of(registry_binary)) != []
    with pytest.raises(AssertionError, match="it ended while starting"):
        registry_factory(config_overrides=extra)


# --- Writing it ---

# What PyYAML writes without quotes and the registry's parser reads as something else than a string.
TWO_MEANINGS = ["y", "N", "08", "1e5", "0o7", "0X1F", "1.5e3", ".5e3"]


@pytest.mark.parametrize(
    "name", [*TWO_MEANINGS, "yes", "null", "5", "0.1", "2001-01-01", "a: b", "- a", "größe #1"]
)
def test_the_registry_reads_the_string_that_we_write(registry_binary: str, tmp_path: Path, name: str) -> None:
    (tmp_path / name / "docker/registry/v2/repositories").mkdir(parents=True)
    (tmp_path / name / "docker/registry/v2/blobs").mkdir()
    config = {"version": 0.1, "storage": {"filesystem": {"rootdirectory": name}}}
    assert "0 blobs marked" in collect(registry_binary, _config_yaml.dump(config), tmp_path)


@pytest.mark.parametrize("name", TWO_MEANINGS)
def test_the_registry_misreads_what_pyyaml_writes(registry_binary: str, tmp_path: Path, name: str) -> None:
    """Why there is a writer of our own."""
    (tmp_path / name / "docker/registry/v2/repositories").mkdir(parents=True)
    config = {"version": 0.1, "storage": {"filesystem": {"rootdirectory": name}}}
    assert "Path not found" in collect(registry_binary, yaml.safe_dump(config), tmp_path)


@settings(deadline=None)
@given(config=st.dictionaries(st.text(), ANYTHING | st.text()))
def test_yaml_holds_the_same_data(config: dict[str, Any]) -> None:
    assert repr(yaml.safe_load(_config_yaml.dump(config))) == repr(config)


def test_yaml_is_for_people_too() -> None:
    long = "a value that is rather long " * 8
    config = {"version": 0.1, "http": {"addr": ":5000", "secret": long}, "log": {"hooks": ["a", "/b"]}}
    lines = [
        "version: 0.1",
        "http:",
        '  addr: ":5000"',
        f"  secret: '{long}'",
        "log:",
        "  hooks:",
        "  - a",
        "  - /b",
    ]
    assert _config_yaml.dump(config).splitlines() == lines
