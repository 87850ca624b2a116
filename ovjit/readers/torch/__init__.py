"""PyTorch: scripts and FX graphs of ATen operators -> Model."""
