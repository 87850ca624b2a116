"""Operation records: declared fields, nothing else."""

import pytest

from ovjit.graph.op import all_ops, op
from ovjit_ops.elementwise.arithmetic import unary


@pytest.mark.parametrize("options", [{"epilouge": True}, {"widen": True}, {"lowers": len}])
def test_a_misspelt_field_is_an_error_at_registration(options):
    before = len(all_ops())
    with pytest.raises(TypeError, match=f"Misspelt has {next(iter(options))!r}, which is no field"):

        @op("Misspelt", **options)
        class Misspelt:
            def infer(data):
                return data

    assert len(all_ops()) == before


def test_a_misspelt_member_is_an_error_at_registration():
    with pytest.raises(TypeError, match="'refer', which is no field"):

        @op("Misspelt")
        class Misspelt:
            def infer(data):
                return data

            def refer(data):
                return data


def test_rows_take_declared_fields_only():
    with pytest.raises(TypeError, match="epilouge"):
        unary("Misspelt", ref=abs, scalar=abs, epilouge=True)
