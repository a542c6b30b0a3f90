//! Every metric and span name. Units stand last in a name; counters end in `_total`, as Prometheus wants it.

/// How a metric is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows; begins at 0 with the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution over the buckets.
    Histogram,
}

/// One metric.
#[derive(Debug)]
pub struct Metric {
    /// The name in `/metrics`, to the letter.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// UCUM unit; `1` for a count.
    pub unit: &'static str,
    /// What it means.
    pub help: &'static str,
    /// The labels that it carries, all of [`label`].
    pub labels: &'static [&'static str],
    /// Upper bounds of a histogram's buckets; else empty.
    pub buckets: &'static [f64],
}

/// Names of labels. Each has few values, known beforehand.
pub mod label {
    /// How a reading came: `mqtt`, `coap`.
    pub const CONNECTOR: &str = "connector";
    /// Why something was refused or quarantined, or what kind of failure it was.
    pub const REASON: &str = "reason";
    /// The id of a pipeline definition.
    pub const PIPELINE: &str = "pipeline";
    /// The name of a flag.
    pub const FLAG: &str = "flag";
    /// A flag's priority.
    pub const PRIORITY: &str = "priority";
    /// A model: its id and the beginning of its hash.
    pub const MODEL: &str = "model";
    /// What a model is doing: `live` or `shadow`.
    pub const ROLE: &str = "role";
    /// What was decided about a model: `shadow`, `promote`, `rollback`, `withdraw`.
    pub const ACTION: &str = "action";
    /// A class that a model predicted.
    pub const CLASS: &str = "class";
    /// Where an alarm stands, such as `active` or `acknowledged`.
    pub const STATE: &str = "state";
    /// Why an alarm took a step.
    pub const CAUSE: &str = "cause";
    /// The name of a target of notifications.
    pub const TARGET: &str = "target";
    /// How a target is told: `webhook`, `smtp`, `mqtt`, `fhir`.
    pub const CHANNEL: &str = "channel";
    /// What an attempt came to.
    pub const RESULT: &str = "result";
    /// The id of an edge.
    pub const EDGE: &str = "edge";
    /// What kind of thing.
    pub const KIND: &str = "kind";
}

/// Names of spans.
pub mod span {
    /// The edge reads a batch from its spool and sends it.
    pub const EDGE_BATCH: &str = "edge.batch";
    /// The fog takes a batch; child of [`EDGE_BATCH`].
    pub const FOG_BATCH: &str = "fog.batch";
    /// Leaves, facts and positions of an epoch go to the site log in one transaction.
    pub const FOG_COMMIT: &str = "fog.commit";
    /// All of them.
    pub const ALL: &[&str] = &[EDGE_BATCH, FOG_BATCH, FOG_COMMIT];
}

/// From a hundred microseconds to ten seconds: a commit on a fast disk, and on one that is ill.
const LATENCY_S: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

macro_rules! metrics {
    ($($constant:ident $kind:ident $name:literal $unit:literal [$($label:ident),*] $buckets:expr, $help:literal;)*) => {
        $(#[doc = concat!("`", $name, "` (", stringify!($kind), ", unit `", $unit, "`): ", $help)]
        pub const $constant: Metric = Metric {
            name: $name,
            kind: Kind::$kind,
            unit: $unit,
            help: $help,
            labels: &[$(label::$label),*],
            buckets: $buckets,
        };)*

        /// All of them.
        pub static ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    EDGE_FRAMES Counter "haar_edge_frames_total" "1" [CONNECTOR] &[], "Frames received from devices, duplicates and quarantined ones among them.";
    EDGE_READINGS Counter "haar_edge_readings_total" "1" [CONNECTOR] &[], "Observations committed to the spool.";
    EDGE_BYTES Counter "haar_edge_bytes_total" "By" [CONNECTOR] &[], "Payload bytes received from devices.";
    EDGE_QUARANTINED Counter "haar_edge_quarantined_total" "1" [REASON] &[], "Frames that could not be decoded and are kept for a human.";
    EDGE_DUPLICATES Counter "haar_edge_duplicates_total" "1" [CONNECTOR] &[], "Frames delivered again and not counted twice.";
    EDGE_REFUSED Counter "haar_edge_refused_total" "1" [CONNECTOR, REASON] &[], "Frames answered with an error or not acknowledged, so that the device sends again.";
    EDGE_CLAMPED Counter "haar_edge_clock_clamped_total" "1" [] &[], "Observations whose device clock was ahead, set back to ingest time.";
    EDGE_SHED Counter "haar_edge_shed_total" "1" [] &[], "Entries shed from a full spool by policy.";
    EDGE_APPEND_SECONDS Histogram "haar_edge_append_seconds" "s" [] LATENCY_S, "Time of one group commit to the spool.";
    EDGE_APPEND_FAILURES Counter "haar_edge_append_failures_total" "1" [REASON] &[], "Group commits that failed and are tried again.";
    EDGE_SPOOL_ENTRIES Gauge "haar_edge_spool_entries" "1" [] &[], "Entries in the spool.";
    EDGE_SPOOL_BYTES Gauge "haar_edge_spool_bytes" "By" [] &[], "Bytes of entries in the spool.";
    EDGE_UPLINK_CONNECTED Gauge "haar_edge_uplink_connected" "1" [] &[], "1 while a session with the fog is open, else 0.";
    EDGE_BROKER_CONNECTED Gauge "haar_edge_broker_connected" "1" [] &[], "1 while the MQTT broker has accepted the subscriptions, else 0.";
    EDGE_BATCHES Counter "haar_edge_batches_total" "1" [] &[], "Batches sent to the fog.";
    EDGE_SENT Counter "haar_edge_sent_entries_total" "1" [] &[], "Entries sent to the fog, those sent again among them.";
    EDGE_SENT_BYTES Counter "haar_edge_sent_bytes_total" "By" [] &[], "Bytes of entries sent to the fog.";
    EDGE_RESENT Counter "haar_edge_resent_entries_total" "1" [] &[], "Entries sent again after a reconnect.";
    EDGE_ACKS Counter "haar_edge_acks_total" "1" [] &[], "Cumulative acknowledgements received from the fog.";
    EDGE_ACKED_THROUGH Gauge "haar_edge_acked_through" "1" [] &[], "The highest sequence that the fog has committed.";
    EDGE_CONNECTS Counter "haar_edge_connects_total" "1" [REASON] &[], "Attempts to open a session with the fog, by outcome.";

    FOG_EDGES Gauge "haar_fog_edges_connected" "1" [] &[], "Edges with an open session.";
    FOG_SESSIONS_REFUSED Counter "haar_fog_sessions_refused_total" "1" [REASON] &[], "Sessions refused or ended by the fog.";
    FOG_BATCHES Counter "haar_fog_batches_total" "1" [] &[], "Batches taken from edges.";
    FOG_BYTES Counter "haar_fog_bytes_total" "By" [] &[], "Bytes of entries taken from edges.";
    FOG_OBSERVATIONS Counter "haar_fog_observations_total" "1" [] &[], "Observations that entered the dataflow.";
    FOG_REPLAYED Counter "haar_fog_replayed_total" "1" [] &[], "Entries taken again in a replay.";
    FOG_UNDECODABLE Counter "haar_fog_undecodable_total" "1" [] &[], "Entries that this version cannot decode.";
    FOG_LATE Counter "haar_fog_late_total" "1" [PIPELINE] &[], "Observations later than the allowed lateness.";
    FOG_LEFT_OUT Counter "haar_fog_left_out_total" "1" [] &[], "Windows left out because they began before their patient was erased.";
    FOG_EPOCHS Counter "haar_fog_epochs_total" "1" [] &[], "Epochs committed.";
    FOG_WINDOWS Counter "haar_fog_windows_total" "1" [PIPELINE] &[], "Windows closed and committed.";
    FOG_CORRECTIONS Counter "haar_fog_corrections_total" "1" [PIPELINE] &[], "Windows committed again because late readings changed them.";
    FOG_FLAGS Counter "haar_fog_flags_total" "1" [FLAG, PRIORITY] &[], "Flagged events.";
    FOG_DEVICE_FAULTS Counter "haar_fog_device_faults_total" "1" [FLAG, KIND] &[], "Flagged windows by the kind of fault of a device that stands behind them.";
    FOG_COMMIT_SECONDS Histogram "haar_fog_commit_seconds" "s" [] LATENCY_S, "Time of one epoch's transaction in the site log.";
    FOG_EPOCH_SECONDS Histogram "haar_fog_epoch_seconds" "s" [] LATENCY_S, "From an epoch's end until it is committed.";
    FOG_INGEST_TO_FLAG_SECONDS Histogram "haar_fog_ingest_to_flag_seconds" "s" [] LATENCY_S, "From the ingest time of the reading that closed a window to its flag's commit.";
    FOG_LEAVES Gauge "haar_fog_log_leaves" "1" [] &[], "Leaves in the site log.";
    FOG_ALARMS Gauge "haar_fog_alarms" "1" [PRIORITY, STATE] &[], "Alarms that are not over.";
    FOG_ALARM_TRANSITIONS Counter "haar_fog_alarm_transitions_total" "1" [PRIORITY, CAUSE] &[], "Steps that alarms took, each a leaf of the log.";
    FOG_ALARMS_REFUSED Gauge "haar_fog_alarms_refused" "1" [] &[], "Flags since the start that became no alarm, for a limit on patients or alarms.";
    FOG_NOTICE_ATTEMPTS Counter "haar_fog_notice_attempts_total" "1" [TARGET, CHANNEL, RESULT] &[], "Attempts to tell a target of a step of an alarm.";
    FOG_NOTICE_SECONDS Histogram "haar_fog_notice_seconds" "s" [TARGET, CHANNEL] LATENCY_S, "Time of one attempt.";
    FOG_NOTICES_WAITING Gauge "haar_fog_notices_waiting" "1" [TARGET] &[], "Notifications that wait in the outbox.";
    FOG_NOTICES_DEAD Counter "haar_fog_notices_dead_total" "1" [TARGET, REASON] &[], "Notifications that were given up.";
    FOG_MODEL_SCORES Counter "haar_fog_model_scores_total" "1" [MODEL, EDGE, ROLE, CLASS] &[], "What models said (of a beat, a window, a series, an hour), by class.";
    FOG_MODEL_AGREED Counter "haar_fog_model_agreed_total" "1" [MODEL, EDGE] &[], "How often a model in shadow said the same as the live one.";
    FOG_MODEL_DECISIONS Counter "haar_fog_model_decisions_total" "1" [ACTION] &[], "Decisions about models that were taken up while the node ran.";
    FOG_MODEL_DECISIONS_REFUSED Counter "haar_fog_model_decisions_refused_total" "1" [] &[], "Looks at the registry that ended at a decision or model that does not hold; above zero and rising: see the log.";
    FOG_MODEL_STABILITY Gauge "haar_fog_model_stability_index" "1" [MODEL, EDGE] &[], "Population stability index of the predicted classes against the model's own evaluation; above 0.25 they have shifted.";
    FOG_CONSORTIUM_BEHIND Gauge "haar_fog_consortium_behind_leaves" "1" [] &[], "Leaves of the site log that are not known to be witnessed.";
    FOG_CONSORTIUM_ENTRIES Counter "haar_fog_consortium_entries_total" "1" [KIND] &[], "Entries that the consortium log took from this site.";
    FOG_CONSORTIUM_EVIDENCE Counter "haar_fog_consortium_evidence_total" "1" [] &[], "Pieces of evidence of attempts that were put into the site log.";
    FOG_ACCESS_DECISIONS Counter "haar_fog_access_decisions_total" "1" [RESULT] &[], "Decisions on access by patients, clinicians, insurers and researchers, each a leaf: allowed, denied or break-glass.";
    FOG_CONSORTIUM_VOUCHED Gauge "haar_fog_consortium_vouched_timestamp_seconds" "s" [] &[], "Since when (POSIX time) a quorum vouches for this site's view of the consortium log; a minute later only break-glass reads.";
    FOG_LOG_BYTES Counter "haar_fog_log_bytes_total" "By" [] &[], "Bytes of records committed to the site log.";

    LEDGER_ENTRIES Counter "haar_ledger_entries_total" "1" [KIND] &[], "Entries that this node put into the consortium log.";
    LEDGER_REFUSED Counter "haar_ledger_refused_total" "1" [REASON] &[], "Entries that were handed in and not taken.";
    LEDGER_SEQUENCED_SECONDS Histogram "haar_ledger_sequenced_seconds" "s" [] LATENCY_S, "From an entry being handed in until a signed checkpoint has it.";
    LEDGER_PUBLISHED_SECONDS Histogram "haar_ledger_published_seconds" "s" [] LATENCY_S, "From a checkpoint being taken to the witnesses until enough have cosigned it.";
    LEDGER_SIZE Gauge "haar_ledger_entries" "1" [] &[], "Entries in the log, or in this server's copy of it.";
    LEDGER_PUBLISHED_SIZE Gauge "haar_ledger_published_entries" "1" [] &[], "Entries under the checkpoint that is served here and counts.";
    LEDGER_VOUCHED_TIMESTAMP Gauge "haar_ledger_vouched_timestamp_seconds" "s" [] &[], "Since when (POSIX time) a quorum vouches for the checkpoint that is served here; its age is what a reader sees.";
    LEDGER_COSIGNERS_BEHIND Gauge "haar_ledger_cosigners_behind" "1" [] &[], "Witnesses that have not cosigned the checkpoint that was published last.";
    LEDGER_WITNESSES_AHEAD Counter "haar_ledger_witnesses_ahead_total" "1" [] &[], "Answers of witnesses that have a larger checkpoint of this log than this operator: its store was put back.";
    LEDGER_STORE_ERRORS Counter "haar_ledger_store_errors_total" "1" [] &[], "Batches that were not written because the store of checkpoints failed or did not answer.";
    LEDGER_COSIGNED Counter "haar_ledger_witness_requests_total" "1" [RESULT] &[], "Checkpoints that this witness was asked to cosign, by what came of it.";
    LEDGER_EVIDENCE Counter "haar_ledger_evidence_total" "1" [KIND] &[], "Evidence of attempts that is new here.";
    LEDGER_EVIDENCE_UNTOLD Gauge "haar_ledger_evidence_untold_members" "1" [] &[], "Members, the log among them, that have not been told all evidence yet.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_follow_their_kind() {
        let mut seen = BTreeSet::new();
        for metric in ALL {
            assert!(seen.insert(metric.name), "{} twice", metric.name);
            let prefixes = ["haar_edge_", "haar_fog_", "haar_ledger_"];
            assert!(prefixes.iter().any(|prefix| metric.name.starts_with(prefix)));
            assert_eq!(
                metric.name.ends_with("_total"),
                metric.kind == Kind::Counter,
                "{}",
                metric.name
            );
            assert_eq!(
                metric.buckets.is_empty(),
                metric.kind != Kind::Histogram,
                "{}",
                metric.name
            );
            let bytes = metric.name.trim_end_matches("_total").ends_with("_bytes");
            assert_eq!(bytes, metric.unit == "By", "{}", metric.name);
            assert_eq!(metric.name.ends_with("_seconds"), metric.unit == "s", "{}", metric.name);
        }
    }
}
