//! What does not fit in memory, with a store on disk: order, answers, acknowledgements, restarts, drains, and stores that do not open.

use crate::peers::{Controller, Invoker, activation, completion, connect, heavy, id, refused, rejection};
use crate::router::{Router, config};
use proto::v1;
use router::app::App;
use router::config::Config;
use router::drain::Left;
use std::path::{Path, PathBuf};

/// A directory of the test's own, gone with it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(test: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("overflow-{test}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Ten activations of an action fit in memory, the others go to disk.
    pub(crate) fn small(&self) -> impl FnOnce(&mut Config) {
        let directory = self.0.to_str().unwrap().to_owned();
        move |config| {
            config.limits.action_queued_max = 10;
            (config.overflow.store, config.overflow.directory) = ("disk".to_owned(), directory);
            config.overflow.lanes = 4;
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) async fn started(change: impl FnOnce(&mut Config)) -> Router {
    let router = Router::start(change);
    router.metric_is("router_overflow_open", |open| open == 1).await;
    router
}

async fn run(invoker: &mut Invoker, numbers: impl Iterator<Item = u64>) {
    for number in numbers {
        let dispatch = invoker.dispatch().await;
        assert_eq!(dispatch.id, id(number), "in the order they were pushed");
        invoker.complete(v1::Completion { credits: 1, ..completion(&dispatch) });
    }
}

#[tokio::test]
async fn what_overflows_comes_back_in_order_and_each_is_answered() {
    let folder = Folder::new("order");
    let router = started(folder.small()).await;
    let mut controller = Controller::open(&router, "controller").await;
    controller.declare(1, "good");
    controller.push((0..500).map(|number| activation(number, 1)));
    router.metric_is("router_overflow_stored", |stored| stored == 490).await;
    let mut invoker = Invoker::open(&router, "node").await;
    invoker.register(7, "good", 4);
    // Pushed while the others come back.
    controller.push((500..600).map(|number| activation(number, 1)));
    run(&mut invoker, 0..600).await;
    for _ in 0..600 {
        assert_eq!(controller.answer().await.outcome(), v1::Outcome::Completed);
    }
    router.metric_is("router_overflow_lanes", |lanes| lanes == 0).await;
    router.metric_is("router_activations_total{event=\"spill_ended\"}", |ended| ended >= 1).await;
    assert_eq!(router.metric("router_activations_total{event=\"completed\"}").await, 600);
}

#[tokio::test]
async fn a_batch_of_many_pieces_comes_back_in_order() {
    let folder = Folder::new("pieces");
    let small = folder.small();
    let router = started(|config| {
        small(config);
        config.limits.action_queued_max = 2000;
    })
    .await;
    let mut controller = Controller::open(&router, "controller").await;
    controller.declare(1, "good");
    controller.push((0..4000).map(|number| activation(number, 1)));
    router.metric_is("router_overflow_stored", |stored| stored == 2000).await;
    let mut invoker = Invoker::open(&router, "node").await;
    invoker.register(7, "good", 4);
    run(&mut invoker, 0..4000).await;
    for _ in 0..4000 {
        assert_eq!(controller.answer().await.outcome(), v1::Outcome::Completed);
    }
    router.metric_is("router_overflow_lanes", |lanes| lanes == 0).await;
    assert_eq!(router.metric("router_activations_total{event=\"refilled\"}").await, 2000);
}

#[tokio::test]
async fn an_acceptance_says_where_the_activation_is() {
    let folder = Folder::new("accepted");
    let router = started(folder.small()).await;
    let mut controller = Controller::open(&router, "controller").await;
    controller.declare(1, "good");
    let fire = |number| v1::Activation { reply: v1::Reply::Accepted as i32, ..activation(number, 1) };
    controller.push((0..12).map(fire));
    for number in 0..12 {
        let answer = controller.answer().await;
        let durability = if number < 10 { v1::Durability::Memory } else { v1::Durability::Durable };
        assert_eq!((answer.id.clone(), answer.durability()), (id(number), durability));
    }
    // One that is stored is still the one of its id.
    controller.push([fire(11)]);
    assert_eq!(rejection(&controller.answer().await).0, v1::Reason::IdInFlight);
}

#[tokio::test]
async fn what_is_stored_survives_the_router() {
    let folder = Folder::new("restart");
    let mut router = started(folder.small()).await;
    let controller = Controller::open(&router, "controller").await;
    controller.declare(1, "good");
    controller.push((0..40).map(|number| activation(number, 1)));
    let brief = v1::Activation { time_left_ms: 1, ..activation(99, 1) };
    controller.push([brief]);
    router.metric_is("router_overflow_stored", |stored| stored == 31).await;
    // No time to drain: what is in memory is left, and lost.
    router.stop();
    let left = router.stopped().await;
    assert_eq!((left.queued, left.in_flight, left.stored), (10, 0, 31));

    let router = started(folder.small()).await;
    let mut invoker = Invoker::open(&router, "node").await;
    invoker.register(7, "good", 4);
    run(&mut invoker, 10..40).await;
    router.metric_is("router_activations_total{event=\"recovered\"}", |n| n == 30).await;
    router.metric_is("router_activations_total{event=\"recovered_expired\"}", |n| n == 1).await;
    router.metric_is("router_overflow_lanes", |lanes| lanes == 0).await;
    // It is an action like any other again.
    let mut controller = Controller::open(&router, "controller").await;
    controller.declare(1, "good");
    controller.push([activation(1000, 1)]);
    run(&mut invoker, 1000..1001).await;
    assert_eq!(controller.answer().await.outcome(), v1::Outcome::Completed);
}

#[tokio::test]
async fn a_drain_reads_back_and_hands_out_what_is_stored() {
    let folder = Folder::new("drain");
    let small = folder.small();
    let mut router = started(|config| {
        small(config);
        config.drain_timeout_ms = 20_000;
    })
    .await;
    let mut controller = Controller::open(&router, "controller").await;
    controller.declare(1, "good");
    controller.push((0..40).map(|number| activation(number, 1)));
    router.metric_is("router_overflow_stored", |stored| stored == 30).await;
    router.stop();
    let mut invoker = Invoker::open(&router, "node").await;
    invoker.register(7, "good", 4);
    run(&mut invoker, 0..40).await;
    let mut completed = 0;
    while completed < 40 {
        assert_eq!(controller.answer().await.outcome(), v1::Outcome::Completed);
        completed += 1;
    }
    assert_eq!(router.stopped().await, Left::default());
}

#[tokio::test]
async fn what_expires_in_the_store_is_answered_and_never_dispatched() {
    let folder = Folder::new("expired");
    let router = started(folder.small()).await;
    let mut controller = Controller::open(&router, "controller").await;
    controller.declare(1, "good");
    controller.push((0..30).map(|number| v1::Activation { time_left_ms: 20, ..activation(number, 1) }));
    // Nobody is there to run them: those in memory expire, the others are read back and found to be expired.
    for _ in 0..30 {
        assert_eq!(controller.answer().await.outcome(), v1::Outcome::Expired);
    }
    assert_eq!(router.metric("router_activations_total{event=\"dispatched\"}").await, 0);
}

#[tokio::test]
async fn one_that_is_too_much_for_the_way_there_is_refused_by_name() {
    let folder = Folder::new("pending");
    let small = folder.small();
    let router = started(|config| {
        small(config);
        config.limits.payload_bytes_max = 60_000;
        config.overflow.pending_bytes_max = 65_536;
    })
    .await;
    let mut controller = Controller::open(&router, "controller").await;
    controller.declare(1, "good");
    controller.push((0..40).map(|number| heavy(number, 1, 60_000)));
    let answer = controller.answer().await;
    let (reason, field, limit) = rejection(&answer);
    assert_eq!((reason, &*field, limit), (v1::Reason::OverflowUnavailable, "overflow.pending_bytes_max", 65_536));
    assert!(answer.rejection.unwrap().retry_after_ms > 0);
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_keeps_the_router_from_starting() {
    let folder = Folder::new("refused");
    let with = |change: &dyn Fn(&mut Config)| {
        let mut config = config();
        folder.small()(&mut config);
        change(&mut config);
        App::bind(config)
    };
    let _first = started(folder.small()).await;
    let second = with(&|_| ()).await.unwrap_err().to_string();
    let named = format!("overflow.directory: {} is in use", folder.0.to_str().unwrap());
    assert!(second.starts_with(&named), "{second}");

    let elsewhere = Folder::new("no-key");
    let no_file = with(&|config| {
        elsewhere.small()(config);
        config.overflow.key_file = "/nowhere/key".to_owned();
    });
    let no_file = no_file.await.unwrap_err().to_string();
    assert!(no_file.starts_with("overflow.key_file: ") && no_file.contains("/nowhere/key"), "{no_file}");

    drop(started(elsewhere.small()).await);
    let lanes = with(&|config| {
        elsewhere.small()(config);
        config.overflow.lanes = 9;
    });
    let lanes = lanes.await.unwrap_err().to_string();
    assert!(lanes.starts_with("overflow.lanes: ") && lanes.contains("9 are configured"), "{lanes}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_by_its_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for (setting, is_admin) in [("listen", false), ("admin_listen", true)] {
        let mut config = config();
        *(if is_admin { &mut config.admin_listen } else { &mut config.listen }) = address;
        let fault = App::bind(config).await.unwrap_err().to_string();
        assert!(fault.starts_with(&format!("{setting} {address}: ")), "{fault}");
    }
}

#[cfg(feature = "kafka")]
#[tokio::test]
async fn without_a_broker_memory_serves_and_what_overflows_is_refused() {
    let router = Router::start(|config| {
        config.limits.action_queued_max = 2;
        config.overflow.store = "kafka".to_owned();
        // Nobody listens there.
        config.overflow.kafka_brokers = "127.0.0.1:1".to_owned();
    });
    let mut controller = Controller::open(&router, "controller").await;
    controller.declare(1, "good");
    controller.push((0..3).map(|number| activation(number, 1)));
    let answer = controller.answer().await;
    assert_eq!((answer.id.clone(), rejection(&answer).0), (id(2), v1::Reason::QueueFull));
    let mut invoker = Invoker::open(&router, "node").await;
    invoker.register(7, "good", 4);
    run(&mut invoker, 0..2).await;
    for _ in 0..2 {
        assert_eq!(controller.answer().await.outcome(), v1::Outcome::Completed);
    }
}

#[cfg(feature = "kafka")]
#[tokio::test]
async fn settings_of_kafka_that_cannot_be_are_named() {
    let folder = Folder::new("settings");
    std::fs::create_dir_all(&folder.0).unwrap();
    let file = folder.0.join("kafka.properties");
    let with = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let mut config = config();
        config.overflow.store = "kafka".to_owned();
        config.overflow.kafka_brokers = "127.0.0.1:1".to_owned();
        config.overflow.kafka_settings_file = file.to_str().unwrap().to_owned();
        App::bind(config)
    };
    let said = with("# mine\n\nacks = 1\n").await.unwrap_err().to_string();
    assert!(said.contains("acks"), "{said}");
    let said = with("linger").await.unwrap_err().to_string();
    assert!(said.contains("line 1 is not key=value"), "{said}");
}

/// The files of all lanes with that ending.
fn files(folder: &Folder, ending: &str) -> Vec<PathBuf> {
    let lanes = std::fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let all = lanes.flat_map(|lane| std::fs::read_dir(lane).unwrap().map(|entry| entry.unwrap().path()));
    all.filter(|path| path.extension().is_some_and(|extension| extension == ending)).collect()
}

/// The one log that something was written to.
fn log(folder: &Folder) -> PathBuf {
    let mut logs = files(folder, "log");
    assert_eq!(logs.len(), 1, "one action has overflowed: {logs:?}");
    logs.pop().unwrap()
}

/// Answers by outcome: completed, and rejected because their records are damaged.
async fn completed_and_damaged(controller: &mut Controller, answers: usize) -> (usize, usize) {
    let (mut completed, mut damaged) = (0, 0);
    for _ in 0..answers {
        let answer = controller.answer().await;
        match answer.outcome() {
            v1::Outcome::Completed => completed += 1,
            v1::Outcome::Rejected => {
                assert_eq!(rejection(&answer).0, v1::Reason::RecordDamaged);
                damaged += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    (completed, damaged)
}

/// Completes all that comes, as long as the test asks for answers.
fn serve(mut invoker: Invoker) {
    tokio::spawn(async move {
        loop {
            let dispatch = invoker.dispatch().await;
            invoker.complete(v1::Completion { credits: 1, ..completion(&dispatch) });
        }
    });
}

#[tokio::test]
async fn a_flipped_byte_is_answered_and_leaves_nothing_behind() {
    let folder = Folder::new("flipped");
    let small = folder.small();
    let mut router = started(|config| {
        small(config);
        config.drain_timeout_ms = 10_000;
    })
    .await;
    let mut controller = Controller::open(&router, "controller").await;
    controller.declare(1, "good");
    controller.push((0..40).map(|number| heavy(number, 1, 1_000)));
    router.metric_is("router_overflow_stored", |stored| stored == 30).await;
    let path = log(&folder);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // In place: the store has the file open.
    std::os::unix::fs::FileExt::write_all_at(
        &std::fs::OpenOptions::new().write(true).open(&path).unwrap(),
        &bytes[middle..=middle],
        middle as u64,
    )
    .unwrap();
    let invoker = Invoker::open(&router, "node").await;
    invoker.register(7, "good", 4);
    serve(invoker);
    assert_eq!(completed_and_damaged(&mut controller, 40).await, (39, 1));
    router.metric_is("router_overflow_stored", |stored| stored == 0).await;
    router.metric_is("router_overflow_lanes", |lanes| lanes == 0).await;
    router.metric_is("router_overflow_damaged_total", |damaged| damaged == 1).await;
    router.metric_is("router_activations_total{event=\"spill_damaged\"}", |damaged| damaged == 1).await;
    router.stop();
    assert_eq!(router.stopped().await, Left::default());
}

#[tokio::test]
async fn a_log_that_is_cut_in_half_or_gone_is_answered_record_by_record() {
    for gone in [false, true] {
        let folder = Folder::new(if gone { "gone" } else { "half" });
        let small = folder.small();
        let mut router = started(|config| {
            small(config);
            config.limits.action_queued_max = 200;
            config.drain_timeout_ms = 10_000;
        })
        .await;
        let mut controller = Controller::open(&router, "controller").await;
        controller.declare(1, "good");
        controller.push((0..1_000).map(|number| activation(number, 1)));
        router.metric_is("router_overflow_stored", |stored| stored == 800).await;
        let path = log(&folder);
        if gone {
            std::fs::remove_file(&path).unwrap();
        } else {
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }
        let invoker = Invoker::open(&router, "node").await;
        invoker.register(7, "good", 4);
        serve(invoker);
        let (completed, damaged) = completed_and_damaged(&mut controller, 1_000).await;
        assert!(if gone { completed == 200 } else { (550..650).contains(&completed) }, "{completed} completed");
        assert_eq!(completed + damaged, 1_000);
        router.metric_is("router_overflow_stored", |stored| stored == 0).await;
        router.stop();
        assert_eq!(router.stopped().await, Left::default());
    }
}

#[tokio::test]
async fn with_log_and_notes_gone_what_is_missing_is_counted_and_holds_up_nothing() {
    let folder = Folder::new("both-gone");
    let small = folder.small();
    let mut router = started(|config| {
        small(config);
        config.drain_timeout_ms = 10_000;
    })
    .await;
    let mut controller = Controller::open(&router, "controller").await;
    controller.declare(1, "good");
    controller.push((0..40).map(|number| activation(number, 1)));
    router.metric_is("router_overflow_stored", |stored| stored == 30).await;
    std::fs::remove_file(log(&folder)).unwrap();
    files(&folder, "notes").iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let mut invoker = Invoker::open(&router, "node").await;
    invoker.register(7, "good", 4);
    run(&mut invoker, 0..10).await;
    assert_eq!(completed_and_damaged(&mut controller, 10).await, (10, 0));
    router.metric_is("router_overflow_stored", |stored| stored == 0).await;
    router.metric_is("router_activations_total{event=\"spill_damaged\"}", |damaged| damaged == 30).await;
    router.metric_is("router_overflow_lanes", |lanes| lanes == 0).await;
    // It is an action like any other again.
    controller.push([activation(1_000, 1)]);
    run(&mut invoker, 1_000..1_001).await;
    assert_eq!(controller.answer().await.outcome(), v1::Outcome::Completed);
    router.stop();
    assert_eq!(router.stopped().await, Left::default());
}

#[tokio::test]
async fn an_action_that_shares_a_lane_does_not_wait_for_anothers_containers() {
    let folder = Folder::new("shared");
    let small = folder.small();
    let router = started(|config| {
        small(config);
        (config.overflow.lanes, config.limits.action_queued_max) = (1, 1);
    })
    .await;
    let mut controller = Controller::open(&router, "controller").await;
    controller.declare(1, "without containers");
    controller.declare(2, "good");
    controller.push((0..2).map(|number| activation(number, 1)));
    router.metric_is("router_overflow_stored", |stored| stored == 1).await;
    controller.push((10..30).map(|number| activation(number, 2)));
    router.metric_is("router_overflow_stored", |stored| stored == 20).await;
    let mut invoker = Invoker::open(&router, "node").await;
    invoker.register(7, "good", 1);
    run(&mut invoker, 10..30).await;
    assert_eq!(completed_and_damaged(&mut controller, 20).await, (20, 0));
    // And back: what the other one has there is still its own.
    invoker.register(8, "without containers", 1);
    run(&mut invoker, 0..2).await;
    assert_eq!(completed_and_damaged(&mut controller, 2).await, (2, 0));
    router.metric_is("router_overflow_lanes", |lanes| lanes == 0).await;
}

#[tokio::test]
async fn asking_a_restarted_router_leaves_what_is_durable_alone() {
    let folder = Folder::new("asked");
    let mut router = started(folder.small()).await;
    let mut controller = Controller::open(&router, "controller").await;
    let session = controller.welcome().await.session;
    controller.declare(1, "good");
    let fire = |number| v1::Activation { reply: v1::Reply::Accepted as i32, ..activation(number, 1) };
    controller.push((0..40).map(fire));
    router.metric_is("router_overflow_stored", |stored| stored == 30).await;
    router.stop();
    assert_eq!(router.stopped().await.stored, 30);

    let router = started(folder.small()).await;
    let hello = v1::ControllerHello { controller_id: "controller".into(), session };
    let outstanding: Vec<_> = (10..40).map(id).collect();
    let first = v1::PushRequest { hello: Some(hello), outstanding, ..Default::default() };
    let mut controller = Controller::open_with(connect(&router).await, first).await.unwrap();
    assert!(!controller.welcome().await.resumed);
    for number in 10..40 {
        let refusal = controller.refusal().await;
        assert_eq!(refused(&refusal), (v1::Reason::OutcomeUnknown, "outstanding".to_owned(), 0));
        assert_eq!(refusal.id, id(number));
    }
    let mut invoker = Invoker::open(&router, "node").await;
    invoker.register(7, "good", 4);
    run(&mut invoker, 10..40).await;
}

#[tokio::test]
async fn a_controller_that_missed_its_acknowledgement_hears_it_again() {
    let folder = Folder::new("acknowledged");
    let router = started(folder.small()).await;
    let mut controller = Controller::open(&router, "controller").await;
    let session = controller.welcome().await.session;
    controller.declare(1, "good");
    let fire = |number| v1::Activation { reply: v1::Reply::Accepted as i32, ..activation(number, 1) };
    controller.push((0..12).map(fire));
    for _ in 0..12 {
        assert_eq!(controller.answer().await.outcome(), v1::Outcome::Accepted);
    }
    // As if it had not heard: it takes its own session over.
    let hello = v1::ControllerHello { controller_id: "controller".into(), session };
    let outstanding = vec![id(3), id(11), id(77)];
    let first = v1::PushRequest { hello: Some(hello), outstanding, ..Default::default() };
    let mut again = Controller::open_with(connect(&router).await, first).await.unwrap();
    let mut heard = Vec::new();
    for _ in 0..3 {
        let answer = again.answer().await;
        heard.push((answer.id.clone(), answer.outcome(), answer.durability()));
    }
    heard.sort();
    let mut expected = vec![
        (id(3), v1::Outcome::Accepted, v1::Durability::Memory),
        (id(11), v1::Outcome::Accepted, v1::Durability::Durable),
        (id(77), v1::Outcome::Lost, v1::Durability::Unspecified),
    ];
    expected.sort();
    assert_eq!(heard, expected);
}
