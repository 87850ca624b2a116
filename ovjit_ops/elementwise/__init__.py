"""One element out for one element of each input."""
