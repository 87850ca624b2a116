"""ovjit in the place of openvino, and the command line."""

from __future__ import annotations

import textwrap

import pytest

from tests.support.run import python

PROGRAM = textwrap.dedent("""
    import sys
    import openvino.runtime as ov
    import openvino as top
    import openvino.properties as props
    import openvino.properties.hint as hints
    from openvino import Core, Type
    from openvino.runtime import opset8, Model, AsyncInferQueue
    from openvino.helpers import pack_data
    import openvino.opset8
    import openvino.runtime.opset8 as again
    import numpy as np

    import ovjit
    assert top is ovjit and openvino.opset8 is ovjit.opset8 and again is ovjit.opset8
    assert Core is ovjit.Core and hints is ovjit.properties.hint and pack_data is ovjit.helpers.pack_data
    assert props.hint is hints
    a = opset8.parameter([8], name="a")
    model = Model([opset8.absolute(a)], [a], "m")
    compiled = ov.compile_model(model, "CPU", {hints.performance_mode: hints.PerformanceMode.LATENCY})
    assert compiled(np.full(8, -2, np.float32))[0].tolist() == [2] * 8
    files = [getattr(module, "__file__", None) or "" for module in sys.modules.values()]
    assert not any("site-packages/openvino" in file for file in files)
    try:
        import openvino.nosuch
    except ModuleNotFoundError as error:
        assert "openvino.nosuch" in str(error)
    else:
        raise AssertionError
    print("fine", __name__, sys.argv[1:])
""")


def test_import_as_openvino():
    run = python("-c", "import ovjit.as_openvino\nimport ovjit.as_openvino" + PROGRAM)
    assert run.stdout == "fine __main__ []\n", run.stderr


def test_run_a_program(tmp_path):
    script = tmp_path / "program ä.py"
    script.write_text(PROGRAM + "import neighbour\nsys.exit(3)")
    (tmp_path / "neighbour.py").write_text("print('neighbour')")
    run = python("-m", "ovjit", "run", str(script), "one", "--two", "-m", folder=tmp_path.parent)
    assert run.stdout == "fine __main__ ['one', '--two', '-m']\nneighbour\n", run.stderr
    assert run.returncode == 3
    (tmp_path / "mod.py").write_text(PROGRAM)
    run = python("-m", "ovjit", "run", "-m", "mod", "x", folder=tmp_path)
    assert run.stdout == "fine __main__ ['x']\n", run.stderr


def test_the_real_package_first_is_refused():
    run = python("-c", "import openvino\nimport ovjit\nprint(ovjit.__version__)\nimport ovjit.as_openvino")
    assert run.returncode == 1
    assert "ImportError: the real openvino is already imported" in run.stderr
    run = python(
        "-c", "import openvino, sys\nfrom ovjit.__main__ import main\nsys.exit(main(['run', 'x.py']))"
    )
    assert run.returncode == 2
    assert run.stderr.startswith("ovjit: the real openvino is already imported")


def test_the_command_line_explains_itself():
    run = python("-m", "ovjit", "run", "nofile.py")
    assert (run.returncode, "nofile.py" in run.stderr, "Traceback" in run.stderr) == (2, True, False)
    run = python("-m", "ovjit", "nonsense")
    assert run.returncode == 2
    assert "run" in run.stderr
    run = python("-m", "ovjit", "--help")
    assert run.returncode == 0
    for command in ("run", "demo", "cache"):
        assert command in run.stdout


@pytest.mark.timeout(120)
def test_the_demo_runs():
    run = python("-m", "ovjit", "demo")
    assert run.returncode == 0, run.stderr + run.stdout
    assert "accuracy" in run.stdout
