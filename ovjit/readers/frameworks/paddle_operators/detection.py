"""Operators of Paddle for detection: boxes and their suppression."""

from __future__ import annotations

from .parts import *


def _corners(boxes: Any, more: float, axis: int) -> tuple[Any, Any, Any, Any]:
    """Convert boxes from corners to centres and sizes. `more` is added to the sizes."""
    x_begin, y_begin, x_end, y_end = (paddle.slice(boxes, [-1], [i], [i + 1]) for i in range(4))
    width, height = x_end - x_begin + more, y_end - y_begin + more
    result = (x_begin + width / 2, y_begin + height / 2, width, height)
    return result if len(boxes.shape) > 2 else tuple(paddle.unsqueeze(part, axis) for part in result)


def _box_coder(op: Any) -> Any:
    boxes, variances, targets = op.operands_source()
    attrs = op.attrs()
    more = 0.0 if attrs["box_normalized"] else 1.0
    encode, axis = "encode" in attrs["code_type"], attrs["axis"]
    x, y, width, height = _corners(boxes, more, 0 if encode else axis)
    if variances.initialized():
        box_variances = (
            variances if len(variances.shape) < 2 else paddle.unsqueeze(variances, 0 if encode else axis)
        )
        scales = [paddle.slice(box_variances, [-1], [i], [i + 1]) for i in range(4)]
    else:
        scales = list(attrs["variance"] or [1.0] * 4)
    if encode:
        x_target, y_target, width_target, height_target = _corners(targets, more, 1)
        result = [
            (x_target - x) / width,
            (y_target - y) / height,
            paddle.log(width_target / width),
            paddle.log(height_target / height),
        ]
        return paddle.concat([part / scale for part, scale in zip(result, scales, strict=True)], axis=-1)
    parts = [paddle.slice(targets, [2], [i], [i + 1]) * scales[i] for i in range(4)]
    x, y = parts[0] * width + x, parts[1] * height + y
    width, height = paddle.exp(parts[2]) * width / 2, paddle.exp(parts[3]) * height / 2
    return paddle.concat([x - width, y - height, x + width - more, y + height - more], axis=-1)


def _prior_box(op: Any) -> Any:
    """Prior boxes around the centre of each pixel; their sizes are constants."""
    attrs, (x, image) = op.attrs(), op.operands_source()
    (rows, columns), (height, width) = x.shape[2:], image.shape[2:]
    if min(rows, columns, height, width) < 1:
        return None
    ratios = [1.0]
    for ratio in attrs["aspect_ratios"]:
        if all(abs(ratio - other) >= 1e-6 for other in ratios):
            ratios += [ratio, 1 / ratio] if attrs["flip"] else [ratio]
    sizes = []
    for i, least in enumerate(attrs["min_sizes"]):
        ratio_sizes = [(least * math.sqrt(ratio), least / math.sqrt(ratio)) for ratio in ratios]
        between = [(math.sqrt(least * most),) * 2 for most in attrs["max_sizes"][i : i + 1]]
        sizes += (
            [ratio_sizes[0], *between, *ratio_sizes[1:]]
            if attrs["min_max_aspect_ratios_order"]
            else [*ratio_sizes, *between]
        )
    steps = attrs["step_w"] or width / columns, attrs["step_h"] or height / rows
    centers = np.meshgrid(
        *((np.arange(n) + attrs["offset"]) * s for n, s in zip((columns, rows), steps, strict=True))
    )
    middle = np.stack(centers, -1)[:, :, None]
    half = np.array(sizes) / 2
    boxes = np.concatenate([middle - half, middle + half], -1) / ([width, height] * 2)
    boxes = np.clip(boxes, 0, 1) if attrs["clip"] else boxes
    result = boxes.astype(np.float32), np.broadcast_to(np.float32(attrs["variances"]), boxes.shape).copy()
    return [paddle.assign(value) for value in result]


RULES: dict[str, Rule] = {
    "box_coder": _box_coder,
    "prior_box": _prior_box,
}
