#!/bin/sh
# Builds what other machines install, below target/package: Debian packages (where debhelper is; the
# kernels for NVIDIA cards are one of their own) and a tarball with an installer. The programs run on any x86-64-v2 processor and choose faster
# instructions when they start. Packed again, the same programs give the same bytes.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
out=$root/target/package
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
SOURCE_DATE_EPOCH=$(sed -n '/^ -- /{s/.*>  //p;q}' debian/changelog | date -f - +%s)
export SOURCE_DATE_EPOCH
changelog=$(sed -n '1s/.*(\(.*\)).*/\1/p' debian/changelog)
if [ "$changelog" != "$version" ]; then
  echo "package: debian/changelog is of $changelog, Cargo.toml of $version" >&2
  exit 1
fi

# No path of this machine stays in what was compiled.
home=${CARGO_HOME:-$HOME/.cargo}
RUSTFLAGS="-C target-cpu=x86-64-v2 --remap-path-prefix=$root=deltad --remap-path-prefix=$home=cargo"
maps="-ffile-prefix-map=$root=deltad -ffile-prefix-map=$home=cargo"
CFLAGS="${CFLAGS:-} $maps" CXXFLAGS="${CXXFLAGS:-} $maps" RUSTFLAGS=$RUSTFLAGS ${CARGO:-cargo} build --release --locked --target-dir "$out"

# Kernels for NVIDIA cards, where there is a toolkit; the programs run without them too.
rm -f "$out/release/deltad-kernels.fatbin"
if command -v "${CUDACXX:-nvcc}" >/dev/null 2>&1; then
  scripts/cuda.sh "$out/release"
else
  echo "package: no nvcc, so no kernels for NVIDIA cards: they want the CUDA toolkit, 12.8 or newer" >&2
fi

# A tree for /usr/local and the script that puts it there.
name=deltad-$version-x86_64
stage=$out/$name
rm -rf "$stage"
make -s install PREFIX=/usr/local DESTDIR="$stage/tree" BUILD="$out/release"
strip "$stage"/tree/usr/local/bin/*
install -m 0755 scripts/install.sh "$stage/install.sh"
cp LICENSE LICENSE-MIT LICENSE-APACHE README.md CHANGELOG.md "$stage"
tar -C "$out" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
  --mode=go-w -cf - "$name" | xz -T1 -6 > "$out/$name.tar.xz"
rm -rf "$stage"

made="$out/$name.tar.xz"
if command -v dh >/dev/null 2>&1; then
  rm -f "$out"/*.deb
  DEB_RULES_REQUIRES_ROOT=no BUILD="$out/release" debian/rules clean binary > "$out/debian.log" 2>&1 || {
    tail -20 "$out/debian.log" >&2
    exit 1
  }
  BUILD="$out/release" debian/rules clean > /dev/null
  made="$made $(echo "$out"/*.deb)"
  ! command -v lintian >/dev/null 2>&1 || lintian --fail-on error "$out"/*.deb
else
  echo "package: no debhelper, so no Debian package: apt install debhelper" >&2
fi
for file in $made; do
  echo "$(sha256sum "$file" | cut -c1-16)... $(du -h "$file" | cut -f1) ${file#"$root"/}"
done
