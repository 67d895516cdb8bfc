//! A process with invokers: containers that write down each start before it is one, and each end before it is told.

use super::caller::{CONNECT_AGAIN_AFTER, CONNECT_WITHIN, Manner};
use super::{Cue, News, Post, tell};
use crate::chaos::ledger::{Entry, Ledger, Name};
use crate::plan::action_key;
use anyhow::bail;
use bytes::Bytes;
use client::{Activation, ContainerSpec, Failure, Gone, Invoker};
use serde::{Deserialize, Serialize};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What a node is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodePart {
    pub(crate) post: Post,
    /// Invokers, each on a connection of its own, each with one container for every action.
    pub(crate) streams: u16,
    /// Activations a container runs at once.
    pub(crate) concurrency: u32,
}

/// Runs what it is sent, until told to finish.
pub(super) async fn run(part: NodePart, mut cues: mpsc::UnboundedReceiver<Cue>) -> anyhow::Result<ExitCode> {
    let ledger = Arc::new(Ledger::of(part.post.life, &part.post.folder)?);
    let mut containers = JoinSet::new();
    for stream in 0..part.streams {
        let invoker = Arc::new(connect(&part.post, stream).await?);
        for action in 0..part.post.actions {
            let spec = ContainerSpec { key: action_key(action), concurrency: part.concurrency, warm: true };
            containers.spawn(keep(invoker.clone(), spec, ledger.clone()));
        }
    }
    tell(&News::Ready);
    loop {
        tokio::select! {
            cue = cues.recv() => if !matches!(cue, Some(Cue::Rate(_) | Cue::Burst { .. })) { break },
            Some(ended) = containers.join_next() => ended??,
        }
    }
    tell(&News::Done);
    Ok(ExitCode::SUCCESS)
}

async fn connect(post: &Post, stream: u16) -> anyhow::Result<Invoker> {
    let deadline = Instant::now() + CONNECT_WITHIN;
    loop {
        match Invoker::connect(&post.endpoint.to_string(), &format!("{}-{stream}", post.life.seat)).await {
            Ok(invoker) => return Ok(invoker),
            Err(error) if Instant::now() > deadline => bail!("{} found no router: {error}", post.life),
            Err(_) => tokio::time::sleep(CONNECT_AGAIN_AFTER).await,
        }
    }
}

/// Keeps one container registered: a router that drains has no more use for it, the next one has.
async fn keep(invoker: Arc<Invoker>, spec: ContainerSpec, ledger: Arc<Ledger>) -> anyhow::Result<()> {
    loop {
        let ledger = ledger.clone();
        let handler = move |activation: Activation| perform(ledger.clone(), activation);
        if let Ok(container) = invoker.register(spec.clone(), handler)
            && container.gone().await == Gone::Left
        {
            bail!("a container of {} left, and nobody had told it to", spec.key);
        }
        tokio::time::sleep(REGISTER_AGAIN_AFTER).await;
    }
}

const REGISTER_AGAIN_AFTER: Duration = Duration::from_millis(50);

async fn perform(ledger: Arc<Ledger>, activation: Activation) -> Result<Bytes, Failure> {
    let Some((name, service, manner)) = orders(&activation.payload) else {
        return Err(Failure::Platform(Bytes::from_static(b"no payload of this test")));
    };
    if manner == Manner::HandBack && activation.attempt == 1 {
        ledger.write(Entry::Returned { name });
        return Err(Failure::Unstarted);
    }
    let attempt = u16::try_from(activation.attempt).unwrap_or(u16::MAX);
    ledger.write(Entry::Started { name, attempt });
    if !service.is_zero() {
        tokio::time::sleep(service).await;
    }
    ledger.write(Entry::Ended { name });
    let result = activation.payload.slice(..Name::BYTES);
    if manner == Manner::Fail { Err(Failure::Action(result)) } else { Ok(result) }
}

/// What the payload says: who it is, for how long to run, and how to treat it.
fn orders(payload: &[u8]) -> Option<(Name, Duration, Manner)> {
    let service_us = payload.get(Name::BYTES..Name::BYTES + 4)?.try_into().ok().map(u32::from_be_bytes)?;
    let manner = Manner::read(*payload.get(Name::BYTES + 4)?)?;
    Some((Name::read(payload)?, Duration::from_micros(service_us.into()), manner))
}
