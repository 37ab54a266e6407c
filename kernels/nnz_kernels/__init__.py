"""Sparse kernels: the same ops on every back-end; arrays in, arrays out."""
