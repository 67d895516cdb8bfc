//! What is pushed, waits, comes back, is dispatched and ends.

use super::{Activation, Model};
use engine::id::ActivationId;
use engine::input::Push;
use engine::outcome::Reply;

impl Model {
    pub(crate) fn push(&mut self, mut to: usize, push: Push) {
        while let Some(newer) = self.revisions[to].newer {
            to = newer;
        }
        let taken = self.live.contains_key(&push.id).then_some("id_in_flight");
        let known = taken.or(self.ended.contains(&push.id).then_some("id_ended")).filter(|_| !push.accepted);
        if push.deadline <= self.now {
            if let Some(reason) = known {
                return self.effects.push(format!("answer {} to {:?} {reason}", push.id, push.controller));
            }
            self.acknowledge(&push);
            self.end(push.id);
            return self.answer(&push, "expired");
        }
        let chosen = if self.revisions[to].queue.is_empty() { self.choose(to) } else { None };
        let refused = if chosen.is_none() { self.is_full(to, &push) } else { None };
        if let Some(reason) = known.or(refused) {
            return self.effects.push(format!("answer {} to {:?} {reason}", push.id, push.controller));
        }
        self.acknowledge(&push);
        let (id, clock) = (push.id, self.tick());
        self.live
            .insert(id, Activation { push, admitted: clock, armed: clock, answered: false, dispatched_at: self.now });
        self.revisions[to].queue.push(id);
        if let Some(container) = chosen {
            self.dispatch(to, container);
        }
    }

    fn is_full(&self, to: usize, push: &Push) -> Option<&'static str> {
        let bytes = push.payload.len() as u64;
        let (queued, queued_bytes) = self.queued();
        let own = &self.revisions[to].queue;
        let full = own.len() as u64 >= self.limits.action_queued_max
            || self.bytes(own) + bytes > self.limits.action_queued_bytes_max;
        let all_full =
            queued >= self.limits.router_queued_max || queued_bytes + bytes > self.limits.router_queued_bytes_max;
        let reason = if full { Some("queue_full") } else { all_full.then_some("router_full") };
        reason.filter(|_| !push.accepted)
    }

    pub(super) fn come_back(&mut self, revision: usize, id: ActivationId) {
        let clock = self.tick();
        let activation = self.live.get_mut(&id).expect("in flight");
        if activation.answered {
            self.end(id);
            return self.settle(revision);
        }
        activation.armed = clock;
        let admitted = activation.admitted;
        let queue = &self.revisions[revision].queue;
        let place = queue.iter().position(|other| self.live[other].admitted > admitted).unwrap_or(queue.len());
        self.revisions[revision].queue.insert(place, id);
        self.settle(revision);
    }

    pub(super) fn settle(&mut self, at: usize) {
        while let Some(&id) = self.revisions[at].queue.first() {
            if self.live[&id].push.deadline <= self.now {
                self.expire(at, id);
                continue;
            }
            let Some(container) = self.choose(at) else { break };
            self.dispatch(at, container);
        }
        let Some(newer) = self.revisions[at].newer else { return };
        let open = self.containers.iter_mut().filter(|container| container.revision == at && !container.retired);
        if self.revisions[at].queue.is_empty() {
            for container in open {
                (container.retired, container.credits) = (true, 0);
                self.effects.push(format!("drain {}", container.number));
            }
        } else if open.count() == 0 {
            for id in std::mem::take(&mut self.revisions[at].queue) {
                let Push { controller, reply, attempt, accepted_at, deadline, ref payload, .. } = self.live[&id].push;
                let payload = payload.clone();
                self.push(
                    newer,
                    Push {
                        id,
                        controller,
                        reply,
                        attempt,
                        accepted_at,
                        deadline,
                        payload,
                        accepted: true,
                        refilled: false,
                    },
                );
            }
        }
    }

    fn choose(&mut self, at: usize) -> Option<usize> {
        loop {
            let takes = self.containers.iter().enumerate().filter(|(_, one)| one.revision == at && one.takes());
            let (best, container) = takes.max_by_key(|(_, one)| (one.warm, one.used))?;
            if !self.full[usize::from(container.stream)] {
                return Some(best);
            }
            self.effects.push(format!("await_room {}", container.stream));
            self.containers[best].awaiting = true;
            self.asked.push(best);
        }
    }

    /// The head of the queue goes to a container.
    fn dispatch(&mut self, at: usize, to: usize) {
        let id = self.revisions[at].queue.remove(0);
        let container = &mut self.containers[to];
        container.credits -= 1;
        container.dispatched = container.dispatched.wrapping_add(1);
        container.in_flight.push(id);
        let Push { attempt, payload, deadline, .. } = &self.live[&id].push;
        let left = (self.now.until(*deadline).as_millis()).max(1);
        let number = container.number;
        let due = *deadline + self.limits.overdue_grace;
        self.effects.push(format!("dispatch {id} to {number} left {left} attempt {attempt} {} bytes", payload.len()));
        self.watch(to, due);
        self.live.get_mut(&id).expect("just dispatched").dispatched_at = self.now;
        self.begin(to);
    }

    pub(super) fn expire(&mut self, at: usize, id: ActivationId) {
        self.revisions[at].queue.retain(|other| *other != id);
        let Activation { push, .. } = self.end(id).expect("queued");
        self.answer(&push, "expired");
    }

    /// An id is free, and remembered for a while.
    pub(super) fn end(&mut self, id: ActivationId) -> Option<Activation> {
        self.ended.push_back(id);
        let most = 7 * self.limits.recent_sets;
        self.ended.drain(..self.ended.len().saturating_sub(most));
        self.live.remove(&id)
    }

    fn acknowledge(&mut self, push: &Push) {
        if push.reply == Reply::Accepted && !push.accepted {
            self.effects.push(format!("answer {} to {:?} accepted", push.id, push.controller));
        }
    }

    pub(super) fn answer(&mut self, push: &Push, outcome: &str) {
        if push.reply == Reply::Outcome {
            self.effects.push(format!("answer {} to {:?} {outcome}", push.id, push.controller));
        }
    }
}
