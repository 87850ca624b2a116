"""Operation records: declared fields, nothing else."""

import re

import pytest

from ovjit.errors import ModelError
from ovjit.graph.op import Count, Index, Positive, Word, all_ops, op, unregister
from ovjit_ops.elementwise.arithmetic import unary


@pytest.mark.parametrize("options", [{"epilouge": True}, {"widen": True}, {"lowers": len}])
def test_a_misspelt_field_is_an_error_at_registration(options):
    before = len(all_ops())
    with pytest.raises(TypeError, match=f"Misspelt has {next(iter(options))!r}, which is not a field"):

        @op("Misspelt", **options)
        class Misspelt:
            def infer(data):
                return data

    assert len(all_ops()) == before


def test_a_misspelt_member_is_an_error_at_registration():
    with pytest.raises(TypeError, match="'refer', which is not a field"):

        @op("Misspelt")
        class Misspelt:
            def infer(data):
                return data

            def refer(data):
                return data


def test_rows_take_declared_fields_only():
    with pytest.raises(TypeError, match="epilouge"):
        unary("Misspelt", ref=abs, scalar=abs, epilouge=True)


def test_what_an_attribute_may_be_is_declared_and_read_from_the_record():
    @op("Limited", internal=True, words={"mode": "ns::Mode: up down", "pad": ("EDGE", "WRAP", "TURN=WRAP")})
    class Limited:
        def infer(
            data, *, mode: Word, pad: Word = "edge", size: Positive = 1, skip: Count = 0, to: Index = "i64"
        ):
            return data

    @op("Limited", opset=2, like=Limited, words={"mode": "up down left"})
    class Wider:
        def infer(data, **attrs):
            return data

    try:
        given = {"mode": "UP", "pad": "wrap", "size": 3, "skip": 0, "to": "i32"}
        assert Limited.check_attributes(given) == {**given, "mode": "up"}
        assert Limited.check_attribute("pad", "turn") == "wrap"
        for wrong, says in (
            ({"mode": "left"}, '"left" is not a member of enum ns::Mode: mode of Limited should be one of'),
            (
                {"pad": "none"},
                '"NONE" is not a valid value: pad of Limited should be one of edge, wrap, turn',
            ),
            ({"size": 0}, "Size must be positive: size of Limited is 0"),
            ({"skip": -1}, "Skip must be no negative number"),
            ({"to": "f32"}, "To must be i32 or i64: to of Limited is f32"),
        ):
            with pytest.raises(ModelError, match=re.escape(says)):
                Limited.check_attributes(given | wrong)
        assert Wider.check_attribute("mode", "Left") == "left"
        with pytest.raises(ModelError, match='"Flat" is not a valid value'):
            Limited.check_attribute("pad", "Flat")
        with pytest.raises(ModelError, match="size of Limited is -1"):
            Wider.check_attribute("size", -1)
    finally:
        unregister(Wider)
        unregister(Limited)


def test_words_of_an_attribute_that_there_is_not_are_an_error_at_registration():
    with pytest.raises(TypeError, match="Misspelt has a message for 'node', which is not an attribute"):

        @op("Misspelt", words={"node": "a b"})
        class Misspelt:
            def infer(data, *, mode: Word):
                return data
