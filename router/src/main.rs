//! `activation-router`: reads its configuration, opens its ports, serves, drains.

use clap::Parser;
use router::cli::{Cli, Command};
use router::output;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let (Command::Serve(options) | Command::CheckConfig(options)) = &command;
    let config = match options.load() {
        Ok(config) => config,
        Err(faults) => {
            output::complain(&format!("{faults}\n"));
            return ExitCode::from(2);
        }
    };
    match command {
        Command::CheckConfig(_) => {
            output::say(&config.to_toml());
            ExitCode::SUCCESS
        }
        Command::Serve(_) => router::serve(config),
    }
}
