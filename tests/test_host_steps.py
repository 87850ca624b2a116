"""Which operations have steps of the host, by plans alone: those that are known to have, and no others."""

from __future__ import annotations

import itertools
import zlib

import numpy as np
import pytest

from ovjit.errors import OvjitError
from ovjit.execution.build import make_program
from ovjit.graph import dtypes
from ovjit.graph.graph import Builder
from ovjit.graph.op import Op, all_ops
from ovjit.graph.shapes import ANY


def host_steps(record: Op, dtype: str, most: int) -> set[str]:
    """Operations of the host's steps: of samples whose data is an input of open batch."""
    found = set()
    rng = np.random.default_rng(zlib.crc32(record.name.encode()))
    for inputs, attrs in itertools.islice(record.samples(rng, dtype), most):
        if not all(a.size for a in inputs):
            continue
        b = Builder()
        values = [b.constant(a, dtypes.from_numpy(a.dtype)) for a in inputs[1:]]
        shape = (ANY, *inputs[0].shape[1:]) if inputs[0].ndim > 1 else inputs[0].shape
        given = {"shape": shape, "element_type": dtypes.from_numpy(inputs[0].dtype)}
        x = b.add("Parameter", (), given).output
        try:
            graph = b.finish(b.add(record, [x, *values], attrs).outputs)
            plan = make_program(graph, {}).plan([inputs[0].shape])
        except OvjitError:
            continue
        if plan.cut is not None:
            found |= {node.op.name for node in plan.cut.hosts}
        found |= {s.type for s in plan.steps or () if s.host is not None}
    return found


#: What runs on the host by element type of the data: what data decide the size of, strings, and types that a
#: kernel does not know. `UsedPart` is a view that is cut off between two programs.
CUT = {"UsedPart", "SparseFillEmptyRows"}
HOST = {
    "f32": CUT | {"MulticlassNms", "Range"},
    "i32": CUT | {"GridSample", "Interpolate", "StringTensorPack"},
    "u8": CUT | {"GridSample", "Range"},
}


@pytest.mark.parametrize("dtype", sorted(HOST))
def test_steps_of_the_host(dtype: str) -> None:
    """No operation falls back to NumPy that has not before; one that does no more leaves the list."""
    found: dict[str, str] = {}
    for record in all_ops():
        if record.samples is not None and dtype in (record.types or ("f32",)):
            found |= dict.fromkeys(host_steps(record, dtype, 3), record.name)
    assert found.keys() == HOST[dtype], found
