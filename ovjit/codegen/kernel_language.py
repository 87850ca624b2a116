"""The language of kernels. Their files import it whole: `from ovjit.codegen.kernel_language import *`.

It has the words, the decorators of kernels and of functions that are inlined, and what declares arguments.
"""

from ovjit.codegen.function import inline, kernel, name_of, store_spaced  # noqa: F401
from ovjit.codegen.kernel import Kernel  # noqa: F401
from ovjit.codegen.tensors import Raw  # noqa: F401
from ovjit.codegen.words import *
