"""Kept models of torch.compile, each asked for in a process of its own."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("torch")

#: Prints whether the model was loaded, and whether its result is that of eager mode.
PROGRAM = """
import json, sys
import torch
import ovjit.torch
from ovjit.api.run.core import Core

given, folder = json.loads(sys.argv[1]), sys.argv[2]
loaded, plain = [], Core.compile_model

def compile_model(*args, **more):
    made = plain(*args, **more)
    loaded.append(made.get_property("LOADED_FROM_CACHE"))
    return made

Core.compile_model = compile_model
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4)).eval()
dtype = getattr(torch, given.get("dtype", "float32"))
with torch.no_grad():
    net[2].weight[1, 1] += given.get("weight", 0)
    net = net.to(dtype)
    x = torch.arange(4 * given.get("rows", 2)).view(-1, 4).to(dtype) / 8
    config = {"INFERENCE_PRECISION_HINT": "f32", **given.get("config", {})}
    options = {"model_caching": True, "cache_dir": folder, "config": config}
    function = lambda x: net(x) * given.get("factor", 1.5)
    found = torch.compile(function, backend="openvino", options=options)(x)
    print(json.dumps([loaded, torch.allclose(found, function(x), atol=1e-2)]))
"""


def _asked(folder, given):
    """Whether the model was loaded from the folder; its result is eager mode's."""
    command = [sys.executable, "-c", PROGRAM, json.dumps(given), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    loaded, is_right = json.loads(done.stdout.splitlines()[-1])
    assert is_right
    assert len(loaded) == 1
    return loaded[0], done.stdout + done.stderr


def test_another_process_loads_the_model(tmp_path) -> None:
    """What differs in weights, shapes, types, numbers or properties is compiled, and kept beside it."""
    assert not _asked(tmp_path, {})[0]
    assert _asked(tmp_path, {})[0]
    others = [
        {"weight": 1},
        {"rows": 3},
        {"factor": 2.5},
        {"dtype": "float64"},
        {"config": {"INFERENCE_PRECISION_HINT": "bf16"}},
    ]
    for given in others:
        assert not _asked(tmp_path, given)[0]
    assert len(list(tmp_path.glob("*.blob"))) == len(others) + 1
    assert _asked(tmp_path, others[0])[0]
    assert _asked(tmp_path, {})[0]


def test_a_damaged_model_is_compiled_again(tmp_path) -> None:
    _asked(tmp_path, {})
    (blob,) = tmp_path.glob("*.blob")
    whole = blob.read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:300], whole[:middle] + b"UUUU" + whole[middle + 4 :]):
        blob.write_bytes(damaged)
        loaded, text = _asked(tmp_path, {})
        assert not loaded
        assert "is compiled again" in text
        assert _asked(tmp_path, {})[0]
