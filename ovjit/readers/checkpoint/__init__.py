"""Folders that transformers writes: config.json and safetensors, read as decoders with state."""
