"""Linear programs: the model, its files, first-order and exact solvers."""
