//! The fog node: takes batches from edges, runs the pipelines, commits what they come to.
//!
//! ```text
//! edges ──haar-link──▶ ingest ──▶ haar-dataflow (W workers) ──▶ commit ──▶ site log, facts, positions
//!    ▲                   │ one thread, ends the epochs             │ one thread, one transaction an epoch
//!    └───────────────────┴──────────── acknowledgements ◀──────────┘
//! ```
//!
//! Nothing of a reading is kept here: window state is memory, and what it takes to rebuild it lies in
//! the edges' spools. The fog tells each edge from where it would need a replay.
#![forbid(unsafe_code)]

mod access;
mod alarms;
mod commit;
mod config;
mod consortium;
mod courses;
mod devices;
mod edges;
mod erasure;
mod facts;
mod history;
mod ingest;
mod models;
mod node;
mod notify;
mod parameters;
mod query;
mod sepsis;
mod stats;
mod store;

pub use access::{AccessError, StudyKeysError};
/// A window as the alarm machine sees it; `haar alarms report` shows it the same.
pub use alarms::seen as seen_by_alarms;
pub use config::{
    AccessConfig, AdminConfig, AlarmsConfig, Config, ConfigError, ConsortiumConfig, DataflowConfig,
    EdgeKeys, ErasureConfig, FhirTarget, KeepUntil, LinkConfig, LogConfig, MailTls, ModelsConfig,
    MqttTarget, NotifyTarget, ParametersConfig, SmtpTarget, TelemetryConfig, WebhookTarget,
};
pub use consortium::view::ViewError;
pub use consortium::{PUT_FORWARD, PinnedError, copy_file};
pub use erasure::order::{ErasureOrder, MAX_ORDER_BYTES, OrderError, VALID_US};
pub use erasure::{Erasure, ErasureError, Receipt, Receipts};
pub use node::{RunError, Running, StartError, run, start};
pub use stats::{FogStats, RecentFlag};
pub use store::{DATABASE_FILE, RECORDS_KEY_FILE, StoreEraseError, StoreError};
