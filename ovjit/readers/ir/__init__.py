"""OpenVINO IR: xml and weights to a Model, and back."""
