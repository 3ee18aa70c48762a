# Copyright (c) 2026 Dockyard maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a certificate and key that somebody brings.

Private to the collection: no stable interface. For the control machine: needs the library cryptography, which
ansible-core brings.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def find_problems(certificate: bytes, key: bytes, name: str, now: datetime | None = None) -> list[str]:
    """Messages that each say what to do; empty where a server for `name` (host name or address) can use these.

    `certificate` is the server's certificate, its chain behind it, and `key` its key, without a passphrase; both in
    PEM format.
    """
    from cryptography import x509

    try:
        chain = [x509.load_pem_x509_certificate(block) for block in _BLOCK.findall(certificate)]
    except ValueError as error:
        return [f"certificate: it is damaged ({error})"]
    if not chain:
        return ["certificate: there is none in PEM format in the file (-----BEGIN CERTIFICATE-----)"]
    problems = [*_time_problems(chain, now or datetime.now(timezone.utc)), *_name_problems(chain[0], name)]
    return [*_key_problems(chain, key), *problems]


def _key_problems(chain: list[x509.Certificate], key: bytes) -> list[str]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    def public(certificate: x509.Certificate) -> bytes:
        return certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    try:
        own = serialization.load_pem_private_key(key, password=None).public_key()
    except TypeError:
        return ["key: it has a passphrase, and the server cannot ask for it; give it without"]
    except (ValueError, UnsupportedAlgorithm):
        return ["key: there is none in PEM format in the file (-----BEGIN PRIVATE KEY-----)"]
    wanted = own.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if public(chain[0]) == wanted:
        return []
    if wanted in map(public, chain[1:]):
        return ["certificate: the server's own must come first in the file, its chain behind it"]
    return ["key: it does not belong to the certificate; were the files of two servers or renewals mixed up?"]


def _time_problems(chain: list[x509.Certificate], now: datetime) -> list[str]:
    problems = []
    for certificate in chain:
        what = "certificate" if certificate is chain[0] else "a certificate of the chain"
        begin, end = _times(certificate)
        if now > end:
            problems.append(f"{what}: it expired on {end:%Y-%m-%d %H:%M} UTC")
        if now < begin:
            problems.append(f"{what}: it is not valid until {begin:%Y-%m-%d %H:%M} UTC; is the clock right?")
    return problems


def _times(certificate: x509.Certificate) -> tuple[datetime, datetime]:
    try:
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except AttributeError:  # cryptography before 42
        begin, end = certificate.not_valid_before, certificate.not_valid_after
        return begin.replace(tzinfo=timezone.utc), end.replace(tzinfo=timezone.utc)


def _name_problems(certificate: x509.Certificate, name: str) -> list[str]:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ["certificate: it names no host (subjectAltName), and clients no longer read the common name"]
    hosts = names.get_values_for_type(x509.DNSName)
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    try:
        covered = str(ipaddress.ip_address(name)) in addresses
    except ValueError:
        covered = any(_covers(host.lower(), name.lower()) for host in hosts)
    if covered:
        return []
    return [f"certificate: it is for {', '.join([*hosts, *addresses]) or 'nobody'}, not for {name}"]


def _covers(pattern: str, name: str) -> bool:
    if pattern.startswith("*."):
        label, _dot, parent = name.partition(".")
        return bool(label) and parent == pattern[2:]
    return pattern == name
