#!/bin/sh
# deps.sh [bench] - installs the Debian packages that building, testing and measuring need; only those that are missing.
# With "bench" also the peers that the benchmarks measure beside us.
set -eu

packages="gcc make pkg-config libc6-dev libluajit-5.1-dev libopenblas-dev libyaml-dev libsqlite3-dev libmicrohttpd-dev
libjansson-dev libxxhash-dev libsodium-dev libcurl4-openssl-dev libseccomp-dev libcmocka-dev lua-busted lua-check cppcheck valgrind python3 python3-numpy
python3-scipy python3-sklearn python3-yaml python3-jsonschema curl sqlite3"
case "${1:-}" in
  "") ;;
  bench)
    packages="$packages g++ libfaiss-dev libhnswlib-dev python3-torch"
    command -v node >/dev/null 2>&1 || packages="$packages nodejs"
    command -v npm >/dev/null 2>&1 || packages="$packages npm"
    ;;
  *) echo "deps: bench, or nothing; not $1" >&2; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null 2>&1; then
  echo "deps: this is no Debian or Ubuntu machine; install by hand: $packages" >&2
  exit 1
fi
missing=""
for p in $packages; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null || :)" = installed ] || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
echo "deps: installing$missing"
if [ "$(id -u)" = 0 ]; then as_root=""; elif command -v sudo >/dev/null 2>&1; then as_root="sudo"; else
  echo "deps: run as root, or install sudo; missing:$missing" >&2
  exit 1
fi
$as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
