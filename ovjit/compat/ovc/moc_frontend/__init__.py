"""Shapes and types as conversions take them."""
