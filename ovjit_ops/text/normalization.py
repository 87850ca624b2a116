"""Normalization of strings: regular expressions, SentencePiece's tables of characters, and lower case."""

from __future__ import annotations

import functools
from collections.abc import Callable

from ovjit.errors import check
from ovjit.graph.op import Bool, Str, TensorType, op
from ovjit_ops.common.checks import check_type
from ovjit_ops.text import packed
from ovjit_ops.text.character_maps import FORMS, CompiledTable, normalizer, table_of_form
from ovjit_ops.text.patterns import substitute


def _types(inputs, skips):
    packed.check_strings(inputs[:3])
    types = packed.strings_type(inputs[0].shape)
    if not skips:
        return types
    check_type(inputs[3], ("boolean",), "the marks")
    return (*types, TensorType("boolean", inputs[3].shape))


@op("RegexNormalization", plugin="extension", host=".cpu_split:prepare_replacement")
class RegexNormalization:
    r"""Replaces the matches of a pattern, all of them or the first. In the replacement \1 is a group."""

    def infer(*inputs, global_replace: Bool = True):
        packed.check_count(inputs, (5, 6), "RegexNormalization")
        packed.check_bytes(inputs[-2], "the pattern")
        packed.check_bytes(inputs[-1], "the replacement")
        return _types(inputs, len(inputs) == 6)

    def ref(*inputs, global_replace=True):
        replace = _replacing(packed.text_of(inputs[-2]), packed.text_of(inputs[-1]), global_replace)
        return packed.map_strings(replace, *inputs[:-2])


@functools.lru_cache(256)
def _replacing(pattern: bytes, replacement: bytes, everywhere: bool) -> Callable[[bytes], bytes]:
    return substitute(pattern, replacement, everywhere)


@functools.lru_cache(16)
def _compiled_table(table: bytes) -> CompiledTable | None:
    return CompiledTable(table) if table else None


@op("CharsMapNormalization", plugin="extension", host=".cpu_characters:prepare_map")
class CharsMapNormalization:
    """SentencePiece's normalizer, on a table of characters or on that of a normalization form."""

    def infer(
        *inputs, add_dummy_prefix: Bool = False, remove_extra_whitespaces: Bool = True,
        escape_whitespaces: Bool = False, normalization_form: Str = "", case_fold: Bool = False,
        nmt: Bool = False,
    ):  # fmt: skip
        packed.check_count(inputs, (3, 4, 5), "CharsMapNormalization")
        form = normalization_form.lower()
        check(
            not form or form in FORMS and (form != "identity" or case_fold),
            f"Unsupported normalization form: `{normalization_form}` with case_fold={case_fold}",
        )
        check(
            form or len(inputs) > 3,
            "CharsMapNormalization needs a table of characters or a normalization form",
        )
        return _types(inputs, _has_skips(len(inputs), form))

    def ref(
        *inputs, add_dummy_prefix=False, remove_extra_whitespaces=True, escape_whitespaces=False,
        normalization_form="", case_fold=False, nmt=False,
    ):  # fmt: skip
        skips = _has_skips(len(inputs), normalization_form)
        form = normalization_form.lower()
        table = table_of_form(form, case_fold) if form else _compiled_table(packed.text_of(inputs[-1]))
        normalize = normalizer(table, add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces)
        return packed.map_strings(normalize, *inputs[: 3 + skips])


def _has_skips(count: int, form: str) -> bool:
    return count == 5 or bool(form) and count == 4


@op("NormalizeUnicode", plugin="extension", host=".cpu_characters:prepare_form")
class NormalizeUnicode:
    """A normalization form of Unicode, by SentencePiece's tables."""

    def infer(*inputs, normalization_form: Str = "NFD"):
        packed.check_count(inputs, (3, 4), "NormalizeUnicode")
        check(
            normalization_form in ("NFC", "NFD", "NFKC", "NFKD"),
            f"NormalizeUnicode doesn't know normalization form {normalization_form}",
        )
        return _types(inputs, len(inputs) == 4)

    def ref(*inputs, normalization_form="NFD"):
        table = table_of_form(normalization_form.lower(), False)
        return packed.map_strings(normalizer(table, False, False, False), *inputs)


@op("CaseFold", plugin="extension", host=".cpu_characters:prepare_case")
class CaseFold:
    """Folds case: of ASCII letters, or of all with the encoding utf-8."""

    def infer(*inputs, encoding: Str = "utf-8", lower: Bool = True):
        packed.check_count(inputs, (3, 4), "CaseFold")
        check(
            encoding in ("", "utf-8") and (encoding != "utf-8" or lower),
            'CaseFold operation `encoding` attribute must be either "" or "utf-8". When `encoding` is '
            f'"utf-8", only `lower` = true is supported. Got encoding = `{encoding}` and lower = {lower}.',
        )
        return _types(inputs, len(inputs) == 4)

    def ref(*inputs, encoding="utf-8", lower=True):
        if encoding:
            return packed.map_strings(
                normalizer(table_of_form("identity", True), False, False, False), *inputs
            )
        strings = packed.map_strings(bytes.lower if lower else bytes.upper, *inputs[:3])
        return (*strings, *inputs[3:])  # letters of ASCII are folded in skipped strings, too
