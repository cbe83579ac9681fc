# Two commands: `make demo` runs the example end to end, `make test` passes the tests. Both set up .venv by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint types check bench clean

demo: $(STAMP)
	cd examples/phrase-tone && PATH="$(CURDIR)/$(BIN):$$PATH" ./demo.sh

test: $(STAMP)
	$(BIN)/python -m pytest -q -n logical --maxprocesses 4 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check src tests examples benchmarks
	$(BIN)/ruff format --check src tests examples benchmarks

types: $(STAMP)
	$(BIN)/mypy

check: lint types test

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Olivine needs Python 3.11 or later; give it as PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache examples/*/base-model examples/*/models examples/*/cache
