"""The language of rules for PyTorch, see `ovjit.readers.rule_language`."""

from ovjit.readers.rule_language import *
from ovjit.readers.torch.call import DEFAULT_REAL, LAST, Call  # noqa: F401
from ovjit.readers.torch.pytorch import torch  # noqa: F401
from ovjit.readers.torch.registry import Rule, aten, aten_rows  # noqa: F401
from ovjit.readers.torch.values import Complex, Nested, Number, Stacked, element_type, name_of  # noqa: F401
