# Everything a developer or a new user runs. `make demo` and `make test` need nothing else.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PY := .venv/bin/python
# A sparse layer that differs from the dense one is an error, not a warning.
export NNZ_STRICT ?= 1
# Tests start hundreds of processes: what Python compiled once is kept.
unexport PYTHONDONTWRITEBYTECODE

# Tests wait for servers and sockets half of their time: some more of them than there are
# cores, few enough for one disk. Slow ones wait less.
CORES := $(shell nproc)
JOBS := --numprocesses=$(shell echo $$(($(CORES) < 3 ? $(CORES) + 2 : 4))) --dist=worksteal
# Collecting the other files would take every process half a minute.
SLOW := $(shell grep -rl --include='test_*.py' 'mark\.slow' tests)
SLOW_JOBS := --numprocesses=$(shell echo $$(($(CORES) < 4 ? $(CORES) + 1 : 4))) --dist=worksteal

.PHONY: install demo test test-slow soak check lint type layers size format bench warm proto clean
.DEFAULT_GOAL := help
help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 14

install: .venv/.installed  ## make .venv with the server, the SDK and the development tools
.venv/.installed: pyproject.toml clients/python/pyproject.toml deploy/constraints.txt
	@test -n "$(PYTHON)" || { echo "nnz needs Python 3.11 or newer, found none (set PYTHON=...)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --no-compile \
	  --constraint deploy/constraints.txt --editable clients/python --editable '.[dev]'
	$(PY) -m compileall -q -j 0 .venv/lib # with every core; pip would use one
	@touch .venv/.installed

demo: install  ## serve a pruned network and a sparse matrix, use both, print what came out
	$(PY) deploy/demo/demo.py

test: warm  ## everything that needs nothing special
	$(PY) -m pytest $(JOBS)

test-slow: warm  ## real processes, whole models, fuzzing
	$(PY) -m pytest -m slow $(SLOW_JOBS) $(SLOW)

soak: install  ## each fault for ten minutes, more cases for the fuzzers
	NNZ_SOAK_SECONDS=600 NNZ_SOAK_CASES=100000 $(PY) -m pytest -m slow -s tests/soak tests/service/test_job_faults.py tests/service/web/test_described.py

check: lint type layers size  ## style, types, import layers, file sizes

lint: install
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

type: install
	$(PY) -m mypy --no-incremental

layers: install
	.venv/bin/lint-imports --no-cache

size: install
	$(PY) deploy/checks/sizes.py

format: install  ## let ruff put the code in order
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: install  ## measure what constants in the kernels were chosen by
	$(PY) -m pytest -m benchmark -s tests/benchmarks

warm: install  ## compile every CPU kernel now rather than at first use
	.venv/bin/nnz warm

# Of dev, so that its version is the one of deploy/constraints.txt; a test compares.
PROTOCOL := service/nnz_service/grpc/protocol
proto: install  ## write the messages of gRPC again, from the published definitions
	$(PY) -m grpc_tools.protoc -I$(PROTOCOL) --pyi_out=$(PROTOCOL) --include_imports \
	  --descriptor_set_out=$(PROTOCOL)/descriptors.binpb grpc_service.proto
	mv $(PROTOCOL)/grpc_service_pb2.pyi $(PROTOCOL)/messages.pyi

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis nnz-home
