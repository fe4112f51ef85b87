// pgjdbc with its default settings. Where to connect: PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE.
// Run as a single source file: java -cp postgresql.jar Jdbc.java

import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyManager;
import org.postgresql.util.PGobject;

public class Jdbc {
    static void check(String what, Object got, Object expected) {
        if (!Objects.deepEquals(got, expected)) {
            throw new AssertionError(what + ": got " + got + ", expected " + expected);
        }
    }

    static Connection connect() throws SQLException {
        var env = System.getenv();
        String url = "jdbc:postgresql://" + env.get("PGHOST") + ":" + env.get("PGPORT") + "/" + env.get("PGDATABASE");
        return DriverManager.getConnection(url, env.get("PGUSER"), env.get("PGPASSWORD"));
    }

    static List<Integer> integers(Connection connection, String sql) throws SQLException {
        List<Integer> found = new ArrayList<>();
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            while (rows.next()) found.add(rows.getInt(1));
        }
        return found;
    }

    static void run(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(sql);
        }
    }

    static void values(Connection connection) throws SQLException {
        run(connection, "DROP TABLE IF EXISTS jdbc_value");
        run(connection, "CREATE TABLE jdbc_value (id bigint PRIMARY KEY, n numeric, ints int[], texts text[], j jsonb,"
            + " t timestamptz, b bytea, d float8)");
        OffsetDateTime time = OffsetDateTime.parse("2024-02-29T23:59:59.123456Z");
        PGobject json = new PGobject();
        json.setType("jsonb");
        json.setValue("{\"a\": [1, 2.5, null]}");
        Integer[] ints = {1, null, 3};
        String[] texts = {"a", null, "b\"c,{}"};
        // More than five times: from then on pgjdbc prepares on the server and asks for binary values.
        for (long id = 0; id < 8; id++) {
            try (PreparedStatement insert =
                connection.prepareStatement("INSERT INTO jdbc_value VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id")) {
                insert.setLong(1, id);
                insert.setBigDecimal(2, new BigDecimal("12345678901234567890.000100"));
                insert.setArray(3, connection.createArrayOf("int4", ints));
                insert.setArray(4, connection.createArrayOf("text", texts));
                insert.setObject(5, json);
                insert.setObject(6, time);
                insert.setBytes(7, new byte[] {0, -1, 92, 120});
                insert.setDouble(8, 1.1);
                try (ResultSet row = insert.executeQuery()) {
                    row.next();
                    check("RETURNING", row.getLong(1), id);
                }
            }
        }
        try (PreparedStatement select = connection.prepareStatement("SELECT * FROM jdbc_value WHERE id = ?")) {
            for (long id = 0; id < 8; id++) {
                select.setLong(1, id);
                try (ResultSet row = select.executeQuery()) {
                    row.next();
                    check("numeric", row.getBigDecimal(2), new BigDecimal("12345678901234567890.000100"));
                    check("int[]", row.getArray(3).getArray(), ints);
                    check("text[]", row.getArray(4).getArray(), texts);
                    check("jsonb", row.getString(5), "{\"a\": [1, 2.5, null]}");
                    check("timestamptz", row.getObject(6, OffsetDateTime.class).toInstant(), time.toInstant());
                    check("bytea", Arrays.toString(row.getBytes(7)), "[0, -1, 92, 120]");
                    check("float8", row.getDouble(8), 1.1);
                }
            }
        }
    }

    static void prepared(Connection connection) throws SQLException {
        run(connection, "DROP TABLE IF EXISTS jdbc_item");
        run(connection, "CREATE TABLE jdbc_item (id serial PRIMARY KEY, v int NOT NULL UNIQUE)");
        try (PreparedStatement insert = connection.prepareStatement(
                "INSERT INTO jdbc_item (v) VALUES (?)", Statement.RETURN_GENERATED_KEYS)) {
            for (int v = 0; v < 12; v++) {
                insert.setInt(1, v);
                check("prepared", insert.executeUpdate(), 1);
                try (ResultSet keys = insert.getGeneratedKeys()) {
                    keys.next();
                    check("generated key", keys.getInt("id"), v + 1);
                }
            }
        }
        try (PreparedStatement update = connection.prepareStatement("UPDATE jdbc_item SET v = v + 1000 WHERE v = ?")) {
            for (int v = 0; v < 5; v++) {
                update.setInt(1, v);
                update.addBatch();
            }
            check("batch", update.executeBatch(), new int[] {1, 1, 1, 1, 1});
        }
    }

    static void transactions(Connection connection) throws SQLException {
        connection.setAutoCommit(false);
        run(connection, "INSERT INTO jdbc_item (v) VALUES (100)");
        Savepoint savepoint = connection.setSavepoint("s");
        try {
            run(connection, "INSERT INTO jdbc_item (v) VALUES (100)");
            throw new AssertionError("a duplicate key was not refused");
        } catch (SQLException error) {
            check("sqlstate", error.getSQLState(), "23505");
            connection.rollback(savepoint);
        }
        run(connection, "INSERT INTO jdbc_item (v) VALUES (102)");
        connection.commit();
        run(connection, "DELETE FROM jdbc_item");
        connection.rollback();
        check("savepoint and rollback",
            integers(connection, "SELECT v FROM jdbc_item WHERE v BETWEEN 100 AND 199 ORDER BY v"), List.of(100, 102));
        // Rows in portions: a portal that stays open between Execute messages.
        try (Statement statement = connection.createStatement()) {
            statement.setFetchSize(7);
            int count = 0;
            try (ResultSet rows = statement.executeQuery("SELECT g FROM generate_series(1, 50) g")) {
                while (rows.next()) check("portal", rows.getInt(1), ++count);
            }
            check("portal", count, 50);
        }
        connection.commit();
        connection.setAutoCommit(true);
    }

    static void copies(Connection connection) throws Exception {
        CopyManager copy = connection.unwrap(PGConnection.class).getCopyAPI();
        run(connection, "DROP TABLE IF EXISTS jdbc_copy");
        run(connection, "CREATE TABLE jdbc_copy (v int PRIMARY KEY)");
        StringBuilder text = new StringBuilder();
        for (int v = 200; v < 300; v++) text.append(v).append('\n');
        check("COPY in", copy.copyIn("COPY jdbc_copy (v) FROM STDIN", new StringReader(text.toString())), 100L);
        StringWriter out = new StringWriter();
        copy.copyOut("COPY (SELECT v FROM jdbc_copy WHERE v BETWEEN 200 AND 299 ORDER BY v) TO STDOUT", out);
        check("COPY out", out.toString(), text.toString());
    }

    static void cancel(Connection connection) throws Exception {
        try (Statement statement = connection.createStatement()) {
            Thread canceller = new Thread(() -> {
                try {
                    Thread.sleep(500);
                    statement.cancel();
                } catch (Exception error) {
                    error.printStackTrace();
                }
            });
            canceller.start();
            try {
                statement.execute("SELECT pg_sleep(30)");
                throw new AssertionError("the query was not cancelled");
            } catch (SQLException error) {
                check("cancelled", error.getSQLState(), "57014");
            }
            canceller.join();
        }
        check("after cancel", integers(connection, "SELECT 1"), List.of(1));
    }

    static void notifications(Connection connection) throws SQLException {
        run(connection, "LISTEN jdbc");
        int pid;
        try (Connection other = connect()) {
            pid = other.unwrap(PGConnection.class).getBackendPID();
            run(other, "NOTIFY jdbc, 'hello'");
        }
        PGNotification[] heard = connection.unwrap(PGConnection.class).getNotifications(10_000);
        check("notifications", heard == null ? 0 : heard.length, 1);
        check("notification", heard[0].getName() + heard[0].getParameter() + heard[0].getPID(), "jdbchello" + pid);
    }

    public static void main(String[] arguments) throws Exception {
        try (Connection connection = connect()) {
            values(connection);
            prepared(connection);
            transactions(connection);
            copies(connection);
            cancel(connection);
            notifications(connection);
            try {
                run(connection, "SELECT 1/0");
                throw new AssertionError("no error for 1/0");
            } catch (SQLException error) {
                check("sqlstate", error.getSQLState(), "22012");
            }
        }
        System.out.println("ok");
    }
}
