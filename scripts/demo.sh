#!/bin/sh
# Quantizes the model that ships here, serves it on a socket of its own, talks to it, stops it.
set -eu
cd "$(dirname "$0")/.."
bin=target/release
source=demo/model
[ -e "$source/config.json" ] || source=tests/fixtures/tiny

dir=$(mktemp -d "${TMPDIR:-/tmp}/deltad-demo.XXXXXX")
daemon=
finish() {
  status=$?
  trap - EXIT INT TERM
  if [ -n "$daemon" ]; then
    kill "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
  fi
  [ "$status" = 0 ] || { [ -s "$dir/log" ] && sed 's/^/daemon: /' "$dir/log" >&2; }
  rm -rf "$dir"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

echo "== $source -> q4_k_m"
"$bin/deltad-quantize" convert "$source" "$dir/model.gguf" --type q4_k_m
wc -c <"$dir/model.gguf" | awk '{printf "   %.1f MiB\n", $1 / 1048576}'

echo "== deltad serve"
socket="$dir/deltad.sock"
"$bin/deltad" serve --model "$dir/model.gguf" --socket "$socket" 2>"$dir/log" &
daemon=$!
"$bin/deltad" --socket "$socket" status --wait 60

if [ "$source" = demo/model ]; then
  say() {
    echo
    echo "> $1"
    printf '< '
    "$bin/deltad" --socket "$socket" ask --temperature 0 --max-tokens 64 --speed "$1"
  }
  say 'Hello! Who are you?'
  say 'What is 7 plus 5?'
  say 'My name is Clara. What is my name?'
else
  echo "   (random weights: the words mean nothing, the speed does)"
  "$bin/deltad" --socket "$socket" ask --temperature 0 --max-tokens 32 --speed 'Hello'
fi
echo
echo "== done"
