# shellcheck shell=sh
# Sourced by regression.sh and isolation.sh: HOST PORT USER DATABASE
#
#   PREP="host:port host:port"  servers on which the database is dropped and made again, directly, not through the proxy
#                               (default: HOST:PORT itself). Through a proxy that mirrors, name both servers.
#   PREPUSER                    their superuser (default: USER)
#   PGBINDIR                    programs of Debian's PostgreSQL that is tested (default: the oldest on the machine)
#   WORK                        sources and results (default: a directory of this user's under TMPDIR)
#   TESTS="a b"                 only these tests
set -eu
host=${1:?HOST} port=${2:?PORT} user=${3:?USER} database=${4:?DATABASE}
# shellcheck disable=SC2034 # used by the scripts that source this
suites=$(cd "$(dirname "$0")" && pwd)
PREP=${PREP:-$host:$port}
PREPUSER=${PREPUSER:-$user}
WORK=${WORK:-${TMPDIR:-/tmp}/pgshadow-conform-$(id -u)}
if [ -z "${PGBINDIR:-}" ]; then
    for PGBINDIR in /usr/lib/postgresql/*/bin; do break; done
fi
export PGBINDIR WORK
major=$(basename "$(dirname "$PGBINDIR")")
# shellcheck disable=SC2034 # used by the scripts that source this
tools=/usr/lib/postgresql/$major/lib/pgxs/src/test

stop() {
    printf 'conform: %s\n' "$*" >&2
    exit 2
}
case $host in
127.* | localhost | ::1) ;;
*) stop "only servers of this machine, not $host" ;;
esac
[ -x "$PGBINDIR/psql" ] || stop "no psql in $PGBINDIR"

directly() { # directly HOST:PORT DATABASE [psql's options]
    place=$1 in=$2
    shift 2
    "$PGBINDIR/psql" -XAtq -v ON_ERROR_STOP=1 -h "${place%:*}" -p "${place##*:}" -U "$PREPUSER" -d "$in" "$@"
}
on_servers() { # on_servers DATABASE SQL...: each statement on each server
    in=$1
    shift
    for server in $PREP; do
        for sql in "$@"; do
            directly "$server" "$in" -c "SET client_min_messages = warning" -c "$sql" >/dev/null
        done
    done
}
recreate_database() { # recreate_database [CREATE DATABASE's options]
    on_servers template1 "DROP DATABASE IF EXISTS \"$database\" WITH (FORCE)" \
        "CREATE DATABASE \"$database\" TEMPLATE template0 $*"
    # Nothing is sent to a port that doesn't lead to these servers: it could be somebody else's.
    mark=m$$_$(date +%s)
    on_servers "$database" "ALTER DATABASE \"$database\" SET conform.mark TO '$mark'"
    seen=
    for _ in 1 2 3 4 5; do
        seen=$("$PGBINDIR/psql" -XAtq -h "$host" -p "$port" -U "$user" -d "$database" -c "SHOW conform.mark" 2>&1) || true
        [ "$seen" = "$mark" ] && break
        sleep 1
    done
    [ "$seen" = "$mark" ] || stop "$host:$port does not lead to $PREP (it says: $seen)"
    # What an earlier run left behind of things that belong to no database.
    for server in $PREP; do
        for role in $(directly "$server" template1 -c "SELECT quote_ident(rolname) FROM pg_roles WHERE rolname LIKE 'regress%'"); do
            directly "$server" template1 -c "DROP ROLE IF EXISTS $role" >/dev/null 2>&1 || true
        done
    done
}
start=$(date +%s)
summary() { # summary LOG: what failed, the names of what passed into LOG.passed, one closing line
    grep -E 'FAILED|failed \(ignored\)' "$1" || true
    # "test name ... ok 12 ms" and, in a group, "     name ... ok 12 ms"
    sed -n 's/^ *\(test \)\{0,1\} *\([^ ]*\) *\.\.\. *ok .*/\2/p' "$1" | sort >"$1.passed"
    passed=$(grep -c . "$1.passed") || true
    failed=$(grep -cE '\.\.\. +FAILED' "$1") || true
    echo "log $1, $(($(date +%s) - start)) s"
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ] && [ "$passed" != 0 ]
}
