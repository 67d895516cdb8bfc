//! Proof that the judge sees: each known bug is planted in turn, and seeds are run until a promise breaks. In a build without
//! `--cfg mutants` there is none to plant.

#[cfg(mutants)]
use crate::plan::Plan;
#[cfg(mutants)]
use crate::world::World;
#[cfg(mutants)]
use engine::mutant::plant;

pub use engine::mutant::Mutant;

/// How a planted bug was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Seeds it took.
    pub seeds: u64,
    /// What gave it away: the broken promise, or the engine's own panic.
    pub by: String,
}

/// Whether bugs can be planted in this build.
pub const CAN_PLANT: bool = cfg!(mutants);

/// Plants a bug and runs seeds until it is found, at most that many.
#[cfg(mutants)]
pub fn hunt(mutant: Mutant, seeds: u64, activations: u32) -> Option<Found> {
    plant(Some(mutant));
    let found = (1..=seeds).find_map(|seed| {
        // A bug may well end in a panic of the engine's own; the world is then in no state to be used again.
        let ran = std::panic::catch_unwind(|| World::default().run(Plan::draw(seed, activations), false));
        let by = match ran {
            Ok(report) => report.violation?.invariant.to_string(),
            Err(_) => "a panic".to_owned(),
        };
        Some(Found { seeds: seed, by })
    });
    plant(None);
    found
}

/// There is none to find.
#[cfg(not(mutants))]
pub fn hunt(_: Mutant, _: u64, _: u32) -> Option<Found> {
    None
}
