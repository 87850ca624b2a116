"""Programs that others wrote for OpenVINO, run by their own command lines: with the real package, then with
ovjit.

The environments are made for the test and thrown away. Those from PyPI are behind the marker `pypi`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.environments import install, new_environment
from tests.support.run import command

PROGRAMS = Path(__file__).parent / "programs"
OURS = ("-m", "ovjit", "run")


def last_line(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


# -- benchmark_app, which is in the openvino wheel ---------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    import openvino as ov

    folder = tmp_path_factory.mktemp("models")
    rng, o = np.random.default_rng(0), ov.opset13
    x, w = o.parameter([1, 3, 32, 32], name="x"), rng.standard_normal((8, 3, 3, 3)).astype(np.float32)
    y = o.reduce_mean(
        o.relu(o.convolution(x, o.constant(w), [1, 1], [1, 1], [1, 1], [1, 1])), np.array([2, 3]), False
    )
    x.layout = ov.Layout("NCHW")
    ov.save_model(ov.Model([o.result(o.softmax(y, 1), name="out")], [x], "net"), folder / "m.xml")
    x = o.parameter([-1, 3, -1, -1], name="x")
    y = o.reduce_mean(
        o.relu(o.convolution(x, o.constant(w), [1, 1], [1, 1], [1, 1], [1, 1])), np.array([2, 3]), False
    )
    ov.save_model(ov.Model([o.result(y, name="out")], [x], "open"), folder / "d.xml")
    data = rng.standard_normal((1, 3, 32, 32)).astype(np.float32)
    np.save(folder / "x.npy", data)
    data.tofile(folder / "x.bin")
    (folder / "out").mkdir()
    return folder


LINES = """
-m m.xml -niter 4 -nireq 2 -d CPU
-m m.xml -niter 4 -d AUTO -hint cumulative_throughput -pc -report_type average_counters -report_folder out
-m d.xml -niter 4 -d CPU -data_shape [1,3,16,16][1,3,32,32] -pcseq -report_type no_counters -report_folder out
""".strip().splitlines()
LONG = """
-m m.xml -niter 4 -api sync -d CPU -hint latency
-m m.xml -niter 4 -d CPU -hint throughput -nireq 3
-m m.xml -niter 4 -d CPU -hint none -nstreams 2 -nireq 2 -nthreads 2
-m m.xml -niter 4 -d CPU -pin YES -hint none -nstreams 2
-m m.xml -niter 4 -d CPU -pc -report_type detailed_counters -report_folder out
-m m.xml -niter 4 -d CPU -report_type average_counters -report_folder out -json_stats
-m m.xml -niter 4 -d CPU -exec_graph_path exec.xml
-m m.xml -niter 4 -d CPU -dump_config config.json
-m m.xml -niter 4 -d CPU -load_config config.json
-m m.xml -niter 4 -d CPU -cdir cache -lfile
-m m.xml -niter 4 -d CPU -i x.npy -ip f32
-m m.xml -niter 4 -d CPU -i x.bin -ip f32
-m m.xml -niter 4 -d CPU -i x.npy
-m m.xml -niter 4 -d CPU -ip u8 -op f16
-m m.xml -niter 4 -d CPU -iop x:f16,out:f64
-m m.xml -niter 4 -d CPU -shape [2,3,32,32]
-m m.xml -niter 4 -d CPU -b 2 -layout [NCHW]
-m m.xml -niter 4 -d CPU -layout [NCHW] --mean_values [1,2,3] --scale_values [4,5,6] -ip f32
-m d.xml -niter 4 -d CPU -shape [1,3,16..64,16..64] -data_shape [1,3,16,16][1,3,32,32]
-m d.xml -niter 4 -d CPU -shape [?,3,?,?] -data_shape [1,3,16,16][1,3,32,32] -inference_only false
-m m.xml -niter 4 -d CPU -infer_precision f32 -no_warmup
-m m.xml -niter 4 -d CPU -pc -pcsort sort
-m m.xml -t 1 -d CPU -latency_percentile 90 -max_irate 100
-m m.xml -niter 4 -d MULTI:CPU -hint latency
-m m.xml -niter 4 -d HETERO:CPU
-m nofile.xml -niter 4
-m m.xml -niter 4 -d GPU
-m m.xml -niter 4 -d CPU -hint nonsense
-h
""".strip().splitlines()


@pytest.mark.parametrize("line", [*LINES, *(pytest.param(x, marks=pytest.mark.long) for x in LONG)])
def test_benchmark_app(line, models):
    program = Path(sys.executable).parent / "benchmark_app"
    if not program.exists():
        pytest.skip("the openvino wheel's programs are not beside this python")
    real = command(sys.executable, program, *line.split(), folder=models)
    ours = command(sys.executable, *OURS, program, *line.split(), folder=models)
    assert ours.returncode == real.returncode, ours.stdout[-2000:] + ours.stderr[-2000:]
    assert steps(ours.stdout) == steps(real.stdout)


def steps(printed: str) -> list[str]:
    """The steps that benchmark_app reports, and the model's ports: lines that do not depend on speed or
    device."""
    lines = re.findall(r"(?m)^\[Step .*|^\[ INFO \] (?:Model [io].*|Network [io].*|    .* / .*)", printed)
    return [re.sub(r"\d+\.\d+", "", line) for line in lines]


# -- from PyPI ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    return new_environment(tmp_path_factory.mktemp("programs") / "env")


def both(python: Path, program: str, *arguments: Any) -> tuple[Any, Any]:
    real = command(python, PROGRAMS / program, *arguments)
    ours = command(python, *OURS, PROGRAMS / program, *arguments)
    return last_line(real), last_line(ours)


OCR = ["Hello World 2026", "The quick brown fox", "0123456789 ABC"]
FOR_OCR = ("opencv-python-headless", "pyclipper", "shapely", "six", "omegaconf", "tqdm", "pillow", "colorlog",
           "requests", "pyyaml")  # fmt: skip


@pytest.mark.pypi
@pytest.mark.timeout(900)
def test_rapidocr_openvino(python):
    install(python, *FOR_OCR)
    install(python, "rapidocr_openvino==1.4.4", alone=True)
    real, ours = both(python, "ocr.py", "1")
    assert ours == real
    assert "".join(ours).replace(" ", "") == "".join(OCR).replace(" ", "")


@pytest.mark.pypi
@pytest.mark.timeout(900)
def test_rapidocr(python):
    install(python, *FOR_OCR)
    install(python, "rapidocr", alone=True)
    real, ours = both(python, "ocr.py", "2")
    assert ours == real == OCR


@pytest.mark.pypi
@pytest.mark.timeout(900)
def test_model_api(python, tmp_path):
    install(python, "openvino-model-api")
    for folder in ("real", "ours"):
        (tmp_path / folder).mkdir()
    real = last_line(command(python, PROGRAMS / "wrappers.py", tmp_path / "real"))
    ours = last_line(command(python, *OURS, PROGRAMS / "wrappers.py", tmp_path / "ours"))
    for name, (same, called, text) in real.items():
        assert ours[name][:2] == [same, called] == [True, True]
        assert numbers(ours[name][2]) == pytest.approx(numbers(text), abs=0.01), name
        assert re.sub(r"[\d.]+", "", ours[name][2]) == re.sub(r"[\d.]+", "", text)


def numbers(text: str) -> list[float]:
    return [float(x) for x in re.findall(r"\d+\.?\d*", text)]


@pytest.mark.pypi
@pytest.mark.timeout(900)
def test_keras_backend(python, tmp_path):
    install(python, "keras==3.15.1", "scipy")
    real, ours = both(python, "keras_backend.py", tmp_path)
    assert_alike(ours, real, "keras")


@pytest.mark.pypi
@pytest.mark.timeout(1200)
def test_nncf(python):
    install(python, "nncf")
    real, ours = both(python, "compression.py")
    for name, (kinds, error) in real.items():
        assert ours[name][0] == kinds, name
        assert ours[name][1] == pytest.approx(error, rel=0.1, abs=0.01), name


@pytest.mark.pypi
@pytest.mark.timeout(600)
def test_silero_vad(python):
    install(python, "silero-vad", alone=True)
    where = next(python.parents[1].glob("lib/python3.*/site-packages/silero_vad/data"))
    real, ours = both(python, "speech.py", where)
    for name, probabilities in real.items():
        np.testing.assert_allclose(ours[name], probabilities, atol=2e-4, err_msg=name)


#: Inputs of scripts and of nested arguments, and results of exported programs, have other names in OpenVINO.
CALLED_OTHERWISE = {"scripted", "branching", "nested", "exported"}


@pytest.mark.pypi
@pytest.mark.timeout(1200)
def test_torch_modules(python):
    install(python, "torch", "onnx")
    real, ours = both(python, "torch_modules.py")
    assert ours.pop("node names") == real.pop("node names")
    assert len(real) == 24 and ours.pop("still in training") is real.pop("still in training") is False
    assert [name for name, told in real.items() if "error" in told] == ["wrong", "unknown"]
    for name, told in real.items():
        values, mine = told.pop("values", []), ours[name].pop("values", [])
        for a, b in zip(mine, values, strict=True):
            np.testing.assert_allclose(a, b, atol={"half": 2e-3, "bf16": 2e-2}.get(name, 1e-5), err_msg=name)
        if name in CALLED_OTHERWISE:
            for port in (*told["inputs"], *told["outputs"], *ours[name]["inputs"], *ours[name]["outputs"]):
                port[0] = None
        assert ours[name] == told, name


@pytest.mark.pypi
@pytest.mark.timeout(3600)
def test_exported_models(python, tmp_path):
    """What PyTorch exports, beside ONNX Runtime; what OpenVINO converts, beside OpenVINO; bf16 no worse than
    there. All of it natively."""
    install(python, "torch", "transformers", "onnxscript")
    files = last_line(command(python, PROGRAMS / "exported.py", tmp_path, seconds=1800))
    assert len(files) == 41
    for name in files:
        check_exported(tmp_path / name)


def check_exported(path: Path) -> None:
    import onnxruntime
    import openvino

    import ovjit

    with np.load(path.parent / f"{path.name.split('.')[0]}.npz") as arrays:
        given = dict(arrays)

    def results(ov: Any, **config: Any) -> tuple[list[np.ndarray], Any]:
        model = ov.Core().compile_model(path, "CPU", config)
        request = model.create_infer_request()
        kinds = [port.get_element_type().to_dtype() for port in model.inputs]
        if path.suffix == ".onnx":
            chosen = [given[port.get_any_name()] for port in model.inputs]
        else:
            chosen = list(given.values())[: len(kinds)]
        request.infer([a.astype(kind) for a, kind in zip(chosen, kinds, strict=True)])
        return [request.get_output_tensor(i).data.copy() for i in range(len(model.outputs))], request

    ours, request = results(ovjit, INFERENCE_PRECISION_HINT="f32", PERF_COUNT=True)
    assert "ref_numpy" not in {row.exec_type for row in request.profiling_info}, path
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path)
        theirs = session.run(None, {port.name: given[port.name] for port in session.get_inputs()})
    else:
        theirs = results(openvino, INFERENCE_PRECISION_HINT="f32")[0]
        exact = [a.astype(np.float64) for a in ours]
        low = [results(ov)[0] for ov in (ovjit, openvino)]
        for a, *both in zip(exact, *low, strict=True):
            mine, real = (float(np.sqrt(np.mean((b - a) ** 2))) for b in both)
            assert mine <= 1.2 * real + 1e-3 * float(np.sqrt(np.mean(a**2))), f"{path.name} in bf16"
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype, path.name
        limit = 1e-4 * max(float(np.abs(b).max()), 1e-9)
        np.testing.assert_allclose(a, b, rtol=0, atol=limit, err_msg=path.name)


def assert_alike(ours: Any, real: Any, where: str) -> None:
    """The same structure; numbers within 1e-4 of the largest of their list."""
    if isinstance(real, dict):
        assert ours.keys() == real.keys(), where
        for key, value in real.items():
            assert_alike(ours[key], value, f"{where} {key}")
    elif isinstance(real, list) and real and not isinstance(real[0], (int, float)):
        assert len(ours) == len(real), where
        for a, b in zip(ours, real, strict=True):
            assert_alike(a, b, where)
    elif isinstance(real, list) and any(isinstance(x, float) for x in real):
        limit = 1e-4 * max(1.0, *map(abs, real))
        np.testing.assert_allclose(ours, real, rtol=0, atol=limit, err_msg=where)
    else:
        assert ours == real, where


@pytest.mark.pypi
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "program", ["optimum_models.py", "optimum_generation.py", "optimum_quantized.py", "sentences.py"]
)
def test_what_exports_transformers(python, tmp_path, program):
    install(python, "torch", "optimum-intel", "nncf", "sentence-transformers")
    ways = {"real": (), "ours": OURS}
    for folder in ways:
        (tmp_path / folder).mkdir()
    made = {
        folder: last_line(command(python, *way, PROGRAMS / program, tmp_path / folder, seconds=1700))
        for folder, way in ways.items()
    }
    assert not [name for name, told in made["real"].items() if isinstance(told, dict) and "error" in told]
    assert_alike(made["ours"], made["real"], program)


@pytest.mark.pypi
@pytest.mark.timeout(3600)
def test_pipelines_of_pictures(python, tmp_path):
    """Exports of seven families: texts, scores, numbers of tokens, classes of errors."""
    install(python, "torch", "torchvision", "transformers==4.57.6", "optimum-intel==2.2.0", "nncf")
    install(python, "openvino-genai==2026.4.1.0", "openvino-tokenizers==2026.4.1.0")
    real, ours = both(python, "genai_pictures.py", tmp_path)
    assert len(real) == 7 and all("error" not in calls for calls in real.values())
    assert_alike(ours, real, "pictures")


def cases(python: Path, program: str, folder: Path, count: int, *way: Any) -> dict[str, Any]:
    """The results of a program of OpenVINO's users by case, `count` of them, none an error."""
    found: dict[str, Any] = last_line(command(python, *way, PROGRAMS / program, folder, seconds=3000))
    assert len(found) == count
    for name, said in found.items():
        assert "error" not in said, (name, said)
    return found


@pytest.mark.pypi
@pytest.mark.timeout(3600)
def test_models_of_several_networks(python, tmp_path):
    """Beside PyTorch: OpenVINO fails at the shapes of GPT-2 as a decoder of pictures."""
    install(python, "torch", "optimum-intel", "nncf", "torchvision")
    for name, said in cases(python, "optimum_composed.py", tmp_path, 11, *OURS).items():
        assert_alike(said["made"], said["torch"], name)


@pytest.mark.pypi
@pytest.mark.timeout(3600)
def test_pipelines_of_transformers(python, tmp_path):
    """Pipelines, fixed shapes and options of compilation, beside PyTorch."""
    install(python, "torch", "optimum-intel", "nncf", "torchvision")
    for name, said in cases(python, "optimum_pipelines.py", tmp_path, 17, *OURS).items():
        assert said.pop("apart") < 1e-4, name
        assert all(said.values()), (name, said)


@pytest.mark.pypi
@pytest.mark.timeout(3600)
def test_pipelines_of_diffusion(python, tmp_path):
    # newer ones want another huggingface_hub than the transformers that optimum-intel exports
    install(python, "torch", "optimum-intel", "nncf", "diffusers<0.40")
    for name, said in cases(python, "optimum_diffusion.py", tmp_path, 13, *OURS).items():
        assert said["spread"] > 0.1 and said["apart"] < 1e-4, (name, said)


@pytest.mark.pypi
@pytest.mark.timeout(3600)
def test_paged_decoders(python, tmp_path):
    """OpenVINO's transformation loses the slopes of MPT, and the window of GPT-Neo's local layers."""
    install(python, "torch", "optimum-intel", "nncf")
    for kind, said in cases(python, "paged_decoders.py", tmp_path, 21).items():
        assert said["apart"]["ours"] < 1e-5, (kind, said)
        assert kind == "mpt" or not said["differ"], (kind, said)


@pytest.mark.pypi
@pytest.mark.timeout(3600)
def test_ultralytics(python, tmp_path):
    install(python, "torch", "torchvision", "nncf", "scipy", "polars", "psutil")
    install(python, "ultralytics", "ultralytics-thop", "opencv-python-headless", alone=True)
    for folder in ("real", "ours"):
        (tmp_path / folder).mkdir()
    real = last_line(command(python, PROGRAMS / "detector.py", tmp_path / "real", seconds=1700))
    ours = last_line(command(python, *OURS, PROGRAMS / "detector.py", tmp_path / "ours", seconds=1700))
    low = [told.pop("yolo11n.yaml int8") for told in (ours, real)]
    assert [len(rows) for rows in low] == [len(low[0])] * 2 and len(low[0]) > 0
    assert_alike(ours, real, "ultralytics")


@pytest.mark.pypi
@pytest.mark.timeout(3600)
def test_exporter_of_transformers(tmp_path):
    """The same ports, variables and precisions, results as near to PyTorch's. In an environment of its own:
    optimum-intel wants an older transformers."""
    python = new_environment(tmp_path / "env")
    install(python, "torch", "transformers==5.24.0", "nncf")
    found = []
    for folder, way in (("real", ()), ("ours", OURS)):
        (tmp_path / folder).mkdir()
        found.append(cases(python, "exporter.py", tmp_path / folder, 8, *way))
    for each in found:
        for name, told in each.items():
            for part in told.values() if "in parts" in name else [told]:
                assert part.pop("apart") < (0.1 if name == "int8 weights" else 1e-4), name
    assert found[0] == found[1]
