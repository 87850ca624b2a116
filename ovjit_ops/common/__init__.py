"""Arithmetic that families share. It registers nothing and imports no lowering."""
