//! What most tests begin with: a router, a controller, an invoker, and a container that runs what comes.

use crate::peers::{Controller, Invoker, activation, completion, pull_hello, push_hello};
use crate::proxy::Proxy;
use crate::router::Router;
use proto::v1;
use router::config::Config;

/// One of each. The controller knows the action `good` as [`GOOD`]; the invoker has a container of it.
pub(crate) struct Scene {
    pub(crate) controller: Controller,
    pub(crate) invoker: Invoker,
    next: u64,
    /// The connections of the controller and the node; dropping these ends them cleanly.
    pub(crate) lines: [Proxy; 2],
    /// Dropped last: it waits for its streams to end.
    pub(crate) router: Router,
}

/// The number of the action and of its container.
pub(crate) const GOOD: u32 = 0;
/// How many activations that container runs at once.
pub(crate) const CONCURRENCY: u32 = 4;

impl Scene {
    pub(crate) async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let router = Router::start(change);
        let lines = [Proxy::before(router.address).await, Proxy::before(router.address).await];
        let controller = Controller::open_with(lines[0].connect().await, push_hello("controller")).await.unwrap();
        let invoker = Invoker::open_with(lines[1].connect().await, pull_hello("node")).await.unwrap();
        controller.declare(GOOD, "good");
        invoker.register(GOOD, "good", CONCURRENCY);
        router.metric_is("router_containers", |n| n == 1).await;
        Self { controller, invoker, next: 1 << 32, lines, router }
    }

    /// A good activation, with an id of its own.
    pub(crate) fn good(&mut self) -> v1::Activation {
        self.next += 1;
        activation(self.next, GOOD)
    }

    /// Pushes a good activation and receives it at the container.
    pub(crate) async fn in_flight(&mut self) -> v1::Dispatch {
        let good = self.good();
        self.controller.push([good.clone()]);
        let dispatch = self.invoker.dispatch().await;
        assert_eq!((&dispatch.id, &dispatch.payload), (&good.id, &good.payload));
        dispatch
    }

    /// Waits for the one answer that is owed: how that activation ended well.
    pub(crate) async fn completed(&mut self, dispatch: &v1::Dispatch) {
        let answer = self.controller.answer().await;
        assert_eq!((&answer.id, answer.outcome()), (&dispatch.id, v1::Outcome::Completed), "{answer:?}");
    }

    /// Shows that both streams live and that nothing is left over: a good activation goes all the way.
    pub(crate) async fn round_trip(&mut self) {
        let dispatch = self.in_flight().await;
        self.invoker.complete(completion(&dispatch));
        self.completed(&dispatch).await;
    }
}
