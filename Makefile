# Each command needs nothing but Python 3.11 or newer: the environment is made once, and again only when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
READY := .venv/.ready
PYTEST := $(BIN)/python -m pytest -v -n auto --maxprocesses 4 --dist worksteal

.PHONY: demo test slow lab notebooks colab clean
# What runs a script with Colab's versions: an environment that is made here, or another one, such as `COLAB='docker run … python'`.
COLAB ?= .colab/bin/python

demo: $(READY)  ## colorize bundled photos, train a little, look at demo/
	$(BIN)/colorgan demo --out demo

test: $(READY)  ## everything that must hold, at most 20 minutes
	$(PYTEST)

slow: $(READY)  ## the long forms, at most 45 minutes; app and page are tested in a browser, Chromium where there is none
	test -n "$$(which chromium chromium-browser google-chrome)" || $(SUDO) sh -c 'apt-get update -qq && apt-get install -qq -y chromium'
	$(PYTEST) -m slow -o faulthandler_timeout=2400
	$(BIN)/python tests/test_fuzz.py --minutes 5

lab: $(READY)  ## the notebooks in JupyterLab
	$(BIN)/jupyter lab nbs

notebooks: $(READY)  ## run all notebooks, keep their outputs, bring modules and README in step
	$(BIN)/nbdev-export
	find nbs -name '*.ipynb' -not -path '*/.*' -print0 | sort -z | xargs -0 -n 1 -P 2 env OMP_NUM_THREADS=1 $(BIN)/python tools/run.py
	find nbs -name '*.ipynb' -not -path '*/.*' -exec $(BIN)/python tools/shrink.py {} +
	$(BIN)/nbdev-clean
	$(BIN)/python tools/readme.py

colab: $(READY) $(filter .colab/bin/python,$(COLAB))  ## the wheel and all notebooks on Colab's versions
	rm -rf dist
	$(BIN)/python -m build --wheel
	$(COLAB) tools/on_colab.py dist nbs

clean:  ## everything that can be made again, the environment too
	rm -rf .venv .colab build dist demo _proc _docs *.egg-info .ruff_cache .pytest_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

.colab/bin/python: .github/colab-constraints.txt
	python3.13 -m venv .colab
	.colab/bin/pip install --quiet --constraint $< torch torchvision fastai timm scikit-image scikit-learn matplotlib ipywidgets ipykernel nbclient nbformat accelerate tensorboard wandb
	touch $@
