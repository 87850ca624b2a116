"""What ovjit keeps on disk: this user's key, compiled kernels, and whole compiled models.

Native code that was on a disk runs only when this user's key authenticates it, and everything else is
data that is checked before use. Nothing here is unpickled, and nothing here makes a compilation fail:
what cannot be read is compiled, what cannot be written is said once and forgotten.

    folders.py   folders that nobody but this user may write to
    keys.py      this user's key
    sealed.py    bytes under a message authentication code (HMAC-SHA256)
    cache.py     the kernel cache, one sealed file per kernel
    cli.py       `python -m ovjit cache`
"""
