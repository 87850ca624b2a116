"""Grammars of structured output, whose answers are compared with those of openvino_genai."""

# the cases are a table
# ruff: noqa: E501
from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


_INTEGER, _STRING = {"type": "integer"}, {"type": "string"}
#: JSON schemas. Most are bounded, so that a random model comes to an end.
SCHEMAS: tuple[Any, ...] = (
    True, {}, _INTEGER, _STRING, {"type": "number"}, {"type": "boolean"}, {"type": "null"}, {"type": "array"}, {"type": "object"},
    {"const": "é\"\\\n/"}, {"const": {"a": [1, 2.5, None, True]}}, {"enum": [1, "two", None, [3], {"k": False}]},
    {"type": ["integer", "null"]}, {"type": ["string", "boolean"], "maxLength": 2},
    {"type": "integer", "minimum": 3, "maximum": 127}, {"type": "integer", "exclusiveMinimum": -5, "exclusiveMaximum": 12},
    {"type": "integer", "minimum": 1000}, {"type": "integer", "maximum": -17}, {"type": "number", "minimum": 0.5, "maximum": 7.25},
    {"type": "number", "exclusiveMinimum": 0}, {"type": "integer", "multipleOf": 5},
    {"type": "string", "minLength": 2, "maxLength": 5}, {"type": "string", "minLength": 3}, {"type": "string", "maxLength": 0},
    {"type": "string", "pattern": "^[a-f]{2}-\\d+$"}, {"type": "string", "pattern": "ab|cd"}, {"type": "string", "pattern": "\\w+@[^x]"},
    *({"type": "string", "format": name} for name in ("date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "uri-reference", "json-pointer", "relative-json-pointer", "unknown")),
    {"type": "array", "items": _INTEGER, "minItems": 2, "maxItems": 3}, {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
    {"type": "array", "prefixItems": [_INTEGER, {"type": "boolean"}], "items": False}, {"type": "array", "prefixItems": [_INTEGER], "items": {"type": "null"}, "minItems": 3, "maxItems": 4},
    {"type": "array", "minItems": 1, "maxItems": 1, "items": {"type": "array", "items": {"type": "boolean"}, "maxItems": 1}}, {"type": "array", "prefixItems": [{"const": 1}, {"const": 2}]},
    _object(a={"enum": [1, 2]}), _object(a={"type": "boolean"}, b={"const": "x"}), {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "null"}}},
    {"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}}, "required": ["b"]},
    {"type": "object", "properties": {"b": {"const": 1}, "a": {"const": 2}}, "required": ["a", "b"]},
    {"type": "object", "properties": {"a": {"const": 1}}, "additionalProperties": False}, {"type": "object", "properties": {"a": {"const": 1}}, "additionalProperties": {"type": "boolean"}, "required": ["a"]},
    {"type": "object", "additionalProperties": {"const": 0}, "maxProperties": 1}, {"type": "object", "additionalProperties": {"const": 0}, "minProperties": 1, "maxProperties": 2},
    {"type": "object", "patternProperties": {"^x\\d$": {"const": 1}}, "maxProperties": 2}, {"type": "object", "propertyNames": {"pattern": "^[ab]$"}, "maxProperties": 1},
    {"type": "object", "properties": {}, "additionalProperties": False}, {"type": "object", "required": ["z"], "additionalProperties": {"const": 1}, "maxProperties": 1},
    {"anyOf": [{"const": 1}, {"const": "a"}, {"type": "boolean"}]}, {"oneOf": [{"const": [1]}, _object(q={"const": 0})]}, {"allOf": [{"enum": [7, 8]}]},
    {"allOf": [_object(a={"const": 1}), _object(b={"const": 2})]}, {"anyOf": [{"type": "integer", "minimum": 7, "maximum": 9}, {"type": "null"}]},
    {"$defs": {"n": {"enum": ["p", "q"]}}, **_object(l={"$ref": "#/$defs/n"}, r={"$ref": "#/$defs/n"})}, {"definitions": {"n": {"type": "boolean"}}, "type": "array", "items": {"$ref": "#/definitions/n"}, "minItems": 1, "maxItems": 2},
    {"$defs": {"t": {"type": "object", "properties": {"v": {"const": 1}, "n": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/t"}]}}, "required": ["v", "n"]}}, "$ref": "#/$defs/t"},
    {"type": "array", "items": {"$ref": "#"}, "maxItems": 2}, _object(name={"type": "string", "maxLength": 3}, tags={"type": "array", "items": {"type": "string", "maxLength": 1}, "maxItems": 2}, in_={"type": "object", "properties": {"k": {"type": "boolean"}}, "required": ["k"]}),
    {"title": "T", "description": "d", "default": 3, "type": "boolean"}, {"properties": {"a": {"const": 1}}, "required": ["a"]}, {"items": {"const": 1}, "maxItems": 1},
    {"type": "string", "enum": ["x y", "ü", "a/b"]}, {"type": "integer", "enum": [3, 5]}, {"type": "number", "const": 1e3}, {"not": {}}, {"type": "foo"}, False, {"$ref": "#/none"}, {"type": "string", "pattern": "("}, {"minimum": 3}, {"type": "integer", "minimum": 5, "maximum": 3},
    {"type": "array", "minItems": 3, "maxItems": 1}, {"enum": []}, {"anyOf": []}, 3, [],
)  # fmt: skip
REGEXES = (
    "abc", "[a-c]{3,5}x", "(ab|cd)+e", "a?b*c{2}", "[^a-z]{2}", "\\d{3}-\\d{2,}x", "\\w{3} \\W", "\\s\\S\\D", ".{3}", "^ab$", "a{0}b", "(?:x|y){2}", "(?<n>x)y", "[\\d\\-x]{4}",
    "[é-ü]{2}", "☃|你好", "😀", "\\u0041\\x42", "\\n\\t\\r", "\\.\\*\\[\\]\\{\\}", "", "a||b", "(a(b(c)?)?)?d", "[a-", "a{3,2}", "(", ")", "*a", "(?=a)b", "\\1", "a*?b", "a+?b", "[[:alpha:]]", "\\p{L}{2}", "\\bab\\b", "a{2,}?b", "[\\]]", "<pad>x", "</s>", " hello world", "x{64}", "[\\w.]+@[a-z]{2,3}\\.com",
)  # fmt: skip
EBNFS = (
    'root ::= "a" b\nb ::= "c" | "d" b', 'root ::= [a-c]{2,3} "\\n"', 'root ::= expr\nexpr ::= term ("+" term){0,2}\nterm ::= [0-9]{1,2} | "(" expr ")"', 'root ::= ("a" | "b")+ "c"', 'root ::= "x"? [^"\\\\]{2} "y"*  "z"',
    'root ::= a a\na ::= "" | "q"', 'root ::= list\nlist ::= "[" (item ("," item)*)? "]"\nitem ::= list | "1"', "root ::= [\\u4f60\\u597d]{2}", '# comment\nroot ::= "a" # end\n', "root = 3", 'root ::= missing', 'main ::= "a"', 'root ::= root', 'root ::= "a" root | "b"', "root ::= 'a'", 'root ::= "\\x41\\u0042"', 'root ::= "a"{2}', 'root ::= ("a" "b" | "c"){3}', "", 'root ::= [a-c', 'root ::= "a" (= "b") "b"', "root ::= TagDispatch((\"a\", b))\nb ::= \"c\"",
)  # fmt: skip


def grammars_of(genai: Any) -> tuple[tuple[str, Any], ...]:
    """(name, value of `structural_tags_config` as a function without arguments)."""
    s = genai.StructuredOutputConfig
    schema, tag = s.JSONSchema('{"type": "boolean"}'), s.Tag("<a>", s.Regex("[ab]{2}"), "</a>")
    other, item = s.Tag("<ab>", schema, "</ab>"), genai.StructuralTagItem
    return (
        ("regex", lambda: s.Regex("[ab]{2}")), ("concat", lambda: s.Regex("[ab]{2}") + s.ConstString("xyz")), ("union", lambda: s.Regex("[ab]{2}") | s.ConstString("xyz") | s.EBNF('root ::= "q"')),
        ("nested", lambda: (schema | s.ConstString("no")) + s.ConstString("\n") + (tag | other)), ("json", lambda: s.Regex("a") + '{"type": "regex", "pattern": "xx"}'), ("no json", lambda: s.Regex("a") + "xx"),
        ("text", lambda: '{"type": "structural_tag", "format": {"type": "const_string", "value": "abc"}}'), ("no text", lambda: "abc"), ("format", lambda: '{"type": "const_string", "value": "abc"}'), ("tag", lambda: tag), ("any", lambda: s.Tag("<a>", s.AnyText(), "</a>")), ("any text", lambda: s.AnyText()),
        ("triggered", lambda: s.TriggeredTags(["<a"], [tag, other])), ("triggered once", lambda: s.TriggeredTags(["<a"], [tag, other], at_least_one=True, stop_after_first=True)), ("triggered first", lambda: s.TriggeredTags(["<a"], [tag], at_least_one=True)), ("triggered one", lambda: s.TriggeredTags(["<a"], [tag], stop_after_first=True)),
        ("no trigger", lambda: s.TriggeredTags([], [tag])), ("no tags", lambda: s.TriggeredTags(["<a"], [])), ("other trigger", lambda: s.TriggeredTags(["zz"], [tag])), ("separated", lambda: s.TagsWithSeparator([tag, other], ";", at_least_one=True, stop_after_first=True)), ("separated many", lambda: s.TagsWithSeparator([tag], ";", at_least_one=True)),
        ("separated any", lambda: s.TagsWithSeparator([tag], ";")), ("separated by nothing", lambda: s.TagsWithSeparator([tag], "")), ("empty", lambda: s.ConstString("")), ("begin", lambda: s.Tag("", schema, "")), ("schema", lambda: s.JSONSchema("{")), ("recursive", lambda: s.Tag("<t>", s.TriggeredTags(["<a"], [tag], at_least_one=True, stop_after_first=True), "</t>")),
        ("old", lambda: genai.StructuralTagsConfig(structural_tags=[item(begin="<a>", schema='{"const": 1}', end="</a>")], triggers=["<a"])), ("old empty", lambda: genai.StructuralTagsConfig()),
    )  # fmt: skip


#: Expressions of the objects below, whose values and errors are compared.
EXPRESSIONS = (
    "r", "j", "e", "c", "a", "q", "t", "s.TriggeredTags(['<a'], [t])", "s.TriggeredTags(triggers=['<a', 'b'], tags=[t, t], at_least_one=True, stop_after_first=True)",
    "s.TagsWithSeparator([t, t], ';')", "s.TagsWithSeparator(tags=[t], separator=';', at_least_one=True)", "r + j", "r + j + e", "r | j", "r | j | e", "(r | j) + e", "r + (j | e)",
    "r + (j + e)", "r | (j | e)", "(r + j) + (e + c)", "(r | j) | (e | c)", "'x' + r", "r + 'x'", "r | 'x'", "'x' | r", "r + 3", "r | None", "r + t", "s.Concat(r, j)", "s.Concat([r, j])",
    "s.Concat((r,))", "s.Concat()", "s.Concat(r)", "s.Concat('a', 'b')", "s.Concat('a')", "s.Concat('ab')", "s.Concat(3)", "s.Concat([3])", "s.Concat(elements=[r])", "s.Concat(iter([r, j]))", "s.Concat(r + j, r)",
    "s.Union()", "s.Union(r, j)", "s.Union([r, 'x'])", "s.Regex()", "s.Regex(3)", "s.Regex(value='a')", "s.Tag('a', 3, 'b')", "s.Tag('a', 'lit', 'b')", "s.Tag(begin='a', content=r, end='b')", "s.Tag('a', r)",
    "s.TriggeredTags([], [])", "s.TriggeredTags(['a'], [r])", "s.TriggeredTags('abc', [t])", "r == s.Regex('a')", "r.value", "q.json_schema", "t.content", "(r + j).elements", "r.foo",
    "s()", "s(json_schema='{}')", "s(regex='a', json_schema='{}')", "s(regex=3)", "s(regex=None)", "s(foo=3)", "s(grammar='x')", "s(compound_grammar=r + j)", "s(compound_grammar=3)",
    "s(structural_tags_config=t)", "s(structural_tags_config='lit')", "s(structural_tags_config=3)", "s(structural_tags_config=old)", "s('{}')", "item()", "item(begin='a')", "item(foo='a')", "item(begin=3)", "item('a', 'b', 'c')",
    "config()", "config(triggers=['a'])", "config(triggers='ab')", "config(triggers=3)", "config(structural_tags=[3])", "config().triggers", "s().regex", "s(regex='a').regex", "s().structural_tags_config",
    "g(structured_output_config=s(regex='a')).structured_output_config", "g(structured_output_config=r)", "g(structured_output_config='a')", "g(structured_output_config=s(), max_new_tokens=4).validate()",
    "g(structured_output_config=s(regex='a'), max_new_tokens=4, num_beams=2).validate()", "g(structured_output_config=s(regex='('), max_new_tokens=4).validate()",
    "s(regex=r'\\d\"x')", "s(grammar='it\\'s\\n')", "s(json_schema='{\\\"é\\\"}')", "config(structural_tags=[item(begin='\\\\', end='\\'')], triggers=['a\\n'])",
)  # fmt: skip
#: (object, attribute, value), and the attribute behind the assignment.
ASSIGNMENTS = (
    ("s()", "regex", "'a'"), ("s(regex='a')", "regex", "None"), ("s()", "regex", "3"), ("s()", "json_schema", "{}"), ("s()", "foo", "3"), ("s()", "compound_grammar", "r"), ("s()", "compound_grammar", "'x'"), ("s()", "compound_grammar", "3"),
    ("s()", "structural_tags_config", "r"), ("s()", "structural_tags_config", "'x'"), ("s()", "structural_tags_config", "3"), ("s()", "structural_tags_config", "old"), ("s.Regex('a')", "value", "'z'"), ("s.Regex('a')", "value", "3"), ("s.Regex('a')", "foo", "3"),
    ("s.Tag('a', r, 'b')", "content", "'x'"), ("s.Tag('a', r, 'b')", "content", "3"), ("s.Tag('a', r, 'b')", "begin", "3"), ("r + j", "elements", "[e]"), ("r + j", "elements", "3"), ("s.TriggeredTags(['a'], [t])", "triggers", "['b']"),
    ("s.TriggeredTags(['a'], [t])", "tags", "[]"), ("s.TriggeredTags(['a'], [t])", "at_least_one", "3"), ("s.TagsWithSeparator([t], ',')", "separator", "'b'"), ("s.TagsWithSeparator([t], ',')", "tags", "[r]"), ("item()", "begin", "'x'"),
    ("item()", "foo", "3"), ("item()", "schema", "3"), ("g()", "structured_output_config", "s(regex='a')"), ("g()", "structured_output_config", "r"), ("g()", "structured_output_config", "None"), ("g()", "structured_output_config", "{}"),
)  # fmt: skip


def grammars(genai: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The classes of grammars, and the wrapper of vLLM's parsers."""
    s, item = genai.StructuredOutputConfig, genai.StructuralTagItem
    names: dict[str, Any] = {
        "s": s, "item": item, "config": genai.StructuralTagsConfig, "g": genai.GenerationConfig, "r": s.Regex('a"b'), "j": s.JSONSchema("{}"), "e": s.EBNF('root ::= "a"'),
        "c": s.ConstString("c\n"), "a": s.AnyText(), "q": s.QwenXMLParametersFormat("{}"), "t": s.Tag("<a>", s.AnyText(), "</a>"),
        "old": genai.StructuralTagsConfig(structural_tags=[item(begin="<a>", schema="{}", end="</a>")], triggers=["<a"]),
    }  # fmt: skip
    for text in EXPRESSIONS:
        yield text, lambda text=text: str(eval(text, names))

    def assign(target: str, attribute: str, value: str) -> Any:
        instance = eval(target, names)
        setattr(instance, attribute, eval(value, names))
        return str(getattr(instance, attribute))

    for case in ASSIGNMENTS:
        yield "{}.{} = {}".format(*case), lambda case=case: assign(*case)

    def copies() -> Any:
        kept, config = s(regex="a"), genai.GenerationConfig()
        config.structured_output_config = kept
        kept.regex = "b"
        tag = s.Tag("a", s.Regex("x"), "b")
        tags = s.TriggeredTags(["a"], [tag])
        tag.begin = "ab"
        return [str(config.structured_output_config), str(tags)]

    yield "copies", copies

    class Dumped:
        def __init__(self, text: Any):
            self.text = text

        def model_dump_json(self) -> Any:
            return self.text

    class Json(Dumped):
        json = Dumped.model_dump_json
        model_dump_json = property()  # type: ignore[assignment]

    def parse(message: Any, **methods: Any) -> Any:
        parser = type("Parser", (), {name: staticmethod(value) for name, value in methods.items()})()
        genai.VLLMParserWrapper(parser).parse(message)
        return message

    for text in (
        '{"tools_called": true, "tool_calls": [{"a": 1}], "content": "x"}',
        '{"tool_calls": [], "content": null}',
        "[1]",
        "{bad",
        {"a": 1},
    ):
        yield (
            f"tools {text}",
            lambda text=text: parse(
                {"content": "abc", "role": "r"}, extract_tool_calls=lambda content, request: Dumped(text)
            ),
        )
    yield (
        "tools json",
        lambda: parse(
            {"content": "abc"},
            extract_tool_calls=lambda content, request: Json('{"tool_calls": [2], "content": "x"}'),
        ),
    )
    yield "tools none", lambda: parse({"content": "abc"}, extract_tool_calls=lambda content, request: None)
    for parts in (("why", "so"), ["a", "b"], (1, 2), (None, "b"), ("a",), "ab"):
        yield (
            f"reasoning {parts}",
            lambda parts=parts: parse({"content": "abc"}, extract_reasoning=lambda content, request: parts),
        )
    yield (
        "both",
        lambda: parse(
            {"content": "abc"},
            extract_tool_calls=lambda content, request: Dumped(
                json.dumps({"tool_calls": [content], "content": "x"})
            ),
            extract_reasoning=lambda content, request: (content, "rest"),
        ),
    )
    yield "neither", lambda: parse({"content": "abc"}, extract=3)
    yield "no content", lambda: parse({}, extract_reasoning=lambda content, request: ("a", "b"))
    yield "other arguments", lambda: parse({"content": "abc"}, extract_reasoning=lambda content: ("a", "b"))


def structured(
    genai: Any, ov: Any, folder: Path, **properties: Any
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Answers of all grammars: the greedy one, and a sampled one."""
    config, s = genai.GenerationConfig, genai.StructuredOutputConfig
    row = ov.Tensor(np.array([[1, 260, 270, 20]], np.int64))

    def values(results: Any) -> Any:
        return [
            [" ".join(map(str, tokens)) for tokens in results.tokens],
            [round(float(x), 3) for x in results.scores],
            [reason.name for reason in results.finish_reasons],
        ]

    def answer(pipeline: Any, output: Any, **options: Any) -> Any:
        return values(
            pipeline.generate(
                row, config(structured_output_config=output, **{"max_new_tokens": 24, **options})
            )
        )

    def both(output: Any, seed: int) -> Any:
        sampled = {"do_sample": True, "rng_seed": seed, "temperature": 1.0 if seed % 2 else 0.3}
        return [answer(pipeline, output()), answer(pipeline, output(), max_new_tokens=48, **sampled)]

    pipeline = genai.LLMPipeline(folder, "CPU", ATTENTION_BACKEND="SDPA", **properties)
    outputs: list[tuple[str, Callable[[], Any]]] = []
    outputs += [(f"schema {json.dumps(x)}", lambda x=x: s(json_schema=json.dumps(x))) for x in SCHEMAS]
    outputs += [(f"regex {x}", lambda x=x: s(regex=x)) for x in REGEXES]
    outputs += [(f"grammar {x}", lambda x=x: s(grammar=x)) for x in EBNFS]
    outputs += [
        (f"tags {name}", lambda get=get: s(structural_tags_config=get())) for name, get in grammars_of(genai)
    ]
    for seed, (name, output) in enumerate(outputs):
        yield name, lambda output=output, seed=seed: both(output, seed)

    word = s(regex="[a-c]{3,5}x")
    paged = genai.LLMPipeline(folder, "CPU", scheduler_config=genai.SchedulerConfig(), **properties)
    for options in ({"logprobs": 1}, {"repetition_penalty": 3.0}, {"stop_strings": {"c"}}, {"ignore_eos": True}, {"stop_token_ids": {70}}, {"max_new_tokens": 2},
                    {"do_sample": True, "top_k": 2, "temperature": 0.7}, {"do_sample": True, "top_p": 0.4}, {"min_new_tokens": 4}):  # fmt: skip
        for name, each in (("stateful", pipeline), ("paged", paged)):
            yield f"{name} {options}", lambda each=each, options=options: answer(each, word, **options)
    yield "echo", lambda: answer(paged, word, echo=True)
    yield "compound", lambda: answer(paged, s(compound_grammar=s.Regex("[ab]{2}") + s.ConstString("xyz")))
    yield "none", lambda: answer(paged, s())
    yield "two", lambda: answer(paged, s(regex="a", grammar="b"))

    def stream() -> Any:
        pieces: list[str] = []
        return [
            paged.generate("hello", max_new_tokens=10, structured_output_config=word, streamer=pieces.append),
            pieces,
        ]

    yield "streamed", stream
    yield (
        "list",
        lambda: paged.generate(["hello", "abc"], max_new_tokens=10, structured_output_config=word).texts,
    )
    yield (
        "parsed",
        lambda: (
            paged.generate(
                ["hello"],
                max_new_tokens=30,
                structured_output_config=s(regex='\\{"a": 1\\}'),
                parsers=[genai.Llama3JsonToolParser()],
            ).parsed
        ),
    )

    batches = genai.ContinuousBatchingPipeline(folder, genai.SchedulerConfig(), "CPU", properties)

    def batch() -> Any:
        configs = [
            config(structured_output_config=x, max_new_tokens=9) for x in (word, s(regex="[x-z]{2}"), None)
        ]
        return [result.m_generation_ids for result in batches.generate(["hello", "the", "is"], configs)]

    def handle() -> Any:
        request = batches.add_request(0, "hello", config(structured_output_config=word, max_new_tokens=9))
        return [[output.generated_ids, output.finish_reason.name] for output in steps(request).read_all()]

    def steps(request: Any) -> Any:
        while batches.has_non_finished_requests():
            batches.step()
        return request

    yield "batch", batch
    yield "handle", handle
    lookup = genai.LLMPipeline(folder, "CPU", prompt_lookup=True, **properties)
    yield "lookup", lambda: answer(lookup, word, max_ngram_size=2, num_assistant_tokens=3)
    draft = genai.LLMPipeline(folder, "CPU", draft_model=genai.draft_model(folder, "CPU"), **properties)
    yield "draft", lambda: answer(draft, word, num_assistant_tokens=3)
