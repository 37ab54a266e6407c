"""The CUDA back-end: kernels in ``src``, and what packs, checks and launches them.

Nothing here imports CuPy but `cupy_launcher`; what runs a kernel is a `Launcher`, and
tests have one that needs no GPU.
"""
