"""Readers and writers of model files: from a file to a `Model` and back."""
