"""PyTorch's operators, converted by ovjit and by OpenVINO and compared with eager mode.

    python -m bench.torch_operators [name ...] [--samples 6] [--type int64] [--packages ovjit openvino]
                                    [--json out.json]

The operators and their inputs are PyTorch's own: `op_db` of `torch.testing`, in f32 or the first type that
they take; with `--type` only those that take it. Each sample is a module whose
tensors are inputs of the model, but for weights of layers; everything else is constant. An operator is right
if each of its samples converts, compiles and gives eager mode's shapes, types and numbers (1e-4). Operators
with random results, with no tensor among their results or whose samples eager mode refuses are left out.
Each package runs in a process of its own. A crash or the time limit ends it, the next operator gets another.

The last line tells the share of the operators that OpenVINO has right and ovjit has right, too.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

SEED = 20261122
TOLERANCE = 1e-4
#: Seconds for the samples of one operator.
LIMIT = 240
PACKAGES = ("ovjit", "openvino")
#: Types of the samples, the first that an operator takes.
KINDS = ("float32", "int64", "bool", "complex64", "float64")
#: Operators whose arguments behind the first are weights: constants in models, and so they are here.
WEIGHTED = (
    "batch_norm", "bilinear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "group_norm", "instance_norm", "layer_norm", "linear", "prelu", "rms_norm",
)  # fmt: skip
RIGHT = "right"


class Answer(NamedTuple):
    """What a package did with one sample: `state` is "right", "wrong", "refused" or "crashed"."""

    state: str
    sample: str
    reason: str = ""


class Operator(NamedTuple):
    """One record of `op_db` and the element type that its samples have."""

    name: str
    function: Callable[..., Any]
    record: Any
    kind: Any


def operators(names: Sequence[str] = (), kinds: Sequence[str] = KINDS) -> list[Operator]:
    """All operators of `op_db`, or those that are named, in the first of the types that they take."""
    import torch
    from torch.testing._internal.common_methods_invocations import op_db

    order = [getattr(torch, kind) for kind in kinds]
    found = []
    for record in op_db:
        name = f"{record.name}.{record.variant_test_name}" if record.variant_test_name else record.name
        if names and name not in names and record.name not in names:
            continue
        if "wrapper_set_seed" in getattr(getattr(record.op, "__code__", None), "co_names", ()):
            continue  # its results are random
        taken = record.supported_dtypes("cpu")
        kind = next((k for k in order if k in taken), None)
        if kind is not None:
            found.append(Operator(name, record.op, record, kind))
    return found


def samples(operator: Operator, most: int) -> Iterator[tuple[Any, list[Any], str]]:
    """A module, its tensors and a description of up to `most` samples, taken evenly from all there are."""
    import torch
    from torch.utils import _pytree as tree

    torch.manual_seed(SEED)
    every = list(operator.record.sample_inputs("cpu", operator.kind, requires_grad=False))
    chosen = [
        every[i] for i in sorted({round(i) for i in np.linspace(0, len(every) - 1, min(most, len(every)))})
    ]
    for sample in chosen:
        leaves, shape = tree.tree_flatten(((sample.input, *sample.args), sample.kwargs))
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        if operator.name.removeprefix("nn.functional.") in WEIGHTED:
            places = places[:1]
        said = ", ".join(
            f"{str(v.dtype)[6:]}{list(v.shape)}" if isinstance(v, torch.Tensor) else repr(v) for v in leaves
        )
        yield _module(operator.function, leaves, shape, places), [leaves[i] for i in places], said[:300]


def _module(function: Callable[..., Any], leaves: list[Any], shape: Any, places: list[int]) -> Any:
    import torch
    from torch.utils import _pytree as tree

    class Sample(torch.nn.Module):
        """An operator as a function of its tensors."""

        def forward(self, *tensors: Any) -> Any:
            now = list(leaves)
            for place, tensor in zip(places, tensors, strict=True):
                now[place] = tensor
            arguments, keywords = tree.tree_unflatten(now, shape)
            made = function(*arguments, **keywords)
            return tuple(made) if isinstance(made, (tuple, list)) else made

    return Sample().eval()


def plain(value: Any) -> np.ndarray:
    """A tensor's numbers; complex ones are pairs in a last dimension, bf16 has its bits in an f16 array."""
    import torch

    value = value.detach().resolve_conj().resolve_neg()
    if value.is_complex():
        value = torch.view_as_real(value)
    return value.view(torch.float16).numpy() if value.dtype is torch.bfloat16 else value.numpy()


def expected(module: Any, tensors: list[Any]) -> list[np.ndarray] | None:
    """What eager mode gives, None where that is not defined or no tensors."""
    from torch.utils import _pytree as tree

    rounds = []
    for _ in range(2):
        made = tree.tree_leaves(module(*(t.clone() for t in tensors)))
        if not made or any(not hasattr(v, "detach") or v.is_sparse for v in made):
            return None
        rounds.append([plain(v) for v in made])
    same = all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(*rounds, strict=True))
    return rounds[0] if same else None


def difference(got: np.ndarray, wanted: np.ndarray) -> str:
    """What is wrong with a result, an empty text for nothing."""
    if got.shape != wanted.shape:
        return f"shape {got.shape}, not {wanted.shape}"
    if got.dtype != wanted.dtype:
        return f"type {got.dtype}, not {wanted.dtype}"
    if wanted.dtype.kind != "f":
        return "" if np.array_equal(got, wanted) else "other numbers"
    if np.allclose(got, wanted, TOLERANCE, TOLERANCE, equal_nan=True):
        return ""
    with np.errstate(all="ignore"):
        return f"numbers differ by {np.nanmax(np.abs(got - wanted))}"


def ask(package: Any, module: Any, tensors: list[Any], wanted: list[np.ndarray], said: str) -> Answer:
    """What a package makes of one sample."""
    try:
        model = package.convert_model(module, example_input=tuple(t.clone() for t in tensors))
        compiled = package.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        if len(compiled.inputs) != len(tensors):
            return Answer("wrong", said, f"{len(compiled.inputs)} inputs, not {len(tensors)}")
        result = compiled([plain(t) for t in tensors])
        got = [np.array(result[i]) for i in range(len(compiled.outputs))]
    except Exception as error:
        return Answer("refused", said, f"{type(error).__name__}: {str(error)[:600]}")
    if len(got) != len(wanted):
        return Answer("wrong", said, f"{len(got)} outputs, not {len(wanted)}")
    wrong = next(filter(None, (difference(a, b) for a, b in zip(got, wanted, strict=True))), "")
    return Answer("wrong" if wrong else RIGHT, said, wrong)


def _serve(package_name: str, most: int, kinds: Sequence[str], pipe: Any) -> None:
    """Runs in a process of its own: takes operators from the pipe, and sends answers one by one."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    package = importlib.import_module(package_name)
    every = {operator.name: operator for operator in operators((), kinds)}
    while True:
        name = pipe.recv()
        try:
            for module, tensors, said in samples(every[name], most):
                try:
                    with torch.no_grad():
                        wanted = expected(module, tensors)
                except Exception:
                    continue
                if wanted is not None:
                    pipe.send(("began", said))
                    pipe.send(ask(package, module, tensors, wanted, said))
        except Exception:
            pass  # the samples that could be made have been asked
        pipe.send(None)


class Worker:
    """A process that asks one package. A crash or the time limit ends it, the next operator gets another."""

    def __init__(self, package: str, most: int, kinds: Sequence[str]):
        self.package, self.most, self.kinds = package, most, kinds
        self._process: Any = None
        self._pipe: Any = None

    def examine(self, operator: Operator) -> list[Answer]:
        """The answers of the package for the samples of an operator."""
        if self._process is None:
            context = multiprocessing.get_context("fork")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(
                target=_serve, args=(self.package, self.most, self.kinds, theirs), daemon=True
            )
            self._process.start()
            theirs.close()
        answers: list[Answer] = []
        began = ""
        end = time.monotonic() + LIMIT
        try:
            self._pipe.send(operator.name)
            while self._pipe.poll(max(0.0, end - time.monotonic())):
                message = self._pipe.recv()
                if message is None:
                    return answers
                if isinstance(message, Answer):
                    answers.append(message)
                    began = ""
                else:
                    began = message[1]
        except (EOFError, OSError):
            pass
        self.end()
        answers.append(Answer("crashed", began, "the process ended, or took too long"))
        return answers

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def verdict(answers: Sequence[Answer]) -> str:
    """The worst state of an operator's samples, "-" without samples."""
    states = [a.state for a in answers]
    return next((s for s in ("crashed", "wrong", "refused", RIGHT) if s in states), "-")


def table(found: dict[str, dict[str, list[Answer]]], packages: Sequence[str]) -> str:
    """One line for each operator, and the sums."""
    lines = [f"{'operator':44}" + "".join(f"{p:>22}" for p in packages)]
    for name, by in found.items():
        cells = []
        for package in packages:
            right = sum(a.state == RIGHT for a in by[package])
            cells.append(f"{verdict(by[package])} {right}/{len(by[package])}")
        lines.append(f"{name:44}" + "".join(f"{c:>22}" for c in cells))
    asked = {name: by for name, by in found.items() if any(by.values())}
    for package in packages:
        right = sum(verdict(by[package]) == RIGHT for by in asked.values())
        lines.append(f"{package}: {right} of {len(asked)} operators right")
    if len(packages) == 2:
        theirs = [by for by in asked.values() if verdict(by[packages[1]]) == RIGHT]
        both = sum(verdict(by[packages[0]]) == RIGHT for by in theirs)
        share = both / max(len(theirs), 1)
        lines.append(f"{packages[0]} has {both} of the {len(theirs)} that {packages[1]} has: {share:.1%}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="operators of op_db; all without")
    parser.add_argument("--samples", type=int, default=6)
    parser.add_argument("--type", choices=KINDS, help="only operators that take this type")
    parser.add_argument("--packages", nargs="+", default=list(PACKAGES), choices=PACKAGES)
    parser.add_argument("--json", help="a file for all answers; one that exists is continued")
    given = parser.parse_args(arguments)
    import torch  # imported once, before the processes are forked

    for package in given.packages:
        importlib.import_module(package)
    if "ovjit" in given.packages:  # what it imports later is imported once, too
        ask(importlib.import_module("ovjit"), torch.nn.ReLU(), [torch.ones(2)], [np.ones(2, np.float32)], "")
    found: dict[str, dict[str, list[Answer]]] = {}
    if given.json and os.path.exists(given.json):
        with open(given.json) as file:
            kept = json.load(file)
        found = {n: {p: [Answer(*a) for a in v] for p, v in by.items()} for n, by in kept.items()}
    kinds = (given.type,) if given.type else KINDS
    workers = {package: Worker(package, given.samples, kinds) for package in given.packages}
    for operator in operators(given.names, kinds):
        by = found.setdefault(operator.name, {})
        for package in given.packages:
            if package not in by:
                by[package] = workers[package].examine(operator)
        said = next((a.reason for a in by[given.packages[0]] if a.state != RIGHT), "")
        print(operator.name, *map(verdict, by.values()), said[:200], file=sys.stderr, flush=True)
        if given.json:
            with open(given.json, "w") as file:
                json.dump(found, file, indent=1)
    for worker in workers.values():
        worker.end()
    print(table(found, given.packages))


if __name__ == "__main__":
    main()
