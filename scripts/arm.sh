#!/bin/sh
# The kernels for aarch64, whose code no x86 build sees.
#   scripts/arm.sh check    type-checks and lints them, where rustup has that target or can get it
#   scripts/arm.sh test     builds their tests across and runs them in qemu (scripts/deps.sh arm)
# ggml's bindings are the same on both (their layout assertions are evaluated for the target), so the
# host's are lent; of ggml itself `test` compiles what the kernels call, none of llama.cpp's model code.
set -eu
cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu
cargo=${CARGO:-cargo}
mode=${1:-check}

if [ "$(uname -m)" = aarch64 ]; then
  echo "arm: this machine is one: its own build and tests are it" >&2
  exit 0
fi
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ] &&
  ! { command -v rustup >/dev/null 2>&1 && timeout 300 rustup target add $target >&2; }; then
  echo "arm: left out: no Rust for $target (rustup target add $target)" >&2
  [ "$mode" = check ]
  exit
fi

# Of this machine's build: where ggml's bindings are, and its sources.
built=$($cargo check --release --locked --quiet -p ggml-kernels --message-format=json)
out=$(printf "%s\n" "$built" |
  sed -n '/"build-script-executed"/s/.*llama-cpp-sys-2.*"out_dir":"\([^"]*\)".*/\1/p')
source=$(printf "%s\n" "$built" |
  sed -n 's/.*"manifest_path":"\([^"]*llama-cpp-sys-2[^"]*\)\/Cargo.toml".*/\1/p' | head -n 1)
[ -f "$out/bindings.rs" ] || { echo "arm: no bindings in '$out'" >&2; exit 1; }
ggml=$PWD/target/$target/ggml
cpu=max

# Flags for this target only: the host's name the host's processor.
on_arm() {
  command=$1
  shift
  # shellcheck disable=SC2086 # `cargo` may be several words
  $cargo "$command" --release --locked --target $target -p ggml-kernels \
    --config "target.$target.llama.rustc-env.OUT_DIR=\"$out\"" \
    --config "target.$target.llama.rustc-link-search=[\"native=$ggml/ggml/src\"]" \
    --config "target.$target.llama.rustc-link-lib=[\"static=ggml\",\"static=ggml-cpu\",\"static=ggml-base\",\"dylib=stdc++\"]" \
    --config "target.$target.rustflags=[\"-Clink-arg=-Wl,--defsym,llama_log_set=ggml_log_set\"]" \
    --config "target.$target.linker=\"aarch64-linux-gnu-gcc\"" \
    --config "target.$target.runner=\"qemu-aarch64 -cpu $cpu -L /usr/aarch64-linux-gnu\"" \
    "$@"
}

case $mode in
check) on_arm clippy --all-targets -- -D warnings ;;
test)
  # For the least of processors: what ggml does is not what is tested here.
  cmake -S "$source/llama.cpp" -B "$ggml" --log-level=WARNING -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
    -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
    -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=OFF -DGGML_CPU_ARM_ARCH=armv8-a -DGGML_OPENMP=OFF \
    -DGGML_LLAMAFILE=OFF -DGGML_CPU_REPACK=OFF -DGGML_CCACHE=OFF -DLLAMA_BUILD_COMMON=OFF \
    -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_TOOLS=OFF
  cmake --build "$ggml" --target ggml --parallel "$(nproc)" >/dev/null
  # A processor with everything, whose tests compare all tiers. The emulator starts no program for
  # aarch64, so the tests of how a child dies are left out.
  on_arm test --lib --test products --test operators --test plans --test ground --test heap --test map \
    -- --skip still_kills
  # Those that have less run nothing that they have not.
  for cpu in cortex-a53 neoverse-n1; do
    on_arm test --lib --test products -- tier:: math:: kda:: several_products gate_and_up a_head
  done
  ;;
*)
  echo "usage: scripts/arm.sh check|test" >&2
  exit 2
  ;;
esac
