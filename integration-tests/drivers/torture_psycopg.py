"""Plays steps of `make torture` by psycopg 3. Each line of stdin is a step as JSON, each line of stdout what came of it:
{"replies": [{"state", "message", "columns"}]} or {"lost": message}. Where to connect: PGHOST, PGPORT, PGUSER, ..."""
import json
import sys

import psycopg


def told(cursor):
    return {"columns": len(cursor.description) if cursor.description else 0}


def run(connection, cursor, statement, named):
    if statement.get("copy") is not None:
        with cursor.copy(statement["literal"]) as copy:
            copy.write(statement["copy"].encode())
    elif named is None:
        cursor.execute(statement["literal"])
    else:
        cursor.execute(statement["text"], statement["values"], prepare=named)


def play(connection, step):
    statements, named = step["statements"], step["named"]
    if step["kind"] == "string":
        cursor = psycopg.RawCursor(connection)
        cursor.execute("; ".join(statement["literal"] for statement in statements))
        replies = [told(cursor)]
        while cursor.nextset():
            replies.append(told(cursor))
        return replies
    cursors = [psycopg.RawCursor(connection) for _ in statements]
    # psycopg's pipelines lose prepared statements and their way out behind a failed one, also without pgshadow.
    for cursor, statement in zip(cursors, statements):
        run(connection, cursor, statement, named)
    return [told(cursor) for cursor in cursors]


def main():
    connection = psycopg.connect("", autocommit=True)
    print(json.dumps({"replies": []}), flush=True)
    for line in sys.stdin:
        step = json.loads(line)
        try:
            answer = {"replies": play(connection, step)}
        except psycopg.Error as error:
            if error.sqlstate is None or connection.closed:
                answer = {"lost": f"{error.sqlstate} {error}"}
            else:
                # Which one failed isn't told: any of them may have.
                reply = {"state": error.sqlstate, "message": error.diag.message_primary or str(error)}
                answer = {"replies": [reply] * len(step["statements"])}
        print(json.dumps(answer), flush=True)


main()
