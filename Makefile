# Every target uses .venv in this checkout; `make install` runs by itself when needed.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_OUT ?= demo
BENCH_OUT ?= build/bench
PYTEST_ARGS ?=
# Two files of tests at a time, with one thread each; a test that fails only beside another is to be repaired.
WORKERS ?= -n 2 --dist loadfile

.PHONY: help install format check test test-all peer demo proto docs bench bench-peers reproduce gpu-check clean
.DEFAULT_GOAL := help

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

install: $(STAMP)  ## Make .venv with the locked versions and this checkout, editable

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(STAMP)

format: $(STAMP)  ## Fix and format
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

check: $(STAMP)  ## Format, lint, types, import contracts, sizes, docs and stubs in step
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tools/mypy_tests.ini tests tools
	$(BIN)/lint-imports
	$(BIN)/python tools/check_sizes.py
	$(BIN)/python tools/gen_proto.py --check
	$(BIN)/python tools/render_docs.py --check

test: $(STAMP)  ## The default tests: CPU, under 8 minutes on 2 cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(WORKERS) $(PYTEST_ARGS)

test-all: $(STAMP)  ## Everything this machine can run: slow, gpu and peer tests too
	$(BIN)/python -m pytest -m '' $(PYTEST_ARGS)

peer: $(STAMP)  ## The cross-checks, as far as their peer libraries are installed
	$(BIN)/python -m pytest -m peer $(PYTEST_ARGS)

demo: $(STAMP)  ## The main job on real images: train, export, serve, index, evaluate
	$(BIN)/embedkit demo --out $(DEMO_OUT)

proto: $(STAMP)  ## Regenerate the stubs from proto/
	$(BIN)/python tools/gen_proto.py

docs: $(STAMP)  ## Render the command and registry tables into docs/
	$(BIN)/python tools/render_docs.py

bench: $(STAMP)  ## Augmentation and serving benchmarks; ratios within one run
	$(BIN)/python tools/bench_augment.py
	mkdir -p $(BENCH_OUT)
	$(BIN)/embedkit bench serve --out $(BENCH_OUT)/serve.json --plot $(BENCH_OUT)/serve.png

bench-peers: $(STAMP)  ## The same graph behind mosec, LitServe and Ray Serve: ratios in one run
	mkdir -p $(BENCH_OUT)
	$(BIN)/python -m tools.bench_peers serve --out $(BENCH_OUT)/peers.json

reproduce: $(STAMP)  ## RECIPE=...: train, export, serve, measure; compare with the stated interval
	$(BIN)/python -m tools.reproduce $(RECIPE) $(REPRODUCE_ARGS)

gpu-check: $(STAMP)  ## Every GPU test and bench into one JSON; without a GPU it says so
	mkdir -p $(BENCH_OUT)
	$(BIN)/python -m tools.gpu_check --out $(BENCH_OUT)/gpu.json

clean:  ## Remove what the other targets made, except .venv
	rm -rf $(DEMO_OUT) $(BENCH_OUT) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
