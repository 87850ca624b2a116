"""What all tests start from."""

from __future__ import annotations

import os
import signal

# A shell's background jobs ignore Ctrl-C, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What a test compares with NumPy it compares in f32, on CPUs that would compute in bf16 too. Low precision is
# asked for by name; the default itself is in tests/test_default_precision.py.
os.environ.setdefault("OVJIT_PRECISION", "f32")
