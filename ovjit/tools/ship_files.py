"""Writes files of shipped contents, which `codegen/shipped.py` reads.

Python's module lzma cannot begin a stream with a dictionary. So the underlying C library is called directly.
"""

from __future__ import annotations

import ctypes
import heapq
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ovjit.codegen import shipped
from ovjit.records import NamedTuple

#: Bytes of contents of the first group, which every model needs, that are unpacked together.
FIRST = 1 << 17
#: The number of dictionaries for the other groups, and the minimum bytes of each. More bytes compress better,
#: but a start unpacks more.
DICTIONARIES, DICTIONARY = 24, 1 << 16
#: How often contents are assigned to dictionaries, and dictionaries made again (as in k-means).
_ROUNDS = 2
#: Bytes of the sequences by which contents are compared, bits of their hashes, and the fixed cost of a
#: content.
_GRAM, _HASH, _COST = 8, 22, 200
#: Minimum bytes of the contents of a piece. 1: each content is a piece.
TOGETHER = 1


class _Options(ctypes.Structure):
    """lzma_options_lzma, with reserved space for fields of later versions."""

    _fields_ = [
        ("dict_size", ctypes.c_uint32),
        ("preset_dict", ctypes.c_char_p), ("preset_dict_size", ctypes.c_uint32),
        ("lc", ctypes.c_uint32), ("lp", ctypes.c_uint32), ("pb", ctypes.c_uint32), ("mode", ctypes.c_int),
        ("nice_len", ctypes.c_uint32), ("mf", ctypes.c_int), ("depth", ctypes.c_uint32),
        ("reserved", ctypes.c_byte * 256),
    ]  # fmt: skip


class _Filter(ctypes.Structure):
    _fields_ = [("id", ctypes.c_uint64), ("options", ctypes.c_void_p)]


#: The match finder: hash chains, whose index of the dictionary is built quickly; depth and length of the
#: search.
_CHAINS, _DEPTH, _LONGEST = 0x04, 512, 273
_EXTREME = 1 << 31
_END = (1 << 64) - 1


def compress(body: bytes, dictionary: bytes) -> bytes:
    """The LZMA2 stream of `body`, as the continuation of a stream with the dictionary's bytes
    (`shipped.store_uncompressed`)."""
    import _lzma

    library = ctypes.CDLL(_lzma.__file__)
    options = _Options()
    (properties,) = shipped.filters(len(dictionary) + len(body))
    library.lzma_lzma_preset(ctypes.byref(options), ctypes.c_uint32(properties["preset"] | _EXTREME))
    options.dict_size, options.lc, options.pb = (properties[name] for name in ("dict_size", "lc", "pb"))
    options.preset_dict, options.preset_dict_size = dictionary, len(dictionary)
    options.mf, options.depth, options.nice_len = _CHAINS, _DEPTH, _LONGEST
    chain = (_Filter * 2)(_Filter(properties["id"], ctypes.addressof(options)), _Filter(_END, None))
    out = ctypes.create_string_buffer(len(body) + len(body) // 8 + 1024)
    size = ctypes.c_size_t()
    failed = library.lzma_raw_buffer_encode(
        chain, None, body, ctypes.c_size_t(len(body)), out, ctypes.byref(size), ctypes.c_size_t(len(out))
    )
    if failed:
        raise RuntimeError(f"liblzma cannot compress: error {failed}")
    return out.raw[: size.value]


class _Piece(NamedTuple):
    """Contents that are unpacked together, and the number of the dictionary that they continue."""

    contents: list[bytes]
    base: int

    @property
    def body(self) -> bytes:
        return b"".join(self.contents)


def _grams(content: bytes) -> Any:
    """The hashes of all sequences of _GRAM bytes, each once."""
    view = np.frombuffer(content, np.uint8).astype(np.uint64)
    count = max(len(view) - _GRAM + 1, 0)
    total = np.zeros(count, np.uint64)
    for i in range(_GRAM):
        total = total * np.uint64(0x9E3779B1) + view[i : i + count]
    return np.unique(total * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(64 - _HASH)).astype(np.int64)


def _order_by_coverage(
    contents: Sequence[bytes], grams: Sequence[Any], enough: Callable[[list[int]], bool]
) -> list[int]:
    """The order of contents for a dictionary. The next one has, relative to its size, the most sequences that
    many others have and the previous ones lack."""
    worth = np.zeros(1 << _HASH, np.float32)
    for some in grams:
        worth[some] += 1
    worth -= 1

    def gain(i: int) -> tuple[float, int]:
        return -float(worth[grams[i]].sum()) / (len(contents[i]) + _COST), i

    order: list[int] = []
    queue = [gain(i) for i in range(len(contents))]
    heapq.heapify(queue)
    while queue and not enough(order):
        _, i = heapq.heappop(queue)
        now = gain(i)  # what has been taken since has made it no better
        if queue and now > queue[0]:
            heapq.heappush(queue, now)
        else:
            order.append(i)
            worth[grams[i]] = 0
    return order


def _shared_out(grams: Sequence[Any], dictionaries: Sequence[Sequence[Any]]) -> Any:
    """The dictionary for each content: the one that has most of its sequences."""
    counts = np.zeros((len(dictionaries), len(grams)), np.int64)
    for number, dictionary in enumerate(dictionaries):
        has = np.zeros(1 << _HASH, bool)
        for some in dictionary:
            has[some] = True
        counts[number] = [np.count_nonzero(has[some]) for some in grams]
    return counts.argmax(axis=0)


def dictionaries(contents: Sequence[bytes]) -> tuple[list[list[bytes]], list[int]]:
    """(the contents of each dictionary, the dictionary of each of `contents`), by clustering."""
    if not contents:
        return [], []
    grams = [_grams(content) for content in contents]
    seeds = _order_by_coverage(contents, grams, lambda members_so_far: len(members_so_far) >= DICTIONARIES)
    result = [[i] for i in seeds]
    for again in range(_ROUNDS + 1):
        nearest = _shared_out(grams, [[grams[i] for i in some] for some in result])
        if again == _ROUNDS:
            break
        members = [np.flatnonzero(nearest == number).tolist() for number in range(len(result))]
        result = [_dictionary(contents, grams, some) for some in members if some]
    return [[contents[i] for i in some] for some in result], nearest.tolist()


def _dictionary(contents: Sequence[bytes], grams: Sequence[Any], members: Sequence[int]) -> list[int]:
    items = [contents[i] for i in members]
    chosen = _order_by_coverage(
        items, [grams[i] for i in members], lambda ids: sum(len(items[i]) for i in ids) >= DICTIONARY
    )
    return [members[i] for i in chosen]


def pieces(contents: Iterable[tuple[bytes, int]], together: int) -> list[_Piece]:
    """Pieces of consecutive contents with the same dictionary, each of at least `together` bytes if
    possible."""
    result: list[_Piece] = []
    open_: dict[int, tuple[_Piece, int]] = {}
    for content, base in contents:
        piece, size = open_.get(base, (None, 0))
        if piece is None or size >= together:
            piece, size = _Piece([], base), 0
            result.append(piece)
        piece.contents.append(content)
        open_[base] = piece, size + len(content)
    return result


def _first(groups: Sequence[Mapping[str, bytes]]) -> list[bytes]:
    contents: list[bytes] = []
    for content in dict.fromkeys(groups[0].values()) if groups else ():
        if sum(map(len, contents)) >= FIRST:
            break
        contents.append(content)
    return contents


def pack(
    groups: Sequence[Mapping[str, bytes]], stamp: bytes, most: int | None = None, together: int = TOGETHER
) -> bytes:
    """The file with these contents by their keys of 40 hexadecimal digits. Equal contents are stored once.
    `stamp` identifies the generator: `shipped.generators()` or `shipped.printers()`. The last contents are
    left out if the file would exceed `most` bytes, but not those of dictionaries."""
    keyed = {key: content for group in reversed(groups) for key, content in group.items()}
    unique = list(dict.fromkeys(content for group in groups for content in group.values()))
    first = _first(groups)
    others = [content for content in unique if content not in set(first)]
    bases, nearest = dictionaries(others)
    bases.append(first)
    inside = {content for base in bases for content in base}
    bodies = [_Piece(base, number) for number, base in enumerate(bases)]
    others_with_base = [pair for pair in zip(others, nearest, strict=True) if pair[0] not in inside]
    parts = [*bodies, *pieces(others_with_base, together)]
    texts = [piece.body for piece in bodies]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        packed = list(pool.map(lambda piece: compress(piece.body, texts[piece.base]), parts[len(bodies) :]))
    packed[:0] = [zlib.compress(text, 9) for text in texts]
    while True:
        content = _file(parts, packed, keyed, stamp)
        over = len(content) - (len(content) if most is None else most)
        if over <= 0 or len(parts) == len(bodies):
            return content
        while over > 0 and len(parts) > len(bodies):
            piece = parts.pop()
            entries = len(piece.contents) * (shipped.KEY + shipped.PLACE.size)
            over -= len(packed.pop()) + shipped.PIECE.size + entries


def _file(
    all_pieces: Sequence[_Piece], packed: Sequence[bytes], keyed: Mapping[str, bytes], stamp: bytes
) -> bytes:
    entry_by_content: dict[bytes, bytes] = {}
    for number, piece in enumerate(all_pieces):
        at = 0
        for content in piece.contents:
            entry_by_content[content] = shipped.PLACE.pack(number, at, len(content))
            at += len(content)
    keys = sorted(key for key, content in keyed.items() if content in entry_by_content)
    at = shipped.STAMP + shipped.HEAD.size + len(all_pieces) * shipped.PIECE.size
    at += len(keys) * (shipped.KEY + shipped.PLACE.size)
    table = []
    for piece, stream in zip(all_pieces, packed, strict=True):
        table.append(shipped.PIECE.pack(piece.base, at, len(stream), len(piece.body), zlib.crc32(piece.body)))
        at += len(stream)
    return b"".join((
        stamp,
        shipped.HEAD.pack(at, len(all_pieces), len(keys), *sys.version_info[:2]),
        *table,
        *map(bytes.fromhex, keys),
        *(entry_by_content[keyed[key]] for key in keys),
        *packed,
    ))  # fmt: skip
