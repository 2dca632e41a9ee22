# Two commands matter: `make demo` and `make test`. Both set up what they need.
PYTHON ?= python3
VENV := .venv
AGENT_VENV := .venv-agent
TENSORFLOW_VENV := .venv-tensorflow
TORCH_VENV := .venv-torch
TORCH := torch==2.13.0
BIN := $(VENV)/bin
DISTRIBUTIONS := protocol agent converter fleet firmware_images cli
ON_DEVICES := protocol/src agent/src
ON_WORKSTATIONS := $(addsuffix /src,$(filter-out agent,$(DISTRIBUTIONS)))
PYTEST_ARGS ?=
# What tests start a thousand times is compiled once, whatever the shell asks for.
export PYTHONDONTWRITEBYTECODE :=
# Many tests wait for brokers and processes: one more than there are processors keeps these busy.
WORKERS ?= $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1) + 1 )))
# In the order of the folders, so that the files of one long test are not the last.
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# Of the five that take many minutes no other waits behind the longest: with three processes one would.
PARALLEL_LONG := -n 4 --dist loadfile --no-loadscope-reorder
# Of each framework, as both run side by side.
PARALLEL_FRAMEWORK := -n 2 --dist loadfile

.PHONY: bench-frameworks boards help demo test test-long test-main test-tensorflow test-fast test-release test-torch fuzz check format install broker schemas lock clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: install ## run the whole path once: convert, publish, deploy to three agents, infer, report
	$(BIN)/autoglm-edge demo

test: test-main ## run the tests, the slow ones too, each in the environment that it needs; test-long has the rest
	$(MAKE) -j2 test-tensorflow test-torch
	@echo "everything but frameworks ($(VENV), $(AGENT_VENV)): $$(cat $(VENV)/.test-counts)"
	@echo "Keras and SavedModel ($(TENSORFLOW_VENV)): $$(cat $(TENSORFLOW_VENV)/.test-counts)"
	@echo "PyTorch ($(TORCH_VENV)): $$(cat $(TORCH_VENV)/.test-counts)"
	-@cat $(VENV)/.fault-points
	@echo "not run: power cuts of emulated boards, a Pi 3, images from packages (make test-long)"

test-main: install $(AGENT_VENV)/.complete broker boards ## run all tests but those of TensorFlow and PyTorch models
	AUTOGLM_EDGE_FAULT_POINTS=$(VENV)/.fault-points AUTOGLM_EDGE_TEST_COUNTS=$(VENV)/.test-counts \
	  $(BIN)/python -m pytest $(PARALLEL) -m "not long and not release" $(PYTEST_ARGS)

test-long: install broker boards ## run what takes many minutes: power cuts of emulated boards, a Pi 3, images from packages
	$(BIN)/python -m pytest $(PARALLEL_LONG) -m long $(PYTEST_ARGS)

test-release: install broker boards ## before a release: make a Pi 3's image of Debian's packages and boot it (25 min, root)
	$(BIN)/python -m pytest -v -m release $(PYTEST_ARGS)

test-fast: install $(AGENT_VENV)/.complete broker boards ## run the fast tests only
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not release" $(PYTEST_ARGS)

test-torch: $(TORCH_VENV)/.complete ## run the tests of PyTorch models, in an environment of their own
	AUTOGLM_EDGE_TEST_COUNTS=$(TORCH_VENV)/.test-counts \
	  $(TORCH_VENV)/bin/python -m pytest -p no:anyio $(PARALLEL_FRAMEWORK) tests/converter/torch $(PYTEST_ARGS)

test-tensorflow: $(TENSORFLOW_VENV)/.complete ## run the tests of the roads from Keras and SavedModel
	AUTOGLM_EDGE_TEST_COUNTS=$(TENSORFLOW_VENV)/.test-counts \
	  $(TENSORFLOW_VENV)/bin/python -m pytest $(PARALLEL_FRAMEWORK) tests/converter/tensorflow $(PYTEST_ARGS)

bench-frameworks: install $(TENSORFLOW_VENV)/.complete $(TORCH_VENV)/.complete ## measure conversions of other frameworks
	$(TENSORFLOW_VENV)/bin/python benchmarks/frameworks/run.py --cases keras,fashion
	$(TORCH_VENV)/bin/python benchmarks/frameworks/run.py --cases faces
	$(BIN)/python benchmarks/frameworks/run.py --cases res,mbn,rapidocr-rec,ssd

fuzz: install ## try every parser with atheris (pip install atheris), SECONDS each; not part of the tests
	$(BIN)/python -m tests.fuzz.run $(or $(SECONDS),60)

CHECKS := check-types check-style check-types-device check-types-darwin check-types-win32

check: install ## format, lint, types (for each system, and for the oldest Python of devices), import contracts
	@$(MAKE) --no-print-directory -j2 $(CHECKS)

.PHONY: $(CHECKS)
check-style:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

check-types:
	$(BIN)/mypy

# What was found out is kept apart, as they run side by side.
check-types-device:
	$(BIN)/mypy --python-version 3.10 --cache-dir .mypy_cache/device $(ON_DEVICES)

check-types-darwin check-types-win32: check-types-%:
	$(BIN)/mypy --platform $* --cache-dir .mypy_cache/$* $(ON_WORKSTATIONS)

format: install ## format the sources and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(VENV)/.complete ## make .venv with both commands

$(VENV)/.complete: requirements/workstation.txt $(DISTRIBUTIONS:%=%/pyproject.toml)
	@$(PYTHON) scripts/bootstrap.py $(VENV) requirements/workstation.txt $(DISTRIBUTIONS)

$(AGENT_VENV)/.complete: requirements/agent.txt protocol/pyproject.toml agent/pyproject.toml
	@$(PYTHON) scripts/bootstrap.py $(AGENT_VENV) requirements/agent.txt protocol agent

$(TORCH_VENV)/.complete: requirements/torch.txt $(DISTRIBUTIONS:%=%/pyproject.toml)
	@$(PYTHON) scripts/bootstrap.py $(TORCH_VENV) requirements/torch.txt $(DISTRIBUTIONS) --first $(TORCH)

$(TENSORFLOW_VENV)/.complete: requirements/tensorflow.txt $(DISTRIBUTIONS:%=%/pyproject.toml)
	@$(PYTHON) scripts/bootstrap.py $(TENSORFLOW_VENV) requirements/tensorflow.txt $(DISTRIBUTIONS)

broker:
	@$(PYTHON) scripts/broker.py

boards: ## install what emulates ARM boards, as root
	@$(PYTHON) scripts/boards.py

schemas: install ## write docs/schemas, docs/asyncapi.json and the generated diagrams anew
	$(BIN)/python scripts/generate_docs.py

lock: install ## resolve the requirement files again
	$(BIN)/python -m pip install --quiet uv
	for name in workstation tensorflow; do $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header requirements/$$name.in -o requirements/$$name.txt; done
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --overrides requirements/torch.overrides --excludes requirements/torch.excludes --no-emit-package torch \
	  requirements/torch.in -o requirements/torch.txt
	for name in agent board; do $(BIN)/uv pip compile --quiet --universal --python-version 3.10 \
	  --generate-hashes --no-emit-index-url --no-header requirements/$$name.in -o requirements/$$name.txt; done
	cd converter/src/autoglm_edge_converter/isolated/locked && for name in *.in; do \
	  case $$name in onnx2tf*) version=3.12;; *) version=3.9;; esac; \
	  $(CURDIR)/$(BIN)/uv pip compile --quiet --universal --python-version $$version --generate-hashes \
	  --no-emit-index-url --no-header $$name -o $${name%.in}.txt; done

clean: ## remove what make install made
	rm -rf $(VENV) $(AGENT_VENV) $(TENSORFLOW_VENV) $(TORCH_VENV) .environments
