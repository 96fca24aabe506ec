#!/bin/sh
# Runs the tests of devices on Vulkan, by default on Mesa's driver made of software (lavapipe), so that
# the path of devices runs on a machine without a card. `VULKAN=card` takes the machine's own first
# device. What is not there is named, with the package that has it. The first build takes about ten
# minutes on two cores: ggml compiles its shaders.
set -eu
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}

fail() {
  echo "test-vulkan: $1" >&2
  exit 1
}
command -v glslc >/dev/null 2>&1 || fail "no glslc: sudo apt install glslc"
[ -n "$(find /usr/share/cmake /usr/lib/cmake /usr/local -name SPIRV-HeadersConfig.cmake 2>/dev/null)" ] ||
  fail "no SPIRV-Headers: sudo apt install spirv-headers"
# Debian 13 has headers that are new enough; Debian 12's 1.3.239 are not, there put newer ones before
# them with CPLUS_INCLUDE_PATH.
printf '#include <vulkan/vulkan.hpp>\nvk::LayerSettingEXT *p;\n' |
  c++ -x c++ -fsyntax-only - >/dev/null 2>&1 ||
  fail "no Vulkan headers of 1.3.272 or newer: sudo apt install libvulkan-dev (of Debian 13)"

if [ "${VULKAN:-lavapipe}" = lavapipe ]; then
  driver=$(find /usr/share/vulkan/icd.d /usr/local/share/vulkan/icd.d -name 'lvp_icd*.json' 2>/dev/null | head -n 1)
  [ -n "$driver" ] || fail "no lavapipe: sudo apt install mesa-vulkan-drivers"
  # With Debian 12's (22.3) glibc ends the tests with a corrupt heap; with Debian 13's (25.0) they run.
  if command -v dpkg-query >/dev/null 2>&1; then
    mesa=$(dpkg-query -W -f '${Version}' mesa-vulkan-drivers 2>/dev/null || true)
    [ -z "$mesa" ] || dpkg --compare-versions "$mesa" ge 25 ||
      fail "lavapipe $mesa, wanted 25 or newer (Debian 13): 22.3 corrupts its heap"
  fi
  export VK_DRIVER_FILES="$driver" VK_ICD_FILENAMES="$driver"
  # ggml leaves devices of software alone unless they are named.
  export GGML_VK_VISIBLE_DEVICES=0
fi
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target/vulkan}"
exec $cargo test --release --locked --features vulkan --test engine device:: -- \
  --nocapture --test-threads 1
