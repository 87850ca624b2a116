"""Text to tokens and back, by the package `tokenizers`, from `tokenizer.json` or a GGUF file's tables."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ovjit.errors import OvjitError, UnsupportedError, unless_of_signal
from ovjit.forks import made_once
from ovjit.generation.cuts import CUTS, Charsmap
from ovjit.generation.tables import Tables
from ovjit.readers.registry import name_missing_room

#: `tokenizer.ggml.token_type`: of special tokens, which are matched literally; and of single bytes.
_UNKNOWN, _CONTROL, _OWN, _BYTE = 2, 3, 4, 6
_SPACE = "\u2581"
#: Tokens that end an answer, for models whose files name only another one.
_ENDS = frozenset(
    "<|eot_id|> <|eom_id|> <|im_end|> <|end|> <|endoftext|> <|end_of_text|> <end_of_turn> <EOT> <|return|> "
    "<|call|> <end_of_utterance>".split()
)


#: The tag of a chat template around the model's answer. Such a block has its own scope of names.
_GENERATION = re.compile(r"\{%([-+]?\s*)(end)?generation(\s*[-+]?)%\}")
#: Maximum replacement characters of an incomplete character, one per byte. Maximum tokens that wait for its
#: end.
_PARTS, _PENDING = 3, 32


class Tokenizer:
    """`encode` and `decode` of a model's tokens. `ends`: tokens that end an answer. `context`: the model's
    context length; 0 if its files do not state it."""

    def __init__(
        self, inner: Any, ends: frozenset[int], template: str = "", names: Mapping[str, str] | None = None,
        first: tuple[int, ...] = (), context: int = 0,
    ):  # fmt: skip
        self._inner, self.ends, self._template, self._names = inner, ends, template, dict(names or {})
        self._first, self.context = first, context

    @classmethod
    def of(cls, path: str | Path, model: Any = None) -> Tokenizer:
        """The tokenizer of a GGUF file, or of a folder with `tokenizer.json`, or of the folder of a file.
        `model`: the GGUF file's Model, if it has been read."""
        path = Path(path)
        if not path.exists():
            raise OvjitError(f"can't open the tokenizer {str(path)!r}: there is no such file or folder")
        if is_gguf(path):
            return of_tables(model.get_rt_info("gguf") if model else read_metadata(path))
        return of_folder(path if path.is_dir() else path.parent)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, with those that begin every text of the model. Raises OvjitError for invalid
        text, such as bytes of a command line that are not UTF-8, and for text without a token."""
        return [*self._first, *self._ids(text)]

    def tokens_of(self, text: str, special: bool) -> list[int]:
        """The tokens of a text, with those that begin every text if `special`."""
        return self.encode(text) if special else self._ids(text, special=False)

    def _ids(self, text: str, special: bool = True) -> list[int]:
        try:
            return list(self._inner.encode(_check(text), add_special_tokens=special).ids)
        except OvjitError:
            raise
        except unless_of_signal(Exception) as error:  # of this very class
            raise OvjitError(f"the tokenizer cannot encode the text: {error}") from error

    def chat(self, text: str) -> list[int]:
        """The tokens of a user's message in the model's chat template. Raises OvjitError without a
        template."""
        if not self._template:
            raise OvjitError("the model has no chat template: give the prompt as plain text, without chat")
        messages = [{"role": "user", "content": text}]
        result = _render(self._template, messages=messages, add_generation_prompt=True, **self._names)
        return self._ids(result, special=False)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without special ones."""
        return self.text_of(tokens, skip_special=True)

    def text_of(self, tokens: Sequence[int], skip_special: bool) -> str:
        """The text of tokens, without special ones if `skip_special`."""
        text: str = self._inner.decode(list(tokens), skip_special_tokens=skip_special)
        return text

    def stream(self, tokens: Iterator[int], before: Sequence[int] = ()) -> Iterator[str]:
        """Yield the text of tokens as they arrive. An incomplete character waits for its end. `before`:
        preceding tokens, which decide whether the first blank is kept."""
        inside = self._letter
        context = inside if self._text_after(inside, before) else ()
        pending: list[int] = []  # tokens whose text is incomplete
        shown = 0  # characters of that text that were yielded
        for token in tokens:
            pending.append(token)
            new = self._text_after(context, pending)
            complete = new.rstrip("\ufffd")
            if complete == new or len(pending) >= _PENDING:
                yield new[shown:]
                if not context and self._text_after(inside, pending):
                    context = inside or tuple(pending)
                pending, shown = [], 0
                continue
            ready = max(len(complete), len(new) - _PARTS)
            yield new[shown:ready]
            shown = max(shown, ready)
        yield self._text_after(context, pending)[shown:]

    @made_once
    def _letter(self) -> tuple[int, ...]:
        """A token of letters, after which the following tokens are decoded as the inside of a text. It is not
        a token of bytes, which decoders join with following bytes. Empty if the model has none."""
        for number in range(self._inner.get_vocab_size()):
            name = self._inner.id_to_token(number)
            if name and name.isascii() and name.isalpha() and self.decode([number]) == name:
                return (number,)
        return ()

    def _text_after(self, context: Sequence[int], tokens: Sequence[int]) -> str:
        """The text of tokens that follow `context`, with the right leading blank."""
        return self.decode([*context, *tokens])[len(self.decode(context)) :]


def _check(text: str) -> str:
    """The text. Raises OvjitError if it cannot be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise OvjitError(f"the text is not valid UTF-8 at character {error.start}") from error
    return text


def _render(template: str, **variables: Any) -> str:
    """The rendered text of a chat template, with the names that transformers gives templates. Raises
    OvjitError if the template is invalid, or refuses the messages."""
    try:
        from jinja2.exceptions import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise OvjitError("chat templates need jinja2: pip install 'ovjit[generate]'") from error

    def refuse(message: str) -> None:
        raise OvjitError(f"the chat template rejects the messages: {message}")

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals |= {"raise_exception": refuse, "strftime_now": time.strftime}
    environment.filters["tojson"] = _as_json
    scopes = _GENERATION.sub(lambda m: f"{{%{m[1]}{m[2] or ''}with{m[3]}%}}", template)
    try:
        return environment.from_string(scopes).render(tools=None, documents=None, **variables)
    except unless_of_signal(TemplateError, TypeError, ValueError) as error:
        raise OvjitError(f"the chat template is not valid: {error}") from error


def _as_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
    """`tojson` of templates. Jinja's own escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)


def until(texts: Iterator[str], stops: Sequence[str]) -> Iterator[str]:
    """Yield the texts before the first of `stops`. Text that may begin a stop is held back."""
    pending = ""
    for text in texts:
        pending += text
        positions = [at for stop in stops if stop and (at := pending.find(stop)) >= 0]
        if positions:
            yield pending[: min(positions)]
            return
        ready = len(pending)
        for stop in stops:
            count = min(len(stop) - 1, len(pending))
            while count > 0 and not pending.endswith(stop[:count]):
                count -= 1
            ready = min(ready, len(pending) - max(count, 0))
        yield pending[:ready]
        pending = pending[ready:]
    yield pending


def is_gguf(path: Path) -> bool:
    """True for a file that ends in .gguf, there or not, or begins as such a file."""
    if path.suffix == ".gguf" or not path.is_file():
        return path.suffix == ".gguf"
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def find_gguf(folder: Path) -> list[Path]:
    """The GGUF files of a folder, in the order of their names; of a model in several parts the first one."""
    files = sorted(folder.glob("*.gguf"))
    if not files:
        return []
    with name_missing_room("GGUF files"):
        from ovjit.readers.gguf.header import is_later_part
    return [file for file in files if not is_later_part(file)]


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a GGUF file, see `ovjit.readers.gguf.reader.read_metadata`."""
    with name_missing_room("GGUF files"):
        from ovjit.readers.gguf import reader
    return reader.read_metadata(path)


def _package() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise OvjitError("text prompts need the package tokenizers: pip install 'ovjit[generate]'") from error
    return tokenizers


def read_settings(path: Path) -> dict[str, Any]:
    """The object in a JSON file; {} without a file. Raises OvjitError for other content."""
    if not path.is_file():
        return {}
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OvjitError(f"{path.name} is not valid JSON: {error}") from error
    if not isinstance(settings, dict):
        raise OvjitError(f"{path.name} should hold a JSON object")
    return settings


def _numbers(settings: Mapping[str, Any], name: str, file: str) -> list[int]:
    """The numbers of a setting that has one or several; none without the setting."""
    setting = settings.get(name)
    numbers = setting if isinstance(setting, list) else [] if setting is None else [setting]
    if not all(isinstance(n, int) for n in numbers):
        raise OvjitError(f"{file}: {name} should be a number or a list of numbers, not {setting!r}")
    return numbers


def read_token(settings: Mapping[str, Any], name: str) -> str:
    """The text of a special token, "" without one."""
    token = settings.get(name)
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else ""


def read_template(folder: Path, names: Sequence[str]) -> str:
    """The chat template of a folder: that of chat_template.jinja, else of the last of these JSON files that
    has one; "" if none has."""
    template = ""
    for name in names:
        template = _template_in(read_settings(folder / name).get("chat_template")) or template
    file = folder / "chat_template.jinja"
    return file.read_text(encoding="utf-8") if file.is_file() else template


def _template_in(value: Any) -> str:
    """The template in a setting: a text, or the one named "default" in a list."""
    if isinstance(value, list):
        named = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
        value = named.get("default")
    return value if isinstance(value, str) else ""


def of_folder(folder: Path) -> Tokenizer:
    """The tokenizer of a folder's `tokenizer.json`, with the end tokens of the model's settings and the chat
    template."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise OvjitError(f"{str(folder)!r} has no tokenizer.json, which is needed to tokenize text")
    package = _package()
    try:
        inner = package.Tokenizer.from_file(str(file))
    except unless_of_signal(Exception) as error:  # of this very class
        raise OvjitError(f"{str(file)!r} is not a valid tokenizer: {error}") from error
    inner.no_truncation()  # settings of the training, which transformers does not apply to prompts either
    inner.no_padding()
    settings, model = read_settings(folder / "tokenizer_config.json"), read_settings(folder / "config.json")
    ends = set(
        _numbers(read_settings(folder / "generation_config.json"), "eos_token_id", "generation_config.json")
    )
    ends = ends or set(_numbers(model, "eos_token_id", "config.json"))
    names = {"bos_token": "", "eos_token": ""}
    for name in (*names, *(name for name in settings if name.endswith("_token"))):
        names[name] = read_token(settings, name)
    if not ends and names["eos_token"]:
        number = inner.token_to_id(names["eos_token"])
        ends = set() if number is None else {number}
    template = read_template(folder, ("tokenizer_config.json",))
    context = max(_numbers(model, "max_position_embeddings", "config.json"), default=0)
    return Tokenizer(inner, frozenset(ends), template, names, context=context)


def of_tables(info: Any) -> Tokenizer:
    """The tokenizer of `rt_info["gguf"]`: byte pair encoding (`gpt2`), SentencePiece (`llama`), or its
    unigram model (`t5`)."""
    tables = Tables(info)
    kind = tables.text("model")
    makers = {"gpt2": _byte_pairs, "llama": _sentence_pieces, "t5": _unigrams}
    if kind not in makers:
        supported = ", ".join(makers)
        raise UnsupportedError(
            f"tokenizer.ggml.model {kind!r} is not supported; supported: {supported}. Give a folder with "
            "tokenizer.json"
        )
    tokenizers, tokens, types = _package(), tables.tokens, tables.types()
    try:
        inner = makers[kind](tables, types)
    except OvjitError:
        raise
    except unless_of_signal(Exception) as error:  # of this very class
        raise OvjitError(f"the metadata tokenizer.ggml.* is not a valid tokenizer: {error}") from error
    special = [i for i, t in enumerate(types) if t in (_CONTROL, _UNKNOWN)]
    user_defined = [i for i, t in enumerate(types) if t == _OWN]

    def add_tokens(numbers: Sequence[int]) -> list[Any]:
        return [
            tokenizers.AddedToken(tokens[i], normalized=False, rstrip=_takes_blanks(tables, tokens[i]))
            for i in numbers
        ]

    inner.add_special_tokens(add_tokens(special))
    inner.add_tokens(add_tokens(user_defined))
    begin = tables.token("bos_token_id")
    adds = tables.text("add_bos_token")
    first: tuple[int, ...] = ()
    begins = kind == "llama" or (kind == "gpt2" and CUTS[tables.text("pre") or "default"].begins)
    if begin is not None and (tables.flag("add_bos_token") or (not adds and begins)):
        first = (begin,)
    numbers = (tables.token(name) for name in ("eos_token_id", "eot_token_id", "eom_token_id"))
    ends = {number for number in numbers if number is not None}
    ends |= {i for i in (*special, *user_defined) if tokens[i] in _ENDS}
    if {"<|return|>", "<|call|>", "<|end|>"} <= {tokens[i] for i in ends}:  # gpt-oss: of a part of an answer
        ends -= {i for i in ends if tokens[i] == "<|end|>"}
    end = tables.token("eos_token_id")
    names = {
        "bos_token": "" if begin is None else tokens[begin],
        "eos_token": "" if end is None else tokens[end],
    }
    context = tables.number(f"{tables.text('general.architecture')}.context_length") or 0
    template = tables.text("tokenizer.chat_template")
    return Tokenizer(inner, frozenset(ends), template, names, first, context)


def _takes_blanks(tables: Tables, token: str) -> bool:
    """Whether special tokens swallow following blanks. Files do not say it; those of Phi 3 do swallow."""
    name = tables.text("general.name").lower()
    return ("phi-3" in name or "phi3" in name) and token not in ("<unk>", "<s>", "<|endoftext|>")


def _byte_pairs(tables: Tables, types: list[int]) -> Any:
    tokenizers = _package()
    pre = tables.text("pre") or "default"
    if pre not in CUTS:
        raise UnsupportedError(
            f"the pre-tokenizer tokenizer.ggml.pre {pre!r} is not supported. Give a folder with "
            "tokenizer.json"
        )
    cut = CUTS[pre]
    merges = [tuple(m.split(" ", 1)) for m in tables.texts("merges")]
    inner = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab={t: i for i, t in enumerate(tables.tokens)}, merges=merges, ignore_merges=cut.whole_words
        )
    )
    if cut.composed:
        inner.normalizer = tokenizers.normalizers.NFC()
    parts = tokenizers.pre_tokenizers
    steps = [parts.Split(tokenizers.Regex(words), "isolated") for words in cut.words]
    inner.pre_tokenizer = parts.Sequence([*steps, parts.ByteLevel(False, use_regex=False)])
    inner.decoder = tokenizers.decoders.ByteLevel()
    return inner


def _scores(tables: Tables) -> list[float]:
    """A score for each token."""
    scores = tables.reals("scores")
    if len(scores) != len(tables.tokens):
        raise OvjitError(
            f"tokenizer.ggml.scores has {len(scores)} entries, but {len(tables.tokens)} tokens exist"
        )
    return scores


def _unigrams(tables: Tables, types: list[int]) -> Any:
    """SentencePiece's unigrams: a text is split into the pieces with the largest sum of scores."""
    tokenizers, tokens = _package(), tables.tokens
    pieces = list(zip(tokens, _scores(tables), strict=True))
    unknown = tables.token("unknown_token_id")
    if unknown is None:
        unknown = next((i for i, kind in enumerate(types) if kind == _UNKNOWN), None)
    inner = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unknown, byte_fallback="<0x00>" in tokens))
    parts, steps = tokenizers.normalizers, []
    table = tables.bytes("precompiled_charsmap")
    if table:
        steps.append(parts.Normalizer.custom(Charsmap(table)))
    if tables.flag("remove_extra_whitespaces"):
        steps += [
            parts.Replace(tokenizers.Regex(" {2,}"), " "),
            parts.Replace(tokenizers.Regex(r"\A | \z"), ""),
        ]
    prefix = tables.flag("add_space_prefix", default=True)
    steps += [parts.Prepend(_SPACE)] if prefix else []
    inner.normalizer = parts.Sequence([*steps, parts.Replace(" ", _SPACE)])
    inner.decoder = _pieces_decoder(prefix)
    return inner


def _pieces_decoder(prefix: bool) -> Any:
    """Joins pieces, replaces their marks by blanks, and removes the blank that was prepended."""
    parts = _package().decoders
    ends = [parts.Strip(" ", 1, 0)] if prefix else []
    return parts.Sequence([parts.Replace(_SPACE, " "), parts.ByteFallback(), parts.Fuse(), *ends])


def _sentence_pieces(tables: Tables, types: list[int]) -> Any:
    """SentencePiece's byte pairs: the neighbours whose merged piece has the largest score are merged
    first."""
    tokenizers, tokens = _package(), tables.tokens
    scores = _scores(tables)
    vocabulary = {t: i for i, t in enumerate(tokens)}
    merges = []
    for i, (token, score) in enumerate(zip(tokens, scores, strict=True)):
        if types and types[i] in (_UNKNOWN, _CONTROL, _BYTE):
            continue  # merged are those of its own, too: Gemma has one for each number of blanks
        parts = [(token[:n], token[n:]) for n in range(1, len(token))]
        pairs = [(a, b) for a, b in parts if a in vocabulary and b in vocabulary]
        pairs.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
        merges += [(-score, n, pair) for n, pair in enumerate(pairs)]
    merges.sort(key=lambda row: row[0])  # stable: in the order of the tokens
    unknown = next((t for t, kind in zip(tokens, types, strict=False) if kind == _UNKNOWN), None)
    inner = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab=vocabulary,
            merges=[pair for _, _, pair in merges],
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback="<0x00>" in vocabulary,
        )  # fmt: skip
    )
    prefix = tables.flag("add_space_prefix", default=True)
    parts = tokenizers.normalizers
    steps = [parts.Prepend(_SPACE)] if prefix else []
    inner.normalizer = parts.Sequence([*steps, parts.Replace(" ", _SPACE)])
    inner.decoder = _pieces_decoder(prefix)
    return inner
