//! Roles that the target lacks, and what they may that differs.
use super::Found;
use crate::error::Error;
use crate::finding::{Finding, Sure};
use crate::pair::Pair;
use crate::server::Server;
use crate::words::{name, some};
use pgshadow_model::{Place, quote};
use std::collections::{BTreeMap, BTreeSet};

/// Roles, whether they log in, their attributes as SQL, and whether they own something here, have rights, or belong to one that does.
const ROLES: &str = "
WITH RECURSIVE used (oid) AS (
  SELECT s.refobjid FROM pg_catalog.pg_shdepend s WHERE s.refclassid = 'pg_catalog.pg_authid'::regclass
    AND (s.dbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
      OR s.classid = 'pg_catalog.pg_database'::regclass
        AND s.objid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))
  UNION SELECT a.usesysid FROM pg_catalog.pg_stat_activity a WHERE a.datname = pg_catalog.current_database() AND a.usesysid IS NOT NULL
  UNION SELECT m.member FROM used u JOIN pg_catalog.pg_auth_members m ON m.roleid = u.oid)
SELECT r.rolname, r.rolcanlogin, pg_catalog.concat_ws(' ', CASE WHEN r.rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END,
    CASE WHEN r.rolinherit THEN 'INHERIT' ELSE 'NOINHERIT' END, CASE WHEN r.rolcreaterole THEN 'CREATEROLE' ELSE 'NOCREATEROLE' END,
    CASE WHEN r.rolcreatedb THEN 'CREATEDB' ELSE 'NOCREATEDB' END, CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' ELSE 'NOBYPASSRLS' END,
    'CONNECTION LIMIT ' || r.rolconnlimit), r.oid IN (SELECT u.oid FROM used u), r.rolsuper,
  ARRAY(SELECT g.rolname::text FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid)
FROM pg_catalog.pg_roles r WHERE r.rolname !~ '^pg_'";

struct Known {
    logs_in: bool,
    attributes: String,
    used: bool,
    superuser: bool,
    member_of: BTreeSet<String>,
}

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let (source, target) = (roles(&pair.source).await?, roles(&pair.target).await?);
    let mut found = Vec::new();
    for (role, known) in source.iter().filter(|(role, known)| !pair.is_own(role) && !known.superuser) {
        let Some(there) = target.get(role) else {
            let mend = format!("CREATE ROLE {} {};", quote(role), known.attributes);
            let password = if known.logs_in { " (its password is carried by `pg_dumpall --roles-only`)" } else { "" };
            let finding = if known.used {
                let happens = format!(
                    "it owns something, has rights, or is logged in on the source, and the target lacks it{password}"
                );
                Finding::block(Place::Target, name(role), happens)
            } else if known.logs_in {
                let happens = format!("it may log in to the source, and can't to the target{password}");
                Finding::warn(Place::Target, name(role), happens).sure(Sure::Possible)
            } else {
                continue;
            };
            found.push(finding.mend(mend));
            continue;
        };
        if !known.used {
            continue;
        }
        if known.attributes != there.attributes {
            let happens = format!("it is {} on the source and {} on the target", known.attributes, there.attributes);
            let mend = format!("ALTER ROLE {} {};", quote(role), known.attributes);
            found.push(Finding::warn(Place::Target, name(role), happens).mend(mend));
        }
        for group in known.member_of.difference(&there.member_of) {
            let happens =
                format!("it is a member of {} on the source only: it lacks its rights after the flip", name(group));
            let mend = format!("GRANT {} TO {};", quote(group), quote(role));
            found.push(Finding::warn(Place::Target, name(role), happens).mend(mend));
        }
    }
    if let Some(finding) = verifiers(pair, &source, &target).await? {
        found.push(finding);
    }
    Ok(found)
}

/// Whether passwords can be told to be the same.
async fn verifiers(
    pair: &Pair<'_>,
    source: &BTreeMap<String, Known>,
    target: &BTreeMap<String, Known>,
) -> Result<Option<Finding>, Error> {
    let users: Vec<&String> = source
        .iter()
        .filter(|(role, known)| known.logs_in && known.used && !pair.is_own(role) && target.contains_key(*role))
        .map(|(role, _)| role)
        .collect();
    if users.is_empty() {
        return Ok(None);
    }
    let names: Vec<String> = users.iter().map(|role| name(role)).collect();
    let readable = "SELECT pg_catalog.has_column_privilege('pg_catalog.pg_authid', 'rolpassword', 'SELECT')";
    if !(pair.source.value::<bool>(readable).await? && pair.target.value::<bool>(readable).await?) {
        let happens = "whether passwords are the same can't be seen by pgshadow's role: with [auth] mode = \"scram\" the verifiers must be, \
            and `pg_dumpall --roles-only` carries them as they are";
        return Ok(Some(Finding::note(Place::Target, some(&names, 5), happens).sure(Sure::Possible)));
    }
    let (ours, theirs) = (secrets(&pair.source).await?, secrets(&pair.target).await?);
    let differ: Vec<String> =
        users.into_iter().filter(|role| ours.get(*role) != theirs.get(*role)).map(|role| name(role)).collect();
    if differ.is_empty() {
        return Ok(None);
    }
    let happens = "their verifiers differ: with [auth] mode = \"scram\" they can't be logged in on the target; otherwise only if the password is the same. \
        `pg_dumpall --roles-only` carries them as they are";
    let (subject, place) = (some(&differ, 5), Place::Target);
    Ok(Some(if pair.facts.scram {
        Finding::block(place, subject, happens)
    } else {
        Finding::note(place, subject, happens)
    }))
}

async fn secrets(server: &Server<'_>) -> Result<BTreeMap<String, Option<String>>, Error> {
    let rows = server.rows("SELECT a.rolname, a.rolpassword FROM pg_catalog.pg_authid a").await?;
    rows.iter().map(|row| Ok((server.get(row, 0)?, server.get(row, 1)?))).collect()
}

/// Names of all roles of a server, and which are superusers, whom no rights hold back.
pub(super) async fn known(server: &Server<'_>) -> Result<BTreeMap<String, bool>, Error> {
    let rows = server.rows("SELECT r.rolname, r.rolsuper FROM pg_catalog.pg_roles r").await?;
    rows.iter().map(|row| Ok((server.get(row, 0)?, server.get(row, 1)?))).collect()
}

/// Roles that own something in the database, have rights, or are logged in.
pub(super) async fn used(server: &Server<'_>) -> Result<BTreeSet<String>, Error> {
    let roles = roles(server).await?;
    Ok(roles.into_iter().filter(|(_, known)| known.used).map(|(role, _)| role).collect())
}

async fn roles(server: &Server<'_>) -> Result<BTreeMap<String, Known>, Error> {
    let mut roles = BTreeMap::new();
    for row in server.rows(ROLES).await? {
        let known = Known {
            logs_in: server.get(&row, 1)?,
            attributes: server.get(&row, 2)?,
            used: server.get(&row, 3)?,
            superuser: server.get(&row, 4)?,
            member_of: server.get::<Vec<String>>(&row, 5)?.into_iter().collect(),
        };
        roles.insert(server.get(&row, 0)?, known);
    }
    Ok(roles)
}
