//! Formats of strings as patterns of the whole string. Each takes a part of what its format allows, and
//! nothing that it does not; a format that has none here is not taken on trust.

macro_rules! date {
    () => {
        concat!(
            "[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])",
            "|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
        )
    };
}

macro_rules! time {
    () => {
        concat!(
            r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?",
            "([zZ]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
        )
    };
}

macro_rules! host {
    () => {
        "[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(\\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*"
    };
}

pub fn pattern(format: &str) -> Option<&'static str> {
    Some(match format {
        "date" => date!(),
        "time" => time!(),
        "date-time" => concat!(date!(), "[tT]", time!()),
        "duration" => "P([0-9]+[YMWD]|T[0-9]+[HMS])",
        "email" => concat!(r"[a-zA-Z0-9_%+-]+(\.[a-zA-Z0-9_%+-]+)*@", host!()),
        "hostname" => host!(),
        "ipv4" => {
            r"((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
        }
        "ipv6" => "([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}",
        "uuid" => "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}",
        "uri" => concat!(
            r"[a-zA-Z][a-zA-Z0-9+.-]*:(//",
            host!(),
            r"(:[0-9]{1,5})?(/[a-zA-Z0-9._~!$&'()*+,;=:@/-]*)?|[a-zA-Z0-9._~-][a-zA-Z0-9._~!$&'()*+,;=:@/-]*)",
            r"(\?[a-zA-Z0-9._~!$&'()*+,;=:@/?-]*)?(\#[a-zA-Z0-9._~!$&'()*+,;=:@/?-]*)?",
        ),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_what_its_examples_are() {
        let is = |format: &str, text: &str| {
            let pattern = pattern(format).expect(format);
            regex::Regex::new(&format!("^(?:{pattern})$"))
                .expect(format)
                .is_match(text)
        };
        for (format, good, bad) in [
            ("date", "2026-11-25", "2026-02-30"),
            ("time", "23:59:59.5Z", "24:00:00Z"),
            (
                "date-time",
                "2026-11-25T01:02:03+01:00",
                "2026-11-25 01:02:03",
            ),
            ("duration", "PT5M", "5 minutes"),
            ("email", "a.b@example.org", "a@b@c"),
            ("hostname", "a-b.example", "-a"),
            ("ipv4", "192.168.0.1", "256.0.0.1"),
            ("ipv6", "2001:db8:0:0:0:0:0:1", "2001"),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123e4567"),
            ("uri", "https://example.org:80/a/b?c=d#e", "no uri"),
        ] {
            assert!(is(format, good), "{format}: {good}");
            assert!(!is(format, bad), "{format}: {bad}");
        }
        assert!(is("uri", "mailto:a@example.org"));
        assert_eq!(pattern("colour"), None);
    }
}
