"""Are source and target equal? Told by both servers, with none of pgshadow's code: rows and their checksum by table."""

from servers import Failure

TABLES = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('information_schema', 'pgshadow') AND n.nspname !~ '^pg_' ORDER BY 1
"""
# Settings that rows as text depend on. The sum does not depend on the order of the rows, and holds each as often as it
# is there.
CHECKSUM = """
SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET extra_float_digits = 1; SET row_security = off;
SET default_transaction_isolation = 'repeatable read';
"""
ONE = "SELECT '{0}', count(*), coalesce(sum(('x' || left(md5(t::text), 15))::bit(60)::bigint), 0) FROM ONLY {0} t;"


def differences(source, target, database):
    """Sentences, none where all tables are equal; and the number of rows compared."""
    listing = [side.psql.run(TABLES, database) for side in (source, target)]
    if listing[0] != listing[1]:
        return [f"not the same tables: {listing[0].split()} and {listing[1].split()}"], 0
    sql = CHECKSUM + "\n".join(ONE.format(table) for table in listing[0].splitlines())
    # Both at a time.
    running = [side.psql.start(sql, database) for side in (source, target)]
    here, there = (side.psql.finish(process).splitlines() for side, process in zip((source, target), running))
    if not here or len(here) != len(there):
        raise Failure("the comparison gave no answer")
    found, rows = [], 0
    for mine, other in zip(here, there):
        table, count, checksum = mine.split("|")
        _, other_count, other_checksum = other.split("|")
        rows += int(count)
        if count != other_count:
            found.append(f"{table}: {count} rows on the source, {other_count} on the target")
        elif checksum != other_checksum:
            found.append(f"{table}: rows differ, {count} on each side")
    return found, rows
