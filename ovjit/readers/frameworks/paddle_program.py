"""The process that makes an ONNX file of a model of Paddle's: `model parameters file`, "" for no parameters.

Operators that paddle2onnx writes wrongly or refuses are first replaced in the program by others of Paddle's.
The process imports this file and the rules by their names. Neither imports anything of ovjit.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import paddle  # type: ignore[import-not-found]
import paddle2onnx  # type: ignore[import-not-found]
from paddle_operators.left import LEFT, ONLY_LEFT, Left, leave_operator, put_back  # type: ignore[import-not-found]
from paddle_operators.rules import RULES  # type: ignore[import-not-found]


def replace_operators(program: Any) -> tuple[bool, list[Left]]:
    """Replace the operators of a program that have rules. Returns (whether any was replaced, those that are
    added to the exported file later)."""
    rows: list[Left] = []
    with paddle.static.program_guard(program):
        return _replaced_in(program.global_block(), rows), rows


def _replaced_in(block: Any, rows: list[Left] | None) -> bool:
    """Replace operators in a block. `rows` collects the operators to add later; None in branches and loops,
    which cannot have any."""
    from paddle.base.libpaddle import pir  # type: ignore[import-not-found]

    changed = False
    for op in list(block.ops):
        if op.name().startswith("builtin."):
            continue
        for inner in op.blocks():
            changed |= _replaced_in(inner, None)
        if op.name() == "pd_op.while":
            pir.set_insertion_point(op)
            changed |= _copy_initial_values(op)
        name = op.name().removeprefix("pd_op.")
        stays, rule = name in LEFT and LEFT[name](op), RULES.get(name)
        stays &= rows is not None or name in ONLY_LEFT
        if not stays and rule is None:
            continue
        pir.set_insertion_point(op)
        result = _leave_operator(op, rows) if stays else rule(op)
        if result is not None:
            _put_for(op, result if isinstance(result, list) else [result])
            block.remove_op(op)
            changed = True
    return changed


def _leave_operator(op: Any, rows: list[Left] | None) -> list[Any]:
    if rows is None:
        raise NotImplementedError(f"{op.name()} in a branch or a loop")
    row, result = leave_operator(op, len(rows))
    rows.append(row)
    return result


def _copy_initial_values(loop: Any) -> bool:
    """Copy initial values of a loop that are also used elsewhere. True if there are any. The exporter gives
    the carried values the names of their initial values, which the loop may read."""
    copied = False
    for i in range(1, loop.num_operands()):
        value = loop.operand_source(i)
        if value.is_dense_tensor_type() and not value.has_one_use():
            loop.operand(i).set_source(paddle.assign(value))
            copied = True
    return copied


def _put_for(op: Any, values: Sequence[Any]) -> None:
    """Replace the results of an operator by the values of a rule; a list of values replaces a list of
    tensors."""
    for result, value in zip(op.results(), values, strict=False):
        if not isinstance(value, list):
            result.replace_all_uses_with(value)
            continue
        for user in result.all_used_ops():
            if user.name() == "builtin.slice":
                user.result(0).replace_all_uses_with(value[user.attrs()["index"]])
            elif user.name() == "builtin.split":
                _put_for(user, value)
            else:
                result.replace_all_uses_with(paddle._C_ops.builtin_combine(value))
                break
            user.get_parent_block().remove_op(user)


def _program(path: str, parameters: str, executor: Any) -> Any:
    """The program of a file, with its parameters in the global scope."""
    folder, name = os.path.split(path)
    files = {"model_filename": name, "params_filename": os.path.relpath(parameters, folder or ".")}
    if not path.endswith(".pdmodel"):
        with paddle.pir_utils.IrGuard():
            return paddle.static.load_inference_model(folder, executor, **files)[0]
    with paddle.pir_utils.OldIrGuard():
        old = paddle.static.load_inference_model(folder, executor, **files)[0]
    program = paddle.pir.translate_to_pir(old.desc)
    paddle2onnx.convert.load_parameter(program)
    return program


def correct_files(path: str, parameters: str, folder: str) -> tuple[str, str, list[Left], int]:
    """(paths of a model whose operators with rules are replaced: the original ones if it has none; operators
    to add later; number of the model's outputs)."""
    paddle.enable_static()
    result = os.path.join(folder, "corrected")
    executor = paddle.static.Executor(paddle.CPUPlace())
    program = _program(path, parameters, executor) if parameters else _bare_program(path)
    with paddle.pir_utils.IrGuard():
        changed, rows = replace_operators(program)
        if not changed:
            return path, parameters, rows, 0
        feeds, fetches = _ends(program)
        more = [value for row in rows for value in row.operands]
        if not parameters and not more:
            paddle.save(program, result + ".json")
            return result + ".json", "", rows, 0
        paddle.static.save_inference_model(result, feeds, [*fetches, *more], executor, program=program)
    return result + ".json", result + ".pdiparams" if parameters else "", rows, len(fetches)


def _ends(program: Any) -> tuple[list[Any], list[Any]]:
    """The inputs and outputs of a program."""
    feeds, fetches = [], []
    for op in program.global_block().ops:
        if op.name() == "pd_op.feed":
            feeds.extend(op.results())
        elif op.name() in ("pd_op.fetch", "builtin.shadow_output"):
            fetches.extend(op.operands_source())
    return feeds, fetches


def _bare_program(path: str) -> Any:
    """The program of a file of a model without parameters."""
    if not path.endswith(".pdmodel"):
        with paddle.pir_utils.IrGuard():
            return paddle.load(path)
    with paddle.pir_utils.OldIrGuard():
        return paddle.pir.translate_to_pir(paddle.load(path).desc)


def main(arguments: Sequence[str]) -> None:
    path, parameters, target = arguments
    with tempfile.TemporaryDirectory() as folder:
        path, parameters, rows, outputs = correct_files(path, parameters, folder)
        paddle2onnx.export(path, parameters, save_file=target, opset_version=17, enable_optimize=False)
    if rows and os.path.isfile(target):
        put_back(target, rows, outputs)


if __name__ == "__main__":
    main(sys.argv[1:])
