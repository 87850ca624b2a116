"""Operations in Python and extensions of readers: the classes that users derive theirs from."""

from ovjit.api.model.custom import UNREADABLE, ConversionExtensionBase, Op, ReaderExtension, read_node

__all__ = ["UNREADABLE", "ConversionExtensionBase", "Op", "ReaderExtension", "read_node"]
