"""IR that ovjit writes is read by the real OpenVINO, what that writes is read by ovjit, and all have the same
results: over the samples of the operations, by default a part of them, all marked `long`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest

import ovjit
from ovjit.readers.ir.writer import to_bytes
from tests.fuzz import fuzz_bases
from tests.support.run import python

EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
#: Of how many samples the default suite takes one.
PART = 150
#: What OpenVINO's own reader refuses of what its documents allow: by the words of its message.
NOT_READ = (
    "ie_internal_opset",  # operations of its plugins
    "unsupported opset: extension",  # those that its passes make, such as GatedDeltaNet
    "to_shape was called on a dynamic shape",
    "While validating node",  # element types that it has less of
    "The element type of the input tensor must be a bf16, f16, f32",  # FakeConvert of f64
)
#: Pads of open shapes are forgotten by its CPU device.
OTHER_SHAPES = frozenset(("Interpolate",))
#: Some samples of these end the process, or not, as what is behind their inputs in memory has it.
CRASHES = frozenset(("RDFT", "IRDFT"))


def numbers() -> list[tuple[int, int]]:
    return [(i, k) for i, row in enumerate(fuzz_bases.samples()) for k in range(len(row))]


def results(ov: Any, model: Any, arrays: list[np.ndarray]) -> list[np.ndarray]:
    request = ov.Core().compile_model(model, "CPU", EXACT).create_infer_request()
    request.infer(arrays)
    return [
        np.array(t.bytes_data if "string" in str(t.element_type) else t.data) for t in request.output_tensors
    ]


def difference(
    number: tuple[int, int], folder: Path, before_openvino: Callable[[], None] = lambda: None
) -> str:
    """What is different, "" for nothing. `before_openvino` is called before OpenVINO runs the sample."""
    model, feeds = fuzz_bases.base(number), fuzz_bases.feeds(number)
    arrays = [feeds[p.get_friendly_name()] for p in model.get_parameters()]
    ours = results(ovjit, model, arrays)
    text, weights = to_bytes(model)
    read = results(ovjit, ovjit.Core().read_model(text, weights), arrays)
    if [o.tobytes() for o in read] != [o.tobytes() for o in ours]:
        return "ovjit reads something else than it wrote"
    try:
        theirs = openvino.Core().read_model(text, weights)
    except RuntimeError as error:
        return "" if any(part in str(error) for part in NOT_READ) else f"OpenVINO does not read it: {error}"
    openvino.save_model(theirs, folder / "model.xml", compress_to_fp16=False)
    back = results(ovjit, ovjit.Core().read_model(folder / "model.xml"), arrays)
    if not all(_same(a, b) for a, b in zip(ours, back, strict=True)):
        return "what came back has other results"
    before_openvino()
    try:
        want = results(openvino, theirs, arrays)
    except RuntimeError:
        return ""  # read and written, but its CPU device does not run it
    name = fuzz_bases.samples()[number[0]][0].record.name
    for i, (a, b) in enumerate(zip(ours, want, strict=True)):
        if a.dtype != b.dtype or (a.shape != b.shape and name not in OTHER_SHAPES):
            return f"output {i} is {a.dtype}{list(a.shape)}, in OpenVINO {b.dtype}{list(b.shape)}"
    return ""


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """The same bits. f64 shows that OpenVINO keeps numbers of attributes, such as `trans_std`, in f32."""
    if a.dtype == np.float64 == b.dtype:
        return np.allclose(a, b, rtol=1e-6, atol=1e-7, equal_nan=True)
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


def wrong(
    number: tuple[int, int], folder: Path, before_openvino: Callable[[], None] = lambda: None
) -> list[str]:
    """A line if a sample differs."""
    sample = fuzz_bases.samples()[number[0]][number[1]]
    try:
        found = difference(number, folder, before_openvino)
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    return [f"{number} {sample.record!r} of {sample.dtype}: {found[:400]}"] if found else []


def test_some_samples(tmp_path: Path) -> None:
    chosen = [n for n in numbers()[3::PART] if fuzz_bases.samples()[n[0]][0].record.name not in CRASHES]
    found = [line for number in chosen for line in wrong(number, tmp_path)]
    assert not found, "\n".join(found)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_all_samples() -> None:
    """In another process, and where OpenVINO ends that, in one more from the next sample on."""
    chosen, first, found, ends = numbers(), 0, [], 0
    while first < len(chosen):
        done = python("-m", __name__, first, seconds=1700)
        said = [line.partition(" ") for line in done.stdout.splitlines()]
        found += [what for word, _, what in said if word == "wrong"]
        place = max((int(what) for word, _, what in said if word == "sample"), default=first)
        if done.returncode == 0:
            break
        ended = done.returncode < 0 and said[-1] == ("openvino", " ", str(place))
        assert ended, f"{chosen[place]} ends the process: {done.stdout[-400:]}{done.stderr[-2000:]}"
        first, ends = place + 1, ends + 1
        assert ends < 30, "OpenVINO ends too many processes"
    assert place == len(chosen) - 1
    assert not found, "\n".join(found)


def main(first: int) -> None:
    """The samples from number `first` on: which one is at work is said, and what differs."""
    with tempfile.TemporaryDirectory() as folder:
        for place, number in enumerate(numbers()[first:], first):
            print("sample", place, flush=True)
            for line in wrong(number, Path(folder), lambda at=place: print("openvino", at, flush=True)):
                print("wrong", line.replace("\n", " "), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
