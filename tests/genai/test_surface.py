"""Classes, attributes and assignments of ovjit.genai beside those of the installed openvino_genai."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import ovjit.genai as genai
from tests.support.genai_calls import decorators_of, list_functions, read_stubs
from tests.support.run import command

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("openvino_genai") is None, reason="openvino_genai is missing"
)
#: Classes of other pipelines, which docs/genai.md names.
ABSENT = frozenset((
    "OmniDecodedResults", "OmniPipeline", "OmniSpeechStreamerBase", "OmniTalkerSpeechConfig",
    "Talker", "TalkerBase", "TalkerPerfMetrics", "TalkerResults",
))  # fmt: skip
#: Fields of results, which can be assigned here.
RESULTS = ("Result", "Results", "Metrics", "Chunk", "Timing")


#: Calls that differ, with the reason in docs/genai.md: a file's path beside keywords; numbers of no member of
#: an enumeration; unknown keywords of grammars.
OTHER_CALLS = {
    "ASRGenerationConfig.__init__(json_path)", "GenerationConfig.__init__(json_path)",
    "SpeechGenerationConfig.__init__(json_path)", "WhisperGenerationConfig.__init__(json_path)",
    "SparseAttentionMode.__init__(value)", "StructuredOutputConfig.Concat.__init__()",
    "StructuredOutputConfig.Union.__init__()",
}  # fmt: skip


def compare(module: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a module of tests.support prints of the real package, and of ovjit."""
    runs = [command(sys.executable, "-m", f"tests.support.{module}", name) for name in ("real", "ovjit")]
    assert not any(run.returncode for run in runs), runs[0].stderr[-2000:] + runs[1].stderr[-2000:]
    real, ours = (json.loads(run.stdout) for run in runs)
    return real, ours


@pytest.fixture(scope="module")
def surfaces() -> tuple[dict[str, Any], dict[str, Any]]:
    return compare("genai_surface")


@needs_package
def test_classes_and_attributes_are_there(surfaces: tuple[dict[str, Any], dict[str, Any]]) -> None:
    real, ours = surfaces
    assert {name.partition(".")[0] for name in set(real) - set(ours)} == ABSENT
    missing = {}
    for name in set(real) & set(ours):
        known, expected = ({*surface[name], *surface[name].get("methods", ())} for surface in (ours, real))
        missing[name] = sorted(key for key in expected - known - {"methods"} if " = " not in key)
    missing = {name: names for name, names in missing.items() if names}
    assert not missing, missing


@needs_package
def test_enumerations_are_equal(surfaces: tuple[dict[str, Any], dict[str, Any]]) -> None:
    real, ours = surfaces
    kinds = [name for name in real if "members" in real[name] and name in ours]
    assert len(kinds) == 10
    assert {name: ours[name] for name in kinds} == {name: real[name] for name in kinds}


@needs_package
def test_values_and_assignments_are_equal(surfaces: tuple[dict[str, Any], dict[str, Any]]) -> None:
    real, ours = surfaces
    wrong, count = {}, 0
    for name in set(real) & set(ours):
        for key, value in real[name].items():
            if key == "methods" or "members" in real[name] or name.endswith(RESULTS):
                continue
            count += 1
            if ours[name].get(key) != value:
                wrong[f"{name} {key}"] = (value, ours[name].get(key))
    assert count > 1000 and not wrong, wrong


@needs_package
def test_calls_of_all_forms_end_alike() -> None:
    real, ours = compare("genai_calls")
    assert len(real) > 150
    wrong = {form for form in real if form.partition(".")[0] not in ABSENT and real[form] != ours.get(form)}
    assert wrong == OTHER_CALLS, {form: (real[form], ours.get(form)) for form in wrong ^ OTHER_CALLS}


def list_methods() -> Iterator[tuple[str, Any, ast.FunctionDef]]:
    """(name, ovjit's function, the form) of each form of a method in the stubs of openvino_genai."""
    for owner, form in list_functions(read_stubs().body):
        is_method = not form.name.startswith("__") or form.name == "__call__"
        is_property = decorators_of(form) & {"property", "setter", "staticmethod"}
        if owner and is_method and not is_property and owner.partition(".")[0] not in ABSENT:
            kind: Any = genai
            for part in owner.split("."):
                kind = getattr(kind, part)
            yield f"{owner}.{form.name}", getattr(kind, form.name), form


@needs_package
def test_methods_take_the_same_arguments() -> None:
    """Each form can be called by position and by keyword; names of one position, and defaults, are equal."""
    wrong, count = [], 0
    for name, function, form in list_methods():
        signature = inspect.signature(function)
        nodes = (form.args.posonlyargs + form.args.args)[1:]
        names = [node.arg for node in nodes]
        defaults = dict(zip(names[len(names) - len(form.args.defaults) :], form.args.defaults, strict=True))
        is_named = not any(re.fullmatch(r"arg\d+", each) for each in names)
        has_keywords = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
        calls = [([None, *names], {}), ([None], {each: each for each in names})][: 2 if is_named else 1]
        for arguments, keywords in calls:
            try:
                bound = signature.bind(*arguments, **keywords).arguments
            except TypeError as error:
                wrong.append(f"{name}({', '.join(names)}): {error}")
                continue
            count += 1
            # a function for several forms has a parameter for the name in each
            moved = {
                k: v for k, v in bound.items() if isinstance(v, str) and v not in (k, *signature.parameters)
            }
            if is_named and moved and not has_keywords:
                wrong.append(f"{name}: {moved}")
        for each, node in defaults.items():
            own = signature.parameters.get(each)
            if own is not None and ast.unparse(node) != "..." and own.default != ast.literal_eval(node):
                if own.default != () or ast.unparse(node) != "[]":
                    wrong.append(f"{name}: {each}={own.default!r}, not {ast.unparse(node)}")
    assert count > 400 and not wrong, wrong
