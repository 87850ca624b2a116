"""The operations on packed strings: native forms beside the references, tables of patterns beside `regex`."""

from __future__ import annotations

import ctypes
import itertools

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as ops
from ovjit.codegen import native_routines
from ovjit.errors import InferenceError, ModelError, OvjitError
from ovjit.graph.dtypes import from_numpy
from ovjit.graph.graph import Builder
from ovjit.graph.op import REFUSED, all_ops, find_op
from ovjit.graph.shapes import ANY
from ovjit_ops.text import automata, patterns
from ovjit_ops.text.character_maps import CompiledTable, normalizer
from ovjit_ops.text.packed import pack, unpack
from tests.support.run import run
from tests.support.samples import samples_of
from tests.support.samples.text import sample_rows, sample_strings, sample_text
from tests.support.tokenizers import GPT2, LLAMA3, byte_pairs

SEED = 71
HOSTED = [record for record in all_ops() if record.module.startswith("ovjit_ops.text")]
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|"
    r"\s++$|\s*[\r\n]|"
    r"\s+(?!\S)|\s"
)
PATTERNS = (
    GPT2, LLAMA3, O200K, CL100K, r"\w+|[^\w\s]+", "^ ", " $", " {2,}", r"(\<s\>|\<\/s\>)",
    r"([\p{Han}])", "a*?b|a+", r"(?:^)([\s\S])", r"[a-z]+?\d*|x(?=y)|(ab|a)(c|bcd)(d*)",
    r"[\x{4E00}-\x{9FFF}]|[!-/]", r"\s*", "(a|ab)(c|$)",
)  # fmt: skip


def evaluate(record, inputs, attrs, native=True):
    """The outputs of an operation by what its host prepares, all inputs being known, or by its reference."""
    attrs = record.check_attributes(attrs)
    make = record.hosting() if native else None
    run = make(inputs, attrs) if make is not None else None
    made = record.ref(*inputs, **attrs) if run is None else run(*inputs)
    return [np.asarray(x) for x in (made if isinstance(made, tuple) else (made,))]


def check_equal(record, inputs, attrs, where):
    expected, made = (evaluate(record, inputs, attrs, native) for native in (False, True))
    for a, b in zip(expected, made, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape, where
        np.testing.assert_array_equal(a, b, err_msg=where)


def texts(rng, count, letters="abc .,!'1245ABC\n\t \u00e9\u0301ﬁ你好😀Ωẞ\u180e\u3000'st"):
    return ["".join(rng.choice(list(letters), rng.integers(0, 14))) for _ in range(count)]


@pytest.mark.parametrize("record", HOSTED, ids=lambda r: r.name)
def test_native_forms_give_what_references_do(record):
    for dtype in record.types[:2]:
        for i, (inputs, attrs) in enumerate(samples_of(record, np.random.default_rng(SEED), dtype)):
            check_equal(record, [np.asarray(x) for x in inputs], attrs, f"{record} sample {i} {attrs} {SEED}")


def test_there_are_33_of_them():
    """31, and the two that every opset has: those that the library registers."""
    assert len(HOSTED) == 31
    assert {r.version for r in HOSTED} == {"extension", "openvino_tokenizers"}


def search(automaton: automata.Automaton, text: str, at: int) -> tuple[int, int] | None:
    """The first match from `at` by the automaton's table."""
    columns = automaton.table.shape[1]
    for begin in range(at, len(text) + 1):
        state, match_end = automaton.starts[0 if begin == 0 else 1], -1
        for position in range(begin, len(text) + 1):
            if position == len(text):
                column = columns - 1
            elif position == len(text) - 1 and text[position] == "\n":
                column = columns - 2
            else:
                column = int(automaton.classes[ord(text[position])])
            entry = int(automaton.table[state, column])
            if entry & 1:
                match_end = position
            state = entry >> 1
            if not state:
                break
        if match_end >= 0:
            return begin, match_end
    return None


@pytest.mark.parametrize("pattern", PATTERNS)
def test_tables_find_the_matches_of_regex(pattern):
    made, engine = automata.Automaton(pattern), patterns.compile_pattern(pattern.encode())
    for text in [*texts(np.random.default_rng(SEED), 300), "ab", "abcd\n", "  \n", "12 a  "]:
        expected, found, at = [], [], 0
        for match in engine.finditer(text):
            if match.start() == match.end():
                break
            expected.append(match.span())
        while (one := search(made, text, at)) is not None and one[0] < one[1]:
            found.append(one)
            at = one[1]
        assert found == expected, (pattern, text, SEED)


def test_characters_of_a_class_are_those_of_all_code_points():
    """Most planes are tried by three of their characters, unless a pattern names characters by number."""
    regex = pytest.importorskip("regex")
    everything = np.arange(0x110000, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    for text in (
        r"\p{Cn}", r"\p{Co}", r"\p{Assigned}", r"\p{Noncharacter_Code_Point}", r"^\p{L}\p{Co}", r"\P{M}",
        r"\s", r"\s\u180e", "^a-z", r"\U00050001\-\.", "\U0010fffd", r"\x41", "^\U000f0007-\U000f0009",
    ):  # fmt: skip
        matches = regex.finditer(f"[{text}]+", everything, regex.V0)
        ranges = tuple((match.start(), match.end() - 1) for match in matches)
        assert automata.members_of(text) == automata.without(ranges, automata._later()), text


@pytest.mark.parametrize(
    "pattern", [r"(a)\1", r"(?<=a)b", r"(?>a|ab)c", r"\bx", "a++a", "(?:a?)*", r"(?=ab)", "[", "a{2"]
)
def test_patterns_without_a_table(pattern):
    assert automata.automaton(pattern.encode()) is None


@pytest.mark.parametrize(
    "behaviour", ["remove", "isolate", "contiguous", "mergedwithprevious", "mergedwithnext"]
)
def test_random_splits(behaviour):
    rng = np.random.default_rng(SEED)
    for pattern in (GPT2, CL100K, r"\s", "b", r"\w+"):
        rows = sample_rows(*(texts(rng, n) for n in (5, 0, 7, 1)))
        skips = rng.random(13) < 0.3
        for attrs in ({}, {"invert": True}, {"max_splits": 2}):
            where = f"{pattern} {behaviour} {attrs} {SEED}"
            attrs = {"behaviour": behaviour, **attrs}
            check_equal(find_op("RegexSplit"), [*rows, sample_text(pattern)], attrs, where)
            check_equal(find_op("RegexSplit"), [*rows, skips, sample_text(pattern)], attrs, where)


def test_random_replacements():
    rng = np.random.default_rng(SEED)
    for pattern, by in (
        (r"\s+", " "), (" ", "▁"), ("(^)([^b])", r"▁\2"), ("(a|b)", "<$1>"), (r"(\s)(a)", r"\2\1"),
        ("b", ""), ("c", "x" * 99),
    ):  # fmt: skip
        strings = pack([t.encode() for t in texts(rng, 40)] + [b"a\xff b", b""])
        for everywhere in (True, False):
            inputs = [*strings, sample_text(pattern), sample_text(by)]
            check_equal(
                find_op("RegexNormalization"), inputs, {"global_replace": everywhere}, f"{pattern} {SEED}"
            )


def test_random_byte_pairs():
    """Ties of the queue, words that several merges make, bytes that are no words, kept words."""
    rng = np.random.default_rng(SEED)
    record = find_op("BPETokenizer")
    for turn in range(12):
        words = dict.fromkeys("abcd" if turn % 2 else "ab")
        merges = []
        for _ in range(rng.integers(1, 12)):
            left, right = (str(rng.choice(list(words))) for _ in range(2))
            words[left + right] = None
            merges.append((left, right))
        vocabulary = [*words, "abc", "dd", "<unk>", "<0x64>", "b</w>", "</w>"]
        vocabulary = list(dict.fromkeys(vocabulary))
        pieces = ["".join(rng.choice(list("abcdx"), rng.integers(0, 20))) for _ in range(30)]
        pairs = *sample_strings(*(a for a, _ in merges)), *sample_strings(*(b for _, b in merges))
        inputs = [*sample_rows(pieces[:20], pieces[20:], pieces[:5]), *sample_strings(*vocabulary), *pairs]
        for attrs in (
            {},
            {"unk_token": "<unk>", "byte_fallback": True},
            {"end_suffix": "</w>"},
            {"cache_capacity": 3},
        ):
            check_equal(record, inputs, attrs, f"turn {turn} {attrs} {SEED}")


def test_long_strings_and_rows_that_share_strings():
    rng = np.random.default_rng(SEED)
    vocabulary, merges = byte_pairs()
    pairs = *pack([a for a, _ in merges]), *pack([b for _, b in merges])
    begins, ends, *strings = sample_rows(["the weather " * 700, " isn't"])
    rows = np.zeros(9, np.int32), np.full(9, 2, np.int32)  # each row has both strings
    del begins, ends
    check_equal(find_op("BPETokenizer"), [*rows, *strings, *pack(vocabulary), *pairs], {}, "long")
    check_equal(
        find_op("RegexSplit"), [*rows, *strings, sample_text(r"\w")], {"behaviour": "isolate"}, "long"
    )
    words = [bytes([c]) for c in range(32, 127)] + [b"the", b"weat", b"her"]
    scores = -rng.random(len(words)).astype(np.float32)
    check_equal(find_op("UnigramTokenizer"), [*rows, *strings, *pack(words), scores], {}, "long")


def test_random_unigrams_and_words():
    rng = np.random.default_rng(SEED)
    for turn in range(8):
        words = list(dict.fromkeys("".join(rng.choice(list("abcé"), rng.integers(1, 5))) for _ in range(25)))
        rows = sample_rows(
            *(["".join(rng.choice(list("abcéx"), rng.integers(0, 12))) for _ in range(9)] for _ in range(2))
        )
        scores = np.round(-rng.random(len(words)) * 4).astype(np.float32)  # many equal sums
        check_equal(
            find_op("UnigramTokenizer"), [*rows, *sample_strings(*words), scores], {}, f"{turn} {SEED}"
        )
        marked = [w if rng.random() < 0.5 else f"##{w}" for w in words]
        inputs = [*rows, *sample_strings(*dict.fromkeys(marked)), np.int32(7)]
        check_equal(find_op("WordpieceTokenizer"), inputs, {"max_bytes_per_word": 9}, f"{turn} {SEED}")


def compiled_table(entries):
    """SentencePiece's form of a table: a double array with one block of 256 units for each node."""
    nodes, texts_of = {b"": 0}, b""
    for key in entries:
        for size in range(len(key) + 1):
            nodes.setdefault(key[:size], len(nodes))
    units = np.zeros(256 * (len(nodes) + 1), np.uint32)
    units[:] = 0x80000000  # a label that no byte has
    offsets = {}
    for key, by in entries.items():
        offsets[key] = len(texts_of)
        texts_of += by + b"\0"
    place = {b"": 0}
    for prefix, number in nodes.items():
        at = place[prefix]
        base = 256 * (number + 1)
        label = prefix[-1] if prefix else 0
        units[at] = label | ((at ^ base) << 10) | (1 << 8 if prefix in entries else 0)
        if prefix in entries:
            units[base] = 0x80000000 | offsets[prefix]
        for other in nodes:
            if len(other) == len(prefix) + 1 and other.startswith(prefix):
                place[other] = base ^ other[-1]
                units[place[other]] = other[-1]
    return len(units.tobytes()).to_bytes(4, "little") + units.tobytes() + texts_of


def test_compiled_tables_of_characters():
    entries = {
        "ﬁ".encode(): b"fi",
        b"a": b"b",
        b"ab": b"",
        "a\u0301".encode(): "á".encode(),
        "\u3000".encode(): b" ",
    }
    table = compiled_table(entries)
    made = CompiledTable(table)
    assert made.longest("aﬁ".encode(), 1) == (3, b"fi") and made.longest(b"abc", 0) == (2, b"")
    rng = np.random.default_rng(SEED)
    strings = pack([t.encode() for t in texts(rng, 60)] + [b"", b"  a\xff ", "\u3000ab ﬁ \u3000".encode()])
    for flags in np.ndindex(2, 2, 2):
        names = ("add_dummy_prefix", "remove_extra_whitespaces", "escape_whitespaces")
        attrs = dict(zip(names, map(bool, flags), strict=True))
        inputs = [*strings, np.frombuffer(table, np.uint8)]
        check_equal(find_op("CharsMapNormalization"), inputs, attrs, f"{attrs} {SEED}")
    assert normalizer(made, True, True, True)("\u3000ab ﬁ \u3000".encode()).decode() == "▁▁fi".replace(
        "▁▁", "▁"
    )


@pytest.mark.parametrize("damage", ["size", "text", "cycle"])
def test_damaged_tables_of_characters(damage):
    table = bytearray(compiled_table({b"ab": b"x"}))
    if damage == "size":
        table[:4] = (1 << 30).to_bytes(4, "little")
    elif damage == "text":
        table[-1] = 65
    else:
        table[4:-2] = np.random.default_rng(SEED).integers(0, 256, len(table) - 6, np.uint8).tobytes()
    inputs = [*sample_strings("abab", "xyz" * 50), np.frombuffer(bytes(table), np.uint8)]
    try:
        evaluate(find_op("CharsMapNormalization"), inputs, {})
    except InferenceError:
        return
    assert damage == "cycle"


#: (operation, input) of which the output has the size.
SIZES = {("RaggedToDense", 3), ("RaggedToRagged", 1), ("RaggedToSparse", 0), ("RaggedToSparse", 1)}


@pytest.mark.parametrize("record", HOSTED, ids=lambda r: r.name)
def test_ranges_outside_of_their_elements(record):
    """Begins and ends are data: none leads out of memory."""
    rng = np.random.default_rng(SEED)
    for inputs, attrs in list(samples_of(record, rng, record.types[0]))[:3]:
        for i, x in enumerate(inputs):
            if np.asarray(x).dtype != np.int32 or not np.size(x):
                continue
            for value in (-1, 1 << 20, np.iinfo(np.int32).max, np.iinfo(np.int32).min):
                changed = [np.array(y) for y in inputs]
                changed[i].reshape(-1)[rng.integers(changed[i].size)] = value
                if (record.name, i) in SIZES:
                    continue
                for native in (False, True):
                    try:
                        evaluate(record, changed, attrs, native)
                    except (InferenceError, ModelError, ValueError, LookupError, MemoryError):
                        pass


def test_strings_that_are_not_utf8():
    """PCRE2 finds nothing in them where it checks them: in splits. In replacements the package lets it not
    check."""
    strings = pack([b" a b", b" a \xff b", b" \xe4\xbd", b" \xf7\xbf\xbf\xbf x", b"\x80 \xc3"])
    for pattern in ("^ ", " ", r"\p{L}", r"x|\s"):
        inputs = [*strings, sample_text(pattern), sample_text("_")]
        for native in (False, True):
            made = evaluate(find_op("RegexNormalization"), inputs, {}, native)
            if pattern == " ":
                assert unpack(*made) == [x.replace(b" ", b"_") for x in unpack(*strings)]
            if pattern == "^ ":
                assert unpack(*made)[2] == b"_\xe4\xbd"
    rows = np.zeros(1, np.int32), np.array([5], np.int32)
    made = evaluate(find_op("RegexSplit"), [*rows, *strings, sample_text(" ")], {"behaviour": "remove"})
    assert unpack(*made[2:]) == [b"a", b"b", *unpack(*strings)[1:]]


#: Operation -> the inputs that are begins of rows or of strings; the next ones are their ends.
BEGINS = {
    "CombineSegments": (0, 3), "FuzeRagged": (0, 2), "RaggedToDense": (0,), "RaggedToSparse": (0,),
    "RaggedTensorPack": (0,), "Truncate": (0,), "StringToHashBucket": (0,), "UTF8Validate": (0,),
    "ByteFallback": (0,), "BytesToChars": (0, 2), "CharsToBytes": (0, 2), "EqualStr": (0, 3),
    "RegexSplit": (0, 2), "SpecialTokensSplit": (0, 2), "VocabEncoder": (0, 3), "TrieTokenizer": (0, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", BEGINS)
@pytest.mark.parametrize("opened", [False, True], ids=["fixed", "open"])
def test_begins_and_ends_of_different_shapes(name, opened):
    """Both forms refuse them, also where the result is empty, so that no one reads the values."""
    record = find_op(name)
    inputs, attrs = next(iter(samples_of(record, np.random.default_rng(SEED), record.types[0])))
    for begins in BEGINS[name]:
        for changed in (begins, begins + 1):
            x = np.asarray(inputs[changed])
            for wrong in (x[np.newaxis], x.reshape(-1)[:0], np.concatenate([x.reshape(-1)] * 2)):
                arrays = [np.asarray(y) for y in inputs]
                arrays[changed] = np.ascontiguousarray(wrong)
                with pytest.raises(OvjitError):
                    record.evaluate(arrays, record.check_attributes(attrs))
                with pytest.raises(OvjitError, match="shape|dimension"):
                    run_graph(record, arrays, attrs, opened)


def shapes_of(array):
    """The array in other shapes of its rank."""
    if array.ndim > 1:
        yield np.ascontiguousarray(array.T)
        yield array.reshape((1,) * (array.ndim - 1) + (-1,))
    if array.ndim and len(array):
        yield from (array[:-1].copy(), array[:0].copy(), np.concatenate([array, array[-1:]]))


def outcome(function, *args):
    """The outputs, or that they were refused."""
    try:
        return function(*args)
    except REFUSED + (OvjitError,):  # what users get as an InferenceError
        return "refused"


@pytest.mark.parametrize("name", sorted(r.name for r in all_ops() if r.hosting() is not None))
@pytest.mark.parametrize("known", [False, True], ids=["inputs", "constants"])
def test_other_shapes_are_refused_as_references_refuse_them(name, known):
    """One or two inputs of another shape, the others being constants or not."""
    record = find_op(name)
    for inputs, attrs in samples_of(
        record, np.random.default_rng(SEED), record.types[0] if record.types else ""
    ):
        arrays, attrs = [np.asarray(x) for x in inputs], record.check_attributes(attrs)
        one = [{i: x} for i, array in enumerate(arrays) for x in shapes_of(array)]
        two = [a | b for a, b in itertools.combinations(one, 2) if a.keys() != b.keys()]
        for changed in one + two[::5]:
            given = [changed.get(i, x) for i, x in enumerate(arrays)]
            constants = [x if known and i not in changed else None for i, x in enumerate(arrays)]
            try:
                run = record.hosting()(constants, attrs)
            except OvjitError:
                run = None
            if run is None:
                continue  # the reference is what runs
            want = outcome(record.evaluate, given, attrs)
            made = outcome(run, *given)
            made = made if isinstance(made, (tuple, str)) else (made,)
            where = f"{name} of {[x.shape for x in given]}"
            assert (made == "refused") == (want == "refused"), where
            if want != "refused":
                for a, b in zip(want, made, strict=True):
                    np.testing.assert_array_equal(a, b, err_msg=where)
                    assert a.shape == b.shape and a.dtype == b.dtype, where


def test_computed_special_tokens():
    """A SentencePiece model with special tokens that are no constants, by the reference."""
    record = find_op("SentencepieceTokenizer")
    *_, (inputs, attrs) = samples_of(record, np.random.default_rng(SEED))
    b = Builder()
    kinds = [from_numpy(x.dtype) for x in inputs[1:]]
    values = [b.add("Parameter", (), {"shape": [ANY], "element_type": kind}).output for kind in kinds]
    values = [b.constant(inputs[0]), *values]
    made = run(b.finish(b.add(record, values, attrs).outputs), inputs[1:])
    for x, y in zip(made, record.evaluate(inputs, record.check_attributes(attrs)), strict=True):
        np.testing.assert_array_equal(x, y)


def run_graph(record, arrays, attrs, opened):
    b = Builder()
    parameters = [
        b.add(
            "Parameter",
            (),
            {"shape": [ANY] * x.ndim if opened else x.shape, "element_type": from_numpy(x.dtype)},
        )
        for x in arrays
    ]
    graph = b.finish(b.add(record, [p.output for p in parameters], attrs).outputs)
    return run(graph, arrays)


@pytest.mark.parametrize("native", [False, True])
def test_rows_of_strings_without_a_byte(native):
    """Each row stays a row. OpenVINO makes one of them, whatever their number."""
    rows = sample_rows([""], ["", ""], [])
    skips = np.array([True, False, False])
    begins, ends, *strings, marks = evaluate(
        find_op("RegexSplit"), [*rows, skips, sample_text(r"\s")], {"behaviour": "isolate"}, native
    )
    assert begins.tolist() == ends.tolist() == [0, 0, 0]
    assert unpack(*strings) == [b""] * 3 and marks.tolist() == skips.tolist()


def test_a_vocabulary_outside_of_its_bytes():
    """It is refused where it is prepared, also if no number asks for the word."""
    words = sample_strings("a", "bc")
    inputs = [np.zeros((2, 0), np.int32), *words[:2], words[2][:-1]]
    for native in (False, True):
        with pytest.raises(InferenceError, match="outside of the 2 elements"):
            evaluate(find_op("VocabDecoder"), inputs, {"skip_tokens": []}, native)


def test_texts_outside_of_a_tensor_are_empty() -> None:
    """As in OpenVINO: Gather of an index out of range is "" as it is 0 for numbers."""
    texts, index = ops.parameter([-1, 2], ov.Type.string), ops.parameter([-1], np.int64)
    compiled = ov.compile_model(ov.Model([ops.gather(texts, index, ops.constant(0))], [texts, index]), "CPU")
    rows = np.array([["a", "b"], ["c", "d"]])
    assert compiled([rows, np.array([1, 5, -3])])[0].tolist() == [["c", "d"], ["", ""], ["", ""]]
    assert compiled([rows[:0], np.array([0])])[0].tolist() == [["", ""]]


def test_arguments_of_a_routine_live_until_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other threads allocate memory while it runs, for it holds no lock."""
    found = []

    def routine(block: int) -> int:
        others = [np.full(3, -1, np.int64) for _ in range(100)]
        found.append(list((ctypes.c_int64 * 3).from_address(block)))
        return len(others)

    monkeypatch.setattr(native_routines, "routine_at", lambda module, name: routine)
    assert native_routines.native("module", "name")(5, 6, 7) == 100
    assert found == [[5, 6, 7]]
