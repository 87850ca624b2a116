"""TensorFlow Lite's files -> Model. Operators are read by the rows of the families, see `registry`."""
