"""Single operations, ovjit beside OpenVINO in f32.

    python -m bench.ops [--shapes] [--samples] [name ...] [--threads 1] [--json out.json]

`--shapes` (the default): operations at sizes that real networks have, listed in `cases`. `--samples`: every
operation of the registry on its own samples, which are small: what a step costs at least. Each case is a
model of one operation, written as an IR, compiled by both engines, timed in interleaved rounds.
GFLOP/s and GB/s count the operation's own arithmetic and the bytes of its inputs, weights and output once.
Below are the geometric means of the ratios of each family of `ovjit_ops`.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import command, networks, report
from bench.rounds import interleave, workers
from bench.run import BASE
from bench.worker import Worker, WorkerError
from tests.support.samples import has_samples, samples_of

KEYS = ("op", "case", "threads", "engine")
COLUMNS = (*KEYS, "median_us", "ratio", "ratio_low", "ratio_high", "gflops", "gbs", "difference")
ENGINES = ("ovjit", BASE)


class Case(NamedTuple):
    """One operation to time. `build(ops, *values)` makes the node from the opset's module and its inputs."""

    op: str
    case: str
    data: list[np.ndarray]
    build: Callable[..., Any]
    flops: float = 0.0


def cases() -> Iterator[Case]:
    """The operations of image networks and transformers at their usual sizes."""
    rng = np.random.default_rng(networks.SEED)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    for channels, filters, kernel, size, stride in (
        (3, 64, 7, 224, 2), (64, 64, 1, 56, 1), (64, 64, 3, 56, 1), (64, 256, 1, 56, 1), (256, 512, 1, 56, 2),
        (128, 128, 3, 28, 1), (256, 256, 3, 14, 1), (1024, 256, 1, 14, 1), (512, 512, 3, 7, 1),
        (2048, 512, 1, 7, 1),
    ):  # fmt: skip
        weights = normal(filters, channels, kernel, kernel) / np.float32(np.sqrt(channels) * kernel)
        pad = kernel // 2
        out = (size + 2 * pad - kernel) // stride + 1
        yield Case(
            "Convolution", f"{channels}x{size}x{size} {kernel}x{kernel}/{stride} -> {filters}",
            [normal(1, channels, size, size)],
            lambda ops, x, w=weights, p=pad, s=stride: ops.convolution(x, w, [s, s], [p, p], [p, p], [1, 1]),
            2.0 * out * out * filters * channels * kernel * kernel,
        )  # fmt: skip
    for channels, size, stride in ((64, 112, 1), (144, 56, 2), (576, 14, 1)):
        weights = normal(channels, 1, 1, 3, 3) / 3
        out = (size - 1) // stride + 1
        yield Case(
            "GroupConvolution", f"{channels}x{size}x{size} depthwise 3x3/{stride}",
            [normal(1, channels, size, size)],
            lambda ops, x, w=weights, s=stride: ops.group_convolution(x, w, [s, s], [1, 1], [1, 1], [1, 1]),
            2.0 * out * out * channels * 9,
        )  # fmt: skip
    for m, k, n in ((1, 2048, 1000), (1, 4096, 4096), (128, 768, 768), (128, 768, 3072), (512, 512, 512)):
        weights = normal(k, n) / np.float32(np.sqrt(k))
        yield Case(
            "MatMul", f"{m}x{k} @ {k}x{n}", [normal(m, k)],
            lambda ops, x, w=weights: ops.matmul(x, w, False, False), 2.0 * m * k * n,
        )  # fmt: skip
    yield Case(
        "MatMul", "12x128x64 @ 12x64x128", [normal(1, 12, 128, 64), normal(1, 12, 64, 128)],
        lambda ops, x, y: ops.matmul(x, y, False, False), 2.0 * 12 * 128 * 128 * 64,
    )  # fmt: skip
    image, tokens = (1, 64, 112, 112), (1, 128, 768)
    rows: list[tuple[str, tuple[int, ...], int, Callable[..., Any]]] = [
        ("Relu", image, 1, lambda ops, x: ops.relu(x)),
        ("Sigmoid", image, 1, lambda ops, x: ops.sigmoid(x)),
        ("Gelu", (1, 128, 3072), 1, lambda ops, x: ops.gelu(x, "erf")),
        ("Exp", tokens, 1, lambda ops, x: ops.exp(x)),
        ("Add", image, 2, lambda ops, x, y: ops.add(x, y)),
        ("Multiply", image, 2, lambda ops, x, y: ops.multiply(x, y)),
        ("Softmax", (1, 1000), 1, lambda ops, x: ops.softmax(x, 1)),
        ("Softmax", (1, 12, 128, 128), 1, lambda ops, x: ops.softmax(x, -1)),
        ("ReduceMean", (1, 2048, 7, 7), 1, lambda ops, x: ops.reduce_mean(x, np.array([2, 3]), True)),
        ("ReduceSum", tokens, 1, lambda ops, x: ops.reduce_sum(x, np.array([-1]), True)),
        ("MVN", tokens, 1, lambda ops, x: ops.mvn(x, np.array([-1]), True, 1e-5, "inside_sqrt")),
        ("Transpose", (1, 128, 12, 64), 1, lambda ops, x: ops.transpose(x, np.array([0, 2, 1, 3]))),
        ("Transpose", image, 1, lambda ops, x: ops.transpose(x, np.array([0, 2, 3, 1]))),
        ("Concat", (1, 64, 56, 56), 2, lambda ops, x, y: ops.concat([x, y], 1)),
        (
            "MaxPool",
            image,
            1,
            lambda ops, x: ops.max_pool(x, [2, 2], [1, 1], [1, 1], [1, 1], [3, 3]).output(0),
        ),
        (
            "AvgPool",
            (1, 128, 56, 56),
            1,
            lambda ops, x: ops.avg_pool(x, [2, 2], [0, 0], [0, 0], [2, 2], True),
        ),
        ("LRN", (1, 64, 56, 56), 1, lambda ops, x: ops.lrn(x, np.array([1]), 1e-4, 0.75, 1.0, 5)),
        ("ShuffleChannels", (1, 136, 28, 28), 1, lambda ops, x: ops.shuffle_channels(x, 1, 4)),
    ]
    for mode in ("nearest", "linear", "linear_onnx", "cubic", "bilinear_pillow", "bicubic_pillow"):
        rows.append(
            (
                "Interpolate",
                (1, 64, 56, 56),
                1,
                lambda ops, x, m=mode: ops.interpolate(
                    x, np.array([112, 112]), m, "sizes", axes=np.array([2, 3])
                ),
            )
        )
    yield from detection_cases(rng)
    yield from recurrent_cases(normal)
    yield from attention_cases(normal)
    yield from transform_cases(normal)
    yield from table_cases(rng, normal)
    yield from control_cases(normal)
    yield from volume_cases(normal)
    yield from movement_cases(rng, normal)
    yield from index_cases(rng, normal)
    yield from region_cases(rng, normal)
    for name, shape, inputs, build in rows:
        extra = f" {build.__defaults__[0]}" if build.__defaults__ else ""
        yield Case(name, "x".join(map(str, shape)) + extra, [normal(*shape) for _ in range(inputs)], build)


Normal = Callable[..., np.ndarray]


def recurrent_cases(normal: Normal) -> Iterator[Case]:
    """Sequences of recurrent layers: batch, steps, input and hidden size, direction."""
    for op, gates, batch, steps, size, hidden, direction in (
        ("LSTMSequence", 4, 1, 64, 128, 128, "bidirectional"),
        ("LSTMSequence", 4, 2, 64, 128, 128, "bidirectional"),
        ("LSTMSequence", 4, 16, 32, 128, 128, "forward"),
        ("GRUSequence", 3, 1, 64, 128, 128, "bidirectional"),
        ("GRUSequence", 3, 8, 50, 64, 96, "reverse"),
        ("RNNSequence", 1, 1, 64, 128, 128, "forward"),
    ):
        turns = 2 if direction == "bidirectional" else 1
        rows = gates * hidden
        scale = np.float32(1 / np.sqrt(hidden))
        weights = [normal(turns, rows, n) * scale for n in (size, hidden)] + [normal(turns, rows) * scale]
        states = [np.zeros((batch, turns, hidden), np.float32)] * (2 if op == "LSTMSequence" else 1)
        name = {"LSTMSequence": "lstm_sequence", "GRUSequence": "gru_sequence"}.get(op, "rnn_sequence")
        lengths = np.full(batch, steps)
        yield Case(
            op, f"{batch}x{steps}x{size} -> {hidden} {direction}", [normal(batch, steps, size)],
            lambda ops, x, n=name, rest=(*states, lengths, *weights), h=hidden, d=direction: getattr(ops, n)(
                x, *rest, h, d
            ),
            2.0 * batch * steps * turns * rows * (size + hidden),
        )  # fmt: skip


def attention_cases(normal: Normal) -> Iterator[Case]:
    """Attention: heads, rows, columns, depth."""
    for heads, rows, columns, depth, causal in (
        (12, 128, 128, 64, False), (8, 1024, 1024, 64, False), (12, 1024, 1024, 64, True),
        (16, 256, 256, 72, False), (32, 1, 1024, 128, False),
    ):  # fmt: skip
        data = [normal(1, heads, n, depth) for n in (rows, columns, columns)]
        shape = f"{heads}x{rows}x{columns}x{depth}{' causal' if causal else ''}"
        yield Case(
            "ScaledDotProductAttention", shape, data,
            lambda ops, q, k, v, c=causal: ops.scaled_dot_product_attention(q, k, v, causal=c),
            4.0 * heads * rows * columns * depth / (2 if causal else 1),
        )  # fmt: skip


def transform_cases(normal: Normal) -> Iterator[Case]:
    """Fourier transforms along the last dimensions."""
    for op, shape, axes in (
        ("DFT", (64, 512, 2), [1]), ("DFT", (1, 16384, 2), [1]), ("DFT", (8, 256, 256, 2), [1, 2]),
        ("DFT", (64, 400, 2), [1]), ("RDFT", (64, 1024), [1]), ("IRDFT", (64, 513, 2), [1]),
    ):  # fmt: skip
        n = float(np.prod(shape) / (2 if op != "RDFT" else 1))
        yield Case(
            op, "x".join(map(str, shape)), [normal(*shape)],
            lambda ops, x, name=op, a=axes: getattr(ops, name.lower())(x, np.array(a)),
            5.0 * n * np.log2(np.prod([shape[a] for a in axes])),
        )  # fmt: skip


def control_cases(normal: Normal) -> Iterator[Case]:
    """A loop of 1,000 iterations over three elementwise operations: its last value, and all of them."""

    def loop(ops: Any, x: Any, whole: bool) -> Any:
        import ovjit

        v = ops.parameter([1, 64], np.float32)
        step = ops.tanh(ops.add(ops.multiply(v, np.float32(0.5)), np.full((1, 64), 0.1, np.float32)))
        true = ops.constant(np.array(True))
        node = ops.loop(ops.constant(np.int64(1000)), ops.constant(np.array(True)))
        node.set_function(ovjit.Model([true, step], [v]))
        node.set_special_body_ports([-1, 0])
        node.set_merged_input(v, x.output(0), step.output(0))
        if whole:
            return node.get_concatenated_slices(step.output(0), 0, 1, 1, -1, 0).get_node()
        return node.get_iter_value(step.output(0), -1).get_node()

    for whole in (False, True):
        what = "all values" if whole else "the last value"
        yield Case(
            "Loop", f"1000 trips of 3 nodes on 64, {what}", [normal(1, 64)],
            lambda ops, x, w=whole: loop(ops, x, w), 1000.0 * 64 * 3,
        )  # fmt: skip


def table_cases(rng: np.random.Generator, normal: Normal) -> Iterator[Case]:
    """Bags of 16 rows of a table of 10,000, and searches among 100 numbers."""
    index = rng.integers(0, 10_000, 2048)
    yield Case(
        "EmbeddingBagOffsetsSum", "10000x64, 128 bags of 16", [normal(10_000, 64)],
        lambda ops, t: ops.embedding_bag_offsets_sum(t, index, np.arange(0, 2048, 16)), 2048.0 * 64,
    )  # fmt: skip
    yield Case(
        "EmbeddingBagPackedSum", "10000x64, 128 bags of 16", [normal(10_000, 64)],
        lambda ops, t: ops.embedding_bag_packed_sum(t, index.reshape(128, 16)), 2048.0 * 64,
    )  # fmt: skip
    for shape, part in (((1, 64, 56, 56), 0.5), ((1, 64, 56, 56), 0.02), ((1, 25_200), 0.05)):
        mask = np.where(rng.random(shape) < part, normal(*shape), np.float32(0))
        yield Case(
            "NonZero", f"{'x'.join(map(str, shape))}, {part:.0%}", [mask],
            lambda ops, x: ops.non_zero(x, "i64"),
        )  # fmt: skip
    for many, kinds in ((100, 10), (10_000, 500), (10_000, 10_000)):
        yield Case(
            "Unique", f"{many} of {kinds}", [rng.integers(0, kinds, many).astype(np.float32)],
            lambda ops, x: ops.unique(x).output(0),
        )  # fmt: skip
    ids = rng.integers(0, 1000, (50, 8, 4)).astype(np.float32)
    parents = rng.integers(0, 4, (50, 8, 4)).astype(np.float32)
    yield Case(
        "GatherTree", "50 steps of 8 x 4 beams", [ids, parents],
        lambda ops, i, p: ops.gather_tree(i, p, np.full(8, 50, np.float32), np.float32(1)),
    )  # fmt: skip
    for batch, steps, classes in ((1, 88, 71), (8, 100, 6000)):
        yield Case(
            "CTCGreedyDecoderSeqLen", f"{batch}x{steps}x{classes}", [normal(batch, steps, classes)],
            lambda ops, x, b=batch, t=steps: ops.ctc_greedy_decoder_seq_len(x, np.full(b, t)).output(0),
        )  # fmt: skip
    buckets = np.sort(normal(100))
    yield Case(
        "Bucketize", "100000 among 100", [normal(100_000)], lambda ops, x: ops.bucketize(x, buckets)
    )  # fmt: skip


def detection_cases(rng: np.random.Generator) -> Iterator[Case]:
    """Sampling of feature maps, regions, and suppression of boxes."""
    features = rng.standard_normal((1, 256, 50, 68), np.float32)
    for mode in ("bilinear", "nearest", "bicubic"):
        grid = rng.uniform(-1, 1, (1, 56, 56, 2)).astype(np.float32)
        yield Case(
            "GridSample", f"1x64x56x56 at 56x56 {mode}",
            [rng.standard_normal((1, 64, 56, 56), np.float32), grid],
            lambda ops, x, g, m=mode: ops.grid_sample(x, g, {"mode": m, "padding_mode": "zeros"}),
        )  # fmt: skip
    corner = rng.uniform(0, 600, (100, 2))
    rois = np.concatenate([corner, corner + rng.uniform(30, 300, (100, 2))], 1).astype(np.float32)
    for mode in ("avg", "max"):
        yield Case(
            "ROIAlign", f"100 regions 7x7 of 256x50x68 {mode}", [features, rois],
            lambda ops, x, r, m=mode: ops.roi_align(x, r, np.zeros(100, np.int32), 7, 7, 2, 1 / 16, m),
        )  # fmt: skip
    pyramid = [rng.standard_normal((1, 256, 200 >> i, 272 >> i), np.float32) for i in range(4)]
    settings = {"output_size": 7, "sampling_ratio": 2, "pyramid_scales": (4, 8, 16, 32), "aligned": False}
    yield Case(
        "ExperimentalDetectronROIFeatureExtractor", "100 regions 7x7 of 256 channels", [rois, *pyramid],
        lambda ops, *x: plain("ExperimentalDetectronROIFeatureExtractor", x, settings),
    )  # fmt: skip
    middle, size = rng.uniform(0, 600, (1, 1000, 2)), rng.uniform(10, 80, (1, 1000, 2))
    boxes = np.concatenate([middle - size / 2, middle + size / 2], 2).astype(np.float32)
    for classes in (1, 10):
        yield Case(
            "NonMaxSuppression", f"1000 boxes {classes} classes",
            [boxes, rng.random((1, classes, 1000)).astype(np.float32)],
            lambda ops, b, s: ops.non_max_suppression(
                b, s, np.int64(200), np.float32(0.5), np.float32(0.05)
            ).output(0),
        )  # fmt: skip

    turned = np.concatenate([middle, size, rng.uniform(-3, 3, (1, 1000, 1))], 2).astype(np.float32)
    for classes in (1, 10):
        yield Case(
            "NMSRotated", f"1000 boxes {classes} classes",
            [turned, rng.random((1, classes, 1000)).astype(np.float32)],
            lambda ops, b, s: ops.nms_rotated(
                b, s, np.int64(200), np.float32(0.5), np.float32(0.05)
            ).output(0),
        )  # fmt: skip
    numbered = np.concatenate([np.zeros((100, 1), np.float32), rois], 1)
    for dim, group, part in ((8, 7, 7), (256, 1, 7)):
        offsets = rng.uniform(-1, 1, (100, 2, part, part)).astype(np.float32)
        maps = rng.standard_normal((1, dim * group * group, 38, 64), np.float32)
        yield Case(
            "DeformablePSROIPooling", f"100 regions {group}x{group} of {dim * group * group}x38x64",
            [maps, numbered, offsets],
            lambda ops, x, r, o, d=dim, g=group, p=part: ops.deformable_psroi_pooling(
                x, r, d, 1 / 16, g, "bilinear_deformable", 4, 4, 0.1, p, offsets=o
            ),
        )  # fmt: skip

    attrs: dict[str, Any] = {
        "base_size": 16, "pre_nms_topn": 6000, "post_nms_topn": 300, "nms_thresh": 0.7, "feat_stride": 16,
        "min_size": 16, "ratio": (0.5, 1.0, 2.0), "scale": (8.0, 16.0, 32.0),
    }  # fmt: skip
    scores = rng.random((1, 18, 38, 50)).astype(np.float32)
    moves = (rng.standard_normal((1, 36, 38, 50)) * 0.3).astype(np.float32)
    yield Case(
        "Proposal", "9 anchors at 38x50, 6000 -> 300", [scores, moves],
        lambda ops, s, d: plain("Proposal", [s, d, np.array([600.0, 800.0, 1.0], np.float32)], attrs),
    )  # fmt: skip
    anchors = np.concatenate([corner, corner + 100], 1)[rng.integers(0, 100, 3 * 50 * 68)].astype(np.float32)
    moves = (rng.standard_normal((12, 50, 68)) * 0.3).astype(np.float32)
    single = {"min_size": 0.0, "nms_threshold": 0.7, "pre_nms_count": 1000, "post_nms_count": 1000}
    yield Case(
        "ExperimentalDetectronGenerateProposalsSingleImage", "3 anchors at 50x68, 1000 -> 1000",
        [anchors, moves, rng.random((3, 50, 68)).astype(np.float32)],
        lambda ops, *x: plain(
            "ExperimentalDetectronGenerateProposalsSingleImage",
            [np.array([800.0, 1088.0, 1.0], np.float32), *x], single,
        ),
    )  # fmt: skip
    found = {
        "score_threshold": 0.05, "nms_threshold": 0.5, "num_classes": 81, "post_nms_count": 2000,
        "max_detections_per_image": 100, "max_delta_log_wh": 4.135, "deltas_weights": (10.0, 10.0, 5.0, 5.0),
    }  # fmt: skip
    chances = rng.dirichlet(np.full(81, 0.05), 1000).astype(np.float32)
    moves = (rng.standard_normal((1000, 324)) * 0.3).astype(np.float32)
    thousand = np.repeat(rois, 10, 0) + rng.uniform(-9, 9, (1000, 4)).astype(np.float32)
    yield Case(
        "ExperimentalDetectronDetectionOutput", "1000 regions of 81 classes", [thousand, moves, chances],
        lambda ops, *x: plain(
            "ExperimentalDetectronDetectionOutput", [*x, np.array([[800.0, 1088.0, 1.0]], np.float32)], found
        ),
    )  # fmt: skip


def volume_cases(normal: Normal) -> Iterator[Case]:
    """Three dimensions, deformed windows, and products of other types."""
    weights = normal(32, 32, 3, 3, 3) / 30
    none, one, two = [0] * 3, [1] * 3, [2] * 3
    yield Case(
        "Convolution", "32x16x28x28 3x3x3 -> 32", [normal(1, 32, 16, 28, 28)],
        lambda ops, x: ops.convolution(x, weights, one, one, one, one), 2.0 * 16 * 28 * 28 * 32 * 32 * 27,
    )  # fmt: skip
    yield Case(
        "MaxPool", "32x16x56x56 2x2x2/2", [normal(1, 32, 16, 56, 56)],
        lambda ops, x: ops.max_pool(x, two, one, none, none, two).output(0),
    )  # fmt: skip
    yield Case(
        "AvgPool", "32x16x56x56 3x3x3/2", [normal(1, 32, 16, 56, 56)],
        lambda ops, x: ops.avg_pool(x, two, one, one, [3] * 3, True),
    )  # fmt: skip
    filters = normal(64, 64, 3, 3) / 24
    yield Case(
        "DeformableConvolution", "64x56x56 3x3 -> 64", [normal(1, 64, 56, 56), normal(1, 18, 56, 56)],
        lambda ops, x, o: ops.deformable_convolution(
            x, o, filters, [1, 1], [1, 1], [1, 1], [1, 1], bilinear_interpolation_pad=True
        ),
        2.0 * 56 * 56 * 64 * 64 * 9,
    )  # fmt: skip
    up = normal(64, 32, 2, 2) / 16
    yield Case(
        "ConvolutionBackpropData", "64x56x56 2x2/2 -> 32", [normal(1, 64, 56, 56)],
        lambda ops, x: ops.convolution_backprop_data(x, up, [2, 2], None, [0, 0], [0, 0], [1, 1]),
        2.0 * 56 * 56 * 64 * 32 * 4,
    )  # fmt: skip
    for kind in (np.int32, np.float64):
        left, right = ((normal(n, n) * 4).astype(kind) for n in (256, 256))
        yield Case(
            "MatMul", f"256x256 @ 256x256 {np.dtype(kind).name}", [left],
            lambda ops, x, w=right: ops.matmul(x, w, False, False), 2.0 * 256**3,
        )  # fmt: skip
    yield Case(
        "Einsum", "abcd,acde->abe", [normal(4, 8, 16, 16), normal(4, 16, 16, 32)],
        lambda ops, x, y: ops.einsum([x, y], "abcd,acde->abe"), 2.0 * 4 * 8 * 16 * 16 * 32,
    )  # fmt: skip


def movement_cases(rng: np.random.Generator, normal: Normal) -> Iterator[Case]:
    """What moves elements, and norms over other dimensions than the last."""
    image = (1, 64, 56, 56)
    lengths = rng.integers(1, 65, 8)
    for op, what, shape, build in (
        ("Pad", "1 around, constant", image,
         lambda ops, x: ops.pad(x, [0, 0, 1, 1], [0, 0, 1, 1], "constant", np.float32(0))),
        ("Pad", "3 around, reflect", image, lambda ops, x: ops.pad(x, [0, 0, 3, 3], [0, 0, 3, 3], "reflect")),
        ("Tile", "1x1x2x2", image, lambda ops, x: ops.tile(x, np.array([1, 1, 2, 2]))),
        ("SpaceToDepth", "2", image, lambda ops, x: ops.space_to_depth(x, "blocks_first", 2)),
        ("DepthToSpace", "2", image, lambda ops, x: ops.depth_to_space(x, "blocks_first", 2)),
        ("SpaceToBatch", "2x2", image,
         lambda ops, x: ops.space_to_batch(x, [1, 1, 2, 2], [0, 0, 0, 0], [0, 0, 0, 0])),
        ("StridedSlice", "every other row and column", image,
         lambda ops, x: ops.slice(x, [0, 0], [56, 56], [2, 2], [2, 3])),
        ("Split", "4 parts", image, lambda ops, x: ops.split(x, 1, 4).output(1)),
        ("Roll", "2 axes", image, lambda ops, x: ops.roll(x, [3, 5], [2, 3])),
        ("Broadcast", "to 64x56x56", (1, 64, 1, 1), lambda ops, x: ops.broadcast(x, list(image))),
        ("ReverseSequence", "8x64x128", (8, 64, 128),
         lambda ops, x: ops.reverse_sequence(x, lengths, 0, 1)),
        ("NormalizeL2", "over channels", image,
         lambda ops, x: ops.normalize_l2(x, np.array([1]), 1e-6, "add")),
        ("GroupNormalization", "8 groups", image,
         lambda ops, x: ops.group_normalization(
             x, np.ones(64, np.float32), np.zeros(64, np.float32), 8, 1e-5)),
        ("ReduceMax", "over channels", image, lambda ops, x: ops.reduce_max(x, np.array([1]), False)),
        ("ReduceProd", "over all", image, lambda ops, x: ops.reduce_prod(x, np.arange(4), False)),
    ):  # fmt: skip
        yield Case(op, f"{'x'.join(map(str, shape))} {what}", [normal(*shape)], build)


def index_cases(rng: np.random.Generator, normal: Normal) -> Iterator[Case]:
    """Elements by index, sorted, summed up, and decoded."""
    table, rows = normal(10_000, 256), rng.integers(0, 10_000, 512)
    yield Case("Gather", "512 rows of 10000x256", [table], lambda ops, x: ops.gather(x, rows, 0))
    places = rng.integers(0, 1000, (64, 100))
    yield Case(
        "GatherElements", "64x100 of 64x1000", [normal(64, 1000)],
        lambda ops, x: ops.gather_elements(x, places, 1),
    )  # fmt: skip
    points = rng.integers(0, 56, (1000, 2))
    yield Case("GatherND", "1000 of 56x56x64", [normal(56, 56, 64)], lambda ops, x: ops.gather_nd(x, points))
    some = rng.permutation(1000)[:200]
    new = normal(200, 64)
    yield Case(
        "ScatterUpdate", "200 rows of 1000x64", [normal(1000, 64)],
        lambda ops, x: ops.scatter_update(x, some, new, 0),
    )  # fmt: skip
    yield Case(
        "ScatterNDUpdate", "200 rows of 1000x64", [normal(1000, 64)],
        lambda ops, x: ops.scatter_nd_update(x, some[:, None], new),
    )  # fmt: skip
    moved = normal(64, 100)
    yield Case(
        "ScatterElementsUpdate", "64x100 into 64x1000", [normal(64, 1000)],
        lambda ops, x: ops.scatter_elements_update(x, places, moved, 1),
    )  # fmt: skip
    for many, k, axis in (((1, 1000), 5, 1), ((1, 25_200), 300, 1), ((64, 1000), 10, 1), ((100, 1000), 1, 0)):
        yield Case(
            "TopK", f"{k} of {'x'.join(map(str, many))} along {axis}", [normal(*many)],
            lambda ops, x, k=k, a=axis: ops.topk(x, np.int64(k), a, "max", "value").output(0),
        )  # fmt: skip
    yield Case("CumSum", "64x1000 along 1", [normal(64, 1000)], lambda ops, x: ops.cum_sum(x, np.int64(1)))
    yield Case("CumSum", "1000x64 along 0", [normal(1000, 64)], lambda ops, x: ops.cum_sum(x, np.int64(0)))
    labels = rng.integers(0, 100, (32, 128))
    yield Case(
        "OneHot", "32x128 of 100", [normal(1, 1, 1)],
        lambda ops, x: ops.one_hot(
            ops.add(ops.convert(x, "i64"), labels), np.int64(100), np.float32(1), np.float32(0), -1
        ),
    )  # fmt: skip
    index, bags = rng.integers(0, 10_000, 2048), np.repeat(np.arange(128), 16)
    yield Case(
        "EmbeddingSegmentsSum", "10000x64, 128 bags of 16", [normal(10_000, 64)],
        lambda ops, t: ops.embedding_segments_sum(t, index, bags, np.int64(128)), 2048.0 * 64,
    )  # fmt: skip
    steps, batch, classes = 88, 2, 71
    yield Case(
        "CTCGreedyDecoder", f"{steps}x{batch}x{classes}", [normal(steps, batch, classes)],
        lambda ops, x: ops.ctc_greedy_decoder(x, np.ones((steps, batch), np.float32), True),
    )  # fmt: skip
    letters = rng.integers(0, classes - 1, (batch, steps))
    yield Case(
        "CTCLoss", f"{batch}x{steps}x{classes}, 20 letters", [normal(batch, steps, classes)],
        lambda ops, x: ops.ctc_loss(
            x, np.full(batch, steps), letters, np.full(batch, 20), np.int64(classes - 1)
        ),
    )  # fmt: skip
    groups = np.sort(rng.integers(0, 100, 1000))
    yield Case(
        "SegmentMax", "1000x64 in 100", [normal(1000, 64)],
        lambda ops, x: plain("SegmentMax", [x, groups, np.int64(100)], {"fill_mode": "ZERO"}),
    )  # fmt: skip
    yield Case(
        "AdaptiveMaxPool", "1x64x56x56 to 7x7", [normal(1, 64, 56, 56)],
        lambda ops, x: ops.adaptive_max_pool(x, np.array([7, 7])).output(0),
    )  # fmt: skip
    yield Case(
        "Col2Im", "1x576x3136 3x3 to 56x56", [normal(1, 576, 3136)],
        lambda ops, x: plain(
            "Col2Im", [x, np.array([56, 56]), np.array([3, 3])], {"pads_begin": [1, 1], "pads_end": [1, 1]}
        ),
    )  # fmt: skip
    yield Case("Inverse", "16x32x32", [normal(16, 32, 32)], lambda ops, x: plain("Inverse", [x], {}))


def region_cases(rng: np.random.Generator, normal: Normal) -> Iterator[Case]:
    """Regions that are pooled, and detections that are put together."""
    corner = rng.uniform(0, 600, (100, 2))
    numbered = np.concatenate(
        [np.zeros((100, 1)), corner, corner + rng.uniform(30, 300, (100, 2))], 1
    ).astype(np.float32)
    for mode in ("max", "bilinear"):
        regions = numbered if mode == "max" else numbered / np.array([1, *[1000] * 4], np.float32)
        yield Case(
            "ROIPooling", f"100 regions 7x7 of 256x50x68 {mode}", [normal(1, 256, 50, 68), regions],
            lambda ops, x, r, m=mode: ops.roi_pooling(x, r, [7, 7], np.float32(1 / 16), m),
        )  # fmt: skip
    yield Case(
        "PSROIPooling", "100 regions 7x7 of 392x38x64", [normal(1, 392, 38, 64), numbered],
        lambda ops, x, r: ops.psroi_pooling(x, r, 8, 7, 1 / 16, 1, 1, "average"),
    )  # fmt: skip
    middle, size = rng.uniform(0, 600, (1, 1000, 2)), rng.uniform(10, 80, (1, 1000, 2))
    boxes = np.concatenate([middle - size / 2, middle + size / 2], 2).astype(np.float32)
    scores = rng.random((1, 10, 1000)).astype(np.float32)
    limits: dict[str, Any] = {
        "nms_top_k": 400, "keep_top_k": 100, "background_class": -1, "score_threshold": 0.05,
    }  # fmt: skip
    for op, more in (("MulticlassNms", {"iou_threshold": 0.5}), ("MatrixNms", {"post_threshold": 0.05})):
        yield Case(
            op, "1000 boxes 10 classes", [boxes, scores],
            lambda ops, *x, o=op, m=more: plain(o, x, limits | m).output(0),
        )  # fmt: skip
    priors = rng.uniform(0, 0.8, (1917, 2))
    priors = np.concatenate([priors, priors + rng.uniform(0.02, 0.2, (1917, 2))], 1).astype(np.float32)
    ways = np.stack([priors.reshape(-1), np.tile(np.float32([0.1, 0.1, 0.2, 0.2]), 1917)])[None]
    found = {
        "background_label_id": 0, "top_k": 100, "keep_top_k": (100,), "nms_threshold": 0.5,
        "confidence_threshold": 0.3, "code_type": "caffe.PriorBoxParameter.CENTER_SIZE",
        "share_location": True, "normalized": True,
    }  # fmt: skip
    yield Case(
        "DetectionOutput", "1917 priors of 91 classes",
        [normal(1, 1917 * 4), rng.dirichlet(np.full(91, 0.05), 1917).astype(np.float32).reshape(1, -1)],
        lambda ops, move, chance: plain("DetectionOutput", [move, chance, ways], found),
    )  # fmt: skip


def plain(record: Any, inputs: Sequence[Any], attrs: dict[str, Any]) -> Any:
    """A node of any operation, by its record or its name: not all have builders."""
    from ovjit.api.model.builders import as_output
    from ovjit.api.model.node import Node
    from ovjit.graph.op import find_op

    record = find_op(record) if isinstance(record, str) else record
    return Node._new(record, [as_output(x) for x in inputs], record.check_attributes(attrs), None)


def samples() -> Iterator[Case]:
    """Every operation of the registry that has f32, on the largest of its samples.

    Inputs of other types, single numbers, and all but the first of operations that are not elementwise, are
    constants.
    """
    from ovjit.graph.op import all_ops

    for record in all_ops():
        if not has_samples(record) or "f32" not in record.types:
            continue
        samples = list(samples_of(record, np.random.default_rng(networks.SEED), "f32"))
        if not samples:
            continue
        inputs, attrs = max(samples, key=lambda s: sum(np.size(a) for a in s[0]))
        every = record.scalar is not None or record.variadic is not None
        given = [
            i for i, a in enumerate(inputs) if a.dtype == np.float32 and (i == 0 or every and a.size > 1)
        ]

        def build(
            ops: Any,
            *values: Any,
            record: Any = record,
            inputs: Any = inputs,
            attrs: Any = attrs,
            given: Any = given,
        ) -> Any:
            parameters = dict(zip(given, values, strict=True))
            return plain(record, [parameters.get(i, a) for i, a in enumerate(inputs)], attrs)

        size = " ".join("x".join(map(str, a.shape)) or "1" for a in inputs)
        yield Case(
            f"{record.name}-{record.opset}", size, [np.ascontiguousarray(inputs[i]) for i in given], build
        )


def write_model(case: Case, path: Path) -> int:
    """Write the case's IR; returns the bytes of inputs, weights and output."""
    import ovjit as ov

    values = [ov.opset8.parameter(list(a.shape), a.dtype) for a in case.data]
    made = case.build(ov.opset13, *values)
    output = made if not hasattr(made, "output") else made.output(0)
    model = ov.Model([output], values, "one")
    ov.save_model(model, path, compress_to_fp16=False)
    nodes = model.get_ordered_ops()
    constants = sum(n.data.nbytes for n in nodes if n.get_type_name() == "Constant")
    result = output.get_partial_shape()
    written = int(np.prod([d.get_length() for d in result])) * 4 if result.is_static else 0
    return sum(a.nbytes for a in case.data) + constants + written


def measure(case: Case, threads: int, rounds: int, seconds: float, scratch: Path) -> list[dict[str, Any]]:
    """One row for each engine."""
    path, inputs = scratch / "one.xml", scratch / "one.npz"
    moved = write_model(case, path)
    np.savez(inputs, *case.data)

    def prepare(worker: Worker) -> np.ndarray:
        worker.ask("load", paths={"xml": str(path)}, inputs=str(inputs), threads=threads)
        file = scratch / f"{worker.engine}.npz"
        worker.ask("answers", file=str(file))
        with np.load(file, allow_pickle=False) as arrays:
            return np.asarray(arrays[arrays.files[0]])

    with workers(ENGINES, prepare) as (ready, answers):
        times = interleave(ready, rounds, lambda w: w.ask("run", seconds=seconds))
    rows = []
    for engine, measured in times.items():
        median = statistics.median(t for part in measured for t in part)  # ns, and flops per ns are GFLOP/s
        row: dict[str, Any] = {"op": case.op, "case": case.case, "threads": threads, "engine": engine}
        row |= {"median_us": median / 1e3, "gflops": case.flops / median or None, "gbs": moved / median}
        if BASE in times:
            row |= report.ratios(measured, times[BASE])
            mine, wanted = (np.asarray(answers[e], np.float64) for e in (engine, BASE))
            finite = np.isfinite(wanted) & np.isfinite(mine)
            scale = np.abs(wanted[finite]).max(initial=0) or 1.0
            row["difference"] = float(np.abs(mine - wanted)[finite].max(initial=0) / scale)
        rows.append(row)
    return rows


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The geometric mean of the ratios of each family and number of threads, and of all."""
    from docs.operations import family
    from ovjit.graph.op import find_op

    found: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        if row["engine"] == ENGINES[0] and "ratio" in row:
            for name in (family(find_op(row["op"].partition("-")[0])), "all"):
                found.setdefault((name, row["threads"]), []).append(row["ratio"])
    return [
        {"family": name, "threads": threads, "cases": len(ratios),
         "mean": statistics.geometric_mean(ratios), "largest": max(ratios)}
        for (name, threads), ratios in sorted(found.items(), key=lambda item: (item[0][0] == "all", item[0]))
    ]  # fmt: skip


def main() -> int:
    parser = command.parser("ops", __doc__)
    parser.add_argument("names", nargs="*", metavar="name", help="operations; default: all")
    parser.add_argument("--shapes", action="store_true")
    parser.add_argument("--samples", action="store_true")
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.05, help="for one engine in one round")
    arguments = parser.parse_args()
    chosen: list[Case] = []
    if arguments.shapes or not arguments.samples:
        chosen += cases()
    if arguments.samples:
        chosen += samples()
    if arguments.names:
        chosen = [c for c in chosen if c.op.partition("-")[0] in arguments.names]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for case in chosen:
            for threads in arguments.threads:
                print(f"{case.op} {case.case}, {threads} thread{'s' * (threads > 1)}", file=sys.stderr)
                try:
                    rows += measure(case, threads, arguments.rounds, arguments.seconds, Path(folder))
                except (WorkerError, RuntimeError, TypeError, ValueError) as error:
                    print(f"  left out: {error}", file=sys.stderr)
    print(report.table(rows, COLUMNS))
    print("\n" + report.table(means(rows), ("family", "threads", "cases", "mean", "largest")))
    report.write(arguments.json, "ops", KEYS, rows, rounds=arguments.rounds, seconds=arguments.seconds)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
