# Every job of this repository, by name. `make help` lists them.
PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
BINDIR = $(DESTDIR)$(PREFIX)/bin
SHAREDIR = $(DESTDIR)$(PREFIX)/share

.DEFAULT_GOAL := help
.PHONY: help build demo table test bench fuzz install clean deps

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## check for the system packages a build needs; install them with apt where allowed
	@scripts/deps.sh

build: deps ## build both programs
	$(CARGO) build --release --locked

demo: build ## quantize the shipped model, serve it, talk to it, stop it
	@scripts/demo.sh

table: build ## quantize the shipped model to every type, score and measure each
	@demo/table.py

test: ## formatting, lints without warnings, every test
	@scripts/deps.sh test
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	$(CARGO) test --release --locked --workspace

bench: deps ## every benchmark; figures are printed
	$(CARGO) bench --locked --workspace --profile release

FUZZ_SECONDS ?= 3600
fuzz: deps ## feed every reader what nobody should send, for FUZZ_SECONDS (an hour)
	$(CARGO) test --release --locked --test fuzz -- --seconds $(FUZZ_SECONDS) --threads $$(nproc)

install: ## install what `make build` built under DESTDIR and PREFIX
	install -d $(BINDIR) $(SHAREDIR)/bash-completion/completions \
	  $(SHAREDIR)/zsh/site-functions $(SHAREDIR)/fish/vendor_completions.d
	install -m 0755 target/release/deltad target/release/deltad-quantize $(BINDIR)/
	target/release/deltad completions bash > $(SHAREDIR)/bash-completion/completions/deltad
	target/release/deltad completions zsh > $(SHAREDIR)/zsh/site-functions/_deltad
	target/release/deltad completions fish > $(SHAREDIR)/fish/vendor_completions.d/deltad.fish

clean: ## remove what was built
	$(CARGO) clean
