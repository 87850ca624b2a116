"""Classes that users build and edit models with: nodes, ports, models, builders, variables."""
