# make                       build the daemon and the tool
# make demo                  a minute with a node of its own; installs Debian packages that are missing
# make check                 every test; installs Debian packages that are missing
# make check-unit            unit tests and golden transcripts only
# make check-mount           tests on a real mount only
#                            TESTS='FILE...' picks tests of these two, such as tests/mount/tool.t
#                            or build/gcc/tests/unit/test_tree
# make check-sim             simulated clusters: 10^6 events; SEED=n runs that one seed, KIND=node
#                            with whole nodes instead of the consensus core
# make check-mutants         which deliberate bugs the simulator finds, and how soon
# make soak                  simulated clusters of each KIND for MINUTES=n, from SEED=n on
# make bench                 what a lock costs, beside its floors; takes some minutes, and installs
#                            Debian packages that are missing. SECONDS=N for each measurement,
#                            BENCH_DIR=dir on the disk that is to be measured
# make lint                  format, clang-tidy, cppcheck, shellcheck, layering: no findings allowed
# make format                formats the C sources
# make run MOUNT=dir         a node in the foreground; ARGS='...' are options for it
# make install, uninstall    to $(DESTDIR)$(PREFIX)
# make packages              installs the Debian packages that building and testing need
# make clean
#
# CC=clang, SANITIZE=address,undefined and COVERAGE=1 each build in a folder of their own below
# build/. CFLAGS, CPPFLAGS and LDFLAGS are the user's; what the project needs comes on top.
# WERROR=1 makes warnings errors, V=1 shows the commands.

PREFIX     ?= /usr/local
DESTDIR    ?=
PKG_CONFIG ?= pkg-config
CFLAGS     ?= -O2 -g
SANITIZE   ?=
COVERAGE   ?=
WERROR     ?=
V          ?=
# Seconds after which one test file is killed, and test files that run at a time.
TEST_TIMEOUT ?= 600
TEST_JOBS    ?= 2

ifeq ($(origin CC),default)
CC := gcc
endif
ifneq (,$(findstring NDEBUG,$(CC) $(CPPFLAGS) $(CFLAGS)))
$(error NDEBUG is not supported: the assertions are part of the program)
endif

.DELETE_ON_ERROR:
.SUFFIXES:
.SECONDARY: # no file is deleted as an intermediate one
MAKEFLAGS += --no-builtin-rules --no-print-directory
Q    := $(if $(filter 1,$(V)),,@)
say   = $(if $(Q),@printf '  %-7s %s\n' '$(1)' '$(2)')
empty :=
space := $(empty) $(empty)
comma := ,

# Variants

variant := $(subst $(space),-,$(notdir $(CC)))
ifneq (,$(SANITIZE))
variant := $(variant)-$(if $(findstring address,$(SANITIZE)),asan,$(subst $(comma),-,$(SANITIZE)))
endif
variant := $(variant)$(if $(COVERAGE),-cov)
BUILD := build/$(variant)

WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
	-Wcast-qual -Wvla -Wundef -Wconversion -Wno-sign-conversion \
	-Werror=implicit-function-declaration $(if $(WERROR),-Werror)
required_cppflags := -I. -I$(BUILD)/gen -D_GNU_SOURCE
required_cflags   := -std=c11 -pthread -fstack-protector-strong
required_ldflags  := -pthread -Wl,--as-needed
ifneq (,$(SANITIZE))
required_cflags  += -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer
required_ldflags += -fsanitize=$(SANITIZE)
else ifeq (,$(filter -O0,$(lastword $(filter -O%,-O0 $(CFLAGS)))))
# Only with optimisation, without which the C library warns.
required_cppflags += -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
endif
ifneq (,$(COVERAGE))
required_cflags  += --coverage
required_ldflags += --coverage
endif
# Empty where the packages are missing: the rule of $(BUILD)/flags says so.
lib_cflags := $(shell $(PKG_CONFIG) --cflags fuse3 libuv 2>/dev/null)
lib_libs   := $(shell $(PKG_CONFIG) --libs fuse3 libuv 2>/dev/null)
LIBS       := -lprotobuf-nanopb -lisal $(lib_libs)

compile = $(CC) $(required_cppflags) $(lib_cflags) $(CPPFLAGS) $(required_cflags) $(WARNINGS) $(CFLAGS)
link    = $(CC) $(required_ldflags) $(required_cflags) $(CFLAGS) $(LDFLAGS)

# Sources

objects = $(patsubst %.c,$(BUILD)/%.o,$(1))
gen_c   := $(patsubst fs/%.proto,$(BUILD)/gen/%.pb.c,$(wildcard fs/*.proto))
gen_h   := $(gen_c:.c=.h)
gen_o   := $(gen_c:.c=.o)
raft_o  := $(call objects,$(wildcard raft/*.c))
fs_o    := $(call objects,$(filter-out fs/main.c,$(wildcard fs/*.c)))
main_o  := $(BUILD)/fs/main.o
tool_o  := $(call objects,$(wildcard client-tools/*.c))
lib_o   := $(call objects,$(wildcard tests/lib/*.c))
unit_o  := $(call objects,$(wildcard tests/unit/test_*.c))

LOCKFSD    := $(BUILD)/lockfsd
LOCKFS     := $(BUILD)/lockfs
core       := $(BUILD)/core.a
testlib    := $(BUILD)/testlib.a
unit_tests := $(unit_o:.o=)
helpers    := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/mount/helpers/*.c))
preloads   := $(patsubst %.c,$(BUILD)/%.so,$(wildcard tests/mount/preload/*.c))
sim_o      := $(call objects,$(wildcard tests/sim/*.c))
mutants_o  := $(patsubst %.c,$(BUILD)/mutants/%.o,$(wildcard raft/*.c) tests/sim/mutants.c)
SIM        := $(BUILD)/sim
SIM_MUTANTS := $(BUILD)/sim-mutants
bench_o    := $(call objects,$(wildcard tests/bench/*.c))
benches    := $(bench_o:.o=)

all: $(LOCKFSD) $(LOCKFS)

-include $(wildcard $(BUILD)/*.d $(BUILD)/*/*.d $(BUILD)/*/*/*.d $(BUILD)/*/*/*/*.d)

$(LOCKFSD): $(main_o) $(core)
	$(call say,LINK,$@)
	$(Q)$(link) -o $@ $^ $(LIBS)

# The tool shares nothing with the daemon.
$(LOCKFS): $(tool_o) client-tools $(BUILD)/flags
	$(call say,LINK,$@)
	$(Q)$(link) -o $@ $(tool_o)

# Archives, so that a test links only what it uses. The folders, since a source may go away.
$(core): $(raft_o) $(fs_o) $(gen_o) raft fs
$(testlib): $(lib_o) tests/lib
$(core) $(testlib): $(BUILD)/flags
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $(filter %.o,$^)

$(unit_tests): %: %.o $(testlib) $(core)
	$(call say,LINK,$@)
	$(Q)$(link) -o $@ $^ $(LIBS) -lm

$(SIM): $(sim_o) $(core)
	$(call say,LINK,$@)
	$(Q)$(link) -o $@ $^ $(LIBS)

# The same, on a core with deliberate bugs, whose assertions only count.
$(SIM_MUTANTS): $(filter-out $(BUILD)/tests/sim/mutants.o,$(sim_o)) $(mutants_o) $(core)
	$(call say,LINK,$@)
	$(Q)$(link) -o $@ $^ $(LIBS)

$(mutants_o): $(BUILD)/mutants/%.o: %.c $(BUILD)/flags
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D) && $(compile) -Itests/sim/counting -DRAFT_MUTANTS -MMD -MP -c -o $@ $<

$(benches): %: %.o $(core)
	$(call say,LINK,$@)
	$(Q)$(link) -o $@ $^ $(LIBS)

$(BUILD)/%.o: %.c $(BUILD)/flags | $(gen_h)
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D) && $(compile) -MMD -MP -c -o $@ $<

# nanopb's code is not held to our warnings.
$(gen_o): %.o: %.c $(BUILD)/flags
	$(call say,CC,$@)
	$(Q)$(compile) -w -MMD -MP -c -o $@ $<

# Debian's generator needs Debian's Python: another one first in PATH lacks the protobuf module.
python := $(firstword $(wildcard /usr/bin/python3) python3)
$(BUILD)/gen/%.pb.c $(BUILD)/gen/%.pb.h: fs/%.proto fs/%.options $(BUILD)/flags
	$(call say,NANOPB,$<)
	$(Q)mkdir -p $(@D) && $(python) "$$(command -v nanopb_generator.py)" --quiet --strip-path \
		--error-on-unmatched -I fs -D $(BUILD)/gen $*.proto

# Programs and LD_PRELOAD libraries of the mount tests: plain C, nothing of the project linked, no
# sanitizer.
plain = $(CC) -I. -D_GNU_SOURCE -std=c11 -O2 -g $(WARNINGS) -pthread -MMD -MP -MF $@.d -MT $@
$(helpers): $(BUILD)/%: %.c $(BUILD)/flags
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D) && $(plain) -o $@ $<

$(preloads): $(BUILD)/%.so: %.c $(BUILD)/flags
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D) && $(plain) -shared -fPIC -o $@ $<

# Changes whenever a flag does, and everything is built anew.
$(BUILD)/flags: FORCE
	@$(if $(lib_libs),:,echo "libfuse3, libuv or pkg-config is missing: try make packages" >&2; exit 1)
	@mkdir -p $(@D); printf '%s\n' '$(compile)' '$(link) $(LIBS)' >$@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

# Tests. What needs packages that may be missing runs in a second make, which sees them installed.

packages:
	@tests/install_packages build check

check: packages
	$(Q)$(MAKE) check-unit
	$(Q)$(MAKE) check-sim
	$(Q)$(MAKE) check-mount

test_env = CI='$(CI)' BUILD='$(CURDIR)/$(BUILD)' TESTS_DIR='$(CURDIR)/tests' \
	LOCKFSD='$(CURDIR)/$(LOCKFSD)' SANITIZE='$(SANITIZE)' TEST_TIMEOUT='$(TEST_TIMEOUT)'
prove    = $(test_env) prove -j$(TEST_JOBS) --exec tests/lib/run_test

check-unit: $(unit_tests)
	$(Q)$(prove) $(or $(TESTS),$(unit_tests))

check-mount: $(LOCKFSD) $(LOCKFS) $(helpers) $(preloads) $(benches)
	$(Q)$(prove) $(or $(TESTS),$(wildcard tests/mount/*.t))

# With SEED, one run; without, the tests of the simulator.
check-sim: $(SIM) $(SIM_MUTANTS)
	$(Q)$(if $(SEED),$(SIM) --kind $(or $(KIND),raft) --seed $(SEED),$(prove) $(or $(TESTS),$(wildcard tests/sim/*.t)))

check-mutants: $(SIM_MUTANTS)
	$(Q)$(test_env) tests/sim/search_mutants $(or $(SEED),1)

soak: $(SIM)
	$(Q)status=0; for kind in $(or $(KIND),raft node); do \
		$(SIM) --kind $$kind --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED)) \
			--jobs $(TEST_JOBS) --keep-going --want-all || status=$$?; \
	done; exit $$status

# Every program and library of the tests, without running them.
test-programs: $(unit_tests) $(SIM) $(SIM_MUTANTS) $(helpers) $(preloads) $(benches)

bench: $(LOCKFSD) $(benches)
	@tests/install_packages bench
	$(Q)$(test_env) SECONDS='$(SECONDS)' BENCH_DIR='$(BENCH_DIR)' tests/bench/bench

layering: $(raft_o) $(fs_o) $(gen_o)
	$(Q)tests/layering --self-test
	$(Q)tests/layering $(BUILD)

lint: $(raft_o) $(fs_o) $(gen_o)
	$(Q)tests/lint $(BUILD) $(required_cppflags) $(lib_cflags) -std=c11

c_files = $(shell find raft fs client-tools examples tests -name '*.[ch]')
format:
	$(Q)clang-format -i $(c_files)

# Use

demo:
	@tests/install_packages build
	$(Q)$(MAKE) all
	@LOCKFSD='$(CURDIR)/$(LOCKFSD)' tests/demo

run: $(LOCKFSD)
	@$(if $(MOUNT),:,echo "make run MOUNT=dir: which directory?" >&2; exit 2)
	$(LOCKFSD) -f $(ARGS) $(MOUNT)

# What is installed: MODE SOURCE DESTINATION, below $(PREFIX).
man       := share/man
installed := 755:$(LOCKFSD):sbin/lockfsd \
	755:$(LOCKFS):bin/lockfs \
	644:fs/lockfs.h:include/lockfs.h \
	644:client-tools/lockfs.1:$(man)/man1/lockfs.1 \
	644:client-tools/lockfs.5:$(man)/man5/lockfs.5 \
	644:client-tools/lockfsd.8:$(man)/man8/lockfsd.8 \
	644:client-tools/completion.bash:share/bash-completion/completions/lockfs

install: $(LOCKFSD) $(LOCKFS)
	$(Q)set -e; for file in $(installed); do IFS=:; set -- $$file; unset IFS; \
		install -v -D -m $$1 $$2 "$(DESTDIR)$(PREFIX)/$$3"; done

uninstall:
	$(Q)for file in $(installed); do rm -fv "$(DESTDIR)$(PREFIX)/$${file##*:}"; done

clean:
	rm -rf build

.PHONY: all packages check check-unit check-sim check-mutants check-mount soak test-programs bench layering lint format demo \
	run install uninstall clean FORCE
