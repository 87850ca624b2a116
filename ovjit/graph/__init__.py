"""The immutable graph, its element types, its operations and its NumPy interpreter."""
