//! The same question, asked of both servers, and where the answers differ.
use crate::error::Error;
use crate::pair::Pair;
use crate::server::Server;
use crate::words::shown;
use pgshadow_model::QualifiedName;
use std::collections::BTreeMap;

/// Something that a catalog defines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    /// Its path of names; what belongs to a table begins with that one's.
    pub(crate) key: Vec<String>,
    /// What must be the same on both sides.
    pub(crate) definition: String,
    /// Makes it.
    pub(crate) statement: String,
    /// What else its check asks for.
    pub(crate) detail: Vec<String>,
}

impl Object {
    pub(crate) fn shown(&self) -> String {
        shown(&self.key)
    }

    /// The table that it belongs to.
    pub(crate) fn table(&self) -> QualifiedName {
        QualifiedName::new(self.part(0), self.part(1))
    }

    pub(crate) fn part(&self, place: usize) -> &str {
        self.key.get(place).map_or("", String::as_str)
    }

    pub(crate) fn detail(&self, place: usize) -> &str {
        self.detail.get(place).map_or("", String::as_str)
    }

    /// Whether a detail is true.
    pub(crate) fn is(&self, place: usize) -> bool {
        matches!(self.detail(place), "true" | "t")
    }

    /// A detail that is a number.
    pub(crate) fn number(&self, place: usize) -> i64 {
        self.detail(place).parse().unwrap_or_default()
    }
}

/// Both answers, by key.
#[derive(Debug, Default)]
pub(crate) struct Sides {
    pub(crate) source: BTreeMap<Vec<String>, Object>,
    pub(crate) target: BTreeMap<Vec<String>, Object>,
}

impl Sides {
    /// Asks both sides for `key text[], definition text, statement text, detail text[]`.
    pub(crate) async fn ask(pair: &Pair<'_>, sql: impl Fn(&Server<'_>) -> String) -> Result<Self, Error> {
        let source = objects(&pair.source, &sql(&pair.source)).await?;
        let target = objects(&pair.target, &sql(&pair.target)).await?;
        Ok(Self { source, target })
    }

    /// [`ask`](Self::ask) for tables, without those that aren't mirrored.
    pub(crate) async fn of_tables(pair: &Pair<'_>, sql: impl Fn(&Server<'_>) -> String) -> Result<Self, Error> {
        let mut sides = Self::ask(pair, sql).await?;
        sides.keep(|object| !pair.is_excluded(&object.table()));
        Ok(sides)
    }

    /// [`of_tables`](Self::of_tables) for what belongs to tables that are on both sides.
    pub(crate) async fn in_tables(pair: &Pair<'_>, sql: impl Fn(&Server<'_>) -> String) -> Result<Self, Error> {
        let mut sides = Self::of_tables(pair, sql).await?;
        sides.keep(|object| pair.common.contains(&object.table()));
        Ok(sides)
    }

    pub(crate) fn keep(&mut self, wanted: impl Fn(&Object) -> bool) {
        self.source.retain(|_, object| wanted(object));
        self.target.retain(|_, object| wanted(object));
    }

    /// What only the source has.
    pub(crate) fn missing(&self) -> impl Iterator<Item = &Object> {
        self.source.iter().filter(|(key, _)| !self.target.contains_key(*key)).map(|(_, object)| object)
    }

    /// What only the target has.
    pub(crate) fn extra(&self) -> impl Iterator<Item = &Object> {
        self.target.iter().filter(|(key, _)| !self.source.contains_key(*key)).map(|(_, object)| object)
    }

    /// What both have, the source's first.
    pub(crate) fn common(&self) -> impl Iterator<Item = (&Object, &Object)> {
        self.source.iter().filter_map(|(key, object)| Some((object, self.target.get(key)?)))
    }

    /// What both have with other definitions.
    pub(crate) fn different(&self) -> impl Iterator<Item = (&Object, &Object)> {
        self.common().filter(|(source, target)| source.definition != target.definition)
    }

    /// The same under another name, of the same table, among what only the target has.
    pub(crate) fn renamed(&self, missing: &Object) -> Option<&Object> {
        self.extra().find(|extra| extra.table() == missing.table() && extra.definition == missing.definition)
    }

    /// Whether something that only the target has is the source's under another name.
    pub(crate) fn is_renamed(&self, extra: &Object) -> bool {
        self.missing().any(|missing| missing.table() == extra.table() && missing.definition == extra.definition)
    }
}

/// What one server answers.
pub(crate) async fn objects(server: &Server<'_>, sql: &str) -> Result<BTreeMap<Vec<String>, Object>, Error> {
    let mut objects = BTreeMap::new();
    for row in server.rows(sql).await? {
        let key: Vec<String> = server.get(&row, 0)?;
        let (definition, statement) = (server.get(&row, 1)?, server.get(&row, 2)?);
        objects.insert(key.clone(), Object { key, definition, statement, detail: server.get(&row, 3)? });
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(objects: &[(&str, &str)]) -> BTreeMap<Vec<String>, Object> {
        let object = |(name, definition): &(&str, &str)| {
            let key: Vec<String> = ["s", "t", *name].map(str::to_owned).to_vec();
            let (definition, statement) = ((*definition).to_owned(), String::new());
            (key.clone(), Object { key, definition, statement, detail: vec!["7".into(), "t".into()] })
        };
        objects.iter().map(object).collect()
    }

    #[test]
    fn sides_are_set_against_each_other() {
        let sides = Sides {
            source: side(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]),
            target: side(&[("a", "1"), ("b", "5"), ("e", "3"), ("f", "6")]),
        };
        let names = |objects: Vec<&Object>| objects.iter().map(|o| o.part(2).to_owned()).collect::<Vec<_>>();
        assert_eq!(names(sides.missing().collect()), ["c", "d"]);
        assert_eq!(names(sides.extra().collect()), ["e", "f"]);
        assert_eq!(names(sides.different().map(|(source, _)| source).collect()), ["b"]);
        let renamed: Vec<_> = sides.missing().map(|missing| sides.renamed(missing).map(Object::shown)).collect();
        assert_eq!(renamed, [Some("s.t.e".to_owned()), None]);
        assert!(sides.extra().map(|extra| sides.is_renamed(extra)).eq([true, false]));
        let any = sides.missing().next().unwrap();
        assert_eq!((any.number(0), any.is(1), any.is(2), any.part(9)), (7, true, false, ""));
    }
}
