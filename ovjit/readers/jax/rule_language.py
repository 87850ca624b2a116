"""The language of rules for JAX, see `ovjit.readers.rule_language`."""

from ovjit.readers.jax.multi_tensor import Parts, join_parts, separate_parts  # noqa: F401
from ovjit.readers.jax.reader import JaxNode, element_type  # noqa: F401
from ovjit.readers.jax.registry import of_parts, primitive, primitives  # noqa: F401
from ovjit.readers.jax.symbolic import is_number, plain_dims  # noqa: F401
from ovjit.readers.rule_language import *
