//! Keeps a peer's server: starts it on a free port of the loopback interface with a folder of its own, and ends it, with all
//! processes it started, when told to. This runs in a part of its own, so that no server is left behind when the parent dies, and
//! servers are in process groups of their own: an interrupt from the terminal is for their keeper, who ends them all.

use super::{Launch, Peer};
use crate::part::{Event, Report};
use crate::tree;
use anyhow::{Context, bail};
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

/// Runs a server until `stop` resolves, or says why it cannot.
pub(crate) async fn serve(peer: Peer, report: Report, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let interrupted = interrupted()?;
    let folder = Folder::create(peer)?;
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let mut server = Server { children: Vec::new() };
    let Launch { commands } = peer.launch(&folder.0, address.port())?;
    for mut command in commands {
        let log = File::options().create(true).append(true).open(folder.log())?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
        server.children.push(child);
    }
    let kept = async {
        server.await_ready(address).await.map_err(|error| error.context(last_lines(&folder.log())))?;
        report(Event::Listening { address, admin: None });
        stop.await;
        Ok(())
    };
    tokio::select! {
        kept = kept => kept,
        () = interrupted => bail!("interrupted"),
    }
}

/// Resolves at the first signal that would end this process.
fn interrupted() -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// A port that nobody listens on now. Not one of those that the system gives to connections (from 32,768 on, see ip(7)): one of
/// them would take it before the server does. Somebody else may come first, but then the server says so.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    let first = rand::random_range(PORTS);
    let ports = (first..PORTS.end).chain(PORTS.start..first);
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.take(1000).find(is_free).context("none of a thousand ports is free")
}

const PORTS: std::ops::Range<u16> = 16_384..32_768;

/// A server's folder; gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn create(peer: Peer) -> anyhow::Result<Self> {
        let folder = base().join("peers").join(format!("{peer:?}-{}", std::process::id()).to_lowercase());
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }

    fn log(&self) -> PathBuf {
        self.0.join("log")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The target folder that this program was built in; the folder for temporary files if it stands elsewhere.
pub(crate) fn base() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let target = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    target.map_or_else(std::env::temp_dir, Path::to_owned)
}

/// A server's processes; ended when dropped.
struct Server {
    children: Vec<Child>,
}

impl Server {
    /// Waits until somebody listens on the address.
    async fn await_ready(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        while Instant::now() < deadline {
            if TcpStream::connect(address).await.is_ok() {
                return Ok(());
            }
            for child in &mut self.children {
                if let Some(status) = child.try_wait()? {
                    bail!("it ended with {status}");
                }
            }
            sleep(Duration::from_millis(5)).await;
        }
        bail!("nobody listens on {address} after {} s", READY_TIMEOUT.as_secs())
    }
}

const READY_TIMEOUT: Duration = Duration::from_secs(90);

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing of theirs is to be kept: no need to ask.
        for child in &mut self.children {
            tree::end(child.id());
            let _ = child.wait();
        }
    }
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("its last words: {}", lines[lines.len().saturating_sub(5)..].join(" | "))
}
