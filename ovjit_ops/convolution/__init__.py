"""Convolutions: direct, grouped, depthwise, transposed, by Winograd."""
