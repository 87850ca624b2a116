"""Random programs of pre- and post-processing beside OpenVINO: see `fuzz_preprocess`. And what they found."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fuzz import fuzz_preprocess
from tests.support.sweeps import parts


@pytest.mark.parametrize("seeds", parts(range(40), 15))
@pytest.mark.timeout(3600)
def test_random_programs(seeds: range) -> None:
    found = {seed: fuzz_preprocess.check(fuzz_preprocess.make(seed)) for seed in seeds}
    assert not {seed: what for seed, what in found.items() if what}


IN, OUT = "p.input(0)", "p.output(0)"
#: What the program does, and changes of its input: a layout, a body, no fixed rank, a shape.
FOUND: dict[str, tuple[list[str], dict[str, Any]]] = {
    "a layout follows a Result to another tensor": (
        [f"{IN}.tensor().set_element_type(t.f64)"], {"body": "itself", "layout": "NC??"}
    ),
    "names of a result of the input itself": (
        [f"{OUT}.tensor().set_element_type(t.f16)"], {"body": "itself"}
    ),
    "indices and an open layout": (
        [f"{IN}.preprocess().convert_layout(L('C...'))",
         f"{IN}.preprocess().convert_layout([2, 0, 1, 3])"], {}
    ),
    "no indices": ([f"{IN}.preprocess().convert_layout([])"], {}),
    "an axis without a name is not added": (
        [f"{IN}.tensor().set_layout(L('HWC'))", f"{IN}.preprocess().convert_layout(L('NC??'))"], {}
    ),
    "an output gets no axis": (
        [f"{OUT}.model().set_layout(L('NHWC'))", f"{OUT}.tensor().set_layout(L('NCDHW'))"], {}
    ),
    "a layout that says nothing": ([f"{IN}.model().set_layout('...')"], {"layout": "NHWC"}),
    "such a layout of an image": (
        [f"{IN}.model().set_layout(L('NCHW'))", f"{IN}.tensor().set_layout('...')",
         f"{IN}.tensor().set_color_format(v.ColorFormat.RGB)"], {}
    ),
    "such a layout behind indices": (
        [f"{OUT}.model().set_layout(L('NCHW'))", f"{OUT}.postprocess().convert_layout([3, 0, 1, 2])",
         f"{OUT}.postprocess().convert_layout(L(''))"], {}
    ),
    "an image without channels": (
        [f"{IN}.tensor().set_layout(L('N...'))", f"{IN}.tensor().set_color_format(v.ColorFormat.RGB)"], {}
    ),
    "planes of any rank": (
        [f"{IN}.tensor().set_color_format(v.ColorFormat.I420_THREE_PLANES)",
         f"{IN}.preprocess().convert_color(v.ColorFormat.BGR)"], {"shape": None}
    ),
    "gray of any rank": (
        [f"{IN}.tensor().set_color_format(v.ColorFormat.NV12_SINGLE_PLANE)",
         f"{IN}.preprocess().convert_color(v.ColorFormat.GRAY)"], {"shape": None}
    ),
    "channels of any rank, from the end": (
        [f"{IN}.tensor().set_layout('N...C')", f"{IN}.preprocess().reverse_channels()"], {"shape": None}
    ),
    "pads of any rank": (
        [f"{IN}.preprocess().pad([0, 0, 2, 0], [1, 2, 0, 1], 0.5, v.PaddingMode.CONSTANT)"], {"shape": None}
    ),
    "a layout of any rank": ([f"{IN}.model().set_layout(L('NCHW'))"], {"shape": None}),
}  # fmt: skip
PLAIN = {"rank": 4, "shape": [1, 3, 4, 6], "full": [1, 3, 4, 6], "channels": 3, "last": False, "type": "f32",
         "body": "relu", "names": ["in0"], "layout": None}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_programs_that_differed(name: str) -> None:
    calls, changes = FOUND[name]
    case = {"seed": 1, "inputs": [{**PLAIN, **changes}], "outputs": 1, "calls": calls}
    assert not fuzz_preprocess.check(case)
