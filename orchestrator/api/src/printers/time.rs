//! Ages, worded as `duration.HumanDuration` of apimachinery.

use serde_json::Value;

/// The time since an RFC 3339 timestamp; `<unknown>` where there is none.
pub fn age(timestamp: Option<&Value>, now: i64) -> String {
    seconds(timestamp).map_or_else(|| "<unknown>".to_owned(), |then| human_duration(now - then))
}

/// Unix seconds of an RFC 3339 timestamp.
pub(super) fn seconds(timestamp: Option<&Value>) -> Option<i64> {
    timestamp.and_then(Value::as_str)?.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

/// Two units at most, and the second only while the first is small.
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    match seconds {
        i64::MIN..=-2 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        _ if seconds < 2 * 60 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 3 * 60 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => two(days, "d", hours % 24, "h"),
        _ if days < 2 * 365 => format!("{days}d"),
        _ if days < 8 * 365 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

fn two(large: i64, large_unit: &str, small: i64, small_unit: &str) -> String {
    if small == 0 {
        format!("{large}{large_unit}")
    } else {
        format!("{large}{large_unit}{small}{small_unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_kubectl_shows_them() {
        const MINUTE: i64 = 60;
        const HOUR: i64 = 60 * MINUTE;
        const DAY: i64 = 24 * HOUR;
        for (seconds, want) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (121, "2m1s"),
            (9 * MINUTE + 59, "9m59s"),
            (10 * MINUTE + 30, "10m"),
            (179 * MINUTE, "179m"),
            (3 * HOUR, "3h"),
            (7 * HOUR + 59 * MINUTE, "7h59m"),
            (8 * HOUR + 59 * MINUTE, "8h"),
            (47 * HOUR, "47h"),
            (2 * DAY, "2d"),
            (7 * DAY + 23 * HOUR, "7d23h"),
            (8 * DAY + HOUR, "8d"),
            (729 * DAY, "729d"),
            (730 * DAY, "2y"),
            (800 * DAY, "2y70d"),
            (9 * 365 * DAY, "9y"),
        ] {
            assert_eq!(human_duration(seconds), want, "{seconds}");
        }
    }

    #[test]
    fn ages() {
        let stamp = Value::from("2026-01-01T00:00:00Z");
        assert_eq!(age(Some(&stamp), 1_767_225_600 + 61), "61s");
        assert_eq!(age(Some(&Value::from("2026-01-01T00:00:00.500000Z")), 1_767_225_605), "5s");
        assert_eq!(age(None, 0), "<unknown>");
        assert_eq!(age(Some(&Value::Null), 0), "<unknown>");
        assert_eq!(age(Some(&Value::from("yesterday")), 0), "<unknown>");
    }
}
