# fastauth: every target works on a fresh clone with Python >= 3.11, a C compiler and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py src/fastauth/_core.pyx

# What the core does for others; tests/twins compares the two implementations in any case.
ON_THE_CORE := tests/domain tests/jose tests/limits tests/verifier tests/endpoints/test_verify.py tests/endpoints/test_token.py

.PHONY: run setup test test-full chaos soak pictures asan check bench bench-load clean

run: setup  ## serve on http://127.0.0.1:8000 (PORT=8001 DATA_DIR=/x change that)
	@exec $(BIN)/fastauth serve $${PORT:+--port "$$PORT"} $${DATA_DIR:+--data-dir "$$DATA_DIR"}

setup: $(VENV)/.setup  ## .venv with fastauth and its extras

$(VENV)/.setup: $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "fastauth needs Python >= 3.11; try: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "fastauth: building (once)" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[http,postgres,redis,rehearse]'
	@touch $@

$(VENV)/.dev: $(VENV)/.setup
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[http,otel,postgres,redis,rehearse,test,dev]'
	@touch $@

# The driver for LDAP is built here: it needs the headers that tests/servers.sh installs.
$(VENV)/.servers: $(VENV)/.dev tests/servers.sh
	@tests/servers.sh
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[ldap]'
	@touch $@

TWO_AT_A_TIME := -n 2 --dist loadfile -p no:benchmark

test: $(VENV)/.servers  ## the whole suite, real servers included, then what stands on the core, and the main job, on the pure twin
	@tests/servers.sh
	$(BIN)/python -m pytest tests $(TWO_AT_A_TIME) -m "not alone"
	FASTAUTH_PURE_PYTHON=1 $(BIN)/python -m pytest -q $(TWO_AT_A_TIME) $(ON_THE_CORE) -m "not integration"
	FASTAUTH_PURE_PYTHON=1 $(BIN)/python -m pytest -q tests/integration/test_login_and_verify.py
	$(BIN)/python -m pytest tests -m alone

test-full: $(VENV)/.servers asan  ## the same at full counts; writes a dated record under benchmarks/results
	@tests/servers.sh
	FASTAUTH_TEST_FULL=1 $(BIN)/python -m pytest -p tests.record tests --timeout 1800

chaos: $(VENV)/.servers  ## everything that goes wrong, every request counted; renders docs/chaos.md
	@tests/servers.sh
	$(BIN)/python -m tests.chaos

soak: $(VENV)/.dev  ## twenty minutes of mixed load: memory and descriptors stay flat
	$(BIN)/python -m tests.chaos.soak

pictures: $(VENV)/.servers  ## docs/images of fastauth top and of the dashboard, taken of a real server
	$(BIN)/python -m tests.integration.pictures

asan: $(VENV)/.dev  ## the core's tests under AddressSanitizer
	rm -rf build/asan && mkdir -p build/asan && cp -r src/fastauth build/asan/ && rm -f build/asan/fastauth/_core*.so
	FASTAUTH_CFLAGS="-O1 -g -fsanitize=address -fno-omit-frame-pointer" \
		$(BIN)/python setup.py -q build_ext --build-lib build/asan --build-temp build/asan-objects --force
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so)" ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc PYTHONPATH=build/asan \
		$(BIN)/python -m pytest -q tests/twins --timeout 900

check: export PATH := $(CURDIR)/$(BIN):$(PATH)
check: $(VENV)/.dev  ## formatting, lint, strict types, Cython lint, stub check, import layers, what stands in deploy
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/cython-lint src/fastauth/_core.pyx
	$(BIN)/python -m mypy.stubtest fastauth._core
	$(BIN)/lint-imports
	@tests/servers.sh haproxy nginx systemd-analyze
	deploy/check.sh

bench: $(VENV)/.dev  ## ratios, then instruction counts, compared with their records (RECORD=1 replaces both)
	@tests/servers.sh valgrind
	$(BIN)/python -m benchmarks.micro.compare $(if $(RECORD),--record)
	$(BIN)/python -m benchmarks.instructions.gate $(if $(RECORD),--record)

bench-load: $(VENV)/.dev  ## real servers under load; renders benchmarks/README.md and docs/scaling.md
	$(BIN)/python -m benchmarks.load.side_by_side
	$(BIN)/python -m benchmarks.load.profile
	$(BIN)/python -m benchmarks.load.limits
	$(BIN)/python -m benchmarks.load.fleet
	$(BIN)/python -m benchmarks.load.identity
	$(BIN)/python -m benchmarks.load.overload
	$(BIN)/python -m benchmarks.load.costs
	$(BIN)/python -m benchmarks.load.two_nodes

clean:
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks src/*.egg-info src/fastauth/_core*.so $(VENV)
