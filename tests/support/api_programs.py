"""Random programs for the API, which run on the real OpenVINO and on ovjit; used by `test_api_programs.py`:

python -m tests.support.api_programs openvino|ovjit FIRST LAST    the outcomes of each statement, as JSON
python -m tests.support.api_programs compare FIRST LAST           runs both, and prints what differs
python -m tests.support.api_programs show SEED                    the program of a seed

A program is some thirty statements. Each is a template of `TEMPLATES` whose slots are objects that earlier
statements made, or values of `VALUES`. Those that begin with $ are now and then of another kind. What a
statement gives, or the built-in exception that it raises, is its outcome. A program during which OpenVINO's
process ends counts up to there.
"""

from __future__ import annotations

import importlib
import io
import json
import random
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.both_packages import names_of, plain
from tests.support.run import python

#: Values by the names of slots. Those in capitals are made by templates, too.
VALUES: dict[str, str] = {
    "i": "0 | 1 | 2 | -1 | 5",
    "n": "1 | 2 | 3",
    "b": "True | False",
    "f": "0.5 | 2.0 | -1.0 | 255.0",
    "s": "'x' | 'y' | 'r' | 'z' | '' | 'none'",
    "dims": "[2, 3] | [2, 3] | [1, 3] | [] | [1] | [6] | [0, 3] | [3, 2] | [2, 3, 4, 5] | (2, 3)",
    "open": "[-1, 3] | [2, 3] | '[?,3]' | '[1..4,3]' | [-1, -1] | '...' | [ov.Dimension(1, 4), 3]"
    " | ov.PartialShape.dynamic()"
    " | ov.PartialShape([2, 3])",
    "dt": "np.float32 | np.float32 | np.int64 | np.uint8 | np.float16 | np.int32 | np.float64",
    "ty": "ov.Type.f32 | ov.Type.f32 | ov.Type.i64 | ov.Type.u8 | ov.Type.boolean | ov.Type.f16 | ov.Type.i32"
    " | ov.Type.u8 | ov.Type.bf16",
    "a": "ones(2, 3) | ones(2, 3) | ones(2, 3) * 2 | ones(1, 3) | ones(3, 2) | ones(6) | ones()"
    " | ones(2, 3, 'i8') | ones(2, 3, 'f8')"
    " | ones(2, 3)[:, ::-1] | ones(3, 2).T | ones(0, 3) | 2.0 | 3 | [[1.0, 2.0, 3.0]] | [1, 2]",
    "given": "$a | [$a] | {0: $a} | {'x': $a} | {'x': $T} | $T | [$T] | ($a,) | {$C.inputs[0]: $a}"
    " | {'none': @a} | {5: @a} | {0.5: @a} | [None] | object() | 'x' | {'x': None}",
    "slot": "0",
    "fit": "@fits | @fits | @fits | [@fits] | {0: @fits} | {'x': @fits} | {'x': $T} | [$T]"
    " | {0: @fits, 1: @fits} | [@fits, @fits] | {'x': @fits, 'z': @fits} | $given",
    "fits": "ones(2, 3) | ones(2, 3) * 2 | ones(2, 3) * 3 | ones(2, 3, 'i8') | ones(2, 3, 'f8')"
    " | ones(3, 2).T | [[1, 2, 3], [4, 5, 6]]",
    "lay": "'NCHW' | 'NHWC' | 'NC' | '...' | 'N...C' | 'CN' | '?C' | '[N,C]' | 'NN' | ''",
    "wrong": "None | -1 | 'x' | 1.5 | [] | {} | object() | [None] | (1, 2) | ones(2, 3) | True | np.int64(1)",
    "dev": "'CPU' | 'CPU' | 'CPU' | 'AUTO' | 'HETERO:CPU' | 'MULTI:CPU' | 'GPU' | 'XPU' | 'CPU.1'"
    " | 'AUTO:CPU'",
    "prop": "'NUM_STREAMS' | 'PERFORMANCE_HINT' | 'INFERENCE_NUM_THREADS' | 'INFERENCE_PRECISION_HINT'"
    " | 'NETWORK_NAME'"
    " | 'EXECUTION_DEVICES' | 'PERF_COUNT' | 'ENABLE_PROFILING' | 'OPTIMAL_NUMBER_OF_INFER_REQUESTS' | 'NONE'"
    " | 'ENABLE_CPU_PINNING' | 'EXECUTION_MODE_HINT' | 'DEVICE_ID' | 'AVAILABLE_DEVICES'",
    "value": "1 | 2 | 'LATENCY' | 'THROUGHPUT' | True | False | 'f32' | ov.Type.f32 | '' | 'YES' | 0"
    " | -1 | 'ACCURACY'",
    "config": "{} | {} | {@prop: @value} | {'NUM_STREAMS': 2} | {'PERF_COUNT': True}"
    " | {'PERFORMANCE_HINT': @value} | None",
    "unary": "relu | negative | absolute | sigmoid | exp | floor | logical_not | softplus | shape_of",
    "binary": "add | multiply | subtract | maximum | divide | equal | concat_ | matmul_",
    "path": "folder / 'm.xml' | folder / 'n.xml' | str(folder / 'm.xml') | folder / 'none.xml'"
    " | folder / 'm.bin' | folder",
}

#: Templates by the name of what they make, "" for what is only looked at.
TEMPLATES: dict[str, str] = {
    "T": """
ov.Tensor($a)
ov.Tensor($a, shared_memory=@b)
filled(ov.Tensor(@ty, $dims))
filled(ov.Tensor(@dt, @dims))
filled(ov.Tensor(@ty, ov.Shape(@dims)))
ov.Tensor($T, ov.Coordinate([0, 0]), ov.Coordinate([1, 2]))
filled($R.get_input_tensor())
filled($R.get_tensor($C.input($i)))
filled(ov.Tensor($C.input()))
""",
    "N": """
o13.@unary($N)
o13.@unary($N)
o13.@binary($N, $N)
o13.@binary($N, @a)
o13.reshape($N, @dims, @b)
o13.constant(@a, @dt)
o13.constant(@a)
o13.parameter(@dims, @dt, name=$s)
o13.parameter(ov.PartialShape(@open), @ty, name=$s)
o13.convert($N, @dt)
o13.transpose($N, [1, 0])
o13.reduce_sum($N, [@i], @b)
o13.softmax($N, @i)
o13.squeeze($N, [@i])
o13.unsqueeze($N, [@i])
o13.gather($N, @a, @i)
o13.result($N)
$M.get_ops()[$i]
$M.get_results()[$i]
$M.get_parameters()[$i]
$N.input_value($i).get_node()
""",
    "M": """
ov.Model([$N], parameters_of($N), $s)
ov.Model([o13.$unary($N)], parameters_of($N), $s)
ov.Model($N, parameters_of($N), $s)
ov.Model([$N], [$N], $s)
net($dims)
net($open)
net($open, 2)
$M.clone()
core.read_model($path)
core.read_model(stored)
ov.Model($M)
built($M, [$steps])
""",
    "C": """
core.compile_model($M, 'CPU', $config)
core.compile_model($M, 'CPU', F32)
core.compile_model($M, 'CPU', F32)
core.compile_model(net($open), 'CPU', F32)
core.compile_model(net($dims), 'CPU', F32)
core.compile_model($path, 'CPU')
again(C0, {})
""",
    "R": """
$C.create_infer_request()
$C.create_infer_request()
""",
    "": """
$T.shape
$T.data
$T.size
$T.element_type
$T.byte_size
$T.strides
$T.is_continuous()
$T.get_size(), $T.get_byte_size(), $T.get_shape()
setattr($T, 'shape', $dims)
@T.set_shape($dims)
$T.data.__setitem__(..., $f)
$T.copy_to($T)
$T.copy_from(ones(2, 3))
$T.str_data
$T.bytes_data
setattr($T, 'str_data', $a)
repr($T)
$T == $T
info($N)
$N.get_output_size(), $N.get_input_size()
$N.output($i).get_partial_shape()
$N.output($i).get_index()
$N.output($i).get_names()
$N.output($i).set_names({$s})
$N.output($i).add_names({$s})
$N.input($i).get_partial_shape()
$N.get_friendly_name() == $N.get_friendly_name()
$N.set_friendly_name($s)
$N.get_attributes()
$N.shape
$N.get_element_type()
$N.set_partial_shape(ov.PartialShape($open))
$N.set_element_type($ty)
$N.set_layout(ov.Layout($lay))
$N.layout
$N.outputs()
$N.inputs()
$N.set_argument(0, $N.output($i))
$N.output(0).replace($N.output(0))
$N.input(0).replace_source_output($N.output($i))
$N.validate()
$N.get_rt_info().get('a')
$N.rt_info.__setitem__('a', $value)
$N.get_type_info().name
$N.data
$N.get_vector()
$N.get_output_partial_shape($i)
$N.get_output_element_type($i)
len($M.get_ops()), len($M.get_results())
[n.get_type_name() for n in $M.get_ordered_ops()]
$M.inputs
[port.partial_shape for port in $M.outputs]
$M.input($i).partial_shape
$M.input($s).partial_shape
$M.output($i).partial_shape
$M.output().element_type
$M.input($s).get_names()
$M.get_friendly_name() == $s
$M.reshape($open)
$M.reshape({0: $open})
$M.reshape({$s: $open})
$M.reshape({$M.input(0): $open})
$M.reshape($wrong)
$M.add_outputs($s)
$M.add_outputs([(@s, @i)])
len($M.add_outputs($N.output($i)))
$M.add_results([o13.result($N)])
$M.remove_result($M.get_results()[$i])
$M.add_parameters([$N])
$M.remove_parameter($M.get_parameters()[$i])
$M.replace_parameter($i, o13.parameter($dims, $dt))
$M.validate_nodes_and_infer_types()
$M.is_dynamic()
$M.set_rt_info($value, [$s, 'b'])
$M.get_rt_info([$s, 'b']).astype(int)
$M.has_rt_info([$s, 'b'])
$M.get_batch()
ov.get_batch($M)
ov.set_batch($M, $i)
$M.get_result_index($N.output($i))
$M.get_parameter_index($M.get_parameters()[$i])
$M.get_output_op($i).get_type_name()
$M.get_output_size()
$M.evaluate([filled(ov.Tensor(ov.Type.f32, ov.Shape([]))) for _ in range(2)], [$T])
set(core.query_model(net(@dims), $dev, {}).values())
set(core.query_model(net(@dims), $dev).values())
core.set_property($dev, {'PERF_COUNT': $b})
core.get_property($dev, 'PERF_COUNT')
core.get_property($dev, 'NONE')
core.available_devices
core.add_extension($wrong)
core.read_model($wrong)
core.compile_model($wrong, $dev)
core.compile_model($M, $dev, $config).inputs
ov.compile_model($M, $dev).inputs
core.create_context($dev, {})
core.get_default_context($dev)
ov.RemoteTensor()
$C.create_infer_request($wrong)
$C.inputs
$C.outputs
$C.input($s).partial_shape
$C.output($i).element_type
$C.input($i).get_any_name()
$C.get_property($prop_of_model)
$C.set_property({$prop: $value})
values($C($given))
values($C($given, share_inputs=@b))
values($C($given, share_outputs=@b))
values($R.infer($given))
values($R.infer($given))
values($R.infer($given, share_inputs=@b, share_outputs=@b))
started($R, $given)
called($R, $given, $wrong)
$R.wait_for($n)
$R.wait()
$R.set_tensor($s, $T)
$R.set_tensor($C.input($i), $T)
$R.set_input_tensor($T)
$R.set_input_tensor($i, $T)
$R.set_input_tensors([$T])
$R.set_tensors({$s: $T})
$R.set_output_tensor($i, $T)
$R.set_output_tensors({$i: $T})
$R.get_tensor($s).shape
$R.get_input_tensor($i).shape
$R.get_output_tensor($i).element_type
$R.input_tensors
$R.model_inputs
$R.query_state()
$R.cancel()
$R.userdata
$R.set_callback($wrong)
waited($R, $given, $wrong)
$R.get_compiled_model().inputs
len($R.profiling_info) > 0
$R.results.keys()
queued($C, $n, [$given, $given], $b)
queued($C, $wrong, [$given], $b)
ov.save_model($M, $path)
ov.save_model($M, $path, $b)
ov.serialize($M, $path)
core.read_model($path).inputs
type($C.export_model()).__name__
again(C0, {}).inputs
ov.Shape($dims), len(ov.Shape($dims))
ov.PartialShape($open).is_static
ov.PartialShape($open).rank
ov.PartialShape($open).to_string()
ov.PartialShape($open)[$i]
ov.PartialShape($open) == ov.PartialShape($open)
ov.PartialShape($open).compatible(ov.PartialShape($open))
ov.PartialShape($open).get_max_shape()
ov.PartialShape($wrong)
ov.Layout($lay).has_name($s)
ov.Layout($lay).get_index_by_name('C')
ov.Layout($lay) == $lay
ov.Layout($wrong)
ov.layout_helpers.get_batch(ov.Layout($lay))
ov.Dimension($i).is_static, ov.Dimension($i, $n)
ov.Dimension($wrong)
ov.Type($dt), $ty.to_dtype()
ov.Type($wrong)
$ty.size, $ty.bitwidth, $ty.is_real(), $ty.get_type_name()
ov.Coordinate($dims)
ov.Strides($dims)
ov.AxisSet($dims)
ov.OVAny($value).astype(int)
ov.OVAny(@value).value
""",
}
VALUES["prop_of_model"] = "'NETWORK_NAME' | 'PERF_COUNT' | 'NONE' | 'EXECUTION_DEVICES' | 'NUM_STREAMS'"
#: Steps of `built`: texts that are evaluated with a PrePostProcessor's parts.
VALUES["steps"] = ", ".join(["$step"] * 3) + " | $step | $step, $step"
VALUES["step"] = " | ".join(
    f'"{step}"'
    for step in (
        "i.tensor().set_element_type($ty)",
        "i.tensor().set_layout(ov.Layout($lay))",
        "i.model().set_layout(ov.Layout($lay))",
        "i.tensor().set_shape($dims)",
        "i.preprocess().convert_element_type($ty)",
        "i.preprocess().convert_element_type(ov.Type.f32)",
        "i.preprocess().mean($f)",
        "i.preprocess().scale([$f, $f, 1.0])",
        "i.preprocess().convert_layout(ov.Layout($lay))",
        "i.preprocess().resize(preprocess.ResizeAlgorithm.RESIZE_LINEAR, 4, 5)",
        "i.preprocess().reverse_channels()",
        "i.preprocess().crop([0, 0], [2, 2])",
        "i.preprocess().pad([0, 0], [0, 1], $f, preprocess.PaddingMode.CONSTANT)",
        "i.preprocess().custom(lambda node: o13.relu(node))",
        "i.tensor().set_color_format(preprocess.ColorFormat.RGB)",
        "i.tensor().set_spatial_static_shape($n, $n)",
        "i.tensor().set_from($T)",
        "out.tensor().set_element_type($ty)",
        "out.postprocess().convert_element_type($ty)",
        "out.tensor().set_layout(ov.Layout($lay))",
        "out.postprocess().convert_layout(ov.Layout($lay))",
        "out.postprocess().custom(lambda node: o13.negative(node.get_node().input_value(0)))",
        "p.input($s).tensor().set_element_type($ty)",
        "p.output($i).tensor().set_element_type($ty)",
        "i.preprocess().mean($wrong)",
        "i.tensor().set_element_type($wrong)",
    )
).replace('"', "'''")
#: Templates of programs about running: requests with states, queues that stay, tensors in place.
RUNNING: dict[str, str] = {
    "T": TEMPLATES["T"],
    "N": """
o13.@unary($N)
o13.@binary($N, $N)
o13.constant(@a, @dt)
""",
    "M": """
net($open)
counter($dims)
counter([2, 3])
twin($open)
$M.clone()
""",
    "C": """
primed(core.compile_model($M, 'CPU', F32))
primed(core.compile_model(counter([2, 3]), 'CPU', F32))
primed(core.compile_model(twin($open), 'CPU', F32))
primed(core.compile_model($M, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32', 'NUM_STREAMS': $n}))
primed(again($C, {}))
primed($R.get_compiled_model())
""",
    "R": """
primed($C.create_infer_request())
primed($C.create_infer_request())
$Q[@slot]
""",
    "Q": """
primed_queue(ov.AsyncInferQueue($C, $n))
primed_queue(ov.AsyncInferQueue($C))
""",
    "S": """
$R.query_state()[$i]
$R.query_state()[0]
""",
    "": """
values($R.infer($fit))
values($R.infer($fit))
values($R.infer())
values($R.infer({}))
values($R.infer([$T]))
values($C($fit))
values($C({}))
values($C.infer_new_request($fit))
$S.name
$S.state.shape, $S.state.element_type
np.array($S.state.data)
setattr($S, 'state', $T)
setattr($S, 'state', $wrong)
$S.reset()
$R.reset_state()
len($R.query_state())
[one.name for one in $R.query_state()]
begun($Q, $fit, $i)
begun($Q, $fit)
$Q.set_callback(lambda request, data: None)
$Q.set_callback(lambda request, data: seen.append(data))
waits_for($Q, $fit, $n)
$Q.set_callback($wrong)
$Q.wait_all()
len($Q), $Q.is_ready()
$Q.userdata
$Q.get_idle_request_id() < len($Q)
[type(one).__name__ for one in $Q]
$Q[0].get_input_tensor().shape
np.array($Q[0].get_input_tensor().data).shape
raised_in($Q, $fit, 1)
raised_in_request($R, $fit)
twice($R, $fit, $fit)
begun($R, $fit)
begun($R, $fit, $i)
$R.wait()
$R.wait_for(1000)
$R.set_callback(lambda data: seen.append(data), $i)
list(seen)
seen.clear()
$R.userdata
$R.set_tensor('x', $T)
$R.set_tensor($C.input(0), $T)
$R.set_input_tensor($T)
$R.set_input_tensor($i, $T)
$R.set_output_tensor($T)
$R.set_output_tensor($i, $T)
$R.set_output_tensors({0: $T})
$R.set_input_tensors({0: $T})
np.array($R.get_output_tensor($i).data)
np.array($R.get_input_tensor($i).data).shape
np.array($R.get_tensor('y').data)
np.array($T.data)
$T.data.__setitem__(..., $f)
@T.set_shape($dims)
setattr($T, 'shape', $dims)
$T.copy_from($T)
$T.copy_to($T)
kept($R, $fit)
lent($R, $T)
shared($R, $fit)
$R.results.to_dict().keys().__len__()
[np.array(v) for v in $R.results.to_tuple()]
$R.infer($fit)[$i].shape
$R.infer($fit)[$s].shape
$R.infer($fit).to_tuple()[$i].dtype
$R.infer($fit, share_inputs=@b, share_outputs=@b)[0]
$R.infer($fit, decode_strings=@b)[0]
$R.infer($wrong)
$C($wrong)
$C.get_property($prop_of_model)
$C.get_property($prop)
$M.reshape($open).inputs
$M.reshape({'x': $open}).outputs
$M.input(0).get_node().set_partial_shape(ov.PartialShape($open))
$M.validate_nodes_and_infer_types()
[one.get_variable_id() for one in $M.get_sinks()]
[v.get_info().variable_id for v in $M.get_variables()]
$M.get_sink_index($M.get_sinks()[$i])
$M.remove_sink($M.get_sinks()[$i])
$M.get_variable_by_id($s).get_info().variable_id
len($M.get_sinks()), len($M.sinks)
$M.outputs
core.compile_model($M, 'CPU', $config).outputs
core.set_property({'PERF_COUNT': $b})
core.set_property('CPU', {$prop: $value})
core.get_property('CPU', $prop)
""",
}
#: Programs from this seed on are about running.
RUN_FROM = 1_000_000
#: What every program begins with.
FIRST_RUNNING = {
    "T": "ov.Tensor(ones(2, 3))",
    "M": "counter([2, 3])",
    "N": "P([2, 3], name='x')",
    "C": "primed(core.compile_model(M0, 'CPU', F32))",
    "R": "primed(C0.create_infer_request())",
    "Q": "primed_queue(ov.AsyncInferQueue(C0, 2))",
    "S": "R0.query_state()[0]",
}
FIRST = {
    "T": "ov.Tensor(ones(2, 3))",
    "M": "net([2, 3])",
    "N": "P([2, 3], name='x')",
    "C": "core.compile_model(M0, 'CPU', F32)",
    "R": "C0.create_infer_request()",
}
#: How often a slot is filled by what is of another kind.
ODD = 0.06
STATEMENTS = 30


class Program:
    """The statements of one seed."""

    def __init__(self, seed: int):
        self.rng = random.Random(seed)
        running = seed >= RUN_FROM
        templates = RUNNING if running else TEMPLATES
        self.made: dict[str, list[str]] = {kind: [] for kind in templates if kind}
        self.lines: list[str] = []
        for kind, source in (FIRST_RUNNING if running else FIRST).items():
            self.make(kind, source)
        kinds = [*("TMCRQS" if running else "TNNMCR"), "", "", "", "", "", "", ""]
        while len(self.lines) < STATEMENTS:
            kind = self.rng.choice(kinds)
            template = self.rng.choice(templates[kind].strip().splitlines())
            source = self.filled(template)
            if kind:
                self.make(kind, source)
            else:
                self.lines.append(source)

    def make(self, kind: str, source: str) -> None:
        name = f"{kind}{len(self.made[kind])}"
        self.made[kind].append(name)
        self.lines.append(f"{name} = {source}")

    def filled(self, template: str) -> str:
        def slot(found: re.Match[str]) -> str:
            odd = found[1] == "$" and self.rng.random() < ODD
            name = found[2]
            if name in self.made:
                kind = (
                    self.rng.choice([k for k in self.made if self.made[k]]) if odd and name != "C" else name
                )
                return self.rng.choice(self.made[kind][-3:])
            odd = odd and name not in ("given", "config", "path", "steps", "step")
            return self.filled(self.rng.choice(VALUES["wrong" if odd else name].split(" | ")))

        return re.sub(r"([$@])(\w+)", slot, template)


def helpers(ov: Any, names: dict[str, Any], folder: Path) -> None:
    """What the templates call."""
    o13 = names["o13"]

    def ones(*shape: Any) -> np.ndarray:
        dtype = shape[-1] if shape and isinstance(shape[-1], str) else "f4"
        return np.ones([n for n in shape if n != dtype], dtype)

    def filled(tensor: Any) -> Any:
        if tensor.element_type != ov.Type.string:
            tensor.data[...] = 1
        return tensor

    def net(shape: Any, count: int = 1) -> Any:
        inputs = [o13.parameter(ov.PartialShape(shape), np.float32, name=n) for n in "xz"[:count]]
        for node in inputs:
            node.output(0).set_names({node.get_friendly_name()})
        y = o13.add(inputs[0], inputs[-1])
        y.output(0).set_names({"y"})
        r = o13.relu(y)
        r.output(0).set_names({"r"})
        return ov.Model([o13.result(y), o13.result(r)][: 3 - count], inputs, "net")

    def parameters_of(node: Any) -> list[Any]:
        found, pending = {}, [node]
        while pending:
            one = pending.pop()
            if one.get_type_name() == "Parameter":
                found[one.get_friendly_name()] = one
            pending += [one.input_value(i).get_node() for i in range(one.get_input_size())]
        return [found[name] for name in sorted(found)]

    def values(results: Any) -> list[Any]:
        return [np.array(value) for value in results.values()]

    def started(request: Any, inputs: Any) -> list[Any]:
        request.start_async(inputs)
        request.wait()
        return values(request.results)

    def waited(request: Any, inputs: Any, userdata: Any) -> Any:
        request.start_async(inputs, userdata)
        request.wait()
        return type(request.userdata).__name__

    def called(request: Any, inputs: Any, userdata: Any) -> list[Any]:
        seen: list[Any] = []
        request.set_callback(lambda data: seen.append(type(data).__name__), userdata)
        request.start_async(inputs)
        request.wait()
        return seen

    def queued(compiled: Any, jobs: Any, inputs: list[Any], failing: bool) -> Any:
        queue = ov.AsyncInferQueue(compiled, jobs)
        seen: list[Any] = []

        def callback(request: Any, number: Any) -> None:
            seen.append((number, [t.shape for t in request.output_tensors]))
            if failing and number:
                raise ValueError("as asked")

        queue.set_callback(callback)
        for number, given in enumerate(inputs):
            queue.start_async(given, number)
        queue.wait_all()
        return len(queue), queue.is_ready(), sorted(seen, key=lambda item: item[0])

    def again(compiled: Any, config: Any) -> Any:
        return names["core"].import_model(io.BytesIO(compiled.export_model().getvalue()), "CPU", config)

    def counter(shape: Any) -> Any:
        x = o13.parameter(ov.PartialShape(shape), np.float32, name="x")
        x.output(0).set_names({"x"})
        start = o13.constant(np.zeros([d if isinstance(d, int) and d >= 0 else 1 for d in shape], np.float32))
        sinks, outs = [], []
        for name in "ab":
            before = o13.read_value(start, name)
            after = o13.add(before, x)
            sinks.append(o13.assign(after, name))
            outs.append(o13.result(after))
        outs[0].input_value(0).set_names({"y"})
        return ov.Model(outs, sinks, [x], "counter")

    def twin(shape: Any) -> Any:
        x, z = (o13.parameter(ov.PartialShape(shape), np.float32, name=n) for n in "xz")
        for node in (x, z):
            node.output(0).set_names({node.get_friendly_name()})
        y = o13.multiply(x, z)
        y.output(0).set_names({"y"})
        return ov.Model([o13.result(y), o13.result(x)], [x, z], "twin")

    def primed(made: Any) -> Any:
        """A request or compiled model whose tensors are filled: OpenVINO does not initialise them."""
        if not hasattr(made, "input_tensors"):
            request = made.create_infer_request()
            try:
                made(
                    [
                        np.ones(
                            [d.get_length() if d.is_static else 2 for d in port.partial_shape], np.float32
                        )
                        for port in made.inputs
                    ]
                )
            except RuntimeError:
                pass
            return made
        for tensor in (*request.input_tensors, *request.output_tensors):
            filled(tensor)
        return made

    def primed_queue(queue: Any) -> Any:
        for k in range(len(queue)):
            primed(queue[k])
        return queue

    def begun(runner: Any, inputs: Any, userdata: Any = None) -> Any:
        runner.start_async(inputs, userdata)
        runner.wait_all() if hasattr(runner, "wait_all") else runner.wait()

    def raised_in(queue: Any, inputs: Any, number: int) -> Any:
        """A callback raises once; the queue is used again."""

        def callback(request: Any, data: Any) -> None:
            raise KeyError("as asked")

        queue.set_callback(callback)
        try:
            for k in range(number):
                queue.start_async(inputs, k)
            queue.wait_all()
        finally:
            queue.set_callback(lambda request, data: None)

    def raised_in_request(request: Any, inputs: Any) -> Any:
        def callback(data: Any) -> None:
            raise KeyError("as asked")

        request.set_callback(callback, None)
        try:
            request.start_async(inputs)
            request.wait()
        finally:
            request.set_callback(lambda data: None, None)

    def waits_for(queue: Any, inputs: Any, number: int) -> Any:
        found: list[Any] = []
        queue.set_callback(
            lambda request, data: found.append((data, [v.shape for v in request.results.values()]))
        )
        for k in range(number):
            queue.start_async(inputs, k)
        queue.wait_all()
        return sorted(found)

    def twice(request: Any, first: Any, second: Any) -> Any:
        one = values(request.infer(first))
        return one, values(request.infer(second)), values(request.infer(first))

    def kept(request: Any, inputs: Any) -> Any:
        """Results that were copied do not change with the next call."""
        before = request.infer(inputs)
        copies = values(before)
        request.infer(inputs)
        return [np.array_equal(a, b, equal_nan=True) for a, b in zip(copies, values(before), strict=True)]

    def lent(request: Any, tensor: Any) -> Any:
        """A tensor that is set stays the user's."""
        request.set_input_tensor(0, tensor)
        before = values(request.infer())
        tensor.data[...] = 3
        return before, values(request.infer()), np.array(tensor.data)

    def shared(request: Any, inputs: Any) -> Any:
        """Results that are shared follow the next call."""
        first = request.infer(inputs, share_outputs=True)
        copies = values(first)
        again = values(request.infer(inputs))
        return copies, again, [v.shape for v in first.values()]

    def built(model: Any, steps: list[str]) -> Any:
        processor = names["preprocess"].PrePostProcessor(model)
        parts = {"p": processor, "i": processor.input(0), "out": processor.output(0)}
        for step in steps:
            eval(step, names, parts)
        return processor.build()

    names.update(
        ones=ones, filled=filled, net=net, parameters_of=parameters_of, values=values, started=started,
        called=called, waited=waited, queued=queued, again=again, built=built, folder=folder, core=ov.Core(),
        counter=counter, twin=twin, primed=primed, primed_queue=primed_queue, begun=begun,
        raised_in=raised_in, raised_in_request=raised_in_request,
        waits_for=waits_for, twice=twice, kept=kept, lent=lent, shared=shared, seen=[],
        F32={"INFERENCE_PRECISION_HINT": "f32"},
    )  # fmt: skip
    o13.concat_ = lambda a, b: o13.concat([a, b], 0)
    o13.matmul_ = lambda a, b: o13.matmul(a, b, False, False)
    ov.save_model(net([2, 3]), folder / "m.xml")
    names["stored"] = str(folder / "m.xml")


def outcome(line: str, names: dict[str, Any]) -> Any:
    """What a statement comes to; None where a name is missing, whose statement has failed."""
    try:
        name, equals, source = re.fullmatch(r"(?:([A-Z]\d+)( = ))?(.*)", line, re.S).groups()  # type: ignore[union-attr]
        value = eval(source, names)
        if equals:
            names[name] = value
            return "made"
        return plain(value)
    except NameError:
        return None
    except Exception as error:
        return f"raises {next(k for k in type(error).__mro__ if k.__module__ == 'builtins').__name__}"


def run_programs(package: str, first: int, last: int) -> None:
    warnings.simplefilter("ignore")
    ov = importlib.import_module(package)
    for seed in range(first, last):
        folder = Path(tempfile.mkdtemp())
        names = names_of(ov)
        helpers(ov, names, folder)
        print(json.dumps([seed]), flush=True)
        for line in Program(seed).lines:
            result = outcome(line, names)
            print(json.dumps(result, default=str).replace(str(folder), "folder"), flush=True)
        names.clear()
        shutil.rmtree(folder)


def outcomes(package: str, first: int, last: int) -> Iterator[tuple[int, list[Any]]]:
    """(seed, outcomes) of programs; of one that ends the process, those before."""
    while first < last:
        done = python("-m", "tests.support.api_programs", package, first, last, seconds=900)
        found: list[tuple[int, list[Any]]] = []
        for line in done.stdout.splitlines():
            row = json.loads(line)
            if isinstance(row, list) and len(row) == 1 and isinstance(row[0], int):
                found.append((row[0], []))
            else:
                found[-1][1].append(row)
        yield from found
        if done.returncode == 0:
            return
        if package != "openvino" or not found:
            raise AssertionError(f"{package} ended with {done.returncode}: {done.stderr[-3000:]}")
        first = found[-1][0] + 1


def differences(first: int, last: int) -> list[tuple[int, int, str, Any, Any]]:
    """(seed, number of the statement, statement, OpenVINO's outcome, ovjit's): the first of each program."""
    found = []
    for (seed, theirs), (_, ours) in zip(
        outcomes("openvino", first, last), outcomes("ovjit", first, last), strict=True
    ):
        lines = Program(seed).lines
        for number, (line, real, mine) in enumerate(zip(lines, theirs, ours, strict=False)):
            if real != mine:
                found.append((seed, number, line, real, mine))
                break
    return found


def main(what: str, *numbers: str) -> None:
    if what == "show":
        print(*Program(int(numbers[0])).lines, sep="\n")
    elif what == "compare":
        for seed, number, line, real, mine in differences(*map(int, numbers)):
            print(f"{seed}.{number}: {line}\n  OpenVINO: {str(real)[:200]}\n  ovjit:    {str(mine)[:200]}")
    else:
        run_programs(what, *map(int, numbers))


if __name__ == "__main__":
    main(*sys.argv[1:])
