"""Examples of hypothesis: the same ones every time, so that a run of the suite can be repeated.

OVJIT_EXAMPLES=1000 tries so many of each, other ones every time; a failure prints how to repeat it.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_asked = os.environ.get("OVJIT_EXAMPLES")
settings.register_profile(
    "ovjit", deadline=None, database=None, print_blob=True, derandomize=_asked is None,
    max_examples=int(_asked or 60), suppress_health_check=list(HealthCheck),
)  # fmt: skip
settings.load_profile("ovjit")
