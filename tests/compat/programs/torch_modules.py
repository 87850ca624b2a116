"""PyTorch modules that convert_model takes as they are: what comes out, and its results."""

import json
import warnings

import numpy as np
import openvino as ov
import torch

warnings.simplefilter("ignore")
torch.manual_seed(0)


class Scaled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.norm = torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)

    def forward(self, x, y=None, *, z=None):
        r = self.norm(self.layer(x))
        r = r if y is None else r + y
        return r if z is None else r * z


class Named(torch.nn.Module):
    def forward(self, a, b):
        return {"sum": a + b, "product": a * b}


class Several(torch.nn.Module):
    def forward(self, a, pair):
        return a + pair[0] * pair[1], [a.reshape(a.shape[0] * a.shape[1]), pair[0]]


class Branching(torch.nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x * 2
        return x - 1


class Block(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = torch.nn.Conv2d(channels, 4, 1)
        self.act = torch.nn.SiLU()

    def forward(self, x):
        return self.act(self.conv(x))


class Nested(torch.nn.Module):
    """Modules in lists in sequences: what names of nodes are made of."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Sequential(Block(3), torch.nn.Sequential(Block(4), torch.nn.ReLU()))
        self.heads = torch.nn.ModuleList(
            torch.nn.ModuleList([Block(4), torch.nn.Sigmoid()]) for _ in range(2)
        )
        self.last = torch.nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x)
        x = torch.cat([act(block(x) + x) * x for block, act in self.heads], 1)
        x = self.last(x.permute(0, 2, 3, 1))
        return torch.softmax(x, -1).view(1, -1)


def node_names(model):
    """Names of nodes that there are in both, and of weights that nothing is computed of."""
    types = {"Add", "Concat", "Convolution", "MatMul", "Multiply", "Relu", "Sigmoid", "Softmax", "Swish",
             "Transpose"}  # fmt: skip
    wanted = {"self.stem.0.conv.weight", "self.heads.1.0.conv.weight"}
    told = [(op.get_type_name(), op.get_friendly_name()) for op in model.get_ordered_ops()]
    return sorted(name for kind, name in told if kind in types or name in wanted)


t, four = torch.rand(2, 3), torch.rand(4)
module, cm = Scaled(), ov.convert_model
cases = {
    "tensor": lambda: cm(module, example_input=t),
    "tuple": lambda: cm(module, example_input=(t, torch.ones(2, 4))),
    "list": lambda: cm(module, example_input=[t]),
    "dict": lambda: cm(module, example_input={"z": four, "x": t}),
    "array": lambda: cm(module, example_input=t.numpy()),
    "ov.Tensor": lambda: cm(module, example_input=ov.Tensor(t.numpy())),
    "shape": lambda: cm(module, example_input=t, input=("x", [2, 3])),
    "interval": lambda: cm(module, example_input=t, input={"x": [ov.Dimension(1, 5), 3]}),
    "shape and type": lambda: cm(module, example_input=t, input=[([2, 3], np.float32)]),
    "traced": lambda: cm(torch.jit.trace(module.eval(), t)),
    "scripted": lambda: cm(torch.jit.script(torch.nn.Linear(3, 4)), example_input=t),
    "branching": lambda: cm(torch.jit.script(Branching()), example_input=t),
    "names": lambda: cm(Named(), example_input=(t, t)),
    "nested": lambda: cm(Several(), example_input=(t, (t, t))),
    "indices": lambda: cm(torch.nn.Embedding(5, 3), example_input=torch.zeros(2, 2, dtype=torch.int32)),
    "half": lambda: cm(torch.nn.Linear(3, 4).half(), example_input=t.half()),
    "bf16": lambda: cm(torch.nn.Linear(3, 4).bfloat16(), example_input=t.bfloat16()),
    "picture": lambda: cm(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.MaxPool2d(2)),
                          example_input=torch.zeros(1, 3, 8, 8)),
    "lstm": lambda: cm(torch.nn.LSTM(3, 4, 2, bidirectional=True), example_input=torch.zeros(5, 2, 3)),
    "attention": lambda: cm(torch.nn.MultiheadAttention(8, 2), example_input=(torch.rand(5, 2, 8),) * 3),
    "exported": lambda: cm(torch.export.export(Named(), (t, t.clone()))),  # one tensor would be one input
    "wrong": lambda: cm(module, example_input=(t, t)),
    "unknown": lambda: cm(module, example_input={"nothing": t}),
}  # fmt: skip
told = {}
for name, make in cases.items():
    torch.manual_seed(1)
    try:
        model = make()
    except RuntimeError as error:
        told[name] = {"error": str(error).splitlines()[0]}
        continue
    rng = np.random.default_rng(0)
    given = []
    for port in model.inputs:
        dims = [d.get_length() if d.is_static else None for d in port.partial_shape]
        shape = {"picture": (2, 3, 9, 9), "lstm": (4, 3, 3), "attention": (6, 3, 8)}.get(name, (2, 3))
        shape = (4,) if "z" in port.names else (2, 4) if "y" in port.names else shape
        assert all(d in (None, n) for d, n in zip(dims, shape, strict=True)), (name, dims)
        kind = port.element_type.to_dtype()
        whole = np.dtype(kind).kind == "i"
        given.append((rng.integers(0, 5, shape) if whole else rng.standard_normal(shape)).astype(kind))
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled(given)
    told[name] = {
        "inputs": [(sorted(p.names), len(p.partial_shape), str(p.element_type)) for p in model.inputs],
        "outputs": [(sorted(p.names), str(p.element_type)) for p in model.outputs],
        "shapes": [list(results[i].shape) for i in range(len(model.outputs))],
        "values": [results[i].astype(np.float64).reshape(-1).tolist() for i in range(len(model.outputs))],
    }
image = torch.zeros(1, 3, 4, 5)
traced = torch.jit.trace(Nested().eval(), image)
graph = str(traced.inlined_graph)
told["node names"] = {
    "module": node_names(cm(Nested(), example_input=image)),
    "traced": node_names(cm(traced, example_input=image)),
    "script": node_names(cm(torch.jit.script(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU())),
                            example_input=t)),
    "no module within": node_names(cm(torch.nn.Sigmoid(), example_input=t)),
    "graph is as it was": graph == str(traced.inlined_graph),
}  # fmt: skip
told["still in training"] = module.train() and cm(module, example_input=t) and module.training
print(json.dumps(told))
