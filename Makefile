# Every job of this repository, by name. `make help` lists them.
PREFIX ?= /usr/local
DESTDIR ?=
# Where `make install` finds the two programs.
BUILD ?= target/release
CARGO ?= cargo
BINDIR = $(DESTDIR)$(PREFIX)/bin
SHAREDIR = $(DESTDIR)$(PREFIX)/share
# Both are on the paths of systemd under /usr and under /usr/local.
LIBDIR = $(DESTDIR)$(PREFIX)/lib
# The units name /etc/deltad; this is for staged trees with an /etc of their own.
SYSCONFDIR ?= /etc
# The system bus reads policy below /usr/share and below /etc, but not below /usr/local.
DBUSPOLICYDIR = $(if $(filter /usr,$(PREFIX)),$(SHAREDIR),$(DESTDIR)$(SYSCONFDIR))/dbus-1/system.d

.DEFAULT_GOAL := help
.PHONY: help build cuda demo table test test-vulkan test-arm test-cuda-emulated test-systemd test-package test-pressure bench bench-tables fuzz crash mutate install package clean deps

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## check for the system packages a build needs; install them with apt where allowed
	@scripts/deps.sh

build: deps ## build both programs
	$(CARGO) build --release --locked

cuda: ## the kernels for NVIDIA cards, beside the programs (nvcc; ARCHS=90 for an H100 alone)
	@scripts/cuda.sh $(BUILD)

demo: build ## quantize the shipped model, serve it, talk to it, stop it
	@scripts/demo.sh

table: build ## quantize the shipped model to every type, score and measure each
	@demo/table.py

# A driver of our own that runs the kernels for NVIDIA cards on the processor.
EMULATED = LD_LIBRARY_PATH=$(CURDIR)/target/cuda-emulated \
  DELTAD_KERNELS=$(CURDIR)/target/cuda-emulated/deltad-kernels.fatbin

test: ## formatting, lints without warnings, every test, a booted system where that can be
	@scripts/deps.sh test
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	@CARGO=$(CARGO) scripts/arm.sh check
	@scripts/mutate.py --check
	$(CARGO) test --release --locked --workspace
	@scripts/cuda.sh target/cuda-emulated emulated
	$(EMULATED) $(CARGO) test --release --locked --workspace --test cuda
	@tests/systemd/run.py

test-vulkan: deps ## the tests of devices, on a Vulkan driver made of software
	@CARGO=$(CARGO) scripts/test-vulkan.sh

test-arm: ## the kernels for aarch64, built across and run in an emulator (installs both with apt)
	@scripts/deps.sh arm
	@CARGO=$(CARGO) scripts/arm.sh test

test-cuda-emulated: deps ## our kernels for NVIDIA cards, run on the processor by a driver of our own
	@scripts/cuda.sh target/cuda-emulated emulated
	$(EMULATED) $(CARGO) test --release --locked -p ggml-kernels --test cuda
	EMULATED_COMPUTE=80 $(EMULATED) $(CARGO) test --release --locked -p ggml-kernels --test cuda wide::
	$(EMULATED) $(CARGO) test --release --locked --test engine card

bench: deps ## every benchmark; figures are printed
	$(CARGO) bench --locked --workspace --profile release

bench-tables: deps ## the tables of docs/performance.md beside llama.cpp, measured here (an hour)
	@CARGO=$(CARGO) scripts/bench-tables.sh

FUZZ_SECONDS ?= 3600
fuzz: deps ## feed every reader what nobody should send, for FUZZ_SECONDS (an hour)
	$(CARGO) test --release --locked --test fuzz -- --seconds $(FUZZ_SECONDS) --threads $$(nproc)

crash: deps ## cut the power of sessions a million times, kill 10,000 processes that write them and 1,000 daemons
	$(CARGO) test --release --locked --lib sessions::store -- --ignored --nocapture --test-threads 1
	$(CARGO) test --release --locked --test e2e kills -- --ignored --nocapture

mutate: deps ## break the kernels in one place after the other, and see that tests fail each time
	@CARGO="$(CARGO)" scripts/mutate.py

test-systemd: ## boot a small system in a container and drive the service there (root)
	@tests/systemd/run.py

test-package: ## install, upgrade and purge the package of `make package` in such a system (root)
	@tests/systemd/package.py
	@tests/systemd/lasting.py

test-pressure: ## take memory from the programs of `make package` in a virtual machine (root, qemu)
	@tests/systemd/pressure.py

install: ## install what `make build` (and `make cuda`) built under DESTDIR and PREFIX
	install -d $(BINDIR) $(SHAREDIR)/bash-completion/completions \
	  $(SHAREDIR)/zsh/site-functions $(SHAREDIR)/fish/vendor_completions.d \
	  $(SHAREDIR)/man/man1 $(SHAREDIR)/man/man5 \
	  $(LIBDIR)/systemd/system $(LIBDIR)/systemd/user $(LIBDIR)/sysusers.d $(LIBDIR)/tmpfiles.d \
	  $(SHAREDIR)/dbus-1/interfaces $(SHAREDIR)/dbus-1/services \
	  $(SHAREDIR)/dbus-1/system-services $(DBUSPOLICYDIR) \
	  $(SHAREDIR)/deltad/drop-ins $(DESTDIR)$(SYSCONFDIR)/deltad $(SHAREDIR)/applications \
	  $(SHAREDIR)/gnome-shell/search-providers $(SHAREDIR)/krunner/dbusplugins
	install -m 0755 $(BUILD)/deltad $(BUILD)/deltad-quantize $(BINDIR)/
	# Kernels for NVIDIA cards, where `make cuda` built them.
	[ ! -e $(BUILD)/deltad-kernels.fatbin ] || \
	  install -D -m 0644 $(BUILD)/deltad-kernels.fatbin $(LIBDIR)/deltad/deltad-kernels.fatbin
	for program in deltad deltad-quantize; do \
	  $(BUILD)/$$program completions bash \
	    > $(SHAREDIR)/bash-completion/completions/$$program && \
	  $(BUILD)/$$program completions zsh > $(SHAREDIR)/zsh/site-functions/_$$program && \
	  $(BUILD)/$$program completions fish \
	    > $(SHAREDIR)/fish/vendor_completions.d/$$program.fish && \
	  $(BUILD)/$$program manual $(SHAREDIR)/man || exit 1; \
	done
	chmod 0644 $(SHAREDIR)/bash-completion/completions/deltad* \
	  $(SHAREDIR)/zsh/site-functions/_deltad* $(SHAREDIR)/fish/vendor_completions.d/deltad*.fish \
	  $(SHAREDIR)/man/man1/deltad*.1 $(SHAREDIR)/man/man5/deltad.toml.5
	for kind in system user; do \
	  sed 's|@BINDIR@|$(PREFIX)/bin|' systemd/$$kind/deltad.service.in \
	    > $(LIBDIR)/systemd/$$kind/deltad.service && \
	  chmod 0644 $(LIBDIR)/systemd/$$kind/deltad.service && \
	  install -m 0644 systemd/$$kind/deltad.socket $(LIBDIR)/systemd/$$kind/ || exit 1; \
	done
	# Search fields of desktops: off until a user turns them on.
	for file in systemd/user/deltad-desktop.service:$(LIBDIR)/systemd/user/deltad-desktop.service \
	  systemd/dbus/desktop.service:$(SHAREDIR)/dbus-1/services/org.deltad.Desktop1.service; do \
	  sed 's|@BINDIR@|$(PREFIX)/bin|' $${file%%:*}.in > $${file#*:} && chmod 0644 $${file#*:} || exit 1; \
	done
	install -m 0644 desktop/org.deltad.Desktop1.desktop $(SHAREDIR)/applications/
	install -m 0644 desktop/search-provider.ini \
	  $(SHAREDIR)/gnome-shell/search-providers/org.deltad.Desktop1.search-provider.ini
	install -m 0644 desktop/krunner.desktop $(SHAREDIR)/krunner/dbusplugins/org.deltad.Desktop1.desktop
	install -m 0644 systemd/sysusers.conf $(LIBDIR)/sysusers.d/deltad.conf
	install -m 0644 systemd/tmpfiles.conf $(LIBDIR)/tmpfiles.d/deltad.conf
	install -m 0644 systemd/drop-ins/*.conf $(SHAREDIR)/deltad/drop-ins/
	install -m 0644 systemd/deltad.toml $(SHAREDIR)/deltad/deltad.toml
	install -m 0644 systemd/dbus/org.deltad.Inference1.xml $(SHAREDIR)/dbus-1/interfaces/
	install -m 0644 systemd/dbus/system.service \
	  $(SHAREDIR)/dbus-1/system-services/org.deltad.Inference1.service
	install -m 0644 systemd/dbus/user.service $(SHAREDIR)/dbus-1/services/org.deltad.Inference1.service
	install -m 0644 systemd/dbus/policy.conf $(DBUSPOLICYDIR)/org.deltad.Inference1.conf
	# The administrator's file is never written over.
	[ -e $(DESTDIR)$(SYSCONFDIR)/deltad/deltad.toml ] || \
	  install -m 0644 systemd/deltad.toml $(DESTDIR)$(SYSCONFDIR)/deltad/deltad.toml

package: deps ## a .deb and a tarball for any x86-64-v2 machine, below target/package
	@CARGO=$(CARGO) scripts/package.sh

clean: ## remove what was built
	$(CARGO) clean
