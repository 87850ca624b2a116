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
from ovjit.graph.attributes import Str as Str
from ovjit.graph.attributes import Strs as Strs
from ovjit.graph.attributes import UInt as UInt
from ovjit.graph.attributes import Word as Word
from ovjit.graph.symbolic import sym_max
from ovjit.records import NamedTuple


class TensorType:
    """Element type, shape and, where known at this point, the value of a tensor.

    `shape` is a tuple of ints and Intervals, or None for unknown rank. Of a value that is made of dimensions,
    some of them open, `partial` has what is known: an object array of ints and Intervals. Immutable.
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


def _is_open(value: Any) -> bool:
    """True for the value of a tensor that is not known, or traced."""
    return not isinstance(value, np.ndarray) or value.dtype.hasobject


class Promotion(NamedTuple):
    """Elements of one type become another for an operation, and those that it makes become theirs again."""

    kind: str  #: the element type
    real: str  #: that in which it is computed, f32 or f64
    first: int  #: so many of the first inputs are concerned, where they have the type

    def types_in(self, inputs: Iterable[TensorType]) -> tuple[TensorType, ...]:
        """The types of inputs to compute in. Values are known as before, but for traced ones."""
        return tuple(self._type_in(x) if self.concerns(i, x.dtype) else x for i, x in enumerate(inputs))

    def concerns(self, place: int, kind: str) -> bool:
        """True where input `place`, which has this type, becomes `real`."""
        return place < self.first and kind == self.kind

    def _type_in(self, x: TensorType) -> TensorType:
        value: Any = x.value
        return TensorType(self.real, x.shape, None if _is_open(value) else self._value_in(value))

    def _value_in(self, x: np.ndarray) -> np.ndarray:
        return dtypes.cast(x, dtypes.numpy_dtype(self.real))

    def type_out(self, x: TensorType) -> TensorType:
        """The type of an output, which had been computed."""
        if x.dtype != self.real:
            return x
        value: Any = x.value
        return TensorType(self.kind, x.shape, None if _is_open(value) else self.value_out(value))

    def values_in(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The inputs to compute in."""
        kinds = [dtypes.from_numpy(x.dtype) for x in inputs]
        return [
            self._value_in(x) if self.concerns(i, kind) else x
            for i, (x, kind) in enumerate(zip(inputs, kinds, strict=True))
        ]

    def value_out(self, x: np.ndarray) -> np.ndarray:
        """An output, which has been computed."""
        if x.dtype != dtypes.numpy_dtype(self.real):
            return x
        if self.kind in dtypes.SMALL:
            return find_op("Convert").evaluate([x], {"destination_type": self.kind})[0]
        return dtypes.whole(x, dtypes.numpy_dtype(self.kind))


#: The version of operations that no opset has (option `plugin=True`), as OpenVINO's files name it.
PLUGIN_OPSET = "ie_internal_opset"

#: Elements of the largest tensor. Bytes, and what lies around them, have to fit 63 bits with room to spare.
MOST_ELEMENTS = 1 << 48
#: NumPy's limit.
MOST_DIMENSIONS = 64

#: What Python and NumPy raise for values that an operation does not accept. Checks of its own say more.
REFUSED = (ArithmeticError, AssertionError, LookupError, MemoryError, ValueError)


class Declared:
    """What `@op` is told of an operation: the fields of a record and their defaults."""

    infer: Callable
    ref: Callable | None = None
    #: native lowering; None: runs as a host step. As a text ".module:name" it is imported when a graph is
    #: lowered that has the operation; the module is in the package of the record's
    lower: Callable | str | None = None
    #: elementwise body in the vocabulary of ovjit.codegen.trace
    scalar: Callable | None = None
    #: (writer, node, inputs) -> values of simpler operations, or None
    expand: Callable | None = None
    #: rewrite rules that come with the operation, see `ovjit.rewrite.rules`
    rules: Sequence[Any] = ()
    #: a graph without all of these gives the rules nothing to do
    rules_for: Sequence[str] = ()
    #: shapes of the inputs -> shapes that broadcast as NumPy does; None where open dimensions decide
    align: Callable | None = None
    #: the lowering applies the elementwise body that follows
    epilogue: bool = False
    #: and the elementwise nodes in front, which make the elements of its first input
    prologue: bool = False
    #: its value is not a function of its inputs: never folded
    stateful: bool = False
    #: what it is to a graph, where it does not compute: a parameter, constant or result; it reads a variable,
    #: or assigns it; "shape" reads no elements. "pages" takes caches whose types compilation settles,
    #: "states" a table of states; both are written where the caller has them
    role: str = ""
    #: its two inputs may be exchanged
    commutative: bool = False
    #: its second input divides the first: kernels are made for an integer there
    divides: bool = False
    #: it takes any number the same way: kernels read constants, none of which is printed into them
    any_number: bool = False
    #: (types of inputs, which of them are batches, attributes) -> of how many outputs, from the first on, an
    #: image depends on the same images of the batches alone, see `ovjit_ops.common.images`; True: of all.
    #: None: broadcasting decides for an elementwise body, and for others nothing is known
    images: Callable | None = None
    #: the input that lists its output's dimensions
    dims_input: int = -1
    #: it runs graphs among its attributes: it may take for ever
    runs_body: bool = False
    #: in no opset: read from and written to files, without a builder; a text: what files call its set
    plugin: bool | str = False
    #: of the attributes' names in files
    attribute_prefix: str = ""
    #: optional input -> (input that it has the type of, number): for a builder that is given a later one
    absent: Mapping[str, tuple[int, float]] = MappingProxyType({})
    #: inputs whose values bound the output's shape: positions in the first input's elements. All positions
    #: beyond its end are equivalent
    bounds: Sequence[int] = ()
    #: its reference is a view of the first input, for which no step is needed where data decide its shape
    views: bool = False
    #: element types of the first input that samples are tried with
    types: Sequence[str] = ("f32",)
    #: the floating-point types that the lowering or expansion computes, or what tells them of a target;
    #: None: any
    native: Any = None
    #: what the precision pass does with it, where that does not follow: "keep" what hangs on the last bits of
    #: its inputs, "read" or "carry" stored elements, see `ovjit.rewrite.low_precision`; or what tells it by
    #: the attributes
    part: str | Callable = ""
    #: so many of its first inputs have the elements that it carries; 0: all
    carried: int = 0
    #: so many of its first inputs are multiplied, in types that the CPU has
    multiplied: int = 0
    #: so many of its first inputs may be integers, too: they become reals, and its outputs integers again
    #: (see `Promotion`)
    in_real: int = 0
    samples: Callable | None = None
    #: attribute -> the words that it may be, each or in one text: there, OpenVINO's name for the enumeration
    #: and a colon may come first. Of words in capitals it says other ones in capitals, too
    words: Mapping[str, str | Iterable[str]] = MappingProxyType({})
    #: attributes, types of the inputs -> those that inference settles, as `get_attributes` shows them
    shown: Callable | None = None
    #: attributes that `get_attributes` and files have before the others, in this order
    shown_first: Sequence[str] = ()
    #: attribute or input name -> name in the opset builder
    builder: Mapping[str, str] = MappingProxyType({})
    #: the builder's argument that takes all attributes as a dict
    builder_dict: str = ""
    #: the first opset whose builder makes this version, 0: its own
    builder_since: int = 0
    #: the builder takes the first input alone, or all of them
    all_or_first: bool = False
    #: last input -> (attribute, the value without which the builder leaves the input out)
    read_if: Mapping[str, tuple[str, str]] = MappingProxyType({})
    #: made by expansions only: no builder, no other implementation
    internal: bool = False
    #: tolerance of the lowering against `ref` in float64, in units of the type's epsilon
    ulp: float = 4
    #: an earlier version, see `op`
    like: Op | None = None
    without: Sequence[str] = ()


#: What a class under `@op` may define, or its options name.
_FIELDS = frozenset(Declared.__annotations__)


class Op(Declared):
    """The record of one operation in one version. Made by `@op`, immutable afterwards."""

    #: where it is registered
    module = ""
    #: what `@op` was told, for versions that are like this one
    given: Mapping[str, Any] = MappingProxyType({})

    def __init__(
        self,
        name: str,
        opset: int,
        infer: Callable,
        ref: Callable | None = None,
        *,
        doc: str = "",
        **fields: Any,
    ):
        unknown = sorted(fields.keys() - _FIELDS)
        if unknown:
            known = ", ".join(sorted(_FIELDS))
            raise TypeError(f"{name} has {unknown[0]!r}, which is no field of an operation: {known}")
        vars(self).update({k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
        self.name = name
        self.opset = opset
        self.infer = infer
        self.ref = ref
        self.doc = doc
        self.builder_since = self.builder_since or opset
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
                raise TypeError(f"{name} has words for {key!r}, which is no attribute of it")
            text = words if isinstance(words, str) else " ".join(words)
            attributes[key] = attributes[key]._replace(words=text)
        self.attributes: dict[str, Attribute] = attributes

    def __repr__(self) -> str:
        return f"<op {self.name}-{self.opset}>"

    @property
    def version(self) -> str:
        """What IR files call the set of operations that this one belongs to."""
        if isinstance(self.plugin, str):
            return self.plugin
        return PLUGIN_OPSET if self.plugin else f"opset{self.opset}"

    @property
    def may_fold(self) -> bool:
        """Whether a node of known inputs may be computed before anything runs: not with a state, and no loop,
        which may take for ever."""
        return self.ref is not None and not self.stateful and not self.runs_body

    def lowering(self) -> Callable | None:
        """The native lowering. Its module is imported now where the record names it."""
        if not isinstance(self.lower, str):
            return self.lower
        module, _, name = self.lower.partition(":")
        return attrgetter(name)(importlib.import_module(module, self.module.rpartition(".")[0]))

    def native_types(self, target: Any) -> tuple[str, ...] | None:
        """The floating-point types that the lowering or expansion computes on a target, None: any.

        Others are upcast to f32.
        """
        given = self.native(target) if callable(self.native) else self.native
        return None if given is None else tuple(given)

    def check_attributes(self, attrs: Mapping[str, Any]) -> dict[str, Any]:
        """Normalise `attrs` (types coerced, defaults filled in). Raises ModelError naming what is wrong."""
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
            known = ", ".join(self.attributes) or "none"
            raise ModelError(f"{self.name} has no attribute {min(unknown)!r} (it has: {known})")
        return out

    def check_attribute(self, name: str, value: Any) -> Any:
        """One attribute's value, its type coerced. Raises ModelError for another kind of value."""
        attribute = self.attributes[name]
        return None if value is None and attribute.default is None else attribute.read(value, self.name)

    def infer_types(self, inputs: Iterable[TensorType], attrs: Mapping[str, Any]) -> tuple[TensorType, ...]:
        """The types of all outputs. Raises ModelError when inputs or attributes do not fit."""
        inputs = tuple(inputs)
        low, high = self.required_inputs, len(self.input_names)
        if len(inputs) < low or (self.variadic is None and len(inputs) > high):
            wanted = str(low) if low == high else f"{low} to {high}"
            raise ModelError(f"{self.name} takes {wanted} inputs, not {len(inputs)}")
        promotion = self.promotion(inputs, attrs)
        try:
            out = self.infer(*(promotion.types_in(inputs) if promotion else inputs), **attrs)
        except REFUSED as error:
            raise self._refusal(error, inputs, attrs) from error
        types = (out,) if isinstance(out, TensorType) else tuple(out)
        if promotion:
            types = tuple(map(promotion.type_out, types))
        for kind in types:
            _check_size(kind)
        return types

    def promotion(self, inputs: Sequence[TensorType], attrs: Mapping[str, Any]) -> Promotion | None:
        """What this computes in for inputs of types that it takes and does not compute in; None for others.

        They are integers of functions of reals (`in_real`), and floats of 8 and fewer bits, in which nothing
        is computed.
        """
        kinds = [x.dtype for x in inputs]
        if self.in_real:
            found = set(kinds[: self.in_real])
            if len(found) == 1 and dtypes.ELEMENT_TYPES[kind := found.pop()].kind in "iu":
                return Promotion(kind, dtypes.real_for(kind), self.in_real)
        if dtypes.SMALL.isdisjoint(kinds):
            return None
        found = {kind for kind in kinds if dtypes.ELEMENT_TYPES[kind].kind == "f"}
        if len(found) != 1 or not found <= dtypes.SMALL or self.runs_body or self._takes(inputs, attrs):
            return None
        promotion = Promotion(found.pop(), "f32", len(inputs))
        return promotion if self._takes(promotion.types_in(inputs), attrs) else None

    def _takes(self, inputs: Iterable[TensorType], attrs: Mapping[str, Any]) -> bool:
        try:
            self.infer(*inputs, **attrs)
        except (ModelError, *REFUSED):
            return False
        return True

    def evaluate(self, inputs: Iterable[np.ndarray], attrs: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
        """Run the NumPy reference. Floating-point warnings are silenced: infinities and NaNs are data.

        The inputs are checked as type inference checks them when it knows their values, so that constants and
        tensors that come at run time are refused alike. Raises ModelError or InferenceError.
        """
        if self.ref is None:
            raise ModelError(f"{self.name} has no reference")
        inputs = [np.asarray(x) for x in inputs]
        expected = self._check_values(inputs, attrs)
        promotion = self.promotion([_kind(x) for x in inputs], attrs) if expected else None
        given = promotion.values_in(inputs) if promotion else inputs
        try:
            with np.errstate(all="ignore"):
                out = self.ref(*given, **attrs)
        except REFUSED as error:
            raise self._refusal(error, inputs, attrs) from error
        arrays = tuple(np.asarray(o) for o in out) if isinstance(out, tuple) else (np.asarray(out),)
        if promotion:
            arrays = tuple(map(promotion.value_out, arrays))
        for array, kind in zip(arrays, expected, strict=False):
            if not shapes.fits(array.shape, kind.shape):
                raise ModelError(f"{self.name} makes the shape {list(array.shape)}, not {kind}")
        return arrays

    def fold(
        self, inputs: Sequence[Any], attrs: Mapping[str, Any], outputs: Iterable[TensorType], budget: int
    ) -> tuple[np.ndarray, ...] | None:
        """What an operation that `may_fold` makes of stored arrays; None for more than `budget` bytes beyond
        theirs. ModelError for inputs that it refuses."""
        grown = sum(_bytes_of(x) for x in outputs if shapes.is_static(x.shape))
        grown -= sum(x.nbytes for x in inputs)
        return None if grown > budget else self.evaluate(map(np.asarray, inputs), attrs)

    def _check_values(self, inputs: Sequence[np.ndarray], attrs: Mapping[str, Any]) -> tuple[TensorType, ...]:
        """What type inference says of these values; nothing where their element types are not to be seen."""
        if not inputs or self.runs_body:
            return ()
        try:
            kinds = [_kind(x) for x in inputs]
        except TypeError:
            return ()
        return self.infer_types(kinds, attrs)

    def _refusal(self, error: Exception, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> ModelError:
        """What Python or NumPy says of inputs that no check has caught."""
        kinds = ", ".join(
            repr(x) if isinstance(x, TensorType) else f"{x.dtype}{list(x.shape)}" for x in inputs
        )
        given = "".join(f", {k}={v!r}" for k, v in attrs.items() if not isinstance(v, np.ndarray))
        return ModelError(f"{self.name} does not accept ({kinds}{given}): {type(error).__name__}: {error}")


def _kind(x: np.ndarray) -> TensorType:
    return TensorType(dtypes.from_numpy(x.dtype), x.shape, x)


def _bytes_of(kind: TensorType) -> int:
    """The bytes of a tensor of static shape, as an array; of texts and unknown types, a word each."""
    known = kind.dtype not in ("string", "dynamic")
    return math.prod(kind.shape) * (dtypes.numpy_dtype(kind.dtype).itemsize if known else 8)


def _check_size(kind: TensorType) -> None:
    """Raise ModelError for a shape that no memory has: sizes and strides are computed in 64 bits."""
    size, shape = 1, kind.shape or ()
    if len(shape) > MOST_DIMENSIONS:
        raise ModelError(f"a tensor has at most {MOST_DIMENSIONS} dimensions, not {len(shape)}")
    for d in shape:
        low = d.lo if isinstance(d, shapes.Interval) else d
        if low < 0:
            raise ModelError(f"the shape {shapes.text(kind.shape)} has a negative dimension")
        size *= (low or 1) if type(low) is int else sym_max(low, 1)
    if size > MOST_ELEMENTS:
        raise ModelError(f"a tensor of the shape {shapes.text(kind.shape)} is larger than any memory")


#: What a version has for itself alone.
_OWN = ("like", "without", "builder_since")

#: name -> versions; a table of versions is replaced, never changed.
_REGISTRY: dict[str, dict[int, Op]] = {}
_lock = ForkLock("registry")
_loaded = False
_index: op_index.Index | None = None
_found: set[str] = set()  # names whose modules are imported
_tried = False  # to read the index
#: Grows with every change of the registry: what is derived from it is good for one number.
generation = 0


def register(record: Op) -> Op:
    """Add an operation. Raises ValueError if that name and version is taken."""
    global generation
    record.module = _module_being_run()
    with _lock.lock:
        versions = _REGISTRY.get(record.name, {})
        if record.opset in versions:
            raise ValueError(f"{record!r} is registered already")
        # other threads look at the versions that there are meanwhile
        _REGISTRY[record.name] = {**versions, record.opset: record}
        generation += 1
    return record


def is_registered(record: Op) -> bool:
    """Whether `find_op` finds it, in any process."""
    return _REGISTRY.get(record.name, {}).get(record.opset) is record


def _module_being_run() -> str:
    """The module whose own lines led here, "" when a function did so later."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back  # type: ignore[assignment]
    return "" if frame is None else frame.f_globals["__name__"]


def unregister(record: Op) -> None:
    """Take an operation away again, to register another in its place. Graphs that use it go on working."""
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
        inherited = {} if like is None else {k: v for k, v in like.given.items() if k not in _OWN}
        given = {**inherited, **options, **members}
        record = Op(name, opset, doc=cls.__doc__ or "", **given)
        record.given = given
        return register(record)

    return decorate


def find_op(name: str, opset: int | None = None) -> Op:
    """The operation `name` as opset number `opset` has it (None: the newest).

    Raises ModelError for an unknown one.
    """
    _import_op(name)
    versions = _REGISTRY.get(name)
    if not versions:
        load_ops()
        versions = _REGISTRY.get(name)
    if not versions:
        import difflib

        near = difflib.get_close_matches(name, list(_REGISTRY), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ModelError(f"Unrecognized operation type: {name}; ovjit has no such operation{hint}")
    if opset is None:
        return versions[max(versions)]
    fitting = [v for v in versions if v <= opset]
    return versions[max(fitting) if fitting else min(versions)]


def all_ops() -> list[Op]:
    """Every registered operation, by name and version."""
    load_ops()
    return [v[k] for _, v in sorted(_REGISTRY.items()) for k in sorted(v)]


def ops_with_rules(names: Collection[str] | None = None) -> list[Op]:
    """Every operation that brings rewrite rules, by name and version: those that may match in a graph with
    the operations `names`, None for all."""
    index = None if _loaded else _read_index()
    if index is not None:
        for module, wanted in index.rules.items():
            if names is None or not wanted or any(name in names for name in wanted):
                importlib.import_module(module)
    else:
        load_ops()
    found = _with_rules(generation)
    if names is None:
        return list(found)
    return [r for r in found if not r.rules_for or any(name in names for name in r.rules_for)]


@functools.lru_cache(1)
def _with_rules(generation: int) -> list[Op]:
    """The registered operations that bring rules, looked through once for each state of the registry."""
    return [v[k] for _, v in sorted(_REGISTRY.items()) for k in sorted(v) if v[k].rules]


def load_ops() -> None:
    """Import every module of operations, and every package that has some (entry-point group `ovjit.ops`)."""
    global _loaded
    if _loaded:
        return
    index = _read_index()
    if not importlib.import_module(f"{op_index.PACKAGE}.everything").done:
        return  # asked by a module of operations that is being imported
    _loaded = True
    if index is not None:
        return
    op_index.import_other_packages()
    op_index.write_index(v[k] for v in list(_REGISTRY.values()) for k in v)


def _import_op(name: str) -> None:
    """Import what is needed to know all versions of an operation."""
    if _loaded or name in _found:
        return
    index = _read_index()
    if index is None:
        load_ops()
        return
    for module in index.modules.get(name, ()):
        importlib.import_module(module)
    _found.add(name)


def _read_index() -> op_index.Index | None:
    """The index, read once; other packages' operations are imported then."""
    global _index, _tried
    if not _tried:
        _index = op_index.read_index()
        if _index is not None:
            op_index.import_other_packages()
        _tried = True  # last: another thread does the same until the operations are there
    return _index
