# Evection - see `make help`.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

BUILD ?= build
CC ?= gcc
PYTHON ?= /usr/bin/python3
# Rooms from the ground up. Each is one archive; a room's tests link only what stands below it.
ROOMS := core math store learn reward script jobs serve cli

PACKAGES := luajit openblas yaml-0.1 sqlite3 libmicrohttpd jansson libxxhash libsodium
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

.PHONY: help build unit clean
help: ## this list
	@awk -F':.*## ' '/^[a-z][a-zA-Z_-]*:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: $(BUILD)/evection ## the evection binary at build/evection

$(BUILD)/evection: $(foreach r,$(ROOMS),$(call archive,$(r)))
	$(CC) $(LDFLAGS) $(LDSAN) -pthread -o $@ -Wl,--whole-archive $(BUILD)/libcli.a -Wl,--no-whole-archive $(call below,cli) $(pkg_libs) -lm -ldl

$(BUILD)/obj/%.o: runtime/%.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(pkg_cflags) -MMD -MP -c -o $@ $<

define room_rule
$(call archive,$(1)): $(call objects,$(1))
	@mkdir -p $$(@D)
	@rm -f $$@
	ar rcs $$@ $(call objects,$(1))
.PHONY: unit-$(1)
unit-$(1): $(filter $(BUILD)/unit/$(1)_%,$(UNIT_TESTS))
	@for t in $$^; do OPENBLAS_NUM_THREADS=1 $$$$t || exit 1; done
endef
$(foreach r,$(ROOMS),$(eval $(call room_rule,$(r))))

define unit_rule
$(BUILD)/unit/$(1): tests/unit/$(1).c $(call below,$(firstword $(subst _, ,$(1))))
	@mkdir -p $$(@D)
	$(CC) $(CFLAGS) $(pkg_cflags) -Iruntime -MMD -MP -o $$@ $$< $(call below,$(firstword $(subst _, ,$(1)))) $(LDFLAGS) $(LDSAN) $(pkg_libs) -lcmocka -lm -ldl
endef
$(foreach t,$(notdir $(UNIT_TESTS)),$(eval $(call unit_rule,$(t))))

unit: $(foreach r,$(ROOMS),unit-$(r)) ## the C unit tests

clean: ## removes what was built
	rm -rf $(BUILD)

-include $(ALL_OBJECTS:.o=.d) $(UNIT_TESTS:=.d)
