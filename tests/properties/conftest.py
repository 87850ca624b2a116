"""Examples of hypothesis: the same ones every time, so that a run of the suite can be repeated.

OVJIT_EXAMPLES=1000 tries so many of each, other ones every time; a failure prints how to repeat it.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

_asked = os.environ.get("OVJIT_EXAMPLES")
settings.register_profile(
    "ovjit", deadline=None, database=None, print_blob=True, derandomize=_asked is None,
    max_examples=int(_asked or 60), suppress_health_check=list(HealthCheck),
)  # fmt: skip
settings.load_profile("ovjit")

# Examples also take numbers and words from the sources of the modules that are loaded. They would then depend
# on the tests that ran before, and each process would read 600 files for them, which takes 5 s.
if _asked is None:
    providers.is_local_module_file = lambda path: False  # type: ignore[assignment]
