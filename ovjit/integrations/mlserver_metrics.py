"""Metrics of the runtime for MLServer. They have their own module: MLServer imports the runtime's module
again for each model, but a metric can be registered only once.
"""

from prometheus_client import Histogram

_LABELS = ["model", "version"]
_SECONDS = tuple(m * 10.0**e for e in range(-5, 1) for m in (1, 2, 5)) + (10.0, float("inf"))

#: Seconds that a request waited for a free thread.
WAITED = Histogram("ovjit_waited_seconds", "Waiting for a free thread", _LABELS, buckets=_SECONDS)
#: Seconds of an inference in its job, the copies of its outputs included.
INFERENCE = Histogram("ovjit_inference_seconds", "An inference in its job", _LABELS, buckets=_SECONDS)
