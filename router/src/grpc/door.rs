//! The service as tonic serves it: which call goes where, with which codec and limits. What `tonic-build` would generate, but for the
//! codec of the streams.

use super::wire::FrameCodec;
use super::{Routes, invoke, pull, push};
use proto::v1;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Service, StdError, http};
use tonic::server::{Grpc, NamedService, StreamingService, UnaryService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// Serves the calls of `router.v1.Router`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Door {
    routes: Routes,
    decoded_bytes_max: usize,
    encoded_bytes_max: usize,
}

type Called<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;

impl Door {
    /// Takes messages of at most `decoded_bytes_max` bytes and sends none longer than `encoded_bytes_max`.
    pub fn new(routes: Routes, decoded_bytes_max: usize, encoded_bytes_max: usize) -> Self {
        Self { routes, decoded_bytes_max, encoded_bytes_max }
    }

    fn grpc<C: tonic::codec::Codec>(&self, codec: C) -> Grpc<C> {
        Grpc::new(codec).apply_max_message_size_config(Some(self.decoded_bytes_max), Some(self.encoded_bytes_max))
    }
}

impl NamedService for Door {
    const NAME: &'static str = "router.v1.Router";
}

impl<B> Service<http::Request<B>> for Door
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let door = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/router.v1.Router/Push" => {
                    door.grpc(FrameCodec::default()).streaming(Push(door.routes), request).await
                }
                "/router.v1.Router/Pull" => {
                    door.grpc(FrameCodec::default()).streaming(Pull(door.routes), request).await
                }
                "/router.v1.Router/Invoke" => {
                    door.grpc(ProstCodec::default()).unary(Invoke(door.routes), request).await
                }
                _ => Status::unimplemented("router.v1.Router has Push, Pull and Invoke").into_http(),
            })
        })
    }
}

struct Push(Routes);

impl StreamingService<push::Frame> for Push {
    type Response = push::Out;
    type ResponseStream = push::Answers;
    type Future = Called<Response<push::Answers>>;

    fn call(&mut self, request: Request<Streaming<push::Frame>>) -> Self::Future {
        let Routes(service) = self.0.clone();
        Box::pin(async move { push::open(service, request.into_inner()).await.map(Response::new) })
    }
}

struct Pull(Routes);

impl StreamingService<pull::Frame> for Pull {
    type Response = pull::Out;
    type ResponseStream = pull::Work;
    type Future = Called<Response<pull::Work>>;

    fn call(&mut self, request: Request<Streaming<pull::Frame>>) -> Self::Future {
        let Routes(service) = self.0.clone();
        Box::pin(async move { pull::open(service, request.into_inner()).await.map(Response::new) })
    }
}

struct Invoke(Routes);

impl UnaryService<v1::InvokeRequest> for Invoke {
    type Response = v1::InvokeResponse;
    type Future = Called<Response<v1::InvokeResponse>>;

    fn call(&mut self, request: Request<v1::InvokeRequest>) -> Self::Future {
        let Routes(service) = self.0.clone();
        Box::pin(async move { invoke::invoke(&service, request.into_inner()).await.map(Response::new) })
    }
}
