# make demo   install into .venv and do the whole job: runs/demo/report.html
# make photos the same with real photographs, fetched once (or DATA_DIR=FOLDER): runs/photos/report.html
# make test   install the same way and run the fast tests
# make slow   the tests that take minutes (CI runs them too)
# make check  lint, format, types, the floors of the house
# make bench  the quick benchmarks, but for packed.py, which needs a demo, and posterior.py, which needs data
# make docs   the pages under docs/ as a site: site/index.html
# VENV=PATH   use an environment that is already there; nothing is installed into it
.PHONY: help install demo photos test slow check bench docs clean

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
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[demo,photos,dev,docs]'
	@touch $@
else
install: ;
endif

demo: install
	$(RUN)/python -m likemind demo

photos: install
	$(RUN)/python -m likemind demo --world photos $(if $(DATA_DIR),--data-dir $(DATA_DIR)) --out runs/photos

test: install
	$(PYTEST) -m 'not slow' -n 2 --dist loadfile

slow: install
	$(PYTEST) -m slow

check: install
	$(RUN)/ruff check --no-cache .
	$(RUN)/ruff format --no-cache --check .
	$(RUN)/python -m mypy
	$(RUN)/lint-imports --no-cache

bench: install
	for name in $(filter-out benchmarks/packed.py benchmarks/posterior.py,$(wildcard benchmarks/[a-z]*.py)); do $(RUN)/python $$name --quick || exit 1; done

docs: install
	NO_MKDOCS_2_WARNING=1 $(RUN)/python -m mkdocs build --strict --quiet

clean:
	rm -rf .venv runs site .mypy_cache .pytest_cache .ruff_cache .hypothesis
