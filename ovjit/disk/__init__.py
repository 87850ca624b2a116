"""Files of native code, and this user's key to them. Nothing here knows of graphs or models.

Native code that was on a disk runs only when this user's key authenticates it. Nothing here makes a
compilation fail: what cannot be read is compiled, what cannot be written is said once and forgotten.

    folders.py       folders that only this user may write to
    keys.py          this user's key
    sealed.py        bytes under a message authentication code (HMAC-SHA256)
    store.py         what is kept: a table of namespaces, reading and writing, listing, eviction
    cache.py         the kernel cache: its folder, and who compiles what
    notice.py        what is said once
"""
