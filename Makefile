# The commands of this project. `make demo` and `make test` set everything up themselves.

PYTHON ?= python3
# Which onnxruntime: gpu (CUDA, where there is a GPU; it runs on the CPU as well) or cpu.
ifeq ($(shell uname -sm),Linux x86_64)
ORT ?= gpu
else
ORT ?= cpu
endif

BIN := .venv/bin
INSTALLED := .venv/installed-$(ORT)
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help

.PHONY: help
help:
	@echo "make demo      install, train on real digits, export, sample; two minutes"
	@echo "make test      format, lint, types, tests; under 5 minutes"
	@echo "make test-all  what takes longer or needs the network: the demo, the wheel, browser, load, Ray"
	@echo "make torture   a hundred kills, five thousand damaged or hostile files, load; 20 minutes"
	@echo "make gpu-check the GPU tests and all benchmarks, on a machine with a GPU; minutes"
	@echo "make dist      the wheel of the sampler, and the artifacts beside it, in dist/"
	@echo "make clean     remove the environment and what the tools cached"
	@echo "ORT=cpu|gpu chooses the onnxruntime (here: $(ORT)), PYTHON=... the Python (3.11 or later)"

# Both onnxruntimes own the same files: the other one goes before this one comes.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed, $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@if ls .venv/installed-* 2>/dev/null | grep -qv $(ORT)$$; then $(PIP) uninstall -q -y onnxruntime onnxruntime-gpu; fi
	@echo "Installing into .venv (onnxruntime: $(ORT)); PyTorch with CUDA is several GB, the first time takes minutes."
	$(PIP) install -q -c constraints.txt -e '.[$(ORT),training,export,service,dev]'
	@rm -f .venv/installed-* && touch $@

.PHONY: install
install: $(INSTALLED)

# Ray is half a gigabyte for one example, so that only `make test-all` installs it.
CLUSTER := .venv/with-cluster
$(CLUSTER): $(INSTALLED)
	$(PIP) install -q -c constraints.txt -e '.[cluster]'
	@touch $@

.PHONY: demo
demo: install
	@rm -rf runs/demo
	$(BIN)/python -m training.run --dataset digits --recipe r3gan --iterations 3000 --score-every 300 --run-dir runs/demo
	$(BIN)/python -m export.run runs/demo
	$(BIN)/python -m inference.run runs/demo/artifact --output runs/demo/samples.png
	@echo
	@echo "The pictures:"
	@echo "  runs/demo/samples.png   64 images from onnxruntime"
	@echo "  runs/demo/samples/      the same 64 while the generator learned"
	@echo "  runs/demo/report.html   all that is known of the run: open it in a browser"

.PHONY: lint
lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# A process for each core, and one thread in each: more threads would only wait for one another.
.PHONY: test
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal -m "not full and not torture"

.PHONY: test-all
test-all: demo $(CLUSTER)
	$(BIN)/pytest -m full

# Installs nothing: a machine with a GPU may have its own PyTorch.
.PHONY: gpu-check
gpu-check:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m benchmarks.gpu_check

.PHONY: torture
torture: install
	$(BIN)/pytest -m torture -s

# The wheel, and beside it the artifacts to try it with.
.PHONY: dist
dist: install
	@rm -rf dist
	$(PIP) wheel -q --no-deps -w dist .
	@cp -r artifacts dist/artifacts
	@ls dist dist/artifacts

.PHONY: clean
clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
