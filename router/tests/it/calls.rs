//! Calls as a whole: the deadline that gRPC gives them, and how long their messages may be.

use crate::peers::{connect, key, within};
use crate::router::Router;
use prost::Message;
use proto::v1;
use proto::v1::router_client::RouterClient;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tonic::codegen::http;
use tonic::{Code, Status};

/// A call with the header `grpc-timeout` by a client that does not keep that time itself, as
/// tonic's does; how it ended.
async fn call(router: SocketAddr, method: &str, timeout: &str, message: Option<v1::InvokeRequest>) -> Status {
    let socket = TcpStream::connect(router).await.unwrap();
    let (mut client, connection) = h2::client::handshake(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let call = http::Request::post(format!("http://it/router.v1.Router/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", timeout)
        .body(())
        .unwrap();
    let (response, mut body) = client.send_request(call, false).unwrap();
    if let Some(message) = message {
        let framed = proto::wire::message::message(message.encoded_len(), |to| message.encode_raw(to));
        body.send_data(framed, true).unwrap();
    }
    let response = within("the response", response).await.unwrap();
    connection.abort();
    Status::from_header_map(response.headers()).expect("a response without a body")
}

fn request() -> v1::InvokeRequest {
    v1::InvokeRequest { key: Some(key("without containers")), time_left_ms: 60_000, ..Default::default() }
}

#[tokio::test]
async fn a_call_past_its_deadline_hears_so_and_what_it_invoked_stays_queued() {
    let router = Router::start(|_| ());
    let begun = Instant::now();
    let ended = call(router.address, "Invoke", "200m", Some(request())).await;
    assert_eq!(ended.code(), Code::DeadlineExceeded, "{ended:?}");
    assert!(ended.message().contains("grpc-timeout"), "{ended:?}");
    assert!((Duration::from_millis(180)..Duration::from_secs(2)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(router.metric("router_queue_depth").await, 1);
    // A stream that its peer does not open in that time.
    for method in ["Push", "Pull"] {
        assert_eq!(call(router.address, method, "100m", None).await.code(), Code::DeadlineExceeded, "{method}");
    }
}

#[tokio::test]
async fn a_call_that_is_too_long_hears_the_name_of_the_limit_and_its_value() {
    let router = Router::start(|_| ());
    let request = v1::InvokeRequest { payload: vec![0; 5 << 20].into(), ..request() };
    let bytes = request.encoded_len();
    let refused = RouterClient::new(connect(&router).await).invoke(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    assert_eq!(refused.message(), format!("call: {bytes} bytes, at most 4194304 are taken (frame_bytes_max)"));
}
