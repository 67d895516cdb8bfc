//! Registers a container that greets, runs ten activations (or as many as the second argument says), then leaves in order.
//! Ctrl-C makes it leave earlier.
//!
//! `cargo run --example invoker [ENDPOINT [ACTIVATIONS]]`, beside `activation-router serve` and the `controller` example.

use client::{ActionKey, Activation, ContainerSpec, Invoker};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let endpoint = arguments.next().unwrap_or("127.0.0.1:7400".to_owned());
    let activations: u32 = arguments.next().map_or(Ok(10), |activations| activations.parse())?;

    let invoker = Invoker::connect(&endpoint, "example-invoker").await?;
    let (ran, mut runs) = mpsc::unbounded_channel();
    let spec = ContainerSpec { key: ActionKey::new("guest", "hello", "1")?, concurrency: 4, warm: true };
    invoker.register(spec, move |activation: Activation| {
        let ran = ran.clone();
        async move {
            let greeting = format!("Hello, {}!", String::from_utf8_lossy(&activation.payload));
            println!("{}: {greeting}", activation.id);
            let _ = ran.send(());
            Ok(greeting.into())
        }
    })?;

    println!("ready for {activations} activations of guest/hello");
    for _ in 0..activations {
        tokio::select! {
            _ = runs.recv() => {}
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    invoker.drain().await;
    Ok(())
}
