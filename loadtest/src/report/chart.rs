//! Lines on two axes, as SVG. Colours are classes of the style sheet; what a line stands for is told by its legend and its tooltip.

use super::figures::{class, title};
use std::fmt::Write;

/// One axis: how its values become places.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    pub(crate) title: &'static str,
    pub(crate) scale: Scale,
    pub(crate) least: f64,
    pub(crate) most: f64,
    pub(crate) show: fn(f64) -> String,
}

/// How values are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    /// By powers of ten.
    Log,
    /// Quantiles: each nine is as wide as the one before.
    Nines,
}

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) target: String,
    /// Marks at its points.
    pub(crate) dots: bool,
    pub(crate) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;

/// Quantiles closer to 1 than this are shown there: that of all is the greatest.
const NINES_MOST: f64 = 5.0;

impl Axis {
    /// An axis with room for all values, from a power of ten to another, or from 0.
    pub(crate) fn over(
        values: impl Iterator<Item = f64>,
        title: &'static str,
        scale: Scale,
        show: fn(f64) -> String,
    ) -> Self {
        let finite = values.filter(|value| value.is_finite() && (scale != Scale::Log || *value > 0.0));
        let (least, most) = finite.fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(v), b.max(v)));
        let (least, most) = if least > most { (1.0, 10.0) } else { (least, most) };
        let (least, most) = match scale {
            Scale::Linear => (0.0, (most * 1.08).max(f64::MIN_POSITIVE)),
            Scale::Log => (least / 1.25, most * 1.25),
            Scale::Nines => (0.0, 1.0),
        };
        Self { title, scale, least, most, show }
    }

    /// Where a value lies, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - self.least) / (self.most - self.least),
            Scale::Log => (value.max(self.least) / self.least).ln() / (self.most / self.least).ln(),
            Scale::Nines => (-(1.0 - value).max(1e-9).log10()).min(NINES_MOST) / NINES_MOST,
        }
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let unit = step((self.most - self.least) / 5.0);
                (0..12).map(|n| f64::from(n) * unit).filter(|tick| *tick <= self.most).collect()
            }
            Scale::Log => log_ticks(self.least, self.most),
            Scale::Nines => vec![0.0, 0.9, 0.99, 0.999, 0.9999, 1.0],
        }
    }
}

/// 1, 2 or 5 times a power of ten, at least as much.
fn step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].iter().map(|n| n * power).find(|step| *step >= least * 0.999).unwrap_or(power * 10.0)
}

/// Powers of ten; with few of them, 2 and 5 times them too.
fn log_ticks(least: f64, most: f64) -> Vec<f64> {
    let mut ticks = Vec::new();
    let few = (most / least).log10() < 3.0;
    let mut power = 10_f64.powf(least.log10().floor());
    while power <= most {
        let multiples: &[f64] = if few { &[1.0, 2.0, 5.0] } else { &[1.0] };
        ticks.extend(multiples.iter().map(|n| n * power).filter(|tick| (least..=most).contains(tick)));
        power *= 10.0;
    }
    ticks
}

/// Draws the lines.
pub(crate) fn lines(x: &Axis, y: &Axis, lines: &[Line]) -> String {
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
    axes(&mut svg, x, y);
    for line in lines.iter().filter(|line| !line.points.is_empty()) {
        draw(&mut svg, x, y, line);
    }
    svg + "</svg>"
}

fn across(x: &Axis, value: f64) -> f64 {
    LEFT + x.place(value) * (WIDTH - LEFT - RIGHT)
}

fn down(y: &Axis, value: f64) -> f64 {
    HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM)
}

/// Writing to a string cannot fail.
macro_rules! put {
    ($($arg:tt)*) => { let _ = write!($($arg)*); };
}

fn axes(svg: &mut String, x: &Axis, y: &Axis) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for tick in y.ticks() {
        let at = down(y, tick);
        put!(svg, "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>");
        put!(
            svg,
            "<text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            at + 4.0,
            (y.show)(tick)
        );
    }
    for tick in x.ticks() {
        let at = across(x, tick);
        put!(svg, "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\"/>");
        put!(
            svg,
            "<text class=\"tick\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 17.0,
            (x.show)(tick)
        );
    }
    put!(svg, "<text class=\"axis\" x=\"{right}\" y=\"{}\" text-anchor=\"end\">{}</text>", HEIGHT - 8.0, x.title);
    put!(svg, "<text class=\"axis\" x=\"{}\" y=\"{}\">{}</text>", LEFT + 6.0, TOP + 10.0, y.title);
}

fn draw(svg: &mut String, x: &Axis, y: &Axis, line: &Line) {
    let (class, name) = (class(&line.target), title(&line.target));
    let places: Vec<(f64, f64)> = line.points.iter().map(|(a, b)| (across(x, *a), down(y, *b))).collect();
    let path: Vec<String> = places.iter().map(|(a, b)| format!("{a:.1},{b:.1}")).collect();
    put!(svg, "<polyline class=\"line {class}\" points=\"{}\">", path.join(" "));
    put!(svg, "<title>{name}</title></polyline>");
    if line.dots {
        for ((a, b), (value_x, value_y)) in places.iter().zip(&line.points) {
            put!(svg, "<circle class=\"dot {class}\" cx=\"{a:.1}\" cy=\"{b:.1}\" r=\"3.2\">");
            let (at_x, at_y) = ((x.show)(*value_x), (y.show)(*value_y));
            put!(svg, "<title>{name}: {at_y} at {at_x}</title></circle>");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::{short, time};
    use super::*;

    #[test]
    fn values_lie_within_their_axis() {
        let axis = Axis::over([10.0, 20_000.0, f64::NAN].into_iter(), "", Scale::Log, time);
        assert!(axis.place(10.0) > 0.0 && axis.place(20_000.0) < 1.0);
        assert_eq!(axis.ticks(), [10.0, 100.0, 1000.0, 10_000.0]);
        let nines = Axis::over(std::iter::empty(), "", Scale::Nines, short);
        assert!((nines.place(0.99) - 0.4).abs() < 1e-9);
        assert!((nines.place(1.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_linear_axis_has_about_five_steps() {
        let axis = Axis::over([0.0, 87_000.0].into_iter(), "", Scale::Linear, short);
        assert_eq!(axis.ticks(), [0.0, 20_000.0, 40_000.0, 60_000.0, 80_000.0]);
    }

    #[test]
    fn a_line_of_nothing_is_not_drawn() {
        let axis = Axis::over(std::iter::empty(), "", Scale::Log, short);
        let line = Line { target: "router".to_owned(), dots: true, points: Vec::new() };
        assert!(!lines(&axis, &axis, &[line]).contains("polyline"));
    }
}
