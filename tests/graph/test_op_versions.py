"""A later version of an operation says only what differs from an earlier one."""

from __future__ import annotations

import pytest

from ovjit.graph.op import Int, Op, Str, TensorType, op, unregister


@pytest.fixture
def versions():
    @op("VersionedOp", types=("f32", "f64"), ulp=7, bounds=(1,))
    class First:
        """The first."""

        def infer(x, *, a: Int, b: Int = 2, c: Str = "c"):
            return TensorType(x.dtype, x.shape)

        ref = staticmethod(lambda x, **attrs: x)

    @op("VersionedOp", opset=5, like=First, without=("c",), ulp=9)
    class Second:
        """The second."""

        def infer(x, y=None, *, b: Int = 3, d: Int = 4, **attrs):
            return TensorType(x.dtype, (attrs["a"], b, d, len(attrs)))

    @op("VersionedOp", opset=6, like=Second)
    class Third:
        def infer(x, *, z: Int = 0, a: Int = 1, **attrs):
            return TensorType(x.dtype, x.shape)

    yield First, Second, Third
    for record in (First, Second, Third):
        unregister(record)


def test_what_is_not_said_is_the_earlier_ones(versions: tuple[Op, Op, Op]) -> None:
    first, second, third = versions
    assert (second.types, second.ref, second.bounds) == (first.types, first.ref, first.bounds)
    assert (first.ulp, second.ulp, third.ulp) == (7, 9, 9)
    assert (first.doc, second.doc, third.doc) == ("The first.", "The second.", "")
    assert second.input_names == ("x", "y") and third.input_names == ("x",)


def test_attributes_keep_their_order(versions: tuple[Op, Op, Op]) -> None:
    first, second, third = versions
    assert list(first.attributes) == ["a", "b", "c"]
    assert [(a.name, a.default) for a in second.attributes.values()][1:] == [("b", 3), ("d", 4)]
    assert list(second.attributes) == ["a", "b", "d"]  # d follows b, as it does in the version's own list
    found = [(a.name, a.default) for a in third.attributes.values()]
    assert found == [("a", 1), ("b", 3), ("d", 4), ("z", 0)]


def test_inference_is_given_all_attributes(versions: tuple[Op, Op, Op]) -> None:
    second = versions[1]
    attrs = second.check_attributes({"a": 5})
    assert second.infer_types([TensorType("f32", (1,))], attrs) == (TensorType("f32", (5, 3, 4, 1)),)
