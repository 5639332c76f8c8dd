"""The pages of the index, read without LMDB, which believes whatever it finds there.

A damaged page ends a process by a signal, sends a look-up past what is there, or lets the next commit overwrite what is
in use.

Layer: L0, pure: whoever calls reads pages and sees to it that nobody changes them meanwhile. Knows the file format of
LMDB 0.9 on 64 bits (mdb.c: MDB_meta, MDB_page, MDB_node): two meta pages, of which each commit writes the older; trees
of branch and leaf pages; runs of overflow pages; and a tree of free pages. Pages that belong to nothing are no damage.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_PAGE = struct.Struct("<QHHHH")  # number, pad, flags, lower, upper; of an overflow page the last two are a count
_META = struct.Struct("<IIQQ48s48sQQ")  # magic, version, address, map size, free tree, main tree, last page, number
_TREE = struct.Struct("<IHHQQQQQ")  # pad, flags, depth, branch, leaf and overflow pages, entries, root
_NODE = struct.Struct("<HHHH")  # low, high, flags, length of the key
_NUMBER = struct.Struct("<Q")
_MAGIC: Final = 0xBEEFC0DE
_VERSION: Final = 1
META_BYTES: Final = _PAGE.size + _META.size
PAGE_BYTES: Final = 4096  # before it is known
_NONE: Final = (1 << 64) - 1  # the root of an empty tree
_BRANCH, _LEAF, _OVERFLOW, _META_PAGE = 1, 2, 4, 8
_WITHIN, _DIRTY = 0x40, 0x10  # of a page within a node; what was in memory stays set there
_BIG, _SUBTREE, _SEVERAL = 1, 2, 4  # flags of a node
_SEVERAL_EACH, _BY_NUMBER = 4, 8  # flags of a tree: a key may have several values; keys are numbers, in their own order
_MOST_DEPTH: Final = 32  # LMDB's own bound


class Broken(Exception):
    """Something of the file cannot be believed."""


class Tree(NamedTuple):
    """What says where a tree is and how large."""

    pad: int
    flags: int
    depth: int
    branches: int
    leaves: int
    overflows: int
    entries: int
    root: int


class _Kind(NamedTuple):
    """What is fixed about a tree by what it is for. LMDB believes what the file says of it, and we need no more."""

    flags: int
    nodes: tuple[int, ...]  # flags that the nodes of its leaves may have


_FREE: Final = _Kind(_BY_NUMBER, (0, _BIG))
_MAIN: Final = _Kind(0, (_SUBTREE,))
_ONE_VALUE: Final = _Kind(0, (0, _BIG))
_VALUES: Final = _Kind(_SEVERAL_EACH, (0, _SEVERAL, _SEVERAL | _SUBTREE))
_OF_ONE_KEY: Final = _Kind(0, (0,))  # the values of one, when they are many


@dataclass(frozen=True, slots=True)
class Meta:
    """One meta page: the state of everything after one commit."""

    number: int
    last_page: int
    page_bytes: int
    free: Tree
    main: Tree


def read_meta(data: bytes, slot: int) -> Meta:
    """Read the first bytes of a meta page.

    Raises:
        Broken: it is none.
    """
    if len(data) < META_BYTES:
        raise Broken(f"meta page {slot} is cut short")
    page, _, flags, _, _ = _PAGE.unpack_from(data)
    magic, version, _, _, free, main, last, number = _META.unpack_from(data, _PAGE.size)
    if (page, flags, magic, version) != (slot, _META_PAGE, _MAGIC, _VERSION):
        raise Broken(f"meta page {slot} is not one")
    tree = Tree(*_TREE.unpack(free))
    if tree.pad < 512 or tree.pad & (tree.pad - 1):  # noqa: PLR2004 - the least that LMDB takes
        raise Broken(f"meta page {slot} tells of pages of {tree.pad} bytes")
    return Meta(number, last, tree.pad, tree, Tree(*_TREE.unpack(main)))


def check_metas(first: Meta, second: Meta, read: Callable[[int, int], bytes]) -> None:
    """Hold the meta pages against each other: commits write them in turns, each with the next number.

    They have no checksum, so each number is held against the tree of free pages, too: under its own number each commit
    enters there what it left behind, if only the root of before.

    Args:
        first, second: the meta pages.
        read: as for `verify`.

    Raises:
        Broken: one of them was changed by somebody else, so the newer one may not be the newest state.
    """
    for meta in (first, second):
        _check_flags(meta.free, "free pages", _FREE)
        _check_flags(meta.main, "the tables", _MAIN)
    numbers = (first.number, second.number)
    if numbers == (0, 0):
        return
    if abs(first.number - second.number) != 1 or first.number % 2 or not second.number % 2:
        raise Broken(f"the meta pages are of commits {numbers[0]} and {numbers[1]}, which do not follow each other")
    if first.page_bytes != second.page_bytes:
        raise Broken("the meta pages tell of pages of different sizes")
    for meta in (first, second):
        if meta.free.root != _NONE and (last := _last_freed(meta, read)) != meta.number:
            raise Broken(f"a meta page is of commit {meta.number}, and what it leads to is of commit {last}")


def _check_flags(tree: Tree, what: str, kind: _Kind) -> None:
    if tree.flags != kind.flags:
        raise Broken(f"{what}: the flags of the tree are {tree.flags:#x}, and must be {kind.flags:#x}")


def _last_freed(meta: Meta, read: Callable[[int, int], bytes]) -> int:
    """Return the highest key of the tree of free pages: its last one, on its last page."""
    what, number = "free pages", meta.free.root
    for level in range(min(meta.free.depth, _MOST_DEPTH), 0, -1):
        data = read(number, 1) if number <= meta.last_page else b""
        _, _, _, lower, upper = _header(data, what, number)
        nodes = _nodes(data, lower, upper, what)
        if not nodes:
            break
        at, key = nodes[-1]
        if level == 1 and len(key) == _NUMBER.size:
            return int(_NUMBER.unpack(key)[0])
        number = _child(data, at)
    raise Broken("the list of free pages is damaged")


def _child(data: bytes, at: int) -> int:
    low, high, flags, _ = _NODE.unpack_from(data, at)
    return int(low | high << 16 | flags << 32)


def verify(meta: Meta, read: Callable[[int, int], bytes], tables: Mapping[str, bool]) -> None:
    """Walk all trees of one state, and hold against each other which pages they use and which are free.

    Args:
        meta: of that state; nobody may use its pages anew meanwhile.
        read: returns so many pages from a page on; fewer bytes where the file ends.
        tables: name → whether a key may have several (sorted) values; of these some may not have been made yet.

    Raises:
        Broken: with what is wrong.
    """
    walk = _Walk(meta, read, tables)
    free: list[int] = []
    for key, value in walk.tree(meta.free, "free pages", _FREE):
        if len(key) != _NUMBER.size or len(value) < _NUMBER.size:
            raise Broken("the list of free pages is damaged")
        (count,) = _NUMBER.unpack_from(value)
        if count > len(value) // _NUMBER.size - 1:
            raise Broken("the list of free pages is damaged")
        free += struct.unpack_from(f"<{count}Q", value, _NUMBER.size)
    for _ in walk.tree(meta.main, "the tables", _MAIN):
        pass
    for page in free:
        walk.use(page, "free pages")


def check_tables(meta: Meta, read: Callable[[int, int], bytes], tables: Mapping[str, bool]) -> None:
    """Look at what is said of each table, and at none of their pages.

    Args:
        meta, read, tables: as for `verify`.

    Raises:
        Broken: with what is wrong.
    """
    walk = _Walk(meta, read, tables)
    for key, value in walk.entries(meta.main, "the tables", _MAIN):
        if isinstance(value, Tree):
            _check_flags(value, *walk.below(key, "the tables", _MAIN))


class _Bounds(NamedTuple):
    """The keys that a page may have: from one on, and below another if there is one."""

    low: bytes
    high: bytes | None


class _Walk:
    """Which pages were met so far, and how to meet the rest."""

    def __init__(self, meta: Meta, read: Callable[[int, int], bytes], tables: Mapping[str, bool]) -> None:
        self._meta, self._read, self._tables = meta, read, tables
        self._used = bytearray(2)  # a byte a page: 0 where nobody uses it
        self._used[:] = b"\1\1"

    def use(self, page: int, what: str, count: int = 1) -> None:
        """Take note that pages are used, by one thing."""
        if page < 0 or page + count - 1 > self._meta.last_page:
            raise Broken(f"{what}: page {page} is beyond the last one, {self._meta.last_page}")
        if page + count > len(self._used):
            self._used.extend(bytes(page + count - len(self._used)))
        if any(self._used[page : page + count]):
            raise Broken(f"{what}: page {page} is used twice")
        self._used[page : page + count] = b"\1" * count

    def tree(self, tree: Tree, what: str, kind: _Kind) -> Iterator[tuple[bytes, bytes]]:
        """Yield the entries of a tree, and of those of its entries that are trees nothing: these are walked."""
        for key, value in self.entries(tree, what, kind):
            if isinstance(value, bytes):
                yield key, value
            elif isinstance(value, Tree):
                for _ in self.tree(value, *self.below(key, what, kind)):
                    pass

    def entries(self, tree: Tree, what: str, kind: _Kind) -> Iterator[tuple[bytes, bytes | Tree | int]]:
        """Yield a tree's keys, each with its value, the tree that it stands for, or how many values it has."""
        _check_flags(tree, what, kind)
        if (tree.root == _NONE) != (tree.depth == 0) or tree.depth > _MOST_DEPTH:
            raise Broken(f"{what}: it is {tree.depth} pages deep, and its root is page {tree.root}")
        found = 0
        pages = self._leaves(tree.root, tree.depth, what, _Bounds(b"", None)) if tree.depth else ()
        for page, low, high in pages:
            entries = list(self._on_page(page, what, kind))
            if not _in_order([key for key, _ in entries], low, high, kind):
                raise Broken(f"{what}: its keys are out of order")
            found += sum(self._count(value, kind) for _, value in entries)
            yield from entries
        if found != tree.entries:
            raise Broken(f"{what}: {found} entries are here, and it says {tree.entries}")

    def below(self, key: bytes, what: str, kind: _Kind) -> tuple[str, _Kind]:
        """Return what the tree of a key is, and of which kind."""
        if kind is not _MAIN:
            return what, _OF_ONE_KEY
        table = key.decode(errors="replace")
        if table not in self._tables:
            raise Broken(f"{table!r} is none of the tables")
        return table, _VALUES if self._tables[table] else _ONE_VALUE

    @staticmethod
    def _count(value: bytes | Tree | int, kind: _Kind) -> int:
        """Return for how many entries one stands: each of several values of a key is one, a table is one."""
        if isinstance(value, int):
            return value
        return value.entries if isinstance(value, Tree) and kind is not _MAIN else 1

    def _leaves(
        self, number: int, depth: int, what: str, bounds: _Bounds
    ) -> Iterator[tuple[bytes, bytes, bytes | None]]:
        """Yield each leaf with the bounds that the branches above it set for its keys; who looks up goes by those."""
        self.use(number, what)
        data = self._read(number, 1)
        page, _, flags, lower, upper = _header(data, what, number)
        if page != number or flags != (_LEAF if depth == 1 else _BRANCH):
            raise Broken(f"{what}: page {number} is not what its tree says it is")
        if not _PAGE.size <= lower <= upper <= self._meta.page_bytes or lower % 2:
            raise Broken(f"{what}: page {number} has impossible bounds")
        if depth == 1:
            yield data, bounds.low, bounds.high
            return
        nodes = _nodes(data, lower, upper, what)
        keys = [bounds.low, *(key for _, key in nodes[1:]), bounds.high]  # the first one's own key is never looked at
        for (at, _), first, after in zip(nodes, keys[:-1], keys[1:], strict=True):
            below = _Bounds(bounds.low if first is None else first, after)
            yield from self._leaves(_child(data, at), depth - 1, what, below)

    def _on_page(self, data: bytes, what: str, kind: _Kind) -> Iterator[tuple[bytes, bytes | Tree | int]]:
        """Yield a leaf's keys, each with its value, its tree, or how many values lie within its node."""
        _, _, _, lower, upper = _PAGE.unpack_from(data)
        for at, key in _nodes(data, lower, upper, what):
            low, high, flags, _ = _NODE.unpack_from(data, at)
            if flags not in kind.nodes:
                raise Broken(f"{what}: a node has the flags {flags:#x}, which none can have here")
            yield key, self._value(data, at + _NODE.size + len(key), low | high << 16, flags, what)

    def _value(self, data: bytes, start: int, size: int, flags: int, what: str) -> bytes | Tree | int:
        inside = data[start : start + (_NUMBER.size if flags & _BIG else size)]
        if start + len(inside) > len(data) or len(inside) < min(size, _NUMBER.size):
            raise Broken(f"{what}: a value reaches beyond its page")
        if flags & _BIG:
            return self._big(inside, size, what)
        if len(inside) < size:
            raise Broken(f"{what}: a value reaches beyond its page")
        if flags & _SUBTREE:
            if size != _TREE.size:
                raise Broken(f"{what}: what should tell of a tree does not")
            return Tree(*_TREE.unpack(inside))
        if flags & _SEVERAL:
            return _subpage(inside, what)
        return inside

    def _big(self, inside: bytes, size: int, what: str) -> bytes:
        (number,) = _NUMBER.unpack(inside)
        data = b"" if number > self._meta.last_page else self._read(number, 1)
        page, _, flags, low, high = _header(data, what, number)
        count, needed = low | high << 16, (_PAGE.size + size - 1) // self._meta.page_bytes + 1
        if (page, flags) != (number, _OVERFLOW) or count < needed:
            raise Broken(f"{what}: page {number} is not the large value that its tree says it is")
        self.use(number, what, count)
        value = self._read(number, needed)[_PAGE.size : _PAGE.size + size]
        if len(value) < size:
            raise Broken(f"{what}: the file ends in a large value")
        return value


def _in_order(keys: list[bytes], low: bytes, high: bytes | None, kind: _Kind) -> bool:
    if kind is _FREE:  # numbers, the least byte first
        keys, low, high = [key[::-1] for key in keys], low[::-1], None if high is None else high[::-1]
    rises = all(one < other for one, other in itertools.pairwise(keys))
    return rises and (not keys or (low <= keys[0] and (high is None or keys[-1] < high)))


def _header(data: bytes, what: str, number: int) -> tuple[int, ...]:
    if len(data) < _PAGE.size:
        raise Broken(f"{what}: page {number} is beyond the end of the file")
    return _PAGE.unpack_from(data)


def _nodes(data: bytes, lower: int, upper: int, what: str) -> list[tuple[int, bytes]]:
    """Return where a page's nodes begin, each with its key."""
    found = []
    for (at,) in struct.iter_unpack("<H", data[_PAGE.size : lower]):
        if not upper <= at <= len(data) - _NODE.size:
            raise Broken(f"{what}: a node lies outside of its page")
        size = _NODE.unpack_from(data, at)[3]
        key = data[at + _NODE.size : at + _NODE.size + size]
        if len(key) != size:
            raise Broken(f"{what}: a key reaches beyond its page")
        found.append((at, key))
    return found


def _subpage(data: bytes, what: str) -> int:
    """Return how many values lie on a page within a node."""
    _, _, flags, lower, upper = _header(data, what, 0)
    is_one = flags & ~_DIRTY == _LEAF | _WITHIN
    if not is_one or not _PAGE.size <= lower <= upper <= len(data):
        raise Broken(f"{what}: several values of a key are damaged")
    _nodes(data, lower, upper, what)
    return (lower - _PAGE.size) // 2
