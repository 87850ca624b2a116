"""Pooling over spatial windows."""
