"""Operators of Paddle's that paddle2onnx writes wrongly or refuses, by others of Paddle's.

The process that converts models imports this package by its name. It imports nothing of ovjit.
"""
