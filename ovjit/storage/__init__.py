"""Whole compiled models on disk, in files as `ovjit.disk` makes them.

Native code from a file runs only if this user's key authenticates it. Everything else is data, which is
checked before use. Nothing is unpickled. No fault of a file makes a compilation fail: an unreadable file
means a compilation, a failed write one warning.

    container.py       the outer form of a blob: sections, checksums, authentication
    graph_format.py    graphs as tables
    stored_program.py  compiled programs as tables, int64 arguments and object code
    blob.py            compiled models as blobs
    encryption.py      blobs that the user's own functions encrypt
    model_cache.py     CACHE_DIR, one blob for every compilation
    kept_models.py     compiled models of files, kept automatically beside the kernels
    late_writes.py     writes that wait for a model's first inference
    kept_memory.py     constant memory in the file of a future cached model
    plans.py           plans for dynamic shapes, beside the blob of their model
    tags.py            authentication of large sections at memory speed
    panels.py          weights that are stored once, in the kernels' order
    by_file.py         programs whose weights stay in the model's file
    file_models.py     model file -> cached model, so that the file need not be read
    origins.py         digests of weights' files, so that they need not be hashed again
"""
