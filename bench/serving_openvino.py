"""The real OpenVINO in the runtime for MLServer, so that the server around it is the same."""

from __future__ import annotations

from typing import Any

import openvino

from ovjit.integrations.mlserver import OvjitRuntime


class OpenVINORuntime(OvjitRuntime):
    """`OvjitRuntime` on `openvino`."""

    engine: Any = openvino
    platform = "openvino"
