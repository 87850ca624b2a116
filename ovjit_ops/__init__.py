"""The operations: one class or call per operation, with its definition and its lowering, in a folder per
family.

All modules of a family are discovered. They are imported when a program uses one of their operations
(`ovjit.graph.op_index`), or all at once (`everything.py`). Modules with lowerings (`cpu_*.py`) are imported
by the records that need them. `common` registers nothing. No module here imports Numba.
"""
