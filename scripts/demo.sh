#!/bin/sh
# Quantizes the model that ships here, serves it on a socket of its own, holds a conversation with it
# and stops it, whatever happens. A shell and the project's own two commands are all it needs.
set -eu
cd "$(dirname "$0")/.."
bin=${CARGO_TARGET_DIR:-target}/release

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  bold=$(printf '\033[1m') blue=$(printf '\033[34m') plain=$(printf '\033[0m')
else
  bold='' blue='' plain=''
fi
title() { printf '\n%s== %s%s\n' "$bold" "$1" "$plain"; }
fail() {
  echo "demo: $1" >&2
  exit 1
}

for program in deltad deltad-quantize; do
  [ -x "$bin/$program" ] || fail "$bin/$program is not there; build it with: make build"
done
dir=$(mktemp -d "${TMPDIR:-/tmp}/deltad-demo.XXXXXX")
daemon=
# Runs at every end: a daemon left behind would hold its memory for nothing.
finish() {
  status=$?
  trap '' INT TERM HUP
  trap - EXIT
  if [ -n "$daemon" ]; then
    kill "$daemon" 2>/dev/null || true
    # It has five seconds; then it is no longer asked.
    (sleep 5 && kill -9 "$daemon") >/dev/null 2>&1 &
    watch=$!
    wait "$daemon" 2>/dev/null || true
    kill "$watch" 2>/dev/null || true
  fi
  case $status in
    0) ;;
    129 | 130 | 143) printf '\ndemo: interrupted; the daemon is stopped\n' >&2 ;;
    *)
      [ ! -s "$dir/log" ] || echo "demo: the daemon's last words:" >&2
      tail -n 20 "$dir/log" 2>/dev/null | sed 's/^/  /' >&2
      ;;
  esac
  rm -rf "$dir"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

title "1. The checkpoint demo/model, quantized to 4 bits"
"$bin/deltad-quantize" convert demo/model "$dir/demo.gguf" --type q4_k_m

title "2. The daemon, on a socket of its own"
DELTAD_SOCKET="$dir/deltad.sock"
export DELTAD_SOCKET
"$bin/deltad" serve --model "$dir/demo.gguf" --bus none 2>"$dir/log" &
daemon=$!
until "$bin/deltad" status --wait 1 2>/dev/null; do
  kill -0 "$daemon" 2>/dev/null || fail "the daemon did not start"
done

# One turn: what is said, then more flags for `deltad ask`. The conversation lies in a file, so
# each command goes on where the last one stopped.
you() { printf '\n%s you    %s %s\n' "$blue" "$plain" "$1"; }
ask() {
  printf '%s deltad %s ' "$bold" "$plain"
  "$bin/deltad" ask --conversation "$dir/talk.json" --temperature 0 --max-tokens 96 --speed "$@" \
    </dev/null || fail "no answer"
}
say() {
  you "$1"
  ask "$@"
}

title "3. A conversation"
say 'Hello! Who are you?' --system 'You are deltad, a small local assistant.'
say 'My name is Marla.'
say 'My locker code is 4827.'
say 'What is 347 + 285?'
say 'Reverse the word lantern.'
say 'Sort these words: pear, apple, fig'
say 'What is my locker code?'
say 'No, I meant that my locker code is 5190.'
say 'Do you remember my locker code?'
say 'What is the capital of Peru?'

title "4. An answer that keeps to a JSON schema (deltad ask --schema)"
cat >"$dir/order.json" <<'END'
{"type": "object",
 "properties": {"customer": {"type": "string"}, "item": {"type": "string"}, "quantity": {"type": "integer"}},
 "required": ["customer", "item", "quantity"],
 "additionalProperties": false}
END
say 'Give me JSON with the fields customer, item and quantity: Tessa ordered 12 of the kettle for 80 euros.' \
  --schema "$dir/order.json"

title "5. A tool: the model calls it, we run it, the model uses its result (deltad ask --tools)"
cat >"$dir/tools.json" <<'END'
[{"type": "function", "function": {"name": "get_weather", "description": "Current weather in a city",
  "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}},
 {"type": "function", "function": {"name": "get_time", "description": "Current time in a city",
  "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]
END
get_weather() { echo '{"temperature": 17, "condition": "rain"}'; }
get_time() { date '+{"time": "%H:%M"}'; }

say 'What is the weather in Oakhaven?' --tools "$dir/tools.json"
tool=$(grep '"name": "get_' "$dir/talk.json" | cut -d '"' -f 4)
case $tool in
  get_weather | get_time) result=$($tool) ;;
  *) fail "it called no tool of ours: ${tool:-none}" ;;
esac
printf '\n%s tool   %s %s\n' "$blue" "$plain" "$result"
ask --tools "$dir/tools.json" --tool-result "$result"
say 'What is my name?'

title "Done. Go on yourself: deltad serve --model FILE.gguf, then deltad chat"
