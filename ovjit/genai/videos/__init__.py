"""Videos from texts."""
