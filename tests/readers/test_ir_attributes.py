"""An attribute of a file is known, listed as without effect, or an error: nothing is dropped in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit
from docs.operations import listed
from ovjit.api.model.boundary import Constant, Parameter
from ovjit.api.model.node import Node
from ovjit.api.surface import surface_of
from ovjit.errors import ModelError
from ovjit.graph import dtypes
from ovjit.graph.attributes import FILE_NAMES
from ovjit.graph.op import Op, all_ops, find_op
from ovjit.readers.ir.reader import WITHOUT_EFFECT
from ovjit.readers.ir.writer import to_bytes
from tests.support.samples import has_samples, samples_of

SEED = 20261205
#: Operations that OpenVINO's reader does not take in the form that samples have.
UNREAD = {"Transpose"}


def _sampled() -> list[Op]:
    return [
        r for r in all_ops()
        if has_samples(r) and not r.internal and r.name in listed() and "string" not in r.types
    ]  # fmt: skip


def _models(record: Op) -> list[Any]:
    """A model for each of the operation's first samples: data as input, all else constant."""
    dtype = "f32" if "f32" in record.types else record.types[0]
    out = []
    for number, (inputs, attrs) in enumerate(samples_of(record, np.random.default_rng(SEED), dtype)):
        if number == 3:
            break
        parameters, values = [], []
        for i, array in enumerate(inputs):
            kind = dtypes.from_numpy(array.dtype)
            if i == 0:
                parameters.append(Parameter._of(kind, array.shape, "data"))
                values.append(parameters[-1].output(0))
            else:
                plain = np.ascontiguousarray(array).reshape(array.shape)
                values.append(Constant._of(plain, kind, None, f"constant{i}").output(0))
        node = Node._new(record, values, record.check_attributes(attrs), "node")
        out.append(ovjit.Model(list(node.outputs()), parameters, "model"))
    return out


@pytest.mark.parametrize("record", _sampled(), ids=lambda r: f"{r.name}-{r.opset}")
def test_all_that_openvino_writes_is_read(record: Op, tmp_path: Path) -> None:
    """Our file, read and written by the real package, is read again, with the same attributes; their
    names are in its order."""
    ov: Any = pytest.importorskip("openvino")
    if record.name in UNREAD:
        pytest.skip("has no sample that OpenVINO reads")
    for model in _models(record):
        ours, theirs = tmp_path / "ours.xml", tmp_path / "theirs.xml"
        ovjit.save_model(model, ours, compress_to_fp16=False)
        read = ov.Core().read_model(ours)
        ov.save_model(read, theirs, compress_to_fp16=False)
        again = ovjit.Core().read_model(theirs)
        (node,) = [n for n in again.get_ops() if n.get_friendly_name() == "node"]
        (want,) = [n for n in model.get_ops() if n.get_friendly_name() == "node"]
        assert node.get_type_name() == want.get_type_name()
        (named,) = [n for n in read.get_ops() if n.get_friendly_name() == "node"]
        assert list(want.get_attributes()) == list(named.get_attributes())
        _same(node.get_attributes(), want.get_attributes(), record)


def _same(got: dict[str, Any], want: dict[str, Any], record: Op) -> None:
    for key, value in want.items():
        if key not in got or key in WITHOUT_EFFECT.get(record.name, ()):
            continue
        a, b = got[key], value
        if b is None or (key == "axis" and b < 0 <= a):
            continue  # not given; counted from the end
        if isinstance(a, (list, tuple)) and all(isinstance(v, str) for v in a):
            assert not a or [v.lower() for v in a] == [str(v).lower() for v in b], key
        elif isinstance(a, float):
            assert a == pytest.approx(b, rel=1e-6), key
        elif isinstance(a, str):
            assert a.lower() == str(b).lower(), key
        elif isinstance(a, (list, tuple)):
            assert not len(b) or [float(v) for v in a] == pytest.approx([float(v) for v in b], rel=1e-6), key
        else:
            assert a == b, key


_FILE = """<?xml version="1.0"?>
<net name="model" version="11"><layers>
<layer id="0" name="x" type="Parameter" version="opset1"><data shape="2,3" element_type="f32"{parameter}/>
<output><port id="0" precision="FP32"><dim>2</dim><dim>3</dim></port></output></layer>
<layer id="1" name="y" type="{type}" version="opset1"><data {attributes}/>
<input><port id="0" precision="FP32"><dim>2</dim><dim>3</dim></port></input>
<output><port id="1" precision="FP32"><dim>2</dim><dim>3</dim></port></output></layer>
<layer id="2" name="r" type="Result" version="opset1">{result}
<input><port id="0" precision="FP32"><dim>2</dim><dim>3</dim></port></input></layer>
</layers><edges>
<edge from-layer="0" from-port="0" to-layer="1" to-port="0"/>
<edge from-layer="1" from-port="1" to-layer="2" to-port="0"/>
</edges></net>"""


def _read(type: str = "Elu", attributes: str = 'alpha="1"', parameter: str = "", result: str = "") -> Any:
    text = _FILE.format(type=type, attributes=attributes, parameter=parameter, result=result)
    return ovjit.Core().read_model(text.encode(), b"")


def test_the_file_as_it_is() -> None:
    assert [op.get_type_name() for op in _read().get_ops()].count("Elu") == 1


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"attributes": 'alpha="1" beta="2"'}, ["beta", "Elu", "'y'"]),
        ({"type": "Relu", "attributes": 'negative_slope="0.1"'}, ["negative_slope", "Relu", "'y'"]),
        ({"parameter": ' scale="2"'}, ["scale", "Parameter", "'x'"]),
        ({"result": '<data saturate="1"/>'}, ["saturate", "Result", "'r'"]),
    ],
    ids=str,
)
def test_an_unknown_attribute_is_an_error_that_names_it(change: dict[str, str], names: list[str]) -> None:
    with pytest.raises(ModelError) as caught:
        _read(**change)
    for name in names:
        assert name in str(caught.value)


def test_scatter_with_a_reduction_in_an_older_version_is_refused() -> None:
    """ScatterNDUpdate-4 has no reduction: a plain update would be wrong without a word."""
    assert "reduction" not in find_op("ScatterNDUpdate", 4).attributes
    assert "reduction" in find_op("ScatterNDUpdate", 15).attributes


#: Attributes of operations that are any text; the framework is compared when types are inferred.
FREE_TEXT = {
    "variable_id", "equation", "framework",
    # of tokenizers: texts of a vocabulary, and names that the operations themselves check
    "unk_token", "suffix_indicator", "end_suffix", "encoding", "normalization_form", "words", "token", "pool",
}  # fmt: skip


def _worded(record: Op) -> list[str]:
    return [a.name for a in record.attributes.values() if a.words]


def test_each_attribute_of_a_text_has_its_words() -> None:
    for record in all_ops():
        if record.internal:  # made by expansions alone
            continue
        for attribute in record.attributes.values():
            if attribute.type in ("Word", "Str", "Strs"):
                free = attribute.name in FREE_TEXT
                assert bool(attribute.words) != free, f"{record!r} {attribute.name}: declare its words"


def test_each_choice_is_refused_with_a_wrong_word() -> None:
    tried = 0
    for record in all_ops():
        for name in _worded(record):
            attribute = record.attributes[name]
            wrong: Any = {"Strs": ["wrong"], "DType": "f8e8m0"}.get(attribute.type, "wrong")
            with pytest.raises(ModelError) as caught:
                record.check_attribute(name, wrong)
            words = attribute.words.rpartition(": ")[2].lower().split()
            said = str(caught.value).lower()
            assert f": {name.lower()} of {record.name.lower()} should be one of" in said
            assert all(word.partition("=")[0] in said for word in words), said
            tried += 1
    assert tried > 100


@pytest.mark.parametrize("record", [r for r in _sampled() if _worded(r)], ids=lambda r: f"{r.name}-{r.opset}")
def test_a_wrong_word_in_a_file_names_layer_attribute_and_choices(record: Op) -> None:
    file, weights = to_bytes(_models(record)[0])
    content = file.decode()
    tried = 0
    for name in _worded(record):
        written = f'{surface_of(record).prefix}{FILE_NAMES.get(name, name)}="'
        before, found, rest = content.partition(written)
        if not found:
            continue
        wrong = before + found + "f8e8m0" + rest[rest.index('"') :]
        with pytest.raises(ModelError, match=f"{name} of {record.name} should be one of") as caught:
            ovjit.Core().read_model(wrong.encode(), weights)
        assert "node" in str(caught.value)
        tried += 1
    assert tried


def test_the_framework_of_a_proposal() -> None:
    record = find_op("Proposal", 4)
    (inputs, attrs), *_ = samples_of(record, np.random.default_rng(SEED), "f32")
    with pytest.raises(ModelError, match="framework 'caffe' should be one of '', 'tensorflow'"):
        record.evaluate(inputs, {**record.check_attributes(attrs), "framework": "caffe"})
