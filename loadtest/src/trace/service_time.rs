//! How long a function runs: an inverse distribution function through seven known points.
//!
//! Pure arithmetic: no random source of its own. The caller draws `u` and so decides about seeds.

use std::time::Duration;

/// The time one function takes to run, as a distribution: `min`, `p1`, `p25`, `p50`, `p75`, `p99`, `max`, and straight
/// lines between them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ServiceTime {
    points_ms: [f64; 7],
}

impl ServiceTime {
    /// From `[min, p1, p25, p50, p75, p99, max]` in milliseconds.
    ///
    /// A point below its predecessor is raised to it: percentiles and extremes are measured apart and may contradict each
    /// other, and a distribution function cannot fall. What is negative or not a number counts as 0, and nothing goes
    /// over [`SERVICE_MS_MAX`].
    pub(crate) fn from_millis(points_ms: [f64; 7]) -> Self {
        let mut highest = 0.0_f64;
        Self {
            points_ms: points_ms.map(|point| {
                highest = highest.max(point).min(SERVICE_MS_MAX);
                highest
            }),
        }
    }

    /// The time at `u`, a share of runs in `0.0..=1.0`: 0 gives the minimum, 0.5 the median, 1 the maximum. `u` outside
    /// is moved to the nearer end.
    pub(crate) fn sample(&self, u: f64) -> Duration {
        let u = if u.is_nan() { 0.0 } else { u.clamp(0.0, 1.0) };
        let right = SHARES[1..6].partition_point(|share| *share < u) + 1;
        let (from, to) = (self.points_ms[right - 1], self.points_ms[right]);
        let along = (u - SHARES[right - 1]) / (SHARES[right] - SHARES[right - 1]);
        Duration::from_secs_f64((from + (to - from) * along) / 1e3)
    }
}

/// The longest time believed, in milliseconds: one day. It keeps every sum of times far from overflow.
pub(crate) const SERVICE_MS_MAX: f64 = 86_400_000.0;

/// The shares of runs that the seven points stand for.
const SHARES: [f64; 7] = [0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(points: [f64; 7], u: f64, micros: u128) {
        assert_eq!(ServiceTime::from_millis(points).sample(u).as_micros(), micros, "{points:?} at {u}");
    }

    #[test]
    fn goes_through_its_points_and_straight_between_them() {
        let points = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
        for (u, millis) in SHARES.into_iter().zip([1, 2, 4, 8, 16, 32, 64]) {
            check(points, u, millis * 1_000);
        }
        check(points, 0.375, 6_000);
        check(points, 0.995, 48_000);
    }

    #[test]
    fn stays_inside_for_any_u() {
        let points = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
        check(points, -1.0, 1_000);
        check(points, 2.0, 64_000);
        check(points, f64::NAN, 1_000);
    }

    #[test]
    fn never_falls() {
        let points = [5.0, 2.0, 4.0, 8.0, 3.0, f64::NAN, 6.0];
        check(points, 0.0, 5_000);
        check(points, 0.25, 5_000);
        check(points, 1.0, 8_000);
        check([-1.0; 7], 0.5, 0);
        check([f64::INFINITY; 7], 0.5, 86_400_000_000);
    }
}
