"""The certificate of a listener: checked before anything is served with it, and looked at again when it is renewed.

Knows certificate files and OpenSSL's contexts. Refuses to know connections: whoever accepts one asks for the
context of the moment, and connections that are there keep the one they began with.
"""

from __future__ import annotations

import logging
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

log = logging.getLogger(__name__)

# In the order of our preference; HTTP/1.1 also for clients that name none. Whoever speaks both moves a layer four times
# as fast by it, at a quarter of the CPU: frames of HTTP/2 are made and taken apart one by one, in Python.
_ALPN: Final = ["http/1.1", "h2"]
_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
# For TLS 1.2; those of 1.3 are all good. Every engine since 2014 has one of them.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


class BadCertificate(Exception):
    """The files cannot serve; str(error) is a sentence about which one and why. The operator's to fix."""


@dataclass(frozen=True, slots=True)
class Files:
    """Where certificate (with its chain) and private key lie, both PEM."""

    cert: Path
    key: Path


@final
class Certificate:
    """The newest certificate that works. `context` is for the next connection.

    Raises:
        BadCertificate: there is none to begin with.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._seen = _state(files)
        self.context = load(files)

    def refresh(self) -> None:
        """Load the files if they are others than last time; those that do not work change nothing but the log."""
        seen = _state(self._files)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self.context = load(self._files)
        except BadCertificate as error:
            log.error("%s. The certificate from before stays in use.", error)  # noqa: TRY400 - it is a sentence
        else:
            log.info("the certificate was renewed from %s", self._files.cert)


def load(files: Files) -> ssl.SSLContext:
    """Make a server's context.

    Raises:
        BadCertificate: a file is missing, unreadable or no PEM, or key and certificate do not belong together.
    """
    found: list[bytes] = []
    for file in (files.cert, files.key):
        try:
            found.append(file.read_bytes())
        except OSError as error:
            remedy = "name the certificate and its key as PEM files that this user can read"
            raise BadCertificate(f"cannot read {file}: {error.strerror}; {remedy}") from error
    if b"PRIVATE KEY-----" in found[0] and _CERTIFICATE in found[1] and _CERTIFICATE not in found[0]:
        raise BadCertificate(f"{files.cert} is a key and {files.key} a certificate: exchange the two")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(_ALPN)
    try:
        context.load_cert_chain(files.cert, files.key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise BadCertificate(f"{files.cert} and {files.key} cannot be used: {_reason(error)}") from error
    return context


def complaint(files: Files) -> str | None:
    """Say what clients will find wrong with a certificate that loads, such as that it has expired."""
    server, client = load(files), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # this certificate is believed; its dates still count
    client.load_verify_locations(files.cert)
    hello, answer = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours, theirs = server.wrap_bio(hello, answer, server_side=True), client.wrap_bio(answer, hello)
    for speaker in (theirs, ours, theirs):
        try:
            speaker.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            return f"clients will refuse {files.cert}: {error.verify_message}"
    return None


def _state(files: Files) -> tuple[tuple[int, ...] | None, ...]:
    """Return what changes when a file is written or replaced; links are followed."""
    return tuple(_stamp(file) for file in (files.cert, files.key))


def _stamp(file: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(file)  # noqa: PTH116 - beside its fields, this is all there is to it
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _no_password() -> str:
    raise ValueError("the key is encrypted; give one without a passphrase, readable by this user alone")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the key belongs to another certificate"
        return f"not a PEM certificate with its private key ({error.reason or error.args[-1]})"
    return str(error)
