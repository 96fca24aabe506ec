#!/bin/sh
# Builds the kernels for NVIDIA cards: OUT_DIR/deltad-kernels.fatbin, which deltad looks for beside itself and in
# ../lib/deltad. With `emulated`: a libcuda.so.1 that runs them on the processor (for tests: LD_LIBRARY_PATH), tested
# itself, and a file of kernels that only it takes.
#
#   scripts/cuda.sh OUT_DIR             needs nvcc 12.8 or newer. ARCHS="90" builds for fewer cards, sooner
#   scripts/cuda.sh OUT_DIR emulated    needs a C++17 compiler ($CXX, else c++)
#   scripts/cuda.sh OUT_DIR card        both: holds the machine's card to the emulated one's test
set -eu

usage() {
  echo "usage: scripts/cuda.sh OUT_DIR [emulated|card]" >&2
  exit 2
}
[ $# -ge 1 ] && [ $# -le 2 ] || usage
case "${2:-}" in "" | emulated | card) ;; *) usage ;; esac
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/../ggml-kernels/cuda"

# The name of these sources, as ggml-kernels/build.rs makes it too: POSIX's cksum of every file's name, a line end, and
# what is in it. A program takes no other's kernels.
id=$(find . -path ./emulated -prune -o \( -name '*.cu' -o -name '*.cuh' \) -print | LC_ALL=C sort | while read -r file; do
  echo "${file#./}"
  cat "$file"
done | cksum | tr ' ' -)

# For the machine it is built on. Misaligned values and steps out of arrays end the process with their place.
# Warnings about kernels are nvcc's business.
flags="-std=c++17 -O2 -march=native -fPIC -fvisibility=hidden -pthread"
checks=${CHECKS--fsanitize=alignment,bounds -fno-sanitize-recover=all -static-libubsan}
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
compile() {
  object=$objects/$(echo "$1" | tr / -).o
  shift
  ${CXX:-c++} $flags "$@" -o "$object" &
  jobs="$jobs $!"
}
finish() {
  for job in $jobs; do wait "$job" || exit 1; done
  jobs=
}
jobs=

if [ "${2:-}" = emulated ]; then
  for file in emulated/*.cpp; do
    compile "$file" -O3 -Wall -Wextra -Wno-unknown-pragmas -Wno-unused-parameter -c "$file"
  done
  finish
  ${CXX:-c++} -pthread "$objects"/*.o -o "$objects/selftest"
  for manner in EMULATED_ONE=1 EMULATED_THREADS=3 "EMULATED_ONE=1 EMULATED_REVERSED=1" EMULATED_EAGER=1; do
    env $manner "$objects/selftest" || {
      echo "scripts/cuda.sh: the emulated card is wrong ($manner)" >&2
      exit 1
    }
  done
  rm "$objects"/selftest*
  for file in *.cu; do
    [ "$file" = kernels.cu ] || compile "$file" $checks -ffp-contract=fast -w -DDELTAD_KERNELS_ID="\"$id\"" -x c++ -c "$file"
  done
  finish
  ${CXX:-c++} -shared -pthread $checks -Wl,-soname,libcuda.so.1 "$objects"/*.o -o "$out/libcuda.so.1"
  ln -sf libcuda.so.1 "$out/libcuda.so"
  echo "deltad emulated kernels $id" >"$out/deltad-kernels.fatbin"
  echo "$out/libcuda.so.1 and $out/deltad-kernels.fatbin: kernels $id, emulated"
  exit
fi

nvcc=${CUDACXX:-nvcc}
command -v "$nvcc" >/dev/null || {
  echo "scripts/cuda.sh: no nvcc. It comes with the CUDA toolkit, 12.8 or newer: the package nvidia-cuda-toolkit or" >&2
  echo "  cuda-toolkit of your system, or https://developer.nvidia.com/cuda-downloads. CUDACXX names one elsewhere." >&2
  exit 1
}
if [ "${2:-}" = card ]; then
  for file in selftest team together run memory; do compile "$file" -c "emulated/$file.cpp"; done
  finish
  ln -sf "$(ldconfig -p | awk '$1 == "libcuda.so.1" {print $NF; exit}')" "$objects/libcuda.so"
  ${CXX:-c++} -pthread "$objects"/*.o -L"$objects" -lcuda -o "$objects/selftest"
  "$nvcc" -std=c++17 -O3 -arch=native -fatbin -x cu -o "$objects/image" emulated/selftest.cuh
  "$objects/selftest" "$objects/image"
  exit
fi

# The oldest card's PTX comes along: newer cards than these translate it when they load it.
code="-gencode arch=compute_80,code=compute_80"
for arch in ${ARCHS:-80 86 89 90 120}; do
  # Hopper's warpgroups are in no later card, so they are asked for by name.
  [ "$arch" != 90 ] || arch=90a
  code="$code -gencode arch=compute_$arch,code=sm_$arch"
done
"$nvcc" -std=c++17 -O3 --threads 0 -fatbin $code -DDELTAD_KERNELS_ID="\"$id\"" -o "$out/deltad-kernels.fatbin" kernels.cu
echo "$out/deltad-kernels.fatbin: kernels $id for sm ${ARCHS:-80 86 89 90 120}"
