//! Encoding and default collation of both databases.
use super::Found;
use crate::finding::{Finding, Sure};
use crate::pair::Pair;
use crate::server::Server;
use crate::words::name;
use pgshadow_model::Place;

pub(super) async fn look(pair: &Pair<'_>) -> Found {
    let (source, target) = (properties(&pair.source).await?, properties(&pair.target).await?);
    let subject = name(&pair.target.database);
    let mut found = Vec::new();
    for ((what, ours), (_, theirs)) in source.iter().zip(&target).filter(|((_, a), (_, b))| a != b) {
        let both = format!("{what} is {ours} on the source and {theirs} on the target");
        found.push(match *what {
            "encoding" if theirs == "UTF8" => Finding::warn(
                Place::Target,
                &subject,
                format!("{both}: texts take other room, and functions of bytes give other results"),
            ),
            "encoding" => Finding::block(
                Place::Target,
                &subject,
                format!("{both}: rows with characters that it lacks can't be written; make the database anew"),
            )
            .sure(Sure::Likely)
            .before_load(),
            _ => Finding::warn(
                Place::Target,
                &subject,
                format!("{both}: texts are sorted, and upper and lower case told, otherwise after the flip; make the database anew to have the same"),
            )
            .sure(Sure::Likely),
        });
    }
    Ok(found)
}

async fn properties(server: &Server<'_>) -> Result<Vec<(&'static str, String)>, crate::Error> {
    let provider = server.from(150_000, "d.datlocprovider::text", "'c'");
    let sql = format!(
        "SELECT pg_catalog.pg_encoding_to_char(d.encoding)::text, d.datcollate::text, d.datctype::text, {provider}
        FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()"
    );
    let row = server.one(&sql).await?;
    let names = ["encoding", "lc_collate", "lc_ctype", "the collation provider"];
    names.into_iter().enumerate().map(|(place, what)| Ok((what, server.get(&row, place)?))).collect()
}
