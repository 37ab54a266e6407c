"""Python client of the nnz sparse compute service."""
