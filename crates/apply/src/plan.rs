//! The text of the statements that write one row. Each is a single statement with one result column: NULL where the
//! shadow's row is equal to the image, else the texts of both (the shadow's columns, then the image's).

use crate::shadow_table::ShadowTable;
use pgshadow_model::{ColumnType, Operation, Relation, RowImage, Shape, quote};
use std::fmt::Write as _;

/// What a statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// A new row.
    Insert,
    /// A changed row, found by its key (`old`: by the key before the change).
    Update { old: bool },
    /// A changed row, or else a new one.
    Upsert { old: bool },
    /// A row to be deleted, compared with what it was.
    Delete,
    /// The texts of the image alone, no table touched.
    Texts,
    /// The texts of the shadow's row with the image's key.
    Read,
    /// Whether the shadow's row with the image's key is the image.
    Check,
}

/// Where a parameter's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Param {
    /// The image's value at this position.
    New(usize),
    /// The old key's value at this place.
    Old(usize),
}

/// The text of a statement with its parameters.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PlanText {
    pub(crate) sql: String,
    pub(crate) params: Vec<Param>,
}

/// The form for an image; `tolerant`: a row that isn't as it should be is made so without a word.
pub(crate) fn form_of(image: &RowImage, tolerant: bool) -> Form {
    let (old, keyed) = (image.old_key.is_some(), !image.relation.key.is_empty());
    match image.operation {
        Operation::Delete => Form::Delete,
        Operation::Insert if tolerant && keyed => Form::Upsert { old },
        Operation::Insert => Form::Insert,
        Operation::Update if tolerant && keyed => Form::Upsert { old },
        Operation::Update => Form::Update { old },
        Operation::Upsert | Operation::Reread => Form::Upsert { old },
    }
}

/// The statement; `None` if the image doesn't say which row is meant (a keyless table's UPDATE without the old row).
pub(crate) fn text(relation: &Relation, table: &ShadowTable, form: Form) -> Option<PlanText> {
    let mut b = Builder { relation, table, params: Vec::new(), first: 0, row: String::new() };
    let sql = match form {
        Form::Insert => b.insert(),
        Form::Update { old } => b.update(old)?,
        Form::Upsert { old } => b.upsert(old)?,
        Form::Delete => b.delete()?,
        Form::Texts => format!("SELECT {}", b.image_texts()),
        Form::Check => format!("SELECT {} FROM {} AS x WHERE {}", b.evidence(), b.rows(), b.place(false)?),
        Form::Read => format!("SELECT {} FROM {} AS x WHERE {}", b.row_texts(), b.rows(), b.place(false)?),
    };
    Some(PlanText { sql, params: b.params })
}

/// Several rows in one statement, whose foreign keys are checked at its end: the result has the row's place and what its own
/// statement gives. Parameters are by row.
pub(crate) fn together(rows: &[(&Relation, &ShadowTable, Form)]) -> Option<(String, Vec<Vec<Param>>)> {
    let (mut parts, mut results, mut params, mut first) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for (n, (relation, table, form)) in rows.iter().enumerate() {
        let mut b = Builder { relation, table, params: Vec::new(), first, row: n.to_string() };
        let mut result = |name: &str| results.push(format!("SELECT {n}::int4 AS n, e FROM {name}{n}"));
        match form {
            Form::Update { old } | Form::Upsert { old } => {
                let Steps { before, main } = b.update_steps(*old)?;
                parts.extend(before.map(|delete| format!("d{n} AS ({delete})")));
                parts.push(format!("u{n} AS ({main})"));
                result("u");
                if matches!(form, Form::Upsert { .. }) {
                    parts.push(format!("i{n} AS ({})", b.insert_unless_updated()));
                    result("i");
                }
            }
            Form::Insert => {
                parts.push(format!("i{n} AS ({})", b.insert()));
                result("i");
            }
            Form::Delete => {
                parts.push(format!("u{n} AS ({})", b.delete()?));
                result("u");
            }
            Form::Texts | Form::Read | Form::Check => return None,
        }
        first += b.params.len();
        params.push(b.params);
    }
    Some((format!("WITH {} {}", parts.join(", "), results.join(" UNION ALL ")), params))
}

/// An UPDATE as statements: at most one before the one that gives the result.
struct Steps {
    before: Option<String>,
    main: String,
}

struct Builder<'a> {
    relation: &'a Relation,
    table: &'a ShadowTable,
    params: Vec<Param>,
    /// Parameters of others that come before.
    first: usize,
    /// Behind the names of the parts of a statement that writes several rows.
    row: String,
}

impl Builder<'_> {
    fn delete(&mut self) -> Option<String> {
        let (rows, place) = (self.rows(), self.place(false)?);
        Some(format!("DELETE FROM {rows} AS x WHERE {place} RETURNING {}", self.evidence()))
    }

    fn rows(&self) -> String {
        own_rows(self.relation, self.table.partitioned)
    }

    /// A parameter with its type; the same value is the same parameter.
    fn param(&mut self, param: Param, of: &ColumnType) -> String {
        let known = self.params.iter().position(|p| *p == param);
        let n = known.unwrap_or_else(|| {
            self.params.push(param);
            self.params.len() - 1
        });
        format!("${}::{}", self.first + n + 1, cast(of))
    }

    fn value(&mut self, position: usize) -> String {
        let relation = self.relation;
        relation
            .columns
            .get(position)
            .map_or_else(|| "NULL".to_owned(), |c| self.param(Param::New(position), &c.column_type))
    }

    /// Positions of the image's columns that the shadow has, and that `wanted` accepts.
    fn positions(&self, wanted: impl Fn(usize, &crate::shadow_table::TableColumn) -> bool) -> Vec<usize> {
        let columns = self.relation.columns.iter().enumerate();
        columns
            .filter(|(i, c)| self.table.columns.get(&c.name).is_some_and(|s| wanted(*i, s)))
            .map(|(i, _)| i)
            .collect()
    }

    fn column(&self, position: usize) -> String {
        self.relation.columns.get(position).map_or_else(String::new, |c| quote(&c.name))
    }

    fn is_key(&self, position: usize) -> bool {
        self.relation.key.iter().any(|k| usize::from(*k) == position)
    }

    fn insert(&mut self) -> String {
        let written = self.positions(|_, s| !s.shape.generated);
        let head = self.insert_head(&written);
        if written.is_empty() {
            return format!("{head} DEFAULT VALUES RETURNING {}", self.evidence());
        }
        let values = written.iter().map(|i| self.value(*i)).collect::<Vec<_>>().join(", ");
        format!("{head} VALUES ({values}) RETURNING {}", self.evidence())
    }

    fn insert_head(&self, written: &[usize]) -> String {
        let mut head = format!("INSERT INTO {} AS x", self.relation.name.sql());
        if !written.is_empty() {
            let _ = write!(head, " ({})", written.iter().map(|i| self.column(*i)).collect::<Vec<_>>().join(", "));
        }
        if self.table.columns.values().any(|c| c.identity_always) {
            head.push_str(" OVERRIDING SYSTEM VALUE");
        }
        head
    }

    fn update(&mut self, old: bool) -> Option<String> {
        let Steps { before, main } = self.update_steps(old)?;
        Some(before.map_or_else(|| main.clone(), |delete| format!("WITH d AS ({delete}) {main}")))
    }

    fn update_steps(&mut self, old: bool) -> Option<Steps> {
        let keyless = self.relation.key.is_empty();
        if keyless && !old {
            return None;
        }
        let identity_key = !self.positions(|i, s| self.is_key(i) && s.identity_always).is_empty();
        if old && !keyless && identity_key {
            return self.replace();
        }
        let set = self.positions(|i, s| !s.shape.generated && !s.identity_always && (old || !self.is_key(i)));
        let (name, place) = (self.rows(), self.place(old)?);
        if set.is_empty() {
            // Nothing to change that isn't the key itself: the row must be there all the same.
            let main = format!("SELECT {} FROM {name} AS x WHERE {place}", self.evidence());
            return Some(Steps { before: None, main });
        }
        let assigned: Vec<_> = set.iter().map(|i| format!("{} = {}", self.column(*i), self.value(*i))).collect();
        let main =
            format!("UPDATE {name} AS x SET {} WHERE {place} RETURNING {}", assigned.join(", "), self.evidence());
        Some(Steps { before: None, main })
    }

    /// An identity key GENERATED ALWAYS can't be assigned: the row is deleted and inserted.
    fn replace(&mut self) -> Option<Steps> {
        let before = format!("DELETE FROM {} AS x WHERE {} RETURNING 1", self.rows(), self.place(true)?);
        let (head, values) = self.insert_select();
        let evidence = self.evidence();
        Some(Steps {
            before: Some(before),
            main: format!("{head} SELECT {values} FROM d{row} RETURNING {evidence}", row = self.row),
        })
    }

    fn insert_select(&mut self) -> (String, String) {
        let written = self.positions(|_, s| !s.shape.generated);
        let values = written.iter().map(|i| self.value(*i)).collect::<Vec<_>>().join(", ");
        (self.insert_head(&written), values)
    }

    fn upsert(&mut self, old: bool) -> Option<String> {
        if self.relation.key.is_empty() {
            return None;
        }
        let Steps { before, main } = self.update_steps(old)?;
        let before = before.map_or_else(String::new, |delete| format!("d AS ({delete}), "));
        let insert = self.insert_unless_updated();
        Some(format!("WITH {before}u AS ({main}), i AS ({insert}) SELECT e FROM u UNION ALL SELECT e FROM i"))
    }

    fn insert_unless_updated(&mut self) -> String {
        let (head, values) = self.insert_select();
        let evidence = self.evidence();
        format!("{head} SELECT {values} WHERE NOT EXISTS (SELECT FROM u{}) RETURNING {evidence}", self.row)
    }

    /// The condition that finds the row.
    fn place(&mut self, old: bool) -> Option<String> {
        let relation = self.relation;
        if relation.key.is_empty() {
            return Some(self.place_keyless(old));
        }
        let mut parts = Vec::new();
        for (n, position) in relation.key.iter().enumerate() {
            let column = relation.columns.get(usize::from(*position))?;
            let param = if old { Param::Old(n) } else { Param::New(usize::from(*position)) };
            let value = self.param(param, &column.column_type);
            // Where 18 leaves partitions out by a parameter, it mixes up the columns of a row that moves to another one.
            let value = if old && self.table.partitioned { format!("(SELECT {value})") } else { value };
            let schema = self.table.columns.get(&column.name).map_or("pg_catalog", |c| &c.equality_schema);
            parts.push(format!("x.{} OPERATOR({}.=) {value}", quote(&column.name), quote(schema)));
        }
        Some(parts.join(" AND "))
    }

    /// One of the rows that are the same in every column; `old`: as the old row was.
    fn place_keyless(&mut self, old: bool) -> String {
        let same = self.equal("y", old);
        format!("(x.tableoid, x.ctid) = (SELECT y.tableoid, y.ctid FROM {} AS y WHERE {same} LIMIT 1)", self.rows())
    }

    /// Whether the row under this alias is the image: by image where the types are the same, else by text.
    fn equal(&mut self, alias: &str, old: bool) -> String {
        let relation = self.relation;
        let (mut left, mut right, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        for i in self.positions(|_, _| true) {
            let Some(column) = relation.columns.get(i) else { continue };
            let param = if old { Param::Old(i) } else { Param::New(i) };
            let (here, value) = (format!("{alias}.{}", quote(&column.name)), self.param(param, &column.column_type));
            let of_shadow = self.table.columns.get(&column.name);
            if of_shadow.is_some_and(|s| s.shape.type_name == column.column_type.name) {
                left.push(here);
                right.push(value);
            } else {
                parts.push(format!("({here})::text COLLATE \"C\" IS NOT DISTINCT FROM ({value})::text COLLATE \"C\""));
            }
        }
        if !left.is_empty() {
            parts.push(format!("pg_catalog.record_image_eq(ROW({}), ROW({}))", left.join(", "), right.join(", ")));
        }
        if parts.is_empty() { "true".to_owned() } else { parts.join(" AND ") }
    }

    fn evidence(&mut self) -> String {
        let equal = self.equal("x", false);
        let texts = self.texts(true).into_iter().chain(self.texts(false)).collect::<Vec<_>>().join(", ");
        format!("CASE WHEN {equal} THEN NULL ELSE ARRAY[{texts}]::text[] END AS e")
    }

    fn image_texts(&mut self) -> String {
        format!("ARRAY[{}]::text[] AS e", self.texts(false).join(", "))
    }

    fn row_texts(&mut self) -> String {
        format!("ARRAY[{}]::text[] AS e", self.texts(true).join(", "))
    }

    /// Texts of the shadow's row or of the image, by the image's positions.
    fn texts(&mut self, of_row: bool) -> Vec<String> {
        let there = self.positions(|_, _| true);
        (0..self.relation.columns.len())
            .map(|i| match (there.contains(&i), of_row) {
                (false, _) => "NULL::text".to_owned(),
                (true, true) => format!("(x.{})::text", self.column(i)),
                (true, false) => format!("({})::text", self.value(i)),
            })
            .collect()
    }
}

/// A type by name; an array by its element's, since the array type's own name isn't fixed.
fn cast(of: &ColumnType) -> String {
    match &of.shape {
        Shape::Array(element) if of.name.name.starts_with('_') => format!("{}[]", element.name.sql()),
        _ => of.name.sql(),
    }
}

/// A table's own rows: those of tables that inherit from it have names of their own.
pub(crate) fn own_rows(relation: &Relation, partitioned: bool) -> String {
    let only = if partitioned { "" } else { "ONLY " };
    format!("{only}{}", relation.name.sql())
}

/// Reads columns of rows that have these values, in the image's types. The parameters are the values of `by`. `partitioned`: the
/// table is, where it is read.
pub(crate) fn read_by(
    relation: &Relation,
    table: Option<&ShadowTable>,
    partitioned: bool,
    select: &[u16],
    by: &[u16],
) -> String {
    let column = |position: &u16| relation.columns.get(usize::from(*position));
    let selected =
        select.iter().filter_map(column).map(|c| format!("(x.{})::{}", quote(&c.name), cast(&c.column_type)));
    let selected = selected.collect::<Vec<_>>().join(", ");
    let parts = by.iter().filter_map(column).enumerate().map(|(n, column)| {
        let known = table.and_then(|t| t.columns.get(&column.name));
        let schema = known.map_or("pg_catalog", |c| &c.equality_schema);
        let (name, of) = (quote(&column.name), cast(&column.column_type));
        format!("x.{name} OPERATOR({}.=) ${}::{of}", quote(schema), n + 1)
    });
    let place = parts.collect::<Vec<_>>().join(" AND ");
    format!("SELECT {selected} FROM {} AS x WHERE {place}", own_rows(relation, partitioned))
}
