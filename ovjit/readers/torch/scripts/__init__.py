"""Graphs of TorchScript -> Model: values, writes to memory, and inputs that are typed later."""
