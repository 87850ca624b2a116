"""Plain traces and exports of modules, their state and threads, and warnings of what the example fixes."""
