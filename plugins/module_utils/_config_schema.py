# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The schema of the registry's configuration, for 2.8 and 3.x together.

It follows the source of 2.8.0 to 3.1.1, which is not always what their documentation says.

Private to the collection: no stable interface.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ._config_nodes import (
    NO_START,
    Anything,
    Duration,
    Exactly,
    Flag,
    Items,
    Node,
    Place,
    Section,
    Text,
    Whole,
    describe,
)

_MIB = 1024 * 1024
_GIB = 1024 * _MIB
_OPEN = "everybody could pull, push and delete"
_PLAIN = "the registry would speak plain HTTP"
_RANDOM_PORT = "the registry would listen on a random port"
_NO_REDIS = "the registry would silently run without redis"
_NO_HOOK = "the hook would never run"
_UNCHECKED = "nothing would be checked"


def _value(config: Any, path: str) -> Any:
    """The value at a dotted path; None where there is none or something on the way is no mapping."""
    for key in path.split("."):
        if not isinstance(config, Mapping):
            return None
        config = config.get(key)
    return config


# What only several keys together show. Each rule gets a section that is a mapping, and its place.


def _redis_cache_has_redis(config: Mapping[str, Any], at: Place) -> Iterator[str]:
    address = "redis.addr" if at.version.major == 2 else "redis.addrs"
    cache = _value(config, "storage.cache.blobdescriptor") or _value(config, "storage.cache.layerinfo")
    if cache == "redis" and not _value(config, address):
        here = at.below("storage.cache.blobdescriptor")
        yield here.says(f"redis needs {address}: {NO_START}. Set it, or use inmemory")


def _cache_can_expire(config: Mapping[str, Any], at: Place) -> Iterator[str]:
    lifetime = _value(config, "proxy.ttl")
    expires = isinstance(lifetime, str) and any(digit in lifetime for digit in "123456789")
    if at.version.major >= 3 and expires and _value(config, "storage.delete.enabled") is not True:
        yield at.below("proxy.ttl").says(
            "expiry needs the right to delete: nothing would ever be freed. Set storage.delete.enabled: true"
        )


def _one_driver(storage: Mapping[str, Any], at: Place) -> Iterator[str]:
    drivers = [key for key in storage if key in _DRIVERS or _is_foreign_driver(key, at)]
    if len(drivers) > 1:
        yield at.says(
            f"more than one storage driver ({', '.join(drivers)}): {NO_START}. Keep one; "
            "in variables that are merged, a null removes the other"
        )
    elif not drivers:
        yield at.says(
            f"no storage driver: {NO_START}. Add one with its parameters, such as filesystem "
            "(for inmemory, which has none, write inmemory: {} because a null removes a key when merged)"
        )


def _is_foreign_driver(key: Any, at: Place) -> bool:
    return isinstance(key, str) and not _STORAGE.resembles_a_key(key, at)


def _s3_access(s3: Mapping[str, Any], at: Place) -> Iterator[str]:
    yield from _pair(s3, at, "accesskey", "secretkey")
    if at.version.major >= 3 and not s3.get("region") and not s3.get("regionendpoint"):
        yield at.below("region").says(f"it is missing, and so is regionendpoint: {NO_START}. Add one of them")


def _pair(section: Mapping[str, Any], at: Place, first: str, second: str) -> Iterator[str]:
    for key, other in ((first, second), (second, first)):
        if section.get(key) and not section.get(other):
            yield at.below(key).says(f"it is useless without {other}. Give both or neither")


def _azure_access(azure: Mapping[str, Any], at: Place) -> Iterator[str]:
    kind = _value(azure, "credentials.type")
    needed = {
        "shared_key": ("accountkey",),
        "client_secret": ("credentials.clientid", "credentials.tenantid", "credentials.secret"),
    }
    for key in needed.get(kind, ()) if isinstance(kind, str) else ():
        if not _value(azure, key):
            yield at.below(key).says(f"credentials of type {kind} need it: {NO_START}. Add it")


def _purge_is_complete(purging: Mapping[str, Any], at: Place) -> Iterator[str]:
    if purging.get("enabled") is False:
        return
    for key in ("age", "interval", "dryrun"):
        if key not in purging:
            yield at.below(key).says(f"purging needs age, interval and dryrun: {NO_START}. Add it")


def _one_method(auth: Mapping[str, Any], at: Place) -> Iterator[str]:
    if len(auth) > 1:
        methods = ", ".join(str(method) for method in auth)
        yield at.says(f"more than one method ({methods}): {NO_START}. Keep one")
    elif not auth:
        yield at.says(f"it is empty: {_OPEN}. Name a method, or leave auth out if that is meant")


def _token_keys(token: Mapping[str, Any], at: Place) -> Iterator[str]:
    if at.version.major >= 3 and not token.get("rootcertbundle") and not token.get("jwks"):
        yield at.says(f"neither rootcertbundle nor jwks is given: {NO_START}. Add one of them")


def _no_disabled_middleware(item: Mapping[str, Any], at: Place) -> Iterator[str]:
    if item.get("disabled") is True:
        yield at.below("disabled").says(
            "no registry looks at it: the middleware would run. Remove the whole entry"
        )


def _listen_address(http: Mapping[str, Any], at: Place) -> Iterator[str]:
    address = http.get("addr")
    if isinstance(address, str) and http.get("net", "tcp") == "tcp" and address and ":" not in address:
        yield at.below("addr").says(
            f"{describe(address)} is no HOST:PORT: {NO_START}. Write 127.0.0.1:5000, "
            "or :5000 for all addresses"
        )


def _metrics_have_a_port(http: Mapping[str, Any], at: Place) -> Iterator[str]:
    if _value(http, "debug.prometheus.enabled") is True and not _value(http, "debug.addr"):
        yield at.below("debug.addr").says(
            "it is missing: the metrics would be served nowhere. "
            "Give an address on loopback or on an internal network"
        )


def _tls_is_on(tls: Mapping[str, Any], at: Place) -> Iterator[str]:
    certificate, acme = tls.get("certificate"), tls.get("letsencrypt")
    if acme and certificate:
        yield at.says(f"certificate and letsencrypt exclude each other: {NO_START}. Keep one")
    elif certificate and not tls.get("key"):
        yield at.below("key").says(f"the certificate needs it: {NO_START}. Add it")
    elif tls and not certificate and not acme:
        yield at.says(f"neither certificate nor letsencrypt is given: {_PLAIN}. Add one, or remove tls")
    if tls.get("clientauth") and not tls.get("clientcas"):
        yield at.below("clientauth").says(
            "without clientcas no client is asked for a certificate. Add clientcas"
        )


def _acme_works(letsencrypt: Mapping[str, Any], at: Place) -> Iterator[str]:
    if letsencrypt and at.version.major == 2:
        yield at.says(
            f"registry 2.8 speaks only ACME v1, which Let's Encrypt switched off in 2021: {NO_START}. "
            "Put a proxy with ACME in front, or use registry 3.x"
        )


def _redis_tls_pair(tls: Mapping[str, Any], at: Place) -> Iterator[str]:
    yield from _pair(tls, at, "certificate", "key")


def _one_upstream_login(proxy: Mapping[str, Any], at: Place) -> Iterator[str]:
    if proxy.get("exec") and (proxy.get("username") or proxy.get("password")):
        yield at.below("exec").says("with it username and password are ignored. Keep one way to log in")


def _distinct_checks(health: Mapping[str, Any], at: Place) -> Iterator[str]:
    seen = set()
    for kind, key in (("file", "file"), ("http", "uri"), ("tcp", "addr")):
        checks = health.get(kind)
        for index, check in enumerate(checks if isinstance(checks, (list, tuple)) else ()):
            name = _value(check, key)
            if isinstance(name, str) and name in seen:
                here = at.below(kind).item(index).below(key)
                yield here.says(f"{describe(name)} is checked already: {NO_START}. Remove one of the two")
            seen.add(name if isinstance(name, str) else None)


def _validation_switch(validation: Mapping[str, Any], at: Place) -> Iterator[str]:
    if validation.get("enabled") is False:
        yield at.below("enabled").says(
            "false has no effect: validation would go on. Write disabled: true instead"
        )


def _platforms_are_used(indexes: Mapping[str, Any], at: Place) -> Iterator[str]:
    platforms = indexes.get("platforms")
    is_list = isinstance(platforms, str) and platforms.lower() == "list"
    if indexes.get("platformlist") and not is_list:
        yield at.below("platformlist").says("it has no effect unless platforms is list. Set platforms: list")


# The schema.


def _url(**options: Any) -> Text:
    return Text(pattern=r"https?://[^/\s]+\S*", form="a URL with http:// or https://", **options)


def _address(**options: Any) -> Text:
    return Text(pattern=r"\S+:\d+", form="HOST:PORT", **options)


_SECRET = Text(secret=True)
_HEADERS = Section(others=Items(of=_SECRET))
_INTERVAL: dict[str, Node] = {"interval": Duration(), "threshold": Whole()}
_LOG_LEVEL = Text(choices=("error", "warn", "info", "debug"), any_case=True, otherwise=NO_START)

_LOG = Section(
    keys={
        "accesslog": Section(keys={"disabled": Flag()}),
        "level": _LOG_LEVEL,
        "formatter": Text(choices=("text", "json", "logstash"), otherwise=NO_START),
        "fields": Section(others=Anything()),
        "hooks": Items(
            of=Section(
                keys={
                    "disabled": Flag(),
                    "type": Text(choices=("mail",), otherwise=_NO_HOOK, required=_NO_HOOK),
                    "levels": Items(
                        of=Text(
                            choices=("panic", "fatal", "error", "warn", "warning", "info", "debug", "trace"),
                            any_case=True,
                            otherwise="it would be taken for panic",
                        )
                    ),
                    "options": Section(
                        keys={
                            "smtp": Section(
                                keys={
                                    "addr": Text(pattern=r"[^:]+:\d+", form="HOST:PORT"),
                                    "username": Text(),
                                    "password": _SECRET,
                                    "insecure": Flag(),
                                }
                            ),
                            "from": Text(),
                            "to": Items(),
                        }
                    ),
                }
            )
        ),
        "reportcaller": Flag(since="3.0.0"),
    }
)

_PARALLEL = Whole(least=25, outside="the registry would use 25")
_FILESYSTEM = Section(
    keys={"rootdirectory": Text(empty="the data would go to /docker"), "maxthreads": _PARALLEL}
)

_S3_ACL = (
    "private",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "aws-exec-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
)
_S3_CLASSES = ("NONE", "STANDARD", "REDUCED_REDUNDANCY")
_S3_CLASSES_3 = (
    *_S3_CLASSES,
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "OUTPOSTS",
    "GLACIER_IR",
)
_S3_LOG_LEVELS = (
    "off",
    "debug",
    "debugwithsigning",
    "debugwithhttpbody",
    "debugwithrequestretries",
    "debugwithrequesterrors",
    "debugwitheventstreambody",
)


def _storage_class(choices: tuple[str, ...], since: str = "", until: str = "") -> Text:
    return Text(since=since, until=until, choices=choices, any_case=True, otherwise=NO_START)


_S3_PART = Whole(least=5 * _MIB, most=5 * _GIB, size=True, outside=NO_START)
_S3_FLAG = Flag(otherwise="")
_S3 = Section(
    keys={
        "accesskey": _SECRET,
        "secretkey": _SECRET,
        "region": (Text(until="3.0.0", required=NO_START, empty=NO_START), Text(since="3.0.0")),
        "regionendpoint": Text(),
        "forcepathstyle": Flag(
            otherwise="", since="3.0.0", instead="leave it out: 2.8 does so whenever regionendpoint is set"
        ),
        "accelerate": Flag(otherwise="", since="3.0.0"),
        "bucket": Text(required=NO_START, empty=NO_START),
        "encrypt": _S3_FLAG,
        "keyid": _SECRET,
        "secure": _S3_FLAG,
        "skipverify": _S3_FLAG,
        "v4auth": _S3_FLAG,
        "chunksize": _S3_PART,
        "multipartcopychunksize": _S3_PART,
        "multipartcopymaxconcurrency": Whole(least=1, outside=NO_START),
        "multipartcopythresholdsize": Whole(least=0, most=5 * _GIB, size=True, outside=NO_START),
        "rootdirectory": Text(),
        "storageclass": (
            _storage_class(_S3_CLASSES, until="3.0.0"),
            _storage_class(_S3_CLASSES_3, since="3.0.0", until="3.1.0"),
            _storage_class((*_S3_CLASSES_3, "EXPRESS_ONEZONE"), since="3.1.0"),
        ),
        "useragent": Text(since="3.0.0"),  # 2.8 overwrites it
        "objectacl": Text(choices=_S3_ACL, otherwise=NO_START),
        "usedualstack": Flag(otherwise="", since="3.0.0"),
        "usefipsendpoint": Flag(otherwise="", since="3.1.0"),
        "loglevel": Text(
            since="3.0.0", choices=_S3_LOG_LEVELS, any_case=True, otherwise="it would be taken for off"
        ),
    },
    rules=(_s3_access,),
)

_AZURE_2 = Section(
    until="3.0.0",
    keys={
        "accountname": Text(required=NO_START),
        "accountkey": Text(required=NO_START, secret=True),
        "container": Text(required=NO_START),
        "realm": Text(),
    },
)
_AZURE_3 = Section(
    since="3.0.0",
    keys={
        "accountname": Text(required=NO_START),
        "accountkey": _SECRET,
        "connectionstring": _SECRET,
        "container": Text(required=NO_START),
        "credentials": Section(
            required=NO_START,
            keys={
                "type": Text(
                    choices=("client_secret", "shared_key", "default_credentials"),
                    required=NO_START,
                    otherwise=NO_START,
                ),
                "clientid": Text(),
                "tenantid": Text(),
                "secret": _SECRET,
            },
        ),
        "realm": Text(),
        "rootdirectory": Text(),
        "serviceurl": Text(),
        "max_retries": Whole(least=-1),
        "retry_delay": Duration(text_only=True),
        "skipverify": Flag(),
    },
    rules=(_azure_access,),
)

_GCS = Section(
    keys={
        "bucket": Text(required=NO_START, empty=NO_START),
        "keyfile": Text(),
        "credentials": Section(others=Anything()),
        "rootdirectory": Text(),
        "chunksize": Whole(least=_MIB // 4, step=_MIB // 4, size=True, outside=NO_START),
        "maxconcurrency": _PARALLEL,
        "useragent": Text(since="3.0.0"),
    }
)

_SWIFT = Section(
    until="3.0.0",
    instead="move the data to one of filesystem, s3, azure and gcs before upgrading",
    keys={
        "username": Text(required=NO_START),
        "password": Text(required=NO_START, secret=True),
        "authurl": Text(required=NO_START),
        "tenant": Text(),
        "tenantid": Text(),
        "domain": Text(),
        "domainid": Text(),
        "tenantdomain": Text(),
        "tenantdomainid": Text(),
        "trustid": Text(),
        "region": Text(),
        "authversion": Whole(least=0, most=3),
        "container": Text(required=NO_START),
        "prefix": Text(),
        "endpointtype": Text(choices=("public", "internal", "admin")),
        "insecureskipverify": Flag(),
        "chunksize": Whole(least=_MIB, size=True, outside=NO_START),
        "secretkey": _SECRET,
        "accesskey": _SECRET,
        "tempurlcontainerkey": Flag(),
        "tempurlmethods": Items(),
    },
    hints={"rootdirectory": "the documentation lists it, the driver's key is prefix"},
)

_OSS = Section(
    until="3.0.0",
    instead="move the data to one of filesystem, s3, azure and gcs before upgrading",
    keys={
        "accesskeyid": Text(required=NO_START, secret=True),
        "accesskeysecret": Text(required=NO_START, secret=True),
        "region": Text(required=NO_START),
        "bucket": Text(required=NO_START),
        "endpoint": Text(),
        "internal": Flag(),
        "encrypt": Flag(),
        "secure": Flag(),
        "chunksize": Whole(least=5 * _MIB, size=True, outside=NO_START),
        "rootdirectory": Text(),
    },
)

_DRIVERS: dict[str, Node | tuple[Node, ...]] = {
    "filesystem": _FILESYSTEM,
    "inmemory": Section(),
    "s3": _S3,
    "s3aws": _S3,
    "azure": (_AZURE_2, _AZURE_3),
    "gcs": _GCS,
    "swift": _SWIFT,
    "oss": _OSS,
}

_CACHE_KIND = Text(choices=("inmemory", "redis"), otherwise="the cache would silently be off")
_STORAGE = Section(
    required=NO_START,
    null=NO_START,
    otherwise="",  # it takes the bare name of a driver, which leaves no room for delete and cache
    # A build of the registry may bring drivers of its own; we cannot know their parameters.
    others=Anything(),
    unknown=f"would take it for a storage driver: {NO_START}",
    keys={
        **_DRIVERS,
        "delete": Section(keys={"enabled": Flag(otherwise="deletion would silently be off")}),
        "redirect": Section(keys={"disable": Flag(required=NO_START)}, null=NO_START),
        "cache": Section(
            keys={
                "blobdescriptor": _CACHE_KIND,
                "layerinfo": _CACHE_KIND,
                "blobdescriptorsize": Whole(least=0, since="3.0.0", instead="remove it: 2.8 sets no limit"),
            }
        ),
        "maintenance": Section(
            keys={
                "uploadpurging": Section(
                    null=NO_START,
                    keys={
                        "enabled": Flag(otherwise="purging would be on"),
                        "age": Duration(text_only=True),
                        "interval": Duration(text_only=True),
                        "dryrun": Flag(),
                    },
                    rules=(_purge_is_complete,),
                ),
                "readonly": Section(keys={"enabled": Flag()}, null=NO_START),
            }
        ),
        "tag": Section(keys={"concurrencylimit": Whole(least=0, outside=NO_START)}, since="3.0.0"),
    },
    rules=(_one_driver,),
)

_TOKEN_ALGORITHMS = (
    "EdDSA",
    *(f"{family}{bits}" for family in ("HS", "RS", "ES", "PS") for bits in (256, 384, 512)),
)
_AUTH = Section(
    null=_OPEN,
    otherwise="",
    unknown=f"would take it for a method: {NO_START}",
    keys={
        "htpasswd": Section(
            keys={"realm": Text(required=NO_START), "path": Text(required=NO_START, empty=NO_START)}
        ),
        "token": Section(
            keys={
                "realm": Text(required=NO_START),
                "service": Text(required=NO_START),
                "issuer": Text(required=NO_START),
                "rootcertbundle": (Text(until="3.0.0", required=NO_START), Text(since="3.0.0")),
                "autoredirect": Flag(),
                "autoredirectpath": Text(since="3.0.0"),
                "signingalgorithms": Items(
                    of=Text(choices=_TOKEN_ALGORITHMS, otherwise=NO_START), since="3.0.0"
                ),
                "jwks": Text(since="3.0.0"),
            },
            rules=(_token_keys,),
        ),
        "silly": Section(keys={"realm": Text(required=NO_START), "service": Text(required=NO_START)}),
        "none": Section(),
    },
    rules=(_one_method,),
)

_MIDDLEWARE = Items(
    of=Section(
        keys={
            "name": Text(required=NO_START),
            "disabled": Flag(),
            "options": Section(others=Anything()),
        },
        rules=(_no_disabled_middleware,),
    )
)

_CIPHERS_12 = (
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
)
_CIPHERS_OLD = (
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
)
_CLIENT_AUTH = (
    "request-client-cert",
    "require-any-client-cert",
    "verify-client-cert-if-given",
    "require-and-verify-client-cert",
)

_TLS = Section(
    keys={
        "certificate": Text(),
        "key": Text(),
        "clientcas": Items(),
        "clientauth": Text(since="3.0.0", choices=_CLIENT_AUTH, otherwise=NO_START),
        "minimumtls": (
            Text(until="3.0.0", choices=("tls1.0", "tls1.1", "tls1.2", "tls1.3"), otherwise=NO_START),
            Text(since="3.0.0", choices=("tls1.2", "tls1.3"), otherwise=NO_START),
        ),
        "ciphersuites": (
            Items(of=Text(choices=(*_CIPHERS_12, *_CIPHERS_OLD), otherwise=NO_START), until="3.0.0"),
            Items(of=Text(choices=_CIPHERS_12, otherwise=NO_START), since="3.0.0"),
        ),
        "letsencrypt": Section(
            keys={
                "cachefile": Text(required=_PLAIN),
                "email": Text(),
                "hosts": Items(),
                "directoryurl": _url(since="3.0.0"),
            },
            rules=(_acme_works,),
        ),
    },
    rules=(_tls_is_on,),
)

_HTTP = Section(
    required=_RANDOM_PORT,
    null=_RANDOM_PORT,
    keys={
        "addr": Text(required=_RANDOM_PORT, empty=_RANDOM_PORT),
        "net": Text(choices=("tcp", "unix"), otherwise=NO_START),
        "host": _url(otherwise="it would silently be ignored"),
        "prefix": Text(
            pattern=r"/\S*", form="a path that begins with /", otherwise="nothing would be found there"
        ),
        "secret": Text(
            secret=True, empty="each start would make up another one, and uploads under way would fail"
        ),
        "relativeurls": Flag(),
        "draintimeout": Duration(),
        "tls": _TLS,
        "headers": _HEADERS,
        "debug": Section(
            keys={
                "addr": Text(),
                "prometheus": Section(
                    keys={"enabled": Flag(), "path": Text(pattern=r"/\S*", form="a path that begins with /")}
                ),
            }
        ),
        "http2": Section(keys={"disabled": Flag()}),
        "h2c": Section(keys={"enabled": Flag()}, since="3.0.0"),
    },
    rules=(_listen_address, _metrics_have_a_port),
)

_NOTIFICATIONS = Section(
    keys={
        "events": Section(keys={"includereferences": Flag()}),
        "endpoints": Items(
            of=Section(
                keys={
                    "name": Text(required="its log lines and figures could not be told apart"),
                    "disabled": Flag(),
                    "url": _url(required="its events would go nowhere", secret=True),
                    "headers": _HEADERS,
                    "timeout": Duration(),
                    "threshold": Whole(),
                    "backoff": Duration(),
                    "ignoredmediatypes": Items(),
                    "ignore": Section(keys={"mediatypes": Items(), "actions": Items()}),
                }
            )
        ),
    }
)

_REDIS_TIME = Duration(signed=True)  # -1ns is how to have no limit
_REDIS = Section(
    keys={
        "addr": _address(until="3.0.0", instead="use redis.addrs, a list", required=_NO_REDIS),
        "addrs": Items(of=_address(), since="3.0.0", required=_NO_REDIS, instead="use redis.addr"),
        "password": _SECRET,
        "db": Whole(least=0),
        "dialtimeout": _REDIS_TIME,
        "readtimeout": _REDIS_TIME,
        "writetimeout": _REDIS_TIME,
        "pool": Section(
            until="3.0.0",
            instead="use redis.maxidleconns, redis.poolsize and redis.connmaxidletime",
            keys={"maxidle": Whole(), "maxactive": Whole(), "idletimeout": Duration()},
        ),
        "username": Text(since="3.0.0"),
        "clientname": Text(since="3.0.0"),
        "protocol": Whole(since="3.0.0", least=2, most=3),
        "sentinelusername": Text(since="3.0.0"),
        "sentinelpassword": Text(since="3.0.0", secret=True),
        "mastername": Text(since="3.0.0"),
        "maxretries": Whole(since="3.0.0"),
        "minretrybackoff": Duration(since="3.0.0", signed=True),
        "maxretrybackoff": Duration(since="3.0.0", signed=True),
        "contexttimeoutenabled": Flag(since="3.0.0"),
        "poolfifo": Flag(since="3.0.0"),
        "poolsize": Whole(since="3.0.0", instead="use redis.pool.maxactive"),
        "pooltimeout": Duration(since="3.0.0", signed=True),
        "minidleconns": Whole(since="3.0.0"),
        "maxidleconns": Whole(since="3.0.0", instead="use redis.pool.maxidle"),
        "maxactiveconns": Whole(since="3.0.0"),
        "connmaxidletime": Duration(since="3.0.0", signed=True, instead="use redis.pool.idletimeout"),
        "connmaxlifetime": Duration(since="3.0.0", signed=True),
        "maxredirects": Whole(since="3.0.0"),
        "readonly": Flag(since="3.0.0"),
        "routebylatency": Flag(since="3.0.0"),
        "routerandomly": Flag(since="3.0.0"),
        "disableidentity": Flag(since="3.0.0"),
        "identitysuffix": Text(since="3.0.0"),
        "unstableresp3": Flag(since="3.0.0"),
        "tls": Section(
            since="3.0.0",
            keys={
                "certificate": Text(),
                "key": Text(),
                "clientcas": Items(until="3.1.0", instead="use redis.tls.rootcas"),
                "rootcas": Items(since="3.1.0", instead="use redis.tls.clientcas"),
            },
            hints={"enabled": "TLS is on when rootcas, or certificate and key, are given. Remove it"},
            rules=(_redis_tls_pair,),
        ),
    }
)

_HEALTH = Section(
    keys={
        "storagedriver": Section(keys={"enabled": Flag(), **_INTERVAL}),
        "file": Items(of=Section(keys={"file": Text(required=_UNCHECKED), **_INTERVAL})),
        "http": Items(
            of=Section(
                keys={
                    "uri": _url(required=_UNCHECKED, secret=True),
                    "headers": _HEADERS,
                    "statuscode": Whole(least=100, most=599),
                    "timeout": Duration(),
                    **_INTERVAL,
                }
            )
        ),
        "tcp": Items(
            of=Section(
                keys={
                    "addr": _address(required=_UNCHECKED),
                    "timeout": Duration(),
                    **_INTERVAL,
                }
            )
        ),
    },
    rules=(_distinct_checks,),
)

_PROXY = Section(
    keys={
        "remoteurl": _url(required="the registry would silently be no pull-through cache", secret=True),
        "username": Text(),
        "password": _SECRET,
        "exec": Section(
            since="3.0.0",
            keys={"command": Text(required="there would be no credentials"), "lifetime": Duration()},
        ),
        "ttl": Duration(since="3.0.0", instead="remove it: 2.8 always keeps content for 7 days"),
        "cachewritetimeout": Duration(since="3.1.0"),
    },
    rules=(_one_upstream_login,),
)

_VALIDATION = Section(
    keys={
        "enabled": Flag(),
        "disabled": Flag(),
        "manifests": Section(
            keys={
                "urls": Section(keys={"allow": Items(), "deny": Items()}),
                "indexes": Section(
                    since="3.0.0",
                    keys={
                        "platforms": Text(choices=("all", "none", "list"), any_case=True, otherwise=NO_START),
                        "platformlist": Items(of=Section(keys={"architecture": Text(), "os": Text()})),
                    },
                    rules=(_platforms_are_used,),
                ),
            }
        ),
    },
    rules=(_validation_switch,),
)

_REPORTING = Section(
    until="3.0.0",
    keys={
        "bugsnag": Section(keys={"apikey": _SECRET, "releasestage": Text(), "endpoint": Text()}),
        "newrelic": Section(keys={"licensekey": _SECRET, "name": Text(), "verbose": Flag()}),
    },
)

_COMPATIBILITY = Section(
    until="3.0.0",
    instead="remove it: images of schema 1 cannot be kept on 3.x",
    keys={"schema1": Section(keys={"signingkeyfile": Text(), "enabled": Flag()})},
)

SCHEMA = Section(
    keys={
        "version": Exactly(value="0.1", required=NO_START, otherwise=NO_START),
        "log": _LOG,
        "loglevel": _LOG_LEVEL,
        "storage": _STORAGE,
        "auth": _AUTH,
        "middleware": Section(
            keys={"registry": _MIDDLEWARE, "repository": _MIDDLEWARE, "storage": _MIDDLEWARE}
        ),
        "reporting": _REPORTING,
        "http": _HTTP,
        "notifications": _NOTIFICATIONS,
        "redis": _REDIS,
        "health": _HEALTH,
        "catalog": Section(
            keys={"maxentries": Whole(least=1, outside="the registry would use 1000")}, since="2.8.2"
        ),
        "tags": Section(keys={"maxtags": Whole(least=0, outside=NO_START)}, since="3.1.0"),
        "proxy": _PROXY,
        "compatibility": _COMPATIBILITY,
        "validation": _VALIDATION,
        "policy": Section(keys={"repository": Section(keys={"classes": Items()})}),
    },
    rules=(_redis_cache_has_redis, _cache_can_expire),
)
