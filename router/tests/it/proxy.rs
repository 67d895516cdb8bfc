//! A TCP proxy before the router that can fall silent (connections stay open and nothing passes, as when a cable is pulled) or
//! close its connections, as when a process dies. A stream that is merely dropped ends cleanly.

use crate::peers::within;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

/// A running proxy. Dropped, it passes nothing more.
pub(crate) struct Proxy {
    /// Where to connect.
    pub(crate) address: SocketAddr,
    manner: watch::Sender<Manner>,
}

#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Passing,
    Silent,
    Cut,
}

impl Proxy {
    /// Passes everything on to that address.
    pub(crate) async fn before(router: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (manner, watched) = watch::channel(Manner::Passing);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = tokio::net::TcpStream::connect(router).await.unwrap();
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                tokio::spawn(pass_on(near_in, far_out, watched.clone()));
                tokio::spawn(pass_on(far_in, near_out, watched.clone()));
            }
        });
        Self { address, manner }
    }

    /// Passes nothing on any more.
    pub(crate) fn fall_silent(&self) {
        self.manner.send_replace(Manner::Silent);
    }

    /// Closes all connections.
    pub(crate) fn cut(&self) {
        self.manner.send_replace(Manner::Cut);
    }

    /// A gRPC connection through it.
    pub(crate) async fn connect(&self) -> Channel {
        within("a connection", self.endpoint().connect()).await.unwrap()
    }

    /// One whose streams take in little ahead of their reader.
    pub(crate) async fn connect_narrow(&self) -> Channel {
        within("a connection", self.endpoint().initial_stream_window_size(65_535).connect()).await.unwrap()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap()
    }
}

async fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut manner: watch::Receiver<Manner>) {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            biased;
            _ = manner.wait_for(|manner| *manner != Manner::Passing) => break,
            read = from.read(&mut bytes) => read.unwrap_or(0),
        };
        if read == 0 || to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
    // Silent or without its proxy, both halves stay open.
    if manner.wait_for(|manner| *manner == Manner::Cut).await.is_err() {
        std::future::pending().await
    }
}
