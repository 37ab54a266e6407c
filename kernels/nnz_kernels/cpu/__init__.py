"""The CPU back-end: numba kernels for every core.

Importing it imports numba. Compiled code is kept in NUMBA_CACHE_DIR, or else in the
user's cache folder; set it with `nnz_kernels.backends.use_cache` before that.
"""
