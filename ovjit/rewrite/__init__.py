"""Graph -> Graph: simplification, expansion, variables, precision and quantization."""
