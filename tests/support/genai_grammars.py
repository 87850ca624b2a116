"""Grammars of structured output, whose answers are compared with those of openvino_genai."""

# the cases are a table
# ruff: noqa: E501
from __future__ import annotations

from typing import Any


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
