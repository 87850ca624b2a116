"""From a graph to a program: which rewrites in which order, what may be done, and who plans it."""
