# Everything lives in .venv and reports/; nothing global is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
# Tests of real processes mostly wait: so many at once keep two cores busy.
WORKERS ?= 4
FIRST ?= 0
SEEDS ?= 1000
SCENARIOS ?= 'scenarios/test_campaign.py::test_campaign[swarm]'
# A test that hangs fails with the stacks of all threads, before CI gives the whole suite up.
TEST_TIMEOUT_S ?= 480
STAMP := $(VENV)/.installed

.PHONY: venv demo test lint format bench sweep regress clean

venv: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "seawall needs Python 3.11 or newer; found $$($(PYTHON) --version); set PYTHON=..." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: venv
	$(BIN)/python -m reports.demo --jobs $(WORKERS)

test: venv
	$(BIN)/python -m pytest -n $(WORKERS) --timeout $(TEST_TIMEOUT_S)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: venv
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: venv
	for name in kernel quorum commits parity startup runtimes disk-offload checkers \
	  ingest pages layers migration; do \
	  $(BIN)/python -m harness bench $$name || exit 1; done

sweep: venv
	$(BIN)/python -m harness sweep $(SCENARIOS) --jobs $(JOBS) \
	  --seeds $(FIRST):$$(($(FIRST) + $(SEEDS)))

regress: venv
	$(BIN)/python -m harness regress --jobs $(JOBS)

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf reports/index.html reports/runs reports/allure-results .seawall
