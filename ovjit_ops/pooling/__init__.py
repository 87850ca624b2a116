"""Windows over space, reduced."""
