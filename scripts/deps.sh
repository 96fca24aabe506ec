#!/bin/sh
# Finds what a build needs from the system: a C++ compiler, CMake, libclang (bindings to ggml); with
# `test`, what the tests need beside: a D-Bus daemon and the tools that desktops have for it; with `arm`,
# a compiler for aarch64 and an emulator of it.
# Installs it with apt where that needs no password; else says what to install, and fails.
set -eu
purpose=${1:-build}

if ! command -v cargo >/dev/null 2>&1; then
  echo "deps: no cargo: install Rust 1.90 or newer from https://rustup.rs" >&2
  exit 1
fi

have_libclang() {
  for dir in "${LIBCLANG_PATH:-}" /usr/lib /usr/lib64 /usr/local/lib /usr/lib/*-linux-gnu \
    /usr/lib/llvm*/lib /usr/lib64/llvm*/lib /opt/homebrew/opt/llvm/lib /usr/local/opt/llvm/lib \
    /Library/Developer/CommandLineTools/usr/lib \
    /Applications/Xcode.app/Contents/Developer/Toolchains/XcodeDefault.xctoolchain/usr/lib; do
    [ -n "$dir" ] || continue
    for file in "$dir"/libclang.so* "$dir"/libclang-*.so* "$dir"/libclang.dylib; do
      [ -e "$file" ] && return 0
    done
  done
  return 1
}

missing() {
  command -v c++ >/dev/null 2>&1 || echo g++
  command -v cmake >/dev/null 2>&1 || echo cmake
  command -v make >/dev/null 2>&1 || echo make
  # bindgen also needs clang's own headers, which come with the compiler's package.
  { have_libclang && command -v clang >/dev/null 2>&1; } || echo clang libclang-dev
  if [ "$purpose" = test ] && [ "$(uname)" = Linux ]; then
    command -v dbus-daemon >/dev/null 2>&1 || echo dbus-daemon
    command -v gdbus >/dev/null 2>&1 || echo libglib2.0-bin
    command -v busctl >/dev/null 2>&1 || echo systemd
  fi
  if [ "$purpose" = arm ]; then
    command -v aarch64-linux-gnu-g++ >/dev/null 2>&1 || echo g++-aarch64-linux-gnu
    command -v qemu-aarch64 >/dev/null 2>&1 || echo qemu-user
  fi
}

need=$(missing | tr '\n' ' ')
[ -n "$need" ] || exit 0

root=
if [ "$(id -u)" = 0 ]; then
  root='env'
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
  root='sudo -n env'
fi
if command -v apt-get >/dev/null 2>&1 && [ -n "$root" ]; then
  echo "deps: installing $need" >&2
  $root DEBIAN_FRONTEND=noninteractive apt-get update -q </dev/null >&2
  # shellcheck disable=SC2086 # both hold several words
  $root DEBIAN_FRONTEND=noninteractive apt-get install -y -q $need </dev/null >&2
  need=$(missing | tr '\n' ' ')
  [ -n "$need" ] || exit 0
fi

cat >&2 <<END
deps: missing: $need
  Debian, Ubuntu:  sudo apt install g++ cmake make clang libclang-dev
  Fedora:          sudo dnf install gcc-c++ cmake make clang clang-devel
  Arch:            sudo pacman -S gcc cmake make clang
  macOS:           xcode-select --install && brew install cmake llvm
END
exit 1
