"""Low-rank adapters (LoRA) of a Model: tensors of files, and the products that they add to layers."""
