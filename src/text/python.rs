//! What chat templates expect of Python: `json.dumps` and `strftime`, byte for byte.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// `json.dumps(value, ensure_ascii=False, indent=, separators=, sort_keys=)`.
pub(super) fn json_dumps(
    value: &Value,
    indent: Option<usize>,
    separators: Option<[String; 2]>,
    sort_keys: bool,
) -> String {
    let between = if indent.is_some() { "," } else { ", " };
    let [between, after_key] = separators.unwrap_or([between.into(), ": ".into()]);
    let style = Style {
        indent,
        between,
        after_key,
        sort_keys,
    };
    let mut out = String::new();
    style.write(value, 0, &mut out);
    out
}

struct Style {
    indent: Option<usize>,
    between: String,
    after_key: String,
    sort_keys: bool,
}

impl Style {
    fn write(&self, value: &Value, depth: usize, out: &mut String) {
        match value {
            Value::Number(n) => match n.as_f64().filter(|_| n.is_f64()) {
                Some(x) => out.push_str(&float_repr(x)),
                None => out.push_str(&n.to_string()),
            },
            Value::Array(items) => {
                let each = |item: &Value, out: &mut String| self.write(item, depth + 1, out);
                self.group('[', items.iter(), ']', depth, out, each);
            }
            Value::Object(map) => {
                let mut entries: Vec<(&String, &Value)> = map.iter().collect();
                if self.sort_keys {
                    entries.sort_by_key(|entry| entry.0);
                }
                let each = |(key, item): (&String, &Value), out: &mut String| {
                    out.push_str(&Value::from(key.as_str()).to_string());
                    out.push_str(&self.after_key);
                    self.write(item, depth + 1, out);
                };
                self.group('{', entries.into_iter(), '}', depth, out, each);
            }
            // null, true, false; strings escape what Python escapes.
            plain => out.push_str(&plain.to_string()),
        }
    }

    fn group<T>(
        &self,
        open: char,
        items: impl ExactSizeIterator<Item = T>,
        close: char,
        depth: usize,
        out: &mut String,
        each: impl Fn(T, &mut String),
    ) {
        let empty = items.len() == 0;
        out.push(open);
        for (i, item) in items.enumerate() {
            if i > 0 {
                out.push_str(&self.between);
            }
            self.new_line(depth + 1, out);
            each(item, out);
        }
        if !empty {
            self.new_line(depth, out);
        }
        out.push(close);
    }

    fn new_line(&self, depth: usize, out: &mut String) {
        if let Some(width) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', width.min(64) * depth));
        }
    }
}

/// Python's `repr`: the shortest digits that read back, with an exponent below 1e-4 and from 1e16.
fn float_repr(x: f64) -> String {
    let scientific = format!("{x:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if x == 0.0 || (-4..16).contains(&exponent) {
        return format!("{x:?}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

const DAYS: [&str; 7] = [
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// `datetime.strftime`, in UTC, for the directives that prompts use; others stay as they are.
pub(super) fn strftime(format: &str, now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let hour = second / 3600;
    let minute = second / 60 % 60;
    let (weekday, month_name) = (DAYS[days as usize % 7], MONTHS[month as usize - 1]);
    let first_day = (0..).take_while(|&d| civil(days.saturating_sub(d)).0 == year);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => out += &year.to_string(),
            Some('y') => out += &format!("{:02}", year % 100),
            Some('m') => out += &format!("{month:02}"),
            Some('B') => out += month_name,
            Some('b' | 'h') => out += &month_name[..3],
            Some('d') => out += &format!("{day:02}"),
            Some('e') => out += &format!("{day:2}"),
            Some('j') => out += &format!("{:03}", first_day.clone().take(366).count()),
            Some('A') => out += weekday,
            Some('a') => out += &weekday[..3],
            Some('H') => out += &format!("{hour:02}"),
            Some('I') => out += &format!("{:02}", (hour + 11) % 12 + 1),
            Some('p') => out += if hour < 12 { "AM" } else { "PM" },
            Some('M') => out += &format!("{minute:02}"),
            Some('S') => out += &format!("{:02}", second % 60),
            Some('F') => out += &format!("{year}-{month:02}-{day:02}"),
            Some('T') => out += &format!("{hour:02}:{minute:02}:{:02}", second % 60),
            Some('Z') => out += "UTC",
            Some('z') => out += "+0000",
            Some('%') => out.push('%'),
            Some(other) => out.extend(['%', other]),
            None => out.push('%'),
        }
    }
    out
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let of_era = z % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn json_looks_as_python_prints_it() {
        let value = json!({"b": [1, 2.0, 1e-5, 1e16, 0.1, -0.0, 123456789.125], "a": "<é\n\u{1}'\"&>", "c": {}, "d": [], "e": null, "f": true});
        assert_eq!(
            json_dumps(&value, None, None, false),
            r#"{"b": [1, 2.0, 1e-05, 1e+16, 0.1, -0.0, 123456789.125], "a": "<é\n\u0001'\"&>", "c": {}, "d": [], "e": null, "f": true}"#
        );
        let value = json!({"b": [1, {"x": 2}], "a": []});
        assert_eq!(
            json_dumps(&value, Some(2), None, true),
            "{\n  \"a\": [],\n  \"b\": [\n    1,\n    {\n      \"x\": 2\n    }\n  ]\n}"
        );
        let tight = Some([",".into(), ":".into()]);
        assert_eq!(
            json_dumps(&value, None, tight, false),
            r#"{"b":[1,{"x":2}],"a":[]}"#
        );
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |s: u64| UNIX_EPOCH + Duration::from_secs(s);
        let format = "%a %A %d %e %b %B %Y %y %H:%M:%S %I %p %j %F %T %% %Q";
        assert_eq!(
            strftime(format, at(951_782_399)),
            "Mon Monday 28 28 Feb February 2000 00 23:59:59 11 PM 059 2000-02-28 23:59:59 % %Q"
        );
        assert_eq!(
            strftime("%d %b %Y %j", at(1_735_603_200)),
            "31 Dec 2024 366"
        );
        assert_eq!(strftime("%F %I%p %a", at(0)), "1970-01-01 12AM Thu");
    }
}
