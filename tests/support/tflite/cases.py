"""One small TensorFlow Lite file for each builtin operator and option, written by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tests.support.tflite.files import G, Op, T, const, quantized, write

SAME, VALID = 0, 1
NONE, RELU, RELU_N1_TO_1, RELU6, TANH, SIGN_BIT = range(6)


def one(
    kind: str,
    inputs: Sequence[Any],
    outputs: Sequence[T | tuple[Sequence[int], str]],
    options: str | None = None,
    /,
    **fields: Any,
) -> bytes:
    """A model of one operator. Inputs are T, arrays, which are constants, or None where one is left out."""
    tensors: list[T] = []
    names: list[str] = []
    for i, value in enumerate(inputs):
        if value is None:
            names.append("")
            continue
        tensor = value if isinstance(value, T) else const(f"const{i}", value)
        names.append(str(tensor.name))
        tensors.append(tensor)
    made = [out if isinstance(out, T) else T(f"out{i}", *out) for i, out in enumerate(outputs)]
    op = Op(kind, names, [str(t.name) for t in made], options, fields)
    own = [str(t.name) for t in tensors if t.data is None]
    return write(G([*tensors, *made], [op], own, [str(t.name) for t in made]))


def x(*shape: int, dtype: str = "FLOAT32", name: str = "x", **kwargs: Any) -> T:
    return T(name, shape, dtype, **kwargs)


def i32(*values: Any) -> np.ndarray:
    return np.array(values, np.int32)


def _numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(0, 0.5, shape).astype(np.float32)


F, WHOLE, B = "FLOAT32", "INT32", "BOOL"
IMAGE = (1, 6, 5, 4)


def unary() -> Iterator[tuple[str, bytes]]:
    rows = {
        "ABS": None,
        "CEIL": None,
        "COS": None,
        "ELU": None,
        "EXP": None,
        "FLOOR": None,
        "HARD_SWISH": None,
        "LOG": None,
        "LOGISTIC": None,
        "LOG_SOFTMAX": None,
        "NEG": None,
        "RELU": None,
        "RELU6": None,
        "RELU_0_TO_1": None,
        "ROUND": None,
        "RSQRT": None,
        "SIGN": None,
        "SIN": None,
        "SQRT": None,
        "SQUARE": None,
        "TANH": None,
        "ZEROS_LIKE": None,
        "L2_NORMALIZATION": "L2NormOptions",
    }
    for kind, options in rows.items():
        yield kind, one(kind, [x(2, 3, 4)], [((2, 3, 4), F)], options)
    for kind in ("ABS", "NEG", "SQUARE", "ZEROS_LIKE", "SIGN"):
        yield f"{kind} i32", one(kind, [x(2, 3, dtype=WHOLE)], [((2, 3), WHOLE)])
    for approximate in (False, True):
        yield (
            f"GELU {approximate}",
            one("GELU", [x(2, 3)], [((2, 3), F)], "GeluOptions", Approximate=approximate),
        )
    yield "LEAKY_RELU", one("LEAKY_RELU", [x(2, 3)], [((2, 3), F)], "LeakyReluOptions", Alpha=0.2)
    yield "LOGICAL_NOT", one("LOGICAL_NOT", [x(2, 3, dtype=B)], [((2, 3), B)])
    yield "SOFTMAX", one("SOFTMAX", [x(2, 3, 4)], [((2, 3, 4), F)], "SoftmaxOptions", Beta=1.0)
    yield "SOFTMAX beta", one("SOFTMAX", [x(2, 4)], [((2, 4), F)], "SoftmaxOptions", Beta=0.5)
    yield "PRELU", one("PRELU", [x(1, 3, 4, 2), _numbers(1, 1, 2)], [((1, 3, 4, 2), F)])
    for source, target in (
        ("FLOAT32", "INT32"),
        ("INT32", "FLOAT32"),
        ("BOOL", "FLOAT32"),
        ("FLOAT32", "BOOL"),
        ("INT64", "INT32"),
        ("FLOAT32", "UINT8"),
        ("INT32", "FLOAT16"),
    ):
        yield (
            f"CAST {source} {target}",
            one("CAST", [x(2, 3, dtype=source)], [((2, 3), target)], "CastOptions"),
        )
    yield "SHAPE i32", one("SHAPE", [x(2, 3)], [((2,), WHOLE)], "ShapeOptions", OutType=2)
    yield "SHAPE i64", one("SHAPE", [x(2, 3)], [((2,), "INT64")], "ShapeOptions", OutType=4)
    yield "RANK", one("RANK", [x(2, 3)], [((), WHOLE)], "RankOptions")


def binary() -> Iterator[tuple[str, bytes]]:
    arithmetic = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions"}
    for kind, options in arithmetic.items():
        for code in (NONE, RELU, RELU_N1_TO_1, RELU6, TANH):
            inputs = [x(2, 3, 4), x(2, 3, 4, name="y")]
            yield f"{kind} {code}", one(kind, inputs, [((2, 3, 4), F)], options, FusedActivationFunction=code)
        yield f"{kind} broadcast", one(kind, [x(2, 3, 4), _numbers(3, 1) + 2], [((2, 3, 4), F)], options)
        yield f"{kind} i32", one(kind, [x(2, 3, dtype=WHOLE), i32([1, 2, 3])], [((2, 3), WHOLE)], options)
    for kind in ("MAXIMUM", "MINIMUM", "POW", "FLOOR_DIV", "FLOOR_MOD", "SQUARED_DIFFERENCE"):
        yield kind, one(kind, [x(2, 3, 4), x(1, 4, name="y")], [((2, 3, 4), F)])
        yield f"{kind} i32", one(kind, [x(2, 3, dtype=WHOLE), i32([1, 2, 3])], [((2, 3), WHOLE)])
    for kind in ("EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL"):
        yield kind, one(kind, [x(2, 3), x(2, 3, name="y")], [((2, 3), B)])
    for kind in ("LOGICAL_AND", "LOGICAL_OR"):
        yield kind, one(kind, [x(2, 3, dtype=B), x(3, dtype=B, name="y")], [((2, 3), B)])
    for kind, inner in (("SELECT", (2, 3)), ("SELECT_V2", (1, 3))):
        inputs = [x(2, 3, dtype=B), x(2, 3, name="y"), x(*inner, name="z")]
        yield kind, one(kind, inputs, [((2, 3), F)])
    yield "SELECT rows", one("SELECT", [x(2, dtype=B), x(2, 3, name="y"), x(2, 3, name="z")], [((2, 3), F)])
    yield "ADD_N", one("ADD_N", [x(2, 3), x(2, 3, name="y"), x(2, 3, name="z")], [((2, 3), F)], "AddNOptions")


def images() -> Iterator[tuple[str, bytes]]:
    for padding, out in ((SAME, (1, 3, 3, 4)), (VALID, (1, 2, 2, 4))):
        for kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
            for code in (NONE, RELU6):
                yield (
                    f"{kind} {padding} {code}",
                    one(
                        kind,
                        [x(*IMAGE)],
                        [(out, F)],
                        "Pool2DOptions",
                        Padding=padding,
                        StrideW=2,
                        StrideH=2,
                        FilterWidth=3,
                        FilterHeight=3,
                        FusedActivationFunction=code,
                    ),
                )
        weights, bias = _numbers(3, 3, 2, 4), _numbers(3)
        for code in (NONE, RELU, RELU_N1_TO_1, RELU6, TANH):
            yield (
                f"CONV_2D {padding} {code}",
                one(
                    "CONV_2D",
                    [x(*IMAGE), weights, bias],
                    [((*out[:3], 3), F)],
                    "Conv2DOptions",
                    Padding=padding,
                    StrideW=2,
                    StrideH=2,
                    FusedActivationFunction=code,
                ),
            )
        yield (
            f"CONV_2D no bias {padding}",
            one(
                "CONV_2D",
                [x(*IMAGE), weights, None],
                [((*out[:3], 3), F)],
                "Conv2DOptions",
                Padding=padding,
                StrideW=2,
                StrideH=2,
            ),
        )
        yield (
            f"CONV_2D dilated {padding}",
            one(
                "CONV_2D",
                [x(*IMAGE), weights, bias],
                [((1, 6, 5, 3) if padding == SAME else (1, 2, 3, 3), F)],
                "Conv2DOptions",
                Padding=padding,
                StrideW=1,
                StrideH=1,
                DilationWFactor=2,
                DilationHFactor=2,
            ),
        )
        yield (
            f"CONV_2D groups {padding}",
            one(
                "CONV_2D",
                [x(*IMAGE), _numbers(6, 3, 3, 2), _numbers(6)],
                [((*out[:3], 6), F)],
                "Conv2DOptions",
                Padding=padding,
                StrideW=2,
                StrideH=2,
            ),
        )
        for multiplier in (1, 2):
            channels = 4 * multiplier
            for code in (NONE, RELU6):
                yield (
                    f"DEPTHWISE_CONV_2D {multiplier} {padding} {code}",
                    one(
                        "DEPTHWISE_CONV_2D",
                        [x(*IMAGE), _numbers(1, 3, 3, channels), _numbers(channels)],
                        [((*out[:3], channels), F)],
                        "DepthwiseConv2DOptions",
                        Padding=padding,
                        StrideW=2,
                        StrideH=2,
                        DepthMultiplier=multiplier,
                        FusedActivationFunction=code,
                    ),
                )
        big = (1, 12, 10, 3) if padding == SAME else (1, 13, 11, 3)
        for rest in ([], [_numbers(3)]):
            yield (
                f"TRANSPOSE_CONV {padding} {len(rest)}",
                one(
                    "TRANSPOSE_CONV",
                    [i32(*big), _numbers(3, 3, 3, 4), x(*IMAGE), *rest],
                    [(big, F)],
                    "TransposeConvOptions",
                    Padding=padding,
                    StrideW=2,
                    StrideH=2,
                ),
            )
        solid = (1, 4, 6, 5, 3) if padding == SAME else (1, 3, 4, 3, 3)
        yield (
            f"CONV_3D {padding}",
            one(
                "CONV_3D",
                [x(1, 4, 6, 5, 2), _numbers(2, 3, 3, 2, 3), _numbers(3)],
                [(solid, F)],
                "Conv3DOptions",
                Padding=padding,
                StrideD=1,
                StrideW=1,
                StrideH=1,
            ),
        )
    for kind, options in (
        ("RESIZE_BILINEAR", "ResizeBilinearOptions"),
        ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions"),
    ):
        for corners, centers in ((False, False), (True, False), (False, True)):
            yield (
                f"{kind} {corners:d}{centers:d}",
                one(
                    kind,
                    [x(*IMAGE), i32(9, 7)],
                    [((1, 9, 7, 4), F)],
                    options,
                    AlignCorners=corners,
                    HalfPixelCenters=centers,
                ),
            )
    yield (
        "DEPTH_TO_SPACE",
        one("DEPTH_TO_SPACE", [x(1, 2, 3, 8)], [((1, 4, 6, 2), F)], "DepthToSpaceOptions", BlockSize=2),
    )
    yield (
        "SPACE_TO_DEPTH",
        one("SPACE_TO_DEPTH", [x(1, 4, 6, 2)], [((1, 2, 3, 8), F)], "SpaceToDepthOptions", BlockSize=2),
    )
    pads = i32([0, 0], [1, 1])
    yield "SPACE_TO_BATCH_ND", one("SPACE_TO_BATCH_ND", [x(1, 4, 4, 2), i32(2, 2), pads], [((4, 2, 3, 2), F)])
    yield "BATCH_TO_SPACE_ND", one("BATCH_TO_SPACE_ND", [x(4, 2, 3, 2), i32(2, 2), pads], [((1, 4, 4, 2), F)])


def linear() -> Iterator[tuple[str, bytes]]:
    for code in (NONE, RELU):
        yield (
            f"FULLY_CONNECTED {code}",
            one(
                "FULLY_CONNECTED",
                [x(2, 4), _numbers(3, 4), _numbers(3)],
                [((2, 3), F)],
                "FullyConnectedOptions",
                FusedActivationFunction=code,
            ),
        )
    yield (
        "FULLY_CONNECTED no bias",
        one("FULLY_CONNECTED", [x(2, 4), _numbers(3, 4), None], [((2, 3), F)], "FullyConnectedOptions"),
    )
    yield (
        "FULLY_CONNECTED flat",
        one(
            "FULLY_CONNECTED",
            [x(2, 2, 2), _numbers(3, 4), _numbers(3)],
            [((2, 3), F)],
            "FullyConnectedOptions",
        ),
    )
    yield (
        "FULLY_CONNECTED kept",
        one(
            "FULLY_CONNECTED",
            [x(2, 2, 4), _numbers(3, 4), _numbers(3)],
            [((2, 2, 3), F)],
            "FullyConnectedOptions",
            KeepNumDims=True,
        ),
    )
    for a, b in ((False, False), (True, False), (False, True)):
        left, right = (2, 4, 3) if a else (2, 3, 4), (2, 5, 4) if b else (2, 4, 5)
        yield (
            f"BATCH_MATMUL {a:d}{b:d}",
            one(
                "BATCH_MATMUL",
                [x(*left), x(*right, name="y")],
                [((2, 3, 5), F)],
                "BatchMatMulOptions",
                AdjX=a,
                AdjY=b,
            ),
        )


def shapes() -> Iterator[tuple[str, bytes]]:
    yield "RESHAPE", one("RESHAPE", [x(2, 6), i32(3, 4)], [((3, 4), F)], "ReshapeOptions", NewShape=[3, 4])
    yield "RESHAPE option", one("RESHAPE", [x(2, 6)], [((3, 4), F)], "ReshapeOptions", NewShape=[3, -1])
    yield "RESHAPE input", one("RESHAPE", [x(2, 6), i32(-1, 4)], [((3, 4), F)])
    yield "SQUEEZE", one("SQUEEZE", [x(1, 2, 1, 3)], [((2, 3), F)], "SqueezeOptions")
    yield "SQUEEZE dims", one("SQUEEZE", [x(1, 2, 1, 3)], [((1, 2, 3), F)], "SqueezeOptions", SqueezeDims=[2])
    yield "EXPAND_DIMS", one("EXPAND_DIMS", [x(2, 3), i32(1)], [((2, 1, 3), F)], "ExpandDimsOptions")
    yield "TRANSPOSE", one("TRANSPOSE", [x(2, 3, 4), i32(2, 0, 1)], [((4, 2, 3), F)], "TransposeOptions")
    yield "TILE", one("TILE", [x(2, 3), i32(2, 2)], [((4, 6), F)], "TileOptions")
    yield "BROADCAST_TO", one("BROADCAST_TO", [x(3), i32(2, 3)], [((2, 3), F)])
    yield "BROADCAST_ARGS", one("BROADCAST_ARGS", [x(2, dtype=WHOLE), i32(4, 2, 3)], [((3,), WHOLE)])
    yield "FILL", one("FILL", [i32(2, 3), x(dtype=F)], [((2, 3), F)], "FillOptions")
    for value, kind in ((np.float32(1.5), F), (np.int32(-7), WHOLE), (np.bool_(True), B)):
        given = [i32(2, 3), np.asarray(value)]
        yield f"FILL constants {kind}", one("FILL", given, [((2, 3), kind)], "FillOptions")
    yield "RANGE", one("RANGE", [i32(1).reshape(()), i32(7).reshape(()), i32(2).reshape(())], [((3,), WHOLE)])
    yield "PAD", one("PAD", [x(2, 3), i32([1, 0], [0, 2])], [((3, 5), F)], "PadOptions")
    yield "PADV2", one("PADV2", [x(2, 3), i32([1, 0], [0, 2]), np.float32(3)], [((3, 5), F)], "PadV2Options")
    for mode in (0, 1):
        yield (
            f"MIRROR_PAD {mode}",
            one("MIRROR_PAD", [x(2, 3), i32([1, 0], [0, 2])], [((3, 5), F)], "MirrorPadOptions", Mode=mode),
        )
    yield "SLICE", one("SLICE", [x(3, 4), i32(1, 0), i32(2, -1)], [((2, 4), F)], "SliceOptions")
    for name, masks in {
        "": {},
        " masks": {"BeginMask": 1, "EndMask": 2},
        " shrink": {"ShrinkAxisMask": 1},
        " new": {"NewAxisMask": 1},
        " ellipsis": {"EllipsisMask": 1},
    }.items():
        yield (
            f"STRIDED_SLICE{name}",
            one(
                "STRIDED_SLICE",
                [x(3, 4), i32(1, 1), i32(3, 3), i32(1, 2)],
                [
                    (
                        {
                            "": (2, 1),
                            " masks": (3, 2),
                            " shrink": (1,),
                            " new": (1, 1, 4),
                            " ellipsis": (3, 1),
                        }[name],
                        F,
                    )
                ],
                "StridedSliceOptions",
                **masks,
            ),
        )
    two = [((2, 2), F), ((2, 2), F)]
    yield "SPLIT", one("SPLIT", [i32(1).reshape(()), x(2, 4)], two, "SplitOptions", NumSplits=2)
    yield (
        "SPLIT_V",
        one(
            "SPLIT_V",
            [x(2, 4), i32(1, 3), i32(1).reshape(())],
            [((2, 1), F), ((2, 3), F)],
            "SplitVOptions",
            NumSplits=2,
        ),
    )
    yield (
        "PACK",
        one("PACK", [x(2, 3), x(2, 3, name="y")], [((2, 2, 3), F)], "PackOptions", Axis=1, ValuesCount=2),
    )
    yield "UNPACK", one("UNPACK", [x(2, 3)], [((3,), F), ((3,), F)], "UnpackOptions", Axis=0, Num=2)
    for code in (NONE, RELU):
        yield (
            f"CONCATENATION {code}",
            one(
                "CONCATENATION",
                [x(2, 3), x(2, 1, name="y")],
                [((2, 4), F)],
                "ConcatenationOptions",
                Axis=-1,
                FusedActivationFunction=code,
            ),
        )
    yield "REVERSE_V2", one("REVERSE_V2", [x(2, 3, 4), i32(1)], [((2, 3, 4), F)], "ReverseV2Options")
    yield (
        "REVERSE_SEQUENCE",
        one(
            "REVERSE_SEQUENCE",
            [x(2, 3, 4), i32(1, 2)],
            [((2, 3, 4), F)],
            "ReverseSequenceOptions",
            SeqDim=1,
            BatchDim=0,
        ),
    )
    yield "MATRIX_DIAG", one("MATRIX_DIAG", [x(2, 3)], [((2, 3, 3), F)], "MatrixDiagOptions")


def reductions() -> Iterator[tuple[str, bytes]]:
    for kind in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"):
        for keep in (False, True):
            shape = (2, 1, 4) if keep else (2, 4)
            yield (
                f"{kind} {keep:d}",
                one(kind, [x(2, 3, 4), i32(1)], [(shape, F)], "ReducerOptions", KeepDims=keep),
            )
    for kind in ("REDUCE_ANY", "REDUCE_ALL"):
        yield kind, one(kind, [x(2, 3, dtype=B), i32(1)], [((2,), B)], "ReducerOptions", KeepDims=False)
    for kind, options in (("ARG_MAX", "ArgMaxOptions"), ("ARG_MIN", "ArgMinOptions")):
        for number, dtype in ((2, WHOLE), (4, "INT64")):
            yield (
                f"{kind} {dtype}",
                one(kind, [x(2, 3, 4), i32(1).reshape(())], [((2, 4), dtype)], options, OutputType=number),
            )
    for exclusive in (False, True):
        for reverse in (False, True):
            yield (
                f"CUMSUM {exclusive:d}{reverse:d}",
                one(
                    "CUMSUM",
                    [x(2, 3), i32(1).reshape(())],
                    [((2, 3), F)],
                    "CumsumOptions",
                    Exclusive=exclusive,
                    Reverse=reverse,
                ),
            )


def picking() -> Iterator[tuple[str, bytes]]:
    yield "GATHER", one("GATHER", [x(4, 3), i32(2, 0)], [((2, 3), F)], "GatherOptions", Axis=0)
    yield (
        "GATHER batch",
        one("GATHER", [x(2, 4), i32([2, 0], [1, 1])], [((2, 2), F)], "GatherOptions", Axis=1, BatchDims=1),
    )
    yield "GATHER_ND", one("GATHER_ND", [x(4, 3), i32([2, 0], [1, 1])], [((2,), F)], "GatherNdOptions")
    yield (
        "SCATTER_ND",
        one("SCATTER_ND", [i32([2], [0]), x(2, 3), i32(4, 3)], [((4, 3), F)], "ScatterNdOptions"),
    )
    yield "EMBEDDING_LOOKUP", one("EMBEDDING_LOOKUP", [x(3, dtype=WHOLE), _numbers(5, 4)], [((3, 4), F)])
    yield (
        "ONE_HOT",
        one(
            "ONE_HOT",
            [x(3, dtype=WHOLE), i32(4).reshape(()), np.float32(2), np.float32(-1)],
            [((3, 4), F)],
            "OneHotOptions",
            Axis=-1,
        ),
    )
    yield (
        "TOPK_V2",
        one("TOPK_V2", [x(2, 5), i32(3).reshape(())], [((2, 3), F), ((2, 3), WHOLE)], "TopKV2Options"),
    )
    yield "WHERE", one("WHERE", [x(2, 3, dtype=B)], [T("out0", (1, 2), "INT64", signature=(-1, 2))])
    yield (
        "UNIQUE",
        one(
            "UNIQUE",
            [x(6, dtype=WHOLE)],
            [T("out0", (1,), WHOLE, signature=(-1,)), ((6,), WHOLE)],
            "UniqueOptions",
            IdxOutType=2,
        ),
    )
    yield "SEGMENT_SUM", one("SEGMENT_SUM", [x(4, 3), i32(0, 0, 1, 2)], [((3, 3), F)], "SegmentSumOptions")


def complex_numbers() -> Iterator[tuple[str, bytes]]:
    tensors = [x(2, 4, 8), const("length", i32(4, 8)), T("c", (2, 4, 5), "COMPLEX64"), T("out0", (2, 4, 5))]
    ops = [Op("RFFT2D", ["x", "length"], ["c"], "Rfft2dOptions"), Op("COMPLEX_ABS", ["c"], ["out0"])]
    yield "RFFT2D COMPLEX_ABS", write(G(tensors, ops, ["x"], ["out0"]))


def subgraphs() -> Iterator[tuple[str, bytes]]:
    """i counts to 3 while x doubles; composites by name and by subgraph."""
    ends = [x(dtype=WHOLE, name="i"), x(2), T("io", (), WHOLE), T("xo", (2,))]
    cond = [T("ci", (), WHOLE), T("cx", (2,)), const("cn", np.int32(3)), T("cb", (), B)]
    less = G(cond, [Op("LESS", ["ci", "cn"], ["cb"])], ["ci", "cx"], ["cb"], "cond")
    body = [T("bi", (), WHOLE), T("bx", (2,)), const("one", np.int32(1)), T("bio", (), WHOLE), T("bxo", (2,))]
    steps = [Op("ADD", ["bi", "one"], ["bio"], "AddOptions"), Op("ADD", ["bx", "bx"], ["bxo"], "AddOptions")]
    double = G(body, steps, ["bi", "bx"], ["bio", "bxo"], "body")
    op = Op(
        "WHILE", ["i", "x"], ["io", "xo"], "WhileOptions", {"CondSubgraphIndex": 1, "BodySubgraphIndex": 2}
    )
    yield "WHILE", write(G(ends, [op], ["i", "x"], ["io", "xo"]), less, double)
    parts = [T("sx", (2, 4)), T("sg", (4,)), T("so", (2, 4))]
    scaled = G(parts, [Op("MUL", ["sx", "sg"], ["so"], "MulOptions")], ["sx", "sg"], ["so"], "parts")
    for name in ("odml.rms_norm", "own"):
        op = Op(
            "STABLEHLO_COMPOSITE",
            ["x", "g"],
            ["y"],
            "StableHLOCompositeOptions",
            {"Name": name, "DecompositionSubgraphIndex": 1},
        )
        tensors = [x(2, 4), const("g", _numbers(4)), T("y", (2, 4))]
        yield f"STABLEHLO_COMPOSITE {name}", write(G(tensors, [op], ["x"], ["y"]), scaled)


def sparse() -> Iterator[tuple[str, bytes]]:
    """A matrix in compressed sparse rows, and one in blocks of 2 x 2."""
    dense = np.zeros((4, 6), np.float32)
    dense[0, 1], dense[2, 0], dense[2, 5], dense[3, 3] = 1, 2, 3, 4
    rows, columns = dense.nonzero()
    segments = np.searchsorted(rows, np.arange(5)).tolist()
    sparsity = {
        "order": [0, 1],
        "dims": [{"size": 4}, {"format": 1, "segments": segments, "indices": columns.tolist()}],
    }
    values = dense[rows, columns]
    for kind in ("Int32Vector", "Uint16Vector", "Uint8Vector"):
        dims = [sparsity["dims"][0], {**sparsity["dims"][1], "kind": kind}]
        w = T("w", (4, 6), F, values.tobytes(), sparsity={"order": [0, 1], "dims": dims})
        tensors = [x(2, 6), w, T("d", (4, 6)), T("y", (2, 4))]
        ops = [
            Op("DENSIFY", ["w"], ["d"], "DensifyOptions"),
            Op("FULLY_CONNECTED", ["x", "d", ""], ["y"], "FullyConnectedOptions"),
        ]
        yield f"DENSIFY {kind}", write(G(tensors, ops, ["x"], ["y"]))


def types() -> Iterator[tuple[str, bytes]]:
    for dtype, zero in (("UINT8", 128), ("INT8", -3), ("INT16", 0)):
        q = quantized(0.05, zero)
        yield (
            f"QUANTIZE {dtype}",
            one("QUANTIZE", [x(2, 3)], [T("out0", (2, 3), dtype, quant=q)], "QuantizeOptions"),
        )
        yield (
            f"DEQUANTIZE {dtype}",
            one("DEQUANTIZE", [T("x", (2, 3), dtype, quant=q)], [((2, 3), F)], "DequantizeOptions"),
        )
    half = np.array([[0.5, -1, 2]], np.float16)
    tensors = [x(2, 3), const("w", half), T("w32", (1, 3)), T("out0", (2, 3))]
    ops = [
        Op("DEQUANTIZE", ["w"], ["w32"], "DequantizeOptions"),
        Op("ADD", ["x", "w32"], ["out0"], "AddOptions"),
    ]
    yield "DEQUANTIZE f16", write(G(tensors, ops, ["x"], ["out0"]))


def all_cases() -> dict[str, bytes]:
    """Name -> file."""
    families = (
        unary,
        binary,
        images,
        linear,
        shapes,
        reductions,
        picking,
        complex_numbers,
        subgraphs,
        sparse,
        types,
    )
    return dict(row for family in families for row in family())
