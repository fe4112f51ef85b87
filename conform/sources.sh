#!/bin/sh
# PostgreSQL's sources, as Debian has them, to $WORK/pgsrc; regress.so, built from them, to $WORK/pglib.
# The system's own list of sources isn't changed: deb-src lines go to a private copy.
set -eu
: "${WORK:?}" "${PGBINDIR:?}"
major=$(basename "$(dirname "$PGBINDIR")")
[ -e "$WORK/pglib/regress.so" ] && [ -d "$WORK/pgsrc/src/test/regress/sql" ] && exit 0
version=$(dpkg-query -W -f '${Version}' "postgresql-$major") || {
    echo "conform: needs Debian's package postgresql-$major for $PGBINDIR" >&2
    exit 2
}
mkdir -p "$WORK/apt/parts" "$WORK/apt/lists/partial" "$WORK/apt/cache/archives/partial" "$WORK/apt/src" "$WORK/apt/debs" "$WORK/pglib"
for file in /etc/apt/sources.list.d/*.sources; do
    [ -e "$file" ] && sed 's/^Types: deb$/Types: deb deb-src/' "$file" >"$WORK/apt/parts/$(basename "$file")"
done
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -s "$file" ] && sed -n 'p; s/^deb /deb-src /p' "$file" >"$WORK/apt/parts/$(basename "$file" .list).list"
done
apt() {
    apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$WORK/apt/parts" \
        -o "Dir::State::lists=$WORK/apt/lists" -o "Dir::Cache=$WORK/apt/cache" -o APT::Sandbox::User=root "$@" </dev/null
}
apt update
(cd "$WORK/apt/src" && apt source --download-only "postgresql-$major=$version")
(cd "$WORK/apt/debs" && apt download "postgresql-server-dev-$major=$version")
rm -rf "$WORK/pgsrc" "$WORK/unpacked"
mkdir "$WORK/unpacked"
tar xjf "$WORK"/apt/src/postgresql-"$major"_*.orig.tar.bz2 -C "$WORK/unpacked"
mv "$WORK"/unpacked/postgresql-* "$WORK/pgsrc"
dpkg -x "$WORK"/apt/debs/postgresql-server-dev-"$major"_*.deb "$WORK/dev"
cc -O1 -fPIC -shared -w -I"$WORK/dev/usr/include/postgresql/$major/server" -o "$WORK/pglib/regress.so" "$WORK/pgsrc/src/test/regress/regress.c"
cp "/usr/lib/postgresql/$major/lib/refint.so" "/usr/lib/postgresql/$major/lib/autoinc.so" "$WORK/pglib/"
chmod -R a+rX "$WORK/pglib" "$WORK/pgsrc"
chmod a+rx "$WORK"
