PYTHON ?= python

.PHONY: check test format bench

check:  ## what CI checks besides the tests
	$(PYTHON) -m ruff check src tests benchmarks
	$(PYTHON) -m ruff format --check src tests benchmarks
	$(PYTHON) -m mypy

test:
	$(PYTHON) -m pytest

format:
	$(PYTHON) -m ruff format src tests benchmarks
	$(PYTHON) -m ruff check --fix src tests benchmarks

bench:  ## the whole job against two plain Sentence Transformers scripts
	$(PYTHON) -m benchmarks.whole_job
