//! The configuration from its front door.

use super::check::leaves;
use super::rules::{RULES, Rule};
use super::*;
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

#[test]
fn strangers_in_the_environment_are_passed_over() {
    for name in ["PATH", "ACTIVATION_ROUTER_SERVICE_HOST", "ACTIVATION_ROUTER_PORT_7400_TCP", "ACTIVATION_ROUTER_PORT"]
    {
        assert_eq!(Setting::from_variable(name, "x"), None, "{name}");
    }
    let faults = Config::load(None, [variable("ACTIVATION_ROUTER_LISTEN_ON", "x")]).unwrap_err();
    assert_eq!(faults.as_slice()[0].bound, "there is no such key");
}

#[test]
fn workers_are_chosen_if_not_given() {
    assert!((1..=WORKERS_MAX).contains(&Config::default().workers_chosen()));
    assert_eq!(Config { workers: 3, ..Config::default() }.workers_chosen(), 3);
}
