"""From a graph to a program: passes, fusion, layouts, lowering and memory planning."""
