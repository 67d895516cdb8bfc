//! The process and the system around it: where its output goes, signals, limits of files and
//! descriptors.

use crate::overflow::Folder;
use crate::peers::{Controller, Invoker, activation, completion, heavy, pull_hello, push_hello, rejection, within};
use crate::scene::GOOD;
use proto::v1;
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

const BINARY: &str = env!("CARGO_BIN_EXE_activation-router");

/// A router in a process of its own, on an address of its own: where it listens need not be asked.
/// Dropped, it is killed.
struct Process {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
}

/// Two addresses that no other test has, and no other process of these tests.
fn addresses() -> (SocketAddr, SocketAddr) {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let [_, high, middle, low] = (std::process::id() << 8 | NEXT.fetch_add(1, Ordering::Relaxed)).to_be_bytes();
    let ip = Ipv4Addr::new(127, high.wrapping_add(1), middle, low);
    ((ip, 7400).into(), (ip, 7401).into())
}

impl Process {
    /// Starts one by `sh`, which has run `before` and `redirects` the output, and waits until it is
    /// ready.
    async fn start(before: &str, redirects: &str, stderr: impl Into<Stdio>, arguments: &[&str]) -> Self {
        let (address, admin) = addresses();
        let (listen, admin_listen) = (address.to_string(), admin.to_string());
        let mut command = Command::new("sh");
        let script = format!("{before}exec \"$0\" \"$@\" {redirects}");
        command.args(["-c", &script, BINARY, "serve", "--listen", &listen, "--admin-listen", &admin_listen]);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let process = Self { child: command.spawn().unwrap(), address, admin };
        let ready = async {
            while process.page("/ready").await.is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        within("a router that is ready", ready).await;
        process
    }

    async fn connect(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        within("a connection", endpoint.connect()).await.unwrap()
    }

    /// What the page says; none if nobody answers.
    async fn page(&self, path: &str) -> Option<String> {
        let mut socket = TcpStream::connect(self.admin).await.ok()?;
        socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: it\r\n\r\n").as_bytes()).await.ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }

    async fn metric_is(&self, name: &str, wanted: impl Fn(u64) -> bool) {
        let becomes = async {
            while !wanted(crate::router::metric(&self.page("/metrics").await.unwrap(), name)) {
                tokio::task::yield_now().await;
            }
        };
        within(name, becomes).await;
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Waits for its end; how that was.
    async fn ended(&mut self) -> ExitStatus {
        let ends = async {
            loop {
                match self.child.try_wait().unwrap() {
                    Some(status) => return status,
                    None => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        };
        within("the process's end", ends).await
    }

    /// Tells it to drain and waits for its end; its exit code.
    async fn terminated(&mut self) -> Option<i32> {
        self.signal("-TERM");
        self.ended().await.code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The writing end of a pipe that nobody reads any more.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn full_device() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

// Output that is gone.

/// Has a router log from its timers, and then checks that they live: an activation expires in time.
async fn logs_and_serves(process: &Process) {
    let node = Invoker::open_with(process.connect().await, pull_hello("came and went")).await.unwrap();
    drop(node);
    process.metric_is("router_sessions_total{kind=\"invoker\",event=\"expired\"}", |expired| expired == 1).await;
    let mut controller =
        Controller::open_with(process.connect().await, push_hello("of one that expires")).await.unwrap();
    controller.declare(1, "without containers");
    let pushed = Instant::now();
    controller.push([v1::Activation { time_left_ms: 500, ..activation(1 << 40, 1) }]);
    assert_eq!(controller.answer().await.outcome(), v1::Outcome::Expired);
    assert!(pushed.elapsed() < Duration::from_secs(2), "{:?}", pushed.elapsed());
    assert!(process.page("/live").await.unwrap().ends_with("live\n"));
}

#[tokio::test]
async fn a_router_whose_output_is_gone_serves_and_drains() {
    for (redirects, stderr) in [
        ("", closed_pipe()),
        (">/dev/full", full_device()),
        (">&-", Stdio::null()),
        ("2>&-", Stdio::null()),
        (">&- 2>&-", Stdio::null()),
    ] {
        let mut process = Process::start("", redirects, stderr, &[]).await;
        logs_and_serves(&process).await;
        assert_eq!(process.terminated().await, Some(0), "output {redirects:?}");
    }
}

#[tokio::test]
async fn a_router_whose_log_nobody_reads_serves_and_drains() {
    // More than a pipe holds, and than lines wait.
    let (_unread, stderr) = std::io::pipe().unwrap();
    let mut process = Process::start("", "", stderr, &["--log", "trace"]).await;
    let mut node = Invoker::open_with(process.connect().await, pull_hello("node")).await.unwrap();
    let mut controller = Controller::open_with(process.connect().await, push_hello("controller")).await.unwrap();
    node.register(GOOD, "good", 1);
    controller.declare(GOOD, "good");
    for number in 0..500 {
        controller.push([activation(number, GOOD)]);
        let dispatch = node.dispatch().await;
        node.complete(completion(&dispatch));
        controller.answer().await;
    }
    logs_and_serves(&process).await;
    drop((node, controller));
    assert_eq!(process.terminated().await, Some(0));
}

#[test]
fn commands_whose_output_is_gone_end_as_they_would() {
    for (arguments, code) in [
        (&["check-config"][..], 0),
        (&["--help"], 0),
        (&["--version"], 0),
        (&["check-config", "--workers", "many"], 2),
        (&["serve", "--nonsense"], 2),
        (&["serve", "--listen", "127.0.0.1:1", "--admin-listen", "127.0.0.1:1"], 2),
    ] {
        for output in [closed_pipe, full_device] {
            let mut command = Command::new(BINARY);
            let status = command.args(arguments).stdout(output()).stderr(output()).status().unwrap();
            assert_eq!(status.code(), Some(code), "{arguments:?}");
        }
    }
}

#[test]
fn a_configuration_that_is_a_pipe_is_read() {
    let script = r#""$0" check-config --config <(printf 'workers = 3\n[limits]\nactions_max = 5\n')"#;
    let output = Command::new("bash").args(["-c", script, BINARY]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    for line in ["workers = 3", "actions_max = 5"] {
        assert!(said.lines().any(|printed| printed == line), "{line} in {said}");
    }
}

#[test]
fn the_exit_codes_are_in_the_help() {
    let output = Command::new(BINARY).arg("--help").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    for code in 0..=4 {
        assert!(said.lines().any(|line| line.starts_with(&format!("  {code}  "))), "{code} in {said}");
    }
}

// Signals.

/// Starts a router that keeps what does not fit in `folder`, and gives back `refill_records` at a time.
async fn spilling(folder: &Folder, refill_records: u32) -> Process {
    let config = format!(
        "[limits]\naction_queued_max = 32\n[overflow]\nstore = \"disk\"\ndirectory = {:?}\nlanes = 1\nrefill_records = {refill_records}\n",
        folder.path()
    );
    let file = folder.path().with_extension("toml");
    std::fs::write(&file, config).unwrap();
    let process = Process::start("", "", Stdio::null(), &["--config", file.to_str().unwrap()]).await;
    std::fs::remove_file(file).unwrap();
    process.metric_is("router_overflow_open", |open| open == 1).await;
    process
}

#[tokio::test]
async fn a_killed_router_loses_less_of_the_stored_than_it_says_and_runs_none_twice() {
    const PUSHED: u64 = 1_000;
    const RUN: u64 = 300;
    const REFILL: u32 = 64;
    let folder = Folder::new("killed");
    let mut process = spilling(&folder, REFILL).await;
    let mut controller = Controller::open_with(process.connect().await, push_hello("controller")).await.unwrap();
    controller.declare(1, "good");
    let fire = |number| v1::Activation { reply: v1::Reply::Accepted as i32, ..activation(number, 1) };
    controller.push((0..PUSHED).map(fire));
    let mut stored = HashSet::new();
    for _ in 0..PUSHED {
        let answer = controller.answer().await;
        assert_eq!(answer.outcome(), v1::Outcome::Accepted);
        if answer.durability() == v1::Durability::Durable {
            stored.insert(answer.id);
        }
    }
    assert!(stored.len() as u64 > PUSHED - RUN, "{}", stored.len());
    let mut node = Invoker::open_with(process.connect().await, pull_hello("node")).await.unwrap();
    node.register(GOOD, "good", 4);
    let mut run = HashSet::new();
    for _ in 0..RUN {
        let dispatch = node.dispatch().await;
        node.complete(v1::Completion { credits: 1, ..completion(&dispatch) });
        assert!(run.insert(dispatch.id));
    }
    process.signal("-KILL");
    process.ended().await;
    // Sent before the end, and read after.
    while let Some(dispatch) = node.dispatch_or_end().await {
        assert!(run.insert(dispatch.id));
    }

    let mut process = spilling(&folder, REFILL).await;
    let said = crate::router::metric(&process.page("/metrics").await.unwrap(), "router_overflow_lost_in_crash_max");
    let mut node = Invoker::open_with(process.connect().await, pull_hello("node")).await.unwrap();
    node.register(GOOD, "good", 4);
    let running = tokio::spawn(async move {
        let mut ids = Vec::new();
        while let Some(dispatch) = node.dispatch_or_end().await {
            node.complete(v1::Completion { credits: 1, ..completion(&dispatch) });
            ids.push(dispatch.id);
        }
        ids
    });
    process.metric_is("router_overflow_lanes", |lanes| lanes == 0).await;
    assert_eq!(process.terminated().await, Some(0));
    let before = run.len();
    for id in running.await.unwrap() {
        assert!(run.insert(id), "one ran twice");
    }
    assert!(run.len() > before, "nothing was left to lose");
    let lost = stored.difference(&run).count() as u64;
    assert!(lost <= said, "{lost} were lost, {said} at most were said to be");
    // A batch and a half: one is read while half of the last one still waits.
    assert!((1..=u64::from(REFILL) * 3 / 2).contains(&said), "{said}");
}

/// A router with an activation in flight that nobody completes, and its peers.
async fn held(stderr: Stdio) -> (Process, Controller, Invoker) {
    let process = Process::start("", "", stderr, &[]).await;
    let controller = Controller::open_with(process.connect().await, push_hello("controller")).await.unwrap();
    let mut node = Invoker::open_with(process.connect().await, pull_hello("node")).await.unwrap();
    controller.declare(GOOD, "good");
    node.register(GOOD, "good", 1);
    controller.push([activation(1, GOOD)]);
    node.dispatch().await;
    (process, controller, node)
}

#[tokio::test]
async fn a_second_signal_ends_a_drain_at_once() {
    for (first, second) in [("-TERM", "-TERM"), ("-INT", "-TERM"), ("-TERM", "-INT")] {
        let (mut process, mut controller, _node) = held(Stdio::null()).await;
        process.signal(first);
        controller.draining().await;
        process.signal(second);
        let told = Instant::now();
        assert_eq!(process.ended().await.code(), Some(3), "{first}, {second}");
        assert!(told.elapsed() < Duration::from_secs(1), "{:?}", told.elapsed());
    }
}

#[tokio::test]
async fn a_signal_after_the_word_to_drain_does_not_cut_the_drain_short() {
    let (mut process, mut controller, node) = held(Stdio::null()).await;
    let mut socket = TcpStream::connect(process.admin).await.unwrap();
    socket.write_all(b"POST /drain HTTP/1.1\r\nHost: it\r\n\r\n").await.unwrap();
    controller.draining().await;
    process.signal("-TERM");
    // A second one would end it within half a second.
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(process.child.try_wait().unwrap(), None);
    node.send(v1::PullRequest {
        leaves: vec![v1::Leave { container: GOOD, gone: true, ..Default::default() }],
        ..Default::default()
    });
    assert_eq!(controller.answer().await.outcome(), v1::Outcome::Lost);
    assert_eq!(process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_hangup_changes_nothing() {
    let (log, stderr) = std::io::pipe().unwrap();
    let mut process = Process::start("", "", stderr, &[]).await;
    process.signal("-HUP");
    let line = BufReader::new(log).lines().map(Result::unwrap).find(|line| line.contains("SIGHUP")).unwrap();
    assert!(line.contains("nothing is reloaded"), "{line}");
    logs_and_serves(&process).await;
    assert_eq!(process.terminated().await, Some(0));
}

// Limits.

#[tokio::test]
async fn a_limit_of_file_sizes_is_a_full_store() {
    let folder = Folder::new("file-size");
    let config = format!(
        "drain_timeout_ms = 500\n[limits]\naction_queued_max = 1\n[overflow]\nstore = \"disk\"\ndirectory = {:?}\nlanes = 1\n",
        folder.path()
    );
    std::fs::create_dir_all(folder.path().with_extension("config")).unwrap();
    let file = folder.path().with_extension("config").join("config.toml");
    std::fs::write(&file, config).unwrap();
    // In blocks of 512 or 1,024 bytes, as the shell likes.
    let mut process =
        Process::start("ulimit -f 2048; ", "", Stdio::null(), &["--config", file.to_str().unwrap()]).await;
    process.metric_is("router_overflow_open", |open| open == 1).await;
    let mut controller = Controller::open_with(process.connect().await, push_hello("controller")).await.unwrap();
    controller.declare(1, "heavy");
    let mut refused = 0;
    for number in 0..40 {
        let accepted = v1::Reply::Accepted as i32;
        controller.push([v1::Activation { reply: accepted, ..heavy(number, 1, 100_000) }]);
        let answer = controller.answer().await;
        if answer.outcome() == v1::Outcome::Rejected {
            assert_eq!(rejection(&answer).0, v1::Reason::OverflowUnavailable);
            refused += 1;
        }
    }
    assert!((1..40).contains(&refused), "{refused} of 40 were refused");
    logs_and_serves(&process).await;
    // By itself, whatever is left.
    assert!(process.terminated().await.is_some());
    std::fs::remove_dir_all(folder.path().with_extension("config")).unwrap();
}

#[tokio::test]
async fn without_descriptors_probes_are_answered_and_the_log_stays_short() {
    let (log, stderr) = std::io::pipe().unwrap();
    let mut process = Process::start("ulimit -n 64; ", "", stderr, &[]).await;
    let mut silent = Vec::new();
    for _ in 0..80 {
        silent.push(TcpStream::connect(process.address).await.unwrap());
    }
    process.metric_is("router_connections_total{became=\"failed\"}", |failed| failed >= 12).await;
    let probed = Instant::now();
    for _ in 0..20 {
        assert!(process.page("/ready").await.unwrap().ends_with("ready\n"));
    }
    assert!(probed.elapsed() < Duration::from_secs(1), "{:?}", probed.elapsed());
    // Silent ones there, too.
    for _ in 0..80 {
        silent.push(TcpStream::connect(process.admin).await.unwrap());
    }
    let probed = Instant::now();
    assert!(process.page("/ready").await.unwrap().ends_with("ready\n"));
    assert!(probed.elapsed() < Duration::from_secs(1), "{:?}", probed.elapsed());
    drop(silent);
    let _channel = process.connect().await;
    process.signal("-KILL");
    process.ended().await;
    let lines: Vec<String> = BufReader::new(log).lines().map(Result::unwrap).collect();
    let warned = lines.iter().filter(|line| line.contains("fewer files may be open") && line.contains("limit=64"));
    assert_eq!(warned.count(), 1, "{lines:?}");
    let complaints = lines.iter().filter(|line| line.contains("cannot accept connections")).count();
    assert!((1..12).contains(&complaints), "{complaints} complaints in a few seconds: {lines:?}");
}

#[tokio::test]
async fn the_soft_limit_of_open_files_is_raised() {
    let process = Process::start("ulimit -S -n 64; ", "", Stdio::null(), &[]).await;
    let mut open = Vec::new();
    for _ in 0..150 {
        open.push(TcpStream::connect(process.address).await.unwrap());
    }
    process.metric_is("router_connections_total{became=\"accepted\"}", |accepted| accepted == 150).await;
}

/// Queues may take more than the process may: it says so at its start. Until then it serves; then it ends, it does not hang.
#[tokio::test]
async fn without_memory_it_ends_and_has_warned_of_that() {
    let (log, stderr) = std::io::pipe().unwrap();
    let mut process = Process::start("ulimit -v 400000; ", "", stderr, &[]).await;
    let controller = Controller::open_with(process.connect().await, push_hello("controller")).await.unwrap();
    controller.declare(1, "heavy");
    let pushes = async {
        for number in 0.. {
            controller.push([heavy(number, 1, 1_000_000)]);
            tokio::task::yield_now().await;
            if process.page("/live").await.is_none() {
                return;
            }
        }
    };
    within("the end of memory", pushes).await;
    assert_eq!(process.ended().await.signal(), Some(SIGABRT));
    let lines: Vec<String> = BufReader::new(log).lines().map(Result::unwrap).collect();
    let said = |what: &str| lines.iter().any(|line| line.contains(what));
    assert!(said("less memory may be taken than may be needed") && said("limit=409600000"), "{lines:?}");
    assert!(said("memory allocation of"), "{lines:?}");
}

/// The number of SIGABRT on Linux: `signal(7)`.
const SIGABRT: i32 = 6;

#[tokio::test]
async fn silent_clients_do_not_keep_probes_out() {
    let process = Process::start("", "", Stdio::null(), &[]).await;
    let mut silent = Vec::new();
    for _ in 0..80 {
        let mut sitter = TcpStream::connect(process.admin).await.unwrap();
        sitter.write_all(b"GET /live HTTP/1.1\r\n").await.unwrap();
        silent.push(sitter);
    }
    let probed = Instant::now();
    for path in ["/live", "/ready", "/metrics"] {
        assert!(process.page(path).await.unwrap().starts_with("HTTP/1.1 200 OK"), "{path}");
    }
    assert!(probed.elapsed() < Duration::from_secs(1), "{:?}", probed.elapsed());
}
