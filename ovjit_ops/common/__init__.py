"""Shared by the families of operations. It registers nothing and imports no lowering."""
