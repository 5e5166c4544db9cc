# Evection - see `make help`.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

BUILD ?= build
ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(origin CXX),default)
CXX := g++
endif
PYTHON ?= /usr/bin/python3
# V=1 shows the commands.
Q := $(if $(V),,@)
say = @$(if $(V),:,printf '  %-4s %s\n' $(1) $(2))
# Rooms from the ground up. Each is one archive; a room's tests link only what stands below it.
ROOMS := core math store learn reward script jobs serve cli

PACKAGES := luajit openblas yaml-0.1 sqlite3 libmicrohttpd jansson libxxhash libsodium libcurl libseccomp
pkg_cflags = $(shell pkg-config --cflags $(PACKAGES))
pkg_libs = $(shell pkg-config --libs $(PACKAGES))

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Werror
OPT := -O3 -g
ifdef SAN
OPT := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
LDSAN := -fsanitize=address,undefined
endif
override CFLAGS += -std=c11 -D_GNU_SOURCE $(OPT) $(WARN) -pthread -fPIC
LDFLAGS += -rdynamic

sources = $(wildcard runtime/$(1)/*.c)
objects = $(patsubst runtime/%.c,$(BUILD)/obj/%.o,$(call sources,$(1)))
archive = $(BUILD)/lib$(1).a
# below ROOM: the archives of ROOM and of every room under it, topmost first (the linker's order)
reverse = $(if $(1),$(call reverse,$(wordlist 2,$(words $(1)),$(1))) $(firstword $(1)))
index = $(words $(call _upto,$(1),$(ROOMS)))
_upto = $(if $(2),$(firstword $(2)) $(if $(filter $(1),$(firstword $(2))),,$(call _upto,$(1),$(wordlist 2,$(words $(2)),$(2)))))
below = $(foreach r,$(call reverse,$(call _upto,$(1),$(ROOMS))),$(call archive,$(r)))

ALL_OBJECTS := $(foreach r,$(ROOMS),$(call objects,$(r)))
UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(wildcard tests/unit/*.c))

PREFIX ?= /usr/local
FUZZ_SECONDS ?= 10
E2E := $(filter-out %/support.py,$(sort $(wildcard tests/e2e/*.py)))
FUZZERS := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(filter-out tests/fuzz/driver.c,$(wildcard tests/fuzz/*.c)))

.PHONY: help deps deps-bench build demo test check unit lua e2e fuzz soak-items soak-ledger soak-scribe soak-serve bench sanitize valgrind lint install uninstall clean
help: ## this list
	@awk -F':.*## ' '/^[a-z][a-zA-Z_-]*:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## installs the Debian packages that are missing (as root or with sudo)
	@./scripts/deps.sh

deps-bench: ## also what the benchmarks' peers need: faiss, hnswlib, g++, node, PyTorch
	@./scripts/deps.sh bench

demo: deps ## imports, fits, evolves, compares, serves: the whole story in one command
	@$(MAKE) --no-print-directory build
	@./scripts/demo.sh

test: deps ## everything that can fail: units, Lua, whole-program runs, short fuzzing
	@$(MAKE) --no-print-directory check

check: build $(UNIT_TESTS) $(FUZZERS) $(BUILD)/bench/load
	@FUZZ_SECONDS=2 EVECTION=$(BUILD)/evection $(PYTHON) tests/run.py $(UNIT_TESTS) $(FUZZERS) tests/lua/run.lua $(E2E)

build: $(BUILD)/evection ## the evection binary at build/evection

$(BUILD)/evection: $(foreach r,$(ROOMS),$(call archive,$(r)))
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) $(LDSAN) -pthread -o $@ -Wl,--whole-archive $(BUILD)/libcli.a -Wl,--no-whole-archive $(call below,cli) $(pkg_libs) -lm -ldl

$(BUILD)/obj/%.o: runtime/%.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CFLAGS) $(pkg_cflags) -MMD -MP -c -o $@ $<

define room_rule
$(call archive,$(1)): $(call objects,$(1))
	@mkdir -p $$(@D)
	@rm -f $$@
	$$(Q)ar rcs $$@ $(call objects,$(1))
.PHONY: unit-$(1)
unit-$(1): $(filter $(BUILD)/unit/$(1)_%,$(UNIT_TESTS))
	@$(PYTHON) tests/run.py $$^
endef
$(foreach r,$(ROOMS),$(eval $(call room_rule,$(r))))

define unit_rule
$(BUILD)/unit/$(1): tests/unit/$(1).c $(call below,$(firstword $(subst _, ,$(1))))
	@mkdir -p $$(@D)
	$$(call say,CC,$$<)
	$$(Q)$(CC) $(CFLAGS) $(pkg_cflags) -Iruntime -MMD -MP -o $$@ $$< $(call below,$(firstword $(subst _, ,$(1)))) $(LDFLAGS) $(LDSAN) $(pkg_libs) -lcmocka -lm -ldl
endef
$(foreach t,$(notdir $(UNIT_TESTS)),$(eval $(call unit_rule,$(t))))

unit: $(UNIT_TESTS) ## the C unit tests
	@$(PYTHON) tests/run.py $^

lua: build ## the Lua tests, by busted inside the binary
	@EVECTION=$(BUILD)/evection $(PYTHON) tests/run.py tests/lua/run.lua

e2e: build $(BUILD)/bench/load ## the whole-program tests
	@EVECTION=$(BUILD)/evection $(PYTHON) tests/run.py $(E2E)

# Fuzz targets always run under the sanitizers, whatever the rest is built with.
SAN_FLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
FUZZ_SOURCES := $(foreach r,core math store learn reward,$(wildcard runtime/$(r)/*.c)) $(addprefix runtime/serve/,arrivals.c catalog.c catalog_json.c masks.c wire.c canary.c canary_state.c)
FUZZ_OBJECTS := $(patsubst runtime/%.c,$(BUILD)/fuzz/obj/%.o,$(FUZZ_SOURCES))
$(BUILD)/fuzz/obj/%.o: runtime/%.c
	@mkdir -p $(@D)
	$(call say,SAN,$<)
	$(Q)$(CC) $(CFLAGS) -O1 $(SAN_FLAGS) $(pkg_cflags) -MMD -MP -c -o $@ $<
$(BUILD)/fuzz/libruntime.a: $(FUZZ_OBJECTS)
	@rm -f $@
	$(Q)ar qcs $@ $^ # appended: two rooms may have files of one name
$(BUILD)/fuzz/%: tests/fuzz/%.c tests/fuzz/driver.c $(BUILD)/fuzz/libruntime.a
	$(call say,FUZZ,$<)
	$(Q)$(CC) $(CFLAGS) -O1 $(SAN_FLAGS) $(pkg_cflags) -Iruntime -o $@ $^ $(pkg_libs) -lm

fuzz: $(FUZZERS) ## mutates inputs of every parser for FUZZ_SECONDS each
	@FUZZ_SECONDS=$(FUZZ_SECONDS) $(PYTHON) tests/run.py $^

KILL_ROUNDS ?= 10000
soak-items: $(BUILD)/unit/store_items_kill ## KILL_ROUNDS kill -9 / reopen rounds on a live table, each checked against a model
	@EVECTION_KILL_ROUNDS=$(KILL_ROUNDS) $<

LEDGER_KILL_ROUNDS ?= 1000
soak-ledger: $(BUILD)/unit/reward_ledger_kill ## LEDGER_KILL_ROUNDS kill -9 rounds during ingest: nothing acknowledged is lost or counted twice
	@EVECTION_KILL_ROUNDS=$(LEDGER_KILL_ROUNDS) $<

SCRIBE_KILL_ROUNDS ?= 2000
soak-scribe: $(BUILD)/unit/serve_scribe_kill ## SCRIBE_KILL_ROUNDS kill -9 rounds of the service's ledger writer under load: every row once, every answer true
	@EVECTION_KILL_ROUNDS=$(SCRIBE_KILL_ROUNDS) $<

# What bench-index measures: our archives, and the peers where their headers are (make deps-bench).
FAISS := $(firstword $(wildcard $(addsuffix /faiss/IndexHNSW.h,/usr/include /usr/local/include)))
HNSWLIB := $(firstword $(wildcard $(addsuffix /hnswlib/hnswlib.h,/usr/include /usr/local/include)))
INDEX_BENCH := $(BUILD)/bench/index_ours $(BUILD)/bench/index_items $(if $(and $(FAISS),$(HNSWLIB),$(shell command -v $(CXX))),$(BUILD)/bench/index_peers)
$(BUILD)/bench/index_%: tests/bench/index_%.c tests/bench/index_protocol.h $(call below,store)
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CFLAGS) -march=native $(pkg_cflags) -Iruntime -o $@ $< $(call below,store) $(LDFLAGS) $(pkg_libs) -lm -ldl

# faiss is a static library: the definitions of its distances in index_peers.cpp come first and stand.
$(BUILD)/bench/index_peers: tests/bench/index_peers.cpp tests/bench/index_protocol.h
	@mkdir -p $(@D)
	$(call say,CXX,$<)
	$(Q)$(CXX) -std=c++17 -D_GNU_SOURCE -O3 -march=native -Wall -fopenmp -pthread $(if $(BENCH_FAISS_AS_PACKAGED),-DFAISS_AS_PACKAGED) $(shell pkg-config --cflags openblas) -o $@ $< \
	  -Wl,--allow-multiple-definition -lfaiss $(shell pkg-config --libs openblas)

bench-index: $(INDEX_BENCH) ## candidate storage against faiss, hnswlib, usearch (make deps-bench first)

$(BUILD)/bench/ledger_ingest: tests/bench/ledger_ingest.c $(call below,reward)
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CFLAGS) $(pkg_cflags) -Iruntime -o $@ $< $(call below,reward) $(LDFLAGS) $(pkg_libs) -lm -ldl
$(BUILD)/bench/scribe_feed: tests/bench/scribe_feed.c $(call below,serve)
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CFLAGS) $(pkg_cflags) -Iruntime -o $@ $< $(call below,serve) $(LDFLAGS) $(pkg_libs) -lm -ldl
bench-scribe: $(BUILD)/bench/scribe_feed ## slates into the ledger through the service's writer, against writing them straight
bench-ledger: $(BUILD)/bench/ledger_ingest ## rows into the ledger, against raw batched SQLite inserts

$(BUILD)/bench/asks: tests/bench/asks.c $(call below,script)
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CFLAGS) $(pkg_cflags) -Iruntime -o $@ $< $(call below,script) $(LDFLAGS) $(pkg_libs) -lm -ldl
bench-asks: $(BUILD)/bench/asks ## requests/s of one core for a composition (COMPOSITION=… DATA=…; else a few on a generated world)
$(BUILD)/bench/canary: tests/bench/canary.c $(call below,serve)
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CFLAGS) $(pkg_cflags) -Iruntime -o $@ $< $(call below,serve) $(LDFLAGS) $(pkg_libs) -lm -ldl
bench-canary: $(BUILD)/bench/canary ## false alarms and delay of canaries in the simulated feed

# A service under load: the generator, and the least that its library can do for an answer.
$(BUILD)/bench/load $(BUILD)/bench/serve_bare: $(BUILD)/bench/%: tests/bench/%.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CFLAGS) $(pkg_cflags) -o $@ $< $(pkg_libs) -lm
bench-serve: $(BUILD)/bench/load $(BUILD)/bench/serve_bare ## a service under load, swaps and kills (BENCH_PARTS chooses)

SOAK_SECONDS ?= 1800
soak-serve: build $(BUILD)/bench/load ## SOAK_SECONDS of load, swaps, events and kills: flat memory, flat latency, no leaked descriptor
	@SOAK_SECONDS=$(SOAK_SECONDS) EVECTION=$(BUILD)/evection $(PYTHON) tests/bench/serve_soak.py
$(BUILD)/bench/policy_twin: tests/bench/policy.c $(call below,store)
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CFLAGS) -march=native $(pkg_cflags) -Iruntime -o $@ $< $(call below,store) $(LDFLAGS) $(pkg_libs) -lm -ldl
bench-policy: $(BUILD)/bench/policy_twin ## a ranking policy in Lua against the same in plain C

bench-%: build
	@mkdir -p $(BUILD)/bench
	@EVECTION=$(BUILD)/evection $(PYTHON) tests/bench/$*.py

BENCHES := $(filter-out support index_% train_% estimators_% bandits_% serve_%,$(patsubst tests/bench/%.py,%,$(sort $(wildcard tests/bench/*.py))))
bench: ## all benchmarks; docs/results.md is made from what they write
	@for b in $(BENCHES); do $(MAKE) --no-print-directory bench-$$b || exit 1; done
	@$(PYTHON) scripts/results.py

sanitize: deps ## everything again under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(MAKE) --no-print-directory SAN=1 BUILD=$(BUILD)-san check

valgrind: $(UNIT_TESTS) ## the C unit tests under valgrind
	@for t in $(UNIT_TESTS); do echo $$t; EVECTION_SLOW=1 valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite --show-leak-kinds=definite $$t >/dev/null || exit 1; done

lint: ## cppcheck, luacheck and the order of the rooms; warnings are errors
	@tests/lint/rooms.sh
	cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr --suppress=missingIncludeSystem --error-exitcode=1 -j 2 runtime
	luacheck -q lua agents tests/lua tests/planted tests/attacks

$(BUILD)/evection.1: $(BUILD)/evection scripts/manual.py
	@$(PYTHON) scripts/manual.py $(BUILD)/evection > $@

install: build $(BUILD)/evection.1 ## installs under PREFIX (default /usr/local), below DESTDIR
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/evection $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	install -m 755 $(BUILD)/evection $(DESTDIR)$(PREFIX)/bin/evection
	cp -R lua agents policies $(DESTDIR)$(PREFIX)/share/evection/
	for r in $(filter-out cli,$(ROOMS)); do install -d $(DESTDIR)$(PREFIX)/include/evection/$$r; install -m 644 runtime/$$r/$$r.h $(DESTDIR)$(PREFIX)/include/evection/$$r/; install -m 644 $(BUILD)/lib$$r.a $(DESTDIR)$(PREFIX)/lib/libevection-$$r.a; done
	install -m 644 $(BUILD)/evection.1 $(DESTDIR)$(PREFIX)/share/man/man1/evection.1
	install -m 644 scripts/completion.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/evection
	sed -e 's|@PREFIX@|$(PREFIX)|' -e "s|@VERSION@|$$($(BUILD)/evection --version | cut -d' ' -f2)|" scripts/evection.pc.in > $(DESTDIR)$(PREFIX)/lib/pkgconfig/evection.pc

uninstall: ## removes what install put there
	rm -rf $(DESTDIR)$(PREFIX)/bin/evection $(DESTDIR)$(PREFIX)/share/evection $(DESTDIR)$(PREFIX)/share/man/man1/evection.1 $(DESTDIR)$(PREFIX)/include/evection $(DESTDIR)$(PREFIX)/lib/pkgconfig/evection.pc $(DESTDIR)$(PREFIX)/share/bash-completion/completions/evection $(DESTDIR)$(PREFIX)/lib/libevection-*.a

clean: ## removes what was built
	rm -rf $(BUILD) $(BUILD)-san

-include $(ALL_OBJECTS:.o=.d) $(FUZZ_OBJECTS:.o=.d) $(UNIT_TESTS:=.d)
