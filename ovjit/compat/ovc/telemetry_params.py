"""Parameters of telemetry: an empty ID, as nothing is sent."""

telemetry_params = {"TID": ""}
