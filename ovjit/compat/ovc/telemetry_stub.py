"""Telemetry that sends nothing."""

from __future__ import annotations

from typing import Any


class Telemetry:
    """Takes what programs tell it, and forgets it: ovjit sends nothing anywhere."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def _forget(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    start_session = end_session = force_shutdown = _forget
    send_event = send_error = send_stack_trace = _forget
