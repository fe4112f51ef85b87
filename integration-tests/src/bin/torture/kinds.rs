//! Kinds of tables that stand alone.
use crate::schema::{Role, Table, Use};
use crate::tier::Tier;
use crate::value::Ty;
use integration_tests::history::Dice;

/// Columns with any values, between one and five.
fn any_columns(dice: &mut Dice, mut table: Table) -> Table {
    for number in 1..=dice.between(1, 5) {
        let ty = *dice.pick(&Ty::VALUES);
        table = table.column(&format!("c{number}"), ty, Role::Any);
    }
    table
}

/// `c1 int, c2 text` of the columns that are nothing but values, each behind a comma.
fn any_definitions(table: &Table) -> String {
    let any = table.with_role(|role| *role == Role::Any);
    any.iter().map(|column| format!(", {} {}", column.name, column.ty.sql())).collect()
}

/// A key of one or two columns, few rows, all kinds of values.
pub fn plain(dice: &mut Dice, name: &str) -> Table {
    let unlogged = if dice.percent(15) { "UNLOGGED " } else { "" };
    let ty = *dice.pick(&[Ty::Int, Ty::Int, Ty::BigInt, Ty::Text, Ty::Uuid, Ty::Date, Ty::Numeric, Ty::Bytea]);
    let two = dice.percent(25);
    let odd = dice.percent(20);
    let (sql, shown) = if odd {
        (format!("odd.\"T {name}\"\"\""), format!("odd.T {name}\""))
    } else {
        (name.to_owned(), format!("public.{name}"))
    };
    let mut table = Table::named("plain", &sql).uses(&[Use::Truncate]);
    table.family = vec![shown];
    table.space = dice.between(3, 14);
    table = table.column(if odd { "\"Key\"" } else { "id" }, ty, Role::Key);
    let mut key = table.columns[0].name.clone();
    if two {
        table = table.column("k2", Ty::Text, Role::Key);
        key += ", k2";
    }
    table = table.column("n", Ty::BigInt, Role::Number);
    table = any_columns(dice, table).arbiter(&format!("({key})"));
    let keys: String =
        table.with_role(|role| *role == Role::Key).iter().map(|c| format!("{} {}, ", c.name, c.ty.sql())).collect();
    let unique = if dice.percent(30) { "NOT NULL, UNIQUE" } else { "NOT NULL, PRIMARY KEY" };
    // A unique key over columns that aren't NULL serves as a key too.
    let not_null: String = if unique.ends_with("UNIQUE") { keys.replace(", ", " NOT NULL, ") } else { keys };
    table.ddl = format!(
        "CREATE {unlogged}TABLE {sql} ({not_null}n bigint DEFAULT 0 {unique} ({key}){});\n",
        any_definitions(&table)
    );
    table
}

/// Two unique keys besides the primary one, some partial, some over expressions.
pub fn uniques(dice: &mut Dice, name: &str) -> Table {
    let mut table = Table::named("uniques", name)
        .column("id", Ty::Int, Role::Key)
        .column("u", Ty::Int, Role::Few(6))
        .column("w", Ty::Int, Role::Few(6))
        .nullable()
        .column("s", Ty::Text, Role::Few(8))
        .nullable()
        .column("n", Ty::BigInt, Role::Number)
        .arbiter("(id)")
        .arbiter("(u)")
        .uses(&[Use::Truncate]);
    let (index, arbiter) = *dice.pick(&[
        ("(w)", "(w)"),
        ("(w) WHERE n % 2 = 0", "(w) WHERE n % 2 = 0"),
        ("(lower(s))", "(lower(s))"),
        ("(s, w)", "(s, w)"),
        ("(w) NULLS NOT DISTINCT", "(w)"),
        ("(w) INCLUDE (n)", "(w)"),
    ]);
    table = table.arbiter(arbiter);
    table.ddl = format!(
        "CREATE TABLE {name} (id int PRIMARY KEY, u int NOT NULL UNIQUE, w int, s text, n bigint NOT NULL DEFAULT 0);
        CREATE UNIQUE INDEX {name}_i ON {name} {index};\n"
    );
    table
}

/// A unique key that is checked at the end of the statement or of the transaction.
pub fn deferred(dice: &mut Dice, name: &str) -> Table {
    let when = if dice.percent(60) { "DEFERRED" } else { "IMMEDIATE" };
    let mut table = Table::named("deferred", name)
        .column("id", Ty::Int, Role::Key)
        .column("u", Ty::Int, Role::Few(7))
        .column("n", Ty::BigInt, Role::Number)
        .arbiter("(id)");
    table.ddl = format!(
        "CREATE TABLE {name} (id int PRIMARY KEY, u int NOT NULL UNIQUE DEFERRABLE INITIALLY {when}, n bigint NOT NULL DEFAULT 0);\n"
    );
    // ON CONFLICT can't take a deferrable constraint as its arbiter.
    table.may(&["55000"])
}

/// Ranges that must not overlap.
pub fn excluded(dice: &mut Dice, name: &str) -> Table {
    let deferrable = if dice.percent(30) { " DEFERRABLE INITIALLY DEFERRED" } else { "" };
    let mut table = Table::named("excluded", name)
        .column("id", Ty::Int, Role::Key)
        .column("r", Ty::Range, Role::Any)
        .column("n", Ty::BigInt, Role::Number)
        .arbiter("(id)")
        .may(&["23P01", "55000"]);
    table.ddl = format!(
        "CREATE TABLE {name} (id int PRIMARY KEY, r int4range, n bigint NOT NULL DEFAULT 0, EXCLUDE USING gist (r WITH &&){deferrable});\n"
    );
    table
}

/// A key that the database makes, defaults that are computed, a generated column.
pub fn made(dice: &mut Dice, name: &str) -> Table {
    let (key, role) = if dice.percent(50) {
        ("bigint GENERATED ALWAYS AS IDENTITY", Role::MadeAlways)
    } else {
        ("bigserial", Role::Made)
    };
    let mut table = Table::named("made", name)
        .column("id", Ty::BigInt, role)
        .column("n", Ty::BigInt, Role::Number)
        .column("twice", Ty::BigInt, Role::Generated)
        .column("at", Ty::Instant, Role::Made)
        .column("r", Ty::Float, Role::Made)
        .column("x", Ty::Uuid, Role::Made)
        .column("s", Ty::Text, Role::Any);
    table.uses.clear();
    table.ddl = format!(
        "CREATE TABLE {name} (id {key} PRIMARY KEY, n bigint NOT NULL DEFAULT 0, twice bigint GENERATED ALWAYS AS (n * 2) STORED,
        at timestamptz DEFAULT clock_timestamp(), r float8 DEFAULT random(), x uuid DEFAULT gen_random_uuid(), s text);\n"
    );
    table
}

/// A BEFORE trigger that sets a version and a time in its own row.
pub fn touched(dice: &mut Dice, name: &str) -> Table {
    let mut table = Table::named("touched", name)
        .column("id", Ty::Int, Role::Key)
        .column("n", Ty::BigInt, Role::Number)
        .column("version", Ty::Int, Role::Made)
        .column("at", Ty::Instant, Role::Made);
    table = any_columns(dice, table).arbiter("(id)");
    table.uses.clear();
    let definitions = any_definitions(&table);
    table.ddl = format!(
        "CREATE TABLE {name} (id int PRIMARY KEY, n bigint NOT NULL DEFAULT 0, version int DEFAULT 0, at timestamptz{definitions});
        CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON {name} FOR EACH ROW EXECUTE FUNCTION touch();\n"
    );
    table
}

/// Rows without a key.
pub fn keyless(dice: &mut Dice, name: &str) -> Table {
    let mut table = Table::named("keyless", name).column("n", Ty::BigInt, Role::Number);
    table = any_columns(dice, table);
    table.keyed = false;
    table.states.clear();
    let definitions = any_definitions(&table);
    table.ddl = format!("CREATE TABLE {name} (n bigint NOT NULL DEFAULT 0{definitions});\n");
    table
}

/// Jobs that sessions take without waiting for each other.
pub fn queue(_dice: &mut Dice, name: &str) -> Table {
    let mut table = Table::named("queue", name)
        .column("id", Ty::Int, Role::Key)
        .column("state", Ty::Int, Role::Few(2))
        .column("n", Ty::BigInt, Role::Number)
        .arbiter("(id)")
        .uses(&[Use::Queue]);
    table.space = 30;
    table.ddl = format!(
        "CREATE TABLE {name} (id int PRIMARY KEY, state int NOT NULL DEFAULT 1, n bigint NOT NULL DEFAULT 0);
        INSERT INTO {name} SELECT g, 1 + g % 2, g FROM generate_series(1, 30) g;\n"
    );
    table
}

/// Long values, stored out of line.
pub fn long(_dice: &mut Dice, name: &str) -> Table {
    let mut table = Table::named("long", name)
        .column("id", Ty::Int, Role::Key)
        .column("n", Ty::BigInt, Role::Number)
        .column("big", Ty::Text, Role::Made)
        .column("s", Ty::Text, Role::Any)
        .arbiter("(id)");
    table.space = 4;
    table.ddl = format!(
        "CREATE TABLE {name} (id int PRIMARY KEY, n bigint NOT NULL DEFAULT 0, big text DEFAULT repeat('long ', 4000), s text);
        ALTER TABLE {name} ALTER big SET STORAGE EXTERNAL;\n"
    );
    table
}

/// A table that is altered while it is written.
pub fn altered(dice: &mut Dice, name: &str) -> Table {
    let mut table = plain(dice, name).uses(&[Use::Alter]);
    table.kind = "altered";
    table.ddl += &format!("ALTER TABLE {} ADD COLUMN x1 int;\n", table.name);
    table
}

/// A view over one table, through which rows are written.
pub fn view(dice: &mut Dice, name: &str) -> Table {
    let check = if dice.percent(50) { " WITH CHECK OPTION" } else { "" };
    let mut table = Table::named("view", name)
        .column("id", Ty::Int, Role::Key)
        .column("n", Ty::BigInt, Role::Number)
        .column("s", Ty::Text, Role::Any)
        .arbiter("(id)")
        .may(&["44000"])
        .with(&[format!("{name}_base")]);
    table.uses = vec![Use::View];
    table.tier = Tier::Wanted;
    table.ddl = format!(
        "CREATE TABLE {name}_base (s text, id int PRIMARY KEY, hidden int DEFAULT 7, n bigint NOT NULL DEFAULT 0);
        CREATE VIEW {name} AS SELECT id, n, s FROM {name}_base WHERE n >= 0{check};\n"
    );
    table
}
