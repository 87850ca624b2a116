"""Chat templates: Jinja templates rendered as openvino_genai's engine (minja) does.

Templates are probed. What a template does not know is put where it can see it: a system message before the
user's, a list of tools as a system message.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ovjit.errors import OvjitError


@functools.lru_cache(64)
def _compiled(template: str) -> Any:
    try:
        from jinja2 import ChainableUndefined
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise OvjitError("chat templates need the package jinja2: pip install 'ovjit[generate]'") from error

    class Missing(ChainableUndefined):
        """A value that is not there: "None" in a joined text, nothing where it is printed alone."""

        def __str__(self) -> str:
            return "None"

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols], undefined=Missing, finalize=_print
    )

    def fail(message: str) -> None:
        raise OvjitError(message)

    def to_json(value: Any, indent: int | None = None, **_: Any) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = fail
    environment.globals["strftime_now"] = _now
    return environment.from_string(template)


def _print(value: Any) -> Any:
    """The text of a value that is printed alone."""
    from jinja2 import Undefined

    return "" if value is None or isinstance(value, Undefined) else value


def _now(form: str) -> str:
    import datetime

    return datetime.datetime.now().strftime(form)


def _render(template: str, messages: Sequence[Any], values: Mapping[str, Any]) -> str:
    try:
        return _compiled(template).render(messages=messages, **values)
    except OvjitError:
        raise
    except Exception as error:
        raise OvjitError(f"the chat template failed: {type(error).__name__}: {error}") from error


@functools.lru_cache(64)
def _knows(template: str, role: str) -> bool:
    """Whether a template shows the content of a message of this role."""
    probe = "<probe of the template>"
    messages = [{"role": role, "content": probe}, {"role": "user", "content": "x"}]
    try:
        return probe in _render(template, messages, {"add_generation_prompt": False})
    except OvjitError:
        return False


@functools.lru_cache(64)
def _knows_tools(template: str) -> bool:
    """Whether a template shows tools."""
    tool = {"type": "function", "function": {"name": "probe_of_tools", "description": "x",
            "parameters": {"type": "object", "properties": {}}}}  # fmt: skip
    values = {"add_generation_prompt": True, "tools": [tool]}
    try:
        return "probe_of_tools" in _render(template, [{"role": "user", "content": "x"}], values)
    except OvjitError:
        return False


def render_chat(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool,
    tools: Sequence[Mapping[str, Any]] = (),
    extra: Mapping[str, Any] | None = None,
    tokens: Mapping[str, str] | None = None,
) -> str:
    """The text of a chat. `tokens`: special tokens by the names that templates use. RuntimeError if the
    template fails or gives nothing."""
    chat = [dict(copy.deepcopy(message)) for message in messages]
    values = {**(tokens or {}), **(extra or {}), "add_generation_prompt": add_generation_prompt}
    if tools and _knows_tools(template):
        values["tools"] = list(tools)
    elif tools:
        listed = json.dumps(list(tools), ensure_ascii=False, indent=2)
        _add_system(chat, f"You can call any of the following tools to satisfy the user's requests: {listed}")
    if not _knows(template, "system"):
        chat = _without_system(chat)
    text = _render(template, chat, values)
    if not text:
        raise OvjitError("the chat template gave an empty text: check the template and the messages")
    return text


def _add_system(chat: list[dict[str, Any]], text: str) -> None:
    if chat and chat[0].get("role") == "system":
        chat[0]["content"] = f"{chat[0]['content']}\n\n{text}"
    else:
        chat.insert(0, {"role": "system", "content": text})


def _without_system(chat: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put texts of system messages before the next user's message."""
    out: list[dict[str, Any]] = []
    pending = ""
    for message in chat:
        if message.get("role") == "system":
            pending = f"{pending}\n{message['content']}" if pending else str(message["content"])
        elif message.get("role") == "user" and pending:
            content = message["content"]
            out.append({**message, "content": f"{pending}\n{content}"})
            pending = ""
        else:
            out.append(message)
    if pending:
        out.append({"role": "user", "content": pending})
    return out
