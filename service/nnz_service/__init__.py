"""The nnz service: engine, sparse algebra, workers, jobs, web and command line."""

__version__ = "0.1.0"
