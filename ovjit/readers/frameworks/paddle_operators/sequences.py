"""Recurrent layers."""

from __future__ import annotations

from typing import Any

from .parts import Rule


def _recurrent(op: Any) -> None:
    """The exporter ignores lengths of sequences."""
    if op.operand_source(op.num_operands() - 2).initialized():
        raise NotImplementedError("recurrent layers with lengths of sequences (pd_op.rnn)")


RULES: dict[str, Rule] = {
    "rnn": _recurrent,
}
