"""Graph -> Graph: simplification, expansion, variables."""
