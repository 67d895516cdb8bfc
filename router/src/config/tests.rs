//! The configuration from its front door.

use super::check::leaves;
use super::rules::{RULES, Rule};
use super::*;
use figment::providers::{Format, Toml};
use figment::value::Value;

const EXAMPLE: &str = include_str!("../../activation-router.example.toml");

fn from_toml(toml: &str) -> Result<Config, Faults> {
    checked(&Figment::from(Serialized::defaults(Config::default())).merge(Toml::string(toml)), Vec::new())
}

/// Checks that loading `toml` reports exactly these `key: part of the bound`, in order.
fn check_faults(toml: &str, expected: &[(&str, &str)]) {
    let faults = from_toml(toml).expect_err(toml);
    let keys: Vec<&str> = faults.as_slice().iter().map(|fault| fault.key.as_str()).collect();
    assert_eq!(keys, expected.iter().map(|(key, _)| *key).collect::<Vec<_>>(), "{faults}");
    for (fault, (_, bound)) in faults.as_slice().iter().zip(expected) {
        assert!(fault.bound.contains(bound), "{fault} lacks {bound:?}");
    }
}

fn variable(name: &str, text: &str) -> Setting {
    Setting::from_variable(name, text).expect("one of ours")
}

#[test]
fn the_default_is_valid_and_reads_back_from_its_own_toml() {
    let config = Config::default();
    assert_eq!(config.validate(), Ok(()));
    assert_eq!(from_toml(&config.to_toml()), Ok(config));
}

#[test]
fn awkward_strings_read_back_too() {
    let log = r#"info,router[push{key="a\\b"}]=debug"#.to_owned();
    let config = Config { log, ..Config::default() };
    assert_eq!(from_toml(&config.to_toml()), Ok(config));
}

#[test]
fn the_rules_name_every_key() {
    let tree = Value::serialize(Config::default()).unwrap();
    let keys: Vec<String> = leaves("", &tree).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, RULES.iter().map(|(key, _)| (*key).to_owned()).collect::<Vec<_>>());
}

#[test]
fn the_example_is_the_default_and_names_every_key() {
    assert_eq!(from_toml(EXAMPLE), Ok(Config::default()));
    let tree = Figment::from(Toml::string(EXAMPLE)).find_value("").unwrap();
    let keys: Vec<String> = leaves("", &tree).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, RULES.iter().map(|(key, _)| (*key).to_owned()).collect::<Vec<_>>());
}

#[test]
fn bounds_fit_the_types() {
    let largest: Vec<String> = RULES
        .iter()
        .filter_map(|(key, rule)| match rule {
            Rule::Whole(bounds, _) => Some(format!("{key} = {}", bounds.end())),
            _ => None,
        })
        .collect();
    // Dotted keys stand for sections. Types too small would show as a fault of the whole, without a key.
    let largest = largest.join("\n");
    from_toml(&largest).expect("each upper bound is allowed, and together they are in order");
}

#[test]
fn all_faults_come_at_once() {
    check_faults(
        "router_id = ''\nlisten = '0.0.0.0:1'\nworkers = 257\nreflection = 'yes'\nlog = 'info,h2=loud'\n\
         drain_timeout_ms = -1\nidle_grace_ms = 1.5\nqueue_max = 3\nhttp2 = 7\n\
         [limits]\npayload_bytes_max = 3145729\nactions = 1\n[limit]\nactions_max = 1\n",
        &[
            ("router_id", "1 to 64"),
            ("listen", "no TLS or identity"),
            ("workers", "from 0 to 256"),
            ("reflection", "true or false"),
            ("log", "log filter"),
            ("drain_timeout_ms", "from 0 to 3600000"),
            ("idle_grace_ms", "whole number"),
            ("limits.payload_bytes_max", "from 1 to 3145728"),
            ("http2", "is a section"),
            ("limit", "no such key"),
            ("limits.actions", "no such key"),
            ("queue_max", "no such key"),
        ],
    );
}

#[cfg(feature = "kafka")]
#[test]
fn what_kafka_wants_is_wanted_only_where_it_is_chosen() {
    let wrong = "lanes = 1025\nkafka_brokers = ''\nkafka_topic = 'a topic'";
    for store in ["none", "disk"] {
        from_toml(&format!("[overflow]\nstore = '{store}'\ndirectory = 'there'\n{wrong}")).unwrap();
    }
    check_faults(
        &format!("workers = 257\n[overflow]\nstore = 'kafka'\n{wrong}\nrefill_records = 0"),
        &[
            ("workers", "from 0 to 256"),
            ("overflow.lanes", "from 1 to 1024 where overflow.store is \"kafka\""),
            ("overflow.refill_records", "from 1 to 65536"),
            ("overflow.kafka_brokers", "must be given where overflow.store is \"kafka\""),
            ("overflow.kafka_topic", "1 to 249 of A-Z a-z 0-9 . _ -, and not \".\" or \"..\" where overflow.store is"),
        ],
    );
    let rest = "[overflow]\nstore = 'kafka'\nkafka_brokers = 'one:9092'";
    from_toml(rest).unwrap();
    from_toml(&format!("{rest}\nlanes = 1024\nkafka_topic = '{}'", "a".repeat(249))).unwrap();
    check_faults(&format!("{rest}\nlanes = 0"), &[("overflow.lanes", "from 1 to 1024")]);
    for topic in ["", ".", "..", "a/b", "\u{e9}", &"a".repeat(250)] {
        check_faults(&format!("{rest}\nkafka_topic = '{topic}'"), &[("overflow.kafka_topic", "1 to 249")]);
    }
}

/// So that what is copied from the store here is what it refuses.
#[cfg(feature = "kafka")]
#[test]
fn kafka_itself_refuses_the_same() {
    use ::overflow::kafka::{Config, Kafka, OpenError};
    let refused = |config| match Kafka::open(config) {
        Err(OpenError::Setting { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    for topic in ["", ".", "..", "a/b", "\u{e9}", &"a".repeat(250)] {
        assert_eq!(refused(Config::new("one:9092", topic)), "topic");
    }
    for lanes in [0, 1025] {
        assert_eq!(refused(Config { lanes, ..Config::new("one:9092", "topic") }), "lanes");
    }
    assert_eq!(refused(Config::new("", "topic")), "servers");
}

#[cfg(not(feature = "kafka"))]
#[test]
fn a_store_that_this_build_lacks_is_a_fault() {
    check_faults(
        "workers = 257\n[overflow]\nstore = 'kafka'\nlanes = 1025",
        &[
            ("workers", "from 0 to 256"),
            ("overflow.store", "this build has no Kafka (feature kafka)"),
            ("overflow.lanes", "from 1 to 1024"),
            ("overflow.kafka_brokers", "must be given"),
        ],
    );
}

#[test]
fn a_store_that_nobody_knows_is_told_from_those_of_this_build() {
    let stores = if cfg!(feature = "kafka") { "none, disk, kafka" } else { "none, disk" };
    let bound = format!("must be one of {stores}");
    assert_eq!(from_toml("[overflow]\nstore = 'disc'").unwrap_err().as_slice()[0].bound, bound);
}

#[test]
fn what_the_disk_store_wants_is_wanted_only_where_it_is_chosen() {
    // 4 slots of 4 KiB for each lane's mark; the headers of a file and of a record, 76 and 32; the note beside it, 36; names, numbers and
    // the seal, 4 KiB.
    let least: u64 = 4096 * 16_384 + 76 + 32 + 36 + 1_054_644 + 4_096;
    let with = |store: &str, bytes: u64| {
        format!("[overflow]\nstore = '{store}'\ndirectory = 'there'\nlanes = 4096\nstore_bytes_max = {bytes}")
    };
    from_toml(&with("disk", least)).unwrap();
    from_toml(&with("none", least - 1)).unwrap();
    let bound = format!("must be at least {least}, for the marks and one record, where overflow.store is \"disk\"");
    check_faults(&with("disk", least - 1), &[("overflow.store_bytes_max", bound.as_str())]);
    check_faults(
        "workers = 257\n[limits]\nframe_bytes_max = 100000\n\
         [overflow]\nstore = 'disk'\nlanes = 257\nstore_bytes_max = 4194304",
        &[
            ("workers", "from 0 to 256"),
            ("overflow.directory", "must be given where overflow.store is \"disk\""),
            ("limits.frame_bytes_max", "at least 1120180"),
            ("overflow.store_bytes_max", "at least 5269572, for the marks and one record"),
        ],
    );
    // One cause, one fault.
    let disk = "[overflow]\nstore = 'disk'\ndirectory = 'there'\nstore_bytes_max";
    check_faults(&format!("{disk} = 1"), &[("overflow.store_bytes_max", "from 4194304 to")]);
    check_faults(&format!("{disk} = 4194304\nlanes = 65536"), &[("overflow.lanes", "from 1 to 4096")]);
}

#[test]
fn values_at_odds_are_refused() {
    check_faults(
        "[limits]\nframe_bytes_max = 1120179\naction_queued_bytes_max = 1\nrouter_queued_max = 999999\n\
         outbox_bytes_max = 1120178",
        &[
            ("limits.frame_bytes_max", "at least 1120180, limits.payload_bytes_max + 65536"),
            ("limits.action_queued_bytes_max", "at least 1054900, limits.payload_bytes_max + 256"),
            ("limits.router_queued_max", "at least 1000000"),
            ("limits.outbox_bytes_max", "at least 1120179"),
        ],
    );
    check_faults(
        "[limits]\naction_queued_bytes_max = 2147483649",
        &[
            ("limits.tenant_queued_bytes_max", "at least 2147483649"),
            ("limits.router_queued_bytes_max", "at least 2147483649"),
        ],
    );
    check_faults("[http2]\nconnection_window_bytes = 8388607", &[("http2.connection_window_bytes", "small frames")]);
}

#[test]
fn a_value_wrong_by_itself_is_not_compared() {
    check_faults("[limits]\npayload_bytes_max = 9000000", &[("limits.payload_bytes_max", "3145728")]);
}

#[test]
fn ports_may_both_be_chosen_by_the_system_but_not_be_equal() {
    from_toml("listen = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'").unwrap();
    from_toml("listen = '127.0.0.1:7'\nadmin_listen = '[::1]:7'").unwrap();
    check_faults("admin_listen = '127.0.0.1:7400'", &[("admin_listen", "differ from listen")]);
    check_faults("listen = 'localhost:7400'", &[("listen", "IP address and a port")]);
}

#[test]
fn later_settings_win() {
    let settings = [
        variable("ACTIVATION_ROUTER_WORKERS", "3"),
        variable("ACTIVATION_ROUTER_ROUTER_ID", "7"),
        variable("ACTIVATION_ROUTER_LIMITS__ACTIONS_MAX", "5"),
        variable("ACTIVATION_ROUTER_REFLECTION", "true"),
        Setting::from_flag("--workers", "workers", "4"),
    ];
    let config = Config::load(None, settings).unwrap();
    assert_eq!((config.workers, config.router_id.as_str(), config.reflection), (4, "7", true));
    assert_eq!(config.limits, Limits { actions_max: 5, ..Limits::default() });
}

#[test]
fn a_file_is_read_once_so_a_pipe_will_do() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let at = fifo.clone();
    let writer = std::thread::spawn(move || std::fs::write(at, "workers = 3\nqueue = 1\n[limits]\nactions_max = 0\n"));
    let faults = Config::load(Some(&fifo), []).unwrap_err();
    writer.join().unwrap().unwrap();
    let told: Vec<(&str, &str)> = faults.as_slice().iter().map(|fault| (&*fault.key, &*fault.origin)).collect();
    let origin = format!("file {}", fifo.display());
    assert_eq!(told, [("limits.actions_max", &*origin), ("queue", &*origin)]);
    let at = fifo.clone();
    let writer = std::thread::spawn(move || std::fs::write(at, "workers = 3"));
    assert_eq!(Config::load(Some(&fifo), []).unwrap().workers, 3);
    writer.join().unwrap().unwrap();
}

#[test]
fn a_file_that_is_none_is_one_fault_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("nobody-writes");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let latin = folder.path().join("latin.toml");
    std::fs::write(&latin, b"# caf\xe9").unwrap();
    for (path, why) in [
        (folder.path(), "directory"),
        (&*fifo, "is there a writer?"),
        (&*latin, "not UTF-8 in line 1"),
        (Path::new("/dev/zero"), "more than 1048576 bytes"),
    ] {
        let faults = Config::load(Some(path), []).unwrap_err();
        let [fault] = faults.as_slice() else { panic!("{faults}") };
        assert_eq!((&*fault.key, &*fault.value), ("--config", &*format!("{path:?}")));
        assert!(fault.bound.contains(why), "{fault}");
    }
}

#[test]
fn numbers_and_switches_are_no_other_kind_of_value() {
    for (toml, value, bound) in [
        ("workers = 2.0", "2.0", "must be a whole number from 0 to 256"),
        ("workers = 1e2", "100.0", "must be a whole number"),
        ("workers = nan", "nan", "must be a whole number"),
        ("workers = -inf", "-inf", "must be a whole number"),
        ("workers = '2'", "\"2\"", "must be a whole number"),
        ("workers = true", "true", "must be a whole number"),
        ("reflection = 'true'", "\"true\"", "must be true or false"),
        ("reflection = 1", "1", "must be true or false"),
        ("reflection = 1.0", "1.0", "must be true or false"),
        ("router_id = 7", "7", "must be a string"),
        ("log = 1979-05-27", "{ … }", "must be a string"),
    ] {
        let faults = from_toml(toml).expect_err(toml);
        let [fault] = faults.as_slice() else { panic!("{faults}") };
        assert_eq!(fault.value, value, "{fault}");
        assert!(fault.bound.starts_with(bound), "{fault}");
    }
    for text in ["2.0", "1e1", "", " 2", "0x2"] {
        let faults = Config::load(None, [variable("ACTIVATION_ROUTER_WORKERS", text)]).unwrap_err();
        assert_eq!(faults.as_slice()[0].value, format!("{text:?}"));
    }
}

#[test]
fn a_quoted_key_is_shown_with_its_quotes() {
    check_faults(
        "\"limits.actions_max\" = 7",
        &[("\"limits.actions_max\"", "in quotes the dot is a part of the name")],
    );
    check_faults("[limits]\n\"actions.max\" = 7", &[("limits.\"actions.max\"", "there is no such key")]);
    check_faults("\"\" = 7", &[("\"\"", "there is no such key")]);
    let forged = from_toml("\"a\\n  workers = 3: good\" = 7").unwrap_err().to_string();
    assert_eq!(forged.lines().count(), 2, "{forged}");
    from_toml("\"workers\" = 7").unwrap();
}

#[test]
fn ports_that_are_equal_blame_a_key_that_was_set() {
    let flag = |key: &'static str, text| {
        Setting::from_flag(if key == "listen" { "--listen" } else { "--admin-listen" }, key, text)
    };
    let told = |settings: Vec<Setting>| Config::load(None, settings).unwrap_err().as_slice()[0].to_string();
    assert_eq!(
        told(vec![flag("listen", "127.0.0.1:7401")]),
        "listen = \"127.0.0.1:7401\": must differ from admin_listen (admin_listen = \"127.0.0.1:7401\" [built in]) [flag --listen]"
    );
    assert_eq!(
        told(vec![flag("admin_listen", "127.0.0.1:7400")]),
        "admin_listen = \"127.0.0.1:7400\": must differ from listen (listen = \"127.0.0.1:7400\" [built in]) [flag --admin-listen]"
    );
    let other = told(vec![variable("ACTIVATION_ROUTER_LIMITS__ACTION_QUEUED_MAX", "3000000")]);
    let from =
        "(limits.action_queued_max = 3000000 [environment variable ACTIVATION_ROUTER_LIMITS__ACTION_QUEUED_MAX])";
    assert!(other.starts_with("limits.tenant_queued_max = 2000000: ") && other.contains(from), "{other}");
}

#[test]
fn a_fault_says_where_it_came_from() {
    let settings = [
        variable("ACTIVATION_ROUTER_HTTP2__WRITE_STALL_MS", "10s"),
        Setting::from_flag("--listen", "listen", "10.0.0.1:1"),
    ];
    let faults = Config::load(Some(Path::new("no-such.toml")), settings).unwrap_err();
    let report = faults.to_string();
    let expected = [
        "the configuration has 3 faults:",
        "--config = \"no-such.toml\": must be a readable TOML file",
        "listen = \"10.0.0.1:1\": must be a loopback address: there is no TLS or identity yet [flag --listen]",
        "http2.write_stall_ms = \"10s\": must be a whole number from 1000 to 600000 \
         [environment variable ACTIVATION_ROUTER_HTTP2__WRITE_STALL_MS]",
    ];
    for line in expected {
        assert!(report.contains(line), "{report}\nlacks {line}");
    }
}

#[test]
fn a_fault_in_a_file_names_the_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let faults = Config::load(Some(&path), []).unwrap_err();
    assert!(faults.as_slice().iter().all(|fault| fault.origin.ends_with("Cargo.toml")), "{faults}");
}

#[test]
fn a_file_that_is_not_toml_is_one_fault_with_its_place() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/mod.rs");
    let faults = Config::load(Some(&path), [Setting::from_flag("--log", "log", "a=b=c")]).unwrap_err();
    let keys: Vec<&str> = faults.as_slice().iter().map(|fault| fault.key.as_str()).collect();
    assert_eq!(keys, ["--config", "log"]);
    assert!(faults.as_slice()[0].bound.contains("line 1, column 1"), "{faults}");
}

/// What Kubernetes puts into the environment of each container for a Service of that name.
fn of_a_service(name: &str) -> Vec<(String, &'static str)> {
    let name = name.to_ascii_uppercase().replace('-', "_");
    let with = |(shape, text): (&str, &'static str)| (format!("{name}_{shape}"), text);
    [
        ("SERVICE_HOST", "10.0.0.11"),
        ("SERVICE_PORT", "7401"),
        ("SERVICE_PORT_HTTP_ADMIN", "7401"),
        ("PORT", "tcp://10.0.0.11:7401"),
        ("PORT_7401_TCP", "tcp://10.0.0.11:7401"),
        ("PORT_7401_TCP_PROTO", "tcp"),
        ("PORT_7401_TCP_PORT", "7401"),
        ("PORT_7401_TCP_ADDR", "10.0.0.11"),
        ("PORT_53_UDP", "udp://10.0.0.11:53"),
        ("PORT_53_SCTP_ADDR", "10.0.0.11"),
    ]
    .map(with)
    .to_vec()
}

#[test]
fn services_of_kubernetes_are_passed_over() {
    assert_eq!(Setting::from_variable("PATH", "x"), None);
    for service in [
        "activation-router",
        "activation-router-admin",
        "activation-router-a--b",
        "activation-router-limits",
        "activation-router-service-port",
        "activation-router-port-80",
    ] {
        for (name, text) in of_a_service(service) {
            assert_eq!(Setting::from_variable(&name, text), None, "{name}");
        }
    }
}

#[test]
fn what_only_looks_like_a_service_is_a_fault() {
    for (name, key) in [
        ("LISTEN_ON", "listen_on"),
        ("ADMIN_PORTS", "admin_ports"),
        ("ADMIN_PORT_HTTP", "admin_port_http"),
        ("PORT_70000_TCP", "port_70000_tcp"),
        ("PORT_80_TCP_NAME", "port_80_tcp_name"),
        ("PORT_80_HTTP", "port_80_http"),
        ("SERVICE_HOSTS", "service_hosts"),
        ("SERVICE_PORTS", "service_ports"),
        ("LIMITS__ACTION_MAX", "limits.action_max"),
    ] {
        let faults = Config::load(None, [variable(&format!("ACTIVATION_ROUTER_{name}"), "1")]).unwrap_err();
        let [fault] = faults.as_slice() else { panic!("{faults}") };
        assert_eq!((&*fault.key, &*fault.bound), (key, "there is no such key"));
        assert_eq!(fault.origin, format!("environment variable ACTIVATION_ROUTER_{name}"));
    }
}

#[test]
fn a_variable_with_a_stray_underscore_is_named() {
    for name in ["", "_LISTEN", "LISTEN_", "__LISTEN", "LISTEN__", "LIMITS___ACTIONS_MAX", "LIMITS__", "_", "__"] {
        let name = format!("ACTIVATION_ROUTER_{name}");
        let faults = Config::load(None, [variable(&name, "127.0.0.1:0")]).unwrap_err();
        let [fault] = faults.as_slice() else { panic!("{name}: {faults}") };
        assert_eq!((&fault.key, fault.origin.as_str()), (&name, &*format!("environment variable {name}")));
    }
}

#[test]
fn a_variable_that_is_not_utf_8_is_named() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let text = OsStr::from_bytes(b"caf\xe9");
    let setting = Setting::from_variable("ACTIVATION_ROUTER_ROUTER_ID", text).unwrap();
    let name = Setting::from_variable(OsStr::from_bytes(b"ACTIVATION_ROUTER_LISTEN\xe9"), "x").unwrap();
    assert_eq!(Setting::from_variable("OTHERS", text), None);
    let faults = Config::load(None, [setting, name]).unwrap_err();
    let told: Vec<(&str, &str)> = faults.as_slice().iter().map(|fault| (&*fault.key, &*fault.bound)).collect();
    assert_eq!(
        told,
        [("router_id", "must be UTF-8"), ("ACTIVATION_ROUTER_LISTEN\u{fffd}", "the variable's name must be UTF-8")]
    );
}

#[test]
fn workers_are_chosen_if_not_given() {
    assert!((1..=WORKERS_MAX).contains(&Config::default().workers_chosen()));
    assert_eq!(Config { workers: 3, ..Config::default() }.workers_chosen(), 3);
}
