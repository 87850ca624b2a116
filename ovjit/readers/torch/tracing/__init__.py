"""Plain traces and exports of modules, their state and threads, and warnings of values of the example."""
