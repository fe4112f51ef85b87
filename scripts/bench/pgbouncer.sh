#!/bin/sh
# Finds PgBouncer for `make bench`, or unpacks the distribution's package under .deps/pgbouncer: unlike an installation
# that starts no service, and an ordinary user may do it. Without it the benchmark leaves PgBouncer out and says so.
set -eu
cd "$(dirname "$0")/../.."
dir=$PWD/.deps/pgbouncer

for program in "$(command -v pgbouncer || true)" /usr/sbin/pgbouncer "$dir/pgbouncer"; do
    if [ -n "$program" ] && "$program" --version >/dev/null 2>&1; then
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
install_it() {
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    rm -rf "$dir"
    mkdir -p "$dir"
    if ! unpack pgbouncer && [ "$(id -u)" = 0 ]; then
        apt-get update -qq
        unpack pgbouncer
    fi
    if missing_libraries; then
        libraries=$(dpkg -f "$dir"/pgbouncer_*.deb Depends | tr ',' '\n' | sed -n 's/^ *\(lib[^ ]*\).*/\1/p' | grep -v '^libc6$')
        # shellcheck disable=SC2086 # a list of words
        unpack $libraries
    fi
    # Relative to the program, since the benchmark may have to copy it all to where the servers' account gets.
    cat >"$dir/pgbouncer" <<'END'
#!/bin/sh
here=$(dirname "$0")
for directory in "$here"/lib/*-linux-gnu* "$here"/usr/lib/*-linux-gnu*; do
    LD_LIBRARY_PATH=$directory:${LD_LIBRARY_PATH:-}
done
export LD_LIBRARY_PATH
exec "$here/usr/sbin/pgbouncer" "$@"
END
    chmod 755 "$dir/pgbouncer"
    "$dir/pgbouncer" --version >/dev/null
}

if install_it >"$dir.log" 2>&1; then
    printf '%-11s %s\n' pgbouncer "$dir/pgbouncer"
else
    cat "$dir.log" >&2
    echo "bench: no PgBouncer, it is left out. To have it: sudo apt-get install -y --no-install-recommends pgbouncer" >&2
fi
