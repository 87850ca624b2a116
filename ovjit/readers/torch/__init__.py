"""PyTorch: scripts and FX graphs of ATen operators -> Model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ovjit.readers.registry import Conversion, Reader, Source

if TYPE_CHECKING:
    from ovjit.build import Model


class TorchReader(Reader):
    """The reader of modules, scripts, exported programs, and decoders of these."""

    name = "pytorch"
    convert_only = dict.fromkeys((".pt", ".pt2", ".pth"), "PyTorch")

    def sniff(self, source: Source) -> bool:
        if "torch" not in sys.modules and f"{__name__}.decoders" not in sys.modules:
            return False  # no module or decoder can be there
        from ovjit.readers.torch.decoders import is_torch

        return is_torch(source.model)

    def load(self, path: str) -> Any:
        from ovjit.readers.torch.files import load

        return load(path)

    def convert(self, model: Any, conversion: Conversion) -> Model:
        from ovjit.readers.torch.convert import convert
        from ovjit.readers.torch.extensions import converters_of, modules_of

        rows = []
        for one in conversion.inputs:
            shape = None if one.shape is None else list(one.shape)
            rows.append((one.name, shape, None if one.type is None else one.type.get_type_name()))
        converters, modules = converters_of(conversion.extensions), modules_of(conversion.extensions)
        return convert(model, conversion.example, rows, converters, modules, conversion.dynamo)

    def needs_example(self, model: Any) -> bool:
        from ovjit.readers.torch.tracing.trace import is_plain_module

        return is_plain_module(model)

    def extensions(self, items: Sequence[Any]) -> list[Any]:
        from ovjit.readers.torch.extensions import choose_extensions

        return choose_extensions(items)


READER = TorchReader()
