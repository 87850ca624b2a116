"""One step of a recurrent layer, defined once for arrays and for traced kernels, and the loop over steps.

Gates are computed from given sums: `xp` is x W^T + B, `hp` is h R^T (for a GRU with `linear_before_reset`,
with its own bias). F, G, H are the activations; each sum is clipped first.

    LSTM   f, i, o = F(sums of the gate)   c = G(...)   C' = f C + i c      h' = o H(C')
    GRU    z, r = F(...)   n = G(xn + (r h) R^T)   or, linear_before_reset, G(xn + r (h R^T + b))
           h' = (1 - z) n + z h            AUGRU: z is first multiplied by 1 - a
    RNN    h' = F(...)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ovjit.codegen import trace as t
from ovjit.errors import InferenceError, check
from ovjit.records import NamedTuple

#: name -> (f(x, alpha, beta), default alpha, default beta). OpenVINO supports the first four.
ACTIVATIONS: dict[str, tuple[Callable[[Any, float, float], Any], float, float]] = {
    "sigmoid": (lambda x, a, b: t.over_logistic(1, x), 0, 0),
    "tanh": (lambda x, a, b: t.tanh(x), 0, 0),
    "relu": (lambda x, a, b: t.maximum(x, 0), 0, 0),
    "hardsigmoid": (lambda x, a, b: t.minimum(t.maximum(x * a + b, 0), 1), 0.2, 0.5),
    "affine": (lambda x, a, b: x * a + b, 1, 0),
    "leakyrelu": (lambda x, a, b: t.where(x < 0, x * a, x), 0.01, 0),
    "thresholdedrelu": (lambda x, a, b: t.where(x > a, x, x * 0), 1, 0),
    "scaledtanh": (lambda x, a, b: t.tanh(x * b) * a, 1, 1),
    "elu": (lambda x, a, b: t.where(x < 0, (t.exp(t.minimum(x, 0)) - 1) * a, x), 1, 0),
    "softsign": (lambda x, a, b: x / (1 + t.absolute(x)), 0, 0),
    "softplus": (lambda x, a, b: t.maximum(x, 0) + t.log1p_up_to_one(t.exp(-t.absolute(x))), 0, 0),
}


class Kind(NamedTuple):
    """A kind of layer: number of gates, number of states (h, then C), default activations."""

    gates: int
    states: int
    activations: tuple[str, ...]


KINDS = {
    "LSTM": Kind(4, 2, ("sigmoid", "tanh", "tanh")),
    "GRU": Kind(3, 1, ("sigmoid", "tanh")),
    "AUGRU": Kind(3, 1, ("sigmoid", "tanh")),
    "RNN": Kind(1, 1, ("tanh",)),
}


DIRECTIONS = ("forward", "reverse", "bidirectional")
#: Orders of the gates in the weights of LSTMCell-1.
FORMATS = ("fico", "icof", "ifco", "ifoc", "iofc")


def directions(direction: str) -> tuple[bool, ...]:
    """For each direction, whether it is reverse."""
    return {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[direction]


def gate_rows(weights: np.ndarray, order: str) -> np.ndarray:
    """Weights or bias of an LSTM, with the gates along the first axis reordered from `order` to f, i, c,
    o."""
    if order == "fico":
        return weights
    parts = np.split(weights, 4)
    return np.concatenate([parts[order.index(gate)] for gate in "fico"])


def split_bias(
    bias: np.ndarray, kind: str, linear_before_reset: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """(bias of the input product, with `linear_before_reset` the bias inside the reset gate's product, else
    None)."""
    if not linear_before_reset:
        return bias, None
    size = bias.shape[-1] // (KINDS[kind].gates + 1)
    return bias[..., :-size], bias[..., -size:]


class Step(NamedTuple):
    """The attributes of a layer, resolved, and the computation of one step."""

    kind: str
    activations: tuple[str, ...]
    alpha: tuple[float, ...]
    beta: tuple[float, ...]
    clip: float
    linear_before_reset: bool
    input_forget: bool

    def act(self, index: int, x: Any) -> Any:
        """Activation `index` of x."""
        function, alpha, beta = ACTIVATIONS[self.activations[index]]
        alpha = self.alpha[index] if index < len(self.alpha) else alpha
        beta = self.beta[index] if index < len(self.beta) else beta
        return function(x, alpha, beta)

    def clip_sum(self, x: Any) -> Any:
        """x limited to [-clip, clip], if the layer clips."""
        return t.minimum(t.maximum(x, -self.clip), self.clip) if self.clip > 0 else x

    def gate(self, index: int, x: Any) -> Any:
        """Activation `index` of the clipped sum x."""
        return self.act(index, self.clip_sum(x))

    def gate_by(self, sums: Any, index: int, x: Any) -> Any:
        """The product of the first gate's activation and activation `index` of x."""
        if self.activations[0] == "sigmoid" and self.activations[index] == "tanh":
            return t.logistic_by_tanh(self.clip_sum(sums), x)
        return self.gate(0, sums) * self.act(index, x)

    def lstm(self, f: Any, i: Any, c: Any, o: Any, old: Any, peep: Sequence[Any] = ()) -> tuple[Any, Any]:
        """(h', C') from the sums of the gates and the cell's state. `peep`: the peephole weights of f, i and
        o."""
        if peep:
            f, i = f + peep[0] * old, i + peep[1] * old
        forget = self.gate(0, f)
        update = (1 - forget) * self.gate(1, c) if self.input_forget else self.gate_by(i, 1, self.clip_sum(c))
        new = forget * old + update
        if peep:
            o = o + peep[2] * new
        return self.gate_by(o, 2, new), new

    def mix(self, z: Any, n: Any, h: Any, a: Any = None) -> Any:
        """The new state of a GRU from its activated gates z and n, its old state h, and the attention a of
        AUGRU."""
        if a is not None:
            z = (1 - a) * z
        return (1 - z) * n + z * h


def make_step(kind: str, attrs: Any) -> Step:
    """The step for a layer's attributes. Raises ModelError for too few activations or a negative clip."""
    names = tuple(str(n).strip().lower() for n in attrs["activations"]) or KINDS[kind].activations
    need = len(KINDS[kind].activations)
    check(len(names) >= need, f"{kind} needs {need} activations, not {len(names)}")
    clip = float(attrs["clip"])
    check(clip >= 0, f"clip {clip} should not be negative")
    return Step(
        kind, names, tuple(attrs["activations_alpha"]), tuple(attrs["activations_beta"]), clip,
        bool(attrs.get("linear_before_reset", False)), bool(attrs.get("input_forget", False)),
    )  # fmt: skip


def check_lengths(lengths: np.ndarray, steps: int, directions: Iterable[bool]) -> np.ndarray:
    """Lengths of sequences as i64; negative ones become 0. `directions`: for each, whether it is reverse.

    Raises InferenceError for reverse layers with lengths outside 0 ... `steps`, as in OpenVINO.
    """
    ints = np.asarray(lengths).reshape(-1).astype(np.int64)
    if any(directions) and ints.size and (ints.min() < 0 or ints.max() > steps):
        raise InferenceError(f"sequence lengths should be in [0, {steps}], not {ints.min()} .. {ints.max()}")
    return np.maximum(ints, 0)


def _product(h: np.ndarray, r: np.ndarray) -> np.ndarray:
    """h R^T; h is rounded to the type of R if that has 16 bits."""
    return (h.astype(r.dtype).astype(h.dtype) if r.itemsize == 2 else h) @ r.astype(h.dtype).T


def run_step(
    step: Step, xp: np.ndarray, h: np.ndarray, c: np.ndarray | None, r: np.ndarray,
    rb: np.ndarray | None = None, a: np.ndarray | None = None, peep: Sequence[np.ndarray] = (),
) -> tuple[np.ndarray, np.ndarray | None]:  # fmt: skip
    """One step for a batch: xp [B, gates H], states [B, H], r [gates H, H] -> (new h, new C or None)."""
    if step.kind == "RNN":
        return step.gate(0, xp + _product(h, r)), None
    if step.kind == "LSTM":
        f, i, n, o = np.split(xp + _product(h, r), 4, 1)
        return step.lstm(f, i, n, o, c, peep)
    size = h.shape[1]
    z, reset = (step.gate(0, s) for s in np.split(xp[:, : 2 * size] + _product(h, r[: 2 * size]), 2, 1))
    if step.linear_before_reset:
        past = _product(h, r[2 * size :]) + (0 if rb is None else rb)
        n = step.gate(1, xp[:, 2 * size :] + reset * past)
    else:
        n = step.gate(1, xp[:, 2 * size :] + _product(reset * h, r[2 * size :]))
    return step.mix(z, n, h, a), None


def run_steps(
    step: Step, xp: np.ndarray, h: np.ndarray, c: np.ndarray | None, lengths: np.ndarray, reverse: bool,
    r: np.ndarray, rb: np.ndarray | None = None, a: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:  # fmt: skip
    """All steps in one direction: xp [B, T, gates H] -> (all h [B, T, H], last h, last C or None).

    Each sequence has `lengths` steps; `reverse` starts at the last of them. Outputs beyond the length are 0.
    As in OpenVINO, the last states of a sequence are 0 if its length is 0 or exceeds T.
    """
    batch, steps = xp.shape[:2]
    y = np.zeros((batch, steps, h.shape[1]), xp.dtype)
    h, c = h.copy(), None if c is None else c.copy()
    h[lengths == 0] = 0
    if c is not None:
        c[lengths == 0] = 0
    for n in range(steps):
        rows = np.flatnonzero(lengths > n)
        at = lengths[rows] - 1 - n if reverse else np.full(len(rows), n)
        attention = None if a is None else a[rows, at]
        new, cell = run_step(
            step, xp[rows, at], h[rows], None if c is None else c[rows], r, rb, attention
        )  # fmt: skip
        h[rows] = y[rows, at] = new
        if c is not None and cell is not None:
            c[rows] = cell
    h[lengths > steps] = 0
    if c is not None:
        c[lengths > steps] = 0
    return y, h, c


def run_directions(
    step: Step, xps: Sequence[np.ndarray], h: np.ndarray, c: np.ndarray | None, lengths: np.ndarray,
    backwards: Sequence[bool], r: np.ndarray, rbs: Sequence[np.ndarray | None], a: np.ndarray | None = None,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """`run_steps` of each direction: all h [B, D, T, H], last h and last C [B, D, H], if there are any."""
    results = [
        run_steps(step, xps[d], h[:, d], None if c is None else c[:, d], lengths, reverse, r[d], rbs[d], a)
        for d, reverse in enumerate(backwards)
    ]
    return tuple(np.stack(parts, 1) for parts in zip(*results, strict=True) if parts[0] is not None)
