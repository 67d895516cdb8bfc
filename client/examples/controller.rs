//! Invokes an action ten times and prints how each activation ended and how long its stages took.
//!
//! `cargo run --example controller [ENDPOINT]`, beside `activation-router serve` and the `invoker` example.

use bytes::Bytes;
use client::{ActionKey, Controller};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = std::env::args().nth(1).unwrap_or("127.0.0.1:7400".to_owned());
    let controller = Controller::connect(&endpoint, "example-controller").await?;
    let hello = ActionKey::new("guest", "hello", "1")?;
    for name in ["Ada", "Alan", "Barbara", "Donald", "Edsger", "Grace", "John", "Ken", "Leslie", "Tony"] {
        let answer = controller.invoke(&hello, Bytes::from(name), Duration::from_secs(5)).await;
        let (stages, outcome) = (answer.stages, answer.outcome);
        println!("{outcome:?}: queued {:?}, way {:?}, run {:?}", stages.queue, stages.dispatch, stages.run);
    }
    Ok(())
}
