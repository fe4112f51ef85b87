//! What else is defined and has no check of its own: aggregates, operators, casts, text search, statistics, collations, ranges.
use super::Found;
use crate::finding::Finding;
use crate::pair::{Pair, USERS, free};
use crate::server::Server;
use crate::sides::Sides;
use crate::words::{plain, shown};
use pgshadow_model::Place;

/// What of a text search configuration, a cast and so on makes it; where there is no short way, nothing does.
fn sql(server: &Server<'_>) -> String {
    [
        aggregates(server),
        operators(),
        classes(),
        casts(server),
        dictionaries(),
        configurations(),
        statistics(server),
        collations(server),
        ranges(),
    ]
    .join(" UNION ALL ")
}

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let sides = Sides::ask(pair, sql).await?;
    let mut found = Vec::new();
    for object in sides.missing() {
        let (kind, path) = object.key.split_first().map_or(("", [].as_slice()), |(kind, path)| (kind.as_str(), path));
        // Names as the catalog has them, but for signatures, which the server quotes itself.
        let subject = match (kind, path) {
            ("aggregate" | "operator" | "cast", [only]) => plain(only),
            (_, path) => shown(path),
        };
        let happens = match kind {
            "statistics" => "the target lacks the extended statistics: plans may be others after the flip".to_owned(),
            kind => format!("the target lacks the {kind}: what uses it fails after the flip"),
        };
        let finding = Finding::warn(Place::Target, subject, happens);
        found.push(if object.statement.is_empty() { finding } else { finding.mend(&object.statement) });
    }
    Ok(found)
}

fn aggregates(server: &Server<'_>) -> String {
    let is = server.from(110_000, "p.prokind = 'a'", "p.proisagg");
    format!(
        "SELECT ARRAY['aggregate', p.oid::pg_catalog.regprocedure::text], '', coalesce(CASE WHEN g.aggkind = 'n' AND g.aggmtransfn = 0 THEN
            pg_catalog.format('CREATE AGGREGATE %I.%I(%s) (SFUNC = %s, STYPE = %s%s%s%s%s); ALTER AGGREGATE %s OWNER TO %I;', n.nspname, p.proname,
              CASE p.pronargs WHEN 0 THEN '*' ELSE pg_catalog.pg_get_function_arguments(p.oid) END, g.aggtransfn, pg_catalog.format_type(g.aggtranstype, NULL),
              ', FINALFUNC = ' || nullif(g.aggfinalfn, 0)::pg_catalog.regproc::text, ', COMBINEFUNC = ' || nullif(g.aggcombinefn, 0)::pg_catalog.regproc::text,
              ', INITCOND = ' || pg_catalog.quote_literal(g.agginitval), ', SORTOP = ' || (SELECT pg_catalog.format('OPERATOR(%I.%s)', sn.nspname, s.oprname)
                FROM pg_catalog.pg_operator s JOIN pg_catalog.pg_namespace sn ON sn.oid = s.oprnamespace WHERE s.oid = g.aggsortop),
              CASE p.pronargs WHEN 0 THEN pg_catalog.format('%I.%I(*)', n.nspname, p.proname) ELSE p.oid::pg_catalog.regprocedure::text END, r.rolname) END, ''),
          ARRAY[]::text[]
        FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_aggregate g ON g.aggfnoid = p.oid JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        JOIN pg_catalog.pg_roles r ON r.oid = p.proowner WHERE {is} AND {USERS} AND {}",
        free("pg_proc", "p.oid")
    )
}

fn operators() -> String {
    format!(
        "SELECT ARRAY['operator', o.oid::pg_catalog.regoperator::text], '', pg_catalog.format('CREATE OPERATOR %I.%s (PROCEDURE = %s%s%s%s%s%s%s);', n.nspname, o.oprname,
            o.oprcode, ', LEFTARG = ' || CASE WHEN o.oprleft <> 0 THEN pg_catalog.format_type(o.oprleft, NULL) END, ', RIGHTARG = '
              || CASE WHEN o.oprright <> 0 THEN pg_catalog.format_type(o.oprright, NULL) END,
            CASE WHEN o.oprrest <> 0 THEN ', RESTRICT = ' || o.oprrest END, CASE WHEN o.oprjoin <> 0 THEN ', JOIN = ' || o.oprjoin END,
            CASE WHEN o.oprcanhash THEN ', HASHES' END, CASE WHEN o.oprcanmerge THEN ', MERGES' END), ARRAY[]::text[]
        FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace WHERE o.oprcode <> 0 AND {USERS} AND {}",
        free("pg_operator", "o.oid")
    )
}

fn classes() -> String {
    format!(
        "SELECT ARRAY['operator class', n.nspname::text, k.opcname::text], '', '', ARRAY[]::text[]
        FROM pg_catalog.pg_opclass k JOIN pg_catalog.pg_namespace n ON n.oid = k.opcnamespace WHERE {USERS} AND {}",
        free("pg_opclass", "k.oid")
    )
}

/// By the user: those of the server have lower OIDs.
fn casts(_: &Server<'_>) -> String {
    let (from, to) = ("pg_catalog.format_type(k.castsource, NULL)", "pg_catalog.format_type(k.casttarget, NULL)");
    format!(
        "SELECT ARRAY['cast', pg_catalog.format('%s AS %s', {from}, {to})], '', pg_catalog.format('CREATE CAST (%s AS %s) %s%s;', {from}, {to},
            CASE k.castmethod WHEN 'f' THEN 'WITH FUNCTION ' || k.castfunc::pg_catalog.regprocedure WHEN 'i' THEN 'WITH INOUT' ELSE 'WITHOUT FUNCTION' END,
            CASE k.castcontext WHEN 'a' THEN ' AS ASSIGNMENT' WHEN 'i' THEN ' AS IMPLICIT' END), ARRAY[]::text[]
        FROM pg_catalog.pg_cast k WHERE k.oid >= 16384 AND {}",
        free("pg_cast", "k.oid")
    )
}

fn dictionaries() -> String {
    format!(
        "SELECT ARRAY['text search dictionary', n.nspname::text, k.dictname::text], '', pg_catalog.format('CREATE TEXT SEARCH DICTIONARY %I.%I (TEMPLATE = %I.%I%s);
            ALTER TEXT SEARCH DICTIONARY %I.%I OWNER TO %I;', n.nspname, k.dictname, tn.nspname, t.tmplname, ', ' || nullif(k.dictinitoption, ''),
            n.nspname, k.dictname, r.rolname), ARRAY[]::text[]
        FROM pg_catalog.pg_ts_dict k JOIN pg_catalog.pg_namespace n ON n.oid = k.dictnamespace JOIN pg_catalog.pg_ts_template t ON t.oid = k.dicttemplate
        JOIN pg_catalog.pg_namespace tn ON tn.oid = t.tmplnamespace JOIN pg_catalog.pg_roles r ON r.oid = k.dictowner WHERE {USERS} AND {}",
        free("pg_ts_dict", "k.oid")
    )
}

fn configurations() -> String {
    let mapped = "(SELECT pg_catalog.string_agg(pg_catalog.format(' ALTER TEXT SEARCH CONFIGURATION %I.%I ADD MAPPING FOR %I WITH %s;', n.nspname, k.cfgname,
          t.alias, m.dictionaries), '' ORDER BY t.tokid)
        FROM pg_catalog.ts_token_type(k.cfgparser) AS t JOIN (SELECT w.maptokentype, pg_catalog.string_agg(w.mapdict::pg_catalog.regdictionary::text, ', ' ORDER BY w.mapseqno)
          FROM pg_catalog.pg_ts_config_map w WHERE w.mapcfg = k.oid GROUP BY 1) AS m (token, dictionaries) ON m.token = t.tokid)";
    format!(
        "SELECT ARRAY['text search configuration', n.nspname::text, k.cfgname::text], '', pg_catalog.format('CREATE TEXT SEARCH CONFIGURATION %I.%I (PARSER = %I.%I);%s
            ALTER TEXT SEARCH CONFIGURATION %I.%I OWNER TO %I;', n.nspname, k.cfgname, pn.nspname, p.prsname, {mapped}, n.nspname, k.cfgname, r.rolname), ARRAY[]::text[]
        FROM pg_catalog.pg_ts_config k JOIN pg_catalog.pg_namespace n ON n.oid = k.cfgnamespace JOIN pg_catalog.pg_ts_parser p ON p.oid = k.cfgparser
        JOIN pg_catalog.pg_namespace pn ON pn.oid = p.prsnamespace JOIN pg_catalog.pg_roles r ON r.oid = k.cfgowner WHERE {USERS} AND {}",
        free("pg_ts_config", "k.oid")
    )
}

fn statistics(_: &Server<'_>) -> String {
    format!(
        "SELECT ARRAY['statistics', n.nspname::text, k.stxname::text], '', pg_catalog.format('%s; ALTER STATISTICS %I.%I OWNER TO %I;',
            pg_catalog.pg_get_statisticsobjdef(k.oid), n.nspname, k.stxname, r.rolname), ARRAY[]::text[]
        FROM pg_catalog.pg_statistic_ext k JOIN pg_catalog.pg_namespace n ON n.oid = k.stxnamespace JOIN pg_catalog.pg_roles r ON r.oid = k.stxowner
        WHERE {USERS} AND {}",
        free("pg_statistic_ext", "k.oid")
    )
}

fn collations(server: &Server<'_>) -> String {
    let deterministic =
        server.from(120_000, "CASE WHEN NOT k.collisdeterministic THEN ', DETERMINISTIC = false' END", "''");
    // How an ICU locale is kept has changed twice.
    let icu = match server.version {
        170_000.. => "k.colllocale",
        150_000.. => "k.colliculocale",
        _ => "k.collcollate::text",
    };
    format!(
        "SELECT ARRAY['collation', n.nspname::text, k.collname::text], '', pg_catalog.format('CREATE COLLATION %I.%I (%s%s); ALTER COLLATION %I.%I OWNER TO %I;',
            n.nspname, k.collname, CASE k.collprovider WHEN 'i' THEN 'PROVIDER = icu, LOCALE = ' || pg_catalog.quote_literal({icu}) WHEN 'b' THEN 'PROVIDER = builtin, LOCALE = ' || pg_catalog.quote_literal({icu})
              ELSE pg_catalog.format('PROVIDER = libc, LC_COLLATE = %L, LC_CTYPE = %L', k.collcollate, k.collctype) END,
            {deterministic}, n.nspname, k.collname, r.rolname), ARRAY[]::text[]
        FROM pg_catalog.pg_collation k JOIN pg_catalog.pg_namespace n ON n.oid = k.collnamespace JOIN pg_catalog.pg_roles r ON r.oid = k.collowner
        WHERE {USERS} AND {}",
        free("pg_collation", "k.oid")
    )
}

fn ranges() -> String {
    format!(
        "SELECT ARRAY['range type', n.nspname::text, t.typname::text], '', pg_catalog.format('CREATE TYPE %I.%I AS RANGE (SUBTYPE = %s, SUBTYPE_OPCLASS = %s%s%s); ALTER TYPE %I.%I OWNER TO %I;',
            n.nspname, t.typname, pg_catalog.format_type(g.rngsubtype, NULL), (SELECT pg_catalog.format('%I.%I', kn.nspname, k.opcname) FROM pg_catalog.pg_opclass k
              JOIN pg_catalog.pg_namespace kn ON kn.oid = k.opcnamespace WHERE k.oid = g.rngsubopc),
            (SELECT pg_catalog.format(', COLLATION = %I.%I', kn.nspname, k.collname) FROM pg_catalog.pg_collation k
              JOIN pg_catalog.pg_namespace kn ON kn.oid = k.collnamespace WHERE k.oid = g.rngcollation),
            CASE WHEN g.rngsubdiff <> 0 THEN ', SUBTYPE_DIFF = ' || g.rngsubdiff END, n.nspname, t.typname, r.rolname), ARRAY[]::text[]
        FROM pg_catalog.pg_range g JOIN pg_catalog.pg_type t ON t.oid = g.rngtypid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
        JOIN pg_catalog.pg_roles r ON r.oid = t.typowner WHERE {USERS} AND {}",
        free("pg_type", "t.oid")
    )
}
