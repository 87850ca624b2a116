"""Detectors with their decoding of boxes, NonMaxSuppression and what follows it inside of the model."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tests.support.onnx.nets import Built, F, Net


def yolov3(seed: int) -> Built:
    """Upsampling by scales that are computed, boxes from a grid, NonMaxSuppression inside."""
    n = Net(seed, 11)
    x = n.input("images", n.rng.random((1, 3, 64, 64)).astype(F), [1, 3, "h", "w"])
    size = n.input("image_shape", np.array([[64.0, 64.0]], F))
    x = n.conv(x, 3, 8, s=2, act="LeakyRelu", bn=True)
    route = n.conv(n.conv(x, 8, 16, s=2, act="LeakyRelu", bn=True), 16, 16, 1, act="LeakyRelu", bn=True)
    x = n.conv(n.conv(route, 16, 16, s=2, act="LeakyRelu", bn=True), 16, 16, s=2, act="LeakyRelu", bn=True)
    small = n.conv(x, 16, 2 * 7, 1, act=None)
    up = n(
        "Resize",
        n.conv(x, 16, 8, 1, act="LeakyRelu", bn=True),
        n.const(np.zeros(0, F)),
        n.const(np.array([1, 1, 4, 4], F)),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    large = n.conv(n("Concat", up, route, axis=1), 24, 2 * 7, 1, act=None)
    boxes, scores = [], []
    for head, step in ((small, 16), (large, 4)):
        shape = n("Shape", head)
        rows, columns = (n("Gather", shape, n.const(np.int64(i)), axis=0) for i in (2, 3))
        y = n(
            "Transpose",
            n("Reshape", head, n("Concat", n.ints(1, 2, 7), n("Slice", shape, n.ints(2), n.ints(4)), axis=0)),
            perm=[0, 3, 4, 1, 2],
        )
        tx, ty, tw, th, conf, cls = n("Split", y, outputs=6, axis=4, split=[1, 1, 1, 1, 1, 2])
        r, c = (
            n("Cast", n("Range", n.const(np.int64(0)), v, n.const(np.int64(1))), to=1)
            for v in (rows, columns)
        )
        gx = n("Reshape", c, n.ints(1, 1, -1, 1, 1))
        gy = n("Reshape", r, n.ints(1, -1, 1, 1, 1))
        cx, cy = (
            n("Mul", n("Add", n("Sigmoid", tx), gx), float(step)),
            n("Mul", n("Add", n("Sigmoid", ty), gy), float(step)),
        )
        anchors = n.rng.uniform(4, 20, (2, 2))
        w, h_ = (
            n("Mul", n("Exp", t), n.const(anchors[:, i].reshape(1, 1, 1, 2, 1)))
            for i, t in ((0, tw), (1, th))
        )
        half_w, half_h = n("Div", w, 2.0), n("Div", h_, 2.0)
        box = n(
            "Concat",
            n("Sub", cy, half_h),
            n("Sub", cx, half_w),
            n("Add", cy, half_h),
            n("Add", cx, half_w),
            axis=4,
        )
        boxes.append(n("Reshape", box, n.ints(1, -1, 4)))
        scores.append(n("Reshape", n("Mul", n("Sigmoid", conf), n("Sigmoid", cls)), n.ints(1, -1, 2)))
    box = n("Concat", *boxes, axis=1)
    box = n("Min", n("Max", box, 0.0), n("Concat", size, size, axis=1))
    score = n("Transpose", n("Concat", *scores, axis=1), perm=[0, 2, 1])
    chosen = n("NonMaxSuppression", box, score, n.ints(10), 0.5, 0.3)
    return n.model(box, score, chosen), n.values


def yolov5(seed: int) -> Built:
    """Focus slices, C3 and SPPF blocks, sizes of nearest resizing from Shape, a grid that is a constant."""
    n = Net(seed, 12)
    x = n.input("images", n.rng.random((1, 3, 64, 64)).astype(F))
    parts = []
    for i, j in ((0, 0), (1, 0), (0, 1), (1, 1)):
        y = n("Slice", x, n.ints(i), n.ints(2**63 - 1), n.ints(2), n.ints(2))
        parts.append(n("Slice", y, n.ints(j), n.ints(2**63 - 1), n.ints(3), n.ints(2)))
    x = n.conv(n("Concat", *parts, axis=1), 12, 8, act="SiLU")
    x = n.conv(x, 8, 16, s=2, act="SiLU")
    a, b = n.conv(x, 16, 8, 1, act="SiLU"), n.conv(x, 16, 8, 1, act="SiLU")
    a = n("Add", a, n.conv(n.conv(a, 8, 8, 1, act="SiLU"), 8, 8, act="SiLU"))
    p3 = n.conv(n("Concat", a, b, axis=1), 16, 16, 1, act="SiLU")
    x = n.conv(p3, 16, 16, s=2, act="SiLU")
    pools = [n.conv(x, 16, 8, 1, act="SiLU")]
    for _ in range(3):
        pools.append(n("MaxPool", pools[-1], kernel_shape=[5, 5], strides=[1, 1], pads=[2] * 4))
    p4 = n.conv(n("Concat", *pools, axis=1), 32, 16, 1, act="SiLU")
    target = n(
        "Concat",
        n("Slice", n("Shape", p4), n.ints(0), n.ints(2)),
        n("Slice", n("Shape", p3), n.ints(2), n.ints(4)),
        axis=0,
    )
    up = n(
        "Resize",
        p4,
        n.const(np.zeros(0, F)),
        n.const(np.zeros(0, F)),
        target,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    p3 = n.conv(n("Concat", up, p3, axis=1), 32, 16, 1, act="SiLU")
    outs = []
    for p, step, grid in ((p3, 4, 16), (p4, 8, 8)):
        y = n(
            "Transpose",
            n("Reshape", n.conv(p, 16, 3 * 8, 1, act=None), n.ints(1, 3, 8, grid, grid)),
            perm=[0, 1, 3, 4, 2],
        )
        xy, wh, rest = n("Split", n("Sigmoid", y), outputs=3, axis=4, split=[2, 2, 4])
        mesh = np.stack(np.meshgrid(np.arange(grid), np.arange(grid)), -1)[None, None].astype(F)
        xy = n("Mul", n("Add", n("Sub", n("Mul", xy, 2.0), 0.5), n.const(mesh)), float(step))
        wh = n("Mul", n("Pow", n("Mul", wh, 2.0), 2.0), n.const(n.rng.uniform(4, 30, (1, 3, 1, 1, 2))))
        outs.append(n("Reshape", n("Concat", xy, wh, rest, axis=4), n.ints(1, -1, 8)))
    return n.model(n("Concat", *outs, axis=1)), n.values


def yolov8(seed: int) -> Built:
    """Distances as a distribution (softmax and a convolution of 0, 1, ...), ArgMax, TopK, NMS."""
    n = Net(seed, 17)
    x = n.input("images", n.rng.random((1, 3, 32, 32)).astype(F), ["batch", 3, 32, 32])
    x = n.conv(n.conv(x, 3, 8, s=2, act="SiLU"), 8, 16, s=2, act="SiLU")
    a, b = n("Split", x, n.ints(8, 8), outputs=2, axis=1)
    x = n.conv(n("Concat", a, b, n.conv(b, 8, 8, act="SiLU"), axis=1), 24, 16, 1, act="SiLU")
    reach, kinds = n.conv(x, 16, 4 * 4, 1, act=None), n.conv(x, 16, 3, 1, act=None)
    y = n("Reshape", n("Concat", reach, kinds, axis=1), n.ints(0, 19, -1))
    reach, kinds = n("Split", y, n.ints(16, 3), outputs=2, axis=1)
    reach = n("Transpose", n("Reshape", reach, n.ints(0, 4, 4, 64)), perm=[0, 2, 1, 3])
    reach = n("Conv", n("Softmax", reach, axis=1), n.const(np.arange(4, dtype=F).reshape(1, 4, 1, 1)))
    reach = n("Reshape", reach, n.ints(0, 4, 64))
    mesh = np.stack(np.meshgrid(np.arange(8) + 0.5, np.arange(8) + 0.5), 0).reshape(1, 2, 64)
    lt, rb = (
        n("Slice", reach, n.ints(0), n.ints(2), n.ints(1)),
        n("Slice", reach, n.ints(2), n.ints(4), n.ints(1)),
    )
    one, two = n("Sub", n.const(mesh), lt), n("Add", n.const(mesh), rb)
    box = n("Mul", n("Concat", one, two, axis=1), 4.0)
    score = n("Sigmoid", kinds)
    chosen = n("NonMaxSuppression", n("Transpose", box, perm=[0, 2, 1]), score, n.ints(5), 0.4, 0.2)
    best = n("ReduceMax", score, axes=[1], keepdims=0)
    values, where = n("TopK", best, n.ints(10), outputs=2, axis=1)
    which = n("ArgMax", score, axis=1, keepdims=0)
    # rows of what was chosen: [batch, class, box]
    rows = n("Squeeze", n("Slice", chosen, n.ints(2), n.ints(3), n.ints(1)), n.ints(1))
    picked = n(
        "Gather", n("Squeeze", n("Slice", box, n.ints(0), n.ints(1), n.ints(0)), n.ints(0)), rows, axis=1
    )
    return n.model(n("Concat", box, score, axis=1), values, where, which, picked), n.values


def ssd(seed: int) -> Built:
    """Boxes decoded from priors, classes through NonMaxSuppression, results gathered by its indices."""
    n = Net(seed, 10)
    x = n.input("image", n.rng.random((1, 3, 32, 32)).astype(F))
    x = n.conv(n.conv(x, 3, 8, s=2), 8, 16, s=2)
    feats = [x, n.conv(x, 16, 16, s=2)]
    locs, confs, priors = [], [], []
    for i, f in enumerate(feats):
        grid = 8 >> i
        locs.append(
            n("Reshape", n("Transpose", n.conv(f, 16, 2 * 4, act=None), perm=[0, 2, 3, 1]), n.ints(1, -1, 4))
        )
        confs.append(
            n("Reshape", n("Transpose", n.conv(f, 16, 2 * 4, act=None), perm=[0, 2, 3, 1]), n.ints(1, -1, 4))
        )
        centre = (np.stack(np.meshgrid(np.arange(grid), np.arange(grid)), -1).reshape(-1, 1, 2) + 0.5) / grid
        priors.append(
            np.concatenate([np.repeat(centre, 2, 1), np.full((grid * grid, 2, 2), 0.3)], 2).reshape(-1, 4)
        )
    prior = np.concatenate(priors)[None].astype(F)
    loc, conf = n("Concat", *locs, axis=1), n("Softmax", n("Concat", *confs, axis=1), axis=2)
    xy, wh = n("Split", loc, outputs=2, axis=2)
    xy = n("Add", n("Mul", n("Mul", xy, 0.1), n.const(prior[..., 2:])), n.const(prior[..., :2]))
    wh = n("Mul", n("Exp", n("Mul", wh, 0.2)), n.const(prior[..., 2:]))
    box = n("Concat", n("Sub", xy, n("Mul", wh, 0.5)), n("Add", xy, n("Mul", wh, 0.5)), axis=2)
    score = n("Slice", n("Transpose", conf, perm=[0, 2, 1]), n.ints(1), n.ints(4), n.ints(1))
    chosen = n("NonMaxSuppression", box, score, n.ints(20), 0.45, 0.3)
    _, cls, row = n("Split", chosen, outputs=3, axis=1)
    flat = n(
        "Add", n("Mul", n("Squeeze", cls, axes=[1]), n.const(np.int64(160))), n("Squeeze", row, axes=[1])
    )
    found = n("Gather", n("Reshape", score, n.ints(-1)), flat, axis=0)
    top = n(
        "TopK",
        found,
        n(
            "Reshape",
            n(
                "Cast",
                n(
                    "ReduceMin",
                    n("Concat", n("Cast", n("Shape", found), to=6), n.const(np.array([5], np.int32)), axis=0),
                    axes=[0],
                ),
                to=7,
            ),
            n.ints(1),
        ),
        outputs=2,
        axis=0,
    )
    boxes = n(
        "Gather",
        n("Squeeze", box, axes=[0]),
        n("Gather", n("Squeeze", row, axes=[1]), top[1], axis=0),
        axis=0,
    )
    labels = n("Add", n("Gather", n("Squeeze", cls, axes=[1]), top[1], axis=0), n.const(np.int64(1)))
    return n.model(boxes, labels, top[0]), n.values


def faster_rcnn(seed: int) -> Built:
    """A region proposal network as torchvision exports it: anchors, TopK, clipped boxes, NonZero of some,
    NMS, RoiAlign of a level each by NonZero and Scatter, and a box head."""
    n = Net(seed, 11)
    x = n.input("image", n.rng.random((1, 3, 64, 64)).astype(F))
    p2 = n.conv(n.conv(x, 3, 8, s=2), 8, 8, s=2)
    p3 = n.conv(p2, 8, 8, s=2)
    rois, scores = [], []
    for f, grid, step in ((p2, 16, 4), (p3, 8, 8)):
        obj, delta = n.conv(f, 8, 3, 1, act=None), n.conv(f, 8, 12, 1, act=None)
        obj = n("Reshape", n("Transpose", obj, perm=[0, 2, 3, 1]), n.ints(-1))
        delta = n(
            "Reshape",
            n("Transpose", n("Reshape", delta, n.ints(1, 3, 4, grid, grid)), perm=[0, 3, 4, 1, 2]),
            n.ints(-1, 4),
        )
        centre = np.stack(np.meshgrid(np.arange(grid), np.arange(grid)), -1).reshape(-1, 1, 2) * step
        base = np.array([[-8, -8, 8, 8], [-12, -6, 12, 6], [-6, -12, 6, 12]], F) * (step / 4)
        anchors = (np.concatenate([centre, centre], 2) + base).reshape(-1, 4).astype(F)
        top, where = n("TopK", n("Sigmoid", obj), n.ints(30), outputs=2, axis=0)
        delta, anchor = n("Gather", delta, where, axis=0), n("Gather", n.const(anchors), where, axis=0)
        x1, y1, x2, y2 = n("Split", anchor, outputs=4, axis=1)
        dx, dy, dw, dh = n("Split", delta, outputs=4, axis=1)
        w, h = n("Sub", x2, x1), n("Sub", y2, y1)
        cx = n("Add", n("Mul", dx, w), n("Add", x1, n("Mul", w, 0.5)))
        cy = n("Add", n("Mul", dy, h), n("Add", y1, n("Mul", h, 0.5)))
        w, h = (
            n("Mul", n("Exp", n("Clip", dw, None, 4.135)), w),
            n("Mul", n("Exp", n("Clip", dh, None, 4.135)), h),
        )
        box = n(
            "Concat",
            n("Sub", cx, n("Mul", w, 0.5)),
            n("Sub", cy, n("Mul", h, 0.5)),
            n("Add", cx, n("Mul", w, 0.5)),
            n("Add", cy, n("Mul", h, 0.5)),
            axis=1,
        )
        rois.append(n("Clip", box, 0.0, 64.0))
        scores.append(top)
    box, score = n("Concat", *rois, axis=0), n("Concat", *scores, axis=0)
    x1, y1, x2, y2 = n("Split", box, outputs=4, axis=1)
    big = n("And", n("Not", n("Less", n("Sub", x2, x1), 2.0)), n("Not", n("Less", n("Sub", y2, y1), 2.0)))
    keep = n("Squeeze", n("Transpose", n("NonZero", n("Squeeze", big, axes=[1])), perm=[1, 0]), axes=[1])
    box, score = n("Gather", box, keep, axis=0), n("Gather", score, keep, axis=0)
    chosen = n(
        "NonMaxSuppression",
        n("Unsqueeze", box, axes=[0]),
        n("Unsqueeze", n("Unsqueeze", score, axes=[0]), axes=[0]),
        n.ints(12),
        0.7,
    )
    row = n("Squeeze", n("Slice", chosen, n.ints(2), n.ints(3), n.ints(1)), axes=[1])
    box = n("Gather", box, row, axis=0)
    x1, y1, x2, y2 = n("Split", box, outputs=4, axis=1)
    area = n("Squeeze", n("Mul", n("Sub", x2, x1), n("Sub", y2, y1)), axes=[1])
    level = n(
        "Cast",
        n("Clip", n("Floor", n("Add", n("Log", n("Add", n("Sqrt", area), 1e-6)), -2.5)), 0.0, 1.0),
        to=TensorProto.INT64,
    )
    shape = n("Concat", n("Shape", row), n.ints(8, 3, 3), axis=0)
    pooled = n("ConstantOfShape", shape, value=helper.make_tensor("v", TensorProto.FLOAT, [1], [0.0]))
    for i, (f, scale) in enumerate(((p2, 0.25), (p3, 0.125))):
        at = n("Squeeze", n("NonZero", n("Equal", level, n.const(np.int64(i)))), axes=[0])
        part = n("Gather", box, at, axis=0)
        zeros = n(
            "Squeeze",
            n("Cast", n("Mul", n("Slice", part, n.ints(0), n.ints(1), n.ints(1)), 0.0), to=TensorProto.INT64),
            axes=[1],
        )
        got = n(
            "RoiAlign", f, part, zeros, output_height=3, output_width=3, sampling_ratio=2, spatial_scale=scale
        )
        spread = n("Expand", n("Reshape", at, n.ints(-1, 1, 1, 1)), n("Shape", got))
        pooled = n("ScatterElements", pooled, spread, got, axis=0)
    flat = n("Flatten", pooled, axis=1)
    head = n("Relu", n("Gemm", flat, n.weight(16, 72), n.weight(16, scale=0.1), transB=1))
    cls = n("Softmax", n("Gemm", head, n.weight(4, 16), n.weight(4, scale=0.1), transB=1), axis=1)
    return n.model(box, cls), n.values


def mask_head(seed: int) -> Built:
    """Masks of chosen classes: a transposed convolution, Gather by pairs, pasting by a Loop over boxes."""
    n = Net(seed, 11)
    x = n.input("features", n.rng.standard_normal((4, 8, 7, 7)).astype(F), ["n", 8, 7, 7])
    labels = n.input("labels", np.array([1, 0, 2, 1]), ["n"])
    boxes = n.input(
        "boxes", np.array([[2, 3, 20, 18], [0, 0, 30, 31], [5, 5, 9, 25], [12, 1, 31, 12]], F), ["n", 4]
    )
    x = n.conv(x, 8, 8)
    up = n(
        "Relu",
        n(
            "ConvTranspose",
            x,
            n.weight(8, 8, 2, 2),
            n.weight(8, scale=0.1),
            kernel_shape=[2, 2],
            strides=[2, 2],
        ),
    )
    masks = n("Sigmoid", n.conv(up, 8, 3, 1, act=None))
    count = n("Shape", labels)
    row = n("Range", n.const(np.int64(0)), n("Squeeze", count, axes=[0]), n.const(np.int64(1)))
    pairs = n("Concat", n("Unsqueeze", row, axes=[1]), n("Unsqueeze", labels, axes=[1]), axis=1)
    chosen = n("GatherND", masks, pairs)
    b = Net(seed, 11, prefix="body_")
    one = b("Gather", chosen, "i", axis=0)
    box = b("Cast", b("Gather", boxes, "i", axis=0), to=TensorProto.INT64)
    x1, y1, x2, y2 = (b("Gather", box, b.const(np.int64(j)), axis=0) for j in range(4))
    w, h = b("Add", b("Sub", x2, x1), b.const(np.int64(1))), b("Add", b("Sub", y2, y1), b.const(np.int64(1)))
    sizes = b("Concat", b.ints(1, 1), b("Unsqueeze", h, axes=[0]), b("Unsqueeze", w, axes=[0]), axis=0)
    big = b(
        "Resize",
        b("Unsqueeze", one, axes=[0, 1]),
        b.const(np.zeros(0, F)),
        b.const(np.zeros(0, F)),
        sizes,
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )
    big = b("Squeeze", big, axes=[0, 1])
    bottom, right = b("Sub", b.const(np.int64(31)), y2), b("Sub", b.const(np.int64(31)), x2)
    pads = b("Concat", *(b("Unsqueeze", v, axes=[0]) for v in (y1, x1, bottom, right)), axis=0)
    pasted = b("Pad", big, pads)
    b.nodes.append(helper.make_node("Identity", ["cond"], ["cond_out"]))
    graph = helper.make_graph(
        b.nodes,
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("cond", TensorProto.BOOL, []),
        ],
        [
            helper.make_tensor_value_info("cond_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info(pasted, TensorProto.FLOAT, [None, None]),
        ],
        b.initializers,
    )
    out = n("Loop", n("Squeeze", count, axes=[0]), None, body=graph)
    return n.model(out), n.values


NETS = {
    f.__name__: f
    for f in (
        yolov3,
        yolov5,
        yolov8,
        ssd,
        faster_rcnn,
        mask_head,
    )
}
