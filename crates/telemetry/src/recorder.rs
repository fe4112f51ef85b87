use crate::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::sync::{Mutex, OnceLock};

/// The exporter could not be installed.
#[derive(Debug, thiserror::Error)]
#[error("metrics can't be set up: {0}")]
pub struct InstallError(String);

/// Renders the metrics of this process.
#[derive(Clone)]
pub struct Handle {
    exporter: PrometheusHandle,
}

/// Installed once; the lock keeps two first callers apart.
static INSTALLED: OnceLock<Handle> = OnceLock::new();
static INSTALLING: Mutex<()> = Mutex::new(());

/// Sets up the exporter of this process, with every metric described and at zero. Called again, it gives the same one.
///
/// # Errors
/// When something else has already installed a recorder of its own.
pub fn install() -> Result<Handle, InstallError> {
    let _guard = INSTALLING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(handle) = INSTALLED.get() {
        return Ok(handle.clone());
    }
    let wrong = |error: &dyn std::fmt::Display| InstallError(error.to_string());
    let mut builder = PrometheusBuilder::new();
    for histogram in Histogram::ALL {
        let name = Matcher::Full(histogram.name().to_owned());
        builder = builder.set_buckets_for_metric(name, histogram.buckets()).map_err(|e| wrong(&e))?;
    }
    let exporter = builder.install_recorder().map_err(|e| wrong(&e))?;
    describe_all();
    Histogram::register_all();
    let handle = Handle { exporter };
    Ok(INSTALLED.get_or_init(|| handle).clone())
}

fn describe_all() {
    for counter in Counter::all() {
        metrics::describe_counter!(counter.name(), counter.description());
    }
    for gauge in Gauge::ALL {
        metrics::describe_gauge!(gauge.name(), gauge.description());
    }
    for histogram in Histogram::ALL {
        metrics::describe_histogram!(histogram.name(), histogram.description());
    }
}

impl Handle {
    /// Everything in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        for counter in Counter::all() {
            let exported = match counter.label() {
                Some((label, value)) => metrics::counter!(counter.name(), label => value),
                None => metrics::counter!(counter.name()),
            };
            exported.absolute(counter.value());
        }
        for gauge in Gauge::ALL {
            metrics::gauge!(gauge.name()).set(gauge.value() as f64);
        }
        self.exporter.render()
    }

    /// Folds what histograms have gathered; to be called every few seconds, since nobody may ever ask for `/metrics`.
    pub fn upkeep(&self) {
        self.exporter.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StatementClass;
    use std::time::Duration;

    #[test]
    fn renders_every_metric_with_its_description() {
        let handle = install().unwrap();
        Counter::Statements(StatementClass::Insert).add(3);
        Gauge::LagMs.set(17);
        Histogram::LogFsync.observe(Duration::from_millis(2));
        Histogram::LogGroupEntries.observe_entries(3);
        handle.upkeep();
        let text = handle.render();
        for counter in Counter::all() {
            assert!(text.contains(&format!("# HELP {} {}", counter.name(), counter.description())), "{counter:?}");
        }
        for gauge in Gauge::ALL {
            assert!(text.contains(&format!("# TYPE {} gauge", gauge.name())), "{gauge:?}");
        }
        assert!(text.contains("pgshadow_statements_total{class=\"insert\"} 3\n"), "{text}");
        assert!(text.contains("pgshadow_findings_total{kind=\"missing_row\"} 0\n"), "{text}");
        assert!(text.contains("pgshadow_lag_ms 17\n"), "{text}");
        assert!(text.contains("pgshadow_log_fsync_seconds_bucket{le=\"0.0025\"} 1\n"), "{text}");
        assert!(text.contains("pgshadow_log_group_entries_bucket{le=\"4\"} 1\n"), "{text}");
    }

    #[test]
    fn a_second_installation_gives_the_same_metrics() {
        let first = install().unwrap();
        let second = install().unwrap();
        Counter::CancelRequests.add(2);
        assert!(first.render().contains("pgshadow_cancel_requests_total 2\n"));
        assert!(second.render().contains("pgshadow_cancel_requests_total 2\n"));
    }
}
