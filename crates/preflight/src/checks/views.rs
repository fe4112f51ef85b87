//! Views and materialized views that the target lacks, that are others there, or that hold nothing.
use super::Found;
use crate::finding::{Finding, Sure};
use crate::pair::{Pair, USERS, free};
use crate::sides::{Object, Sides};
use pgshadow_model::Place;

/// Places in the details.
const QUERY: usize = 0;
const OPTIONS: usize = 1;
const KIND: usize = 2;
const POPULATED: usize = 3;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let kind = "CASE c.relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'VIEW' END";
    let sql = format!(
        "SELECT ARRAY[n.nspname::text, c.relname::text], (SELECT pg_catalog.string_agg(pg_catalog.format('%I %s', a.attname,
            pg_catalog.format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
          pg_catalog.format('CREATE %s %I.%I%s AS %s ALTER %s %I.%I OWNER TO %I;', {kind}, n.nspname, c.relname,
            ' WITH (' || pg_catalog.array_to_string(c.reloptions, ', ') || ')', pg_catalog.pg_get_viewdef(c.oid), {kind}, n.nspname, c.relname, r.rolname),
          ARRAY[pg_catalog.pg_get_viewdef(c.oid), pg_catalog.array_to_string(ARRAY(SELECT pg_catalog.unnest(c.reloptions) ORDER BY 1), ', '), {kind},
            c.relispopulated::text]
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_roles r ON r.oid = c.relowner
        WHERE c.relkind IN ('v', 'm') AND c.relpersistence <> 't' AND {USERS} AND {}",
        free("pg_class", "c.oid")
    );
    let sides = Sides::ask(pair, |_| sql.clone()).await?;
    let mut found = Vec::new();
    for view in sides.missing() {
        let happens = "the target lacks the view: what reads it fails after the flip";
        found.push(Finding::block(Place::Target, view.shown(), happens).mend(&view.statement));
    }
    for (source, target) in sides.common() {
        if source.definition != target.definition {
            let happens = "its columns differ: what reads it fails, or gets others, after the flip";
            found.push(Finding::warn(Place::Target, source.shown(), happens).mend(anew(source, target)));
        } else if source.detail(KIND) != target.detail(KIND) {
            let happens =
                "it is materialized on one side only: it is read otherwise, and shows other rows, after the flip";
            found.push(Finding::warn(Place::Target, source.shown(), happens).mend(anew(source, target)));
        } else {
            found.extend(query(pair, source, target));
        }
        if source.is(POPULATED) && !target.is(POPULATED) {
            let happens = "it was never filled on the target: reading it fails after the flip";
            let mend = format!("REFRESH MATERIALIZED VIEW {};", target.table().sql());
            found.push(Finding::warn(Place::Target, source.shown(), happens).mend(mend));
        }
    }
    Ok(found)
}

/// Whether both read the same. Majors write one query in several ways: there a difference is only a doubt.
fn query(pair: &Pair<'_>, source: &Object, target: &Object) -> Option<Finding> {
    let mend = match source.detail(KIND) {
        "VIEW" => source.statement.replacen("CREATE VIEW", "CREATE OR REPLACE VIEW", 1),
        _ => anew(source, target),
    };
    if source.detail(OPTIONS) != target.detail(OPTIONS) {
        let shown = |view: &Object| match view.detail(OPTIONS) {
            "" => "none".to_owned(),
            options => options.to_owned(),
        };
        let happens = format!(
            "its options are {} on the source and {} on the target: other rows may be seen, or got in, after the flip",
            shown(source),
            shown(target)
        );
        return Some(Finding::warn(Place::Target, source.shown(), happens).mend(mend));
    }
    let (ours, theirs) = (source.detail(QUERY), target.detail(QUERY));
    if pair.same_major() {
        let happens = "it is defined otherwise on the target: it shows others after the flip";
        return (ours != theirs).then(|| Finding::warn(Place::Target, source.shown(), happens).mend(mend));
    }
    let happens = "its text differs, as it may between majors: it may show others after the flip";
    let doubt = || Finding::note(Place::Target, source.shown(), happens).sure(Sure::Possible).mend(mend);
    (bare(ours) != bare(theirs)).then(doubt)
}

/// A query without what majors write otherwise: names before columns, spaces, parentheses.
fn bare(query: &str) -> String {
    let mut text = String::new();
    let mut rest = query;
    while let Some((before, after)) = rest.split_once('"') {
        text.extend(before.chars().filter(|c| !c.is_whitespace() && !matches!(c, '(' | ')')));
        let Some((name, behind)) = after.split_once('"') else {
            rest = after;
            break;
        };
        rest = behind.strip_prefix('.').unwrap_or(behind);
        if rest.len() == behind.len() {
            text.push_str(&format!("\"{name}\""));
        }
    }
    text.extend(rest.chars().filter(|c| !c.is_whitespace() && !matches!(c, '(' | ')')));
    text
}

/// Makes it again; what depends on it on the target, and its indexes, must be made again too.
fn anew(source: &Object, target: &Object) -> String {
    format!("DROP {} {}; {}", target.detail(KIND), target.table().sql(), source.statement)
}

#[cfg(test)]
mod tests {
    use super::bare;

    #[test]
    fn what_majors_write_otherwise_is_no_difference() {
        let before = " SELECT \"t\".\"id\"\n   FROM \"public\".\"t\"\n  WHERE (\"t\".\"v\" > 1);";
        let since = " SELECT \"id\"\n   FROM \"public\".\"t\"\n  WHERE \"v\" > 1;";
        assert_eq!(bare(before), bare(since));
        assert_ne!(bare(before), bare(&since.replace("\"v\"", "\"w\"")));
        assert_eq!(bare("a \" b"), "ab");
    }
}
