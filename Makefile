PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := PIP_CONSTRAINT='$(CURDIR)/constraints.txt' $(BIN)/python -m pip install --quiet --disable-pip-version-check

# In .venv rather than in pip's own throw-away environment: what is compiled stays valid there, so
# only what changed is compiled again.
BUILD_TOOLS := scikit-build-core nanobind cmake ninja
DEPENDENCIES := $(VENV)/.dependencies
INSTALLED := $(VENV)/.installed
FILES := $(VENV)/.files

# An environment of its own for the sanitized extension; it takes every other package from .venv.
SANITIZED := build/sanitize
SANITIZED_PYTHON := $(SANITIZED)/venv/bin/python
SANITIZERS := address,undefined
# Python is not built with sanitizers, so their library has to be there before it, and before that
# loads, libstdc++, whose throw it looks up. Leaks are not looked for: torch keeps what it has.
PRELOADED = $(shell ldd $(SANITIZED)/cmake/_kernels*.so | awk '/libasan|libstdc/ {print $$3}')
SITE_PACKAGES := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'

.PHONY: help reproduce test check sanitize clean

help:
	@echo 'make reproduce   train every model of the seed experiment; writes reproduce/report.html'
	@echo 'make test        run every test'
	@echo 'make check       lint and check types'
	@echo 'make sanitize    run the tests of the kernels with address and undefined-behaviour sanitizers'
	@echo 'make clean       remove the virtual environment and what the tools left'
	@echo
	@echo 'Each makes .venv first, from constraints.txt, where it is missing or out of date, and'
	@echo 'compiles what changed in csrc.'

reproduce: $(INSTALLED)
	$(BIN)/peephole reproduce --out reproduce --overwrite

test: $(INSTALLED)
	$(BIN)/python -m pytest -n auto

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

sanitize: $(SANITIZED)/.installed
	@test '$(findstring libasan,$(PRELOADED))' || { echo 'make sanitize: the extension was linked without libasan.so; build it with GCC (CXX=g++)' >&2; exit 1; }
	LD_PRELOAD='$(PRELOADED)' ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
		$(SANITIZED_PYTHON) -m pytest -n auto -p no:cacheprovider --capture=sys tests/ops/cpu

$(SANITIZED)/.installed: $(INSTALLED)
	$(BIN)/python -m venv --without-pip $(SANITIZED)/venv
	$(BIN)/python $(SITE_PACKAGES) > "$$($(SANITIZED_PYTHON) $(SITE_PACKAGES))/packages.pth"
	$(SANITIZED_PYTHON) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable . \
		-C build-dir=$(SANITIZED)/cmake -C cmake.build-type=Debug -C cmake.define.PEEPHOLE_SANITIZE=$(SANITIZERS) \
		-C cmake.define.nanobind_ROOT="$$($(BIN)/python -m nanobind --cmake_dir)"
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(DEPENDENCIES): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "peephole needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) $(BUILD_TOOLS)
	$(PIP_INSTALL) --no-build-isolation --editable '.[dev]'
	@touch $@

$(INSTALLED): $(DEPENDENCIES) $(FILES) $(wildcard csrc/*)
	$(PIP_INSTALL) --no-build-isolation --no-deps --editable .
	@touch $@

# The names of the files that are compiled or imported. The editable install lists the modules, so
# it is made again when one comes or goes.
$(FILES): FORCE
	@mkdir -p $(VENV)
	@find csrc src -name __pycache__ -prune -o -type f -print | sort > $@.now
	@if cmp -s $@.now $@; then rm $@.now; else mv $@.now $@; fi

FORCE:
