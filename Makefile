# Two commands do it all: `make demo` shows the main job, `make test` runs the tests.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install demo test test-slow s3 rehearsal lint format types check clean

install: $(VENV)/.installed

LOCKS := requirements.lock requirements-dev.lock

$(VENV)/.installed: pyproject.toml requirements-torch.lock $(LOCKS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps $(LOCKS:%=--requirement %)
	$(BIN)/python -m pip install --quiet --requirement requirements-torch.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check
	touch $@

demo: install
	$(BIN)/deepliif-ray demo demo

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: install
	$(BIN)/python -m pytest -m slow

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
	rm -rf demo .s3 .rehearsal .pytest_cache .mypy_cache .ruff_cache .hypothesis
