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
from paddle_operators import RULES  # type: ignore[import-not-found]


def replaced(program: Any) -> bool:
    """Replace the operators of a program that have rules. Whether there were any."""
    with paddle.static.program_guard(program):
        return _replaced_in(program.global_block())


def _replaced_in(block: Any) -> bool:
    from paddle.base.libpaddle import pir  # type: ignore[import-not-found]

    found = False
    for op in list(block.ops):
        if op.name().startswith("builtin."):
            continue
        for inner in op.blocks():
            found |= _replaced_in(inner)
        if op.name() == "pd_op.while":
            pir.set_insertion_point(op)
            found |= _apart(op)
        rule = RULES.get(op.name().removeprefix("pd_op."))
        if rule is None:
            continue
        pir.set_insertion_point(op)
        made = rule(op)
        if made is not None:
            _put_for(op, made if isinstance(made, list) else [made])
            block.remove_op(op)
            found = True
    return found


def _apart(loop: Any) -> bool:
    """Have copies of the first values of a loop that something else reads, too. Whether there are any: the
    exporter gives what a loop carries the names of its first values, which the loop may read."""
    found = False
    for i in range(1, loop.num_operands()):
        value = loop.operand_source(i)
        if value.is_dense_tensor_type() and not value.has_one_use():
            loop.operand(i).set_source(paddle.assign(value))
            found = True
    return found


def _put_for(op: Any, made: Sequence[Any]) -> None:
    """Have the values of a rule in place of the results of an operator. A list of values is in place of a
    list of tensors."""
    for result, value in zip(op.results(), made, strict=False):
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
    """The program of a file; its parameters are those of the global scope."""
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


def corrected(path: str, parameters: str, folder: str) -> tuple[str, str]:
    """The files of a model without the operators that have rules: those that are given, if it has none."""
    paddle.enable_static()
    made = os.path.join(folder, "corrected")
    if parameters:
        program = _program(path, parameters, paddle.static.Executor(paddle.CPUPlace()))
    else:
        program = _bare_program(path)
    with paddle.pir_utils.IrGuard():
        if not replaced(program):
            return path, parameters
        if not parameters:
            paddle.save(program, made + ".json")
            return made + ".json", ""
    paddle2onnx.convert.save_program(program, made)
    return made + ".json", made + ".pdiparams"


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
        path, parameters = corrected(path, parameters, folder)
        paddle2onnx.export(path, parameters, save_file=target, opset_version=17, enable_optimize=False)


if __name__ == "__main__":
    main(sys.argv[1:])
