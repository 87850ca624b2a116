"""Objects of TensorFlow and Paddle in memory, found without importing either."""

from __future__ import annotations

from typing import Any

#: Classes of the objects that models are, by their packages.
_TENSORFLOW = ("keras.Model", "keras.Layer", "tensorflow.Function", "tensorflow.ConcreteFunction",
               "tensorflow.Module", "tensorflow.Graph", "tensorflow.GraphDef",
               "tensorflow.AutoTrackable", "tensorflow.BaseSession", "tensorflow.Checkpoint")  # fmt: skip
_PADDLE = ("paddle.Layer", "paddle.Model", "paddle.Executor", "paddle.Program")


def is_tensorflow(value: Any) -> bool:
    """Whether an object is a Keras model, or a module, function or graph of TensorFlow's."""
    return _is_one_of(value, _TENSORFLOW)


def is_paddle(value: Any) -> bool:
    """Whether an object is a model of Paddle's."""
    return _is_one_of(value, _PADDLE)


def _is_one_of(value: Any, classes: tuple[str, ...]) -> bool:
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(value).__mro__}
    return not names.isdisjoint(classes)
