# Two commands do it all: `make demo` shows the main job, `make test` runs the tests.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
DOCS_VENV ?= .venv-docs
# What four tests from a manifest to an index reach alone; raise it once a whole run was measured.
COVERAGE_FLOOR := 35

# Tests and the demonstration start hundreds of processes, and each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test test-slow examples coverage docs s3 rehearsal lint format types check clean

install: $(VENV)/.installed

LOCKS := requirements.lock requirements-dev.lock

$(VENV)/.installed: pyproject.toml requirements-torch.lock $(LOCKS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps $(LOCKS:%=--requirement %)
	$(BIN)/python -m pip install --quiet --requirement requirements-torch.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check
	$(BIN)/python -m deepliif_ray.cells
	$(BIN)/python -m deepliif_ray.scoring
	touch $@

demo: install
	$(BIN)/deepliif-ray demo demo

# Three workers on two cores: tests wait for servers and for other processes as well.
test: install
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test-slow: install
	$(BIN)/python -m pytest -m slow

examples: install
	$(BIN)/python -m pytest -m slow tests/test_examples.py

# Beside `test` and not in it: counting lines makes the tests slower, and tells nothing about whether they pass. Lines
# that run in other processes (Ray's workers, the helper that reads slides) or are compiled by numba are not seen.
coverage: install
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --cov=deepliif_ray \
	  --cov-report=term:skip-covered --cov-fail-under=$(COVERAGE_FLOOR)

$(DOCS_VENV)/.installed: requirements-docs.lock
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install --quiet --require-hashes --no-deps --requirement requirements-docs.lock
	touch $@

docs: $(DOCS_VENV)/.installed
	$(DOCS_VENV)/bin/mkdocs build --strict

s3: install
	$(BIN)/python -m infra.s3 .s3

rehearsal: install
	$(BIN)/python -m infra.rehearsal .rehearsal

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install
	$(BIN)/mypy

check: lint types test

clean:
	rm -rf demo .site .coverage .s3 .rehearsal .pytest_cache .mypy_cache .ruff_cache .hypothesis
