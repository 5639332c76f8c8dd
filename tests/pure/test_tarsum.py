"""Tarsums and payload checksums agree with the published vectors, and with a second implementation."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import random
import tarfile
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.v1.archive import entries
from api.v1.image import EMPTY_LAYER, EMPTY_LAYER_DIGEST
from api.v1.tarsum import Form, header_text, payload_checksum, payload_hash, tarsum
from api.v1.unpack import TooMuch, Unpacked, Unreadable

ONE, TWO = "1" * 64, "2" * 64
JSON_1 = b'{"id":"%s"}' % ONE.encode()
JSON_2 = b'{"id":"%s","parent":"%s"}' % (TWO.encode(), ONE.encode())
V0, V1, DEV = Form("tarsum", "sha256"), Form("tarsum.v1", "sha256"), Form("tarsum.dev", "sha256")
LIMITS = {"limit_bytes": 1 << 26, "limit_entries": 10_000}


def member(name: str = "a.txt", data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def archive(
    members: Iterable[tuple[tarfile.TarInfo, bytes]],
    tar_format: int = tarfile.PAX_FORMAT,
    *,
    closed: bool = True,
) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
        end = tar.offset
    return out.getvalue() if closed else out.getvalue()[:end]


def compute(form: Form, json: bytes, layer: bytes, block: int = 1 << 16) -> str:
    blocks = (layer[at : at + block] for at in range(0, len(layer), block))
    return tarsum(form, json, blocks, **LIMITS)


HELLO = archive([member("a.txt", b"hello")])


@pytest.mark.parametrize(
    ("json", "layer", "hex_digest"),
    [
        (b"", b"", "01ba4719c80b6fe911b091a7c05124b64eeece964e09c058ef8f9805daca546b"),
        (b"test", b"", "f2ca1bb6c7e907d06dafe4687e579fce76b37e4e93b7605022da52e6ccc26fd2"),
        (JSON_1, EMPTY_LAYER, "868d8f8db3be4ff25b87cb3681c2d2ae1fcbc11181b7e7ba489cb4eb0902f63e"),
    ],
)
def test_a_payload_checksum_covers_json_newline_and_layer(json: bytes, layer: bytes, hex_digest: str) -> None:
    """The published vectors."""
    running = payload_hash(json)
    running.update(layer)
    assert payload_checksum(running) == f"sha256:{hex_digest}"


def test_the_empty_layer_is_the_one_everybody_knows() -> None:
    """32 bytes that unpack to 1024 zeros."""
    assert len(EMPTY_LAYER) == 32
    assert gzip.decompress(EMPTY_LAYER) == bytes(1024)
    assert str(EMPTY_LAYER_DIGEST) == "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"


def test_the_vector_of_one_file_version_0() -> None:
    """Header text, file digest and result as published."""
    [(entry, _)] = [(entry, list(data)) for entry, data in entries(Unpacked([HELLO], 1 << 20))]
    text = b"".join(header_text(V0, entry))
    assert text == (b"namea.txtmode420uid0gid0size5mtime0typeflag0linknameunamegnamedevmajor0devminor0")
    digest = hashlib.sha256(text + b"hello").hexdigest()
    assert digest == "d7eb0202b447ab1d395d33aefc012042322e39a56fc8f224aed0050a9fec0bf6"
    assert compute(V0, JSON_2, HELLO) == (
        "tarsum+sha256:f13f62cdd0dc7298465ea787799ce32dd228f3cabeb0702c0d9f79db3862dadf"
    )


def test_the_vector_of_one_file_version_1() -> None:
    """The same without the time; `dev` has the same rules under another name."""
    hex_digest = "7295452fbb9cb67312545d6d000c7dfa13de5728b7c9d89409dc47dc1d4be821"
    assert compute(V1, JSON_2, HELLO) == f"tarsum.v1+sha256:{hex_digest}"
    assert compute(DEV, JSON_2, HELLO) == f"tarsum.dev+sha256:{hex_digest}"


@pytest.mark.parametrize("layer", [b"", bytes(1024), EMPTY_LAYER, gzip.compress(b"", mtime=0)])
def test_an_archive_without_entries_sums_to_its_json(layer: bytes) -> None:
    """With no newline added: that belongs to the other checksum."""
    assert compute(V0, JSON_1, layer) == (
        "tarsum+sha256:7891074668b152866feac25babde8fac1ca5b8b8cb5609ee91882c727722a8c0"
    )


def test_compression_and_closing_zeros_make_no_difference() -> None:
    """Engines up to 1.2 leave the closing zeros away; era A packs with xz."""
    bare = archive([member("a.txt", b"hello")], closed=False)
    variants = [HELLO, bare, *(pack(HELLO) for pack in (gzip.compress, bz2.compress, lzma.compress))]
    assert len({compute(V0, JSON_2, layer) for layer in variants}) == 1


def test_a_directory_keeps_its_slash_and_a_name_its_dots() -> None:
    """The standard library's reader strips the one; engines never did."""
    layer = archive([member("./etc/", type=tarfile.DIRTYPE, mode=0o755)])
    [entry] = [entry for entry, _ in entries(Unpacked([layer], 1 << 20))]
    assert (entry.name, entry.type, entry.mode) == (b"./etc/", b"5", 0o755)


def test_all_mode_bits_and_the_raw_type_count() -> None:
    """33188 for a writer that adds the file type; a NUL type stays NUL."""
    header = bytearray(archive([member("f", mode=0o100644)], tarfile.USTAR_FORMAT)[:512])
    # tarfile masks the mode on writing, so it is put in by hand.
    header[100:108] = b"0100644\0"
    header[156] = 0
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    [entry] = [entry for entry, _ in entries(Unpacked([bytes(header)], 1 << 20))]
    text = b"".join(header_text(V0, entry))
    assert b"mode33188" in text
    assert b"typeflag\0linkname" in text


def test_xattrs_count_in_version_1_only_sorted_and_raw() -> None:
    """Names lose their PAX prefix; values may be any bytes."""
    one = member("f", pax_headers={"SCHILY.xattr.user.b": "2", "SCHILY.xattr.user.a": "1"})
    layer = archive([one])
    [entry] = [entry for entry, _ in entries(Unpacked([layer], 1 << 20))]
    assert b"".join(header_text(V1, entry)).endswith(b"devminor0user.a1user.b2")
    assert b"user.a" not in b"".join(header_text(V0, entry))
    assert compute(V0, b"", layer) == compute(V0, b"", archive([member("f")]))


def test_fractions_of_a_second_are_dropped() -> None:
    """PAX times are decimal; the checksum knows whole seconds."""
    layer = archive([member("f", mtime=1234.75)])
    [entry] = [entry for entry, _ in entries(Unpacked([layer], 1 << 20))]
    assert entry.mtime == 1234


def test_entries_of_one_path_stay_in_archive_order() -> None:
    """Whatever their digests: the last one is the file."""
    # Chosen so that the later digest is the smaller one.
    first, second = b"0", b"1"
    digests = [
        hashlib.sha256(b"".join(header_text(V0, entry)) + b"".join(data)).hexdigest()
        for layer in (archive([member("f", first)]), archive([member("f", second)]))
        for entry, data in entries(Unpacked([layer], 1 << 20))
    ]
    if digests[0] < digests[1]:
        first, second, digests = second, first, digests[::-1]
    layer = archive([member("./f", first), member("f", second)])
    sums = [
        hashlib.sha256(b"".join(header_text(V0, entry)) + b"".join(data)).hexdigest()
        for entry, data in entries(Unpacked([layer], 1 << 20))
    ]
    assert compute(V0, b"", layer) == "tarsum+sha256:" + hashlib.sha256("".join(sums).encode()).hexdigest()


def test_distinct_paths_are_sorted_by_digest_so_their_order_does_not_matter() -> None:
    """Directory listings come in any order."""
    members = [member(f"file{n}", b"%d" % n) for n in range(20)]
    shuffled = random.Random(1).sample(members, len(members))
    assert compute(V0, b"", archive(members)) == compute(V0, b"", archive(shuffled))


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("tarsum+sha256:00", V0),
        ("tarsum.v1+sha256:00", V1),
        ("tarsum.dev+sha512:00", Form("tarsum.dev", "sha512")),
        ("tarsum.v2+sha256:00", None),
        ("tarsum+md5:00", None),
        ("tarsum+sha256:", None),
        ("tarsum+sha256:0G", None),
        ("sha256:00", None),
        ("tarsum+sha256:00\n", None),
    ],
)
def test_only_known_forms_are_read(text: str, form: Form | None) -> None:
    """An unknown version cannot be verified, so it matches nothing."""
    assert Form.of(text) == form


def test_sha512_is_used_for_entries_and_result() -> None:
    """The form names one hash for both."""
    [(entry, data)] = [(entry, b"".join(data)) for entry, data in entries(Unpacked([HELLO], 1 << 20))]
    digest = hashlib.sha512(b"".join(header_text(V0, entry)) + data).hexdigest()
    expected = hashlib.sha512(b"json" + digest.encode()).hexdigest()
    assert compute(Form("tarsum", "sha512"), b"json", HELLO) == f"tarsum+sha512:{expected}"


# --- a second opinion: the standard library reads the archive and the rules are applied to what it says -----


def expected_tarsum(json: bytes, layer: bytes) -> str:
    sums = []
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        for info in tar:
            name = info.name + ("/" if info.isdir() else "")
            fields = f"name{name}mode{info.mode}uid{info.uid}gid{info.gid}size{info.size}"
            fields += f"mtime{int(info.mtime)}typeflag{info.type.decode()}linkname{info.linkname}"
            fields += f"uname{info.uname}gname{info.gname}devmajor{info.devmajor}devminor{info.devminor}"
            file = tar.extractfile(info) if info.isreg() else None
            data = file.read() if file else b""
            sums.append(hashlib.sha256(fields.encode() + data).hexdigest())
    return "tarsum+sha256:" + hashlib.sha256(json + "".join(sorted(sums)).encode()).hexdigest()


NAMES = st.text("abcdefghij/._-é漢", min_size=1, max_size=300).filter(
    lambda name: not name.endswith("/") and name.strip("./") != "" and "//" not in name
)


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    names = draw(st.lists(NAMES, max_size=6, unique_by=lambda name: name.strip("./").replace("./", "")))
    members = []
    for name in names:
        kind = draw(st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE]))
        data = draw(st.binary(max_size=2000)) if kind == tarfile.REGTYPE else b""
        fields = {
            "type": kind,
            "mode": draw(st.integers(0, 0o7777)),
            "uid": draw(st.sampled_from([0, 1000, 2_000_000, 3_000_000_000])),
            "mtime": draw(st.integers(0, 2**33)),
            "uname": draw(st.sampled_from(["", "root", "ünï"])),
        }
        if kind == tarfile.SYMTYPE:
            fields["linkname"] = draw(NAMES)
        if kind == tarfile.CHRTYPE:
            fields |= {"devmajor": draw(st.integers(0, 255)), "devminor": draw(st.integers(0, 255))}
        members.append(member(name, data, **fields))
    return archive(members, draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])))


@given(archives(), st.integers(1, 4096))
@example(archive([member("l" * 200, type=tarfile.SYMTYPE, linkname="t" * 200)], tarfile.GNU_FORMAT), 512)
@example(archive([member("d" * 150 + "/", type=tarfile.DIRTYPE)], tarfile.USTAR_FORMAT), 512)
def test_any_archive_sums_as_the_standard_library_reads_it(layer: bytes, block: int) -> None:
    """Long names, big numbers and odd texts, in PAX and GNU spelling, in any split."""
    assert compute(V0, b"{}", layer, block) == expected_tarsum(b"{}", layer)


# --- hostile archives -------------------------------------------------------------------------------------


def signed(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def one_header(**fields: bytes) -> bytes:
    """A header with raw fields, and a right checksum."""
    places = {"size": 124, "type": 156, "mtime": 136, "uid": 108}
    header = bytearray(HELLO[:512])
    for field, raw in fields.items():
        header[places[field] : places[field] + len(raw)] = raw
    return signed(header)


def test_a_huge_name_extension_is_refused_before_it_is_read() -> None:
    """8 GiB announced as a long name must not be gathered in memory."""
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        yield one_header(type=b"L", size=b"77777777777\0")
        while True:
            taken += 1
            yield bytes(1 << 16)

    with pytest.raises(Unreadable):
        list(entries(Unpacked(endless(), 1 << 40)))
    assert taken == 0


@pytest.mark.parametrize(
    "layer",
    [
        b"this is not a tar archive at all",
        b"x" * 512,
        HELLO[:300],
        HELLO[:514],
        one_header(size=b"9999999\0"),
        one_header(size=b"\xff" * 12),
        one_header(uid=b"no digit"),
        one_header(type=b"x", size=b"00000000005\0") + b"hello" + bytes(507),
        one_header(type=b"x", size=b"00000000012\0") + b"99 path=ab\n" + bytes(501),
        one_header(type=b"x", size=b"00000000014\0") + b"12 mtime=ab\n" + bytes(500) + HELLO,
    ],
)
def test_what_is_no_archive_is_unreadable(layer: bytes) -> None:
    """Said in one way, whatever is wrong."""
    with pytest.raises(Unreadable):
        compute(V0, b"", layer)


@given(st.binary(max_size=3000), st.binary(max_size=40), st.integers(0, 1000))
def test_garbage_is_refused_or_read_and_nothing_else(tail: bytes, patch: bytes, at: int) -> None:
    """No other exception comes out of a damaged archive."""
    layer = bytearray(HELLO + tail)
    layer[at : at + len(patch)] = patch
    with contextlib.suppress(Unreadable):
        compute(V0, b"", bytes(layer))


def test_too_many_entries_end_the_reading() -> None:
    """Their digests are held in memory, so there is a limit."""
    layer = archive([member(f"f{n}") for n in range(20)])
    with pytest.raises(TooMuch):
        tarsum(V0, b"", [layer], limit_bytes=1 << 20, limit_entries=19)
    tarsum(V0, b"", [layer], limit_bytes=1 << 20, limit_entries=20)


def test_an_old_writers_signed_checksum_is_right_too() -> None:
    """Some summed the header as signed bytes."""
    header = bytearray(archive([member("é", b"")], tarfile.GNU_FORMAT)[:512])
    header[148:156] = b" " * 8
    total = sum(byte - 256 if byte > 127 else byte for byte in header)
    header[148:156] = b"%06o\0 " % total
    [entry] = [entry for entry, _ in entries(Unpacked([bytes(header)], 1 << 20))]
    assert entry.name == "é".encode()


def test_a_star_or_ustar_prefix_is_part_of_the_name() -> None:
    """Names of more than 100 bytes, as they were before PAX."""
    long = "d" * 80 + "/" + "e" * 80
    layer = archive([member(long)], tarfile.USTAR_FORMAT)
    [entry] = [entry for entry, _ in entries(Unpacked([layer], 1 << 20))]
    assert entry.name == long.encode()
    star = bytearray(layer[:512])
    star[500:512] = b"\0" * 8 + b"tar\0"
    [entry] = [entry for entry, _ in entries(Unpacked([signed(star)], 1 << 20))]
    assert entry.name == long.encode()


def test_links_carry_no_data_whatever_size_they_state() -> None:
    """Some writers repeat the target's size in a hard link."""
    link = bytearray(archive([member("l", type=tarfile.LNKTYPE, linkname="a.txt")])[:512])
    link[124:136] = b"00000000005\0"
    names = [entry.name for entry, _ in entries(Unpacked([signed(link) + HELLO], 1 << 20))]
    assert names == [b"l", b"a.txt"]


def test_global_records_and_sparse_maps_are_passed_over() -> None:
    """They are no entries, and their blocks are no data."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}) as tar:
        tar.addfile(*((info := member("a.txt", b"hello"))[0], io.BytesIO(info[1])))
    assert compute(V0, b"", out.getvalue()) == compute(V0, b"", HELLO)
    sparse = bytearray(one_header(type=b"S"))
    sparse[257:265] = b"ustar  \0"
    sparse[482] = 1
    more = bytearray(512)
    layer = signed(sparse) + bytes(more) + b"hello" + bytes(507) + HELLO
    names = [(entry.name, b"".join(data)) for entry, data in entries(Unpacked([layer], 1 << 20))]
    assert names == [(b"a.txt", b"hello"), (b"a.txt", b"hello")]
    with pytest.raises(Unreadable):
        compute(V0, b"", signed(sparse) + bytes(100))
