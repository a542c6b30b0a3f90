//! The courier of one target: takes what is due from the outbox and brings it there.

use super::message::{Message, News};
use super::outbox::{Outbox, Outcome, Reason, Waiting};
use super::{Channel, SendError};
use crate::alarms::Desk;
use crate::commit::now;
use crate::config::NotifyTarget;
use haar_alarms::{Condition, RaisedFlag, Window};
use haar_ledger::ReadError;
use haar_schema::{Priority, Timestamp};
use haar_telemetry::{Counter, Gauge, Histogram, KeyValue, Metrics, names};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The flag that is raised of the site when a target cannot be told.
pub(crate) const FAILED_FLAG: &str = "notification-failed";
/// A target that takes nothing for so long is failing.
pub(super) const FAILING_AFTER: Duration = Duration::from_secs(60);
/// How often the site's alarm is told that it still holds.
const STILL_FAILING: Duration = Duration::from_secs(60);
/// How often the rows that wait are counted.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// Rows that are sent at once.
const AT_ONCE: usize = 8;
/// The first and the longest wait before a row, or a target that does not answer, is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Doublings after which the wait no longer grows, whatever the cap.
const MAX_DOUBLINGS: u32 = 16;
/// The longest sleep: what was missed, by a clock that was set, is found then.
const SLEEP: Duration = Duration::from_secs(30);

pub(super) struct Courier {
    target: String,
    give_up_after_us: i64,
    channel: Channel,
    outbox: Outbox,
    news: Arc<Notify>,
    desk: Desk,
    health: Health,
    /// Attempts in a row that nobody answered: the whole target waits.
    silent: u32,
    /// When the rows were last counted.
    counted: Option<Instant>,
    instruments: Instruments,
}

/// Whether the target takes what it is told.
#[derive(Default)]
struct Health {
    /// Since when nothing was taken.
    failing_since: Option<Instant>,
    /// When the site's alarm was last told.
    told: Option<Instant>,
    /// Whether the alarm stands, as far as known; unknown after a start.
    raised: Option<bool>,
}

struct Instruments {
    attempts: Counter<u64>,
    dead: Counter<u64>,
    waiting: Gauge<f64>,
    latency: Histogram<f64>,
    target: KeyValue,
}

/// What an attempt at one row came to.
struct Attempt {
    waiting: Waiting,
    outcome: Outcome,
    /// Whether the target answered at all; `None`: it was not asked.
    answered: Option<bool>,
    /// Whether it is about a failed notification itself.
    about_itself: bool,
}

impl Courier {
    pub(super) fn new(
        target: &NotifyTarget,
        channel: Channel,
        outbox: Outbox,
        news: Arc<Notify>,
        desk: Desk,
        metrics: &Metrics,
    ) -> Self {
        Self {
            target: target.name.clone(),
            give_up_after_us: i64::from(target.give_up_after_s) * 1_000_000,
            channel,
            outbox,
            news,
            desk,
            health: Health::default(),
            silent: 0,
            counted: None,
            instruments: Instruments {
                attempts: metrics.counter(&names::FOG_NOTICE_ATTEMPTS),
                dead: metrics.counter(&names::FOG_NOTICES_DEAD),
                waiting: metrics.gauge(&names::FOG_NOTICES_WAITING),
                latency: metrics.histogram(&names::FOG_NOTICE_SECONDS),
                target: KeyValue::new(names::label::TARGET, target.name.clone()),
            },
        }
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            // Asked for before the outbox is looked at, so that no news falls in between.
            let news = Arc::clone(&self.news);
            let news = news.notified();
            let wait = match self.round().await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::error!(target_name = self.target, %error, "the outbox cannot be read or written");
                    RETRY.1
                }
            };
            self.tell_health();
            // While the target is silent, news changes nothing.
            let is_silent = self.silent > 0;
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
                () = news, if !is_silent => {}
            }
        }
    }

    /// Sends what is due; says how long nothing else will be.
    async fn round(&mut self) -> Result<Duration, redb::Error> {
        // A target that does not answer is asked with one message.
        let most = if self.silent > 0 { 1 } else { AT_ONCE };
        let (outbox, target) = (self.outbox.clone(), self.target.clone());
        let (due, next) = blocking(move || outbox.due(&target, now(), most)).await?;
        if due.is_empty() {
            self.count_waiting().await?;
            let until = next.map_or(SLEEP, |next| until(next).min(SLEEP));
            return Ok(until.max(Duration::from_millis(10)));
        }
        let was_silent = self.silent;
        let attempts = self.attempt(due).await;
        self.note(&attempts);
        let (outbox, outcomes) = (self.outbox.clone(), outcomes(&attempts));
        blocking(move || outbox.settle(&outcomes, now())).await?;
        self.count_waiting().await?;
        Ok(if self.silent > was_silent { backoff(self.silent) } else { Duration::ZERO })
    }

    async fn attempt(&self, due: Vec<Waiting>) -> Vec<Attempt> {
        futures_util::future::join_all(due.into_iter().map(|row| self.attempt_one(row))).await
    }

    async fn attempt_one(&self, waiting: Waiting) -> Attempt {
        let not_asked = |waiting: Waiting, outcome| Attempt {
            waiting,
            outcome,
            answered: None,
            about_itself: false,
        };
        let attempts = waiting.attempts;
        let news = match self.news(waiting.key.leaf).await {
            Ok(Some(news)) => news,
            Ok(None) => {
                let reason = Reason::Unreadable;
                return not_asked(waiting, Outcome::Dead { attempts, reason });
            }
            // That the log cannot be read now says nothing about the message: it waits.
            Err(error) => {
                tracing::error!(leaf = waiting.key.leaf, %error, "what is to be told cannot be read from the log");
                return not_asked(waiting, Outcome::Again { attempts, due: after(RETRY.1) });
            }
        };
        let about_itself = matches!(
            &news,
            News::Step(step) if step.subject.is_none() && step.flag == FAILED_FLAG
        );
        let shows_subject = self.channel.shows_subject();
        let message = Message::new(&waiting.key, self.outbox.origin(), news, shows_subject);
        let begun = Instant::now();
        let sent = self.channel.send(&message).await;
        self.count(&sent, begun.elapsed());
        let attempts = waiting.attempts.saturating_add(1);
        let expired = now().micros_since(waiting.queued) >= self.give_up_after_us;
        let answered = !matches!(sent, Err(SendError::NoAnswer(_)));
        if let Err(error) = &sent {
            // Neither flag nor content: a log line is no place for either.
            tracing::warn!(target_name = self.target, leaf = waiting.key.leaf, attempts, %error, "a notification was not delivered");
        }
        let outcome = match sent {
            Ok(()) => Outcome::Delivered,
            Err(SendError::Refused(_)) => Outcome::Dead { attempts, reason: Reason::Refused },
            Err(_) if expired => Outcome::Dead { attempts, reason: Reason::Expired },
            Err(SendError::NotNow(_, Some(wait))) => {
                Outcome::Again { attempts, due: after(wait.max(backoff(attempts))) }
            }
            Err(SendError::NotNow(_, None) | SendError::NoAnswer(_)) => {
                Outcome::Again { attempts, due: after(backoff(attempts)) }
            }
        };
        Attempt { waiting, outcome, answered: Some(answered), about_itself }
    }

    /// What is told of a leaf; none if it is nothing to be told.
    async fn news(&self, leaf: u64) -> Result<Option<News>, ReadError> {
        let outbox = self.outbox.clone();
        let read = tokio::task::spawn_blocking(move || outbox.record(leaf)).await;
        let record = match read {
            Ok(Ok(record)) => record,
            // Of a patient who was erased nobody is told any more.
            Ok(Err(ReadError::NoSuchLeaf { .. } | ReadError::Erased { .. })) => return Ok(None),
            Ok(Err(error)) => return Err(error),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        Ok(News::read(&record))
    }

    fn count(&self, sent: &Result<(), SendError>, took: Duration) {
        let result = match sent {
            Ok(()) => "delivered",
            Err(SendError::Refused(_)) => "refused",
            Err(SendError::NotNow(..)) => "not-now",
            Err(SendError::NoAnswer(_)) => "no-answer",
        };
        let labels = [
            self.instruments.target.clone(),
            KeyValue::new(names::label::CHANNEL, self.channel.kind()),
            KeyValue::new(names::label::RESULT, result),
        ];
        self.instruments.attempts.add(1, &labels);
        self.instruments.latency.record(took.as_secs_f64(), &labels[..2]);
    }

    /// Says how many wait, now and then: counting looks at every row.
    async fn count_waiting(&mut self) -> Result<(), redb::Error> {
        if self.counted.is_some_and(|counted| counted.elapsed() < COUNT_EVERY) {
            return Ok(());
        }
        self.counted = Some(Instant::now());
        let (outbox, target) = (self.outbox.clone(), self.target.clone());
        let waiting = blocking(move || outbox.waiting(&target)).await?;
        let labels = std::slice::from_ref(&self.instruments.target);
        self.instruments.waiting.record(waiting as f64, labels);
        Ok(())
    }

    /// What a round says about the target.
    fn note(&mut self, attempts: &[Attempt]) {
        let delivered = attempts.iter().any(|own| own.outcome == Outcome::Delivered);
        let answered = attempts.iter().any(|own| own.answered == Some(true));
        let asked = attempts.iter().any(|own| own.answered.is_some());
        self.silent = if answered || !asked { 0 } else { self.silent.saturating_add(1) };
        match delivered {
            true => self.health.delivered(),
            false if asked => self.health.failed(),
            false => {}
        }
        for own in attempts {
            let Outcome::Dead { reason, .. } = own.outcome else { continue };
            let reason = KeyValue::new(names::label::REASON, reason.as_str());
            self.instruments.dead.add(1, &[self.instruments.target.clone(), reason]);
            tracing::error!(
                target_name = self.target,
                leaf = own.waiting.key.leaf,
                "a notification was given up; see /v1/alarms/outbox"
            );
            if !own.about_itself {
                self.health.died();
            }
        }
    }

    /// Tells the site's alarm what it does not know yet.
    fn tell_health(&mut self) {
        let Some(raised) = self.health.to_tell(Instant::now()) else { return };
        let flag = RaisedFlag {
            flag: FAILED_FLAG.to_owned(),
            priority: Priority::High,
            condition: Condition::Technical,
            text: format!(
                "Notifications by {} do not arrive: tell people by other means, and check the target.",
                self.target
            ),
        };
        let window = Window {
            subject: None,
            pipeline: format!("notify/{}", self.target),
            end: now(),
            id: None,
            raised: if raised { vec![flag] } else { Vec::new() },
            undetermined: Vec::new(),
        };
        // If too much waits at the desk it is told the next time round.
        if self.desk.say(window) {
            self.health.was_told(raised, Instant::now());
        }
    }
}

impl Health {
    fn delivered(&mut self) {
        self.failing_since = None;
        self.raised = self.raised.or(Some(true));
    }

    fn failed(&mut self) {
        self.failing_since.get_or_insert_with(Instant::now);
    }

    /// A message died: the alarm does not wait for more.
    fn died(&mut self) {
        let long_ago = Instant::now().checked_sub(FAILING_AFTER);
        self.failing_since = long_ago.or(self.failing_since);
    }

    /// Whether the alarm is to be raised (`true`) or cleared, if it is to be told anything.
    fn to_tell(&self, now: Instant) -> Option<bool> {
        let since = |earlier: Instant| now.saturating_duration_since(earlier);
        match self.failing_since {
            Some(begun) if since(begun) >= FAILING_AFTER => {
                let again = self.told.is_none_or(|told| since(told) >= STILL_FAILING);
                (self.raised != Some(true) || again).then_some(true)
            }
            Some(_) => None,
            None => (self.raised == Some(true)).then_some(false),
        }
    }

    fn was_told(&mut self, raised: bool, now: Instant) {
        (self.raised, self.told) = (Some(raised), Some(now));
    }
}

impl Channel {
    const fn shows_subject(&self) -> bool {
        match self {
            Self::Webhook(webhook) => webhook.shows_subject,
            Self::Mail(mail) => mail.shows_subject,
            Self::Mqtt(mqtt) => mqtt.shows_subject,
            Self::Fhir(fhir) => fhir.shows_subject,
        }
    }
}

fn outcomes(attempts: &[Attempt]) -> Vec<(Waiting, Outcome)> {
    attempts.iter().map(|own| (own.waiting.clone(), own.outcome)).collect()
}

/// The wait after so many attempts that failed: exponential, capped, with jitter (half to all of it).
fn backoff(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(MAX_DOUBLINGS);
    let whole = RETRY.0.saturating_mul(1 << doublings).min(RETRY.1);
    // Without random numbers the longest of the range.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    whole.mul_f64(0.5 + 0.5 * f64::from(random) / (f64::from(u32::MAX) + 1.0))
}

fn after(wait: Duration) -> Timestamp {
    let micros = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(now().micros().saturating_add(micros))
}

fn until(at: Timestamp) -> Duration {
    Duration::from_micros(u64::try_from(at.micros_since(now())).unwrap_or(0))
}

/// Asks the database on a thread that may block.
async fn blocking<T: Send + 'static>(
    ask: impl FnOnce() -> Result<T, redb::Error> + Send + 'static,
) -> Result<T, redb::Error> {
    let panicked = |error: tokio::task::JoinError| {
        redb::Error::Io(std::io::Error::other(format!("the outbox's thread: {error}")))
    };
    tokio::task::spawn_blocking(ask).await.unwrap_or_else(|error| Err(panicked(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap() {
        for (attempts, most_s) in [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (4_000_000, 300)] {
            let wait = backoff(attempts);
            let most = Duration::from_secs(most_s);
            assert!(wait <= most && wait >= most / 2, "{attempts}: {wait:?}");
        }
    }

    #[test]
    fn an_alarm_is_raised_after_a_time_repeated_and_cleared_once() {
        let mut health = Health::default();
        let begin = Instant::now();
        assert_eq!(health.to_tell(begin), None, "nothing is known");
        health.failed();
        assert_eq!(health.to_tell(begin), None, "it may come back");
        let late = Instant::now() + FAILING_AFTER;
        assert_eq!(health.to_tell(late), Some(true));
        health.was_told(true, late);
        assert_eq!(health.to_tell(late + Duration::from_secs(1)), None);
        assert_eq!(health.to_tell(late + STILL_FAILING), Some(true));
        health.delivered();
        assert_eq!(health.to_tell(late), Some(false));
        health.was_told(false, late);
        assert_eq!(health.to_tell(late + STILL_FAILING), None);
    }

    #[test]
    fn the_first_delivery_after_a_start_clears_what_an_earlier_run_left() {
        let mut health = Health::default();
        health.delivered();
        assert_eq!(health.to_tell(Instant::now()), Some(false));
        health.was_told(false, Instant::now());
        health.delivered();
        assert_eq!(health.to_tell(Instant::now()), None);
    }

    #[test]
    fn a_dead_letter_is_told_at_once() {
        let mut health = Health::default();
        health.died();
        assert_eq!(health.to_tell(Instant::now()), Some(true));
    }
}
