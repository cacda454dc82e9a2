# Two commands set everything up: `make demo` and `make test`. Needs Python >= 3.11, a C compiler, a package index.
PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
BENCH := .venv-bench
JOEYNMT := .venv-joeynmt
PIP := -m pip install --quiet --disable-pip-version-check
RUN := $(BIN)/python -m

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-16s %s\n' "$$name" "$$text"; done

.PHONY: demo
demo: $(VENV)/.installed  ## install, then train, compress, test and sample a small model (5 minutes)
	$(RUN) insight demo

.PHONY: demo-translation
demo-translation: $(VENV)/.installed  ## install, then train a translation model, English to Spanish (8 minutes)
	$(RUN) insight fit --config configs/translation.yaml
	printf '%s\n' "In the beginning was the Word, and the Word was with God." \
		"And he said unto them, Come and see." "The people did not believe him, and went away." \
		| $(RUN) insight translate --checkpoint runs/translation -

.PHONY: test
test: $(VENV)/.installed-test  ## install, then run ruff, mypy, import-linter and pytest
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(RUN) pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder $(PYTEST_ARGUMENTS)

.PHONY: check
check: $(VENV)/.installed-test  ## the same without the slow tests, for everyday work (4 minutes on 2 cores)
	$(MAKE) test PYTEST_ARGUMENTS='-m "not slow"'

PYTEST_ARGUMENTS ?=

.PHONY: install
install: $(VENV)/.installed  ## make .venv with what the product needs

.PHONY: bench-env
bench-env: $(BENCH)/.installed $(JOEYNMT)/.installed  ## make .venv-bench and .venv-joeynmt with the peers of benchmarks/

.PHONY: clean
clean:  ## remove the environments and the caches of the tools
	rm -rf $(VENV) $(BENCH) $(JOEYNMT) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build dist

CHECK_PYTHON = @$(PYTHON) -c 'import sys; ok = sys.version_info >= (3, 11); \
	ok or print("make: Insight needs Python 3.11 or newer, and %s is %s: say `make PYTHON=python3.11 ...`" \
	% (sys.executable, sys.version.split()[0])); sys.exit(not ok)'

$(VENV)/.installed: pyproject.toml constraints.txt
	$(CHECK_PYTHON)
	@echo "make: installing into $(VENV); the first time takes some minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python $(PIP) -c constraints.txt -e '.[test]'
	@touch $@

$(BENCH)/.installed: benchmarks/requirements-peers.txt
	$(CHECK_PYTHON)
	@echo "make: installing into $(BENCH); the first time takes some minutes"
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python $(PIP) -r benchmarks/requirements-peers.txt
	# litdata asks for it, no text needs it, and its build for CUDA breaks every import beside a torch for CPUs.
	$(BENCH)/bin/python -m pip uninstall --quiet --yes torchvision
	@touch $@

$(JOEYNMT)/.installed: benchmarks/requirements-joeynmt.txt
	$(CHECK_PYTHON)
	@echo "make: installing into $(JOEYNMT); the first time takes some minutes"
	$(PYTHON) -m venv $(JOEYNMT)
	$(JOEYNMT)/bin/python $(PIP) -r benchmarks/requirements-joeynmt.txt
	@touch $@
