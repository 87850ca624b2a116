"""The targets of coverage-guided fuzzing: seeds are well, what is wrong is told, and atheris runs them."""

from __future__ import annotations

import random
import re
import time

import pytest

from ovjit.disk import notice
from ovjit.readers.onnx import wire
from ovjit_ops.attention.paged_reference import paged_attention
from tests.fuzz import guided, guided_targets, paged_target
from tests.support.environments import install, new_environment
from tests.support.run import command

SEED = 20261123


@pytest.mark.parametrize("name", [name for name in guided_targets.TARGETS if name != "blob"])
def test_seeds_and_changes_of_them_are_well(name: str, monkeypatch) -> None:
    if name not in guided_targets.available():
        pytest.skip(f"{name} needs {guided_targets.NEEDS[name]}")
    for module, setting in ((wire, "SMALLEST"), (notice, "warn_once")):  # which targets change
        monkeypatch.setattr(module, setting, getattr(module, setting))
    target = guided_targets.make(name)
    seeds = target.seeds()
    assert len(seeds) >= 3 and all(len(seed) <= target.longest for seed in seeds)
    rng = random.Random(SEED)
    change = target.mutator(lambda data, most: data[: rng.randrange(len(data) + 1)])
    for data in rng.sample(seeds, min(len(seeds), 12)):
        assert not target.check(data)
        for _ in range(3):
            changed = change(data, target.longest, rng.randrange(1 << 30))
            assert not target.check(changed), f"{name}, seed {SEED}: {changed!r:.500}"


def test_what_is_wrong_is_told(monkeypatch, tmp_path, capsys) -> None:
    class Broken(guided_targets.Ir):
        def check(self, data: bytes) -> str:
            if b"Slow" in data:
                while time.process_time() < began + 2 * guided.LONGEST:
                    pass
            if b"Relu" in data:
                raise IndexError("planted")
            return "written otherwise" if b"Add" in data else ""

    monkeypatch.setitem(guided_targets.TARGETS, "ir", Broken)
    monkeypatch.setattr(guided, "LONGEST", 0.2)
    files = [tmp_path / name for name in ("well", "raises", "wrong", "slow")]
    for path, content in zip(files, (b"", b"Relu", b"Add", b"Slow"), strict=True):
        path.write_bytes(content)
    began = time.process_time()
    assert guided.replay("ir", list(map(str, files[:1]))) == 0
    assert guided.replay("ir", list(map(str, files))) == 1
    told = capsys.readouterr().out
    assert "IndexError in check, test_guided.py" in told and "written otherwise" in told
    assert "seconds of CPU time" in told


def test_other_numbers_of_paged_attention_are_told(monkeypatch) -> None:
    """Answers, caches, and what is refused."""
    target = paged_target.Paged()
    seed = target.seeds()[0]
    assert not target.check(seed)

    def planted(*inputs, **attrs):
        out, *others = paged_attention(*inputs, **attrs)
        return out + 1e-2, *others

    monkeypatch.setattr(paged_target, "paged_attention", planted)
    assert "result 0 is off by 0.01" in target.check(seed)
    monkeypatch.setattr(paged_target, "paged_attention", lambda *inputs, **attrs: inputs)
    hostile = seed.replace(b'"past_lens": [0,', b'"past_lens": [-1,')
    assert "what the reference computes is refused" in target.check(hostile)


def test_findings_of_one_cause_have_one_kind() -> None:
    one = guided._kind("node 'a' has 3 inputs\nmore")
    assert one == guided._kind("node 'bc' has 17 inputs\nother")
    assert guided._kind("IndexError in f, a.py:3") != guided._kind("IndexError in f, a.py:4")


@pytest.mark.pypi
def test_atheris_runs_the_targets(tmp_path) -> None:
    python, corpus = new_environment(tmp_path / "environment"), tmp_path / "corpus"
    install(python, "atheris")
    done = command(python, "-m", "tests.fuzz.guided", "ir", "protocol", "--seconds", "40", "--corpus", corpus)
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.findall(
        r"(\d+) inputs in \d+ s \(\d+ s of CPU time\), (\d+) branches reached, (\d+) inputs kept, 0 findings",
        done.stdout,
    )
    assert len(said) == 2, done.stdout
    for (runs, branches, kept), seeds in zip(said, (150, 12), strict=True):
        assert int(runs) > int(kept) > seeds and int(branches) > 300, done.stdout
