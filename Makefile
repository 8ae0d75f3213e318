# Everything that a developer does, by name.  `make` alone lists it.
#
# All that is made lies below build/X.Y/, so several Pythons live side by side; `make clean` removes
# it.  No step asks anything or changes the system: a Python is found or fetched by tools/cpython.

PYTHON_VERSION ?= 3.14
# Any interpreter, by path or name; otherwise one of PYTHON_VERSION is found or fetched.
PYTHON ?=
# A variant of the build has a folder of its own: its name's ending, and what it is set up with.
VARIANT ?=
SETUP ?=
# Arguments for pytest:  make test ARGS='-k cancel -x'
ARGS ?=

ifneq ($(PYTHON),)
PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2] + sys.abiflags)')
ifeq ($(PYTHON_VERSION),)
$(error PYTHON=$(PYTHON) is no Python that runs)
endif
endif

BUILD := build/$(PYTHON_VERSION)$(VARIANT)
VENV := $(BUILD)/venv
BIN := $(CURDIR)/$(VENV)/bin
SOURCES := $(shell find src -type f ! -name '*.pyc') $(wildcard tests/fuzz/*.c) \
    meson.build meson.options pyproject.toml

UV = VIRTUAL_ENV= UV_PYTHON_DOWNLOADS=never $$(tools/uv)
UV_INSTALL = $(UV) pip install --quiet --python $(BIN)/python
say = @echo "make: $(1)"

# A virtual environment that is active around a reader's shell mustn't leak into the build.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH

.PHONY: help venv build demo test check core-test lint format typecheck bench bench-record bench-docs bench-values bench-web bench-beyond bench-more web scaling asan stress fuzz clean FORCE
.DELETE_ON_ERROR:

help:
	@echo "make demo        crawl real pages, parsing in one thread and in subinterpreters"
	@echo "make web         a web service that renders Markdown in subinterpreters, on port 8000"
	@echo "make test        build, then all tests: the Python ones and the C core's"
	@echo "make check       build, then the quick tests: under a minute"
	@echo "make build       build and install the package into $(VENV)"
	@echo "make core-test   the C core's tests    (SANITIZE=thread, SANITIZE=address,undefined, PORTABLE=true)"
	@echo "make asan        the Python tests with the extension under AddressSanitizer"
	@echo "make stress      everything mixed at random       (STRESS_SECONDS=600, STRESS_SEED=n, SANITIZE=address)"
	@echo "make fuzz        arbitrary bytes for the decoder of messages        (FUZZ_SECONDS=600)"
	@echo "make bench       measure, beside other packages    (ARGS='latency --quick'; make bench-record: keep the results)"
	@echo "make bench-values   how values cross               make bench-more   stopping, memory, values"
	@echo "make bench-web   a web service under load; writes benchmarks/results/serving.json"
	@echo "make bench-beyond   what a task costs on Dask and Ray; writes benchmarks/results/beyond.json"
	@echo "make bench-docs  rewrite the tables and plots of docs/ and README.md from benchmarks/results/"
	@echo "make scaling     measure, and rewrite the tables and plots of docs/scaling.md"
	@echo "make lint        ruff, clang-format    make typecheck   mypy --strict"
	@echo "make format      lay out the code      make clean       remove build/"
	@echo
	@echo "with   PYTHON=/path/to/python3.15   or   PYTHON_VERSION=3.13   ARGS='-k cancel -x' for pytest"

# A Python, and a virtual environment -------------------------------------------------------------

# The interpreter in use, by its path.  Rewritten only if it changes, which then remakes the rest.
$(BUILD)/python: FORCE
	@mkdir -p $(@D); \
	 python=$$(cat $@ 2>/dev/null); \
	 if [ -n "$(PYTHON)" ] || ! [ -x "$$python" ]; then \
	     python=$$(tools/cpython $(or $(PYTHON),$(PYTHON_VERSION))) || exit 1; \
	 fi; \
	 [ "$$(cat $@ 2>/dev/null)" = "$$python" ] || echo "$$python" >$@

$(VENV)/.made: $(BUILD)/python
	$(call say,making a virtual environment of $$(cat $<) in $(VENV))
	@rm -rf $(VENV)
	@$(UV) venv --quiet --no-project --python $$(cat $<) $(VENV)
	@touch $@

$(VENV)/.filled: $(VENV)/.made pyproject.toml
	$(call say,installing the tools to build and test with into $(VENV))
	@$(UV_INSTALL) --group build --group test
	@for name in uvloop numpy pillow orjson anyio trio ray; do \
	     $(UV_INSTALL) --group $$name --only-binary $$name 2>/dev/null \
	     || echo "make: no $$name for Python $(PYTHON_VERSION); the tests do without"; \
	 done
	@touch $@

$(VENV)/.lint: $(VENV)/.filled
	$(call say,installing ruff and clang-format into $(VENV))
	@$(UV_INSTALL) --group lint
	@touch $@

# What is measured beside this package.
ORIGINAL = $(BUILD)/original-0.5.0
$(VENV)/.peers: $(VENV)/.filled
	$(call say,installing the peers to measure into $(VENV))
	@for name in anyio loky aiomultiprocess; do \
	     $(UV_INSTALL) --group $$name 2>/dev/null \
	     || echo "make: no $$name for Python $(PYTHON_VERSION); it has no row"; \
	 done
	@$(UV_INSTALL) --target $(ORIGINAL) aiointerpreters==0.5.0 2>/dev/null \
	 || echo "make: no aiointerpreters 0.5.0 for Python $(PYTHON_VERSION); it has no row"
	@touch $@

venv: $(VENV)/.filled

# Building ----------------------------------------------------------------------------------------

# Installed as a user would have it; an editable install would rebuild inside the workers.
$(VENV)/.built: $(VENV)/.filled $(SOURCES)
	$(call say,building for Python $(PYTHON_VERSION) in $(BUILD)/meson)
	@echo '#include <stdio.h>' | $${CC:-cc} -E - >/dev/null \
	 || { echo "make: no working C compiler; on Debian: apt-get install gcc libc6-dev" >&2; exit 1; }
	@PATH="$(BIN):$$PATH" $(UV_INSTALL) --no-build-isolation --no-deps \
	    --reinstall-package aiointerpreters -Cbuild-dir=$(BUILD)/meson \
	    $(foreach option,$(SETUP),-Csetup-args=$(option)) .
	@touch $@

build: $(VENV)/.built

# Running -----------------------------------------------------------------------------------------

demo: build
	$(call say,running examples/crawl.py)
	@$(BIN)/python examples/crawl.py

web: build
	@$(BIN)/python examples/web.py $(ARGS)

test: build core-test
	$(call say,testing with Python $(PYTHON_VERSION))
	@$(BIN)/python -m pytest $(ARGS)

# What `make check` leaves to `make test`: programs by the dozen, and long runs.
LENGTHY = stress test_leaks.py test_ending.py test_main_functions.py test_views.py test_blobs.py \
    test_renewal.py test_left_threads.py test_interrupt.py test_coroutines.py test_coroutine_control.py \
    test_size.py test_expiry_races.py test_signals.py test_worker_abuse.py test_forking.py test_anyio.py \
    test_dask.py test_ray.py test_examples.py test_packages.py test_processes.py test_process_faults.py \
    test_executor_processes.py

check: build core-test
	$(call say,quick tests with Python $(PYTHON_VERSION))
	@$(BIN)/python -m pytest -q -x -m "not slow" $(LENGTHY:%=--ignore=tests/%) $(ARGS)

# The suite that comes with the package (`python -m aiointerpreters bench --help`), with all its
# peers.  The original package has our name, so it has a folder of its own; it needs 3.14.
RESULT = $(if $(findstring --json,$(ARGS)),,--json $(BUILD)/bench.json)

bench: build $(VENV)/.peers
	@$(BIN)/python -m aiointerpreters bench --original $(ORIGINAL) $(RESULT) $(ARGS)

bench-record: RESULT = --json benchmarks/results/$(PYTHON_VERSION).json
bench-record: bench

# What else is measured, about this package by itself.
bench-more: build
	@for program in $(filter-out benchmarks/report.py benchmarks/serving.py benchmarks/beyond.py,$(wildcard benchmarks/[!_]*.py)); do \
	     echo "make: running $$program"; $(BIN)/python $$program $(ARGS) || exit 1; \
	 done

bench-values: build
	@$(BIN)/python benchmarks/values.py $(ARGS)

$(VENV)/.load: $(VENV)/.filled
	@$(UV_INSTALL) --group load
	@touch $@

# A web service under load, some minutes of a quiet machine: where it renders, and how responsive it is.
bench-web: build $(VENV)/.load
	@$(BIN)/python benchmarks/serving.py --json benchmarks/results/serving.json $(ARGS)

$(VENV)/.plots: $(VENV)/.filled
	@$(UV_INSTALL) --group plots
	@touch $@

# What a task costs on Dask and Ray, some minutes as well.
bench-beyond: build
	@$(BIN)/python benchmarks/beyond.py --json benchmarks/results/beyond.json $(ARGS)

# The tables and plots of docs/benchmarks.md, docs/web.md and more, from what has been recorded.
bench-docs: build $(VENV)/.plots
	@$(BIN)/python benchmarks/report.py $(ARGS)

# What one event loop can feed: measured, worked out, and written into docs/scaling.md.
scaling: build $(VENV)/.plots
	@$(BIN)/python benchmarks/scaling.py core costs closed loops report --docs $(ARGS)

# The C core's tests need no Python, only the build tools in the virtual environment.
SANITIZE ?= none
PORTABLE ?= false
comma := ,
CORE = build/core/$(subst $(comma),+,$(SANITIZE))$(if $(filter true,$(PORTABLE)),-portable)$(VARIANT)

# ThreadSanitizer can't cope with every kernel's address randomization; where it may be, it's off.
core-test: $(VENV)/.filled
	$(call say,testing the C core in $(CORE))
	@PATH="$(BIN):$$PATH"; mkdir -p $(dir $(CORE)); \
	 [ -f $(CORE)/build.ninja ] || meson setup $(CORE) -Dpython=false -Dcore_tests=true \
	     --buildtype=debugoptimized -Db_ndebug=false -Db_sanitize=$(SANITIZE) -Db_lundef=false \
	     -Dportable=$(PORTABLE) $(SETUP) >$(CORE).log 2>&1 || { cat $(CORE).log >&2; exit 1; }; \
	 if [ $(SANITIZE) = thread ] && setarch -R true 2>/dev/null; then set -- --wrapper 'setarch -R'; fi; \
	 ninja --quiet -C $(CORE) && meson test -C $(CORE) --no-rebuild --print-errorlogs "$$@"

# The extension under AddressSanitizer and UBSan, in an interpreter that isn't: the sanitizer's
# library must come first.  Leaks are not reported, as the interpreter keeps memory at its end.
# pytest must not swallow the sanitizer's last words: --capture=sys leaves the descriptors alone.
asan_build = $(MAKE) --no-print-directory build VARIANT=-asan \
    SETUP='-Db_sanitize=address,undefined -Db_lundef=false -Dbuildtype=debugoptimized'
asan_python = LD_PRELOAD=$$($${CC:-cc} -print-file-name=libasan.so) PYTHONMALLOC=malloc \
    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
    UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
    build/$(PYTHON_VERSION)-asan/venv/bin/python

# These test programs that measure, and none of the extension's code; or processes beside it, of which
# some can't have the sanitizer's library.
NO_EXTENSION = test_bench.py test_bench_sections.py test_report.py test_scaling_model.py \
    test_dask.py test_ray.py test_examples.py test_packages.py test_processes.py \
    test_process_faults.py test_process_logging.py test_executor_processes.py

asan:
	@$(asan_build)
	$(call say,testing the extension under AddressSanitizer)
	@$(asan_python) -m pytest --timeout 300 --capture=sys $(NO_EXTENSION:%=--ignore=tests/%) $(ARGS)

# Ten minutes of everything at random; tests/stress/stress.py says more.
stress: export STRESS_SECONDS ?= 600
stress:
ifeq ($(SANITIZE),address)
	@$(asan_build)
	@$(asan_python) tests/stress/stress.py $(ARGS)
else
	@$(MAKE) --no-print-directory build
	@$(BIN)/python tests/stress/stress.py $(ARGS)
endif

# The decoder of messages, fed with arbitrary bytes by libFuzzer, under the same sanitizers.  What
# it finds is in build/fuzz, and is where the next run goes on.  Other versions of clang name the
# files of its runtime without the machine's name.
FUZZ_SECONDS ?= 60
FUZZ_WORK = build/fuzz
runtime = $(firstword $(wildcard $(foreach name,$(1)-$(shell uname -m)$(2) $(1)$(2), \
    $(shell clang -print-file-name=libclang_rt.$(name) 2>/dev/null))))

fuzz:
	@fuzzer='$(call runtime,fuzzer_no_main,.a)'; asan='$(call runtime,asan,.so)'; \
	 if [ -z "$$fuzzer" ] || [ -z "$$asan" ]; then \
	     echo "make: no clang with libFuzzer and AddressSanitizer;" \
	          "on Debian: apt-get install clang libclang-rt-dev" >&2; exit 1; \
	 fi; \
	 CC=clang $(MAKE) --no-print-directory build VARIANT=-fuzz \
	     SETUP="-Dfuzzer=$$fuzzer -Db_sanitize=address,undefined -Db_lundef=false \
	            -Dbuildtype=debugoptimized -Db_ndebug=false" || exit 1; \
	 echo "make: fuzzing the decoder for $(FUZZ_SECONDS) seconds"; \
	 LD_PRELOAD=$$asan PYTHONMALLOC=malloc \
	 ASAN_OPTIONS=allocator_may_return_null=1:leak_check_at_exit=0 \
	 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
	 build/$(PYTHON_VERSION)-fuzz/venv/bin/python tests/fuzz/fuzz_decode.py \
	     --seconds $(FUZZ_SECONDS) --work $(FUZZ_WORK) -- $(ARGS)

# Style and types ---------------------------------------------------------------------------------

C_FILES := $(wildcard src/*/*.[ch] tests/core/*.[ch] tests/fuzz/*.c benchmarks/core/*.c)

lint: $(VENV)/.lint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/clang-format --dry-run --Werror $(C_FILES)

format: $(VENV)/.lint
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/clang-format -i $(C_FILES)

typecheck: $(VENV)/.filled
	@for version in 3.13 3.14 3.15; do \
	     echo "make: checking types for Python $$version"; \
	     $(BIN)/mypy --python-executable $(BIN)/python --python-version $$version || exit 1; \
	 done

clean:
	rm -rf build dist
