"""QuantizeRows and DequantizeRows: quantized caches of keys and values."""

from __future__ import annotations

from ovjit.errors import check
from ovjit.graph.byte_rows import ByteRows
from ovjit.graph.op import Int, op
from ovjit.graph.shapes import is_static


@op("QuantizeRows", types=("f32",), internal=True, ulp=0, lower=".cpu_byte_rows:QuantizedRows.of")
class QuantizeRows:
    """Rows of f32 as bytes, with a scale and a zero per group (`ovjit.graph.byte_rows`)."""

    def infer(x, *, bits: Int = 8, group: Int = 0):
        rows = ByteRows(bits, group)
        check(rows.may_have(x.shape), f"{x} has no rows that can be stored as {rows.name}")
        return rows.in_bytes(x)

    def ref(x, *, bits=8, group=0):
        return ByteRows(bits, group).to_bytes(x)


@op("DequantizeRows", types=("f32",), internal=True, ulp=1, lower=".cpu_byte_rows:QuantizedRows.of")
class DequantizeRows:
    """The dequantized rows of bytes, in f32. `fresh`: the newest rows before quantization. They are the
    result if there are no others, as in a prompt."""

    def infer(x, fresh=None, *, bits: Int = 8, group: Int = 0):
        rows = ByteRows(bits, group)
        check(x.dtype == "u8", f"the data should be rows of bytes (u8), not {x}")
        floats = rows.in_floats(x)
        is_complete = not x.shape or not is_static(x.shape[-1:]) or rows.in_bytes(floats).shape == x.shape
        check(is_complete and rows.may_have(floats.shape), f"{x} does not hold rows of {rows.name}")
        return floats

    def ref(x, fresh=None, *, bits=8, group=0):
        plain = fresh is not None and fresh.shape[:-1] == x.shape[:-1]
        return fresh if plain else ByteRows(bits, group).to_floats(x)
