"""`DiscreteTypeInfo`: name, version and parent of an operation's type, as OpenVINO's classes have them."""

from __future__ import annotations

import functools

#: Classes that operations derive from, the nearest first, and the operations. All others derive from Op.
_DERIVED = """
UnaryElementwiseArithmetic: Abs Acos Acosh Asin Asinh Atan Atanh Ceiling Clamp Cos Cosh Elu Erf ErfInv Exp
  Floor GRN Gelu HSigmoid HSwish Log Mish Negative Relu Round Sigmoid Sign Sin Sinh SoftPlus SoftSign Sqrt Tan
  Tanh
BinaryElementwiseArithmetic: Add Divide FloorMod Maximum Minimum Mod Multiply Power SquaredDifference Subtract
BinaryElementwiseComparison: Equal Greater GreaterEqual Less LessEqual NotEqual
BinaryElementwiseLogical: LogicalAnd LogicalOr LogicalXor Xor
BinaryElementwiseBitwise: BitwiseAnd BitwiseLeftShift BitwiseOr BitwiseRightShift BitwiseXor
ArithmeticReductionKeepDims ArithmeticReduction ReductionBase: ReduceL1 ReduceL2 ReduceMax ReduceMean
  ReduceMin ReduceProd ReduceSum
LogicalReductionKeepDims LogicalReduction ReductionBase: ReduceLogicalAnd ReduceLogicalOr
ConvolutionFwdPropBase ConvolutionBase: BinaryConvolution Convolution GroupConvolution
ConvolutionBackPropBase ConvolutionBase: ConvolutionBackpropData GroupConvolutionBackpropData
DeformableConvolutionBase ConvolutionBase: DeformableConvolution
SubGraphOp MultiSubGraphOp Sink: Loop TensorIterator
MultiSubGraphOp Sink: If
AssignBase Sink: Assign
ReadValueBase: ReadValue
AvgPool: AvgPool
MaxPoolBase: MaxPool
BroadcastBase: Broadcast
DetectionOutputBase: DetectionOutput
GatherBase: Gather
GatherNDBase: GatherND
RNNCellBase: GRUCell GRUSequence LSTMCell LSTMSequence RNNCell RNNSequence
OneHot: OneHot
PadBase: Pad
ShapeOfBase: ShapeOf
Squeeze: Squeeze
TopKBase: TopK
EmbeddingBagOffsetsBase: EmbeddingBagOffsets EmbeddingBagOffsetsSum
EmbeddingBagPackedBase: EmbeddingBagPacked EmbeddingBagPackedSum
ROIAlignBase: ROIAlign ROIAlignRotated
ScatterBase: ScatterUpdate
ScatterElementsUpdateBase: ScatterElementsUpdate
ScatterNDBase: ScatterNDUpdate
InterpolateBase: Interpolate
FFTBase: DFT IDFT IRDFT RDFT
ConvertColorI420Base: I420toBGR I420toRGB
ConvertColorNV12Base: NV12toBGR NV12toRGB
ConvertColorToNV12Base: BGRtoNV12 RGBtoNV12
MulticlassNmsBase: MulticlassNms
"""
#: Operations whose parent depends on the version.
_OTHERWISE = {
    ("Interpolate", "opset1"): ("Op", "util"),
    ("NonMaxSuppression", "opset4"): ("NonMaxSuppression", "opset3"),
    ("Proposal", "opset4"): ("Proposal", "opset1"),
}


@functools.total_ordering
class DiscreteTypeInfo:
    """Name, version and parent of an operation's type."""

    __slots__ = ("name", "parent", "version_id")

    def __init__(self, name: str, version_id: str, parent: DiscreteTypeInfo | None = None):
        self.name = name
        self.version_id = version_id
        self.parent = parent

    def hash(self) -> int:
        return hash(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DiscreteTypeInfo):
            return NotImplemented
        return (self.name, self.version_id) == (other.name, other.version_id)

    def __hash__(self) -> int:
        return hash((self.name, self.version_id))

    def __lt__(self, other: DiscreteTypeInfo) -> bool:
        return (self.version_id, self.name) < (other.version_id, other.name)

    def __repr__(self) -> str:
        above = self.parent
        parent = "" if above is None else f" Parent({above.name} v{above.version_id})"
        return f"<DiscreteTypeInfo: {self.name} {self.version_id}{parent}>"


@functools.cache
def _chains() -> dict[str, tuple[str, ...]]:
    """The classes above an operation by its name, the nearest first."""
    bases: dict[str, tuple[str, ...]] = {}
    for line in _DERIVED.replace("\n  ", " ").strip().splitlines():
        classes, _, operations = line.partition(": ")
        bases.update(dict.fromkeys(operations.split(), (*classes.split(), "Op")))
    return bases


@functools.cache
def type_info_of(name: str, version: str) -> DiscreteTypeInfo:
    """The type of operation `name` in the opset of `version`, with its parents."""
    other = _OTHERWISE.get((name, version))
    if other is not None:
        return DiscreteTypeInfo(name, version, type_info_of(*other))
    above = None
    for parent in reversed(_chains().get(name, ("Op",) if name != "Op" else ())):
        above = DiscreteTypeInfo(parent, "util", above)
    return DiscreteTypeInfo(name, version, above)
