"""Makes the files of `ovjit/data`: object code, printed sources, tables. It is not in the wheel."""
