"""Attributes that are choices: each of every operator's is refused with a wrong word or number.

The standard's operators and attributes are those of the package onnx in all versions, com.microsoft's those
of ONNX Runtime. An attribute of a text, or of an integer, is a choice or is listed here as none.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import onnx
import pytest
from onnx import TensorProto, defs, helper

import ovjit as ov
from ovjit.readers.choices import TEXT
from ovjit.readers.onnx import registry
from ovjit.readers.onnx.choices import find_choice

#: Attributes of integers that are numbers, sizes, axes, seeds, tokens, labels or types of elements, and the
#: type of a model, of which each operator takes others.
NUMBERS = frozenset(
    "K N activation_axis axes axis batch_axis batch_dims beginning_timestamp_token_id block_size "
    "blocksize cats_int64s channels char_embedding_size chunk_size class_ids class_nodeids class_treeids "
    "classlabels_int64s classlabels_ints consumed_inputs conv_window_size decoder_start_token_id "
    "default_int64 dilation dilations dim dtype embedding_size end ends eos_token_id gather_axis group "
    "groups hidden_size ignore_index imputed_value_int64s inputdimensions int64_vocabulary k kernel_shape "
    "keys_int64s kv_num_heads leaf_targetids left_window_size local_window_size max_gram_length max_map "
    "max_ngram_size max_skip_count maxsplit min_gram_length min_ngram_size min_tokens_to_keep mincharnum "
    "model_type mrope_section n_head_per_ngram n_supports n_targets ngram_counts ngram_indexes ngram_size "
    "no_repeat_ngram_size no_speech_token_id no_timestamps_token_id nodes_falsenodeids nodes_featureids "
    "nodes_nodeids nodes_treeids nodes_truenodeids num_branches num_groups num_heads num_outputs "
    "num_scan_inputs offset_group opset output_datatype output_dtype output_height output_padding "
    "output_shape output_width p pad_id pad_token_id paddings pads perm pool_int64s pooled_shape "
    "q_num_heads qkv_hidden_sizes quantize_axis replaced_value_int64 right_window_size "
    "rotary_embedding_dim sample_size sampling_ratio scales scan_input_axes scan_output_axes seed shape "
    "size sparse_block_size split start start_of_lm_token_id starts state_window step strides target_ids "
    "target_nodeids target_treeids targets time_axis to transcribe_token_id translate_token_id tree_roots "
    "value_int value_ints values_int64s vectors_per_class vocab_size".split()
)
#: A value of each kind of attributes.
FILLING = {
    "FLOAT": 1.0, "INT": 1, "STRING": "x", "FLOATS": [1.0], "INTS": [1], "STRINGS": ["x"],
    "TENSOR": helper.make_tensor("t", TensorProto.FLOAT, [1], [1.0]),
    "GRAPH": helper.make_graph([], "g", [], []),
}  # fmt: skip
WRONG: dict[str, Any] = {"STRING": "wrong", "STRINGS": ["wrong"], "INT": 77, "INTS": [77]}


def kind_of(attribute: Any) -> str:
    return str(attribute.type).rpartition(".")[2]


def standard_schemas() -> list[Any]:
    return [s for s in defs.get_all_schemas_with_history() if s.domain != "ai.onnx.preview"]


def contributed_schemas() -> list[Any]:
    """ONNX Runtime's of the operators of its own domains that have a rule."""
    pytest.importorskip("onnxruntime")
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    registry.find_rule("com.microsoft", "CDist", 1)  # imports them all
    found = [
        s
        for s in state.get_all_operator_schema()
        if s.domain.startswith("com.microsoft") and (s.domain, s.name) in registry._ROWS
    ]
    assert len(found) > 60
    return found


def enumerable(schemas: list[Any]) -> Iterator[tuple[Any, str, str]]:
    """(schema, attribute, kind) of texts and integers"""
    for schema in schemas:
        for name, attribute in sorted(schema.attributes.items()):
            if kind_of(attribute) in WRONG:
                yield schema, name, kind_of(attribute)


def model_of(schema: Any, name: str, value: Any) -> bytes:
    """A model of one node that has what it needs, and this attribute."""
    given = {k: FILLING[kind_of(a)] for k, a in schema.attributes.items() if a.required}
    for key in given:
        choice = find_choice(schema.domain, schema.name, key)
        if choice not in (None, TEXT):
            one = choice.words[0]
            given[key] = [one] if kind_of(schema.attributes[key]).endswith("S") else one
    inputs = [f"x{i}" for i in range(schema.min_input)]
    outputs = [f"y{i}" for i in range(max(1, schema.min_output))]
    given[name] = value
    node = helper.make_node(schema.name, inputs, outputs, "the_node", domain=schema.domain, **given)
    infos = [helper.make_tensor_value_info(i, TensorProto.FLOAT, [2, 2]) for i in inputs]
    results = [onnx.ValueInfoProto(name=o) for o in outputs]
    graph = helper.make_graph([node], "g", infos, results)
    opsets = {"": 17, schema.domain: schema.since_version}
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString()


def check_refused(schema: Any, name: str, kind: str) -> None:
    choice = find_choice(schema.domain, schema.name, name)
    assert choice is not None
    with pytest.raises(RuntimeError) as caught:
        ov.Core().read_model(model_of(schema, name, WRONG[kind]))
    said = str(caught.value)
    if "No conversion rule" in said:
        return
    wrong = WRONG[kind][0] if isinstance(WRONG[kind], list) else WRONG[kind]
    assert "the_node" in said, (schema.name, name, said)
    assert f"attribute {name!r} is {wrong!r}" in said, (schema.name, schema.since_version, name, said)
    assert all(str(word) in said for word in choice.words), (schema.name, name, said)


@pytest.mark.parametrize("schemas", [standard_schemas, contributed_schemas])
def test_each_attribute_of_a_text_or_an_integer_is_declared(schemas: Any) -> None:
    for schema, name, kind in enumerable(schemas()):
        where = f"{schema.domain}.{schema.name}-{schema.since_version} {name}"
        choice = find_choice(schema.domain, schema.name, name)
        if kind.startswith("STRING"):
            assert choice is not None, f"{where}: declare its choices, or that it is TEXT"
        else:
            number = name in NUMBERS and choice in (None, TEXT)  # version 1 of Cast names its type
            assert number or choice not in (None, TEXT), f"{where}: declare its choices"


@pytest.mark.parametrize("schemas", [standard_schemas, contributed_schemas])
def test_each_choice_is_refused_with_a_wrong_word(schemas: Any) -> None:
    tried = 0
    for schema, name, kind in enumerable(schemas()):
        if find_choice(schema.domain, schema.name, name) not in (None, TEXT):
            check_refused(schema, name, kind)
            tried += 1
    assert tried > 100


def test_declared_attributes_and_operators_exist() -> None:
    """A misspelt name in a table would declare nothing."""
    from ovjit.readers.onnx.choices import _TABLES, ANY

    tables = (standard_schemas, ("", "ai.onnx.ml")), (contributed_schemas, ("com.microsoft",))
    for schemas, domains in tables:
        known: dict[tuple[str, str], set[str]] = {}
        for schema in schemas():
            known.setdefault((schema.domain, schema.name), set()).update(schema.attributes)
        for domain in domains:
            every = set().union(*(names for (where, _), names in known.items() if where == domain))
            for operator, attributes in _TABLES[domain].items():
                if operator == ANY or (domain, operator) in known:
                    rest = set(attributes) - (every if operator == ANY else known[domain, operator])
                    if domain == "com.microsoft":  # operators that are read as the standard's have its flags
                        rest -= {"stash_type", "antialias", "exclude_outside", "inverse", "onesided"}
                    assert not rest, f"{domain}.{operator}"


@pytest.mark.parametrize("name", sorted(registry.FAMILIES))
def test_choices_are_read_where_the_standard_has_them_as_defaults(name: str) -> None:
    """The default of each choice is one of its words."""
    importlib.import_module(f"ovjit.readers.onnx.{name}")
    operators = registry.FAMILIES[name].split()
    for schema, attribute, _ in enumerable([s for s in standard_schemas() if s.name in operators]):
        choice = find_choice(schema.domain, schema.name, attribute)
        default = schema.attributes[attribute].default_value
        misspelt = schema.since_version == 1 and attribute == "direction"
        if choice not in (None, TEXT) and default.type and not misspelt:
            value = helper.get_attribute_value(default)
            values = value if isinstance(value, list) else [value]
            choice.check(attribute, [v.decode() if isinstance(v, bytes) else v for v in values])


@pytest.mark.parametrize(("operator", "domain", "attribute", "wrong"), [
    ("CDist", "com.microsoft", "metric", "manhattan"),
    ("Resize", "", "keep_aspect_ratio_policy", "shrink"),
    ("Gelu", "", "approximate", "erf"),
    ("RoiAlign", "", "coordinate_transformation_mode", "asymmetric"),
    ("TensorScatter", "", "mode", "ring"),
    ("FusedConv", "com.microsoft", "activation", "Swish"),
    ("MoE", "com.microsoft", "activation_type", "softplus"),
    ("TreeEnsembleRegressor", "ai.onnx.ml", "nodes_modes", ["BRANCH_LEQ", "BRANCH_ABOUT", "LEAF"]),
    ("TopK", "", "sorted", 2),
    ("GRU", "", "activations", ["Sigmoid", "Tangent"]),
])  # fmt: skip
def test_wrong_words_that_were_once_defaults(operator: str, domain: str, attribute: str, wrong: Any) -> None:
    schemas = standard_schemas() if domain in ("", "ai.onnx.ml") else contributed_schemas()
    schema = [s for s in schemas if (s.domain, s.name) == (domain, operator)][-1]
    with pytest.raises(RuntimeError, match=f"the_node.*attribute '{attribute}' is .*none of its choices"):
        ov.Core().read_model(model_of(schema, attribute, wrong))


def test_functions_pass_choices_to_their_nodes() -> None:
    """The attribute of a function that a node inside of it refers to is compared, too."""
    inner = helper.make_node("Gelu", ["a"], ["b"], "inside")
    reference = inner.attribute.add()
    reference.name, reference.ref_attr_name, reference.type = "approximate", "how", onnx.AttributeProto.STRING
    opsets = [helper.make_opsetid("", 20)]
    function = helper.make_function("f", "Mine", ["a"], ["b"], [inner], opsets, ["how"])

    def read(how: str) -> Any:
        node = helper.make_node("Mine", ["x"], ["y"], "outside", domain="f", how=how)
        x, y = (helper.make_tensor_value_info(i, TensorProto.FLOAT, [2]) for i in "xy")
        imports = [helper.make_opsetid("", 20), helper.make_opsetid("f", 1)]
        model = helper.make_model(
            helper.make_graph([node], "g", [x], [y]), opset_imports=imports, functions=[function]
        )
        return ov.Core().read_model(model.SerializeToString())

    read("tanh")
    with pytest.raises(RuntimeError, match="attribute 'approximate' is 'fast'.*none, tanh"):
        read("fast")


def test_other_packages_declare_choices() -> None:
    from ovjit.readers.choices import one_of
    from ovjit.readers.onnx.choices import _TABLES, declare_choices

    registry.onnx_op("Mine", domain="test.choices")(lambda n: n("Relu", n[0]))
    declare_choices("test.choices", {"Mine": {"how": one_of("a b")}})
    try:
        node = helper.make_node("Mine", ["x"], ["y"], "n", domain="test.choices", how="c")
        x, y = (helper.make_tensor_value_info(i, TensorProto.FLOAT, [2]) for i in "xy")
        imports = [helper.make_opsetid("", 20), helper.make_opsetid("test.choices", 1)]
        model = helper.make_model(helper.make_graph([node], "g", [x], [y]), opset_imports=imports)
        with pytest.raises(RuntimeError, match="'how' is 'c', which is none of its choices: a, b"):
            ov.Core().read_model(model.SerializeToString())
    finally:
        del _TABLES["test.choices"], registry._ROWS["test.choices", "Mine"]
