"""A tour of ovjit: prints a small model at each stage from its graph to its answer.

    python docs/tour.py

docs/architecture.md explains the stages.
"""

import numpy as np

import ovjit as ov
from ovjit import compiler
from ovjit.codegen.cpu.host import host_target
from ovjit.codegen.cpu.targets import target_of
from ovjit.compiler.options import Context, Options
from ovjit.compiler.pass_pipeline import PIPELINE, run_passes
from ovjit.graph import interp
from ovjit.planning.fuse import fuse


def title(text):
    print(f"\n--- {text}\n")


# A model, as a user builds it: a convolution with bias, its swish written out, and a softmax.
rng = np.random.default_rng(0)
ops = ov.opset13
image = ops.parameter([1, 3, 16, 16], np.float32, name="image")
weights = rng.standard_normal((24, 3, 3, 3)).astype(np.float32) * np.float32(0.2)
y = ops.convolution(image, ops.constant(weights), [2, 2], [1, 1], [1, 1], [1, 1])
y = ops.add(y, ops.constant(rng.standard_normal((1, 24, 1, 1)).astype(np.float32)))
y = ops.multiply(y, ops.sigmoid(y))
y = ops.reduce_mean(y, ops.constant(np.array([2, 3])), False)
model = ov.Model([ops.softmax(y, 1)], [image], "tour")

title("The graph: immutable, element types by name, inferred shapes")
graph = model._graph()
print(graph)

title(f"After the passes ({', '.join(PIPELINE['graph'])})")
context = Context(host_target(), Options())
lowered = run_passes(graph, context)
print(lowered)

title("Groups: each becomes a kernel or a view; nodes behind an anchor are its epilogue")
for group in fuse(lowered, context):
    print(group)

title("A program: lowerings, layouts, packed weights, kernels")
program = compiler.compile(graph, *context)
for lowering in program.lowerings:
    print(f"{type(lowering).__name__:20s} {[kernel.name for kernel in lowering.kernels]}")

title("The source of one kernel, as Numba compiles it")
softmax = next(kernel for kernel in program.kernels if kernel.name.startswith("softmax"))
print(softmax.source)

title("The same for a target that this machine need not be")
foreign = compiler.compile(graph, target_of("neon"), Options())
print([kernel.name for kernel in foreign.kernels if "neon" in kernel.name])

title("The plan for one set of shapes: steps with their chunks, one arena")
plan = program.plan([(1, 3, 16, 16)])
for step in plan.steps:
    name = step.kernel.name if step.kernel is not None else "a reference step"
    print(f"{step.type:12s} {name:44s} {step.chunks:3d} chunks {step.flops / 1e3:9.1f} kflop")
print(f"arena: {plan.arena_size} bytes")

title("An inference, beside the references in NumPy, and its profile")
compiled = ov.Core().compile_model(model, "CPU", {"PERF_COUNT": True, "INFERENCE_PRECISION_HINT": "f32"})
request = compiled.create_infer_request()
data = rng.standard_normal((1, 3, 16, 16)).astype(np.float32)
result = request.infer([data])[0]
(want,) = interp.evaluate(graph, [data])
print(f"largest difference: {np.abs(result - want).max():.1e}")
for row in request.get_profiling_info():
    if row.status.name == "EXECUTED":
        print(f"{row.node_type:12s} {row.exec_type:44s} {1e6 * row.real_time.total_seconds():6.0f} us")
