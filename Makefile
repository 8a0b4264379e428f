# make demo   install into .venv and do the whole job: runs/demo/report.html
# make test   install the same way and run the fast tests
# make slow   the tests that take minutes (CI runs them too)
# make check  lint, format, types, the floors of the house
# make bench  the quick benchmarks
# VENV=PATH   use an environment that is already there; nothing is installed into it
.PHONY: help install demo test slow check bench clean

PYTHON ?= python3
VENV ?= .venv
RUN = $(abspath $(VENV))/bin
export PYTHONPATH = $(CURDIR)/src
PYTEST = OMP_NUM_THREADS=1 $(RUN)/python -m pytest -q

help:
	@sed -n 's/^# //p' Makefile

ifeq ($(VENV),.venv)
install: .venv/.installed
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[demo,dev]'
	@touch $@
else
install: ;
endif

demo: install
	$(RUN)/python -m likemind demo

test: install
	$(PYTEST) -m 'not slow'

slow: install
	$(PYTEST) -m slow

check: install
	$(RUN)/ruff check --no-cache .
	$(RUN)/ruff format --no-cache --check .
	$(RUN)/python -m mypy
	$(RUN)/lint-imports --no-cache

bench: install
	for name in benchmarks/*.py; do $(RUN)/python $$name --quick || exit 1; done

clean:
	rm -rf .venv runs .mypy_cache .pytest_cache .ruff_cache .hypothesis
