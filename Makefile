# Every target sets up what it needs in .venv, from Python >= 3.11, a C compiler and make.
#
#   make dev      install all that contributors need into .venv, and compile the kernels
#   make demo     build, and train a network on handwritten digits
#   make test     build, lint, and run all tests
#   make bench    print how fast the kernels are, beside what this machine can do; with
#                 options, for example: make bench BENCH="--quick --kernel matmul"
#   make steps    measure what each step of docs/kernels.md buys; with options:
#                 make steps STEPS="--isa avx2 --sizes 64 250"
#   make figures  draw the figures of docs/lessons anew (some minutes)
#   make lint     ruff, mypy and cython-lint
#   make exhaustive   exp, log, sigmoid and tanh of every float32, against float64 (many minutes)
#   make fuzz         5000 random networks: gradients, recorded steps, PyTorch (many minutes);
#                     with another number: make fuzz FUZZ=500
#   make fuzz-files   152,000 damaged and hostile files in little memory (some minutes)
#   make stress       predict and evaluate from eight threads, 100,000 calls (a minute)
#   make models       1000 random models, saved, and built again in a new process (a minute)
#   make kill         trainings that are killed 200 times, and resumed (some minutes)
#   make interrupts   Ctrl-C at 5000 lines of recording and running a step (some minutes)
#   make sanitize     kernels and recorded steps under AddressSanitizer and UBSan, and
#                 the team of threads under ThreadSanitizer (needs GCC)
#   make clean    remove everything that was made

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
SOURCES := setup.py pyproject.toml $(shell find minidl/_kernels -name "*.p[yx]*" -o -name "*.h")
PIP := $(PY) -m pip install --quiet --disable-pip-version-check

.PHONY: dev demo test bench steps figures lint exhaustive fuzz fuzz-files stress models kill \
	interrupts sanitize clean

dev: $(VENV)/dev

demo: $(VENV)/demo
	$(PY) -m minidl train digits

# On all cores; benchmarks would measure nothing there.
test: $(VENV)/dev lint
	$(PY) -m pytest -n auto --dist worksteal --benchmark-disable

bench: $(VENV)/dev
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PY) -m minidl bench $(BENCH)

steps: $(VENV)/dev
	$(PY) benchmarks/matmul_steps.py $(STEPS)

figures: $(VENV)/demo
	$(PY) -m minidl lab --all --out docs/lessons/figures

# cython-lint calls pycodestyle by its bare name, so it needs the environment's bin on the path.
lint: $(VENV)/dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	PATH="$(abspath $(VENV)/bin):$$PATH" cython-lint minidl/_kernels benchmarks

exhaustive: $(VENV)/dev
	$(PY) tests/exhaustive.py

FUZZ := 5000
fuzz: $(VENV)/dev
	MINIDL_FUZZ=$(FUZZ) $(PY) -m pytest -q -s tests/test_fuzz.py
	MINIDL_ONNX_STACKS=200 $(PY) -m pytest -q tests/test_onnx.py -k stacks

fuzz-files: $(VENV)/dev
	MINIDL_FUZZ_FILES=1 $(PY) -m pytest -q -s tests/test_fuzz_files.py
	MINIDL_ONNX_DAMAGED=1000 $(PY) -m pytest -q tests/test_onnx_refusals.py -k damaged

stress: $(VENV)/dev
	$(PY) tests/stress.py

models: $(VENV)/dev
	MINIDL_MODELS=1000 $(PY) -m pytest -q tests/test_model_files.py -k process

KILLS := 200
kill: $(VENV)/dev
	$(PY) tests/killing.py $(KILLS)

POINTS := 5000
interrupts: $(VENV)/dev
	$(PY) tests/interrupts.py $(POINTS)

# In copies, so that the kernels in use stay as they are. -s: reports go to standard error.
# ThreadSanitizer needs memory where it expects it: setarch -R. It does not follow forks.
MEMORY := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
THREADS := -fsanitize=thread -fno-omit-frame-pointer
LIBRARIES = $(foreach name,$(1),$(shell gcc -print-file-name=lib$(name).so))
define sanitized_copy
	rm -rf build/$(1)
	mkdir -p build/$(1)
	cp -r minidl tests docs setup.py pyproject.toml README.md LICENSE build/$(1)
	find build/$(1) -name "*.so" -delete
	cd build/$(1) && CC=gcc CFLAGS="$(2)" LDFLAGS="$(2)" MINIDL_REQUIRE_KERNELS=1 \
	    $(abspath $(PY)) setup.py -q build_ext --inplace
endef
sanitize: $(VENV)/dev
	$(call sanitized_copy,memory,$(MEMORY))
	cd build/memory && LD_PRELOAD="$(call LIBRARIES,asan ubsan)" ASAN_OPTIONS=detect_leaks=0 \
	    PYTHONMALLOC=malloc PYTHONPATH=. $(abspath $(PY)) -m pytest -q -s tests/test_kernels.py \
	    tests/test_layers.py tests/test_recording.py tests/test_recording_calls.py \
	    tests/test_recording_errors.py tests/test_split_k.py tests/test_row_order.py \
	    tests/test_monitor.py tests/test_monitor_use.py
	$(call sanitized_copy,threads,$(THREADS))
	cd build/threads && LD_PRELOAD="$(call LIBRARIES,tsan)" TSAN_OPTIONS=halt_on_error=1 \
	    PYTHONPATH=. setarch -R $(abspath $(PY)) -m pytest -q -s tests/test_threads.py \
	    tests/test_split_k.py tests/test_program_lock.py \
	    -k "load or python_threads or others_run or between_two_steps or large_batches or asked_for or not_run_while"

clean:
	rm -rf $(VENV) build dist *.egg-info
	find minidl -name "*.so" -delete -o -name "*.c" -delete

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "minidl needs Python 3.11 or later; try: make PYTHON=python3.12 ..."; exit 1; }
	@echo "making $(VENV) and compiling the kernels: some minutes, once"
	$(PYTHON) -m venv $(VENV)
	$(PIP) "setuptools>=77" "Cython>=3.1" "numpy>=2.0"
	touch $@

# Editable installs, so that the sources can be read and changed; remade when a kernel changes.
$(VENV)/demo: $(VENV)/created $(SOURCES)
	$(PIP) --no-build-isolation --editable ".[progress,plot]"
	touch $@

$(VENV)/dev: $(VENV)/created $(SOURCES)
	$(PIP) "pip>=25.1"  # which knows dependency groups
	$(PIP) --group dev
	MINIDL_REQUIRE_KERNELS=1 $(PIP) --no-build-isolation --editable ".[progress,plot]"
	touch $@ $(VENV)/demo
