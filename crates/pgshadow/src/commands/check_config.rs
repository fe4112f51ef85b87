use crate::config::{Config, Word};
use crate::failure::{Ending, Failure};
use crate::output;

/// Prints what the configuration means; that it could be loaded is the check.
///
/// # Errors
/// When stdout can't be written.
pub fn check_config(config: &Config) -> Result<Ending, Failure> {
    output::print(&describe(config))?;
    Ok(Ending::Done)
}

fn describe(config: &Config) -> String {
    let mut table = output::table(&["key", "value"]);
    let log = &config.mirror_log;
    let excluded: Vec<String> = config.mirror.exclude.iter().map(ToString::to_string).collect();
    let rows = [
        ("listen.address", config.listen.address.clone()),
        ("listen.other_databases", config.listen.other_databases.word().to_owned()),
        ("source.url", config.source.to_string()),
        ("target.url", config.target.to_string()),
        ("mirror_log.directory", log.directory.display().to_string()),
        ("mirror_log.durability", log.durability.word().to_owned()),
        ("mirror_log.size_max", output::bytes(log.size_max_bytes)),
        ("mirror_log.on_full", log.on_full.word().to_owned()),
        ("mirror.enabled", config.mirror.enabled.to_string()),
        ("mirror.exclude", if excluded.is_empty() { "none".to_owned() } else { excluded.join(", ") }),
        ("compare.statements", config.compare.statements.to_string()),
        ("admin.address", config.admin.address.clone()),
    ];
    for (key, value) in rows {
        table.add_row([key.to_owned(), value]);
    }
    format!("{table}\nThe configuration is valid; the databases were not asked.")
}
