"""Requests of strangers: whatever comes is an answer or a 4xx with a clear text, and the event loop goes on
meanwhile. Also slow clients, half requests and many connections, over a small server on the loopback."""

from __future__ import annotations

import asyncio
import json
import random
import re
import resource
import threading

import numpy as np
import pytest

import ovjit as ov
from ovjit.data import DIGITS_XML, digits
from ovjit.integrations import elements, json_pieces
from ovjit.integrations import off_loop as threads
from ovjit.integrations.elements import array_of
from ovjit.integrations.json_pieces import Long, loads
from ovjit.integrations.limits import DEFAULT, InvalidRequest, Limits, TooLarge
from ovjit.integrations.protocol import read_body, read_request, response_body
from ovjit.integrations.rest import RestModel
from ovjit.integrations.served import ServedModel

F32 = {"INFERENCE_PRECISION_HINT": "f32"}
_, IMAGES, LABELS = digits()
PREDICTED = ov.compile_model(DIGITS_XML, "CPU", F32)(IMAGES[:200])[0].argmax(1).tolist()
INFER = "/v2/models/digits/infer"
#: Longer bodies go through the reader in pieces: with 1 all do.
PIECES = Limits(inline_bytes=1)


@pytest.fixture(scope="module")
def rest():
    served = ServedModel(DIGITS_XML, F32, jobs=2)
    yield RestModel(served, "digits")
    served.close()


def images_of(shape: str, data: str = "[]", **more: str) -> bytes:
    """A request, whose parts are JSON and need not make sense."""
    members = {"name": '"images"', "datatype": '"FP32"', "shape": shape, "data": data, **more}
    tensor = ", ".join(f'"{name}": {text}' for name, text in members.items())
    return f'{{"inputs": [{{{tensor}}}]}}'.encode()


def good(count: int = 1) -> bytes:
    return images_of(f"[{count}, 1, 8, 8]", json.dumps(IMAGES[:count].ravel().tolist()))


DEEP = 100_000
LONG = "9" * 4000
HOSTILE = {
    "rank 65": (images_of(json.dumps([1] * 65), "[1]"), "65 dimensions; at most 64"),
    "rank 20000": (images_of(json.dumps([1] * 20000), "[1]"), "20000 dimensions"),
    "2 ** 70": (images_of(f"[0, {2**70}]"), "more elements than data can hold"),
    "products": (images_of(f"[{2**62}, {2**62}]", "[1]"), "more elements than data can hold"),
    "products of 0": (images_of(f"[0, {2**62}, {2**62}]"), "the data are not valid FP32"),
    "digits in a shape": (images_of(f"[{LONG}, {LONG}]"), "more than 400 characters"),
    "digits in 500 dimensions": (images_of(f"[{', '.join([LONG] * 500)}]"), "more than 400 characters"),
    "digits that Python refuses": (images_of("[1]", f"[{'9' * 5000}]"), "more than 400 characters"),
    "digits of a size": (images_of("[1]", parameters=f'{{"binary_data_size": {"9" * 399}}}'), "bits"),
    "an id of digits": (b'{"id": %s, "inputs": []}' % (b"9" * 399), "id should be a string"),
    "an object as id": (b'{"id": {"a": [1]}, "inputs": []}', "id should be a string"),
    "NaN": (images_of("[1]", "[NaN]"), "NaN is not part of JSON"),
    "Infinity": (images_of("[1]", "[-Infinity]"), "-Infinity is not part of JSON"),
    "lists": (b"[" * DEEP, "not valid JSON"),
    "lists that end": (b"[" * DEEP + b"]" * DEEP, "not valid JSON"),
    "objects": (b'{"a":' * DEEP, "not valid JSON"),
    "deep data": (images_of("[1]", "[" * 500 + "1" + "]" * 500), "deeper than 64|nested too deep"),
    "members twice": (images_of("[1]", "[1]", name='"images", "name": "images"'), "'name' twice"),
    "a long name": (images_of("[1]", "[1]", name=f'"{"x" * 50_000}"'), "no input 'x+'...|length 50000"),
    "a long datatype": (images_of("[1]", "[1]", datatype=f'"{"x" * 50_000}"'), "the datatype 'x+'..."),
    "a datatype of lists": (images_of("[1]", "[1]", datatype="[[[]]]"), "should be strings"),
    "a string for data": (images_of("[1]", '"1"'), "not valid FP32"),
    "a string beside null": (images_of("[2]", '[null, "1"]'), "not valid FP32"),
    "an object for data": (images_of("[1]", '{"a": 1}'), "not valid FP32"),
    "null for data": (images_of("[1]", "null"), "images"),
    "ragged": (images_of("[3]", "[[1], [2, 3]]"), "different lengths"),
    "lists beside values": (images_of("[3]", "[[1], 2]"), "are mixed at one level"),
    "values beside lists": (images_of("[3]", "[1, [2]]"), "not valid FP32"),
    "too many": (images_of("[1]", json.dumps([1] * 20000)), "has 1 elements, the data have 20000"),
    "too many rows": (images_of("[1]", json.dumps([[1]] * 9000)), "data have at least 2"),
    "no UTF-8": (b'{"inputs": "\xff"}', "not valid JSON"),
    "UTF-16": ('{"inputs": []}'.encode("utf-16"), "not valid JSON"),
    "half of a pair": (images_of("[1]", r'["\ud800"]', datatype='"BYTES"'), "not valid BYTES"),
    "half of a pair as name": (images_of("[1]", "[1]", name=r'"\ud800"'), "no input"),
    "control characters": (b'{"inputs": "\n"}', "not valid JSON"),
    "numbers of other rules": (images_of("[1]", "[01]"), "not valid JSON"),
    "nothing": (b"", "not valid JSON"),
    "half": (good()[:300], "not valid JSON"),
    "more than one": (good() + good(), "not valid JSON"),
    "many inputs": (b'{"inputs": [%s]}' % b",".join([b"{}"] * 2000), "at most 1024 inputs"),
    "many outputs": (b'{"inputs": [], "outputs": [%s]}' % b",".join([b'{"name":""}'] * 2000), "1024 outputs"),
    "outputs of another kind": (b'{"inputs": [], "outputs": {"name": "a"}}', "outputs should be a list"),
    "an output's name": (b'{"inputs": [], "outputs": [{"name": 3}]}', "which is a string"),
}  # fmt: skip


@pytest.mark.parametrize("inline", [DEFAULT.inline_bytes, 1], ids=["inline", "pieces"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_requests(rest, kind, inline) -> None:
    """A 400 of less than 1,000 characters for every reader of bodies; the next request is answered."""
    body, words = HOSTILE[kind]
    model = RestModel(rest.served, "digits", limits=Limits(inline_bytes=inline))
    reply = asyncio.run(model.reply("POST", INFER, body))
    text = json.loads(reply.body)["error"]
    assert reply.status == 400 and re.search(words, text) and len(text) < 1000, (reply.status, text[:2000])
    after = asyncio.run(model.reply("POST", INFER, good()))
    assert after.status == 200 and np.argmax(json.loads(after.body)["outputs"][0]["data"]) == LABELS[0]


def raw_body(size: object, data: bytes, kind: str = "FP32") -> tuple[bytes, str]:
    tensor = {"name": "images", "datatype": kind, "shape": [1, 1, 8, 8]}
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": size}}]}).encode()
    return head + data, str(len(head))


@pytest.mark.parametrize(
    "size, data, kind, words",
    [
        (256, b"x" * 255, "FP32", "255 bytes remain"),
        (255, b"x" * 255, "FP32", "not valid FP32"),
        (252, b"x" * 252, "FP32", "has 64 elements, the data have 63"),
        (-1, b"x" * 256, "FP32", "binary_data_size is -1"),
        (2**64, b"x" * 256, "FP32", "binary_data_size is 18446744073709551616"),
        (True, b"x" * 256, "FP32", "binary_data_size is True"),
        ("256", b"x" * 256, "FP32", "binary_data_size is '256'"),
        (128, b"x" * 256, "FP16", "128 bytes that follow"),
        (256, b"\xff" * 256, "BYTES", "end within a string"),
        (256, b"\0" * 256, "BYTES", "expects FP32"),
        (260, b"\0" * 260, "BYTES", "the data have at least 65"),
        (257, b"\0" * 257, "BYTES", "the data have at least 65|end within a string"),
    ],
)
def test_hostile_raw_tensors(rest, size, data, kind, words) -> None:
    body, length = raw_body(size, data, kind)
    reply = asyncio.run(rest.reply("POST", INFER, body, {"Inference-Header-Content-Length": length}))
    text = json.loads(reply.body)["error"]
    assert reply.status == 400 and re.search(words, text), text


@pytest.mark.parametrize("length", ["", "x", "-1", "1_0", " 2", "٣", "9" * 5000, "1e3", "9999"])
def test_hostile_lengths_of_headers(length) -> None:
    with pytest.raises(InvalidRequest, match="Inference-Header-Content-Length"):
        read_body(good(), length)


def test_bodies_beyond_their_limits(rest) -> None:
    """413, and before anything is read; limits are settings."""
    small = RestModel(rest.served, "digits", limits=Limits.from_settings({"body_bytes": 300}))
    reply = asyncio.run(small.reply("POST", INFER, good()))
    assert reply.status == 413 and b"this server accepts at most 300" in reply.body
    with pytest.raises(TooLarge, match="send tensors as raw bytes"):
        read_body(good(), None, Limits(json_bytes=300))
    wrong = (
        ({"bytes": 1}, "unknown limit 'bytes'"),
        ({"rank": 0}, "positive integer"),
        ({"rank": "64"}, "'64'"),
    )
    for given, words in wrong:
        with pytest.raises(InvalidRequest, match=words):
            Limits.from_settings(given)
    with pytest.raises(InvalidRequest, match="more than 50 lists and members"):
        loads(json.dumps([[1]] * 60).encode(), PIECES._replace(nodes=50))
    with pytest.raises(InvalidRequest, match="does not end within 20 bytes"):
        loads(b'["%s"]' % (b"x" * 70_000), PIECES._replace(string_bytes=20))
    with pytest.raises(InvalidRequest, match="3 dimensions; at most 2"):
        array_of("x", "FP32", [1, 1, 1], [[[1]]], Limits(rank=2))


def test_a_body_of_starlette_is_read_no_further_than_its_limit(rest) -> None:
    small = RestModel(rest.served, "digits", limits=Limits(body_bytes=1000))
    seen = 0

    class Request:
        class url:
            path = INFER

        method, headers = "POST", {}

        async def stream(self):
            nonlocal seen
            for _ in range(1000):
                seen += 100
                yield b" " * 100

    reply = asyncio.run(small.reply_to(Request()))
    assert reply.status == 413 and seen == 1100


def test_more_requests_than_the_line_takes(rest) -> None:
    small = RestModel(rest.served, "digits", limits=Limits(requests=3))

    async def many() -> list:
        return await asyncio.gather(*(small.reply("POST", INFER, good(5)) for _ in range(20)))

    replies = asyncio.run(many())
    assert sorted({r.status for r in replies}) == [200, 503]
    assert all(r.headers["Retry-After"] == "1" for r in replies if r.status == 503)
    assert sum(r.status == 200 for r in replies) >= 3
    assert asyncio.run(small.reply("POST", INFER, good())).status == 200  # and no request waits for ever


def test_memory_and_threads_that_are_missing_are_a_503(rest, monkeypatch) -> None:
    class Served:
        inputs, outputs = rest.served.inputs, rest.served.outputs

        async def infer(self, arrays, output_names, session):
            raise MemoryError("an arena")

    reply = asyncio.run(RestModel(Served(), "digits").reply("POST", INFER, good()))
    assert reply.status == 503 and b"memory for this request" in reply.body

    def start(self) -> None:
        raise RuntimeError("can't start new thread")

    threads._pool.cache_clear()
    model = RestModel(rest.served, "digits", limits=PIECES)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        reply = asyncio.run(model.reply("POST", INFER, good()))
    assert reply.status == 503 and b"no thread can be started" in reply.body
    assert asyncio.run(model.reply("POST", INFER, good())).status == 200


PARTS = [
    b"NaN",
    b"1e999",
    b"-",
    b"9" * 500,
    b"[[]]",
    b'"',
    b"{}",
    b"null",
    b"\xff",
    b"\\u0000",
    b"true",
    b'"BYTES"',
    b"[" * 70,
    b',"name":1',
    b'"INT64"',
    b"-1",
    b"64",
    b'"parameters":{"binary_data_size":8},',
    b"}]}",
    b"\0" * 9,
]


@pytest.mark.parametrize("first, count", [(0, 400), pytest.param(400, 40_000, marks=pytest.mark.long)])
def test_changed_requests(rest, first, count) -> None:
    """Good requests, of JSON and of raw tensors, with parts put in, left out and doubled: no exception
    escapes, and what comes of it is an answer or a 400."""
    raw, length = raw_body(256, IMAGES[0].tobytes())
    models = [RestModel(rest.served, "digits", limits=limits) for limits in (DEFAULT, PIECES)]

    async def all_of_them() -> set[int]:
        found = set()
        for seed in range(first, first + count):
            rng = random.Random(seed)
            body = bytearray(raw if seed % 2 else good())
            for _ in range(rng.randrange(1, 4)):
                at = rng.randrange(len(body) if rng.random() < 0.3 else 120)
                body[at : at + rng.choice([0, 0, 1, 5, 60])] = rng.choice(PARTS) * rng.choice([0, 1, 1, 3])
            said = str(rng.choice([int(length), int(length), len(body), rng.randrange(500)]))
            headers = {"Inference-Header-Content-Length": said} if seed % 2 else {}
            reply = await models[seed // 2 % 2].reply("POST", INFER, bytes(body), headers)
            assert reply.status in (200, 400) and len(reply.body) < 2000, (seed, reply)
            found.add(reply.status)
        return found

    assert asyncio.run(all_of_them()) == {200, 400}


# --- reading in pieces


def random_value(rng: random.Random, depth: int = 0) -> object:
    kind = rng.randrange(8 if depth < 4 else 5)
    if kind == 0:
        return rng.choice([None, True, False, 0, -1, 2**63, 10**30, 1e300, -0.0, 1.5e-7])
    if kind == 1:
        return rng.randrange(-(10**6), 10**6)
    if kind == 2:
        return rng.uniform(-5, 5)
    if kind < 5:
        return "".join(rng.choice('ab"\\/\n\u00e9\u4e2d\U0001f600,[]{}: ') for _ in range(rng.randrange(12)))
    if kind < 7:
        return [random_value(rng, depth + 1) for _ in range(rng.choice([0, 1, 3, 40]))]
    return {str(rng.random()): random_value(rng, depth + 1) for _ in range(rng.randrange(5))}


def read(text: bytes) -> object:
    def lists(value: object) -> object:
        if isinstance(value, dict):
            return {name: lists(inner) for name, inner in value.items()}
        if isinstance(value, Long):
            value = [inner for part in value for inner in part]
        return [lists(inner) for inner in value] if isinstance(value, (list, tuple)) else value

    try:
        return repr(lists(loads(text, PIECES)))
    except InvalidRequest:
        return "refused"


def expected(text: bytes) -> object:
    """What `json` says, as strict as we are."""

    def members(pairs: list) -> dict:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("twice")
        return dict(pairs)

    def constant(name: str) -> None:
        raise ValueError(name)

    try:
        return repr(json.loads(text.decode(), object_pairs_hook=members, parse_constant=constant))
    except ValueError:
        return "refused"


def test_pieces_are_what_json_reads() -> None:
    """Random values, written in several ways, and the same with bytes changed, left out and put in."""
    for seed in range(300):
        rng = random.Random(seed)
        value = random_value(rng)
        ways = ({}, {"ensure_ascii": False}, {"indent": 1}, {"separators": (",", ":")})
        text = json.dumps(value, **ways[seed % 4]).encode()
        assert read(text) == expected(text) == repr(value), seed
        for _ in range(8):
            changed = bytearray(text)
            at = rng.randrange(len(changed))
            new = rng.choice(b'[]{},:" \\0-e.tn\xff\x00')
            end = rng.choice([at, at + 1, len(changed)])
            changed[at:end] = bytes([new]) * rng.randrange(2)
            assert read(bytes(changed)) == expected(bytes(changed)), (seed, bytes(changed))


def test_windows_meet_anywhere() -> None:
    """Lists longer than a window, whose elements lie over its end."""
    rng = random.Random(7)
    for seed, element in enumerate((
        lambda: rng.random(), lambda: "x\"\\" * rng.randrange(30), lambda: None,
        lambda: "\u4e2d" * rng.randrange(9), lambda: (rng.random(),) * 3,
        lambda: "y" * rng.randrange(60_000, 70_000),
    )):  # fmt: skip
        value = [element() for _ in range(5 if seed == 5 else 20_000)]
        text = json.dumps({"a": value, "b": 1}, ensure_ascii=False).encode()
        assert loads(text, DEFAULT) == {"a": value, "b": 1}, seed
    for value in (list(range(200_001)), [(i,) for i in range(100_000)]):
        found = loads(json.dumps(value).encode(), DEFAULT)
        assert isinstance(found, Long) and [x for part in found for x in part] == value
        wanted = np.array(value)
        assert np.array_equal(array_of("x", "INT64", list(wanted.shape), found), wanted)
        with pytest.raises(InvalidRequest, match="the data have"):
            array_of("x", "INT64", [len(value) - 1], found)
    blank = b"[1," + b" " * 200_000 + b"2" + b"\n" * 70_000 + b"]" + b"\t" * 70_000
    assert loads(blank, DEFAULT) == [1, 2]


@pytest.mark.parametrize("shape", [(30_000,), (3, 10_000), (100, 3, 100), (20_000, 1), (5, 0), (0,)])
def test_long_lists_become_the_same_arrays(shape) -> None:
    x = np.random.default_rng(1).standard_normal(shape)
    kinds = {"FP64": np.float64, "FP32": np.float32, "INT64": np.int64, "UINT64": np.uint64}
    for kind, dtype in kinds.items():
        wanted = x.astype(dtype) if dtype != np.uint64 else (abs(x) * 2**62).astype(dtype)
        for data in (wanted.tolist(), wanted.ravel().tolist()):
            found = array_of("x", kind, list(shape), data)
            assert found.dtype == dtype and np.array_equal(found, wanted), kind
    words = np.array([str(v).encode() for v in x.ravel()] + [None], object)[:-1].reshape(shape)
    assert array_of("x", "BYTES", list(shape), words.tolist()).tolist() == words.tolist()


def test_long_answers_are_the_json_that_json_writes() -> None:
    asked = read_request({"inputs": [], "id": "a"})
    x = np.random.default_rng(2).standard_normal((30, 1000)).astype(np.float32)
    x[3, 4] = np.nan
    body, length = response_body("m", "1", asked, {"y": x, "s": np.array([b"a", b"\xc3\xa9"], object)})
    found = json.loads(body)
    about = {name: found.pop(name) for name in ("model_name", "model_version", "id")}
    assert length is None and about == {"model_name": "m", "model_version": "1", "id": "a"}
    back = np.array(found["outputs"][0]["data"], np.float32).reshape(x.shape)
    assert np.array_equal(back, x, equal_nan=True) and found["outputs"][1]["data"] == ["a", "\u00e9"]


# --- the event loop, and a server on the loopback


def test_the_loop_goes_on_while_a_body_is_read(rest, monkeypatch) -> None:
    """Small requests are answered while large ones are read; and no piece of these is long, for which alone
    Python's other threads have to wait."""
    pieces: list[int] = []
    decode, converted = json_pieces._decode, elements._to_array

    def decode_noted(text: str) -> object:
        pieces.append(len(text))
        return decode(text)

    def converted_noted(data, dtype):
        pieces.append(len(data))
        return converted(data, dtype)

    monkeypatch.setattr(json_pieces, "_decode", decode_noted)
    monkeypatch.setattr(elements, "_to_array", converted_noted)
    count = 8_000
    large = images_of(f"[{count}, 1, 8, 8]", f"[{', '.join(['0.25'] * 64 * count)}]")
    nested = images_of("[3000, 200]", json.dumps([[1] * 200] * 3000))

    async def all_at_once() -> list:
        tasks = [asyncio.ensure_future(rest.reply("POST", INFER, body)) for body in (large, nested, large)]
        answered = 0
        while not all(task.done() for task in tasks) or answered < 10:
            if all(task.done() for task in tasks):  # a fast CPU reads these before it answers ten
                assert len(tasks) <= 6, f"{answered} small requests were answered beside 6 large ones"
                tasks.append(asyncio.ensure_future(rest.reply("POST", INFER, large)))
            assert (await rest.reply("POST", INFER, good())).status == 200
            answered += 1
        return [task.result() for task in tasks]

    replies = asyncio.run(all_at_once())
    assert [r.status for r in replies[:3]] == [200, 400, 200]
    assert json.loads(replies[0].body)["outputs"][0]["shape"] == [count, 10]
    assert max(pieces) <= 64 * 1024 + DEFAULT.digits


class Server:
    """The least that speaks HTTP: one request for each connection, whose body must come in time."""

    def __init__(self, model: RestModel, patience: float):
        self.model, self.patience = model, patience
        self.open = self.given_up = 0

    async def __aenter__(self) -> int:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, backlog=2048)
        return self.server.sockets[0].getsockname()[1]

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        await self.server.wait_closed()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            method, path, headers, body = await asyncio.wait_for(self.read(reader), self.patience)
            reply = await self.model.reply(method, path, body, headers)
            head = f"HTTP/1.1 {reply.status} x\r\nContent-Length: {len(reply.body)}\r\n\r\n"
            writer.write(head.encode() + reply.body)
            await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.TimeoutError, OSError):
            self.given_up += 1
        finally:
            self.open -= 1
            writer.close()

    async def read(self, reader: asyncio.StreamReader) -> tuple[str, str, dict, bytes]:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = lines[0].split()
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        return method, path, headers, await reader.readexactly(int(headers["Content-Length"]))


def http(body: bytes) -> bytes:
    return b"POST %s HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (INFER.encode(), len(body)) + body


async def talk(port: int, sent: bytes, steps: int = 1) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        size = -(-len(sent) // steps)
        for i in range(0, len(sent), size):
            writer.write(sent[i : i + size])
            await writer.drain()
            await asyncio.sleep(0.01 if steps > 1 else 0)
        return await reader.read()
    finally:
        writer.close()


def label_in(answer: bytes) -> int:
    head, body = answer.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200"), answer[:300]
    return int(np.argmax(json.loads(body)["outputs"][0]["data"]))


def image(i: int) -> bytes:
    return images_of("[1, 1, 8, 8]", json.dumps(IMAGES[i].ravel().tolist()))


async def crowd(model: RestModel, count: int) -> None:
    """So many connections, all open at once: every second one sends a good request, slowly every eighth; the
    others send a part and wait, or nonsense."""
    server = Server(model, patience=20)
    async with server as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count // 4)]
        for i, (_, writer) in enumerate(held):  # a header, half a header, half a body, or nothing
            writer.write(http(image(i))[: (60, 20, 300, 0)[i % 4]])
        tasks = [
            asyncio.ensure_future(talk(port, http(image(i % 200)), 12 if i % 4 == 0 else 1))
            for i in range(count // 2)
        ]
        wrong = [asyncio.ensure_future(talk(port, http(b"[" * 500))) for _ in range(count // 4)]
        answers = await asyncio.gather(*tasks)
        assert [label_in(a) for a in answers] == [PREDICTED[i % 200] for i in range(count // 2)]
        assert all(b" 400 x" in answer for answer in await asyncio.gather(*wrong))
        assert server.open == len(held) and not server.given_up  # they wait without blocking others
        for i, (_, writer) in enumerate(held):
            if i % 2:
                writer.transport.abort()
            else:
                writer.close()
        while server.open:
            await asyncio.sleep(0.01)
        assert server.given_up == len(held) and model._inside == 0
        assert label_in(await talk(port, http(image(0)))) == PREDICTED[0]


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_many_connections(rest, count) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * count + 200:
        pytest.skip("so many descriptors may not be had")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * count + 200), hard))
    try:
        asyncio.run(crowd(rest, count))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_who_sends_too_slowly_or_leaves_before_the_answer(rest) -> None:
    async def go() -> None:
        server = Server(rest, patience=0.3)
        async with server as port:
            assert await talk(port, http(good())[:-1]) == b""  # its time is over
            assert server.given_up == 1
            for _ in range(20):  # gone before the answer is there
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(http(good(50)))
                await writer.drain()
                writer.transport.abort()
            assert label_in(await talk(port, http(image(3)))) == PREDICTED[3]
            while server.open:
                await asyncio.sleep(0.01)
        assert rest._inside == 0

    asyncio.run(go())
