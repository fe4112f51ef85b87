#!/bin/sh
# Finds PgBouncer, or gets it into .deps: unlike an installation that starts no service, and an ordinary user may do it.
# The last line that it prints ends with the program's path; without one it ends with 1.
#
#   scripts/pgbouncer.sh           any: the machine's, or else the distribution's package, unpacked in .deps/pgbouncer
#   scripts/pgbouncer.sh prepared  one that knows prepared statements in transaction mode (1.21): the machine's, or else
#                                  built from Debian's sources in .deps/pgbouncer-prepared
set -eu
cd "$(dirname "$0")/.."
# Where its program is asked for by other suites than the machine's own.
sources_suite=trixie

knows_prepared() { # knows_prepared PROGRAM
    version=$("$1" --version 2>/dev/null | sed -n '1s/^PgBouncer 1\.\([0-9]*\).*/\1/p')
    [ -n "$version" ] && [ "$version" -ge 21 ]
}
case ${1:-any} in
any)
    dir=$PWD/.deps/pgbouncer
    suits() { "$1" --version >/dev/null 2>&1; }
    ;;
prepared)
    dir=$PWD/.deps/pgbouncer-prepared
    suits() { knows_prepared "$1"; }
    ;;
*)
    echo "usage: $0 [prepared]" >&2
    exit 2
    ;;
esac

for program in "$(command -v pgbouncer || true)" /usr/sbin/pgbouncer "$PWD/.deps/pgbouncer/pgbouncer" "$dir/pgbouncer"; do
    if [ -n "$program" ] && suits "$program"; then
        printf '%-11s %s\n' pgbouncer "$program"
        exit 0
    fi
done

# unpack PACKAGE...: the newest that apt knows, under $dir
unpack() {
    (cd "$dir" && apt-get download -qq "$@" && for package in *.deb; do dpkg -x "$package" .; done)
}
missing_libraries() {
    ldd "$dir/usr/sbin/pgbouncer" | grep -q 'not found'
}
from_package() {
    if ! unpack pgbouncer && [ "$(id -u)" = 0 ]; then
        apt-get update -qq
        unpack pgbouncer
    fi
    if missing_libraries; then
        libraries=$(dpkg -f "$dir"/pgbouncer_*.deb Depends | tr ',' '\n' | sed -n 's/^ *\(lib[^ ]*\).*/\1/p' | grep -v '^libc6$')
        # shellcheck disable=SC2086 # a list of words
        unpack $libraries
    fi
    # Relative to the program, since whoever runs it may have to copy it all to where the servers' account gets.
    cat >"$dir/pgbouncer" <<'SCRIPT'
#!/bin/sh
here=$(dirname "$0")
for directory in "$here"/lib/*-linux-gnu* "$here"/usr/lib/*-linux-gnu*; do
    LD_LIBRARY_PATH=$directory:${LD_LIBRARY_PATH:-}
done
export LD_LIBRARY_PATH
exec "$here/usr/sbin/pgbouncer" "$@"
SCRIPT
    chmod 755 "$dir/pgbouncer"
}
# The system's own list of sources isn't changed. The program needs nothing but the C library.
from_sources() {
    unpack libevent-dev || { [ "$(id -u)" = 0 ] && apt-get update -qq && unpack libevent-dev; }
    mkdir -p "$dir/apt/parts" "$dir/apt/lists/partial" "$dir/apt/cache/archives/partial"
    cat >"$dir/apt/parts/newer.sources" <<SOURCES
Types: deb-src
URIs: http://deb.debian.org/debian
Suites: $sources_suite
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
    newer() {
        apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$dir/apt/parts" \
            -o "Dir::State::lists=$dir/apt/lists" -o "Dir::Cache=$dir/apt/cache" -o APT::Sandbox::User=root "$@" </dev/null
    }
    newer update
    (cd "$dir/apt" && newer source --download-only pgbouncer)
    mkdir "$dir/src"
    tar xzf "$dir"/apt/pgbouncer_*.orig.tar.gz -C "$dir/src" --strip-components 1
    library=$(dirname "$(find "$dir/usr/lib" -name libevent.a)")
    (cd "$dir/src" && ./configure --quiet --without-openssl --without-cares \
        LIBEVENT_CFLAGS="-I$dir/usr/include -I$dir/usr/include/$(basename "$library")" LIBEVENT_LIBS="$library/libevent.a" &&
        make -s pgbouncer)
    cp "$dir/src/pgbouncer" "$dir/pgbouncer.new"
    rm -rf "${dir:?}/src" "${dir:?}/apt" "${dir:?}/usr" "${dir:?}"/*.deb
    mv "$dir/pgbouncer.new" "$dir/pgbouncer"
}
install_it() {
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    rm -rf "$dir"
    mkdir -p "$dir"
    if [ "${1:-any}" = any ]; then from_package; else from_sources; fi
    suits "$dir/pgbouncer"
}

if install_it "$@" >"$dir.log" 2>&1; then
    printf '%-11s %s\n' pgbouncer "$dir/pgbouncer"
else
    cat "$dir.log" >&2
    echo "pgbouncer: not found. To have it: sudo apt-get install -y --no-install-recommends pgbouncer" >&2
    exit 1
fi
