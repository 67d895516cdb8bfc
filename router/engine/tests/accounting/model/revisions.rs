//! Revisions of actions, and which one supersedes which.

use super::{Model, Revision};
use engine::limits::REVISIONS_REMEMBERED;

impl Model {
    pub(crate) fn declare(&mut self, name: u8, revision: u8) -> Option<usize> {
        let current = self.current.get(&name).copied();
        let superseded = self.superseded.entry(name).or_default();
        let known = self.revisions.iter().position(|known| (known.name, known.revision) == (name, revision));
        let drains = known.is_some_and(|at| self.revisions[at].newer.is_some());
        if let Some(current) = current.filter(|at| drains || known == Some(*at) || superseded.contains(&revision)) {
            return Some(current);
        }
        let at = known.or_else(|| self.add(name, revision))?;
        self.current.insert(name, at);
        if let Some(old) = current {
            let superseded = self.superseded.entry(name).or_default();
            superseded.push_back(self.revisions[old].revision);
            superseded.drain(..superseded.len().saturating_sub(REVISIONS_REMEMBERED));
            self.supersede(old, at);
        }
        Some(at)
    }

    pub(crate) fn current(&self, name: u8) -> u8 {
        self.current.get(&name).map_or(0, |at| self.revisions[*at].revision)
    }

    pub(super) fn add(&mut self, name: u8, revision: u8) -> Option<usize> {
        if self.revisions.len() as u64 == self.limits.actions_max {
            return None;
        }
        self.revisions.push(Revision { name, revision, newer: None, queue: Vec::new() });
        Some(self.revisions.len() - 1)
    }

    pub(super) fn supersede(&mut self, old: usize, newer: usize) {
        self.revisions[old].newer = Some(newer);
        self.settle(old);
    }
}
