"""The language of rules. Each reader has more words, in a `rule_language` of its own, which files of rules
import whole: `from ovjit.readers.torch.rule_language import *`.
"""

import math  # noqa: F401
from collections.abc import Callable, Iterator, Mapping, Sequence  # noqa: F401
from functools import partial, reduce  # noqa: F401
from typing import TYPE_CHECKING, Any  # noqa: F401

import numpy as np  # noqa: F401

from ovjit.build import Output  # noqa: F401
from ovjit.build.builder import Builder, value_range  # noqa: F401
from ovjit.errors import ModelError, UnsupportedError  # noqa: F401
from ovjit.graph.dtypes import ELEMENT_TYPES  # noqa: F401
from ovjit.graph.shapes import ANY, Interval, is_static  # noqa: F401
from ovjit.records import NamedTuple  # noqa: F401
