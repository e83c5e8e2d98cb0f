# make demo   train on embedded data and show the result; no setup needed
# make test   run all checks and tests
# Each target first creates or updates .venv (make setup) if the dependencies changed.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/thirtytwo-setup

# Two workers and one thread each: the tests are small, and oversubscribed cores are slower.
TEST_WORKERS ?= 2
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal
COVERAGE = --cov --cov-report=term:skip-covered --cov-fail-under=90

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long test-all test-quick coverage check format docs notebooks bench clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

setup: $(STAMP) ## create .venv and install everything into it

$(STAMP): pyproject.toml constraints.txt tools/setup_venv.py
	@$(PYTHON) tools/setup_venv.py

demo: $(STAMP) ## train, evaluate and predict on embedded data
	@$(BIN)/thirtytwo demo

check: $(STAMP) ## check formatting, lint, types, import layers and spelling
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy --num-workers $(TEST_WORKERS)
	@$(BIN)/lint-imports --no-logo
	$(BIN)/codespell

test: check ## run the checks and the tests, without the longest
	$(PYTEST) -m "not long" $(PYTEST_ARGS)

# Apart, as measuring it makes the tests take half as long again.
coverage: $(STAMP) ## run the tests, without the longest, and print the coverage
	$(PYTEST) -m "not long" $(COVERAGE) $(PYTEST_ARGS)

# In two parts, as a process cannot be connected to the Ray clusters of tests/serve and tests/scale; 5: none selected.
test-long: $(STAMP) ## run the longest tests
	@failed=0; \
	$(PYTEST) -m long --ignore tests/scale $(PYTEST_ARGS) || [ $$? = 5 ] || failed=1; \
	$(PYTEST) -m long tests/scale $(PYTEST_ARGS) || [ $$? = 5 ] || failed=1; \
	exit $$failed

test-all: test test-long ## run the checks and every test that can run here

test-quick: $(STAMP) ## run the quick tests: none that trains, reads CIFAR or opens a browser
	$(PYTEST) -m "not slow and not long and not realdata and not browser" $(PYTEST_ARGS)

format: $(STAMP) ## format the code and fix lint findings
	$(BIN)/ruff check --fix --exit-zero
	$(BIN)/ruff format

docs: $(STAMP) ## regenerate the generated pages of docs/ and build the site into site/
	$(BIN)/python tools/write_docs.py
	$(BIN)/python tools/build_site.py

notebooks: $(STAMP) ## run the notebooks and keep their outputs
	$(BIN)/python tools/write_notebooks.py

bench: $(STAMP) ## run every benchmark that can run here; results go to benchmarks/results
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean: ## remove .venv and caches; runs are kept
	rm -rf .venv site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
