//! Alarms in the commit thread: windows and actions drive them, and every step is a leaf of the same epoch.
//!
//! The machine is `haar-alarms`; here it meets the log. What an epoch commits is, in one transaction, its
//! windows, the steps that alarms took on them, and the alarms' own rows; so after a kill at any moment the alarms stand where
//! the log says. Windows that a replay brings again are not seen twice, since only what is committed anew gets here.
//!
//! People act over HTTP. An action waits for the next epoch, and the answer is the leaf of the step it caused: who was told
//! "acknowledged" can have it proven.

use haar_alarms::{
    Action, Alarms, Condition, Input, OpenAlarm, RaisedFlag, StepError, Transition, Window,
};
use haar_dataflow::conclude::Concluded;
use haar_schema::{Subject, Timestamp};
use haar_telemetry::{Counter, Gauge, KeyValue, Metrics, names};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// Actions that wait for an epoch to end. Who comes after is told to try again.
pub(crate) const QUEUED_ACTIONS: usize = 256;

/// What became of an action.
pub(crate) type Answer = Result<Committed, StepError>;

/// Steps that were committed.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub(crate) struct Committed {
    /// Leaves of the steps, in order.
    pub(crate) leaves: Vec<u64>,
    /// The steps.
    pub(crate) transitions: Vec<Transition>,
}

/// What waits for the next epoch.
pub(crate) enum Request {
    /// Somebody acts, and waits for the answer.
    Act(Action, oneshot::Sender<Answer>),
    /// The node says something of itself.
    Say(Window),
}

/// Why an action was not even tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    /// Too many wait.
    #[error("too many actions wait; try again in a second")]
    Busy,
    /// The node stops.
    #[error("the node is stopping; the action was not taken")]
    Stopping,
}

/// The way from HTTP to the commit thread, and what is to be seen meanwhile.
#[derive(Clone)]
pub(crate) struct Desk {
    requests: SyncSender<Request>,
    open: Arc<Mutex<Vec<OpenAlarm>>>,
}

impl Desk {
    /// The alarms that are not over, as of the last epoch: the most pressing first.
    pub(crate) fn open(&self) -> Vec<OpenAlarm> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands in an action; the receiver has the answer when it is committed.
    pub(crate) fn act(&self, action: Action) -> Result<oneshot::Receiver<Answer>, NotTaken> {
        let (answer, receiver) = oneshot::channel();
        match self.requests.try_send(Request::Act(action, answer)) {
            Ok(()) => Ok(receiver),
            Err(TrySendError::Full(_)) => Err(NotTaken::Busy),
            Err(TrySendError::Disconnected(_)) => Err(NotTaken::Stopping),
        }
    }

    /// Hands in what the node says of itself, as a window of the site; `false` if too much waits.
    pub(crate) fn say(&self, window: Window) -> bool {
        self.requests.try_send(Request::Say(window)).is_ok()
    }
}

/// The alarms, in the hands of the commit thread.
pub(crate) struct Warden {
    alarms: Alarms,
    requests: Receiver<Request>,
    open: Arc<Mutex<Vec<OpenAlarm>>>,
    transitions: Counter<u64>,
    standing: Gauge<f64>,
    refused: Gauge<f64>,
    shown: BTreeMap<(&'static str, &'static str), u64>,
}

/// Who waits for which of an epoch's steps (a range of the drafted transitions).
pub(crate) struct Waiting {
    answer: oneshot::Sender<Answer>,
    steps: Result<std::ops::Range<usize>, StepError>,
}

/// What alarms did in an epoch.
#[derive(Default)]
pub(crate) struct Steps {
    pub(crate) transitions: Vec<Transition>,
    pub(crate) waiting: Vec<Waiting>,
    /// Nothing was seen, so nothing is to be shown anew.
    is_idle: bool,
}

impl Warden {
    pub(crate) fn new(alarms: Alarms, metrics: &Metrics) -> (Self, Desk) {
        let (sender, requests) = sync_channel(QUEUED_ACTIONS);
        let open = Arc::new(Mutex::new(alarms.open()));
        let desk = Desk { requests: sender, open: Arc::clone(&open) };
        let transitions = metrics.counter(&names::FOG_ALARM_TRANSITIONS);
        let standing = metrics.gauge(&names::FOG_ALARMS);
        let refused = metrics.gauge(&names::FOG_ALARMS_REFUSED);
        let shown = BTreeMap::new();
        let mut warden = Self { alarms, requests, open, transitions, standing, refused, shown };
        warden.show();
        (warden, desk)
    }

    /// What actions, time and these windows, all new, make of the alarms.
    pub(crate) fn step<'w>(
        &mut self,
        now: Timestamp,
        windows: impl IntoIterator<Item = &'w Concluded>,
    ) -> Steps {
        let mut steps = Steps { is_idle: self.alarms.is_idle_at(now), ..Steps::default() };
        for request in self.requests.try_iter().take(QUEUED_ACTIONS) {
            steps.is_idle = false;
            let from = steps.transitions.len();
            let (input, answer) = match request {
                Request::Act(action, answer) => (Input::Action(action), Some(answer)),
                Request::Say(window) => (Input::Window(window), None),
            };
            let taken = self.alarms.step(now, &input).map(|own| {
                steps.transitions.extend(own);
                from..steps.transitions.len()
            });
            if let Some(answer) = answer {
                steps.waiting.push(Waiting { answer, steps: taken });
            }
        }
        let inputs = windows.into_iter().map(|window| Input::Window(seen(window)));
        for input in inputs.chain([Input::Tick]) {
            steps.is_idle &= input == Input::Tick;
            // Only actions can be refused.
            steps.transitions.extend(self.alarms.step(now, &input).unwrap_or_default());
        }
        steps
    }

    /// The patient was erased: their alarms are gone, without a step.
    pub(crate) fn forget(&mut self, subject: Subject) {
        self.alarms.forget(subject);
        self.show();
    }

    /// The rows to write with the steps.
    pub(crate) fn take_rows(&mut self) -> Vec<haar_alarms::ChangedRow> {
        self.alarms.take_changes()
    }

    /// The steps are on disk, their leaves from `first` on: tells everybody.
    pub(crate) fn committed(&mut self, steps: Steps, first: u64) {
        for transition in &steps.transitions {
            let labels = [
                KeyValue::new(names::label::PRIORITY, transition.priority.as_str()),
                KeyValue::new(names::label::CAUSE, transition.cause.as_str()),
            ];
            self.transitions.add(1, &labels);
        }
        for Waiting { answer, steps: own } in steps.waiting {
            let committed = own.map(|range| Committed {
                leaves: range.clone().map(|at| first + at as u64).collect(),
                transitions: steps.transitions[range].to_vec(),
            });
            // Whoever asked may have gone.
            let _ = answer.send(committed);
        }
        if !steps.is_idle {
            self.show();
        }
    }

    fn show(&mut self) {
        let open = self.alarms.open();
        self.shown.values_mut().for_each(|count| *count = 0);
        for alarm in &open {
            *self.shown.entry((alarm.priority.as_str(), alarm.phase.as_str())).or_default() += 1;
        }
        for ((priority, phase), count) in &self.shown {
            let labels = [
                KeyValue::new(names::label::PRIORITY, *priority),
                KeyValue::new(names::label::STATE, *phase),
            ];
            self.standing.record(*count as f64, &labels);
        }
        self.refused.record(self.alarms.refused() as f64, &[]);
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = open;
    }
}

/// A window as alarms see it.
pub fn seen(window: &Concluded) -> Window {
    let key = &window.digest.key;
    Window {
        subject: Some(key.subject),
        pipeline: key.pipeline.clone(),
        end: key.end_us,
        id: Some(window.digest.id),
        raised: window
            .flagged
            .iter()
            .map(|event| RaisedFlag {
                flag: event.flag.clone(),
                priority: event.priority,
                condition: Condition::of(event),
                text: event.text.clone(),
            })
            .collect(),
        undetermined: window.undetermined.clone(),
    }
}
