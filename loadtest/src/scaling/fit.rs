//! A straight line through measured points. Only arithmetic.

/// `y = at_zero + slope * x`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Line {
    pub(crate) at_zero: f64,
    pub(crate) slope: f64,
    /// How far the worst point lies from it, as a part of that point.
    pub(crate) off_by_max: f64,
}

impl Line {
    /// The line with the least sum of squares of the relative distances: where costs go over three decades, the smallest count as much as
    /// the largest. None if the points that cost anything do not lie at two places at least.
    pub(crate) fn through(points: &[(f64, f64)]) -> Option<Self> {
        let points: Vec<(f64, f64)> = points.iter().copied().filter(|(_, y)| *y > 0.0).collect();
        let sum = |of: fn(f64, f64) -> f64| points.iter().map(|&(x, y)| of(x, y) / (y * y)).sum::<f64>();
        let (n, x, xx) = (sum(|_, _| 1.0), sum(|x, _| x), sum(|x, _| x * x));
        let (y, xy) = (sum(|_, y| y), sum(|x, y| x * y));
        let spread = n * xx - x * x;
        if spread <= SPREAD_LEAST * n * xx {
            return None;
        }
        let slope = (n * xy - x * y) / spread;
        let at_zero = (y - slope * x) / n;
        let off_by = |&(x, y): &(f64, f64)| ((at_zero + slope * x) / y - 1.0).abs();
        Some(Self { at_zero, slope, off_by_max: points.iter().map(off_by).fold(0.0, f64::max) })
    }
}

/// Below this, as a part of what it is made of, a spread is rounding.
const SPREAD_LEAST: f64 = 1e-9;

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9 * b.abs().max(1.0)
    }

    #[test]
    fn points_on_a_line_give_that_line() {
        let line = Line::through(&[(0.0625, 1.5 + 0.0625 * 0.25), (1.0, 1.75), (1024.0, 257.5)]).unwrap();
        assert!(near(line.at_zero, 1.5) && near(line.slope, 0.25) && line.off_by_max < 1e-9, "{line:?}");
    }

    #[test]
    fn a_large_point_does_not_drown_a_small_one() {
        // A tenth too much at the far end must not cost the near end more than that.
        let line = Line::through(&[(0.0, 2.0), (1.0, 2.5), (1000.0, 550.0)]).unwrap();
        assert!((line.at_zero - 2.0).abs() < 0.1 && line.off_by_max < 0.1, "{line:?}");
    }

    #[test]
    fn fewer_than_two_places_give_none() {
        assert_eq!(Line::through(&[]), None);
        assert_eq!(Line::through(&[(1.0, 2.0), (1.0, 3.0)]), None);
        assert_eq!(Line::through(&[(1.0, 2.0), (2.0, 0.0)]), None);
    }
}
