#!/bin/sh
# Type-checks the kernels for aarch64, whose code no x86 build sees, where rustup has that target.
# ggml is not compiled for it: its bindings are the same on both (their layout assertions are
# evaluated for the target), so the host's are lent, and no cross compiler is needed.
set -eu
target=aarch64-unknown-linux-gnu
cargo=${CARGO:-cargo}

if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
  echo "check-arm: left out; rustup target add $target" >&2
  exit 0
fi
out=$($cargo check --release --locked --quiet -p ggml-kernels --message-format=json |
  sed -n '/"build-script-executed"/s/.*llama-cpp-sys-2.*"out_dir":"\([^"]*\)".*/\1/p')
[ -f "$out/bindings.rs" ] || { echo "check-arm: no bindings in '$out'" >&2; exit 1; }
# Flags for this target only: the host's name the host's processor.
exec $cargo check --release --locked --target $target -p ggml-kernels \
  --config "target.$target.llama.rustc-env.OUT_DIR=\"$out\"" \
  --config "target.$target.rustflags=[\"-C\",\"target-feature=+neon\"]"
