# make demo   train on embedded data and look at the result; nothing to prepare
# make test   every check and every test
# The first of them sets up .venv by itself (make setup), later ones only when the dependencies changed.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/thirtytwo-setup

# Two workers and one thread each: the tests are small, and oversubscribed cores are slower.
TEST_WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format docs bench clean

help: ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup: $(STAMP) ## make .venv and install everything into it

$(STAMP): pyproject.toml constraints.txt tools/setup_venv.py
	@$(PYTHON) tools/setup_venv.py

demo: $(STAMP) ## the whole job on embedded data: train, judge, predict
	@$(BIN)/thirtytwo demo

check: $(STAMP) ## format, lint, types, layers
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

test: check ## check, then every test that can run here
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal $(PYTEST_ARGS)

format: $(STAMP) ## put the code into its form
	$(BIN)/ruff check --fix --exit-zero
	$(BIN)/ruff format

docs: $(STAMP) ## write the generated pages of docs/ anew
	$(BIN)/python tools/write_docs.py

bench: $(STAMP) ## every benchmark that can run here; results go to benchmarks/results
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean: ## remove .venv and caches; runs are kept
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
