PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help reproduce test check clean

help:
	@echo 'make reproduce   train every model of the seed experiment; writes reproduce/report.html'
	@echo 'make test        run every test'
	@echo 'make check       lint and check types'
	@echo 'make clean       remove the virtual environment and what the tools left'
	@echo
	@echo 'Each makes .venv first, from constraints.txt, where it is missing or out of date.'

reproduce: $(INSTALLED)
	$(BIN)/peephole reproduce --out reproduce --overwrite

test: $(INSTALLED)
	$(BIN)/python -m pytest -n auto

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "peephole needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT='$(CURDIR)/constraints.txt' $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
