"""Tools with `-d GPU`, with a stand-in for the driver."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ovjit as ov
from ovjit import __main__ as command
from ovjit.gpu import driver
from ovjit.tools import demo
from tests.support.fake_cuda import FakeCuda

op = ov.opset13


@pytest.fixture
def model(tmp_path: Path) -> str:
    x = op.parameter([2, 40], np.float32, name="x")
    ov.save_model(ov.Model([op.softmax(op.relu(x), 1)], [x]), tmp_path / "model.xml")
    return str(tmp_path / "model.xml")


def test_profiles_have_the_peaks_of_the_card(
    cuda: FakeCuda, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["profile", model, "-d", "GPU", "--runs", "2"]) == 0
    shown = capsys.readouterr().out
    assert "softmax_f32" in shown and "roofline of 132 cores, sm_90: 66908.2 GFLOP/s in f32" in shown
    assert "3352 GB/s from memory" in shown and cuda.launches


def test_benchmarks_run_on_the_card(
    cuda: FakeCuda, model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    kept = tmp_path / "config.json"
    words = ["benchmark", "-m", model, "-d", "GPU", "-niter", "2", "-hint", "throughput"]
    assert command.main([*words, "-dump_config", str(kept)]) == 0
    assert cuda.replays and "GPU" in json.loads(kept.read_text())
    assert "error" not in capsys.readouterr().err.lower()


def test_the_demo_runs_on_the_card(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Few(Exception):
        pass

    def stop(*_: object) -> None:
        raise Few

    monkeypatch.setattr(demo, "print_latencies", stop)
    xml, images, labels = demo.digits()
    monkeypatch.setattr(demo, "digits", lambda: (xml, images[:6], labels[:6]))
    with pytest.raises(Few):
        demo.main(device="GPU")
    assert "NVIDIA Fake 100 (dGPU)" in capsys.readouterr().out and cuda.replays


def test_tools_without_a_card_say_so(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    if driver.cards():
        pytest.skip("there is a card")
    for words in (
        ["profile", model, "-d", "GPU"],
        ["demo", "-d", "GPU"],
        ["benchmark", "-m", model, "-d", "GPU"],
    ):
        assert command.main(words) != 0
        assert 'Device with "GPU" name is not registered' in capsys.readouterr().err
