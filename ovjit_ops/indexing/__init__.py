"""Elements chosen or replaced by indices, sums along an axis, the largest k."""
