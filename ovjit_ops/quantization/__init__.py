"""Quantization: integers with a scale and a zero point."""
