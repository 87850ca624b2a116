"""The operations: what each one is and how it runs, one class or row per operation, in folders by family.

Every module of a family is found by itself. Modules are imported when a program asks for one of their
operations (`ovjit.graph.op_index`), or all of them (`everything.py`), but for those that only say how
something runs (`cpu_*.py`), which records import when they need them, and `common`, which registers nothing.
Nothing here imports Numba.
"""
