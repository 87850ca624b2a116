"""The same elements in another place, order or number."""
