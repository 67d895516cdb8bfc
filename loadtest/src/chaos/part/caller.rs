//! A process with a controller: asks at a steady rate whatever becomes of the answers, and writes down each ask before it is made
//! and each answer as it comes.

use super::{Ask, Cue, News, Post, Tally, tell};
use crate::chaos::ledger::{Ending, Entry, Ledger, Name, Seat};
use crate::plan::action_key;
use anyhow::{Context, bail};
use bytes::Bytes;
use client::{ActionKey, Controller, ControllerConfig, Outcome, Reason};
use proto::v1;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What a caller is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CallerPart {
    pub(crate) post: Post,
    /// Activations a second.
    pub(crate) rate: f64,
    pub(crate) ask: Ask,
    /// Whether it leaves alone actions that fail again and again.
    pub(crate) breakers: bool,
}

/// Payload: name, microseconds to run, whether to hand it back first, whether to fail.
pub(crate) const PAYLOAD_BYTES_MIN: usize = Name::BYTES + 4 + 1;

/// How a container is to treat an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Succeed = 0,
    /// The action fails by its own doing.
    Fail = 1,
    /// The first container hands it back unstarted.
    HandBack = 2,
}

impl Manner {
    pub(crate) fn read(byte: u8) -> Option<Self> {
        [Self::Succeed, Self::Fail, Self::HandBack].into_iter().find(|manner| *manner as u8 == byte)
    }

    /// One in so many fails, one in so many is handed back.
    fn of(number: u64) -> Self {
        match number {
            number if number.is_multiple_of(101) => Self::Fail,
            number if number.is_multiple_of(1009) => Self::HandBack,
            _ => Self::Succeed,
        }
    }
}

/// Asks until told to finish, and leaves when all is answered.
pub(super) async fn run(part: CallerPart, mut cues: mpsc::UnboundedReceiver<Cue>) -> anyhow::Result<ExitCode> {
    let mut caller = Caller::start(part).await?;
    tell(&News::Ready);
    let mut breath = tokio::time::interval(BREATH);
    let mut tick = tokio::time::interval(TALLY_INTERVAL);
    loop {
        tokio::select! {
            biased;
            cue = cues.recv() => {
                let cue = cue.context("the end of its input ends this process")?;
                if caller.on_cue(cue).is_break() {
                    break;
                }
            }
            _ = tick.tick() => tell(&News::Tally(caller.desk.tally())),
            _ = breath.tick() => caller.ask_due(),
        }
    }
    caller.settle().await?;
    tell(&News::Tally(caller.desk.tally()));
    tell(&News::Done);
    Ok(ExitCode::SUCCESS)
}

/// Of so many activations one is asked for without its outcome: the answer is that it was taken.
const FIRED_ONE_IN: u64 = 503;
/// How often what has come due is asked.
const BREATH: Duration = Duration::from_millis(1);
const TALLY_INTERVAL: Duration = Duration::from_millis(50);
/// A caller that was held up for longer leaves out what it missed: it is to ask at a rate, not in bursts.
const CATCH_UP_MAX: Duration = Duration::from_millis(100);
/// Behind the last deadline everything is answered, or never will be.
const PATIENCE: Duration = Duration::from_secs(10);

struct Caller {
    part: CallerPart,
    desk: Arc<Desk>,
    keys: Vec<ActionKey>,
    rng: ChaCha8Rng,
    number: u64,
    /// Since when the rate holds, and what was asked since.
    since: Instant,
    paced: f64,
    timeout_max: Duration,
}

/// What the single asks share.
struct Desk {
    ledger: Ledger,
    controller: Controller,
    asked: AtomicU64,
    answered: AtomicU64,
    completed: AtomicU64,
}

impl Desk {
    fn tally(&self) -> Tally {
        let [asked, answered, completed] =
            [&self.asked, &self.answered, &self.completed].map(|count| count.load(Ordering::Relaxed));
        Tally { asked, answered, completed }
    }
}

impl Caller {
    async fn start(part: CallerPart) -> anyhow::Result<Self> {
        let ledger = Ledger::of(part.post.life, &part.post.folder)?;
        let controller = connect(&part.post, part.breakers).await?;
        let count = AtomicU64::default;
        let desk = Desk { ledger, controller, asked: count(), answered: count(), completed: count() };
        Ok(Self {
            desk: Arc::new(desk),
            keys: (0..part.post.actions).map(action_key).collect(),
            rng: ChaCha8Rng::seed_from_u64(part.post.seed),
            number: 0,
            since: Instant::now(),
            paced: 0.0,
            timeout_max: Duration::ZERO,
            part,
        })
    }

    fn on_cue(&mut self, cue: Cue) -> ControlFlow<()> {
        match cue {
            Cue::Rate(rate) => {
                self.part.rate = rate;
                (self.since, self.paced) = (Instant::now(), 0.0);
            }
            Cue::Burst { count, ask } => (0..count).for_each(|_| self.ask(ask)),
            Cue::Finish => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    fn ask_due(&mut self) {
        let due = self.since.elapsed().as_secs_f64() * self.part.rate;
        self.paced = self.paced.max(due - CATCH_UP_MAX.as_secs_f64() * self.part.rate);
        while self.paced < due {
            self.paced += 1.0;
            self.ask(self.part.ask);
        }
    }

    fn ask(&mut self, ask: Ask) {
        let Seat::Caller(caller) = self.part.post.life.seat else { return };
        self.number += 1;
        let name = Name { caller, life: self.part.post.life.number, number: self.number };
        let timeout_ms = self.rng.random_range(ask.timeout_ms.0..=ask.timeout_ms.1);
        let service_us = self.rng.random_range(ask.service_us.0..=ask.service_us.1);
        let key = self.keys[self.rng.random_range(0..self.keys.len())].clone();
        let payload = payload(name, service_us, Manner::of(self.number), ask.payload_bytes);
        let timeout = Duration::from_millis(timeout_ms.into());
        self.timeout_max = self.timeout_max.max(timeout);
        tokio::spawn(one(self.desk.clone(), name, key, payload, timeout));
    }

    /// Waits until everything is answered, but not for ever, and writes the last line.
    async fn settle(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + self.timeout_max + PATIENCE;
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        loop {
            tick.tick().await;
            // Those that are spawned and have not begun are still to come.
            let Tally { asked, answered, .. } = self.desk.tally();
            if (asked == self.number && answered == asked) || Instant::now() >= deadline {
                break;
            }
        }
        let late_answers = u32::try_from(self.desk.controller.late_answers())?;
        self.desk.ledger.write(Entry::Left { late_answers });
        Ok(())
    }
}

/// Tries until there is a router.
async fn connect(post: &Post, breakers: bool) -> anyhow::Result<Controller> {
    let config = ControllerConfig::default();
    let config = if breakers { config } else { ControllerConfig { breaker: None, ..config } };
    let deadline = Instant::now() + CONNECT_WITHIN;
    loop {
        let channel = client::connect_lazy(&post.endpoint.to_string())?;
        match Controller::over_with(channel, &post.life.seat.to_string(), config.clone()).await {
            Ok(controller) => return Ok(controller),
            Err(error) if Instant::now() > deadline => bail!("{} found no router: {error}", post.life),
            Err(_) => tokio::time::sleep(CONNECT_AGAIN_AFTER).await,
        }
    }
}

pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(60);
pub(super) const CONNECT_AGAIN_AFTER: Duration = Duration::from_millis(20);

async fn one(desk: Arc<Desk>, name: Name, key: ActionKey, payload: Bytes, timeout: Duration) {
    let timeout_us = u32::try_from(timeout.as_micros()).unwrap_or(u32::MAX);
    desk.ledger.write(Entry::Asked { name, timeout_us });
    desk.asked.fetch_add(1, Ordering::Relaxed);
    let answer = if name.number.is_multiple_of(FIRED_ONE_IN) {
        desk.controller.fire(&key, payload, timeout).await
    } else {
        desk.controller.invoke(&key, payload, timeout).await
    };
    let ending = ending(name, &answer.outcome);
    desk.ledger.write(Entry::Answered { name, ending });
    desk.answered.fetch_add(1, Ordering::Relaxed);
    desk.completed.fetch_add(u64::from(ending.says_it_ran()), Ordering::Relaxed);
}

fn payload(name: Name, service_us: u32, manner: Manner, bytes: usize) -> Bytes {
    let mut payload = vec![0; bytes.max(PAYLOAD_BYTES_MIN)];
    payload[..Name::BYTES].copy_from_slice(&name.bytes());
    payload[Name::BYTES..Name::BYTES + 4].copy_from_slice(&service_us.to_be_bytes());
    payload[Name::BYTES + 4] = manner as u8;
    payload.into()
}

/// Containers return the name.
fn ending(name: Name, outcome: &Outcome) -> Ending {
    match outcome {
        Outcome::Completed(result) | Outcome::ActionFailed(result) if result[..] != name.bytes() => Ending::Swapped,
        Outcome::Completed(_) => Ending::Completed,
        Outcome::ActionFailed(_) => Ending::ActionFailed,
        Outcome::PlatformFailed(_) => Ending::PlatformFailed,
        Outcome::Expired => Ending::Expired,
        Outcome::Rejected(rejection) if rejection.reason == Reason::Router(v1::Reason::OutcomeUnknown) => {
            Ending::Unknown
        }
        Outcome::Rejected(_) => Ending::Rejected,
        Outcome::Lost => Ending::Lost,
        Outcome::Accepted(_) => Ending::Accepted,
        Outcome::TimedOut => Ending::TimedOut,
        Outcome::CircuitOpen { .. } => Ending::CircuitOpen,
        Outcome::Unreachable { maybe_sent: false } => Ending::Unsent,
        Outcome::Unreachable { maybe_sent: true } => Ending::MaybeSent,
    }
}
