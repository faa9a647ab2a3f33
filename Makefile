# `make train` and `make test` require only Python 3.11+ and a package registry.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Idle OpenMP threads that spin can slow a shared machine down tenfold.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help install train test test-all lint docs notebooks clean

help:
	@echo "make train     install, then train and test a Titans forecaster on simulated data (a minute or two of one CPU core)"
	@echo "make test      install, then run the tests"
	@echo "make test-all  the slow tests too"
	@echo "make lint      ruff and mypy"
	@echo "make docs      build the documentation site into site/"
	@echo "make notebooks run the notebooks' sources and keep the executed copies beside them (some minutes)"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

train: $(STAMP)
	$(BIN)/titans-seq fit configs/forecasting/synthetic.yaml

# Two processes of one thread each; a file's tests share their fixtures, so a file stays in one process.
test: export OMP_NUM_THREADS = 1
test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile

test-all: export OMP_NUM_THREADS = 1
test-all: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Warnings (broken links, pages missing in the menu) are errors. Only the search of the built site needs a server.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "built; to read: python3 -m http.server --directory site 8000"

# The executed copies are committed; tests/docs/test_notebooks.py checks that they match their sources.
notebooks: $(STAMP)
	cd notebooks && for source in *.py; do \
		../$(BIN)/jupytext --quiet --set-kernel python3 --to ipynb $$source && \
		PYTHONPATH=$(CURDIR) ../$(BIN)/jupyter-execute --inplace $${source%.py}.ipynb && \
		../$(BIN)/python tools/stamp.py $${source%.py}.ipynb || exit 1; done

clean:
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache
