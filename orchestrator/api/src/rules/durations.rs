//! Durations and cron times as users write them.

use std::time::Duration;

/// Units in the way of Go's `time.ParseDuration`, longest names first.
const UNITS: [(&str, f64); 7] =
    [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];

/// The fields of a cron time: least and greatest number, and names that stand for numbers.
const CRON: [(u32, u32, &[&str]); 5] =
    [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, MONTHS), (0, 7, DAYS)];
const MONTHS: &[&str] =
    &["", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Reads `200ms`, `10h` or `1h30m`. Negative and empty ones are refused.
pub fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let (unit, factor) = UNITS.iter().find(|(unit, _)| rest[end..].starts_with(unit))?;
        seconds += number * factor;
        rest = &rest[end + unit.len()..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

/// Whether a text has five good cron fields: `*`, numbers, names, ranges, steps and lists of them.
pub fn is_cron(text: &str) -> bool {
    let fields: Vec<&str> = text.split_whitespace().collect();
    fields.len() == CRON.len()
        && fields.iter().zip(CRON).all(|(f, range)| f.split(',').all(|i| is_item(i, range)))
}

fn is_item(item: &str, range: (u32, u32, &[&str])) -> bool {
    let (span, step) = item.split_once('/').map_or((item, None), |(s, n)| (s, Some(n)));
    let good_step = step.is_none_or(|n| n.parse::<u32>().is_ok_and(|n| n > 0 && n <= range.1));
    let good_span = match span.split_once('-') {
        Some((a, b)) => matches!((number(a, range), number(b, range)), (Some(a), Some(b)) if a <= b),
        None => span == "*" || number(span, range).is_some(),
    };
    good_step && good_span
}

fn number(text: &str, (min, max, names): (u32, u32, &[&str])) -> Option<u32> {
    let lower = text.to_lowercase();
    let named = names.iter().position(|n| !n.is_empty() && *n == lower).and_then(|i| u32::try_from(i).ok());
    named.or_else(|| text.parse().ok()).filter(|n| (min..=max).contains(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in
            [("200ms", 200), ("10h", 36_000_000), ("1h30m", 5_400_000), ("1.5s", 1500), ("0", 0)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "10", "-5s", "5x", "s", "1h 5m", "."] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn cron_times() {
        for text in ["0 8 * * 1-5", "*/5 * * * *", "0,30 0-6/2 1 jan,dec sun", "59 23 31 12 7"] {
            assert!(is_cron(text), "{text}");
        }
        for text in
            ["", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "5-1 * * * *", "*/0 * * * *", "@daily"]
        {
            assert!(!is_cron(text), "{text}");
        }
    }
}
