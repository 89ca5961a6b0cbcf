# ect: `make demo` and `make test` are the two commands. `make help` lists the rest.
# Variants build into their own directory: BUILD=build-asan SAN=address,undefined.

BUILD ?= build
PREFIX ?= /usr/local
CC ?= gcc
OPT ?= -O2
SAN ?=
ONEDNN ?= $(if $(wildcard /usr/include/oneapi/dnnl/dnnl.h /usr/local/include/oneapi/dnnl/dnnl.h),1,0)

ifneq ($(SAN),)
SANFLAGS := -fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=undefined
endif

pkg = $(shell pkg-config $(1) $(2) 2>/dev/null)
LIBS_PC := lua5.4 sqlite3 libcurl libpng libjpeg jansson zlib libzip openblas lapacke
CPPFLAGS += -I. -I$(BUILD)/gen -D_GNU_SOURCE -DECT_ONEDNN=$(ONEDNN) -DECT_PREFIX='"$(PREFIX)"' $(call pkg,--cflags,$(LIBS_PC))
# No fused multiply-add outside contractions: exact kernels give the same bits everywhere. The two -fno change no value: they give up
# errno and exception flags, so that loops with sqrt or a comparison can be vectorised.
CFLAGS += -std=c11 $(OPT) -g -ffp-contract=off -fno-math-errno -fno-trapping-math -fopenmp -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Werror $(SANFLAGS)
LDFLAGS += -fopenmp $(SANFLAGS)
LDLIBS += $(call pkg,--libs,$(LIBS_PC)) $(if $(filter 1,$(ONEDNN)),-ldnnl) -ldl -lm

SRC := $(sort $(wildcard core/*.c core/*/*.c kernels/*.c kernels/cpu/*.c lua/*.c db/*.c reports/*.c runner/*.c))
OBJ := $(SRC:%.c=$(BUILD)/obj/%.o) $(BUILD)/obj/gen/embed.o
LIBOBJ := $(filter-out $(BUILD)/obj/runner/main.o,$(OBJ))
EMBED := $(sort $(wildcard lua/ect/*.lua db/*.sql reports/*.lua reports/*.sql reports/*.css reports/*.js experiments/*.lua))

TEST_C := $(sort $(wildcard tests/base/*.c tests/core/*.c tests/kernels/*.c tests/db/*.c tests/lua/*.c tests/reports/*.c tests/runner/*.c))
TEST_SH := $(sort $(foreach d,base core kernels db lua reports runner,$(wildcard tests/$(d)/*.sh)))
TEST_BIN := $(TEST_C:%.c=$(BUILD)/%)
BENCH_BIN := $(patsubst %.c,$(BUILD)/%,$(sort $(wildcard tests/bench/*.c)))

.PHONY: all demo test check lint golden bench fuzz mutants deps help info clean install FORCE
all: $(BUILD)/ect ## build $(BUILD)/ect (the default)
	@if [ -t 1 ]; then echo "built $(BUILD)/ect   (try: $(BUILD)/ect help, make demo, make test)"; fi

$(BUILD)/ect: $(BUILD)/obj/runner/main.o $(BUILD)/libect.a
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/libect.a: $(LIBOBJ)
	@rm -f $@
	ar rcs $@ $^

# Flags are part of a build's identity: a change of compiler, options or libraries rebuilds.
$(BUILD)/flags: FORCE
	@mkdir -p $(BUILD)
	@echo '$(CC) $(CPPFLAGS) $(CFLAGS) $(LDLIBS)' | cmp -s - $@ || echo '$(CC) $(CPPFLAGS) $(CFLAGS) $(LDLIBS)' > $@
FORCE:

$(BUILD)/obj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/obj/gen/embed.o: $(BUILD)/gen/embed.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/gen/embed.c: core/base/embed.sh $(EMBED)
	@mkdir -p $(@D)
	sh core/base/embed.sh $(EMBED) > $@.tmp && mv $@.tmp $@

$(BUILD)/tests/%: tests/%.c tests/test.h $(BUILD)/libect.a $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -MF $@.d -o $@ $< $(LDFLAGS) $(BUILD)/libect.a $(LDLIBS) -lcmocka

GOLDEN_C := $(sort $(wildcard tests/golden/*.c))
$(BUILD)/tests/golden/golden: $(GOLDEN_C) tests/golden/golden.h $(BUILD)/libect.a $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -o $@ $(GOLDEN_C) $(LDFLAGS) $(BUILD)/libect.a $(LDLIBS)

FUZZ_BIN := $(patsubst %.c,$(BUILD)/%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
$(BUILD)/tests/fuzz/%: tests/fuzz/%.c tests/fuzz/replay.c tests/fuzz/fuzz.h tests/fuzz/zip.h $(BUILD)/libect.a $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -o $@ $< tests/fuzz/replay.c $(LDFLAGS) $(BUILD)/libect.a $(LDLIBS)

-include $(OBJ:.o=.d) $(TEST_BIN:=.d)

demo: ## install what is missing, build, run the demo sweep, show its report
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory -j2 all
	@sh experiments/demo.sh $(BUILD)

test: ## run the tests; T=dir/name runs one (T=core/graph)
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory -j2 test-build
	@BUILD=$(BUILD) sh tests/run.sh $(if $(T),$(T),$(TEST_C:tests/%.c=%) $(TEST_SH:tests/%.sh=%))

.PHONY: test-build
test-build: $(BUILD)/ect $(if $(T),$(patsubst %,$(BUILD)/tests/%,$(if $(wildcard tests/$(T).c),$(T))),$(TEST_BIN)) $(BUILD)/tests/golden/golden $(FUZZ_BIN)

check: ## the tests under address and undefined-behaviour sanitizers
	@$(MAKE) --no-print-directory deps
	@ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 LSAN_OPTIONS=suppressions=$(CURDIR)/tests/lsan.supp:print_suppressions=0 \
	  ECT_CHECK=1 $(MAKE) --no-print-directory BUILD=$(BUILD)-asan SAN=address,undefined OPT=-O1 test

lint: ## include-direction rules, formatting, static analysis
	@sh tests/lint.sh

golden: ## compare with the published code's vectors: DIR=path
	@$(MAKE) --no-print-directory -j2 $(BUILD)/tests/golden/golden
	@$(BUILD)/tests/golden/golden $(if $(DIR),$(DIR),tests/golden)

bench: ## measure against peers on this machine; B=group picks one (cpu, conv, ledger, metrics)
	@$(MAKE) --no-print-directory -j2 all $(BENCH_BIN)
	@BUILD=$(BUILD) sh tests/bench/run.sh $(B)

fuzz: ## feed the readers of files with broken ones; T=pickle picks one, SECONDS=60 for each
	@SECONDS_EACH=$(if $(SECONDS),$(SECONDS),60) sh tests/fuzz/run.sh $(T)

mutants: ## break the code on purpose, one patch at a time, and see a test notice each
	@sh tests/mutants/run.sh

deps: ## install the Debian packages that are missing (root or sudo), else print the line to run
	@sh tests/deps.sh

info: ## what was found and how it builds
	@echo "compiler   $(CC) $$($(CC) -dumpfullversion)"
	@echo "flags      $(CFLAGS)"
	@echo "oneDNN     $(if $(filter 1,$(ONEDNN)),yes,no: portable C path only)"
	@for p in $(LIBS_PC); do printf '%-10s %s\n' $$p "$$(pkg-config --modversion $$p 2>/dev/null || echo missing)"; done
	@echo "build      $(BUILD)  ($(words $(SRC)) sources, $(words $(TEST_C)) test programs, $(words $(TEST_SH)) test scripts)"

install: all ## install under PREFIX (/usr/local)
	install -D -m755 $(BUILD)/ect $(DESTDIR)$(PREFIX)/bin/ect
	for f in experiments/*.lua experiments/data/*; do install -D -m644 $$f $(DESTDIR)$(PREFIX)/share/ect/$$f; done

clean: ## remove what was built
	rm -rf $(BUILD) $(BUILD)-asan

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18
