//! What the router announces on a connection before anything else.

use crate::peers::within;
use crate::router::Router;
use std::collections::HashMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// HTTP/2's numbers for what is announced.
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_HEADER_LIST_SIZE: u16 = 6;

#[tokio::test]
async fn a_connection_is_told_its_limits() {
    let router = Router::start(|_| ());
    let mut socket = TcpStream::connect(router.address).await.unwrap();
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let settings = within("the SETTINGS frame", settings(&mut socket)).await;
    assert_eq!(settings.get(&MAX_CONCURRENT_STREAMS), Some(&128));
    assert_eq!(settings.get(&INITIAL_WINDOW_SIZE), Some(&(1 << 20)));
    assert_eq!(settings.get(&MAX_HEADER_LIST_SIZE), Some(&8192));
}

/// The first frame, which must be SETTINGS.
async fn settings(socket: &mut TcpStream) -> HashMap<u16, u32> {
    let mut head = [0; 9];
    socket.read_exact(&mut head).await.unwrap();
    let [_, high, low, kind, flags, ..] = head;
    assert_eq!((kind, flags), (4, 0), "a SETTINGS frame, no acknowledgement");
    let mut body = vec![0; usize::from(u16::from_be_bytes([high, low]))];
    socket.read_exact(&mut body).await.unwrap();
    let entry = |entry: &[u8]| {
        (u16::from_be_bytes([entry[0], entry[1]]), u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]))
    };
    body.chunks_exact(6).map(entry).collect()
}
