"""Chats in templates as recent models have them, as JSON: the texts of openvino_genai or ovjit.

python -m tests.support.genai_templates real|ovjit

The real package's are in tests/genai/templates.json.
"""

# the cases are a table
# ruff: noqa: E501
from __future__ import annotations

import json
import sys
from typing import Any

from tests.support import ROOT

_CALLS = """{% for m in messages %}[{{ m.role }}]{% if m.content is string %}{{ m.content }}{% endif %}\
{% for c in m.tool_calls or [] %}{% set a = c.function.arguments %}BODY{% endfor %}
{% endfor %}{% if add_generation_prompt %}[go]{% endif %}{% for t in tools or [] %}{{ t | tojson }}{% endfor %}"""
#: Templates by what they show.
TEMPLATES = {
    "joins": "{% for m in messages %}{{ m.role + ': ' + m.content }};{{ 'x' ~ m.content ~ m.nothing }};{{ m.content }}\n{% endfor %}",
    "none": "{% for m in messages %}{{ m.content is none }}{{ m.content is defined }}{{ m.content == none }}{{ 'x' in m.content }}{{ m.get('name') | default('nobody') }}{{ m.get('name', 3) }}\n{% endfor %}",
    "objects": "{% for m in messages %}{{ m.role }}{{ m.content if m.content is string else '' }}\n{% endfor %}{% for t in tools or [] %}{% if t.function.parameters.properties %}has{% else %}none{% endif %}{{ t.function.name }}{% endfor %}",
    "lists": "{% set names = [] %}{% for m in messages %}{% set _ = names.append(m.role) %}{{ m.content if m.content is string else '' }}{% endfor %}{{ names }}{{ tools | map(attribute='function') | list | tojson if tools else '' }}",
    "parameters": _CALLS.replace(
        "BODY",
        "<function={{ c.function.name }}>{% for k, v in a | items %}<parameter={{ k }}>{{ v | string if v is number else v | tojson }}{% endfor %}",
    ),
    "content": "{% for m in messages %}[{{ m.role }}]{% if m.tool_calls %}{{ m.content.split('x')[0] }}{% for c in m.tool_calls %}{{ c.function.arguments | tojson if c.function.arguments is mapping else c.function.arguments }}{% endfor %}{% else %}{{ m.content.split('x')[0] }}{% endif %}\n{% endfor %}{% for t in tools or [] %}{{ t.function.name }}{% endfor %}",
    "filters": "{% for m in messages %}{{ m.content | trim }};{{ (m.content | upper) ~ (m.nothing | lower) }}\n{% endfor %}",
    "numbers": "{% for m in messages %}{{ m.content if m.content is string else '' }}{% endfor %}{{ 10 / 4 }} {{ 8 / 4 }} {{ (0 - 7) / 2 }} {{ (0 - 3) % 5 }} {{ 7 % 4 }} {{ 7 / 2.0 }} {{ (loop or messages) | length % 2 }}",
    "no system": "{% for m in messages %}{% if m.role != 'system' %}{{ '<' + m.role + '>' + m.content }}{% endif %}{% endfor %}",
    "items": "{% for m in messages %}{{ m.content[0] if m.content is string else '' }}{{ m.content if m.content is string else m.nothing }}{{ m.content[1:] if m.content is string else '' }}{% endfor %}",
    "items of nothing": "{% for m in messages %}{{ m.content if m.content is string else '' }}{{ m.content[0] }}{% endfor %}",
    "attributes of nothing": "{% for m in messages %}{{ m.content if m.content is string else '' }}{{ m.tool_calls.a if m.role == 'user' else '' }}{% endfor %}",
    "lengths of nothing": "{% for m in messages %}{{ m.content if m.content is string else '' }}{{ m.content | length if m.content is defined else '' }}{% endfor %}{% if messages | length > 2 %}{{ messages[0].nothing | length }}{% endif %}",
    "sequences": "{% for m in messages %}{% if m.content is string %}S{{ m.content }}{% elif m.content is mapping %}M{% elif m.content is iterable and m.content is sequence %}L{% else %}N{% endif %}\n{% endfor %}",
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Weather",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
        },
    },
    {
        "type": "function",
        "function": {"name": "time", "description": "", "parameters": {"type": "object", "properties": {}}},
    },
]


def list_chats() -> dict[str, list[dict[str, Any]]]:
    def call(arguments: Any, **more: Any) -> dict[str, Any]:
        calls = [
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
        ]
        return {"role": "assistant", "tool_calls": calls, **more}

    user, answer = (
        {"role": "user", "content": "hi"},
        {"role": "tool", "content": "sunny", "name": "weather", "tool_call_id": "call_1"},
    )
    values = {"place": "Rome", "share": 1.5, "several": [1, None, True], "inner": {}}
    return {
        "text": [{"role": "system", "content": "Be brief."}, user], "parts": [{"role": "user", "content": [{"type": "text", "text": "a'b"}]}],
        "object": [user, call(values, content=""), answer, user], "json": [user, call('{"place": "Rome"}', content=None), answer],
        "no text": [user, call(values)], "systems": [{"role": "system", "content": "a"}, {"role": "system", "content": "b"}, user],
        "null": [user, {"role": "assistant", "content": None}, user],
    }  # fmt: skip


def collect(package: Any) -> dict[str, Any]:
    """Template and chat -> the text, or "error"."""
    tokenizer, texts = package.Tokenizer(ROOT / "tests" / "genai" / "data"), {}
    for name, template in TEMPLATES.items():
        for title, chat in list_chats().items():
            for tools in ([], TOOLS):
                try:
                    text = tokenizer.apply_chat_template(
                        chat, add_generation_prompt=True, chat_template=template, tools=tools
                    )
                except RuntimeError:
                    text = "error"
                texts[f"{name}, {title}, {len(tools)} tools"] = text
    return texts


if __name__ == "__main__":
    if sys.argv[1] == "ovjit":
        import ovjit.as_openvino  # noqa: F401
    import openvino_genai

    print(json.dumps(collect(openvino_genai)))
