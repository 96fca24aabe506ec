#!/bin/sh
# Measures every table of docs/performance.md on this machine, beside llama.cpp, and writes them into
# that file behind its marker, with the pictures beside it. On two quiet cores it takes about an
# hour, the two builds among it; close what else is busy, the tables say if anything was. Depths are laid,
# not read, and where a prompt of 512 takes minutes a shorter one is.  Usage: scripts/bench-tables.sh [DEPTHS]   (0,8k,32k if not said)
set -eu
cd "$(dirname "$0")/.."
depths=${1:-0,8k,32k}
target=${CARGO_TARGET_DIR:-target}
cargo=${CARGO:-cargo}
page=docs/performance.md
marker='<!-- measured: scripts/bench-tables.sh writes everything below -->'
grep -qxF "$marker" $page || {
  echo "bench-tables: $page: no line '$marker'" >&2
  exit 1
}

$cargo build --release --locked --features rival --bin deltad --bin deltad-quantize
if grep -qw avx2 /proc/cpuinfo; then
  # llama.cpp, in the same program, has no more instructions than ours then.
  RUSTFLAGS='-C target-cpu=x86-64-v3' $cargo build --release --locked --features rival --bin deltad \
    --target-dir "$target/avx2"
fi
dir=$(mktemp -d "${TMPDIR:-/tmp}/deltad-tables.XXXXXX")
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM HUP
# Copies: a later build without the feature must not replace what is being measured.
cp "$target/release/deltad" "$target/release/deltad-quantize" "$dir/"
[ ! -e "$target/avx2" ] || cp "$target/avx2/release/deltad" "$dir/deltad-avx2"
program=$dir/deltad
quantize() { "$dir/deltad-quantize" "$@" --quiet; }

quantize convert demo/model "$dir/demo-q8_0.gguf" --type q8_0
quantize synth "$dir/slice-q4_k.gguf" --shape 48b --layers 4 --type q4_k
quantize synth "$dir/slice-all-mla-q4_k.gguf" --shape 48b --layers 4 --type q4_k --all-mla
quantize synth "$dir/edge-q4_k.gguf" --shape edge --layers 12 --type q4_k
quantize synth "$dir/thin-q4_k.gguf" --shape edge --layers 4 --type q4_k
quantize synth "$dir/ling-q4_k.gguf" --shape ling-tiny --layers 24 --type q4_k

# section TITLE ARGUMENTS OF BENCH...: one table, and the command that repeats it.
out=$dir/tables.md
section() {
  title=$1
  shift
  echo "== $title" >&2
  {
    printf '\n### %s\n\n' "$title"
    printf '    %s bench %s\n\n' "${program##*/}" "$(echo "$*" | sed "s|$dir/||g")"
    "$program" bench "$@" --markdown
  } >>"$out"
}
section 'The 48B slice' "$dir/slice-q4_k.gguf" --depths "$depths" --laid --against llama.cpp --profile \
  --svg docs/performance-slice.svg
printf '\n![Speed over depth](performance-slice.svg)\n' >>"$out"
section 'The slice with rows of q8_0' "$dir/slice-q4_k.gguf" --depths "$depths" --laid --cache-type q8_0
if [ -e "$dir/deltad-avx2" ]; then
  program=$dir/deltad-avx2
  section 'The slice with AVX2 alone, llama.cpp built alike' "$dir/slice-q4_k.gguf" \
    --depths "$depths" --laid --tier avx2 --repeats 3 --against llama.cpp
  program=$dir/deltad
fi
section 'The slice, deeper' "$dir/slice-q4_k.gguf" --depths "$depths,128k" --laid --repeats 3
section 'The slice with full attention in every layer' "$dir/slice-all-mla-q4_k.gguf" \
  --depths "$depths,128k" --laid --repeats 3 --prompt 128
section 'The edge shape, 12 layers' "$dir/edge-q4_k.gguf" --depths "$depths" --laid --against llama.cpp
section "Ling-3.0-tiny's shape" "$dir/ling-q4_k.gguf" --depths "$depths" --laid --repeats 3 \
  --prompt 128 --against llama.cpp
section 'The demo model' "$dir/demo-q8_0.gguf" --depths 0,2k,16k --laid --against llama.cpp \
  --svg docs/performance-demo.svg
printf '\n![Speed over depth](performance-demo.svg)\n' >>"$out"
section 'Many callers, the slice' "$dir/slice-q4_k.gguf" --depths 0 --lanes 1,2,4,8,16 \
  --against llama.cpp
section 'Many callers, the demo model' "$dir/demo-q8_0.gguf" --depths 64 --lanes 1,2,4,8,16 \
  --against llama.cpp
for type in q3_k_s q2_k iq3_s iq3_xxs iq2_s iq2_xs iq2_xxs iq1_m; do
  quantize synth "$dir/slice-$type.gguf" --shape 48b --layers 4 --type $type
  section "The slice in $type" "$dir/slice-$type.gguf" --depths 0 --prompt 32 --repeats 3 \
    --against llama.cpp
  rm "$dir/slice-$type.gguf"
done
section 'A conversation that doubles, the edge shape in 4 layers' "$dir/thin-q4_k.gguf" --doubling 1m
{
  printf '\n### A caller beside a long prompt, the demo model\n\n'
  printf '    cargo bench --profile release --bench together -- --neighbour\n\n'
  $cargo bench --locked --profile release --bench together -- --neighbour | sed 's/^/    /'
} >>"$out"

{
  sed "/^<!-- measured: /q" $page
  printf '\n%s\n' "Measured on $(date -u +%Y-%m-%d) at $(git rev-parse --short HEAD)."
  cat "$out"
} >"$dir/page.md"
cp "$dir/page.md" $page
echo "bench-tables: wrote $page" >&2
