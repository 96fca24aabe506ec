#!/bin/sh
# For whoever has a card: builds for it, checks on it, and times it beside llama.cpp on the same file.
# Everything it prints is wanted (docs/gpu.md says what for), so it ends in gpu-DATE.txt.
#
#   scripts/gpu.sh cuda [FILE.gguf]       also metal or vulkan
#
# Without a file it writes one of random weights in the shape of the 48B model (27.8 GB, Q4_K), which
# wants a card of 32 GB; LAYERS=8 makes a smaller one. DEPTHS=0,8k,32k,128k is measured if not said.
set -eu
cd "$(dirname "$0")/.."
api=${1:?usage: scripts/gpu.sh cuda|metal|vulkan [FILE.gguf]}
file=${2:-}
depths=${DEPTHS:-0,8k,32k,128k}
cargo=${CARGO:-cargo}
target=${CARGO_TARGET_DIR:-target}
log=gpu-$(date +%Y%m%d-%H%M).txt

case $api in
  cuda)
    command -v nvcc >/dev/null 2>&1 || {
      echo "gpu: no nvcc: install the CUDA toolkit, 12.4 or newer, and put its bin on PATH" >&2
      exit 1
    }
    # With the card's own architecture, or Hopper's programmatic launches are lost.
    : "${CUDAARCHS:=native}"
    export CUDAARCHS
    ;;
  metal | vulkan) ;;
  *)
    echo "gpu: got $api, wanted cuda, metal or vulkan" >&2
    exit 2
    ;;
esac

run() {
  echo "== $*"
  "$@"
}
measure() {
  git log -1 --format='commit %h' 2>/dev/null || true
  if command -v nvidia-smi >/dev/null 2>&1; then
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
  fi
  # One piece, the goldens, a state to the processor and back.
  run $cargo test --release --locked --features "$api" --test engine device:: -- \
    --nocapture --test-threads 1
  run $cargo build --release --locked --features "$api,rival" --bin deltad --bin deltad-quantize
  bench="$target/release/deltad bench $file --device $api"
  # shellcheck disable=SC2086 # several words
  {
    run $bench --depths "$depths" --prompt 2048 --against llama.cpp --markdown
    run $bench --depths 0,8k --lanes 1,4,8 --prompt 2048 --markdown
  }
}

if [ -z "$file" ]; then
  file=$target/gpu-48b-${LAYERS:-27}.gguf
  $cargo build --release --locked --bin deltad-quantize
  [ -e "$file" ] || "$target/release/deltad-quantize" synth "$file" --shape 48b \
    --layers "${LAYERS:-27}" --type q4_k
fi
measure 2>&1 | tee "$log"
echo "gpu: $log"
