# Each target is the only command that a fresh clone needs: what is missing is installed into .venv first.
#   make PYTHON=python3.12 demo      another interpreter (3.11 or newer)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
# One thread for each test process: the processes share the cores, and results do not depend on how many there are.
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 8

# $(call apt,PACKAGES): install Debian packages if this user may; fails quietly otherwise.
apt = ( if [ "$$(id -u)" = 0 ]; then sudo=; else sudo="sudo -n"; fi; export DEBIAN_FRONTEND=noninteractive; \
	$$sudo apt-get -qq update && $$sudo apt-get -qq install -y --no-install-recommends $(1) ) >/dev/null 2>&1

# Peers are many and heavy, and none of them is needed to use or to test foldwise: they live apart.
BENCH := .venv-bench
BENCH_READY := $(BENCH)/.ready
BENCH_PIP := $(BENCH)/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
# Nobody else may have forced an old BLAS kernel or a number of threads.
ALONE := env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE -u OMP_NUM_THREADS -u OPENBLAS_NUM_THREADS -u MKL_NUM_THREADS

.PHONY: help demo test test-fast test-gpu lint format install browser bench bench-faults clean
.DELETE_ON_ERROR:

help:
	@echo "make demo        train on handwritten digits; the last line is the path of the report"
	@echo "make test        format, lint, types, layers and all tests, also those in a browser"
	@echo "make test-fast   the tests that take no more than a few seconds each"
	@echo "make test-gpu    parity, invariants and loops that are watched, on a CUDA device"
	@echo "make lint        format, lint, types and layers"
	@echo "make format      write the code in the one format"
	@echo "make bench       measure everything next to its peers and write the tables; QUICK=1 only shows that it works"
	@echo "make bench-faults  plant faults and healthy controls, and write down what the checks find; QUICK=1 as above"
	@echo "make install     only set up $(VENV)"
	@echo "make clean       remove $(VENV) and caches"

install: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed."; echo "hint: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
		echo "installing $$package, which virtual environments need"; $(call apt,$$package); } || \
		{ echo "error: Python has no venv module."; echo "hint: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || \
		{ echo "creating $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	@echo "installing torch (the first time, this takes some minutes)"
	@$(PIP) torch
	@echo "installing foldwise and its tools"
	@$(PIP) -e '.[dev]'
	@touch $(READY)

demo: $(READY)
	@# Exit code 1 means that there are warnings to look at: the demo itself worked.
	@$(BIN)/foldwise fit --example digits --out runs/demo --overwrite || [ $$? -eq 1 ]

test: lint browser
	HYPOTHESIS_PROFILE=ci $(PYTEST)

test-fast: $(READY)
	HYPOTHESIS_PROFILE=fast $(PYTEST) -m "not slow and not browser"

test-gpu: $(READY)
	FOLDWISE_TEST_DEVICE=cuda $(PYTEST) -m "not browser" tests/engine tests/watching tests/test_invariants.py

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

browser:
	@have() { command -v chromium >/dev/null && command -v chromedriver >/dev/null; }; \
	have || { echo "installing chromium and its driver for the browser tests"; $(call apt,chromium chromium-driver); have; } || \
		echo "chromium cannot be installed here: the browser tests are skipped"

bench: $(BENCH_READY)
	$(ALONE) $(BENCH)/bin/python -m benchmarks.run $(if $(QUICK),--quick)

bench-faults: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.faults.run $(if $(QUICK),--quick)

$(BENCH_READY): pyproject.toml constraints.txt | $(READY)
	@$(BENCH)/bin/python -m pip --version >/dev/null 2>&1 || \
		{ echo "creating $(BENCH)"; $(PYTHON) -m venv --clear $(BENCH); }
	@echo "installing foldwise and its peers (this takes some minutes)"
	@$(BENCH_PIP) torch
	@$(BENCH_PIP) -e '.[bench]'
	@touch $(BENCH_READY)

clean:
	rm -rf $(VENV) $(BENCH) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist
