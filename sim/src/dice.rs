//! All chance in a world comes from its seed, through here. The sequence is part of what a seed means: a change of it makes
//! every seed in `regressions.txt` another world.

/// A small generator of numbers (SplitMix64): equal seeds, equal sequences, on every machine.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The sequence of that seed.
    pub fn new(seed: u64) -> Self {
        let mut dice = Self(seed ^ 0x5851_f42d_4c95_7f2d);
        dice.roll();
        dice
    }

    /// A sequence of its own for some part of the world, so that more chance in one part leaves the others as they were.
    pub fn fork(&mut self) -> Self {
        Self::new(self.roll())
    }

    /// Any number.
    #[inline]
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `n`, which is not 0.
    #[inline]
    pub fn below(&mut self, n: u64) -> u64 {
        // The bias is below n / 2^64.
        let wide = u128::from(self.roll()) * u128::from(n);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// A number from `from` to `to`, both included.
    #[inline]
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// As [`between`](Self::between), with small numbers as likely as large ones: its logarithm is spread evenly.
    pub fn spread(&mut self, from: u64, to: u64) -> u64 {
        let (low, high) = ((from.max(1)).ilog2(), to.max(1).ilog2());
        let bits = self.between(low.into(), high.into());
        let at = self.between(1 << bits, (1 << (bits + 1)) - 1);
        at.clamp(from, to)
    }

    /// True in that many of a million cases.
    #[inline]
    pub fn chance(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.below(1_000_000) < per_million.into()
    }

    /// True in one of `n` cases.
    #[inline]
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A waiting time of that mean, as between events that know nothing of one another; at most ten times it.
    #[inline]
    pub fn wait(&mut self, mean: u64) -> u64 {
        // -ln(u) by the position of the first set bit and a straight line between: exact enough for arrivals, the same on every
        // machine, and no floating point.
        let roll = self.roll();
        let zeros = u64::from(roll.leading_zeros()).min(13);
        let below = (roll << (zeros + 1)) >> 48;
        // ln 2 = 0.693; between two powers of two the logarithm is taken as a line.
        let nepers = 693 * zeros + 693 - ((693 * below) >> 16);
        mean.saturating_mul(nepers) / 1000
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.index(of.len())]
    }

    /// An index below `len`, which is not 0.
    #[inline]
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }
}

/// Scatters a number over all 64 bits.
#[inline]
pub fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_have_the_mean_asked_for() {
        let mut dice = Dice::new(1);
        let sum: u64 = (0..100_000).map(|_| dice.wait(1000)).sum();
        assert!((95_000_000..105_000_000).contains(&sum), "{sum}");
    }

    #[test]
    fn numbers_keep_to_their_bounds_and_reach_them() {
        let mut dice = Dice::new(2);
        let drawn: Vec<u64> = (0..1000).map(|_| dice.between(3, 5)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&3), Some(&5)));
        assert!((0..1000).map(|_| dice.spread(1, 64)).all(|n| (1..=64).contains(&n)));
        assert!(!Dice::new(3).chance(0));
    }
}
