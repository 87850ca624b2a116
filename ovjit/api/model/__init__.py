"""What users build and edit: nodes, ports, models, builders, variables."""
