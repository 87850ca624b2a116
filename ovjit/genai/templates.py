"""Chat templates: Jinja templates rendered as openvino_genai's engine (minja) does.

Templates are probed. A feature that a template does not show is put where it can see it: a system message
before the user's, a list of tools as a system message, calls of tools and their answers as JSON in texts.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ovjit.errors import ORDINARY, OvjitError, unless_of_signal


@functools.lru_cache(64)
def _compile(template: str) -> Any:
    try:
        from ovjit.genai.template_environment import Environment
    except ImportError as error:
        raise OvjitError("chat templates need the package jinja2: pip install 'ovjit[generate]'") from error

    environment = Environment()
    environment.filters["tojson"] = _to_json
    return environment.from_string(template)


def _to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    return _dump(list(value) if isinstance(value, Iterator) else value, indent)


class _Object(dict[str, Any]):
    """A dict that is true if it is empty, too. `get` gives `missing` for a name that it does not have."""

    missing: Any = None

    def __bool__(self) -> bool:
        return True

    def get(self, name: Any, default: Any = None) -> Any:
        return super().get(name, self.missing if default is None else default)


def _wrap(value: Any, missing: Any) -> Any:
    """A copy of a value of JSON as minja sees it: None is `missing`, and an empty object is true."""
    if isinstance(value, Mapping):
        wrapped = _Object({name: _wrap(each, missing) for name, each in value.items()})
        wrapped.missing = missing
        return wrapped
    if isinstance(value, (list, tuple)):
        return [_wrap(each, missing) for each in value]
    return missing if value is None else value


def _render(template: str, messages: Sequence[Any], values: Mapping[str, Any]) -> str:
    from jinja2 import TemplateError

    try:
        compiled = _compile(template)
        return compiled.render(_wrap({"messages": messages, **values}, compiled.environment.undefined()))
    except OvjitError:
        raise
    except unless_of_signal(*ORDINARY, TemplateError) as error:
        raise OvjitError(f"the chat template failed: {type(error).__name__}: {error}") from error


#: A text that no template has, and an argument that no tool has.
_PROBE, _ARGUMENT, _CALL = "<probe of the template>", "probe_of_arguments", "call_1___"
_TOOL = {"type": "function", "name": "probe_of_tools", "function": {
    "name": "probe_of_tools", "description": "x", "parameters": {"type": "object", "required": ["y"],
    "properties": {"y": {"type": "string", "description": "z"}}}}}  # fmt: skip


class Template:
    """A template with probes of the features that it shows. `tokens`: special tokens by name."""

    def __init__(self, text: str, tokens: Mapping[str, str]):
        self.text, self.tokens = text, dict(tokens)
        user = {"role": "user", "content": _PROBE}
        self.needs_parts = not self._renders([user]) and self._renders([self._to_parts(user)])
        self._user = self._in_parts({**user, "content": "x"})
        self.has_system = self._renders([self._in_parts({"role": "system", "content": _PROBE}), self._user])
        self.has_tools = self._renders([self._user], "probe_of_tools", tools=[_TOOL])
        #: Whether a message without a text is not shown: "" stands for None then.
        self.needs_text = self._renders_answer("") and not self._renders_answer(None)
        arguments = {_ARGUMENT: "print('y')"}
        as_text, as_object = (self._renders_call(value) for value in (json.dumps(arguments), arguments))
        self.has_calls = as_text or as_object
        self.needs_objects = as_object and not as_text
        call = self._call("f", arguments if self.needs_objects else json.dumps(arguments))
        self.has_answers = self.has_calls and self._renders([self._user, call, _answer("f", _PROBE)])
        self.example = "" if self.has_tools else self._example_of_call()

    def render_raw(self, messages: Sequence[Any], values: Mapping[str, Any]) -> str:
        return _render(self.text, messages, {"add_generation_prompt": False, **self.tokens, **values})

    def _in_parts(self, message: dict[str, Any]) -> dict[str, Any]:
        """A message whose text is a list of parts if the template needs it."""
        has_text = isinstance(message.get("content"), str)
        return self._to_parts(message) if self.needs_parts and has_text else message

    @staticmethod
    def _to_parts(message: dict[str, Any]) -> dict[str, Any]:
        return {**message, "content": [{"type": "text", "text": message["content"]}]}

    def _renders(self, messages: Sequence[Any], text: str = _PROBE, **values: Any) -> bool:
        try:
            return text in self.render_raw(messages, values)
        except OvjitError:
            return False

    def _renders_call(self, arguments: Any) -> bool:
        chat = [self._user, self._call("ipython", arguments), _answer("ipython", "z")]
        forms = (f"<parameter={_ARGUMENT}>", f'"{_ARGUMENT}":', f"'{_ARGUMENT}':")
        return any(self._renders(chat, form) for form in forms)

    def _renders_answer(self, content: str | None) -> bool:
        """True if a chat with this answer is rendered. It has two: templates may treat the last otherwise."""
        turn = [
            self._in_parts({"role": "user", "content": _PROBE}),
            {"role": "assistant", "content": content},
        ]
        return self._renders(turn * 2)

    def _call(self, name: str, arguments: Any) -> dict[str, Any]:
        calls = [{"id": _CALL, "type": "function", "function": {"arguments": arguments, "name": name}}]
        return {"role": "assistant", "content": "" if self.needs_text else None, "tool_calls": calls}

    def _example_of_call(self) -> str:
        """The text of a call of a tool, "" if it is not found."""
        user = {"role": "user", "content": "Hey"}
        arguments: Any = {"arg1": "some_value"}
        call = self._call("tool_name", arguments if self.needs_objects else json.dumps(arguments))
        try:
            begin = self.render([user], (), {"add_generation_prompt": True})
            text = self.render([user, call], (), {})
        except OvjitError:
            return ""
        eos = self.tokens.get("eos_token", "")
        at = text.rfind(eos) if eos else -1
        if at >= 0 and (
            at == len(begin) - len(eos) or (text.endswith("\n") and at == len(text) - len(eos) - 1)
        ):
            text = text[:at]
        common = 0
        for i, (old, new) in enumerate(zip(begin, text, strict=False)):
            if old != new:
                break
            if old != "<":
                common = i + 1
        example = text[common:]
        return example if "tool_name" in example or "some_value" in example else ""

    def render(self, messages: Sequence[Any], tools: Sequence[Any], values: Mapping[str, Any]) -> str:
        """The text of a chat. Values that the template does not use are added to the messages."""
        chat = [dict(copy.deepcopy(message)) for message in messages]
        if tools and self.has_tools:
            values = {**values, "tools": list(tools)}
        elif tools:
            text = (
                f"You can call any of the following tools to satisfy the user's requests: {_dump(tools, 2)}"
            )
            if self.example:
                text += f"\n\nExample tool call syntax:\n\n{self.example}\n\n"
            _add_system(chat, text)
        for message in chat:
            self._change_call(message)
            if message.get("role") == "tool" and not self.has_answers:
                _change_answer(message)
        if not self.has_system:
            chat = _without_system(chat)
        return self.render_raw([self._in_parts(message) for message in chat], values)

    def _change_call(self, message: dict[str, Any]) -> None:
        """Give a message with calls of tools the form that the template shows: arguments as objects, or the
        calls as JSON in the text."""
        calls = message.get("tool_calls")
        if not isinstance(calls, list) or (self.has_calls and not self.needs_objects):
            return
        listed = []
        for call in calls:
            function = call.get("function", {})
            if isinstance(function.get("arguments"), str):
                try:
                    function["arguments"] = json.loads(function["arguments"])
                except ValueError:
                    pass  # it stays a text
            item = {"name": function.get("name"), "arguments": function.get("arguments")}
            listed.append({**item, "id": call["id"]} if "id" in call else item)
        if self.has_calls:
            return
        content = {"tool_calls": listed}
        if message.get("content") is not None:
            content["content"] = message["content"]
        message["content"] = _indent(content)
        del message["tool_calls"]


def _answer(name: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "name": name, "content": content, "tool_call_id": _CALL}


def _indent(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def _dump(value: Any, indent: int | None, line: str = "\n") -> str:
    """JSON as minja writes it: with `indent`, empty objects and arrays have a line, too. `line`: the begin of
    a line at the depth of the value."""
    is_list = isinstance(value, (list, tuple))
    if indent is None or not (is_list or isinstance(value, dict)):
        return json.dumps(value, ensure_ascii=False, default=lambda missing: None)
    inner = line + " " * indent
    if is_list:
        items = [_dump(each, indent, inner) for each in value]
    else:
        names = (name if isinstance(name, str) else json.dumps(name) for name in value)
        pairs = zip(names, value.values(), strict=True)
        items = [f"{_dump(name, None)}: {_dump(each, indent, inner)}" for name, each in pairs]
    begin, end = "[]" if is_list else "{}"
    return f"{begin}{inner}{(',' + inner).join(items)}{line}{end}"


def _change_answer(message: dict[str, Any]) -> None:
    """Make a tool's answer the user's message, as JSON."""
    answer = {"tool": message.pop("name")} if "name" in message else {}
    answer["content"] = message.get("content")
    if "tool_call_id" in message:
        answer["tool_call_id"] = message.pop("tool_call_id")
    message.update(role="user", content=_indent({"tool_response": answer}))


@functools.lru_cache(16)
def _probe(text: str, tokens: tuple[tuple[str, str], ...]) -> Template:
    return Template(text, dict(tokens))


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
    probed = _probe(template, tuple((tokens or {}).items()))
    text = probed.render(messages, tools, {**(extra or {}), "add_generation_prompt": add_generation_prompt})
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

    def flush() -> None:
        nonlocal pending
        if pending:
            out.append({"role": "user", "content": pending})
        pending = ""

    for message in chat:
        content = message.get("content")
        if content is None:
            out.append(message)
        elif not isinstance(content, str):
            raise OvjitError(
                f"the chat template takes no system messages, so contents should be texts, not "
                f"{type(content).__name__}: give the text alone"
            )
        elif message.get("role") == "system":
            pending = f"{pending}\n{content}" if pending else content
        elif message.get("role") == "user" and pending:
            out.append({**message, "content": f"{pending}\n{content}" if content else pending})
            pending = ""
        else:
            flush()
            out.append(message)
    flush()
    return out
