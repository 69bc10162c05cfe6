# make setup | demo | test | test-all | test-gpu | lint | reference-models
PYTHON ?= python3.11
BIN := .venv/bin
RUN := $(BIN)/python
READY := .venv/ready
DATA ?= ../shared/data
.DEFAULT_GOAL := help
# A test uses one core; of a file's tests one process does all, as they share what they set up. More processes would only
# import torch once more each.
PYTEST := $(RUN) -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile
.PHONY: help setup demo test test-all test-gpu lint reference-models

help:
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*##/\t/' | expand -t 20

# Another detectron2 is asked for by name, so it is installed whether or not the requirements changed.
ifdef DETECTRON2
.PHONY: $(READY)
endif

setup: $(READY) ## make .venv with everything in it; runs again only when requirements change

$(READY): requirements.txt pyproject.toml tools/install_detectron2.py tools/detectron2_fixups.py
	test -x $(RUN) || $(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet "setuptools>=77" wheel -r requirements.txt
	$(RUN) tools/install_detectron2.py $(if $(DETECTRON2),--force --source $(DETECTRON2))
	$(RUN) -m pip install --quiet --no-build-isolation --editable ".[dev,slides]"
	touch $@

demo: $(READY) ## train on the embedded dataset, evaluate, draw pictures
	$(BIN)/cervical-d2 train --resume --config-file configs/quick/demo.yaml
	$(BIN)/cervical-d2 draw output/quick/demo

test: $(READY) ## the fast tests
	$(RUN) tools/doctor.py
	$(PYTEST) -m "not slow"

test-all: $(READY) ## all tests
	$(PYTEST)

test-gpu: $(READY) ## the tests that need CUDA devices
	$(RUN) -m pytest -m gpu

lint: $(READY) ## style, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

reference-models: $(READY) ## train the BCCD and CRIC quick models from $(DATA)
	DETECTRON2_DATASETS=$(DATA) $(BIN)/cervical-d2 train --resume --config-file configs/quick/bccd.yaml
	DETECTRON2_DATASETS=$(DATA) $(BIN)/cervical-d2 train --resume --config-file configs/quick/cric.yaml
