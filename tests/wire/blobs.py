"""Small applications over a real store, and readers that fail, for tests of what carries a blob."""

from __future__ import annotations

import datetime as dt
import random
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from api.loan import EXTENSION as LOAN
from api.receiving import BodyTooLarge, receive_into
from api.streaming import BlobResponse
from api.threads import Threads
from cas import Damaged, Digest, FileRange, Name, Names, Reader, Record, Store

MIB = 1 << 20


def keep(store: Store, data: bytes) -> Digest:
    """Store a blob under its own digest's name."""
    with store.upload() as upload:
        upload.write(data)
        staged = upload.finish()

        def edit(names: Names) -> Digest:
            names.keep(staged)
            names.put(Name("test", staged.digest.hex), Record(b"{}", (staged.digest,)))
            return staged.digest

        return store.change(edit)


def application(store: Store, threads: Threads, limit_bytes: int | None = None) -> Starlette:
    """PUT / keeps a body and answers with its digest; GET /<digest>/<start>/<stop> answers with a range."""

    async def put(request: Request) -> Response:
        with store.upload() as upload:
            try:
                staged = await receive_into(
                    request.receive,
                    lambda: upload,
                    limit_bytes=limit_bytes,
                    run=threads.run,
                    announced_bytes=int(request.headers["content-length"])
                    if "content-length" in request.headers
                    else None,
                    lend=request.scope["extensions"].get(LOAN),
                    then=lambda _: upload.finish(),
                )
            except BodyTooLarge as error:
                return PlainTextResponse(str(error), 413)

            def edit(names: Names) -> None:
                names.keep(staged)
                names.put(Name("test", staged.digest.hex), Record(b"{}", (staged.digest,)))

            await threads.run(store.change, edit)
        return PlainTextResponse(str(staged.digest))

    async def get(request: Request) -> BlobResponse:
        reader = await threads.run(store.reader, Digest.parse(request.path_params["digest"]))
        start, stop = request.path_params["start"], request.path_params["stop"]
        return BlobResponse(reader, threads, status=206, headers={"X-Test": "1"}, start=start, stop=stop)

    return Starlette(routes=[Route("/", put, methods=["PUT"]), Route("/{digest}/{start:int}/{stop:int}", get)])


def mixed(size: int) -> bytes:
    """Bytes of which some compress, so that they come out as files and as decoded pieces."""
    some = random.Random(size)
    return b"".join(some.randbytes(65_536) if at % 3 else b"all the same " * 5041 for at in range(size // 65_536 + 1))[
        :size
    ]


class Faulty:
    """A reader of which some pieces are good, and then there is an error."""

    digest = Digest.of(b"")
    size = 1000

    def __init__(self, good: list[FileRange | bytes], error: Exception | None) -> None:
        self._good, self._error = good, error
        self.closed = threading.Event()

    def plan(self, start: int = 0, stop: int | None = None) -> Iterator[FileRange | bytes]:
        yield from self._good
        if self._error is not None:
            raise self._error

    def ends_early(self, fd: int, missing: int, /) -> Damaged:
        return Damaged(f"a pack ends {missing} bytes early")

    def close(self) -> None:
        self.closed.set()


def responding(threads: Threads, make: Callable[[], Faulty]) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await BlobResponse(cast("Reader", make()), threads)(scope, receive, send)

    return app


def damaged(threads: Threads) -> Any:
    return responding(threads, lambda: Faulty([b"x" * 100], Damaged("a chunk is damaged")))


def self_signed(tmp_path: Path) -> ssl.SSLContext:
    """Make a server's context with a certificate of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = tmp_path / "both.pem"
    file.write_bytes(pem + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def trusting() -> ssl.SSLContext:
    """Make a client's context that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
