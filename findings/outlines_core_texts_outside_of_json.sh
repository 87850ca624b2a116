#!/bin/sh
# outlines-core: of a schema with allOf it makes a pattern of all parts one behind the other, and of "^a|b$" half of a quoted text.
#
# Versions: outlines-core 0.2.14, jsonschema 4.26.0, Python 3.11, Linux x86-64.
#
# build_regex_from_schema makes a regular expression of a JSON schema, and a language model may write only what it matches, so that the answer is
# JSON and follows the schema. What it does not know it refuses ("Unsupported JSON Schema structure"). Of these it makes patterns:
# - allOf says that a value follows all of its schemas. The pattern wants a value for each, one behind the other: "a" of one to two letters
#   is refused, and what is left to write is "a""bc", which is no JSON.
# - A string's own pattern is put between quotes as it is. The alternatives of ^a|b$ divide the quotes: "a without an end and b" without a
#   beginning match, and "a" and "b" do not. With brackets around them, ^(a|b)$, it is right.
# - [^a] in a pattern allows a quote and a backslash, which end the text: three quotes match. The quote of a name or a pattern is not
#   escaped either: for the name a"b of a property, the only object that matches cannot be read.
# - A name of "required" that is not among "properties" is forgotten: {} matches, and the object that has it is refused.
# The last, and the first three, are valid schemas, and no error or warning says that they are read in another way.
#
# The alternatives are outlines-core's issue 267 (pull request 268, open); no report of allOf, of quotes and of required names was found.
#
# Output seen on 2026-11-29:
#   "a"        is valid    outlines-core allows   {"type": "string", "minLength": 1, "maxLength": 2}
#   "a"        is valid    outlines-core refuses  {"allOf": [{"type": "string", "minLength": 1}, {"type": "string", "maxLength": 2}]}
#   "a""bc"    is no JSON  outlines-core allows   {"allOf": [{"type": "string", "minLength": 1}, {"type": "string", "maxLength": 2}]}
#   "a""b"     is no JSON  outlines-core allows   {"allOf": [{"type": "string", "minLength": 1}, {"type": "string", "maxLength": 2}]}
#   "a"        is valid    outlines-core allows   {"type": "string", "pattern": "^(a|b)$"}
#   "a"        is valid    outlines-core refuses  {"type": "string", "pattern": "^a|b$"}
#   "a         is no JSON  outlines-core allows   {"type": "string", "pattern": "^a|b$"}
#   b"         is no JSON  outlines-core allows   {"type": "string", "pattern": "^a|b$"}
#   "b"        is valid    outlines-core allows   {"type": "string", "pattern": "^[^a]$"}
#   """        is no JSON  outlines-core allows   {"type": "string", "pattern": "^[^a]$"}
#   {"ab": 1}  is valid    outlines-core allows   {"type": "object", "properties": {"ab": {"type": "integer"}}, "required": ["ab"]}
#   {"a\"b": 1} is valid    outlines-core refuses  {"type": "object", "properties": {"a\"b": {"type": "integer"}}, "required": ["a\"b"]}
#   {"a"b": 1} is no JSON  outlines-core allows   {"type": "object", "properties": {"a\"b": {"type": "integer"}}, "required": ["a\"b"]}
#   {}         is invalid  outlines-core allows   {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["b"]}
#   {"b": 1}   is valid    outlines-core refuses  {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["b"]}
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q outlines-core==0.2.14 jsonschema==4.26.0
"$folder/env/bin/python" - <<'PYTHON'
import json
import re

import jsonschema
from outlines_core.json_schema import build_regex_from_schema

NAMED = 'a"b'
SHORT = [{"type": "string", "minLength": 1}, {"type": "string", "maxLength": 2}]
#: A schema, a text, and whether the pattern decides otherwise than the schema.
CASES = [
    ({"type": "string", "minLength": 1, "maxLength": 2}, '"a"', False),
    ({"allOf": SHORT}, '"a"', True),
    ({"allOf": SHORT}, '"a""bc"', True),
    ({"allOf": SHORT}, '"a""b"', True),
    ({"type": "string", "pattern": "^(a|b)$"}, '"a"', False),
    ({"type": "string", "pattern": "^a|b$"}, '"a"', True),
    ({"type": "string", "pattern": "^a|b$"}, '"a', True),
    ({"type": "string", "pattern": "^a|b$"}, 'b"', True),
    ({"type": "string", "pattern": "^[^a]$"}, '"b"', False),
    ({"type": "string", "pattern": "^[^a]$"}, '"""', True),
    ({"type": "object", "properties": {"ab": {"type": "integer"}}, "required": ["ab"]}, '{"ab": 1}', False),
    ({"type": "object", "properties": {NAMED: {"type": "integer"}}, "required": [NAMED]}, json.dumps({NAMED: 1}), True),
    ({"type": "object", "properties": {NAMED: {"type": "integer"}}, "required": [NAMED]}, '{"a"b": 1}', True),
    ({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["b"]}, "{}", True),
    ({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["b"]}, '{"b": 1}', True),
]


def judge(schema, text):
    jsonschema.Draft202012Validator.check_schema(schema)
    try:
        value = json.loads(text)
    except ValueError:
        return "no JSON"
    return "valid" if jsonschema.Draft202012Validator(schema).is_valid(value) else "invalid"


for schema, text, wrong in CASES:
    right = judge(schema, text)
    matched = re.fullmatch(build_regex_from_schema(json.dumps(schema)), text) is not None
    words = json.dumps(schema)
    print(f"{text:10} is {right:8} outlines-core {'allows' if matched else 'refuses':7}  {words if len(words) < 90 else words[:87] + '...'}")
    assert (matched == (right == "valid")) != wrong, "outlines-core has changed"
PYTHON
