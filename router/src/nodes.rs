//! The invoker nodes' sessions: who is there, which containers each has, and what becomes of them when its stream ends. As with
//! [controllers](crate::controllers), only the reader of a stream says that it ended.
//!
//! ```text
//!   stream breaks ─▶ suspend each container ─▶ dispatches that never left: back into their queues ─▶ grace
//!                                                                    back in time: rejoin ◀──┴──▶ over: gone, LOST
//! ```
//!
//! The grace is over, too, when a node of that name begins another session: whoever had the first one is not there any more.

use crate::driver::{Driver, Streams};
use crate::outbox::{Line, Outbox};
use engine::container::ContainerKey;
use engine::hub::{Action, Hub, Pass};
use engine::id::{NodeName, StreamId};
use engine::input::Input;
use engine::outcome::{Reason, Rejection};
use engine::roster::Roster;
use engine::sessions::{Attachment, Bounds, Counts, End, Ended, Hello, Sessions, Token};
use engine::time::Timestamp;
use parking_lot::Mutex;
use std::hash::BuildHasher;
use std::sync::Arc;

/// All of them.
#[derive(Debug)]
pub struct Nodes {
    sessions: Mutex<Sessions<Arc<Node>>>,
    streams: Arc<Streams>,
    outbox_bytes_max: usize,
    containers_max: u32,
    /// Draws the tokens' secrets: a keyed hash of numbers that are used once.
    secrets: std::hash::RandomState,
}

/// One session.
#[derive(Debug)]
pub struct Node {
    /// The engine's name for it.
    pub stream: StreamId,
    /// The node's name, the same in all of the node's sessions.
    pub name: NodeName,
    /// What waits for its writer.
    pub outbox: Arc<Outbox>,
    /// Held while a frame is handled, and while the containers are suspended, taken back or taken off.
    pub crew: Mutex<Crew>,
}

/// What the session's stream has registered.
#[derive(Debug)]
pub struct Crew {
    /// The stream whose frames count.
    pub attachment: Attachment,
    /// The containers.
    pub roster: Roster<Member>,
}

/// A container of a node.
#[derive(Debug)]
pub struct Member {
    /// What it runs.
    pub action: Arc<Action>,
    /// Its name there.
    pub key: ContainerKey,
    /// As it was registered.
    pub concurrency: u32,
    /// It was told that the router, which drains, has no more use for it.
    pub told_of_drain: bool,
}

/// An open stream of a session.
#[derive(Debug)]
pub struct Opened {
    /// The session.
    pub node: Arc<Node>,
    /// The stream.
    pub line: Arc<Line>,
    /// What names the session.
    pub token: Token,
    /// It went on.
    pub resumed: bool,
}

impl Nodes {
    /// None yet. `life` is drawn at random.
    pub fn new(life: u64, bounds: Bounds, streams: Arc<Streams>, outbox_bytes_max: usize, containers_max: u32) -> Self {
        let secrets = std::hash::RandomState::new();
        Self { sessions: Mutex::new(Sessions::new(life, bounds)), streams, outbox_bytes_max, containers_max, secrets }
    }

    /// A node of that name opens a stream, with the token of the session it wants back, or none.
    ///
    /// # Errors
    /// [`Reason::RouterFull`] with `sessions_max`
    pub fn hello(
        &self,
        name: &NodeName,
        token: &[u8],
        hub: &Hub,
        pass: &mut Pass<Driver>,
    ) -> Result<Opened, Rejection> {
        loop {
            let fresh = self.streams.reserve();
            let secret = self.secrets.hash_one(fresh.0);
            let hello =
                self.sessions.lock().hello(name.as_str().as_bytes(), token, fresh, secret, || self.open(fresh, name));
            match hello {
                Hello::New { token, held: node, .. } => {
                    // It came back without what it had: that is gone, and its breaker is to know before it gets more.
                    let parked = self.sessions.lock().forget_parked(name.as_str().as_bytes());
                    parked.iter().for_each(|before| self.remove(before, hub, pass));
                    let line = node.outbox.line();
                    return Ok(Opened { node, line, token, resumed: false });
                }
                Hello::Resumed { token, held: node, attachment, .. } => {
                    if let Some(line) = node.attach(attachment, hub, pass) {
                        return Ok(Opened { node, line, token, resumed: true });
                    }
                    if !node.outbox.is_closed() {
                        // Yet another stream took it over just now.
                        return Err(Rejection::new(Reason::Repeated, "hello.session", 0));
                    }
                    // More refusals piled up than it may hold.
                    self.sessions.lock().forget(node.stream);
                    self.remove(&node, hub, pass);
                }
                Hello::Refused(rejection) => return Err(rejection),
            }
        }
    }

    /// The node of that stream has said its last word: nothing more is dispatched to it, and its stream ends once what was taken
    /// is written.
    pub fn leaving(&self, node: &Node, line: &Line, hub: &Hub, pass: &mut Pass<Driver>) {
        let mut crew = node.crew.lock();
        if crew.attachment == line.attachment() {
            node.take_back(&mut crew, hub, pass);
            node.outbox.finish();
        }
    }

    /// A session's stream ended. True if the session waits for its node now.
    pub fn ended(&self, node: &Node, line: &Line, how: End, hub: &Hub, pass: &mut Pass<Driver>) -> bool {
        let attachment = line.attachment();
        let ended = self.sessions.lock().ended(node.stream, attachment, how, pass.now);
        match ended {
            Ended::Parked(_) => {
                let mut crew = node.crew.lock();
                // Unless the next stream was quicker, which has seen to it.
                let parked = node.outbox.park(attachment);
                if parked {
                    node.take_back(&mut crew, hub, pass);
                }
                parked
            }
            Ended::Over => {
                self.remove(node, hub, pass);
                false
            }
            Ended::Stale => false,
        }
    }

    /// Ends the sessions whose grace is over: their containers are gone. Returns how many.
    pub fn end_due(&self, hub: &Hub, pass: &mut Pass<Driver>) -> usize {
        let due = self.sessions.lock().due(pass.now);
        due.iter().for_each(|(_, node)| self.remove(node, hub, pass));
        due.len()
    }

    /// Ends the sessions that wait for their nodes. For a router that ends, once nothing is in flight.
    pub fn end_parked(&self, hub: &Hub, pass: &mut Pass<Driver>) {
        let parked = self.sessions.lock().due(Timestamp::NEVER);
        parked.iter().for_each(|(_, node)| self.remove(node, hub, pass));
    }

    /// When the next session's grace is over.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.sessions.lock().next_due()
    }

    /// Retires each container whose action has nothing queued and nothing in flight, and so tells its node. For a router that
    /// drains and takes nothing new: one that hands something back has a container to go to.
    pub fn retire_quiet(&self, hub: &Hub, pass: &mut Pass<Driver>) {
        for node in self.all() {
            for member in node.crew.lock().roster.iter_mut().filter(|member| !member.told_of_drain) {
                member.told_of_drain = hub.retire_if_quiet(&member.action, member.key, pass);
            }
        }
    }

    /// Sessions there are, those of them parked, and what became of all.
    pub fn counts(&self) -> (usize, usize, Counts) {
        let sessions = self.sessions.lock();
        (sessions.len(), sessions.parked(), sessions.counts())
    }

    /// How long a session waits for its node.
    pub fn grace(&self) -> std::time::Duration {
        self.sessions.lock().bounds().grace
    }

    fn all(&self) -> Vec<Arc<Node>> {
        self.sessions.lock().iter().map(|(_, held)| held.clone()).collect()
    }

    fn open(&self, stream: StreamId, name: &NodeName) -> Arc<Node> {
        let outbox = self.streams.open_as(stream, self.outbox_bytes_max);
        let crew = Crew { attachment: Attachment::FIRST, roster: Roster::new(self.containers_max) };
        Arc::new(Node { stream, name: name.clone(), outbox, crew: Mutex::new(crew) })
    }

    /// Takes a node off whose session is over: what has not left the router is queued again, the rest is lost.
    fn remove(&self, node: &Node, hub: &Hub, pass: &mut Pass<Driver>) {
        let mut crew = node.crew.lock();
        node.outbox.park(crew.attachment);
        node.take_back(&mut crew, hub, pass);
        for member in crew.roster.clear() {
            hub.enter(&member.action, &mut vec![Input::Gone(member.key)], pass);
        }
        // What its stream still brings would register containers that nobody takes off.
        crew.attachment = Attachment::OVER;
        self.streams.close(node.stream);
    }
}

impl Node {
    /// Attaches the stream of a node that came back. Its containers are suspended until they are registered again.
    fn attach(&self, attachment: Attachment, hub: &Hub, pass: &mut Pass<Driver>) -> Option<Arc<Line>> {
        let mut crew = self.crew.lock();
        let line = self.outbox.attach(attachment)?;
        self.outbox.forget_answered();
        crew.attachment = attachment;
        // As a rule whoever noticed the end of the stream before has done this.
        self.take_back(&mut crew, hub, pass);
        Some(line)
    }

    /// Suspends what is not suspended yet, and queues again what has not left the router.
    fn take_back(&self, crew: &mut Crew, hub: &Hub, pass: &mut Pass<Driver>) {
        // Waits for each: a thread that was about to dispatch has done so, and nobody dispatches from here on.
        for member in crew.roster.suspend_all() {
            hub.enter_and_wait(&member.action, &mut vec![Input::Suspend(member.key)], pass);
        }
        for dispatch in self.outbox.unsent() {
            // Those of a container that has left are lost already.
            if let Ok(member) = crew.roster.find(dispatch.container, dispatch.epoch) {
                let unsent = Input::Unsent(member.key, dispatch.id, dispatch.payload);
                hub.enter(&member.action, &mut vec![unsent], pass);
            }
        }
    }
}
