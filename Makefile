# Every target makes .venv itself. `make demo` is the main job from nothing to a forecast.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-long test-gpu cover check docs bench clean

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,notebook,s3,sql,image,volume,view,export,serve,docs,dev]'
	touch $@

.venv/bench: .venv/ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@

.bench/peers/ready: tests/benchmarks/peers.txt
	$(PYTHON) -m venv .bench/peers
	.bench/peers/bin/python -m pip install --quiet --requirement tests/benchmarks/peers.txt
	.bench/peers/bin/python -m pip uninstall --quiet --yes torchvision
	touch $@

demo: .venv/ready
	$(BIN)/python -m lightning_app demo

test: .venv/ready
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-long: .venv/ready
	HYPOTHESIS_PROFILE=$${HYPOTHESIS_PROFILE:-fresh} $(BIN)/python -m pytest -m "long or hypothesis" -n 2 --dist worksteal

test-gpu: .venv/ready
	$(BIN)/python -m pytest -m gpu tests/test_gpu.py tests/test_gpu_fits.py

cover: .venv/ready
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 2 --dist worksteal
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell *.md changelog.d docs zstore lightning_app configs
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_words.py

docs: .venv/ready
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo build/docs/index.html

bench: .venv/bench .bench/peers/ready
	$(BIN)/python -m tests.benchmarks

clean:
	rm -rf .venv demo runs build .bench
