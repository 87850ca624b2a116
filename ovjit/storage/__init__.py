"""Whole compiled models on disk, in files as `ovjit.disk` makes them.

Native code that was on a disk runs only when this user's key authenticates it, and everything else is
data that is checked before use. Nothing here is unpickled, and nothing here makes a compilation fail:
what cannot be read is compiled, what cannot be written is said once and forgotten.

    container.py     the outer form of a blob: sections, checksums, authentication
    graph_format.py  graphs as tables
    program.py       compiled programs as tables, words and object code
    blob.py          compiled models as blobs
    encryption.py    blobs that the user's own functions encrypt
    model_cache.py   CACHE_DIR, one blob for every compilation
    kept_models.py   what is kept unasked, beside the kernels, of models in files
    kept_memory.py   constant memory in the file that a kept model will be
    plans.py         plans for open shapes, beside the blob of their model
    panels.py        weights stored once, as the kernels want them
    by_file.py       programs whose weights stay in the model's file
    file_models.py   which of them came of a file, so that it need not be read
    origins.py       files whose weights need no hashing again
"""
