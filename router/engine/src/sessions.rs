//! Who is there: sessions of controllers, or of invoker nodes. A session outlives its stream for a grace period, so that a
//! peer whose connection broke finds again what it left.
//!
//! ```text
//!                         hello with the token: the next attachment
//!                 ┌──────────────────────────────────────────────────┐
//!                 ▼                                                  │
//!   hello ─▶ attached ── broke ──▶ parked ──────────────────────────┘
//!              │    │                │
//!              │    │ leaving        │ its grace is over, or another peer comes under its name
//!              │    ▼                ▼
//!              │  leaving ── broke ─▶ over
//!              └──── over ───────────▶
//! ```
//!
//! Each stream that a session gets has a number, its [`Attachment`]; what is said of an earlier one is stale and changes
//! nothing. This file may not know what a session holds; it keeps one `T` for each.

use crate::id::StreamId;
use crate::mutant::{Mutant, is};
use crate::outcome::{Reason, Rejection};
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The number of a stream within its session: one more each time the peer comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attachment(u32);

impl Attachment {
    /// That of the stream which began the session.
    pub const FIRST: Self = Self(0);
    /// No stream's: of a session that is over.
    pub const OVER: Self = Self(u32::MAX);

    /// The one after it.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What names a session to its peer: opaque there, and not to be guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Of the router's life.
    life: u64,
    session: StreamId,
    secret: u64,
}

impl Token {
    /// Bytes of a token on the wire.
    pub const LEN: usize = 24;

    /// As it is sent.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        for (eight, number) in bytes.chunks_exact_mut(8).zip([self.life, self.session.0, self.secret]) {
            eight.copy_from_slice(&number.to_be_bytes());
        }
        bytes
    }

    /// What was sent, if it is a token at all.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Some(Self { life: number(0), session: StreamId(number(8)), secret: number(16) })
    }
}

/// The bounds of sessions of one kind.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How long a session waits for its peer. Zero: not at all.
    pub grace: Duration,
    /// Most sessions at a time, parked ones counted. What comes beyond is refused: `sessions_max`.
    pub sessions_max: usize,
    /// Of several peers of one name only one may be there.
    pub names_are_unique: bool,
}

/// All sessions of one kind.
#[derive(Debug)]
pub struct Sessions<T> {
    /// Tells tokens of this process from those of one before.
    life: u64,
    bounds: Bounds,
    all: BTreeMap<StreamId, Session<T>>,
    /// By the peers' names, if these are unique.
    names: BTreeMap<Box<[u8]>, StreamId>,
    /// The parked ones, by the end of their grace.
    parked: BTreeSet<(Timestamp, StreamId)>,
    counts: Counts,
}

/// What became of sessions since the process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Began.
    pub begun: u64,
    /// Got their next stream.
    pub resumed: u64,
    /// Of those, the ones whose stream before was not known to be broken.
    pub taken_over: u64,
    /// Lost their stream and waited for the next.
    pub parked: u64,
    /// Waited in vain.
    pub expired: u64,
}

#[derive(Debug)]
struct Session<T> {
    peer: Box<[u8]>,
    secret: u64,
    attachment: Attachment,
    state: State,
    held: T,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Attached,
    /// Attached, and its peer has said that it will not come again.
    Leaving,
    Parked(Timestamp),
}

/// What a hello leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Hello<T> {
    /// A session begins, with [`Attachment::FIRST`].
    New {
        /// Its number.
        session: StreamId,
        /// What names it.
        token: Token,
        /// What it holds.
        held: T,
        /// What a parked session held whose name this peer has; it is over.
        replaced: Option<T>,
    },
    /// The session goes on.
    Resumed {
        /// Its number.
        session: StreamId,
        /// What names it, as before.
        token: Token,
        /// What it holds.
        held: T,
        /// The number of its new stream.
        attachment: Attachment,
    },
    /// The peer cannot come: [`Reason::ControllerConnected`], or [`Reason::RouterFull`] with `sessions_max`.
    Refused(Rejection),
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its peer may come back.
    Broke,
    /// By the peer's wish or the router's: the session ends too.
    Over,
}

/// What becomes of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It waits for its peer until that point, when it is [due](Sessions::due).
    Parked(Timestamp),
    /// It is over and forgotten.
    Over,
    /// Nothing: it had another stream already, was parked, or is over.
    Stale,
}

impl<T: Clone> Sessions<T> {
    /// None yet. `life` is drawn at random when the process begins.
    pub fn new(life: u64, bounds: Bounds) -> Self {
        let (all, names, parked) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { life, bounds, all, names, parked, counts: Counts::default() }
    }

    /// Their bounds.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// What became of sessions.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Sessions there are, parked ones counted.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Sessions that wait for their peers.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// What the sessions hold, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (StreamId, &T)> {
        self.all.iter().map(|(number, session)| (*number, &session.held))
    }

    /// Whether a token names a session of this process, over or not.
    pub fn is_of_this_life(&self, token: &[u8]) -> bool {
        Token::from_bytes(token).is_some_and(|token| token.life == self.life)
    }

    /// A peer of that name opens a stream, with the token of the session it wants back, or none. If a session begins, it gets
    /// the number `fresh`, never used before, the random `secret`, and holds what `hold` makes.
    pub fn hello(
        &mut self,
        peer: &[u8],
        token: &[u8],
        fresh: StreamId,
        secret: u64,
        hold: impl FnOnce() -> T,
    ) -> Hello<T> {
        if let Some(resumed) = self.resume(peer, token) {
            return resumed;
        }
        let namesake = self.names.get(peer).copied();
        if let Some(namesake) = namesake
            && !matches!(self.all[&namesake].state, State::Parked(_))
        {
            return Hello::Refused(Rejection::new(Reason::ControllerConnected, "hello.controller_id", 0));
        }
        let max = self.bounds.sessions_max;
        if namesake.is_none() && self.all.len() >= max {
            return Hello::Refused(Rejection::new(Reason::RouterFull, "sessions_max", max as u64));
        }
        let replaced = namesake.and_then(|namesake| self.forget(namesake));
        let held = hold();
        let (attachment, state) = (Attachment::FIRST, State::Attached);
        let session = Session { peer: peer.into(), secret, attachment, state, held: held.clone() };
        self.all.insert(fresh, session);
        if self.bounds.names_are_unique {
            self.names.insert(peer.into(), fresh);
        }
        self.counts.begun += 1;
        Hello::New { session: fresh, token: self.token(fresh, secret), held, replaced }
    }

    fn resume(&mut self, peer: &[u8], token: &[u8]) -> Option<Hello<T>> {
        let token = Token::from_bytes(token).filter(|token| token.life == self.life)?;
        let session = self.all.get_mut(&token.session)?;
        if session.secret != token.secret || *session.peer != *peer {
            return None;
        }
        match session.state {
            State::Parked(until) => {
                self.parked.remove(&(until, token.session));
            }
            State::Attached | State::Leaving => self.counts.taken_over += 1,
        }
        self.counts.resumed += 1;
        session.state = State::Attached;
        session.attachment = session.attachment.next();
        let (held, attachment) = (session.held.clone(), session.attachment);
        Some(Hello::Resumed { session: token.session, token, held, attachment })
    }

    /// The peer of that stream has said its last word: if the stream breaks from now on, the session is over.
    pub fn leaving(&mut self, session: StreamId, attachment: Attachment) {
        if let Some(session) = self.attached(session, attachment) {
            session.state = State::Leaving;
        }
    }

    /// That stream of the session ended.
    pub fn ended(&mut self, session: StreamId, attachment: Attachment, how: End, now: Timestamp) -> Ended {
        let grace = self.bounds.grace;
        let Some(ended) = self.attached(session, attachment) else { return Ended::Stale };
        if how == End::Over || ended.state == State::Leaving || grace.is_zero() {
            self.forget(session);
            return Ended::Over;
        }
        let until = now + grace;
        ended.state = State::Parked(until);
        self.parked.insert((until, session));
        self.counts.parked += 1;
        Ended::Parked(until)
    }

    /// The session is over, whatever its stream does. What it held, unless it was over before.
    pub fn forget(&mut self, session: StreamId) -> Option<T> {
        let Session { peer, state, held, .. } = self.all.remove(&session)?;
        if let State::Parked(until) = state {
            self.parked.remove(&(until, session));
        }
        if self.bounds.names_are_unique {
            self.names.remove(&peer);
        }
        Some(held)
    }

    /// Forgets the sessions that wait for a peer of that name, and gives what they held. For a peer that begins another session
    /// though it could have resumed one: it is not the process any more that had them.
    pub fn forget_parked(&mut self, peer: &[u8]) -> Vec<T> {
        let waiting =
            self.parked.iter().map(|(_, session)| *session).filter(|session| *self.all[session].peer == *peer);
        let waiting: Vec<StreamId> = waiting.collect();
        self.counts.expired += waiting.len() as u64;
        waiting.into_iter().filter_map(|session| self.forget(session)).collect()
    }

    /// Forgets the sessions whose grace is over by `now`, and gives what they held.
    pub fn due(&mut self, now: Timestamp) -> Vec<(StreamId, T)> {
        let mut due = Vec::new();
        while let Some(&(until, session)) = self.parked.first()
            && until <= now
            && !is(Mutant::GraceForever)
        {
            self.counts.expired += 1;
            due.extend(self.forget(session).map(|held| (session, held)));
        }
        due
    }

    /// When the next session will be [due](Self::due).
    pub fn next_due(&self) -> Option<Timestamp> {
        self.parked.first().map(|(until, _)| *until)
    }

    fn attached(&mut self, session: StreamId, attachment: Attachment) -> Option<&mut Session<T>> {
        let session = self.all.get_mut(&session)?;
        let attached = session.attachment == attachment && !matches!(session.state, State::Parked(_));
        attached.then_some(session)
    }

    fn token(&self, session: StreamId, secret: u64) -> Token {
        Token { life: self.life, session, secret }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GRACE: Duration = Duration::from_millis(10);
    const PEER: &[u8] = b"peer";

    fn sessions(names_are_unique: bool) -> Sessions<u64> {
        Sessions::new(7, Bounds { grace: GRACE, sessions_max: 2, names_are_unique })
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(ms)
    }

    /// Says hello for a session that would hold its own number.
    fn hello(sessions: &mut Sessions<u64>, peer: &[u8], token: &[u8], fresh: u64) -> Hello<u64> {
        sessions.hello(peer, token, StreamId(fresh), fresh ^ 0xabcd, || fresh)
    }

    fn begun(sessions: &mut Sessions<u64>, peer: &[u8], fresh: u64) -> Token {
        match hello(sessions, peer, &[], fresh) {
            Hello::New { token, .. } => token,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_token_survives_the_wire_and_nothing_else_is_one() {
        let token = begun(&mut sessions(true), PEER, 3);
        assert_eq!(Token::from_bytes(&token.to_bytes()), Some(token));
        assert_eq!(Token::from_bytes(&token.to_bytes()[1..]), None);
        assert_eq!(Token::from_bytes(&[]), None);
    }

    /// Each state with each event, as text: what is said, and the state that follows.
    #[test]
    fn every_transition() {
        type Event = (&'static str, fn(&mut Sessions<u64>, &[u8]) -> String);
        const STATES: &[&str] = &["none", "attached", "leaving", "parked"];
        const EVENTS: &[Event] = &[
            ("hello", |all, _| said(hello(all, PEER, &[], 9))),
            ("hello with its token", |all, token| said(hello(all, PEER, token, 9))),
            ("hello with its token by another", |all, token| said(hello(all, b"other", token, 9))),
            ("leaving", |all, _| {
                all.leaving(StreamId(1), Attachment::FIRST);
                "-".to_owned()
            }),
            ("broke", |all, _| format!("{:?}", all.ended(StreamId(1), Attachment::FIRST, End::Broke, at(1)))),
            ("an earlier or later one broke", |all, _| {
                format!("{:?}", all.ended(StreamId(1), Attachment::FIRST.next(), End::Broke, at(1)))
            }),
            ("over", |all, _| format!("{:?}", all.ended(StreamId(1), Attachment::FIRST, End::Over, at(1)))),
            ("forget", |all, _| format!("{:?}", all.forget(StreamId(1)))),
            ("just before its grace is over", |all, _| format!("{:?}", all.due(at(9)))),
            ("its grace is over", |all, _| format!("{:?}", all.due(at(10)))),
        ];
        let mut table = String::new();
        for state in STATES {
            for (name, event) in EVENTS {
                let mut all = sessions(true);
                let token = begun(&mut all, PEER, 1);
                match *state {
                    "none" => assert_eq!(all.forget(StreamId(1)), Some(1)),
                    "leaving" => all.leaving(StreamId(1), Attachment::FIRST),
                    "parked" => {
                        let ended = all.ended(StreamId(1), Attachment::FIRST, End::Broke, Timestamp::ZERO);
                        assert_eq!(ended, Ended::Parked(at(10)));
                    }
                    _ => {}
                }
                let said = event(&mut all, &token.to_bytes());
                check_invariants(&all);
                let then = all.all.get(&StreamId(1)).map_or("none".to_owned(), |session| match session.state {
                    State::Attached if session.attachment != Attachment::FIRST => "attached again".to_owned(),
                    state => format!("{state:?}").to_lowercase(),
                });
                table += &format!("{state} · {name}: {said} · {then}\n");
            }
        }
        assert_eq!(table, include_str!("../tests/tables/sessions.txt"), "\n{table}");
    }

    fn said(hello: Hello<u64>) -> String {
        match hello {
            Hello::New { session, replaced, .. } => format!("New {} replaced {replaced:?}", session.0),
            Hello::Resumed { session, attachment, .. } => format!("Resumed {} {attachment:?}", session.0),
            Hello::Refused(rejection) => format!("Refused {}", rejection.reason.label()),
        }
    }

    fn check_invariants<T>(sessions: &Sessions<T>) {
        let Sessions { all, names, parked, bounds, .. } = sessions;
        assert!(all.len() <= bounds.sessions_max);
        let until = |session: &Session<T>| if let State::Parked(until) = session.state { Some(until) } else { None };
        let expected: BTreeSet<_> = all.iter().filter_map(|(id, session)| Some((until(session)?, *id))).collect();
        assert_eq!(*parked, expected);
        if bounds.names_are_unique {
            let expected: BTreeMap<_, _> = all.iter().map(|(id, session)| (session.peer.clone(), *id)).collect();
            assert_eq!((names, names.len()), (&expected, all.len()));
        } else {
            assert!(names.is_empty());
        }
    }

    #[test]
    fn a_session_of_another_life_or_secret_is_not_found() {
        let mut all = sessions(false);
        let token = begun(&mut all, PEER, 1);
        for wrong in [Token { life: 8, ..token }, Token { secret: 0, ..token }, Token { session: StreamId(5), ..token }]
        {
            assert!(matches!(hello(&mut all, PEER, &wrong.to_bytes(), 2), Hello::New { .. }), "{wrong:?}");
            all.forget(StreamId(2));
        }
        assert!(all.is_of_this_life(&token.to_bytes()));
        assert!(!all.is_of_this_life(&Token { life: 8, ..token }.to_bytes()));
        assert!(!all.is_of_this_life(b""));
    }

    #[test]
    fn of_a_peer_that_begins_anew_only_what_waits_is_forgotten() {
        let mut all = sessions(false);
        let (now, later) = (Timestamp::ZERO, Timestamp::NEVER);
        (1..=2).for_each(|number| _ = begun(&mut all, PEER, number));
        all.ended(StreamId(1), Attachment::FIRST, End::Broke, now);
        assert_eq!(all.forget_parked(b"another").len(), 0);
        assert_eq!(all.forget_parked(PEER).len(), 1);
        assert_eq!((all.len(), all.parked(), all.counts().expired), (1, 0, 1));
        assert!(all.due(later).is_empty());
    }

    #[test]
    fn what_comes_beyond_the_bound_is_refused_by_name() {
        let mut all = sessions(false);
        begun(&mut all, PEER, 1);
        let second = begun(&mut all, PEER, 2);
        let refused = Rejection::new(Reason::RouterFull, "sessions_max", 2);
        assert_eq!(hello(&mut all, PEER, &[], 3), Hello::Refused(refused));
        assert!(matches!(hello(&mut all, PEER, &second.to_bytes(), 4), Hello::Resumed { .. }));
    }

    #[test]
    fn without_grace_nothing_is_parked() {
        let mut all = Sessions::new(7, Bounds { grace: Duration::ZERO, sessions_max: 1, names_are_unique: true });
        begun(&mut all, PEER, 1);
        assert_eq!(all.ended(StreamId(1), Attachment::FIRST, End::Broke, at(1)), Ended::Over);
        assert!(all.is_empty());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Hello { peer: u8, with: Option<usize> },
        Leaving(usize),
        Ended { which: usize, earlier: bool, over: bool },
        Pass(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..3_u8, prop::option::of(0..8_usize)).prop_map(|(peer, with)| Step::Hello { peer, with }),
            (0..8_usize).prop_map(Step::Leaving),
            (0..8_usize, any::<bool>(), any::<bool>()).prop_map(|(which, earlier, over)| Step::Ended {
                which,
                earlier,
                over
            }),
            (0..15_u64).prop_map(Step::Pass),
        ];
        prop::collection::vec(step, 1..60)
    }

    proptest! {
        /// However peers come and go: what a session holds comes out exactly once, the bounds hold, and no stream but the last
        /// one of a session ends it.
        #[test]
        fn each_session_ends_once(steps in steps(), names_are_unique: bool) {
            let mut all = sessions(names_are_unique);
            let (mut now, mut fresh, mut out) = (0, 0, Vec::new());
            // Tokens and last attachments of all sessions there ever were.
            let mut known: Vec<(Token, u8, Attachment)> = Vec::new();
            for step in steps {
                match step {
                    Step::Hello { peer, with } => {
                        let token = with.and_then(|with| known.get(with)).map_or(Vec::new(), |(t, ..)| t.to_bytes().into());
                        fresh += 1;
                        match hello(&mut all, &[peer], &token, fresh) {
                            Hello::New { session, token, replaced, .. } => {
                                prop_assert_eq!(session, StreamId(fresh));
                                known.push((token, peer, Attachment::FIRST));
                                out.extend(replaced);
                            }
                            Hello::Resumed { session, attachment, held, .. } => {
                                prop_assert_eq!(held, session.0);
                                let entry = known.iter_mut().find(|(t, ..)| t.session == session).unwrap();
                                prop_assert!(attachment > entry.2 && entry.1 == peer && !out.contains(&session.0));
                                entry.2 = attachment;
                            }
                            Hello::Refused(_) => {}
                        }
                    }
                    Step::Leaving(which) => {
                        if let Some((token, _, attachment)) = known.get(which) {
                            all.leaving(token.session, *attachment);
                        }
                    }
                    Step::Ended { which, earlier, over } => {
                        if let Some((token, _, last)) = known.get(which) {
                            let attachment = if earlier { Attachment::FIRST } else { *last };
                            let how = if over { End::Over } else { End::Broke };
                            match all.ended(token.session, attachment, how, at(now)) {
                                Ended::Over => out.push(token.session.0),
                                Ended::Parked(until) => prop_assert!(until == at(now + 10) && attachment == *last),
                                Ended::Stale => {}
                            }
                        }
                    }
                    Step::Pass(ms) => {
                        now += ms;
                        out.extend(all.due(at(now)).into_iter().map(|(_, held)| held));
                        prop_assert!(all.next_due().is_none_or(|due| due > at(now)));
                    }
                }
                check_invariants(&all);
            }
            let left: Vec<u64> = all.iter().map(|(_, held)| *held).collect();
            let mut each: Vec<u64> = out.iter().chain(&left).copied().collect();
            each.sort_unstable();
            let begun: Vec<u64> = known.iter().map(|(token, ..)| token.session.0).collect();
            prop_assert_eq!(each, begun);
        }
    }
}
