"""The language of kernels as files of kernels import it, whole: `from ovjit.codegen.language import *`.

It has the words, the decorators of kernels and of functions that are inlined, and what declares arguments.
"""

from ovjit.codegen import words
from ovjit.codegen.function import inline, kernel, name_of, spaced
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.tensors import Raw
from ovjit.codegen.words import *  # noqa: F403

__all__ = ["Kernel", "Raw", "inline", "kernel", "name_of", "spaced"]
__all__ += words.__all__
