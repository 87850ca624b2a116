"""Where telemetry goes to: nowhere."""

telemetry_params = {"TID": ""}
