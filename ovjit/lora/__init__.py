"""Low-rank adapters (LoRA) of a Model: tensors of safetensors files, and the products that they add to layers."""
