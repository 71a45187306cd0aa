# Two commands do everything: `make quickstart` and `make test`. Both install what they need into .venv.
PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCH_PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.moelab-installed
CLUSTER := $(VENV)/.moelab-cluster-installed
ENGINES := $(VENV)/.moelab-engines-installed
KERNELS := $(VENV)/.moelab-kernels-installed
BROWSER := $(VENV)/.moelab-browser-installed
STUDY ?= studies/quickstart
# Test processes of `make test` (auto: the usable cores), and options of your own, such as PYTEST_ARGS="-k router -x".
MOELAB_TEST_WORKERS ?= auto
PYTEST_ARGS ?=

# Tests that need transformers, gguf, llama.cpp or regex, which `make test` alone does not install.
WITH_ENGINES := tests/export tests/architecture/test_gguf_header.py tests/architecture/test_transformers.py \
	tests/model/test_bf16_gradients.py tests/model/test_families.py tests/model/test_multi_token.py \
	tests/model/test_transformers_routers.py tests/data/test_ranks.py

.PHONY: help install quickstart test test-slow test-all lint format types check clean reference-analysis

help:
	@echo "make quickstart   install, then: text -> runs -> laws -> plan -> verified recommendation -> report.html"
	@echo "make test         install, then run the tests (a few minutes)"
	@echo "make test-all     also the slow and multi-process tests"
	@echo "make reference-analysis   the figures of the reference study, from the table that ships"
	@echo "make lint types   ruff and mypy"
	@echo "make clean        remove .venv and caches (studies and data stay)"

install: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "moelab needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q $(TORCH) $(TORCH_PIP_ARGS)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[train,dev]'
	@touch $@

# Compiled tests and modules are kept: each of the processes that the tests start would compile them again.
test test-slow: export PYTHONDONTWRITEBYTECODE =

reference-analysis: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/reference_analysis.py

quickstart: $(READY)
	$(BIN)/moelab study quickstart --out $(STUDY)

test: $(READY)
	$(BIN)/python -m pytest -n $(MOELAB_TEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

# Ray (80 MB to download, 250 MB on disk) and submitit, for the tests of studies on clusters alone.
$(CLUSTER): $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[cluster]'
	@touch $@

# transformers and gguf (130 MB on disk) for the tests of exports; llama.cpp itself (100 MB) and megatron-core (11 MB) where a
# wheel of them installs. The test of torchtitan is skipped unless torchtitan 0.3.0 and torchdata are installed: they bring wandb and more.
$(ENGINES): $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[hf]'
	-$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt --only-binary xllamacpp xllamacpp
	-$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt --no-deps --only-binary megatron-core megatron-core
	@touch $@

# Triton (290 MB to download), for the tests of the kernels of CUDA devices in its interpreter.
$(KERNELS): $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[kernels]'
	@touch $@

# Playwright (45 MB to download) for the tests of the pages, which use the system's Chromium, and what runs notebooks.
$(BROWSER): $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt playwright -e '.[notebook]'
	@touch $@

test-slow: $(CLUSTER) $(ENGINES) $(KERNELS) $(BROWSER)
	$(BIN)/python -m pytest -m '(slow or dist) and not gpu'
	$(BIN)/python -m pytest -m 'hypothesis and not gpu' --hypothesis-profile full
	$(BIN)/python -m pytest $(WITH_ENGINES)
	$(BIN)/python -m pytest -m 'browser or notebook'

test-all: test test-slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY)
	$(BIN)/mypy

check: test lint types

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build src/*.egg-info
