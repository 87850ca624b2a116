"""The commands of `ovjit`, on the embedded model."""

from __future__ import annotations

import csv
import inspect
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

import ovjit as ov
from ovjit.__main__ import main
from ovjit.data import DIGITS_XML
from ovjit.tools import terminal

MODEL = str(DIGITS_XML)


def cli(capsys, *arguments):
    """(exit code, what was printed, what was complained of)"""
    code = main([str(a) for a in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_benchmark_compares_configurations_in_rounds(capsys, tmp_path):
    table, numbers = tmp_path / "b.csv", tmp_path / "b.json"
    code, said, _ = cli(
        capsys, "benchmark", "-m", MODEL, "-infer_precision", "f32", "bf16", "-niter", 12, "--rounds", 3,
        "-lp", 75, "--csv", table, "--json", numbers, "-pc",
    )  # fmt: skip
    assert code == 0
    rows = list(csv.DictReader(table.open()))
    assert [row["name"] for row in rows] == ["f32", "bf16"] and all(row["count"] == "12" for row in rows)
    found = json.loads(numbers.read_text())["results"]
    assert len(found[0]["latencies_ms"]) == 12 and found[1]["ratio"] > 0
    for row in found:
        assert row["min_ms"] <= row["median_ms"] <= row["p75_ms"] <= row["p90_ms"] <= row["max_ms"]
        assert row["throughput_fps"] == pytest.approx(12 / row["seconds"])
    assert re.search(r"Softmax +softmax_f32", said)


def test_benchmark_asynchronously_with_files_and_shapes(capsys, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 1, 8, 8), np.float32))
    code, said, _ = cli(
        capsys, "benchmark", "-m", MODEL, "-hint", "throughput", "-nireq", 2, "-b", 3, "-niter", 8,
        "-i", tmp_path / "x.npy", "-dump_config", tmp_path / "c.json", "-exec_graph_path", tmp_path / "g.xml",
    )  # fmt: skip
    assert code == 0 and re.search(r"async +2 +8", said)
    assert json.loads((tmp_path / "c.json").read_text())["CPU"]["PERFORMANCE_HINT"].endswith("THROUGHPUT")
    assert ElementTree.parse(tmp_path / "g.xml").getroot().tag == "net"
    code, said, _ = cli(capsys, "benchmark", "-m", MODEL, "-load_config", tmp_path / "c.json", "-niter", 2)
    assert code == 0


def test_benchmark_takes_the_options_of_benchmark_app(capsys, tmp_path):
    """Each of them does something that can be seen."""
    code, said, _ = cli(
        capsys, "benchmark", "-m", MODEL, "-data_shape", "images[2,1,8,8][5,1,8,8]", "-niter", 6, "-api",
        "async", "-nireq", 2, "-pc", "True", "-pcsort", "simple_sort", "-nstreams", "CPU:1",
        "-infer_precision", "CPU:f32", "-report_type", "average_counters", "-report_folder", tmp_path / "r",
        "-pin", "NO", "-no_warmup",
    )  # fmt: skip
    assert code == 0 and "NOT_RUN" not in said
    times = [float(line.split()[-2]) for line in said.splitlines() if re.search(r" EXECUTED ", line)]
    assert times == sorted(times, reverse=True) and len(times) > 3
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == [
        "benchmark_average_counters_report.csv", "benchmark_report.csv"
    ]  # fmt: skip
    steps = list(csv.DictReader((tmp_path / "r/benchmark_average_counters_report.csv").open()))
    assert {"node", "ms", "kernel"} <= set(steps[0])
    code, _, _ = cli(
        capsys, "benchmark", "-m", MODEL, "-iop", "images:u8,probabilities:f16", "--mean_values", "[8]",
        "--scale_values", "images[16]", "-layout", "[NCHW]", "-b", 4, "-niter", 2, "-inference_only", "False",
        "-report_type", "no_counters", "-json_stats", "-report_folder", tmp_path / "j",
        "-exec_graph_path", tmp_path / "g.xml",
    )  # fmt: skip
    assert code == 0
    (row,) = json.loads((tmp_path / "j/benchmark_report.json").read_text())
    assert row["batch"] == 4 and row["count"] == 2
    layers = ElementTree.parse(tmp_path / "g.xml").getroot().find("layers")
    ends = {layer.get("type"): layer for layer in layers}
    assert ends["Input"].find("output/port").get("precision") == "U8"
    assert ends["Output"].find("input/port").get("precision") == "FP16"


def test_benchmark_has_every_option_of_benchmark_app():
    """By all of their names."""
    from openvino.tools.benchmark import parameters

    from ovjit.tools.benchmark_options import parser

    theirs = set(re.findall(r"""['"](--?\w+)['"]""", inspect.getsource(parameters)))
    assert len(theirs) > 50
    assert not theirs - set(parser()._option_string_actions)


@pytest.mark.parametrize("api", ["sync", "async"])
def test_benchmark_tells_shapes_apart(capsys, tmp_path, api):
    code, said, _ = cli(
        capsys, "benchmark", "-m", MODEL, "-data_shape", "images[2,1,8,8][5,1,8,8]", "-niter", 7,
        "--rounds", 1, "-api", api, "-nireq", 2, "-pcseq", "-no_warmup", "--json",
        tmp_path / "s.json", "--csv", tmp_path / "s.csv", "-report_type", "no_counters",
        "-report_folder", tmp_path, "-c", "gpu.xml",
    )  # fmt: skip
    assert code == 0 and re.search(r"images\[5,1,8,8\] +3", said)
    (row,) = json.loads((tmp_path / "s.json").read_text())["results"]
    assert [(line["shapes"], line["count"]) for line in row["shapes"]] == [
        ("images[2,1,8,8]", 4), ("images[5,1,8,8]", 3)
    ]  # fmt: skip
    assert "shapes" not in next(csv.DictReader((tmp_path / "s.csv").open()))
    assert len(list(csv.DictReader((tmp_path / "benchmark_shapes_report.csv").open()))) == 2


def test_benchmark_with_operations_in_python(capsys, tmp_path):
    (tmp_path / "ops.py").write_text(
        "import ovjit as ov\n"
        "class Twice(ov.Op):\n"
        "    def __init__(self, inputs=None):\n"
        "        super().__init__(self, inputs)\n"
        "    def validate_and_infer_types(self):\n"
        "        self.set_output_type(0, self.get_input_element_type(0), self.get_input_partial_shape(0))\n"
        "    def evaluate(self, outputs, inputs):\n"
        "        outputs[0].data[:] = 2 * inputs[0].data\n"
        "        return True\n"
        "    def has_evaluate(self):\n"
        "        return True\n"
    )
    space: dict = {}
    exec((tmp_path / "ops.py").read_text(), space)
    x = ov.opset13.parameter([2, 3], np.float32, name="x")
    ov.serialize(ov.Model([space["Twice"]([x]).output(0)], [x], "twice"), str(tmp_path / "m.xml"))
    model = ("benchmark", "-m", tmp_path / "m.xml", "-niter", 2)
    assert cli(capsys, *model)[0] == 2
    assert cli(capsys, *model, "-extensions", tmp_path / "ops.py")[0] == 0
    (tmp_path / "none.py").write_text("")
    assert "no class derived from" in cli(capsys, *model, "-extensions", tmp_path / "none.py")[2]
    assert cli(capsys, *model, "-extensions", "libother.so")[0] == 2


def test_a_rate_is_kept(capsys, tmp_path):
    code, _, _ = cli(
        capsys, "benchmark", "-m", MODEL, "-max_irate", 200, "-niter", 20, "--rounds", 1, "--json",
        tmp_path / "b",
    )  # fmt: skip
    (row,) = json.loads((tmp_path / "b").read_text())["results"]
    assert code == 0 and row["seconds"] >= 19 / 200


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("-m", MODEL, "-data_shape", "x[1]"), "no input 'x'"),
        (("-m", MODEL, "-iop", "x:f32"), "-iop 'x:f32'"),
        (("-m", "nowhere.xml"), "nowhere.xml"),
        (("-m", MODEL, "-shape", "images"), "write name"),
        (("-m", MODEL, "-shape", "[1,x]"), "should be integers"),
        (("-m", MODEL, "-infer_precision", "i3"), "INFERENCE_PRECISION_HINT"),
        (("-m", MODEL, "-i", "a.npy", "b.npy"), "input files"),
        (("-m", MODEL, "-i", "nowhere.npy"), "the file 'nowhere.npy' does not exist"),
        (("-m", MODEL, "--json", "nowhere/b.json"), "'nowhere' does not exist"),
        (("-m", MODEL, "--json", "a.npy/b.json"), "'a.npy' is not a writable folder"),
    ],
)
def test_benchmark_says_what_is_wrong(capsys, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.zeros((1, 1, 8, 8), np.float32))
    code, _, complaint = cli(capsys, "benchmark", *arguments, "-niter", 1)
    assert code == 2 and words in complaint and "Traceback" not in complaint


@pytest.mark.parametrize(
    "command", [("demo",), ("profile", MODEL), ("compare", MODEL), ("benchmark", "-m", MODEL)]
)
def test_a_wrong_instruction_set_is_told_in_a_line(capsys, command, monkeypatch):
    monkeypatch.setenv("OVJIT_ISA", "altivec")
    code, _, complaint = cli(capsys, *command)
    assert code == 2 and "OVJIT_ISA=altivec is not usable" in complaint and complaint.count("\n") == 1


def test_profile_as_a_trace(capsys, tmp_path):
    trace = tmp_path / "t.json"
    code, table, _ = cli(capsys, "profile", MODEL, "--runs", 2, "--trace", trace)
    assert code == 0 and "softmax_f32" in table
    check_trace(json.loads(trace.read_text()), threads=1)


def check_trace(found, threads):
    """What the Trace Event Format asks of a trace, and that no two events of a thread overlap."""
    assert found["displayTimeUnit"] in ("ms", "ns")
    for event in found["traceEvents"]:
        assert event["ph"] in ("X", "M") and isinstance(event["name"], str)
        assert isinstance(event["pid"], int) and isinstance(event["tid"], int) and event["ts"] >= 0
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name") and event["args"]["name"]
        else:
            assert event["dur"] >= 0 and event["cat"] and isinstance(event["args"], dict)
    named = {e["tid"] for e in found["traceEvents"] if e["name"] == "thread_name"}
    assert named == set(range(threads))
    # on a busy machine a helper may have done all of it
    assert any(e["ph"] == "X" for e in found["traceEvents"])
    for tid in named:
        steps = [e for e in found["traceEvents"] if e["ph"] == "X" and e["tid"] == tid]
        assert all(b["ts"] >= a["ts"] + a["dur"] - 0.01 for a, b in zip(steps, steps[1:], strict=False))


def test_a_trace_has_a_row_for_each_thread(capsys, tmp_path):
    """Every chunk of every step is in it once, for any thread."""
    from ovjit.tools.profile import chrome_trace, profile

    x = ov.opset13.parameter([1, 64, 64, 64], np.float32)
    weights = ov.opset13.constant(np.ones((64, 64, 3, 3), np.float32))
    y = ov.opset13.convolution(x, weights, [1, 1], [1, 1], [1, 1], [1, 1])
    found = profile(ov.Model([ov.opset13.softmax(y, 1)], [x], "m"), threads=2, runs=5)
    assert found.threads is not None and found.threads.shape == (len(found.steps), 2, 3)
    assert (found.threads[:, :, 2].sum(1) >= 1).all() and found.threads[:, :, 2].sum(1).max() > 1
    assert (found.threads[:, :, 1] >= found.threads[:, :, 0]).all() and (found.threads >= 0).all()
    check_trace(chrome_trace(found, "m"), threads=2)
    without = chrome_trace(found._replace(threads=None), "m")
    check_trace(without, threads=1)


def test_inspect(capsys, tmp_path):
    found = tmp_path / "i.json"
    code, said, _ = cli(capsys, "inspect", MODEL, "--json", found)
    assert code == 0 and "images" in said and "all is native" in said
    operations = {kind: count for kind, count, _ in json.loads(found.read_text())["operations"]}
    assert operations["Convolution"] == 5


def test_a_converted_model_does_not_replace_itself(capsys, tmp_path):
    for ending in (".xml", ".bin"):
        shutil.copy(Path(MODEL).with_suffix(ending), tmp_path / f"m{ending}")
    before = (tmp_path / "m.bin").read_bytes()
    code, _, said = cli(capsys, "convert", tmp_path / "m.xml")
    assert code == 2 and "is the model itself" in said
    assert (tmp_path / "m.bin").read_bytes() == before


def test_convert_and_compile(capsys, tmp_path):
    code, said, _ = cli(capsys, "convert", MODEL, "-o", tmp_path / "c.xml", "--input", "images[2,1,8,8]")
    assert code == 0 and list(ov.Core().read_model(tmp_path / "c.xml").input().shape) == [2, 1, 8, 8]
    assert cli(capsys, "convert", MODEL, "--list")[1].splitlines()[0] == "input images f32 [?,1,8,8]"
    code, _, _ = cli(
        capsys, "compile", tmp_path / "c.xml", "-o", tmp_path / "c.blob", "-c", "INFERENCE_PRECISION_HINT=f32"
    )
    assert code == 0
    compiled = ov.Core().import_model((tmp_path / "c.blob").read_bytes(), "CPU")
    assert compiled([np.zeros((2, 1, 8, 8), np.float32)])[0].shape == (2, 10)
    assert cli(capsys, "benchmark", "-m", tmp_path / "c.blob", "-niter", 2)[0] == 0
    assert cli(capsys, "compile", MODEL, "-c", "NOTHING")[0] == 2


def test_compare(capsys):
    code, said, _ = cli(capsys, "compare", MODEL)
    assert code == 0 and "error against the NumPy reference" in said
    code, said, _ = cli(capsys, "compare", MODEL, "--engine", "openvino")
    assert code == 0 and "probabilities" in said
    assert cli(capsys, "compare", MODEL, "--engine", "openvino", "--limit", "1e-12")[0] == 1


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_compare_names_each_node_of_another_engine(capsys, tmp_path, engine):
    path = MODEL
    if engine == "onnxruntime":
        onnx = pytest.importorskip("onnx")
        helper, kind = onnx.helper, onnx.TensorProto.FLOAT
        rng = np.random.default_rng(2)
        weights = onnx.numpy_helper.from_array(rng.standard_normal((8, 3, 3, 3), np.float32), "w")
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[1, 1, 1, 1]),
            helper.make_node("MaxPool", ["c"], ["p"], "pool", kernel_shape=[2, 2]),
            helper.make_node("Softmax", ["p"], ["y"], "probability", axis=1),
        ]
        x = helper.make_tensor_value_info("x", kind, [1, 3, 8, 8])
        y = helper.make_tensor_value_info("y", kind, [1, 8, 7, 7])
        graph = helper.make_graph(nodes, "g", [x], [y], [weights])
        path = tmp_path / "m.onnx"
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    from ovjit.tools.compare import beside
    from ovjit.tools.profile import random_inputs

    rows = beside(str(path), engine, random_inputs(ov.Core().read_model(path).inputs, None))
    assert rows[-1].type == "output" and all(row.error < 1e-5 for row in rows)
    assert {"Softmax"} < {row.type for row in rows} and len(rows) > 3
    code, said, _ = cli(capsys, "compare", path, "--engine", engine)
    assert code == 0 and all(row.name in said for row in rows)
    assert cli(capsys, "compare", path, "--engine", engine, "--limit", 0)[0] == 1


def test_arithmetic_is_that_of_pencil_and_paper(tmp_path):
    """A product and its sum are two. Clearing the padding counts a little."""
    from ovjit.tools.inspect import inspect as look

    op, rng = ov.opset13, np.random.default_rng(2)

    def given(*shape):
        return op.parameter(list(shape), np.float32)

    def filters(*shape):
        return op.constant(rng.standard_normal(shape).astype(np.float32))

    image, grouped, rows = given(2, 16, 20, 20), given(1, 16, 20, 20), given(8, 64)
    left, right, queries, keys = given(3, 8, 64), given(3, 64, 48), given(1, 4, 32, 16), given(1, 4, 40, 16)
    x, h, c = given(2, 7, 16), given(2, 1, 24), given(2, 1, 24)
    lengths = op.constant(np.full(2, 7, np.int32))
    window = [2, 2], [1, 1], [1, 1], [1, 1]
    made = {
        "convolution": (op.convolution(image, filters(32, 16, 3, 3), *window), 2 * 32 * 2 * 100 * 16 * 9),
        "grouped": (op.group_convolution(grouped, filters(4, 8, 4, 3, 3), *window), 2 * 32 * 100 * 4 * 9),
        "depthwise": (op.group_convolution(grouped, filters(16, 1, 1, 3, 3), *window), 2 * 16 * 100 * 9),
        "matrices": (op.matmul(rows, filters(64, 48), False, False), 2 * 8 * 64 * 48),
        "products": (op.matmul(left, right, False, False), 2 * 3 * 8 * 64 * 48),
        "lstm": (
            op.lstm_sequence(
                x, h, c, lengths, filters(1, 96, 16), filters(1, 96, 24), filters(1, 96), 24, "forward"
            ),
            2 * 2 * 7 * 96 * (16 + 24),
        ),
        "attention": (op.scaled_dot_product_attention(queries, keys, keys), 4 * 4 * 32 * 40 * 16),
    }
    for name, (node, _) in made.items():
        node.set_friendly_name(name)
    outputs = [node.output(0) for node, _ in made.values()]
    inputs = [image, grouped, rows, left, right, queries, keys, x, h, c]
    ov.save_model(ov.Model(outputs, inputs), tmp_path / "all.xml", compress_to_fp16=False)
    found = look(str(tmp_path / "all.xml"), "f32")
    by_name = {row[0]: row[4] for row in found.nodes}
    for name, (_, flops) in made.items():
        assert by_name[name] == pytest.approx(flops, rel=0.02), name
    assert found.flops == pytest.approx(sum(flops for _, flops in made.values()), rel=0.02)


def test_inspect_lists_nodes(capsys, tmp_path):
    code, said, _ = cli(capsys, "inspect", MODEL, "--nodes", "--json", tmp_path / "i.json")
    assert code == 0 and re.search(r"aten::softmax/Softmax +Softmax +f32\[\?,10\]", said)
    found = json.loads((tmp_path / "i.json").read_text())
    kinds = [kind for _, kind, *_ in found["nodes"]]
    assert kinds.count("Convolution") == 5 and found["bytes"] > 100_000
    ov.save_model(ov.convert_model(MODEL, input=[1, 1, 8, 8]), tmp_path / "static.xml")
    assert cli(capsys, "inspect", tmp_path / "static.xml", "--json", tmp_path / "s.json")[0] == 0
    found = json.loads((tmp_path / "s.json").read_text())
    assert sum(row[4] or 0 for row in found["nodes"]) == pytest.approx(found["flops"])


@pytest.mark.parametrize("command", ["inspect", "convert", "compile", "compare", "profile"])
def test_blobs_have_no_graph_to_read(capsys, tmp_path, command):
    """What cannot be done with one is said, and with what it can be done."""
    code, _, complaint = cli(capsys, command, tmp_path / "model.blob")
    assert code == 2 and "is a compiled blob" in complaint and "IR or ONNX" in complaint


def test_an_engine_that_is_missing_is_named(capsys, monkeypatch):
    for engine, packages in (("openvino", "openvino"), ("onnxruntime", "onnxruntime onnx")):
        monkeypatch.setitem(sys.modules, engine, None)
        code, _, complaint = cli(capsys, "compare", MODEL, "--engine", engine)
        assert code == 2 and f"--engine {engine} needs: pip install {packages}" in complaint


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("benchmark", "-m", MODEL, "-t", "0"), "0 should be above 0"),
        (("benchmark", "-m", MODEL, "-t", "-1"), "should be above 0"),
        (("benchmark",), "usage: ovjit benchmark -m MODEL"),
        (("profile", MODEL, "--shape", "1,x"), "write whole numbers, 1,3,224,224"),
        (("profile", MODEL, "--runs", "0"), "0 should be at least 1"),
        (("nothing",), "usage: ovjit"),
    ],
)
def test_misuse_is_told_shortly(capsys, arguments, words):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    complaint = capsys.readouterr().err
    assert ended.value.code == 2 and words in complaint and len(complaint.splitlines()) < 8, complaint


def test_the_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"ovjit {ov.__version__}\n"


def test_ctrl_c_is_one_line(tmp_path):
    """While it measures, in a process of its own."""
    code = (
        "import sys\nfrom ovjit.tools import measure\nfrom ovjit.__main__ import main\n"
        "inner = measure.measure\n"
        "def told(*a):\n    print('measuring', flush=True)\n    return inner(*a)\n"
        "measure.measure = told\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "benchmark", "-m", MODEL, "-t", "60"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "measuring\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, complaint) == (130, "ovjit: interrupted\n")


def test_nobody_reads_on(tmp_path):
    """A reader that goes away ends a command, without a traceback."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "ovjit", "inspect", MODEL], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert done.returncode == 141 and done.stderr == ""


def test_the_demo_tells_where_kernels_are_from():
    from ovjit.codegen.compiling import Progress
    from ovjit.tools.demo import first_time

    steps = [Progress(0, 2, "a", 0.0), Progress(1, 2, "b", 0.25), Progress(2, 2, "", 0.5)]
    assert first_time({"compiled": 0, "cached": 0, "shipped": 22}, []) == "kernels: 22 shipped with ovjit"
    assert first_time({"compiled": 2, "cached": 1, "shipped": 19}, steps) == (
        "kernels: 19 shipped with ovjit, 1 from the cache, 2 compiled in 0.50 s and kept for later processes"
    )
    assert first_time({"compiled": 0, "cached": 0, "shipped": 0}, []) == "kernels: loaded before"


def test_the_demo_draws_digits(capsys):
    from ovjit.tools.demo import draw

    images = np.zeros((2, 1, 8, 8), np.float32)
    images[0, 0, 2, 3] = images[1, 0, :, 0] = 16
    text = draw(images, np.array([1, 7]), np.array([1, 1])).split("\n")
    assert len(text) == 10 and text[8].split() == ["reads", "1", "reads", "7,", "is", "1"]
    assert text[2].index(text[2].strip()[0]) == 6 and text[0][17] == text[2].strip()[0]


def test_names_are_no_markup(monkeypatch):
    """Brackets in names and shapes are shown as they are."""
    console = pytest.importorskip("rich.console", reason="needs ovjit[cli]")
    out = io.StringIO()
    monkeypatch.setattr(terminal, "_console", lambda errors=False: console.Console(file=out, width=80))
    terminal.show_table(("[bold]", "b"), [("[red]x", "[/a]"), ("f32[n,2]", "[?,1]")], "[b]")
    assert all(text in out.getvalue() for text in ("[bold]", "[red]x", "[/a]", "f32[n,2]", "[b]"))


def test_a_bar_of_stages(monkeypatch):
    console = pytest.importorskip("rich.console", reason="needs ovjit[cli]")
    out = io.StringIO()
    shown = console.Console(file=out, force_terminal=True, width=80)
    monkeypatch.setattr(terminal, "_console", lambda errors=False: shown if errors else None)
    with terminal.stages() as tell:
        tell("reading [b]", 0, 1)
        tell("packing [b]", 3, 4)
    assert "packing [b]" in out.getvalue() and "75%" in out.getvalue()
    monkeypatch.setattr(terminal, "_console", lambda errors=False: None)
    with terminal.stages() as tell:
        tell("unseen", 1, 1)


def test_a_wide_table_stands_upright_in_a_narrow_terminal(monkeypatch):
    """Numbers are not folded into columns of two letters."""
    console = pytest.importorskip("rich.console", reason="needs ovjit[cli]")
    out = io.StringIO()
    narrow = console.Console(file=out, width=60)
    monkeypatch.setattr(terminal, "_console", lambda errors=False: narrow)
    columns = [f"column_{i}" for i in range(12)]
    terminal.show_table(columns, [["first", *range(100000, 100011)], ["second", *range(200000, 200011)]])
    assert all(f"column_{i}" in out.getvalue() for i in range(12)) and "200010" in out.getvalue()
