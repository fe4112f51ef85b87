"""Clients that work as TPC-C's do, each with a connection and prepared statements of its own; prints what was acknowledged, and ends with an error at
the first failed statement. Environment: CLIENTS, STOP (a file that ends it), THINK (milliseconds between transactions)."""
import os
import random
import sys
import threading
import time

import psycopg

CLIENTS, STOP, THINK = int(os.environ["CLIENTS"]), os.environ["STOP"], float(os.environ["THINK"]) / 1000
acknowledged, failures, lock = [], [], threading.Lock()


def order(connection, ref):
    district, items = random.randint(1, 10), sorted(random.sample(range(1, 101), 3))
    with connection.transaction():
        row = connection.execute(
            "UPDATE district SET next_order = next_order + 1 WHERE id = %s RETURNING next_order", (district,)
        ).fetchone()
        made = connection.execute(
            "INSERT INTO orders (district, number, ref) VALUES (%s, %s, %s) RETURNING id", (district, row[0], ref)
        ).fetchone()
        for item in items:
            connection.execute("UPDATE stock SET quantity = quantity - 1 WHERE item = %s", (item,))
            connection.execute("INSERT INTO order_line (order_id, item) VALUES (%s, %s)", (made[0], item))


def payment(connection, ref):
    district, customer, amount = random.randint(1, 10), random.randint(1, 300), random.randint(1, 500)
    with connection.transaction():
        connection.execute("UPDATE district SET ytd = ytd + %s WHERE id = %s", (amount, district))
        connection.execute("UPDATE customer SET balance = balance - %s WHERE id = %s", (amount, customer))
        connection.execute(
            "INSERT INTO history (customer, amount, ref) VALUES (%s, %s, %s)", (customer, amount, ref)
        )


def client(number):
    try:
        with psycopg.connect(autocommit=True, prepare_threshold=2) as connection:
            turn = 0
            while not os.path.exists(STOP):
                turn += 1
                ref = f"psycopg-{number}-{turn}"
                (order if random.random() < 0.5 else payment)(connection, ref)
                with lock:
                    acknowledged.append(ref)
                connection.execute("SELECT balance FROM customer WHERE id = %s", (random.randint(1, 300),)).fetchone()
                time.sleep(THINK * random.uniform(0.5, 1.5))
    except Exception as error:  # noqa: BLE001
        with lock:
            failures.append(f"client {number}: {error!r}")


threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("\n".join(acknowledged))
if failures:
    print("\n".join(failures), file=sys.stderr)
    sys.exit(1)
