#!/usr/bin/env bash
# tests/arm.py on 64-bit Arm, under qemu-user: Debian's arm64 Python and the aarch64 wheels of numba, numpy and scipy.
# usage: tests/arm.sh [FOLDER]     FOLDER keeps what is downloaded (150 MB); by default it is a temporary one
# Exit code 0 also where something is missing: it then says what, and that nothing was tested.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
    echo "arm: SKIPPED, nothing was tested: $1"
    exit 0
}

qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64) || skip "qemu-aarch64 is missing (Debian: apt install qemu-user-static)"
command -v apt-get >/dev/null && command -v dpkg >/dev/null || skip "apt-get and dpkg are missing: arm64 packages come from Debian"
# Kernels are compiled anew each time: Numba shows no assembly of cached ones.
compiled=$(mktemp -d)
trap 'rm -rf "$compiled"' EXIT
folder=$compiled
if [ $# -gt 0 ]; then
    mkdir -p "$1"
    folder=$(cd "$1" && pwd)
fi

if [ ! -e "$folder/ready" ]; then
    # Lists and packages of another architecture, beside those of this machine and without touching them.
    mkdir -p "$folder"/{lists/partial,archives/partial,debs,root,site}
    : >"$folder/status"
    foreign=(-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::lists="$folder/lists"
        -o Dir::State::status="$folder/status" -o Dir::Cache::archives="$folder/archives" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=)
    apt-get "${foreign[@]}" update -qq || skip "the package lists for arm64 cannot be read"
    version=$(apt-cache "${foreign[@]}" depends python3 2>/dev/null | sed -n 's/.*Depends: python\(3\.[0-9]*\).*/\1/p' | head -1)
    [ -n "$version" ] || skip "there is no arm64 Python among the packages"
    packages=(libc6 libgcc-s1 libstdc++6 libgomp1 libexpat1 zlib1g libffi8 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1 libcrypt1 media-types)
    packages+=("python$version" "python$version-minimal" "libpython$version-minimal" "libpython$version-stdlib")
    packages+=("$(apt-cache "${foreign[@]}" pkgnames libssl3 | sort | head -1)")
    (cd "$folder/debs" && apt-get "${foreign[@]}" download -qq "${packages[@]}") || skip "the arm64 packages cannot be downloaded"
    for package in "$folder"/debs/*.deb; do dpkg -x "$package" "$folder/root"; done
    platforms=(--platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64)
    python3 -m pip download --quiet --disable-pip-version-check --only-binary=:all: "${platforms[@]}" --implementation cp \
        --python-version "$version" --dest "$folder/wheels" numba numpy scipy || skip "the aarch64 wheels cannot be downloaded"
    for wheel in "$folder"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$folder/site"; done
    echo "$version" >"$folder/ready"
fi

run() {
    PYTHONHOME="$folder/root/usr" PYTHONPATH="$folder/site:$PWD:$PWD/tests" PYTHONDONTWRITEBYTECODE=1 \
        NUMBA_CACHE_DIR="$compiled/numba-$1" CONV_IMPLS_CACHE_DIR="$compiled/user-$1" \
        "$qemu" -L "$folder/root" "$folder/root/usr/bin/python$(cat "$folder/ready")" tests/arm.py "$1"
}

# Side by side: nearly all of the time goes into compiling, for one dtype at a time.
run float32 &
first=$! failed=0
run float64 || failed=1
wait "$first" || failed=1
exit "$failed"
