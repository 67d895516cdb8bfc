//! The service as tonic serves it: which call goes where, with which limits. What `tonic-build` would generate, but that streams read and
//! write their bodies themselves.

mod bounded;
mod deadline;

use super::frames::Frames;
use super::wire::{Bounds, Incoming, Response};
use super::{Routes, invoke, pull, push};
use bounded::Bounded;
use deadline::Deadline;
use proto::v1;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::metadata::GRPC_CONTENT_TYPE;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// Serves the calls of `router.v1.Router`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Door {
    routes: Routes,
    bounds: Bounds,
    encoded_bytes_max: usize,
}

impl Door {
    /// Takes messages of at most `bytes_max` bytes, and about `entries_max` entries in a frame; sends none longer than
    /// `encoded_bytes_max`.
    pub fn new(routes: Routes, bytes_max: usize, entries_max: usize, encoded_bytes_max: usize) -> Self {
        Self { routes, bounds: Bounds { bytes_max, entries_max }, encoded_bytes_max }
    }

    fn grpc<C: tonic::codec::Codec>(&self, codec: C) -> Grpc<C> {
        Grpc::new(codec).apply_max_message_size_config(Some(self.bounds.bytes_max), Some(self.encoded_bytes_max))
    }
}

impl NamedService for Door {
    const NAME: &'static str = "router.v1.Router";
}

impl Service<http::Request<Body>> for Door {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Self { routes, bounds, .. } = self.clone();
        let door = self.clone();
        let deadline = Deadline::of(&request);
        Box::pin(deadline.keep(async move {
            match request.uri().path() {
                "/router.v1.Router/Push" => {
                    stream(Incoming::new(request, bounds), |inbound| push::open(routes.0, inbound)).await
                }
                "/router.v1.Router/Pull" => {
                    stream(Incoming::new(request, bounds), |inbound| pull::open(routes.0, inbound)).await
                }
                "/router.v1.Router/Invoke" => {
                    let request = request.map(|body| Body::new(Bounded::new(body, bounds.bytes_max)));
                    door.grpc(ProstCodec::default()).unary(Invoke(routes), request).await
                }
                _ => Status::unimplemented("router.v1.Router has Push, Pull and Invoke").into_http(),
            }
        }))
    }
}

/// The answer to a call that is to open a stream, unless its frames cannot be read.
async fn stream<I, O: Response + 'static, F: Future<Output = Result<Frames<O>, Status>>>(
    incoming: Result<Incoming<I>, Status>,
    open: impl FnOnce(Incoming<I>) -> F,
) -> http::Response<Body> {
    let opened = match incoming {
        Ok(inbound) => open(inbound).await,
        Err(status) => Err(status),
    };
    match opened {
        Ok(frames) => {
            let mut response = http::Response::new(Body::new(frames));
            response.headers_mut().insert(http::header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
            response
        }
        Err(status) => status.into_http(),
    }
}

struct Invoke(Routes);

impl UnaryService<v1::InvokeRequest> for Invoke {
    type Response = v1::InvokeResponse;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<v1::InvokeResponse>, Status>> + Send>>;

    fn call(&mut self, request: Request<v1::InvokeRequest>) -> Self::Future {
        let Routes(service) = self.0.clone();
        Box::pin(async move { invoke::invoke(&service, request.into_inner()).await.map(tonic::Response::new) })
    }
}
