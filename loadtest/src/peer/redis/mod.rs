//! Redis, used in two ways: `lists` and `streams`. Here is what both share: the server, the names of what it keeps, and the
//! connection for requests. `resp` has the words that both say to it.

pub(crate) mod lists;
mod resp;
pub(crate) mod streams;

use super::Launch;
use super::line::{self, Outbox};
use crate::plan::Plan;
use bytes::Bytes;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

const PROGRAM: &str = "redis-server";
const INSTALL: &str = "apt-get install redis-server, or scripts/peers";

/// How the server is started.
pub(crate) fn launch(folder: &Path, port: u16) -> anyhow::Result<Launch> {
    let config = folder.join("redis.conf");
    let folder = folder.display();
    let text = format!(
        "bind 127.0.0.1\nport {port}\nsave \"\"\nappendonly no\ndaemonize no\ndir {folder}\nunixsocketperm 700\n"
    );
    std::fs::write(&config, text)?;
    let mut command = Command::new(PROGRAM);
    command.arg(&config);
    Ok(Launch::of(command))
}

/// Connects for requests only: what is replied to them says nothing.
async fn requests(endpoint: SocketAddr) -> anyhow::Result<Outbox> {
    let (outbox, replies) = line::connect(endpoint).await?;
    tokio::spawn(resp::discard(replies));
    Ok(outbox)
}

/// Where requests are kept.
fn work(plan: &Plan) -> Bytes {
    format!("work-{}", plan.run).into()
}

/// Where answers to a controller are kept.
fn answers(plan: &Plan, controller: u32) -> Bytes {
    format!("answers-{}-{controller}", plan.run).into()
}
