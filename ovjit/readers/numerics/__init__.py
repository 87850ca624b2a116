"""Functions that several readers need and OpenVINO has no operations for, as graphs of its operations."""
