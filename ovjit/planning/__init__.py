"""From groups of nodes to a plan: where tensors lie, what steps there are, and plans for other shapes."""
