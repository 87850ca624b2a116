"""Graphs of JAX (jaxprs) -> Model. Primitives are read by the rows of the families, see `registry`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ovjit.readers.registry import Conversion, Reader, Source

if TYPE_CHECKING:
    from ovjit.build import Model


class JaxReader(Reader):
    """The reader of jaxprs, with or without a decoder around them."""

    name = "jax"

    def sniff(self, source: Source) -> bool:
        from ovjit.readers.jax.decoder import JaxprDecoder, is_jaxpr

        return is_jaxpr(source.model, "ClosedJaxpr", "Jaxpr") or isinstance(source.model, JaxprDecoder)

    def convert(self, model: Any, conversion: Conversion) -> Model:
        from ovjit.readers.jax.decoder import JaxprDecoder
        from ovjit.readers.jax.reader import read_jaxpr

        if not isinstance(model, JaxprDecoder):
            return read_jaxpr(model, conversion.converters)
        result = read_jaxpr(model.jaxpr, conversion.converters)
        result.set_friendly_name(model.name)
        return result


READER = JaxReader()
