use crate::arguments::AcknowledgeArguments;
use crate::failure::{Ending, Failure};
use crate::output;
use pgshadow_admin::{AcknowledgeRequest, Client};

/// Acknowledges findings: they are open no more, and stay in the report.
///
/// # Errors
/// When the proxy doesn't answer, or can't.
pub async fn acknowledge(client: &Client, arguments: &AcknowledgeArguments) -> Result<Ending, Failure> {
    let findings = arguments.finding.clone();
    let acknowledged = client.acknowledge(&AcknowledgeRequest { findings: findings.clone() }).await?;
    let known = findings.len() - acknowledged.unknown.len().min(findings.len());
    output::print(&format!("{known} acknowledged"))?;
    if acknowledged.unknown.is_empty() {
        return Ok(Ending::Done);
    }
    let unknown: Vec<String> = acknowledged.unknown.iter().map(u64::to_string).collect();
    Err(Failure::Acknowledge(format!(
        "there is no finding {}; `pgshadow report` shows their numbers",
        unknown.join(", ")
    )))
}
