//! Sizes ("4GiB") and spans of time ("10min") as people write them. Pure text to number and back.

use std::time::Duration;

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

const SPANS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("min", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Bytes of a text such as `4GiB`, `512 MB` or `1048576`. Letter case does not matter.
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let unit = if unit.is_empty() { "B" } else { unit };
    let (_, factor) = SIZES.iter().find(|(u, _)| u.eq_ignore_ascii_case(unit))?;
    number.checked_mul(*factor)
}

/// A span such as `10min`, `90s`, `1h` or `250ms`. A bare number has no unit and is refused.
pub fn parse_span(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let (_, factor) = SPANS.iter().find(|(u, _)| *u == unit)?;
    Some(Duration::from_millis(number.checked_mul(*factor)?))
}

/// The shortest exact spelling, which [`parse_size`] reads back.
pub fn show_size(bytes: u64) -> String {
    let binary = SIZES.iter().take(4).chain(&SIZES[8..]);
    let (unit, factor) = exact(bytes, binary);
    format!("{}{unit}", bytes / factor)
}

/// The shortest exact spelling, which [`parse_span`] reads back.
pub fn show_span(span: Duration) -> String {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let (unit, factor) = exact(millis, SPANS.iter());
    format!("{}{unit}", millis / factor)
}

/// The largest unit that divides `n` without a rest. Both tables hold a unit of 1, so one is found.
fn exact<'a>(n: u64, units: impl Iterator<Item = &'a (&'a str, u64)>) -> (&'a str, u64) {
    let fits = units.filter(|(_, factor)| n.is_multiple_of(*factor));
    let best = if n == 0 {
        fits.min_by_key(|(_, factor)| *factor)
    } else {
        fits.max_by_key(|(_, factor)| *factor)
    };
    *best.unwrap_or(&("", 1))
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, text[digits..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        assert_eq!(parse_size("4GiB"), Some(4 << 30));
        assert_eq!(parse_size("512 mb"), Some(512_000_000));
        assert_eq!(parse_size("17"), Some(17));
        for wrong in ["", "GiB", "-1GiB", "4 gigs", "99999999999TiB", "1.5GiB"] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_span_needs_its_unit() {
        assert_eq!(parse_span("10min"), Some(Duration::from_secs(600)));
        assert_eq!(parse_span("250ms"), Some(Duration::from_millis(250)));
        for wrong in ["", "10", "m", "10m", "-3s", "999999999999999999d"] {
            assert_eq!(parse_span(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_shown_reads_back_the_same() {
        for n in [0, 1, 1000, 1024, 1536, 4 << 30, (4 << 30) + 1, 3 << 40] {
            assert_eq!(parse_size(&show_size(n)), Some(n), "{}", show_size(n));
            let span = Duration::from_millis(n);
            assert_eq!(
                parse_span(&show_span(span)),
                Some(span),
                "{}",
                show_span(span)
            );
        }
        assert_eq!(show_size(4 << 30), "4GiB");
        assert_eq!(show_span(Duration::from_secs(600)), "10min");
    }
}
