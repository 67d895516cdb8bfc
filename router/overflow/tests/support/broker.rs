//! A real Apache Kafka broker as a process of its own, started by `scripts/kafka`, to be killed, stopped and started again.

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// One broker with its data, both gone when it is dropped.
pub(crate) struct Broker {
    port: u16,
    data: PathBuf,
    /// Whether clients have to log in.
    secure: bool,
    process: Option<Process>,
}

/// The broker's process, and one that kills it should this one die first.
struct Process {
    broker: Child,
    guard: Child,
}

impl Broker {
    /// Chooses a port and a data directory; starts nothing yet.
    pub(crate) fn new() -> Self {
        Self::of_kind(false)
    }

    /// The same, for clients that log in only.
    pub(crate) fn secure() -> Self {
        Self::of_kind(true)
    }

    fn of_kind(secure: bool) -> Self {
        fetch();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let data = target().join("kafka-data").join(format!("{}-{number}", std::process::id()));
        Self { port: free_port(), data, secure, process: None }
    }

    /// Where it listens: for TLS and a login, if it is secure.
    pub(crate) fn servers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where a secure one listens for a login without TLS.
    pub(crate) fn servers_without_tls(&self) -> String {
        format!("127.0.0.1:{}", self.port + 2)
    }

    /// The certificate of a secure one, once it was started.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.data.join("broker.pem")
    }

    /// The settings that `scripts/kafka` writes for clients of a secure one, once it was started.
    pub(crate) fn client_settings(&self) -> String {
        std::fs::read_to_string(self.data.join("router.properties")).expect("a secure broker was started")
    }

    /// Starts it and waits until its port is open. It may need a moment more to know its topics.
    pub(crate) fn start(&mut self) {
        assert!(self.process.is_none(), "the broker runs already");
        self.process = Some(Process::spawn(self.port, &self.data, self.secure));
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port).into();
        eventually("the broker's port opens", Duration::from_secs(120), || {
            assert!(self.is_alive(), "the broker ended by itself");
            TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
        });
    }

    /// Running, whatever somebody who had it before left behind.
    pub(crate) fn put_right(&mut self) {
        if self.is_alive() {
            self.go_on();
        } else {
            self.kill();
            self.start();
        }
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// SIGSTOP: it is there and does nothing, none of its threads.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
        eventually("all threads of the broker stand still", Duration::from_secs(10), || self.stands_still());
    }

    /// SIGCONT.
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("the broker runs");
        kill_process(Pid::from_child(&process.broker), signal).expect("it is a child that was not waited for");
    }

    /// Field 3 of proc_pid_stat(5), behind the name in brackets.
    fn stands_still(&self) -> bool {
        let process = self.process.as_ref().expect("the broker runs");
        let tasks = std::fs::read_dir(format!("/proc/{}/task", process.broker.id())).expect("it is alive");
        let stat =
            |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.ok()?.path().join("stat")).ok();
        tasks.filter_map(stat).all(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T")))
    }

    fn is_alive(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| matches!(process.broker.try_wait(), Ok(None)))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        // What is left of it is under the target folder.
        std::fs::remove_dir_all(&self.data).unwrap_or_default();
    }
}

impl Process {
    fn spawn(port: u16, data: &Path, secure: bool) -> Self {
        let broker = Command::new(script())
            .arg("serve")
            .arg(port.to_string())
            .arg(data)
            .args(secure.then_some("--secure"))
            .env("CARGO_TARGET_DIR", target())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("scripts/kafka can be started");
        // Its input ends when this process does, however it does.
        let guard = Command::new("sh")
            .args(["-c", "read _; kill -9 $0", &broker.id().to_string()])
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh can be started");
        Self { broker, guard }
    }
}

impl Drop for Process {
    /// The guard goes first, so that it kills nobody who was given the same number later.
    fn drop(&mut self) {
        for child in [&mut self.guard, &mut self.broker] {
            child.kill().unwrap_or_default();
            child.wait().expect("it is a child of this process");
        }
    }
}

/// Runs a test with the program's broker, which lives as long as any test has it or waits for it.
pub(crate) fn with_broker(make: fn() -> Broker, test: impl FnOnce(&mut Broker)) {
    static SHARED: Mutex<Weak<Mutex<Broker>>> = Mutex::new(Weak::new());
    let shared = {
        let mut place = SHARED.lock();
        place.upgrade().unwrap_or_else(|| {
            let shared = Arc::new(Mutex::new(make()));
            *place = Arc::downgrade(&shared);
            shared
        })
    };
    let mut broker = shared.lock();
    broker.put_right();
    test(&mut broker);
}

/// Waits for something to become true, no longer than `most`.
#[track_caller]
pub(crate) fn eventually(what: &str, most: Duration, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + most;
    while !is_so() {
        assert!(Instant::now() < until, "not within {most:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Fails with what is missing, rather than to test nothing.
fn fetch() {
    let done = Command::new(script()).arg("fetch").env("CARGO_TARGET_DIR", target()).output().expect("bash is there");
    assert!(done.status.success(), "scripts/kafka fetch: {}", String::from_utf8_lossy(&done.stderr));
}

fn script() -> PathBuf {
    root().join("scripts/kafka")
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A port that is free with the two above it, and which the system gives to nobody else: below those for outgoing connections.
fn free_port() -> u16 {
    let first = 20_000 + u16::try_from(std::process::id() % 3_000).expect("below 3,000") * 3;
    let is_free = |port: &u16| {
        [*port, port + 1, port + 2].iter().all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
    };
    (first..32_000).step_by(3).find(is_free).expect("three free ports")
}
