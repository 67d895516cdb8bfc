//! One activation and its answer as a unary call: a stream of one, for callers without a stream.

use super::Service;
use super::convert::{self, status};
use super::push::Call;
use crate::driver::Driver;
use crate::outbox::{Entry, Outbox, Taken};
use engine::hub::Pass;
use engine::id::{ActivationId, StreamId};
use engine::input::Input;
use engine::outcome::{Answer, Outcome, Rejection};
use proto::v1;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tonic::Status;

/// Pushes one activation and waits for its answer. Cancel safe: dropped, the answer is dropped and counted.
pub(super) async fn invoke(service: &Arc<Service>, request: v1::InvokeRequest) -> Result<v1::InvokeResponse, Status> {
    let stream = service.streams.reserve();
    let outbox = service.streams.open_as(stream, service.outbox_bytes_max());
    let _open = Open { service, stream };
    push(service, stream, request).map_err(|rejection| status(&rejection))?;
    let answer = answered(&outbox).await.ok_or_else(|| Status::unavailable("the router is stopping"))?;
    match &answer.outcome {
        Outcome::Rejected(rejection) => Err(status(rejection)),
        _ => Ok(v1::InvokeResponse { answer: Some(convert::answer(answer)) }),
    }
}

fn push(service: &Arc<Service>, stream: StreamId, request: v1::InvokeRequest) -> Result<(), Rejection> {
    let mut pass = service.pass();
    let entered = enter(service, stream, request, &mut pass);
    if let Err(rejection) = &entered {
        pass.tally.rejected(rejection.reason);
    }
    service.hub.settle(&mut pass);
    entered
}

fn enter(
    service: &Service,
    stream: StreamId,
    request: v1::InvokeRequest,
    pass: &mut Pass<Driver>,
) -> Result<(), Rejection> {
    let v1::InvokeRequest { key, id, time_left_ms, payload, reply } = request;
    let v1::ActionKey { namespace, action, revision } = key.unwrap_or_default();
    let limits = service.hub.limits();
    let key = limits.check_key(&namespace, &action, &revision)?;
    let id = if id.is_empty() { service.make_id() } else { limits.check_id(&id)? };
    let _at_it = service.invokes.read();
    service.begin(pass);
    let push = Call { id, controller: stream, time_left_ms, payload, reply }.check(service, pass.now)?;
    let action = service.hub.declare(&key, pass)?;
    service.hub.enter(&action, &mut vec![Input::Push(push)], pass);
    Ok(())
}

/// The one answer that comes, or nothing if the stream is closed first.
async fn answered(outbox: &Outbox) -> Option<Answer> {
    let (line, mut hands) = (outbox.line(), VecDeque::new());
    loop {
        match poll_fn(|cx| outbox.poll_take(&line, cx, &mut hands)).await {
            Taken::Finished | Taken::Over => return None,
            Taken::Entries(_) => {}
        }
        let answer = hands.drain(..).find_map(|entry| match entry {
            Entry::Answer(answer) => Some(answer),
            Entry::Dispatch(_) | Entry::Drain(..) | Entry::Refuse(_) | Entry::Draining => None,
        });
        if answer.is_some() {
            return answer;
        }
    }
}

impl Service {
    /// An id for an activation that came without one.
    fn make_id(&self) -> ActivationId {
        let count = self.next_id.fetch_add(1, Ordering::Relaxed);
        ActivationId((u128::from(self.id_prefix) << 64 | u128::from(count)).to_be_bytes())
    }
}

/// Closes the stream of the call when it ends, however it ends.
struct Open<'a> {
    service: &'a Arc<Service>,
    stream: StreamId,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.service.streams.close(self.stream);
    }
}
