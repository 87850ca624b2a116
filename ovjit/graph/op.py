"""The operation record and its registry: what an operation is, in one place.

An operation is a class decorated with `@op` (or one row of a table, see `ovjit_ops.elementwise.arithmetic`):

    @op("Softmax", opset=8)
    class Softmax:
        '''exp(x - max(x)) / sum(exp(x - max(x))) along `axis`.'''
        def infer(x, *, axis: Int = 1): ...       # TensorTypes in -> TensorType(s) out
        def ref(x, *, axis=1): ...                # NumPy arrays in -> array(s) out: the specification
        def lower(g, node): ...                   # how it runs natively, see `ovjit.planning.lower`
        def samples(rng): ...                     # yields (inputs, attributes): drives tests and benchmarks

The signature of `infer` names the inputs (positional; `*xs` takes any number, a default of None makes
one optional) and the attributes (keyword-only, annotated with one of the types in
`ovjit.graph.attributes`).
"""

from __future__ import annotations

import functools
import importlib
import math
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from types import MappingProxyType
from typing import Any

import numpy as np

from ovjit.errors import ModelError
from ovjit.forks import ForkLock
from ovjit.graph import dtypes, op_index, shapes
from ovjit.graph.attributes import LIMITS, REQUIRED, Attribute, annotation_name, signature, with_earlier
from ovjit.graph.attributes import Any_ as Any_  # the types are op's too, for who writes operations
from ovjit.graph.attributes import Bool as Bool
from ovjit.graph.attributes import Count as Count
from ovjit.graph.attributes import DType as DType
from ovjit.graph.attributes import Float as Float
from ovjit.graph.attributes import Floats as Floats
from ovjit.graph.attributes import Index as Index
from ovjit.graph.attributes import Int as Int
from ovjit.graph.attributes import Ints as Ints
from ovjit.graph.attributes import OpenShape as OpenShape
from ovjit.graph.attributes import Positive as Positive
from ovjit.graph.attributes import Single as Single
from ovjit.graph.attributes import Str as Str
from ovjit.graph.attributes import Strs as Strs
from ovjit.graph.attributes import UInt as UInt
from ovjit.graph.attributes import Word as Word
from ovjit.graph.symbolic import sym_max
from ovjit.records import NamedTuple


class TensorType:
    """Element type, shape and, if known, the elements of a tensor. Immutable.

    `shape`: a tuple of ints and Intervals, or None for unknown rank. `value`: the elements, or None.
    `partial`: partially known elements, of a value that derives from dynamic dimensions, as an object array
    of ints and Intervals.
    """

    __slots__ = ("dtype", "partial", "shape", "value")

    def __init__(
        self,
        dtype: str,
        shape: Iterable[shapes.Dim] | None,
        value: np.ndarray | None = None,
        partial: np.ndarray | None = None,
    ):
        self.dtype = dtype
        self.partial = partial
        self.shape: Any = None if shape is None else tuple(shape)
        self.value = value

    @property
    def rank(self) -> int | None:
        return None if self.shape is None else len(self.shape)

    def __repr__(self) -> str:
        return f"{self.dtype}{shapes.text(self.shape)}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TensorType) and (self.dtype, self.shape) == (other.dtype, other.shape)

    def __hash__(self) -> int:
        return hash((self.dtype, self.shape))


class ObservedType(TensorType):
    """A type with a value that notes in `observed` whether type inference reads it. If it does not, the
    outcome is the same for all tensors of this type. `with_value` leaves it alone."""

    __slots__ = ("_elements", "observed")

    def __init__(self, dtype: str, shape: Iterable[shapes.Dim] | None, value: np.ndarray, observed: set[str]):
        self.observed = observed
        self._elements = value
        super().__init__(dtype, shape)

    @property
    def value(self) -> np.ndarray | None:
        self.observed.add("value")
        return self._elements

    @value.setter
    def value(self, value: Any) -> None:
        """Set once, by the constructor."""


def _is_open(value: Any) -> bool:
    """True if a tensor's value is unknown or traced."""
    return not isinstance(value, np.ndarray) or value.dtype.hasobject


class Promotion(NamedTuple):
    """A compute type: inputs of type `kind` are converted to `real`, and outputs of type `real` to `kind`."""

    kind: str  #: the element type of the tensors
    real: str  #: the compute type, f32 or f64
    first: int  #: number of first inputs that are converted if they have the type `kind`

    def types_in(self, inputs: Iterable[TensorType]) -> tuple[TensorType, ...]:
        """The types of converted inputs. Known values are converted, traced ones dropped."""
        return tuple(self._type_in(x) if self.concerns(i, x.dtype) else x for i, x in enumerate(inputs))

    def concerns(self, index: int, kind: str) -> bool:
        """True if input `place`, which has the type `kind`, is converted."""
        return index < self.first and kind == self.kind

    def _type_in(self, x: TensorType) -> TensorType:
        value: Any = x.value
        return TensorType(self.real, x.shape, None if _is_open(value) else self._value_in(value))

    def _value_in(self, x: np.ndarray) -> np.ndarray:
        return dtypes.cast(x, dtypes.numpy_dtype(self.real))

    def type_out(self, x: TensorType) -> TensorType:
        """The type of an output after conversion to `kind`."""
        if x.dtype != self.real:
            return x
        value: Any = x.value
        return TensorType(self.kind, x.shape, None if _is_open(value) else self.value_out(value))

    def values_in(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The inputs, converted to the compute type."""
        kinds = [dtypes.from_numpy(x.dtype) for x in inputs]
        return [
            self._value_in(x) if self.concerns(i, kind) else x
            for i, (x, kind) in enumerate(zip(inputs, kinds, strict=True))
        ]

    def value_out(self, x: np.ndarray) -> np.ndarray:
        """An output, converted to `kind`."""
        if x.dtype != dtypes.numpy_dtype(self.real):
            return x
        if self.kind in dtypes.SMALL:
            return find_op("Convert").evaluate([x], {"destination_type": self.kind})[0]
        return dtypes.round_to_integer(x, dtypes.numpy_dtype(self.kind))


#: The opset name, in OpenVINO's files, of operations that are in no opset (option `plugin=True`).
PLUGIN_OPSET = "ie_internal_opset"

#: Maximum elements of a tensor. Byte sizes with halos and padding must fit 63 bits with a margin.
MOST_ELEMENTS = 1 << 48
#: NumPy's limit of dimensions.
MOST_DIMENSIONS = 64

#: Exceptions of Python and NumPy for values that an operation does not accept and does not check itself.
REFUSED = (ArithmeticError, AssertionError, LookupError, MemoryError, ValueError)


class WeightAxes(NamedTuple):
    """The axes of a convolution's weights that are channels of its input and of its output. An axis of groups
    is among both."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Declared:
    """The fields of an operation's record, as `@op` takes them, and their defaults. Names and orders of
    OpenVINO's builders, node attributes and files are in `ovjit.api.surface`."""

    # --- meaning: what the operation is

    #: (input types, attributes) -> output types
    infer: Callable
    #: NumPy reference: (input arrays, attributes) -> output arrays
    ref: Callable | None = None
    #: an earlier version, and names of its attributes that this version has not, see `op`
    like: Op | None = None
    without: Sequence[str] = ()
    #: attribute -> its allowed words, as a list or a text. A text may begin with OpenVINO's name of the
    #: enumeration and a colon; `a=b` is a second word for b. If the words are in capitals, builders' errors
    #: show the given word in capitals. Attributes of text without words are free text
    words: Mapping[str, str | Iterable[str]] = MappingProxyType({})
    #: role in a graph: "parameter", "constant", "result"; "read" and "assign" of a variable; "shape": reads
    #: no elements; "pages": takes caches of which compilation decides the types; "states": takes a table of
    #: states. Caches and tables are written in the caller's memory
    role: str = ""
    #: the result is not a function of the inputs, so it is never folded
    stateful: bool = False
    #: attributes have graphs, which the operation runs; it may not terminate
    runs_body: bool = False
    #: in no opset: read from and written to files, without a builder; a text is the opset's name in files
    plugin: bool | str = False
    #: made by expansions only; no builder
    internal: bool = False
    #: the two inputs may be swapped
    commutative: bool = False
    #: input shapes -> shapes that broadcast as in NumPy; None if dynamic dimensions decide
    align: Callable | None = None
    #: index of the input that lists the output's dimensions
    dims_input: int = -1
    #: (input types, which inputs are batched, attributes) -> number of first outputs of which each image
    #: depends on the same image of the batched inputs only, see `ovjit_ops.common.images`; True: all outputs.
    #: None: by broadcasting for an elementwise body, unknown for others
    images: Callable | None = None
    #: inputs that bound a slice: indices into the first input. All indices beyond its end are equivalent
    bounds: Sequence[int] = ()
    #: the reference is a view of the first input; no step is needed even if its shape depends on data
    views: bool = False
    #: number of first inputs that may be integers: they are converted to reals, and outputs back
    #: (`Promotion`)
    in_real: int = 0
    #: number of first inputs whose elements the operation carries; 0: all
    carried: int = 0

    # --- compiler: how it is rewritten and runs

    #: native lowering, group -> Lowering; None: a host step. A text ".module:name" is relative to the package
    #: of the record's module, and is imported for graphs with the operation
    lower: Callable | str | None = None
    #: makes the native evaluation of a node on the host, where shapes of outputs depend on data: (inputs that
    #: are known before the run, or None, attributes) -> function of arrays, or None. The program keeps it. A
    #: text is as for `lower`; True: the reference. Such nodes run together, see `ovjit.planning.partition`
    host: Callable | str | bool | None = None
    #: elementwise body in the functions of `ovjit.codegen.trace`
    scalar: Callable | None = None
    #: (writer, node, inputs) -> values of simpler operations, or None
    expand: Callable | None = None
    #: rewrite rules that come with the operation, see `ovjit.rewrite.rules`
    rules: Sequence[Any] = ()
    #: the rules only apply to graphs with one of these operations; (): to any graph
    rules_for: Sequence[str] = ()
    #: whether the lowering applies the elementwise nodes after it
    epilogue: bool = False
    #: whether the lowering applies the elementwise producers of its first input
    prologue: bool = False
    #: the second input divides the first: an integer constant there is printed into kernels
    divides: bool = False
    #: no constant is printed into kernels, which read them as operands
    any_number: bool = False
    #: floating-point types that the lowering or expansion computes, or a function target -> types; None: any
    native: Any = None
    #: kind of the operation for `ovjit.rewrite.low_precision`, if other fields do not decide it: "keep",
    #: "read" or "carry"; or a function attributes -> kind
    part: str | Callable = ""
    #: number of first inputs that are multiplied, in types that the target multiplies
    multiplied: int = 0
    #: axes of the second input that are channels of the first input, and of the output
    weight_axes: WeightAxes | None = None
    #: attributes -> index of an input with which the operation multiplies what it computes. In bf16, a
    #: constant there is stored as bf16 if an instruction of the target multiplies pairs of bf16
    factor: Callable | None = None

    # --- tests

    #: (rng, dtype) -> (inputs, attributes) pairs for tests
    samples: Callable | None = None
    #: element types of the first input for samples
    types: Sequence[str] = ("f32",)
    #: tolerance of the lowering against `ref` in float64, in units of the type's epsilon
    ulp: float = 4

    # --- surface: what does not follow from tables of `ovjit.api.surface`

    #: (attributes, input types) -> attributes as `get_attributes` returns them
    show: Callable | None = None


#: Names that a class under `@op`, or its options, may define.
_FIELDS = frozenset(Declared.__annotations__)


class Op(Declared):
    """The record of one operation in one version. Made by `@op`, immutable afterwards."""

    #: name of the module that registers it
    module = ""
    #: the arguments of `@op`, which later versions inherit by `like`
    fields: Mapping[str, Any] = MappingProxyType({})

    def __init__(
        self, name: str, opset: int, infer: Callable, ref: Callable | None = None, *, doc: str = "",
        **fields: Any,
    ):  # fmt: skip
        unknown = sorted(fields.keys() - _FIELDS)
        if unknown:
            fields_text = ", ".join(sorted(_FIELDS))
            raise TypeError(f"{name} has {unknown[0]!r}, which is not a field of an operation: {fields_text}")
        vars(self).update({k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
        self.name = name
        self.opset = opset
        self.infer = infer
        self.ref = ref
        self.doc = doc
        ends = signature(infer)
        self.input_names = ends.inputs
        self.required_inputs = ends.required
        self.variadic = ends.variadic
        attributes: dict[str, Attribute] = {}
        for key, (note, default) in ends.keywords.items():
            kind = annotation_name(key, note, name)
            base, limit = (LIMITS[kind][0], kind) if kind in LIMITS else (kind, "")
            attributes[key] = Attribute(key, base, default, limit)
        if self.like is not None and ends.more:
            attributes = with_earlier(attributes, self.like.attributes, self.without)
        for key, words in self.words.items():
            if key not in attributes:
                raise TypeError(f"{name} has a message for {key!r}, which is not an attribute of it")
            text = words if isinstance(words, str) else " ".join(words)
            attributes[key] = attributes[key]._replace(words=text)
        self.attributes: dict[str, Attribute] = attributes

    def __repr__(self) -> str:
        return f"<op {self.name}-{self.opset}>"

    @property
    def version(self) -> str:
        """The name of the operation's opset in IR files."""
        if isinstance(self.plugin, str):
            return self.plugin
        return PLUGIN_OPSET if self.plugin else f"opset{self.opset}"

    @property
    def may_fold(self) -> bool:
        """Whether a node with known inputs may be folded: it has a reference, no state, and no body, which
        may not terminate."""
        return self.ref is not None and not self.stateful and not self.runs_body

    def lowering(self) -> Callable | None:
        """The native lowering, or None. If the record gives it as a text, its module is imported."""
        return self._resolve(self.lower)

    def hosting(self) -> Callable | None:
        """The function that makes the native evaluation on the host, or None; see `host`."""
        return None if isinstance(self.host, bool) else self._resolve(self.host)

    def _resolve(self, reference: Callable | str | None) -> Callable | None:
        if not isinstance(reference, str):
            return reference
        module, _, name = reference.partition(":")
        return attrgetter(name)(importlib.import_module(module, self.module.rpartition(".")[0]))

    def native_types(self, target: Any) -> tuple[str, ...] | None:
        """The floating-point types that the lowering or expansion computes on a target; other types are
        upcast to f32. None: any type."""
        dtypes = self.native(target) if callable(self.native) else self.native
        return None if dtypes is None else tuple(dtypes)

    def check_attributes(self, attrs: Mapping[str, Any]) -> dict[str, Any]:
        """`attrs` with coerced types and filled-in defaults. Raises ModelError with the attribute's name."""
        out = {}
        for attribute in self.attributes.values():
            absent = attribute.default is None and attrs.get(attribute.name) is None
            if attribute.name in attrs and not absent:
                out[attribute.name] = attribute.read(attrs[attribute.name], self.name)
            elif attribute.default is REQUIRED:
                raise ModelError(f"{self.name} needs the attribute {attribute.name!r}")
            else:
                out[attribute.name] = attribute.default
        unknown = set(attrs) - set(self.attributes)
        if unknown:
            names = ", ".join(self.attributes) or "none"
            raise ModelError(f"{self.name} has no attribute {min(unknown)!r}; its attributes are: {names}")
        return out

    def check_attribute(self, name: str, value: Any) -> Any:
        """An attribute's value, coerced to its type. Raises ModelError if that is not possible."""
        attribute = self.attributes[name]
        if value is None and attribute.default is None:
            return None
        return attribute.read(value, self.name, alone=True)

    def infer_types(self, inputs: Iterable[TensorType], attrs: Mapping[str, Any]) -> tuple[TensorType, ...]:
        """The types of all outputs. Raises ModelError if inputs or attributes are not accepted."""
        inputs = tuple(inputs)
        low, high = self.required_inputs, len(self.input_names)
        if len(inputs) < low or (self.variadic is None and len(inputs) > high):
            expected = str(low) if low == high else f"{low} to {high}"
            raise ModelError(f"{self.name} takes {expected} inputs, not {len(inputs)}")
        promotion = self.promotion(inputs, attrs)
        try:
            out = self.infer(*(promotion.types_in(inputs) if promotion else inputs), **attrs)
        except REFUSED as error:
            raise self.refusal(error, inputs, attrs) from error
        types = (out,) if isinstance(out, TensorType) else tuple(out)
        if promotion:
            types = tuple(map(promotion.type_out, types))
        for kind in types:
            _check_size(kind)
        return types

    def promotion(self, inputs: Sequence[TensorType], attrs: Mapping[str, Any]) -> Promotion | None:
        """The compute type, if it differs from the inputs' types, else None. It differs for integer inputs of
        functions of reals (`in_real`), and for floats of 8 or fewer bits."""
        kinds = [x.dtype for x in inputs]
        if self.in_real:
            types = set(kinds[: self.in_real])
            if len(types) == 1 and dtypes.ELEMENT_TYPES[kind := types.pop()].kind in "iu":
                return Promotion(kind, dtypes.real_for(kind), self.in_real)
        if dtypes.SMALL.isdisjoint(kinds):
            return None
        types = {kind for kind in kinds if dtypes.ELEMENT_TYPES[kind].kind == "f"}
        if len(types) != 1 or not types <= dtypes.SMALL or self.runs_body or self._takes(inputs, attrs):
            return None
        promotion = Promotion(types.pop(), "f32", len(inputs))
        return promotion if self._takes(promotion.types_in(inputs), attrs) else None

    def _takes(self, inputs: Iterable[TensorType], attrs: Mapping[str, Any]) -> bool:
        try:
            self.infer(*inputs, **attrs)
        except (ModelError, *REFUSED):
            return False
        return True

    def evaluate(self, inputs: Iterable[np.ndarray], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
        """Run the NumPy reference. Floating-point warnings are suppressed: infinities and NaNs are data.

        Type inference checks the inputs with their values first, so that the same values are rejected as
        constants and at run time. Raises ModelError or InferenceError.
        """
        if self.ref is None:
            raise ModelError(f"{self.name} has no reference implementation")
        inputs = [np.asarray(x) for x in inputs]
        expected = self._check_values(inputs, attrs)
        promotion = self.promotion([_kind(x) for x in inputs], attrs) if expected else None
        arguments = promotion.values_in(inputs) if promotion else inputs
        out = self._run_reference(arguments, attrs, inputs)
        if promotion:
            parts = out if isinstance(out, tuple) else (out,)
            out = tuple(promotion.value_out(np.asarray(part)) for part in parts)
        return self._checked_arrays(out, expected)

    def types_without_values(
        self, inputs: Sequence[np.ndarray], attrs: Mapping[str, Any], constant: Sequence[bool]
    ) -> tuple[TensorType, ...] | None:
        """The output types for all arrays of these types and shapes, if those that are `constant` keep their
        elements; None if they may depend on the elements of others, or if `evaluate` converts elements.

        Raises ModelError if the inputs are not accepted.
        """
        if self.ref is None or self.runs_body or self.stateful or not inputs:
            return None
        observed: set[str] = set()
        try:
            kinds = [
                _kind(x) if fixed else ObservedType(dtypes.from_numpy(x.dtype), x.shape, x, observed)
                for x, fixed in zip(inputs, constant, strict=True)
            ]
        except TypeError:
            return None
        types = None if self.promotion(kinds, attrs) else self.infer_types(kinds, attrs)
        return None if observed else types

    def run_unchecked(
        self, inputs: Sequence[np.ndarray], attrs: Mapping[str, Any], expected: Sequence[TensorType]
    ) -> tuple[np.ndarray, ...]:
        """`evaluate` for inputs whose output types are `types_without_values`."""
        return self._checked_arrays(self._run_reference(inputs, attrs, inputs), expected)

    def _run_reference(self, arguments: Any, attrs: Mapping[str, Any], inputs: Sequence[np.ndarray]) -> Any:
        """The reference's result for `inputs` that are converted to `arguments`."""
        assert self.ref is not None
        try:
            with np.errstate(all="ignore"):
                return self.ref(*arguments, **attrs)
        except REFUSED as error:
            raise self.refusal(error, inputs, attrs) from error

    def _checked_arrays(self, out: Any, expected: Sequence[TensorType]) -> tuple[np.ndarray, ...]:
        """The reference's results as arrays. Raises ModelError if a shape is not the expected one."""
        arrays = tuple(map(np.asarray, out)) if isinstance(out, tuple) else (np.asarray(out),)
        for array, kind in zip(arrays, expected, strict=False):
            if array.shape != kind.shape and not shapes.fits(array.shape, kind.shape):
                raise ModelError(f"{self.name} returned the shape {list(array.shape)}, expected {kind}")
        return arrays

    def fold(
        self, inputs: Sequence[Any], attrs: Mapping[str, Any], outputs: Iterable[TensorType], budget: int
    ) -> tuple[np.ndarray, ...] | None:
        """Evaluate an operation that `may_fold` on stored arrays. None if the outputs exceed the inputs by
        more than `budget` bytes. Raises ModelError if the inputs are not accepted."""
        return (
            None if grown_bytes(inputs, outputs) > budget else self.evaluate(map(np.asarray, inputs), attrs)
        )

    def _check_values(self, inputs: Sequence[np.ndarray], attrs: Mapping[str, Any]) -> tuple[TensorType, ...]:
        """The output types inferred from these values; () if arrays do not determine their element types."""
        if not inputs or self.runs_body:
            return ()
        try:
            kinds = [_kind(x) for x in inputs]
        except TypeError:
            return ()
        return self.infer_types(kinds, attrs)

    def refusal(self, error: Exception, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> ModelError:
        """The ModelError for an exception of Python or NumPy on inputs that no check has rejected."""
        kinds = ", ".join(
            repr(x) if isinstance(x, TensorType) else f"{x.dtype}{list(x.shape)}" for x in inputs
        )
        attributes = "".join(f", {k}={v!r}" for k, v in attrs.items() if not isinstance(v, np.ndarray))
        return ModelError(f"{self.name} failed on ({kinds}{attributes}): {type(error).__name__}: {error}")


def _kind(x: np.ndarray) -> TensorType:
    return TensorType(dtypes.from_numpy(x.dtype), x.shape, x)


def grown_bytes(inputs: Iterable[Any], outputs: Iterable[TensorType]) -> int:
    """The bytes that outputs of static shape have more than the stored inputs."""
    return sum(_bytes_of(x) for x in outputs if shapes.is_static(x.shape)) - sum(x.nbytes for x in inputs)


def _bytes_of(kind: TensorType) -> int:
    """Bytes of a tensor of static shape as an array; 8 per element for strings and dynamic types."""
    has_size = kind.dtype not in ("string", "dynamic")
    return math.prod(kind.shape) * (dtypes.numpy_dtype(kind.dtype).itemsize if has_size else 8)


def _check_size(kind: TensorType) -> None:
    """Raise ModelError for a tensor that is too large: sizes and strides are computed in 64 bits."""
    size, shape = 1, kind.shape or ()
    if len(shape) > MOST_DIMENSIONS:
        raise ModelError(f"a tensor has at most {MOST_DIMENSIONS} dimensions, not {len(shape)}")
    for d in shape:
        low = d.lo if type(d) is shapes.Interval else d
        if low < 0:
            raise ModelError(f"the shape {shapes.text(kind.shape)} has a negative dimension")
        size *= (low or 1) if type(low) is int else sym_max(low, 1)
    if size > MOST_ELEMENTS:
        raise ModelError(f"a tensor of the shape {shapes.text(kind.shape)} exceeds the address space")


#: Fields that later versions do not inherit.
_OWN = ("like", "without")

#: name -> versions; a table of versions is replaced, never changed.
_REGISTRY: dict[str, dict[int, Op]] = {}
_lock = ForkLock("registry")
_loaded = False
_index: op_index.Index | None = None
_imported: set[str] = set()  # names whose modules are imported
_tried = False  # whether reading the index was attempted
#: Incremented by each change of the registry, as a key for caches that derive from it.
generation = 0


def register(record: Op) -> Op:
    """Add an operation. Raises ValueError if that name and version is taken."""
    global generation
    record.module = _module_being_run()
    with _lock.lock:
        versions = _REGISTRY.get(record.name, {})
        if record.opset in versions:
            raise ValueError(f"{record!r} is registered already")
        # replaced, not changed: other threads may be reading the old dict
        _REGISTRY[record.name] = {**versions, record.opset: record}
        generation += 1
    return record


def is_registered(record: Op) -> bool:
    """Whether `find_op` finds this record."""
    return _REGISTRY.get(record.name, {}).get(record.opset) is record


def _module_being_run() -> str:
    """The module that is being imported; "" if there is none on the stack."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back  # type: ignore[assignment]
    return "" if frame is None else frame.f_globals["__name__"]


def unregister(record: Op) -> None:
    """Remove an operation, so that another can be registered. Existing graphs keep their record."""
    global generation
    with _lock.lock:
        versions = {k: v for k, v in _REGISTRY[record.name].items() if k != record.opset}
        if versions:
            _REGISTRY[record.name] = versions
        else:
            del _REGISTRY[record.name]
        generation += 1


def op(name: str, opset: int = 1, **options: Any) -> Callable[[type], Op]:
    """Class decorator: register the operation that the class's functions describe.

    `like=Earlier` states only the differences from an earlier version. All other fields are inherited, and so
    are the attributes that `infer` takes as `**attrs`, except those named in `without`.
    """

    def decorate(cls: type) -> Op:
        members = {k: v for k, v in vars(cls).items() if not k.startswith("__")}
        like = options.get("like")
        inherited = {} if like is None else {k: v for k, v in like.fields.items() if k not in _OWN}
        fields = {**inherited, **options, **members}
        record = Op(name, opset, doc=cls.__doc__ or "", **fields)
        record.fields = fields
        return register(record)

    return decorate


def find_op(name: str, opset: int | None = None) -> Op:
    """The version of an operation in opset `opset` (None: the newest). Raises ModelError if it is unknown."""
    _import_op(name)
    versions = _REGISTRY.get(name)
    if not versions:
        load_ops()
        versions = _REGISTRY.get(name)
    if not versions:
        import difflib

        near = difflib.get_close_matches(name, list(_REGISTRY), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ModelError(f"Unrecognized operation type: {name}; ovjit does not implement it{hint}")
    if opset is None:
        return versions[max(versions)]
    fitting = [v for v in versions if v <= opset]
    return versions[max(fitting) if fitting else min(versions)]


def all_ops() -> list[Op]:
    """Every registered operation, by name and version."""
    load_ops()
    return [v[k] for _, v in sorted(_REGISTRY.items()) for k in sorted(v)]


def ops_with_rules(names: Collection[str] | None = None) -> list[Op]:
    """The operations with rewrite rules that may match in a graph with the operations `names`, sorted by name
    and version. None: all operations with rules."""
    index = None if _loaded else _read_index()
    if index is not None:
        for module, matched in index.rules.items():
            if names is None or not matched or any(name in names for name in matched):
                importlib.import_module(module)
    else:
        load_ops()
    records = _with_rules(generation)
    if names is None:
        return list(records)
    return [r for r in records if not r.rules_for or any(name in names for name in r.rules_for)]


@functools.lru_cache(1)
def _with_rules(generation: int) -> list[Op]:
    """The registered operations with rules, cached per `generation`."""
    return [v[k] for _, v in sorted(_REGISTRY.items()) for k in sorted(v) if v[k].rules]


def load_ops() -> None:
    """Import all modules of operations, and all packages with the entry point `ovjit.ops`."""
    global _loaded
    if _loaded:
        return
    index = _read_index()
    if not importlib.import_module(f"{op_index.PACKAGE}.everything").done:
        return  # called while a module of operations is being imported
    _loaded = True
    if index is not None:
        return
    op_index.import_other_packages()
    op_index.write_index(v[k] for v in list(_REGISTRY.values()) for k in v)


def _import_op(name: str) -> None:
    """Import the modules that register versions of an operation."""
    if _loaded or name in _imported:
        return
    index = _read_index()
    if index is None:
        load_ops()
        return
    for module in index.modules.get(name, ()):
        importlib.import_module(module)
    _imported.add(name)


def _read_index() -> op_index.Index | None:
    """The index, read once. If it exists, other packages' operations are imported too."""
    global _index, _tried
    if not _tried:
        _index = op_index.read_index()
        if _index is not None:
            op_index.import_other_packages()
        _tried = True  # last: until the operations are imported, another thread does the same
    return _index
