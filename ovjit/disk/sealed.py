"""Bytes under a message authentication code: who holds the key can tell that they wrote them.

A sealed record is 64 bytes of head, a text about the content, and the content:

    offset  bytes  meaning (integers little-endian)
         0      8  kind: what the content is and where it may be used
         8      4  format version, 1
        12      4  length of the text `about`, UTF-8
        16      8  name of the key: tells a foreign key from damage, and tells nothing else about the key
        24      8  length of the content
        32     32  HMAC-SHA256 over the head's first 32 bytes, the record's name, about and content, see
                   `authentication_code`

The record's name (a kernel's address) is authenticated but not stored: a genuine record under another
name is refused.
"""

from __future__ import annotations

import functools
import struct

from ovjit.hashes import hmac_sha256, same_bytes

VERSION = 1
_HEAD = struct.Struct("<8sII8sQ")
_CODE = 32
HEAD_BYTES = _HEAD.size + _CODE


class Damaged(ValueError):
    """A record is damaged, or was not written by the key's owner under this name. The message has the
    reason."""


def authentication_code(key: bytes, purpose: bytes, *parts: bytes | memoryview) -> bytes:
    """HMAC-SHA256 over `purpose` and `parts`, each preceded by its length, so that no other parts have the
    same input."""
    return hmac_sha256(key, [x for part in (purpose, *parts) for x in (struct.pack("<Q", len(part)), part)])


@functools.lru_cache(8)
def name_of_key(key: bytes) -> bytes:
    """8 bytes that identify `key` and do not reveal it."""
    return authentication_code(key, b"ovjit: name of this key")[:8]


def seal(kind: bytes, name: str, content: bytes, key: bytes, about: str = "") -> bytes:
    """The record of `content`. `kind` has 8 bytes."""
    if len(kind) != 8:
        raise ValueError(f"a kind has 8 bytes, not {len(kind)}")
    text = about.encode()
    head = _HEAD.pack(kind, VERSION, len(text), name_of_key(key), len(content))
    return b"".join((head, authentication_code(key, head, name.encode(), text, content), text, content))


def unseal(kind: bytes, name: str, record: bytes, key: bytes) -> bytes:
    """The content of a record. Raises Damaged. Nothing but lengths is used before the code has been
    checked."""
    begin = _begin_of_content(kind, record)
    _, _, _, key_name, length = _HEAD.unpack_from(record)
    if length != len(record) - begin:
        raise Damaged(f"its header states {length} bytes of content, but {len(record) - begin} follow")
    if key_name != name_of_key(key):
        raise Damaged("it was sealed with another key")
    view = memoryview(record)
    code = authentication_code(key, record[: _HEAD.size], name.encode(), view[HEAD_BYTES:begin], view[begin:])
    if not same_bytes(code, record[_HEAD.size : HEAD_BYTES]):
        raise Damaged("its authentication code is wrong")
    return record[begin:]


def read_about(kind: bytes, record: bytes) -> str:
    """The text about a record, of which only a beginning need be given; not authenticated. Raises Damaged."""
    text = record[HEAD_BYTES : _begin_of_content(kind, record)]
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise Damaged("its description is not valid text") from None


def _begin_of_content(kind: bytes, record: bytes) -> int:
    if len(record) < HEAD_BYTES:
        raise Damaged(f"it has {len(record)} bytes, fewer than a header")
    magic, version, about, _, _ = _HEAD.unpack_from(record)
    if magic != kind:
        raise Damaged(f"it begins with {magic!r}, not {kind!r}")
    if version != VERSION:
        raise Damaged(f"it has format {version}; this version of ovjit reads {VERSION}")
    if about > len(record) - HEAD_BYTES:
        raise Damaged("it ends within its description")
    return HEAD_BYTES + about
