"""Graphs of JAX (jaxprs) -> Model. Primitives are read by the rows of the families, see `registry`."""
