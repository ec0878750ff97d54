# fastauth: every target works on a fresh clone with Python >= 3.11, a C compiler and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py src/fastauth/_core.pyx

.PHONY: run setup test test-full check bench bench-load asan clean

run: setup  ## serve on http://127.0.0.1:8000 (PORT=8001 DATA_DIR=/x change that)
	@exec $(BIN)/fastauth serve $(if $(PORT),--port "$(PORT)") $(if $(DATA_DIR),--data-dir "$(DATA_DIR)")

setup: $(VENV)/.setup  ## .venv with fastauth and its extras

$(VENV)/.setup: $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "fastauth needs Python >= 3.11; try: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "fastauth: building (once)" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[redis]'
	@touch $@

$(VENV)/.dev: $(VENV)/.setup
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[redis,test,dev]'
	@touch $@

test: $(VENV)/.dev  ## the whole suite, real servers included
	$(BIN)/python -m pytest tests

test-full: $(VENV)/.dev  ## the same at full counts, with a dated record under benchmarks/results
	FASTAUTH_TEST_FULL=1 $(BIN)/python -m pytest tests --timeout 1800
	$(MAKE) asan

check: export PATH := $(CURDIR)/$(BIN):$(PATH)
check: $(VENV)/.dev  ## formatting, lint, strict types, Cython lint, stub check, import layers
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/cython-lint src/fastauth/_core.pyx
	$(BIN)/python -m mypy.stubtest fastauth._core
	$(BIN)/lint-imports

bench: $(VENV)/.dev  ## micro benchmarks, compared with benchmarks/micro/record.json (RECORD=1 replaces it)
	$(BIN)/python -m benchmarks.micro.compare $(if $(RECORD),--record)

bench-load: $(VENV)/.dev  ## real servers under load; renders benchmarks/README.md
	$(BIN)/python -m benchmarks.load.figures

clean:
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks src/*.egg-info src/fastauth/_core*.so $(VENV)
