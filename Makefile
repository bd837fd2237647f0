# make quickstart   environment, then the main job on bundled weights and text
# make test         environment, then lint, types and tests
# make bench        environment, then speed beside the stock Trainer + PEFT: about half an hour on an idle machine
PYTHON ?= python3
VENV ?= .venv
# The exact release takes a CPU build where pip has one at hand (its own find-links); otherwise the index's build for
# this platform, which on Linux brings CUDA. Another build: make TORCH='torch==2.12.1' or set pip's own index options.
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: quickstart test bench lock clean

quickstart: $(READY)
	$(BIN)/newslora train quickstart --output runs/quickstart-$$(date +%Y%m%d-%H%M%S)
	@echo
	@printf '%s\n' \
	  "Striker's late double sends hosts into the semi-finals" \
	  "Central bank holds rates as oil climbs past 55 dollars a barrel" \
	  "Probe returns first images of a moon's icy surface" \
	  | $(BIN)/newslora predict "$$(ls -d runs/quickstart-* | tail -1)" -

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	# types beside tests. One thread a worker: with two each, OpenMP threads would spin for one another. A third would
	# import everything once more. The long files of tests/e2e first.
	$(BIN)/mypy & types=$$!; \
	  OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder; tests=$$?; \
	  wait $$types && exit $$tests

bench: $(READY)
	$(BIN)/newslora bench minilm --task training
	$(BIN)/newslora bench minilm --task prediction
	$(BIN)/newslora bench roberta-base --task training --warmup 8 --steps 16
	$(BIN)/newslora bench roberta-base --task prediction --warmup 4 --steps 12

# Remade when what is installed changes. torch first: a range would take the newest build on the index.
$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "newslora needs Python 3.11 to 3.13; name one with: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q $(TORCH)
	$(BIN)/python -m pip install -q -r requirements.lock
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@

# Write requirements.lock anew from pyproject.toml, for Python 3.11 to 3.13 at once; torch stays out (see TORCH).
lock: $(READY)
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --extra dev pyproject.toml -o requirements.lock \
	  --no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"
	sed -i -E '/^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z]+)==/d' requirements.lock

clean:
	rm -rf $(VENV)
