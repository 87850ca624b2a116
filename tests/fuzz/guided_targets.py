"""What `guided` runs: readers of files, and the servers' protocol.

`TARGETS` maps a name to a Target: `seeds()` are inputs from the tests, `check(data)` is what is wrong with an
input ("" for nothing; an exception is a finding, too), `mutate(data, most, rng)` is a change that the format
survives. A damaged file is to give an error of ovjit's own. What is read is also written and read again.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import logging
import random
import re
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import ovjit
from ovjit import opset13 as op
from ovjit.data import DIGITS_XML
from ovjit.errors import OvjitError
from ovjit.readers.ir.writer import to_bytes
from tests.fuzz.fuzz_models import NUMBERS, TEXTS, is_internal, signature
from tests.support.forged import place_of

#: Between the parts of an input that is several files.
PART = b"\n\0part\0\n"
#: The key of a stranger.
FOREIGN = bytes(range(32))
#: Where one value ends and the next begins: in XML, in JSON.
_XML = re.compile(rb'(?<==")[^"<>]*(?=")|(?<=>)[^<>\n]+(?=<)|(?<=[ ])[a-z_-]+(?==")')
_JSON = re.compile(rb'"[^"\\]*"|-?\d+(?:\.\d+)?|true|false|null')

Mutation = Callable[[bytes, int, random.Random], bytes]


class Target:
    """One kind of input."""

    #: Bytes of the longest input.
    longest = 1 << 15
    #: A change that keeps the format's frame; None: libFuzzer's own changes of bytes alone.
    mutate: Mutation | None = None

    def seeds(self) -> list[bytes]:
        raise NotImplementedError

    def check(self, data: bytes) -> str:
        raise NotImplementedError

    def mutator(self, plain: Callable[[bytes, int], bytes]) -> Callable[[bytes, int, int], bytes]:
        """libFuzzer's own change, or the format's."""

        def change(data: bytes, most: int, seed: int) -> bytes:
            rng = random.Random(seed)
            if self.mutate is None or rng.random() < 0.4 or not data:
                return plain(data, most)
            return self.mutate(data, most, rng)[:most]

        return change


def tokens_changed(pattern: re.Pattern[bytes], data: bytes, most: int, rng: random.Random) -> bytes:
    """Some values replaced by hostile ones or by each other, or a line dropped or doubled."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        if rng.random() < 0.2:
            lines = data.split(b"\n")
            at = rng.randrange(len(lines))
            lines[at : at + 1] = [] if rng.random() < 0.5 else [lines[at]] * 2
            data = b"\n".join(lines)
            continue
        places = [m.span() for m in pattern.finditer(data)]
        if not places:
            break
        first, last = rng.choice(places)
        if rng.random() < 0.5:
            begin, end = rng.choice(places)
            new = data[begin:end]
        else:
            old = data[first:last]
            new = str(rng.choice(NUMBERS if old[:1].isdigit() or old[:1] == b"-" else TEXTS)).encode()
            new = json.dumps(new.decode()).encode() if old[:1] == b'"' else new
        data = data[:first] + new + data[last:]
    return data


def _written_again(model: Any) -> str:
    """What was read is written, and read again as the same."""
    graph = model._graph()
    try:
        text, weights = to_bytes(model)
    except OvjitError as error:
        return f"what was read cannot be written: {error}" if is_internal(str(error)) else ""
    try:
        again = ovjit.Core().read_model(text, weights)._graph()
    except OvjitError as error:
        return f"what was written cannot be read: {error}"
    return "" if signature(graph) == signature(again) else "what was written is read as another graph"


def _refused(error: RuntimeError) -> str:
    return f"{type(error).__name__}: {error}" if is_internal(str(error)) else ""


class Ir(Target):
    """An XML file and its weights."""

    def seeds(self) -> list[bytes]:
        from tests.fuzz import fuzz_bases

        rng, out = random.Random(1), []
        for _ in range(150):
            text, weights = to_bytes(fuzz_bases.base(fuzz_bases.pick(rng)))
            text = re.sub(rb"\s*<dim>[^<]*</dim>", b"", text)
            if len(text) + len(weights) < self.longest // 2:
                out.append(text + PART + weights)
        return out

    def check(self, data: bytes) -> str:
        text, _, weights = data.partition(PART)
        try:
            return _written_again(ovjit.Core().read_model(text, weights))
        except RuntimeError as error:
            return _refused(error)

    def mutate(self, data: bytes, most: int, rng: random.Random) -> bytes:  # type: ignore[override]
        return tokens_changed(_XML, data, most, rng)


class Onnx(Target):
    """An ONNX file."""

    def __init__(self) -> None:
        from ovjit.readers.onnx import wire

        wire.SMALLEST = 8  # most data are cut out

    def seeds(self) -> list[bytes]:
        from tests.support.onnx.cases import load_cases
        from tests.support.onnx.mutations import seeds

        cases = load_cases(("simple", "pytorch-operator", "pytorch-converted"))
        return [*seeds(), *(case.model for case in cases if len(case.model) <= 8000)]

    def check(self, data: bytes) -> str:
        try:
            return _written_again(ovjit.Core().read_model(data))
        except RuntimeError as error:
            return _refused(error)

    def mutate(self, data: bytes, most: int, rng: random.Random) -> bytes:  # type: ignore[override]
        from tests.support.onnx.mutations import mutate_fields, mutate_structure

        try:
            return rng.choice((mutate_fields, mutate_structure))(rng, data)
        except Exception:  # it is no message
            return data


class _Read(BaseException):
    """Ends an import where compiling would begin; the second argument is the graph."""


class Blob(Target):
    """The tables and weights of a stranger's blob, in a container whose checksums are right; or, behind a
    first byte 1, the container's bytes."""

    parts = ("header", "graph", "weights", "packed")

    def __init__(self) -> None:
        logging.getLogger("ovjit").setLevel(logging.ERROR)

    def seeds(self) -> list[bytes]:
        from ovjit.storage.container import Container, write_container
        from tests.fuzz import fuzz_bases

        rng, out = random.Random(2), []
        for i in range(60):
            model = fuzz_bases.base(fuzz_bases.pick(rng))
            compiled = ovjit.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1})
            content = compiled.export_model().getvalue()
            sections = Container(memoryview(content)).sections
            tables = PART.join(bytes(sections[k]) for k in self.parts)
            if len(tables) < self.longest // 2:
                out.append(b"\0" + tables)
            if i < 4:
                out.append(b"\1" + write_container(sections, FOREIGN))
        return out

    def check(self, data: bytes) -> str:
        from ovjit.storage.container import SECTIONS, write_container

        content = data[1:]
        if data[:1] != b"\1":
            found = dict(zip(self.parts, data[1:].split(PART), strict=False))
            content = write_container({k: found.get(k, b"") for k in SECTIONS}, FOREIGN)
        try:
            read = _imported(content)
        except RuntimeError as error:
            return _refused(error)
        return "a stranger's blob is used" if read is None else self._stored_again(read)

    @staticmethod
    def _stored_again(graph: Any) -> str:
        from ovjit.storage.graph_format import Arrays, Reader, dump, encode_graph, parse

        arrays = Arrays("weights")
        table = parse(dump(encode_graph(graph, arrays)), "graph")
        again = Reader({"weights": memoryview(arrays.content())}).graph(table)
        return "" if signature(graph) == signature(again) else "what was stored is read as another graph"

    def mutate(self, data: bytes, most: int, rng: random.Random) -> bytes:  # type: ignore[override]
        return data if data[:1] == b"\1" else tokens_changed(_JSON, data, most, rng)


def _stop(graph: Any, config: Any) -> Any:
    raise _Read(graph)


def _imported(content: bytes) -> Any:
    """The graph of a blob that would be compiled; None of one that is used as it is."""
    from ovjit import engine

    compile_graph, engine.compile_graph = engine.compile_graph, _stop
    try:
        ovjit.Core().import_model(content, "CPU")
        return None
    except _Read as read:
        return read.args[0]
    finally:
        engine.compile_graph = compile_graph


class Kept(Target):
    """Files that ovjit writes under the user's key: a kept model, the plans beside it, a record, a kernel. A
    byte says which; the bytes behind it are used only where they are what was written."""

    longest = 1 << 17

    def __init__(self) -> None:
        from ovjit.disk import kernel_cache, notice, sealed, store
        from ovjit.disk.keys import find_key

        logging.getLogger("ovjit").setLevel(logging.ERROR)
        self.folder = tempfile.mkdtemp(prefix="ovjit-kept-")
        self.key = find_key(None).value
        self.cache = kernel_cache.KernelCache(self.folder)
        self.address = "ab" * 32
        self.cache.write(self.address, b"object code" * 9, {"kernel": "k"})
        x = op.parameter([1, 8], np.float32)
        y = op.softmax(op.matmul(x, np.ones((8, 8), np.float32), False, False), 1)
        model = ovjit.compile_model(ovjit.Model([y], [x]), "CPU", {"INFERENCE_NUM_THREADS": 1})
        self.blob = model.export_model().getvalue()
        self.record = sealed.seal(store.SOURCES.kind, "name", b"digest", self.key)
        kernel = Path(self.folder, self.address + store.KERNELS.suffix)
        self.files = [self.blob, self.record, kernel.read_bytes()]
        self.paths = [Path(self.folder, "m.blob"), Path(self.folder, "name.source"), kernel]
        notice.warn_once = lambda *_: None

    def seeds(self) -> list[bytes]:
        return [bytes([i]) + content for i, content in enumerate(self.files) if len(content) < self.longest]

    def check(self, data: bytes) -> str:
        from ovjit.disk import store
        from ovjit.storage.origins import read_record

        which, content = (data or b"\0")[0] % len(self.files), data[1:]
        path = self.paths[which]
        path.write_bytes(content)
        if which == 0:
            try:
                used = _imported(content) is None and self._but_weights(content) != self._but_weights(
                    self.blob
                )
            except RuntimeError as error:
                return _refused(error)
        elif which == 1:
            used = read_record(self.folder, store.SOURCES, "name", self.key) is not None
        else:
            used = self.cache.get(self.address) is not None
        same = content == self.files[which]
        return "" if same or not used else f"file {which} is used, and is not what was written"

    @staticmethod
    def _but_weights(content: bytes) -> bytes:
        """What a compiled model needs: its graph's weights are checked when they are asked for."""
        offset, size = place_of(content, "weights")
        return content[:offset] + content[offset + size :]


class Gguf(Target):
    """A small decoder of llama.cpp's, of some architectures and types."""

    longest = 1 << 16

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="ovjit-gguf-"), "m.gguf")

    def seeds(self) -> list[bytes]:
        from tests.readers.gguf_decoders import Sizes, tensors, write

        out = []
        small = {
            "layers": 1,
            "wide": 32,
            "heads": 2,
            "shared": 1,
            "size": 16,
            "inner": 32,
            "words": 8,
            "turned": 16,
        }
        for arch, more in (
            ("llama", {"tied": True}), ("gpt2", {"shared": 2}), ("gemma2", {"tied": True, "window": 8}),
            ("qwen2moe", {"experts": 2}), ("phi3", {"extra": {"longrope": True}}), ("qwen3", {"tied": True}),
        ):  # fmt: skip
            for kind in ("F32", "Q8_0", "Q4_0"):
                sizes = Sizes(arch, **{**small, **more})
                write(self.path, sizes, tensors(sizes, kind, np.random.default_rng(3)))
                out.append(self.path.read_bytes())
        return [content for content in out if len(content) <= self.longest]

    def check(self, data: bytes) -> str:
        self.path.unlink(missing_ok=True)  # what was read stays mapped
        self.path.write_bytes(data)
        try:
            ovjit.Core().read_model(str(self.path))._graph()
        except RuntimeError as error:
            return _refused(error)
        return ""

    def mutate(self, data: bytes, most: int, rng: random.Random) -> bytes:  # type: ignore[override]
        """Fields of the header, which is the part before the weights."""
        out, end = bytearray(data), min(len(data), 2500)
        for _ in range(rng.choice((1, 1, 2))):
            at = rng.randrange(max(end - 8, 1))
            code = rng.choice("BHIQIQ")
            value = rng.choice(NUMBERS) & ((1 << 8 * struct.calcsize(code)) - 1)
            out[at : at + struct.calcsize(code)] = struct.pack("<" + code, value)
        return bytes(out)


class Tflite(Target):
    """A file of TensorFlow Lite: one for each operator, and quantized networks."""

    def seeds(self) -> list[bytes]:
        from tests.fuzz.fuzz_tflite import files

        return [content for content in files() if len(content) <= self.longest]

    def check(self, data: bytes) -> str:
        if data[4:8] != b"TFL3":
            return ""
        try:
            return _written_again(ovjit.Core().read_model(data))
        except RuntimeError as error:
            return _refused(error)

    def mutate(self, data: bytes, most: int, rng: random.Random) -> bytes:  # type: ignore[override]
        from tests.fuzz.fuzz_tflite import changed

        return changed(rng, data) if len(data) >= 12 else data


class Checkpoint(Target):
    """A folder of transformers: config.json, and one safetensors file."""

    longest = 1 << 16

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ovjit-checkpoint-"))

    def seeds(self) -> list[bytes]:
        from tests.readers.gguf_decoders import Sizes, tensors
        from tests.support.checkpoints import config_of, named, write_safetensors

        out = []
        small = {"layers": 1, "wide": 16, "heads": 2, "shared": 1, "size": 8, "inner": 16, "words": 8}
        small["turned"] = 8
        for arch, kind, more in (
            ("llama", "F32", {"tied": True}), ("llama", "BF16", {}), ("qwen2", "F16", {"window": 3}),
            ("qwen3", "F32", {}), ("qwen2moe", "F16", {"experts": 2}), ("phi3", "F32", {"window": 5}),
            ("gemma3", "F32", {"tied": True, "window": 4}), ("gpt2", "F32", {"shared": 2, "tied": True}),
        ):  # fmt: skip
            s = Sizes(arch, **{**small, **more})
            made = tensors(s, "F32", np.random.default_rng(4))
            arrays = {name: np.asarray(array) for name, (_, array) in made.items()}
            write_safetensors(self.folder / "seed", named(arch, arrays, s.size), kind)
            config = json.dumps(config_of(arch, s)).encode()
            out.append(config + PART + (self.folder / "seed").read_bytes())
        return [content for content in out if len(content) <= self.longest]

    def check(self, data: bytes) -> str:
        from ovjit.readers.checkpoint.reader import read_checkpoint

        config, _, weights = data.partition(PART)
        for name, content in (("config.json", config), ("model.safetensors", weights)):
            (self.folder / name).unlink(missing_ok=True)  # what was read stays mapped
            (self.folder / name).write_bytes(content)
        try:
            read_checkpoint(self.folder)._graph()
        except RuntimeError as error:
            return _refused(error)
        return ""

    def mutate(self, data: bytes, most: int, rng: random.Random) -> bytes:  # type: ignore[override]
        """Values of the configuration, or of the header of tensors, whose length stays right."""
        config, _, weights = data.partition(PART)
        if rng.random() < 0.5 or len(weights) < 8:
            return tokens_changed(_JSON, config, most, rng) + PART + weights
        size = struct.unpack_from("<Q", weights)[0]
        header = tokens_changed(_JSON, weights[8 : 8 + size], most, rng)
        return config + PART + struct.pack("<Q", len(header)) + header + weights[8 + size :]


class Protocol(Target):
    """A request of the Open Inference Protocol: a line of how it is read, and its body."""

    def __init__(self) -> None:
        from ovjit.integrations.limits import DEFAULT
        from ovjit.integrations.rest import RestModel
        from ovjit.integrations.served import ServedModel

        self.limits = DEFAULT
        self.served = ServedModel(DIGITS_XML, {"INFERENCE_PRECISION_HINT": "f32"}, jobs=1)
        self.rest = RestModel(self.served, "digits")
        self.loop = asyncio.new_event_loop()

    def seeds(self) -> list[bytes]:
        def body(shape: str, data: str, **more: str) -> bytes:
            members = {"name": '"images"', "datatype": '"FP32"', "shape": shape, "data": data, **more}
            text = ", ".join(f'"{name}": {value}' for name, value in members.items())
            return f'{{"id": "7", "inputs": [{{{text}}}], "outputs": [{{"name": "logits"}}]}}'.encode()

        zeros = json.dumps([0.5] * 64)
        bodies = [
            body("[1, 1, 8, 8]", zeros), body("[1, 1, 8, 8]", f"[[{zeros}]]"), body("[0, 1, 8, 8]", "[]"),
            body("[1]", '[null, 1e400, -0.0, true, "x\\u00e9"]'),
            body("[2]", "[[1], [2]]", datatype='"BYTES"'),
            body("[1]", "[1]", parameters='{"binary_data_size": 256}'), body("[1]", "[" * 40 + "]" * 40),
        ]  # fmt: skip
        out = [b"POST /v2/models/digits/infer\n" + content for content in bodies]
        raw = np.zeros(64, np.float32).tobytes()
        head = json.dumps({"inputs": [{
            "name": "images", "datatype": "FP32", "shape": [1, 1, 8, 8],
            "parameters": {"binary_data_size": 256},
        }], "parameters": {"binary_data_output": True}}).encode()  # fmt: skip
        out.append(b"POST /v2/models/digits/infer %d\n" % len(head) + head + raw)
        return [*out, *(b"GET %s\n" % path for path in (b"/v2", b"/v2/health/live", b"/v2/models/digits"))]

    def check(self, data: bytes) -> str:
        line, _, body = data.partition(b"\n")
        method, path, length = (*line.decode("latin-1").split(" ", 2), "", "", "")[:3]
        wrong = self._json(body)
        if wrong:
            return wrong
        headers = {"Inference-Header-Content-Length": length} if length else {}
        reply = self.loop.run_until_complete(self.rest.reply(method, path, body, headers))
        if not (reply.status == 200 or 400 <= reply.status < 500):
            return f"status {reply.status}: {reply.body[:200]!r}"
        said = reply.headers.get("Inference-Header-Content-Length")
        content = json.loads(reply.body[: None if said is None else int(said)])
        if reply.status != 200 and (not content["error"] or "Traceback" in content["error"]):
            return f"no error is named: {reply.body[:200]!r}"
        return ""

    def _json(self, body: bytes) -> str:
        """In pieces as at once; and what is JSON here is JSON to Python, as the same value."""
        from ovjit.integrations.json_pieces import loads
        from ovjit.integrations.limits import InvalidRequest

        found = []
        for limits in (self.limits, self.limits._replace(inline_bytes=1)):
            try:
                found.append(repr(_as_lists(loads(body, limits))))
            except InvalidRequest:
                found.append(None)
            except RecursionError:  # of `repr`
                return ""
        if found[0] != found[1]:
            return f"JSON in pieces is read as another value: {found[0]!r:.200} and {found[1]!r:.200}"
        if found[0] is not None and found[0] != repr(json.loads(body)):
            return f"Python reads JSON as another value: {found[0]:.200}"
        return ""

    def mutate(self, data: bytes, most: int, rng: random.Random) -> bytes:  # type: ignore[override]
        return tokens_changed(_JSON, data, most, rng)


def _as_lists(value: Any) -> Any:
    from ovjit.integrations.json_pieces import Long

    if isinstance(value, Long):
        return [_as_lists(x) for part in value for x in part]
    if isinstance(value, (list, tuple)):
        return [_as_lists(x) for x in value]
    return {k: _as_lists(v) for k, v in value.items()} if isinstance(value, dict) else value


def _elsewhere(module: str, name: str) -> Callable[[], Target]:
    def make() -> Target:
        return getattr(importlib.import_module(f"tests.fuzz.{module}"), name)()

    return make


TARGETS: dict[str, Callable[[], Target]] = {
    "ir": Ir, "onnx": Onnx, "blob": Blob, "kept": Kept, "gguf": Gguf, "tflite": Tflite,
    "checkpoint": Checkpoint, "protocol": Protocol, "paged": _elsewhere("paged_target", "Paged"),
    "program": _elsewhere("framework_targets", "Program"), "jaxpr": _elsewhere("framework_targets", "Jaxpr"),
}  # fmt: skip
#: What a target needs besides ovjit.
NEEDS = {"gguf": "gguf", "checkpoint": "gguf", "tflite": "tflite", "program": "torch", "jaxpr": "jax"}


def available() -> list[str]:
    return [name for name in TARGETS if importlib.util.find_spec(NEEDS.get(name, "json"))]


def make(name: str) -> Target:
    """The target of that name."""
    return TARGETS[name]()
