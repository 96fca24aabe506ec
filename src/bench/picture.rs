//! Speed over depth as SVG, written out: one panel for each kind of figure, a curve for each side
//! and number of lanes. No scripts, no fonts of its own; it says its numbers as text.

use std::fmt::Write;

use super::report::{Figure, Rate, Report, What};

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 220.0;
/// Around a panel: for its numbers and its title.
const LEFT: f64 = 64.0;
const TOP: f64 = 56.0;
const RIGHT: f64 = 110.0;
const BOTTOM: f64 = 48.0;
const COLOURS: [&str; 8] = [
    "#0b6e99", "#c4552d", "#3a7d44", "#8a5a9e", "#a8861c", "#5b6770", "#b0305c", "#2f9c95",
];

/// One curve: depths that rise, and the speed at each.
struct Curve {
    name: String,
    points: Vec<(f64, Rate)>,
}

pub fn draw(report: &Report) -> String {
    let panels: Vec<_> = [What::Prefill, What::Decode]
        .into_iter()
        .map(|what| (what, curves(&report.figures, what)))
        .filter(|(_, curves)| !curves.is_empty())
        .collect();
    let (panel, height) = (LEFT + WIDTH + RIGHT, TOP + HEIGHT + BOTTOM);
    let width = panel * panels.len().max(1) as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    let s = &report.setting;
    let title = format!(
        "{}: {}, {}, {} threads, cache {}",
        s.model, s.processor, s.device, s.threads, s.cache_type
    );
    text(&mut svg, (16.0, 20.0), "start", "#222222", &title);
    for (at, (what, curves)) in panels.iter().enumerate() {
        Panel {
            left: at as f64 * panel + LEFT,
            curves,
        }
        .draw(*what, &mut svg);
    }
    svg + "</svg>\n"
}

fn curves(figures: &[Figure], what: What) -> Vec<Curve> {
    let of_kind: Vec<&Figure> = figures.iter().filter(|f| f.what == what).collect();
    let mut lanes: Vec<usize> = of_kind.iter().map(|f| f.lanes).collect();
    lanes.sort_unstable();
    lanes.dedup();
    let several = lanes.len() > 1;
    let mut curves = Vec::new();
    for lanes in lanes {
        let here = || of_kind.iter().filter(move |f| f.lanes == lanes);
        let name = |who: &str| {
            if several {
                format!("{who}, {lanes}")
            } else {
                who.to_owned()
            }
        };
        let point = |f: &&Figure, rate| (f.depth as f64, rate);
        let ours: Vec<_> = here().map(|f| point(f, f.deltad)).collect();
        let theirs = here().filter_map(|f| Some(point(f, f.rival?)));
        let theirs: Vec<_> = theirs.collect();
        for (who, mut points) in [("deltad", ours), ("llama.cpp", theirs)] {
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            if !points.is_empty() {
                let name = name(who);
                curves.push(Curve { name, points });
            }
        }
    }
    curves
}

struct Panel<'c> {
    left: f64,
    curves: &'c [Curve],
}

impl Panel<'_> {
    fn draw(&self, what: What, svg: &mut String) {
        let points = || self.curves.iter().flat_map(|c| &c.points);
        let deepest = points().map(|p| p.0).fold(1.0, f64::max);
        let top = round_up(points().map(|p| p.1.most).fold(0.0, f64::max));
        let x = |depth: f64| self.left + WIDTH * depth / deepest;
        let y = |rate: f64| TOP + HEIGHT * (1.0 - rate / top);
        let name = format!("{}, tokens/s over depth", what.name());
        text(svg, (self.left, TOP - 14.0), "start", "#222222", &name);
        for step in 0..=4 {
            let rate = top * f64::from(step) / 4.0;
            line(svg, (x(0.0), y(rate)), (x(deepest), y(rate)), "#dddddd");
            text(
                svg,
                (self.left - 8.0, y(rate) + 4.0),
                "end",
                "#444444",
                &number(rate),
            );
        }
        let mut depths: Vec<f64> = points().map(|p| p.0).collect();
        depths.sort_by(f64::total_cmp);
        depths.dedup();
        for depth in depths {
            let at = (x(depth), TOP + HEIGHT + 18.0);
            line(
                svg,
                (at.0, TOP + HEIGHT),
                (at.0, TOP + HEIGHT + 4.0),
                "#444444",
            );
            text(svg, at, "middle", "#444444", &tokens(depth));
        }
        // Names beside the last points, apart from each other.
        let mut taken = f64::NEG_INFINITY;
        let mut order: Vec<(usize, f64)> = self
            .curves
            .iter()
            .map(|c| c.points.last().map_or(0.0, |p| y(p.1.median)))
            .enumerate()
            .collect();
        order.sort_by(|a, b| a.1.total_cmp(&b.1));
        for (at, end) in order {
            let (curve, colour) = (&self.curves[at], COLOURS[at % COLOURS.len()]);
            let way: Vec<String> = curve
                .points
                .iter()
                .map(|(depth, rate)| format!("{:.1},{:.1}", x(*depth), y(rate.median)))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                way.join(" ")
            );
            for (depth, rate) in &curve.points {
                line(
                    svg,
                    (x(*depth), y(rate.least)),
                    (x(*depth), y(rate.most)),
                    colour,
                );
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"><title>{}: {rate} \
                     tokens/s at {depth}</title></circle>",
                    x(*depth),
                    y(rate.median),
                    escaped(&curve.name)
                );
            }
            taken = (taken + 14.0).max(end + 4.0);
            text(
                svg,
                (x(deepest) + 10.0, taken),
                "start",
                colour,
                &curve.name,
            );
        }
    }
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    // Writing to a string does not fail, here and above.
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, colour: &str, words: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{}</text>",
        at.0,
        at.1,
        escaped(words)
    );
}

fn escaped(words: &str) -> String {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    words.replace('>', "&gt;").replace('"', "&quot;")
}

/// The next of 1, 2, 4 or 8 times a power of ten, each a whole number of quarters.
fn round_up(most: f64) -> f64 {
    let mut unit = 1.0;
    while unit * 10.0 <= most {
        unit *= 10.0;
    }
    let steps = [1.0, 2.0, 4.0, 8.0, 10.0].map(|s| s * unit);
    steps
        .into_iter()
        .find(|s| *s >= most)
        .unwrap_or(10.0 * unit)
}

fn number(rate: f64) -> String {
    if rate < 10.0 && rate.fract() != 0.0 {
        format!("{rate:.2}")
    } else {
        format!("{rate:.0}")
    }
}

fn tokens(depth: f64) -> String {
    let thousands = depth / 1024.0;
    if depth > 0.0 && thousands.fract() == 0.0 {
        format!("{thousands}k")
    } else {
        depth.to_string()
    }
}
