"""Statistics of a row or channel, and the row divided by them."""
