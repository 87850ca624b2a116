"""Files of models: errors that name the file. Archives, messages of protobuf and weights are in modules."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from ovjit.errors import ModelError, OvjitError, UnsupportedError, unless_of_signal


def list_missing(missing: Mapping[str, Sequence[str]]) -> str:
    """Formats unsupported operations: the number of nodes of each, the first names, and what to do."""
    rows = (f"{what}, {len(nodes)} times ({_some(nodes)})" for what, nodes in sorted(missing.items()))
    return f"{'; '.join(rows)}. An extension can define them: see docs/custom_operations.md"


def _some(names: Sequence[str]) -> str:
    return ", ".join(repr(name[:80]) for name in names[:5]) + (", ..." if len(names) > 5 else "")


@contextlib.contextmanager
def name_errors(where: str, *damage: type[Exception]) -> Iterator[None]:
    """Context manager that prefixes errors with `where`, and turns exceptions other than UnsupportedError and
    ModelError into ModelError. `damage`: exceptions that an invalid model leads to, besides ArithmeticError
    and LookupError."""
    invalid: tuple[type[Exception], ...] = (ArithmeticError, LookupError, *damage)
    try:
        yield
    except (UnsupportedError, ModelError) as error:
        raise type(error)(f"{where}: {error}") from error
    except OvjitError as error:
        raise ModelError(f"{where}: {error}") from error
    except RecursionError:
        raise ModelError(f"{where}: the model is nested too deep") from None
    except MemoryError as error:
        raise ModelError(f"{where}: reading the model needs more memory than is available") from error
    except unless_of_signal(*invalid) as error:
        what = f"{type(error).__name__}: {error}"[:500]
        raise ModelError(f"{where}: the model is not valid ({what})") from error
