# Two commands: `make demo` runs the example end to end, `make test` passes the tests. Both set up .venv by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test azurite lint types check bench audit clean

demo: $(STAMP)
	cd examples/phrase-tone && PATH="$(CURDIR)/$(BIN):$$PATH" ./demo.sh

# The tests of Azure store their blobs in Azurite; without npm they are skipped and say so.
AZURITE := .azurite/node_modules/azurite/package.json

test: $(STAMP)
	@if command -v npm > /dev/null; then $(MAKE) --no-print-directory azurite; fi
	$(BIN)/python -m pytest -q -n logical --maxprocesses 4 --dist loadfile

azurite: $(AZURITE)

$(AZURITE):
	npm install --prefix .azurite --no-audit --no-fund --no-update-notifier --loglevel=error azurite@3.35.0 || \
		echo "Azurite could not be installed: the tests of Azure will be skipped"

lint: $(STAMP)
	$(BIN)/ruff check src tests examples benchmarks .ci
	$(BIN)/ruff format --check src tests examples benchmarks .ci

types: $(STAMP)
	$(BIN)/mypy

check: lint types test

# Known weaknesses of what is installed, as the package index knows them; one that does not answer is a failure.
audit: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/python -m pip_audit --local --skip-editable --strict --desc off || { \
		echo "audit: not passed. Weaknesses are listed above; where it says 'could not be audited' or nothing answers,"; \
		echo "audit: nobody was asked about the packages: run it where pypi.org can be reached."; exit 1; }

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Olivine needs Python 3.11 or later; give it as PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache examples/*/base-model examples/*/models examples/*/cache
