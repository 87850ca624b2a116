"""Many elements to one, over axes."""
