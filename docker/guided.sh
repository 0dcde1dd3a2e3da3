#!/bin/sh
# A build of weir that is guided by a profile of its own work: the one for an image, where it pays to
# build for half an hour once. The binary is target/guided/release/weir.
#
#   docker/guided.sh [LLVM-PROFDATA]
#
# It is built with counters, does each piece of work of benches/versus, and is built again by what
# was counted. Needs what benches/versus/install.sh installs, and an llvm-profdata that reads what
# the compiler writes: of Debian, llvm-19 does for rustc 1.95 (apt-get install llvm-19).
#
# For the image of docker/Dockerfile run it where that is built, in rust:1.95-alpine with
# apk add build-base nginx wrk nghttp2 python3 openssl llvm, and copy the binary to /weir in the
# empty image instead of building it there.
set -eu
cd "$(dirname "$0")/.."
profdata=${1:-llvm-profdata-19}
built=target/guided
command -v "$profdata" >/dev/null || { echo "no such program: $profdata" >&2; exit 1; }

rm -rf "$built/counts"
RUSTFLAGS="-Cprofile-generate=$PWD/$built/counts" cargo build --release --locked --target-dir "$built"
python3 benches/versus --weir "$built/release/weir" --peers weir --rounds 1 --seconds 2 --no-half
"$profdata" merge -o "$built/weir.profdata" "$built/counts"
RUSTFLAGS="-Cprofile-use=$PWD/$built/weir.profdata" cargo build --release --locked --target-dir "$built"
echo "$built/release/weir"
