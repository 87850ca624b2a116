"""The bill of materials of a wheel: CycloneDX 1.6, in `ovjit-*.dist-info/sboms` (PEP 770).

It names ovjit, what a wheel requires and its extras, and every file with code or data that is not Python,
with its hash. It has no date and no random number: the same sources give the same bytes. Required packages
have ranges of versions here. Those of an environment are listed by `cyclonedx-py environment`.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

#: What a file below `ovjit/data` is, by the beginning of its name.
DATA = {
    "digits": "the embedded model or its images: written by bench/train_digits.py",
    "kernels": "object code of kernels: written by python -m ovjit.tools.ship",
    "printed": "texts that kernels are printed as: written by python -m ovjit.tools.ship",
    "speaker": "the default speaker of Text2SpeechPipeline: docs/genai.md, data of others",
    "syntax": "digests of the sources: written by python -m ovjit.tools.ship --texts",
    "texts": "sources of kernels: written when a wheel is built",
    "operations": "the operations' names, and the modules that have them",
    "onnx_schemas": "ONNX's standard of operators: written by python -m ovjit.tools.ship --texts",
}


def bill(
    root: pathlib.Path, name: str, version: str, required: Sequence[str],
    extras: Mapping[str, Sequence[str]], built: Sequence[pathlib.Path] = (),
) -> str:  # fmt: skip
    """The bill as JSON text. `required` and `extras` are requirements as in pyproject.toml. `built`: files
    that the build adds to `ovjit/data`."""
    own = f"pkg:pypi/{name}@{version}"
    ranges: dict[str, list[tuple[str, str]]] = {}
    for extra, lines in {"": required, **extras}.items():
        for line in lines:
            ranges.setdefault(project(line), []).append((extra, line))
    components = [package(key, uses) for key, uses in sorted(ranges.items())]
    needed = sorted(f"pkg:pypi/{key}" for key, uses in ranges.items() if any(not extra for extra, _ in uses))
    files = {p.name: p for p in (root / "ovjit" / "data").iterdir() if p.is_file() and p.suffix != ".py"}
    files |= {path.name: path for path in built}
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": own,
                "name": name,
                "version": version,
                "purl": own,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
                "components": [data(path) for _, path in sorted(files.items())],
            },
        },
        "components": components,
        "dependencies": [
            {"ref": own, "dependsOn": needed},
            *({"ref": component["bom-ref"]} for component in components),
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def project(requirement: str) -> str:
    """The normalized name (PEP 503) in a requirement."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def package(key: str, uses: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """A package that is required: always, or ("optional") by extras alone."""
    always = any(not extra for extra, _ in uses)
    said = [(f"ovjit:requirement{f':{extra}' if extra else ''}", line) for extra, line in uses]
    return {
        "type": "library",
        "bom-ref": f"pkg:pypi/{key}",
        "name": key,
        "purl": f"pkg:pypi/{key}",
        "scope": "required" if always else "optional",
        "properties": [{"name": kind, "value": line} for kind, line in sorted(said)],
    }


def data(path: pathlib.Path) -> dict[str, Any]:
    """A file of `ovjit/data` that a reader of the sources cannot read."""
    name = f"ovjit/data/{path.name}"
    return {
        "type": "file",
        "bom-ref": f"file:{name}",
        "name": name,
        "description": next(text for start, text in DATA.items() if path.name.startswith(start)),
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(path.read_bytes()).hexdigest()}],
    }
