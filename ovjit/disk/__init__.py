"""Files of native code, and this user's key to them. This package does not depend on graphs or models.

Native code from a file runs only if this user's key authenticates it. No fault of a file makes a compilation
fail: an unreadable file means a compilation, a failed write one warning.

    folders.py       folders that only this user may write to
    keys.py          this user's key
    sealed.py        bytes under a message authentication code (HMAC-SHA256)
    store.py         the table of namespaces; reading and writing, listing, eviction
    kernel_cache.py  the kernel cache: its folder, and claims of kernels that are being compiled
    notice.py        warnings that are logged once
"""
