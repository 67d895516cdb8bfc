//! The command line: what can be asked for, and what its flags set.
//!
//! This file may not check values: a flag's text goes into the configuration as it is, so that its fault is reported
//! with all others.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Faults, Setting};

/// The activation router: hands each function activation straight to a container that has room.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "activation-router", version, about, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// For `--help`; README.md has the same list.
const EXIT_CODES: &str = "\
Exit codes:
  0  done; for serve: drained, and nothing was left
  1  the store or a port could not be opened
  2  the command line or the configuration has faults
  3  serve: activations were left when the drain's time was over, or a second SIGTERM or SIGINT came
  4  serve: a part of the router ended or panicked; the log and /live name it";

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Serve until told to stop; works without any flag.
    Serve(Options),
    /// Print the configuration in effect as TOML, or every fault in it, without opening a port.
    CheckConfig(Options),
}

/// Flags that `serve` and `check-config` share. They win over the environment, which wins over the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Options {
    /// TOML file; activation-router.example.toml lists every key.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where controllers and invokers connect [default: 127.0.0.1:7400].
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Where /live, /ready and /metrics are [default: 127.0.0.1:7401].
    #[arg(long, value_name = "ADDRESS")]
    pub admin_listen: Option<String>,
    /// Threads that serve streams, 0 for half of the cores [default: 0].
    #[arg(long, value_name = "COUNT")]
    pub workers: Option<String>,
    /// Answer gRPC reflection; --reflection=false switches off what a file switched on.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub reflection: Option<String>,
    /// What to log, like info or info,h2=warn [default: info].
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// This process's name in answers, logs and metrics [default: router-0].
    #[arg(long, value_name = "NAME")]
    pub router_id: Option<String>,
}

impl Options {
    /// The configuration from the defaults, the file, this process's environment and these flags.
    ///
    /// # Errors
    /// Every fault found, see [`Config::load`].
    pub fn load(&self) -> Result<Config, Faults> {
        let environment = std::env::vars_os().filter_map(|(name, text)| Setting::from_variable(name, text));
        Config::load(self.config.as_deref(), environment.chain(self.settings()))
    }

    /// What the flags set, as the configuration's uppermost layer.
    pub fn settings(&self) -> impl Iterator<Item = Setting> {
        let flags = [
            ("--listen", "listen", &self.listen),
            ("--admin-listen", "admin_listen", &self.admin_listen),
            ("--workers", "workers", &self.workers),
            ("--reflection", "reflection", &self.reflection),
            ("--log", "log", &self.log),
            ("--router-id", "router_id", &self.router_id),
        ];
        flags.into_iter().filter_map(|(flag, key, text)| Some(Setting::from_flag(flag, key, text.as_deref()?)))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// What `serve` with these flags sets on top of the defaults.
    fn served(flags: &str) -> Result<Config, Faults> {
        let line = ["activation-router", "serve"].into_iter().chain(flags.split_whitespace());
        let Command::Serve(options) = Cli::parse_from(line).command else { panic!("serve was asked for") };
        Config::load(options.config.as_deref(), options.settings())
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn nothing_is_required() {
        assert_eq!(served(""), Ok(Config::default()));
    }

    #[test]
    fn every_flag_sets_its_key() {
        let flags =
            "--listen 127.0.0.1:0 --admin-listen [::1]:9 --workers 2 --reflection --log warn,h2=info --router-id r";
        let expected = Config {
            router_id: "r".to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            admin_listen: "[::1]:9".parse().unwrap(),
            workers: 2,
            reflection: true,
            log: "warn,h2=info".to_owned(),
            ..Config::default()
        };
        assert_eq!(served(flags), Ok(expected));
        assert_eq!(served("--reflection=false"), Ok(Config::default()));
    }

    #[test]
    fn faults_of_flags_come_at_once() {
        let faults = served("--listen here --workers many --config no-such.toml").unwrap_err();
        let keys: Vec<&str> = faults.as_slice().iter().map(|fault| fault.key.as_str()).collect();
        assert_eq!(keys, ["--config", "listen", "workers"]);
    }

    #[test]
    fn check_config_takes_the_same_flags() {
        let cli = Cli::parse_from(["activation-router", "check-config", "--workers", "3"]);
        let options = Options { workers: Some("3".to_owned()), ..Options::default() };
        assert_eq!(cli.command, Command::CheckConfig(options));
    }
}
