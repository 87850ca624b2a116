"""The operations: one class or row per operation, with its meaning and its native form, in folders by family.

Every module of a family is discovered. Modules are imported when a program uses one of their operations
(`ovjit.graph.op_index`), or all of them (`everything.py`). Modules with native forms (`cpu_*.py`) are
imported by the records that need them. `common` registers nothing. No module here imports Numba.
"""
