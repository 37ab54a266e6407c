"""Sparse algebra: resident matrices, operations on them, solvers, and their files."""
