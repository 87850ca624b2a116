"""Random programs on tensors and requests, in ovjit and in OpenVINO: regions, views with strides, shared
memory, outputs that are set, other shapes between calls, several requests at once, requests in a chain.

Every program is drawn again for each package. After each call all values that Python can see are compared.
"""

from __future__ import annotations

import importlib
import json
import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

import ovjit
from tests.fuzz import fuzzing
from tests.fuzz.fuzz_beside_openvino import F32

LIFE = 200
STEPS = (4, 8, 8, 12, 20)


class Program:
    """One program in one package; `log` is what it saw."""

    def __init__(self, ov: Any, seed: int, most: int):
        self.ov, self.r, self.most = ov, random.Random(seed), most
        self.rng = np.random.default_rng(seed)
        self.dtype = self.r.choice((np.float32, np.float32, np.int32, np.uint8))
        self.log: list[Any] = []
        self.tensors: list[Any] = []
        self.arrays: list[np.ndarray] = []
        self.regions: list[Any] = []
        self.results: list[Any] = []
        self.running: set[int] = set()
        self.done: set[int] = set()
        self.compile()

    def compile(self) -> None:
        op = importlib.import_module(f"{self.ov.__name__}.opset13")
        self.rank = self.r.choice((1, 2, 2, 3))
        self.shape = [self.r.choice((1, 2, 3, 5)) for _ in range(self.rank)]
        self.opened = self.r.random() < 0.7
        shape = [-1] * self.rank if self.opened else self.shape
        x, y = (op.parameter(shape, self.dtype, name=name) for name in "xy")
        one = op.constant(np.ones([1] * self.rank, self.dtype))
        sums = op.add(op.multiply(x, y), one)
        outputs = [
            sums,
            op.concat([x, sums], self.rank - 1),
            x,
            op.reduce_sum(y, op.constant(np.array([0])), True),
        ]
        chosen = self.r.sample(outputs, self.r.choice((1, 2, 3)))
        model = self.ov.Model([op.result(v) for v in chosen], [x, y], "m")
        self.compiled = self.ov.Core().compile_model(model, "CPU", {**F32, "NUM_STREAMS": 2})
        self.requests = [self.compiled.create_infer_request() for _ in range(self.r.choice((1, 2, 3)))]
        for request in self.requests:  # OpenVINO does not initialise memory
            for i in range(2):
                request.set_input_tensor(i, self.ov.Tensor(np.ones(self.shape, self.dtype)))

    # --- what the steps are made of

    def sizes(self) -> list[int]:
        same = not self.opened or self.r.random() < 0.5
        return list(self.shape) if same else [max(1, d + self.r.choice((-1, 0, 1, 2))) for d in self.shape]

    def array(self, sizes: list[int] | None = None) -> np.ndarray:
        sizes = self.sizes() if sizes is None else sizes
        way = self.r.choice(("plain", "plain", "fortran", "step", "back", "part", "wide"))
        if way == "plain":
            values = self.rng.integers(0, 9, sizes)
        else:
            values = self.rng.integers(0, 9, [2 * d for d in sizes])
        out = values.astype(self.dtype)
        if way == "fortran":
            out = np.asfortranarray(out[tuple(slice(d) for d in sizes)])
        elif way == "step":
            out = out[tuple(slice(None, None, 2) for _ in sizes)]
        elif way == "back":
            out = out[tuple(slice(None, None, -2) for _ in sizes)]
        elif way == "part":
            out = out[tuple(slice(1, d + 1) for d in sizes)]
        elif way == "wide":
            out = np.ascontiguousarray(out[tuple(slice(d) for d in sizes)])
        self.arrays.append(out)
        return out

    def tensor(self) -> Any:
        """A tensor: an old one, or a new one."""
        way = self.r.choice(("old", "old", "copy", "shared", "empty", "region"))
        self.said += f" {way}"
        if way == "old" and self.tensors:
            return self.r.choice(self.tensors)
        if way in ("copy", "old"):
            made = self.ov.Tensor(self.array())
        elif way == "shared":
            made = self.ov.Tensor(np.ascontiguousarray(self.array()), shared_memory=True)
        elif way == "empty":
            made = self.ov.Tensor(self.ov.Type(self.dtype), self.sizes())
            made.data[...] = self.rng.integers(0, 9, made.data.shape)
        else:
            sizes = self.sizes()
            parent = self.ov.Tensor(self.ov.Type(self.dtype), [d + 2 for d in sizes])
            parent.data[...] = self.rng.integers(0, 9, parent.data.shape)
            begin = [self.r.randrange(3) for _ in sizes]
            made = self.ov.Tensor(parent, begin, [b + d for b, d in zip(begin, sizes, strict=True)])
            self.tensors.append(parent)
            self.regions += [parent, made]
        self.tensors.append(made)
        return made

    # --- steps

    def step(self) -> None:
        k = self.r.randrange(len(self.requests))
        ways = [self.infer, self.infer, self.set_input, self.set_output, self.start, self.wait, self.write,
                self.reshape, self.copy, self.look, self.chain, self.mutate, self.call]  # fmt: skip
        way = self.r.choice(ways)
        if k in self.running and way not in (self.wait, self.write, self.look, self.copy):
            way = self.wait
        self.said = f"{way.__name__} {k}"
        way(k)

    def port(self) -> int:
        return self.r.randrange(2)

    def infer(self, k: int) -> None:
        form = self.r.choice(("set", "list", "dict", "tensors"))
        share = {"share_inputs": self.r.random() < 0.5, "share_outputs": self.r.random() < 0.5}
        sizes = self.sizes()
        self.said += f" {form} {sizes} {share}"
        if form == "set":
            results = self.requests[k].infer(**share)
        elif form == "list":
            results = self.requests[k].infer([self.array(sizes), self.array(sizes)], **share)
        elif form == "dict":
            results = self.requests[k].infer(
                {self.r.choice((0, "x")): self.array(sizes), 1: self.array(sizes)}, **share
            )
        else:
            results = self.requests[k].infer(
                [self.ov.Tensor(self.array(sizes)), self.ov.Tensor(self.array(sizes))], **share
            )
        self.done.add(k)
        self.see(results)
        if not share["share_outputs"]:
            self.results.append(results)

    def call(self, k: int) -> None:
        sizes = self.sizes()
        results = self.compiled([self.array(sizes), self.array(sizes)], share_inputs=self.r.random() < 0.5)
        self.results.append(results)
        self.see(results)

    def set_input(self, k: int) -> None:
        port, tensor = self.port(), self.tensor()
        self.said += f" {port} {list(tensor.shape)}"
        self.requests[k].set_input_tensor(port, tensor)

    def set_output(self, k: int) -> None:
        port, tensor = self.r.randrange(len(self.compiled.outputs)), self.tensor()
        if not tensor.is_continuous() or any(tensor is region for region in self.regions):
            return  # OpenVINO writes past a region's memory
        self.said += f" {port} {list(tensor.shape)}"
        self.requests[k].set_output_tensor(port, tensor)

    def start(self, k: int) -> None:
        sizes = self.sizes()
        if self.r.random() < 0.5:
            share = self.r.random() < 0.5
            self.said += f" {sizes} share {share}"
            self.requests[k].start_async([self.array(sizes), self.array(sizes)], share_inputs=share)
        else:
            self.requests[k].start_async()
        self.running.add(k)

    def wait(self, k: int) -> None:
        if k in self.running:
            self.running.discard(k)
            self.done.add(k)
            self.requests[k].wait()
            self.see_outputs(k)

    def write(self, k: int) -> None:
        if self.tensors and not self.running:
            self.r.choice(self.tensors).data[...] = self.r.randrange(9)

    def mutate(self, k: int) -> None:
        """Arrays that were given are changed; who shares them sees it."""
        if self.arrays and not self.running:
            self.r.choice(self.arrays[-4:])[...] = self.r.randrange(9)

    def reshape(self, k: int) -> None:
        if self.tensors and not self.running and self.opened:
            tensor, sizes = self.r.choice(self.tensors), self.sizes()
            if any(tensor is region for region in self.regions):
                return  # the others keep what they are here; OpenVINO reads freed memory
            self.said += f" {list(tensor.shape)} to {sizes}"
            tensor.shape = sizes
            tensor.data[...] = 1

    def copy(self, k: int) -> None:
        if self.tensors and not self.running:
            a, b = self.r.choice(self.tensors), self.tensor()
            a.copy_to(b) if self.r.random() < 0.5 else b.copy_from(a)

    def look(self, k: int) -> None:
        for t in self.tensors[-3:]:
            self.log.append([list(t.shape), list(t.strides), t.size, t.byte_size, t.is_continuous(),
                             np.array(t.data) if not self.running else 0])  # fmt: skip

    def chain(self, k: int) -> None:
        """An output of one request is the input of another."""
        other = self.r.randrange(len(self.requests))
        if self.running or other == k or k not in self.done:
            return  # OpenVINO runs in place then, and reads what it has written
        i = self.r.randrange(len(self.compiled.outputs))
        source = self.requests[k].get_output_tensor(i)
        to = self.port()
        self.said += f" output {i} to input {to} of {other}"
        if source.size:
            self.requests[other].set_input_tensor(to, source)

    def see(self, results: Any) -> None:
        self.log.append([np.array(results[i]) for i in range(len(self.compiled.outputs))])

    def see_outputs(self, k: int) -> None:
        self.log.append(
            [np.array(self.requests[k].get_output_tensor(i).data) for i in range(len(self.compiled.outputs))]
        )

    def run(self) -> list[Any]:
        for _ in range(min(self.r.choice(STEPS), self.most)):
            self.said = ""
            try:
                self.step()
            except Exception as error:
                self.log.append(("raises", self.said, type(error).__name__, str(error)[:200]))
                break  # what a failed call leaves is not compared
            self.log.append(self.said)
        for k in list(self.running):
            self.said = f"last wait {k}"
            try:
                self.wait(k)
            except Exception as error:
                self.log.append(("raises", self.said, type(error).__name__, str(error)[:200]))
        for results in self.results:  # those that share nothing have not changed since
            self.see(results)
        return self.log


def make(seed: int) -> dict[str, Any]:
    return {"seed": seed, "most": 100}


def check(case: dict[str, Any]) -> str:
    import openvino

    ours = Program(ovjit, case["seed"], case["most"]).run()
    real = Program(openvino, case["seed"], case["most"]).run()
    said = [v for v in ours if isinstance(v, str)]
    for i, (a, b) in enumerate(zip(ours, real, strict=False)):
        if isinstance(a, tuple) and ("cannot grow" in a[3] or "a region of" in a[3]):
            return ""  # OpenVINO writes such results nowhere, or past the memory
        if isinstance(b, tuple) and "set new shape" in b[3]:
            return ""  # the array of an earlier call, which was shared, is there to be copied to
        if isinstance(a, tuple) or isinstance(b, tuple):
            if isinstance(a, tuple) and isinstance(b, tuple):
                return ""
            return f"{said}: ours {a}, real {b}"
        if isinstance(a, str) or isinstance(b, str):
            if a != b:
                return f"{said}: {a!r}, not {b!r}"
            continue
        for k, (u, v) in enumerate(zip(a, b, strict=True)):
            if isinstance(u, np.ndarray):
                if u.shape != v.shape or u.dtype != v.dtype or not np.array_equal(u, v):
                    return f"{said}: seen {i}.{k}: {u.dtype}{u.shape} {u.reshape(-1)[:6]}, not {v.dtype}{v.shape} {v.reshape(-1)[:6]}"
            elif u != v:
                return f"{said}: seen {i}.{k}: {u}, not {v}"
    return "" if len(ours) == len(real) else f"{said}: {len(ours)} values, not {len(real)}"


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for most in range(min(case["most"], max(STEPS)) - 1, 0, -1):
        yield {**case, "most": most}


def script(case: dict[str, Any]) -> str:
    return f"from tests.fuzz import fuzz_tensors\nprint(fuzz_tensors.check({json.dumps(case)}))"


if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
