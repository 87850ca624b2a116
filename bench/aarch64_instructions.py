"""Instructions that networks take on emulated AArch64, of ovjit and of OpenVINO's wheel for it.

    python -m bench.aarch64_instructions [--models mobilenet bert128 ...] [--precisions f32 f16] [--cpu max]

A plugin of qemu counts what one inference executes, after another one, with one thread. An instruction is not
a cycle. Needs `cc`, and Debian's qemu-user: the static qemu of the tests knows no plugins.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import command
from tests.support import aarch64, aarch64_compiler

#: A system call that does not exist: at each of these the plugin says how many instructions there have been.
_MARK = 99999
_PLUGIN = """
#include <inttypes.h>
#include <stdio.h>
typedef uint64_t id_t_;
struct qemu_plugin_tb;
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
extern void qemu_plugin_register_vcpu_tb_trans_cb(id_t_, void (*)(id_t_, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_syscall_cb(id_t_, void (*)(id_t_, unsigned, int64_t, uint64_t, uint64_t,
    uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
__attribute__((visibility("default"))) int qemu_plugin_version = 1;
static uint64_t count;
static void translated(id_t_ id, struct qemu_plugin_tb *tb) {
    qemu_plugin_register_vcpu_tb_exec_inline(tb, 0, &count, qemu_plugin_tb_n_insns(tb));
}
static void called(id_t_ id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
    uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
    if (number == MARK) fprintf(stderr, "COUNT %" PRIu64 "\\n", count);
}
__attribute__((visibility("default")))
int qemu_plugin_install(id_t_ id, const void *info, int argc, char **argv) {
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
"""
_PROGRAM = """
import ctypes, importlib, sys
import numpy as np
package, path, inputs, precision, mark = sys.argv[1:]
ov = importlib.import_module(package)
config = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
request = ov.Core().compile_model(path, "CPU", config).create_infer_request()
with np.load(inputs) as arrays:
    rounds = [[arrays[f"{i}.{k}"] for k in range(len(arrays) // 3)] for i in range(3)]
say = ctypes.CDLL(None).syscall
request.infer(rounds[0])
request.infer(rounds[1])
say(int(mark))
request.infer(rounds[2])
say(int(mark))
"""
MODELS = ("resnet50", "mobilenet", "bert128", "llama")
#: Tokens of a decoder's prompt; the token behind two others is counted.
PROMPT = 16


def inputs_of(name: str) -> list[list]:
    """Of three inferences: the same, or a prompt of a decoder and two tokens behind it."""
    import numpy as np

    from bench import networks, transformers

    if name in networks.NAMES:
        return [[networks.network_input(name)]] * 3
    if name not in transformers.DECODERS:
        return [transformers.inputs(name)] * 3
    words, _, _, beam = transformers.inputs(name, PROMPT + 2)
    found = []
    for first, end in ((0, PROMPT), (PROMPT, PROMPT + 1), (PROMPT + 1, PROMPT + 2)):
        mask = np.ones((1, end), np.int64)
        found.append([words[:, first:end], mask, np.arange(first, end)[None], beam])
    return found


def path_of(name: str) -> Path:
    from bench import networks, transformers

    model, _, stored = name.partition("-")
    if model in networks.NAMES:
        return networks.build(model)
    return transformers.build(model, stored=stored or "f32")


def make_plugin(folder: Path) -> Path:
    source, made = folder / "count.c", folder / "count.so"
    source.write_text(_PLUGIN.replace("MARK", str(_MARK)))
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(made), str(source)], check=True)
    return made


def count(package: str, name: str, precision: str, cpu: str, plugin: Path) -> float:
    """Millions of instructions of one inference. RuntimeError with what the program says if it fails."""
    import numpy as np

    folder = plugin.parent
    given = folder / "inputs.npz"
    rounds = inputs_of(name.partition("-")[0])
    np.savez(given, **{f"{i}.{k}": a for i, one in enumerate(rounds) for k, a in enumerate(one)})
    environment, root = aarch64.environment(cpu, aarch64.HOME / "cache"), aarch64.HOME / "root"
    paths = (environment["OVJIT_AARCH64_SITE"], environment["PYTHONPATH"], str(aarch64.HOME / "site"))
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    done = subprocess.run(
        ["qemu-aarch64", "-cpu", environment["QEMU_CPU"], "-plugin", str(plugin), "-L", str(root),
         str(root / "usr/bin/python3.11"), "-c", _PROGRAM, package, str(path_of(name)), str(given), precision,
         str(_MARK)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    counts = [int(n) for n in re.findall(r"^COUNT (\d+)", done.stderr, re.M)]
    if done.returncode or len(counts) != 2:
        raise RuntimeError(f"{package} {name} {precision}: {done.stderr[-1500:]}")
    return (counts[1] - counts[0]) / 1e6


def main(argv: Sequence[str] | None = None) -> int:
    parser = command.parser("aarch64_instructions", __doc__, json=False)
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME[-u8|-i4]")
    parser.add_argument("--precisions", nargs="+", default=["f32", "f16"])
    parser.add_argument("--packages", nargs="+", default=["ovjit", "openvino"])
    parser.add_argument("--cpu", default="max")
    arguments = parser.parse_args(argv)
    if shutil.which("qemu-aarch64") is None:
        raise SystemExit("there is no qemu-aarch64: it is in Debian's qemu-user")
    aarch64.prepare()
    print("| network | precision |", " | ".join(arguments.packages), "|")
    print("|---" * (2 + len(arguments.packages)), end="|\n")
    with tempfile.TemporaryDirectory() as folder, aarch64_compiler.serving():
        plugin = make_plugin(Path(folder))
        for name in arguments.models:
            for precision in arguments.precisions:
                row = [
                    f"{count(package, name, precision, arguments.cpu, plugin):,.1f}"
                    for package in arguments.packages
                ]
                print("|", " | ".join([name, precision, *row]), "|", flush=True)
    return 0


if __name__ == "__main__":
    os.environ.pop("OVJIT_PRECISION", None)
    sys.exit(main())
