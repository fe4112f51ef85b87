//! Kinds of tables that are tied to others: foreign keys, partitions, inheritance, triggers that write elsewhere.
use crate::schema::{Role, Table, Use};
use crate::tier::Tier;
use crate::value::Ty;
use integration_tests::history::Dice;

/// From 18 on RESTRICT has a SQLSTATE of its own.
const FOREIGN: [&str; 3] = ["23503", "23502", "23001"];

/// A parent, a child and a grandchild; what happens when a parent goes is drawn.
pub fn family(dice: &mut Dice, name: &str) -> Vec<Table> {
    let action =
        |dice: &mut Dice| *dice.pick(&["CASCADE", "CASCADE", "SET NULL", "SET DEFAULT", "NO ACTION", "RESTRICT"]);
    let (first, second) = (action(dice), action(dice));
    let deferrable = *dice.pick(&["", "", " DEFERRABLE INITIALLY DEFERRED", " DEFERRABLE"]);
    let names: Vec<String> = ["parent", "child", "grandchild"].iter().map(|part| format!("{name}_{part}")).collect();
    let all = |at: usize| -> Vec<String> {
        names.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, n)| n.clone()).collect()
    };
    let by_unique = dice.percent(30);
    let mut parent = Table::named("family", &names[0])
        .column("id", Ty::Int, Role::Key)
        .column("u", Ty::Int, Role::Few(6))
        .column("n", Ty::BigInt, Role::Number)
        .arbiter("(id)")
        .may(&FOREIGN)
        .with(&all(0));
    let mut child = Table::named("family", &names[1])
        .column("id", Ty::Int, Role::Key)
        .column("parent", Ty::Int, Role::Few(6))
        .nullable()
        .column("n", Ty::BigInt, Role::Number)
        .arbiter("(id)")
        .may(&FOREIGN)
        .with(&all(1));
    let mut grandchild = Table::named("family", &names[2])
        .column("id", Ty::Int, Role::Key)
        .column("child", Ty::Int, Role::Few(8))
        .nullable()
        .column("n", Ty::BigInt, Role::Number)
        .column("s", Ty::Text, Role::Any)
        .arbiter("(id)")
        .may(&FOREIGN)
        .with(&all(2));
    for table in [&mut parent, &mut child, &mut grandchild] {
        table.uses.push(Use::Related);
    }
    let target = if by_unique { "(u)" } else { "(id)" };
    let [one, two, three] = [&names[0], &names[1], &names[2]];
    parent.ddl = format!(
        "CREATE TABLE {one} (id int PRIMARY KEY, u int NOT NULL UNIQUE, n bigint NOT NULL DEFAULT 0);
        INSERT INTO {one} SELECT g, g, g FROM generate_series(1, 6) g;\n"
    );
    child.ddl = format!(
        "CREATE TABLE {two} (id int PRIMARY KEY, parent int REFERENCES {one} {target} ON DELETE {first}{deferrable}, n bigint NOT NULL DEFAULT 0);
        INSERT INTO {two} SELECT g, 1 + g % 6, g FROM generate_series(1, 8) g;\n"
    );
    grandchild.ddl = format!(
        "CREATE TABLE {three} (id int PRIMARY KEY, child int REFERENCES {two} ON DELETE {second}, n bigint NOT NULL DEFAULT 0, s text);
        INSERT INTO {three} SELECT g, g, g FROM generate_series(1, 8) g;\n"
    );
    vec![parent, child, grandchild]
}

/// Rows that refer to rows of the same table.
pub fn tree(dice: &mut Dice, name: &str) -> Table {
    let action = *dice.pick(&["CASCADE", "SET NULL", "NO ACTION"]);
    let deferrable = *dice.pick(&["", " DEFERRABLE INITIALLY DEFERRED"]);
    let mut table = Table::named("tree", name)
        .column("id", Ty::Int, Role::Key)
        .column("up", Ty::Int, Role::Few(10))
        .nullable()
        .column("n", Ty::BigInt, Role::Number)
        .arbiter("(id)")
        .may(&FOREIGN)
        .uses(&[Use::Related]);
    table.space = 10;
    table.ddl = format!(
        "CREATE TABLE {name} (id int PRIMARY KEY, up int REFERENCES {name} ON DELETE {action}{deferrable}, n bigint NOT NULL DEFAULT 0);
        INSERT INTO {name} SELECT g, nullif(g / 2, 0), g FROM generate_series(1, 10) g;\n"
    );
    table
}

/// By list, range or hash; some with partitions of partitions and a default one.
pub fn partitioned(dice: &mut Dice, name: &str) -> Table {
    let keyed = dice.percent(80);
    let mut table = Table::named("partitioned", name).uses(&[Use::Partitioned, Use::Truncate]).may(&["23514"]);
    let key = |columns: &str| if keyed { format!(", PRIMARY KEY ({columns})") } else { String::new() };
    let (partitions, ddl) = match dice.below(3) {
        0 => {
            table = table.column("id", Ty::Int, Role::Key).column("p", Ty::Text, Role::Among(&["a", "b", "c", "d"]));
            table = table.arbiter("(id, p)");
            let mixed = dice.percent(60);
            if mixed {
                table = table.uses(&[Use::Mixed]);
            }
            let columns_of_b = if mixed {
                "s text, id int NOT NULL, p text NOT NULL, n bigint NOT NULL DEFAULT 0"
            } else {
                "id int NOT NULL, p text NOT NULL, n bigint NOT NULL DEFAULT 0, s text"
            };
            let ddl = format!(
                "CREATE TABLE {name} (id int, p text, n bigint NOT NULL DEFAULT 0, s text{}) PARTITION BY LIST (p);
                CREATE TABLE {name}_a PARTITION OF {name} FOR VALUES IN ('a');
                CREATE TABLE {name}_b ({columns_of_b});
                ALTER TABLE {name} ATTACH PARTITION {name}_b FOR VALUES IN ('b');
                CREATE TABLE {name}_rest PARTITION OF {name} DEFAULT PARTITION BY HASH (id);
                CREATE TABLE {name}_rest_0 PARTITION OF {name}_rest FOR VALUES WITH (MODULUS 2, REMAINDER 0);
                CREATE TABLE {name}_rest_1 PARTITION OF {name}_rest FOR VALUES WITH (MODULUS 2, REMAINDER 1);\n",
                key("id, p")
            );
            (vec!["a", "b", "rest", "rest_0", "rest_1"], ddl)
        }
        1 => {
            table = table.column("id", Ty::Int, Role::Key).arbiter("(id)");
            let ddl = format!(
                "CREATE TABLE {name} (id int, n bigint NOT NULL DEFAULT 0, s text{}) PARTITION BY RANGE (id);
                CREATE TABLE {name}_1 PARTITION OF {name} FOR VALUES FROM (MINVALUE) TO (4);
                CREATE TABLE {name}_2 PARTITION OF {name} FOR VALUES FROM (4) TO (7);
                CREATE TABLE {name}_3 PARTITION OF {name} FOR VALUES FROM (7) TO (1000);\n",
                key("id")
            );
            (vec!["1", "2", "3"], ddl)
        }
        _ => {
            table = table.column("id", Ty::Int, Role::Key).arbiter("(id)");
            let ddl = format!(
                "CREATE TABLE {name} (id int, n bigint NOT NULL DEFAULT 0, s text{}) PARTITION BY HASH (id);
                CREATE TABLE {name}_0 PARTITION OF {name} FOR VALUES WITH (MODULUS 2, REMAINDER 0);
                CREATE TABLE {name}_1 PARTITION OF {name} FOR VALUES WITH (MODULUS 2, REMAINDER 1);\n",
                key("id")
            );
            (vec!["0", "1"], ddl)
        }
    };
    table.ddl = ddl;
    if !keyed {
        table.keyed = false;
        table.arbiters.clear();
    }
    let partitions: Vec<String> = partitions.iter().map(|part| format!("{name}_{part}")).collect();
    table.column("n", Ty::BigInt, Role::Number).column("s", Ty::Text, Role::Any).with(&partitions)
}

/// A table and one that inherits from it.
pub fn inherited(_dice: &mut Dice, name: &str) -> Vec<Table> {
    let child = format!("{name}_heir");
    let mut parent = Table::named("inherited", name)
        .column("id", Ty::Int, Role::Key)
        .column("n", Ty::BigInt, Role::Number)
        .arbiter("(id)")
        .uses(&[Use::Parent])
        .with(std::slice::from_ref(&child));
    parent.ddl = format!(
        "CREATE TABLE {name} (id int PRIMARY KEY, n bigint NOT NULL DEFAULT 0);
        CREATE TABLE {child} (s text, PRIMARY KEY (id)) INHERITS ({name});\n"
    );
    let heir = Table::named("inherited", &child)
        .column("id", Ty::Int, Role::Key)
        .column("n", Ty::BigInt, Role::Number)
        .column("s", Ty::Text, Role::Any)
        .arbiter("(id)");
    vec![parent, heir]
}

/// AFTER triggers that write to a second table.
pub fn audited(dice: &mut Dice, name: &str) -> Table {
    let level = if dice.percent(50) { "ROW" } else { "STATEMENT" };
    let audit = format!("{name}_audit");
    let mut table = Table::named("audited", name)
        .column("id", Ty::Int, Role::Key)
        .column("n", Ty::BigInt, Role::Number)
        .arbiter("(id)")
        .with(std::slice::from_ref(&audit));
    table.uses.clear();
    table.tier = Tier::Declared;
    table.ddl = format!(
        "CREATE TABLE {name} (id int PRIMARY KEY, n bigint NOT NULL DEFAULT 0);
        CREATE TABLE {audit} (id bigserial PRIMARY KEY, what text, at timestamptz DEFAULT now());
        CREATE FUNCTION {name}_note() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO {audit} (what) VALUES (TG_OP); RETURN NULL; END';
        CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON {name} FOR EACH {level} EXECUTE FUNCTION {name}_note();\n"
    );
    table
}

/// A rule that writes a second row elsewhere.
pub fn ruled(_dice: &mut Dice, name: &str) -> Table {
    let also = format!("{name}_also");
    let mut table = Table::named("ruled", name)
        .column("id", Ty::Int, Role::Key)
        .column("n", Ty::BigInt, Role::Number)
        .with(std::slice::from_ref(&also));
    table.uses.clear();
    table.tier = Tier::Declared;
    table.ddl = format!(
        "CREATE TABLE {name} (id int PRIMARY KEY, n bigint NOT NULL DEFAULT 0);
        CREATE TABLE {also} (id bigserial PRIMARY KEY, n bigint);
        CREATE RULE twice AS ON INSERT TO {name} DO ALSO INSERT INTO {also} (n) VALUES (NEW.n);\n"
    );
    table
}
