import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.util.List;
import java.util.Properties;
import java.util.TreeSet;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ThreadLocalRandom;

/**
 * Clients that work as TPC-C's do, each with a connection and statements that are prepared on the server; prints what was acknowledged, and ends with an
 * error at the first failed statement. Environment: CLIENTS, STOP (a file that ends it), THINK (milliseconds between transactions).
 */
public class LedgerJdbc {
    static final List<String> acknowledged = new CopyOnWriteArrayList<>();
    static final List<String> failures = new CopyOnWriteArrayList<>();

    static int between(int low, int high) {
        return ThreadLocalRandom.current().nextInt(low, high + 1);
    }

    static void client(int number) {
        Path stop = Path.of(System.getenv("STOP"));
        int think = Integer.parseInt(System.getenv("THINK"));
        String url = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE");
        Properties properties = new Properties();
        properties.setProperty("user", System.getenv("PGUSER"));
        properties.setProperty("password", System.getenv("PGPASSWORD"));
        properties.setProperty("prepareThreshold", "2");
        properties.setProperty("sslmode", "disable");
        try (Connection connection = DriverManager.getConnection(url, properties);
                PreparedStatement next = connection.prepareStatement("UPDATE district SET next_order = next_order + 1 WHERE id = ? RETURNING next_order");
                PreparedStatement order = connection.prepareStatement("INSERT INTO orders (district, number, ref) VALUES (?, ?, ?) RETURNING id");
                PreparedStatement stock = connection.prepareStatement("UPDATE stock SET quantity = quantity - 1 WHERE item = ?");
                PreparedStatement line = connection.prepareStatement("INSERT INTO order_line (order_id, item) VALUES (?, ?)");
                PreparedStatement ytd = connection.prepareStatement("UPDATE district SET ytd = ytd + ? WHERE id = ?");
                PreparedStatement balance = connection.prepareStatement("UPDATE customer SET balance = balance - ? WHERE id = ?");
                PreparedStatement history = connection.prepareStatement("INSERT INTO history (customer, amount, ref) VALUES (?, ?, ?)")) {
            connection.setAutoCommit(false);
            for (int turn = 1; !Files.exists(stop); turn++) {
                String ref = "jdbc-" + number + "-" + turn;
                int district = between(1, 10);
                if (between(0, 1) == 0) {
                    next.setInt(1, district);
                    long at;
                    try (ResultSet row = next.executeQuery()) {
                        row.next();
                        at = row.getLong(1);
                    }
                    order.setInt(1, district);
                    order.setLong(2, at);
                    order.setString(3, ref);
                    long id;
                    try (ResultSet row = order.executeQuery()) {
                        row.next();
                        id = row.getLong(1);
                    }
                    for (int item : new TreeSet<>(List.of(between(1, 33), between(34, 66), between(67, 100)))) {
                        stock.setInt(1, item);
                        stock.executeUpdate();
                        line.setLong(1, id);
                        line.setInt(2, item);
                        line.addBatch();
                    }
                    line.executeBatch();
                } else {
                    int customer = between(1, 300);
                    int amount = between(1, 500);
                    ytd.setInt(1, amount);
                    ytd.setInt(2, district);
                    ytd.executeUpdate();
                    balance.setInt(1, amount);
                    balance.setInt(2, customer);
                    balance.executeUpdate();
                    history.setInt(1, customer);
                    history.setInt(2, amount);
                    history.setString(3, ref);
                    history.executeUpdate();
                }
                connection.commit();
                acknowledged.add(ref);
                Thread.sleep(between(think / 2, think * 3 / 2));
            }
        } catch (Exception error) {
            failures.add("client " + number + ": " + error);
        }
    }

    public static void main(String[] arguments) throws Exception {
        List<Thread> threads = new java.util.ArrayList<>();
        for (int number = 0; number < Integer.parseInt(System.getenv("CLIENTS")); number++) {
            int own = number;
            Thread thread = new Thread(() -> client(own));
            thread.start();
            threads.add(thread);
        }
        for (Thread thread : threads) {
            thread.join();
        }
        System.out.println(String.join("\n", acknowledged));
        if (!failures.isEmpty()) {
            System.err.println(String.join("\n", failures));
            System.exit(1);
        }
    }
}
