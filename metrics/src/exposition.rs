//! The Prometheus text format, as far as kubelets' `/metrics/resource` goes: lines of name, labels, value and time.
//! Read in place, since every kubelet sends one such page a second.

/// One sample, borrowed from the page.
#[derive(Debug, PartialEq)]
pub(crate) struct Sample<'a> {
    pub name: &'a str,
    labels: &'a str,
    pub value: f64,
    /// Milliseconds since the epoch, where the line says so.
    pub at: Option<i64>,
}

impl Sample<'_> {
    /// The value of a label. Kubernetes' names need no escapes, so a value with one is not looked up here.
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        let mut rest = self.labels;
        while let Some((key, tail)) = rest.split_once("=\"") {
            let end = closing_quote(tail)?;
            if key.trim_start_matches([',', ' ']) == name {
                return Some(&tail[..end]);
            }
            rest = &tail[end + 1..];
        }
        None
    }
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|b| {
        let closes = b == b'"' && !escaped;
        escaped = b == b'\\' && !escaped;
        closes
    })
}

/// All samples of a page; a line that is none is counted in `bad` and passed over.
pub(crate) fn samples<'a>(page: &'a str, bad: &'a mut usize) -> impl Iterator<Item = Sample<'a>> + 'a {
    page.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).filter_map(move |line| {
        let sample = sample(line);
        if sample.is_none() {
            *bad += 1;
        }
        sample
    })
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let (name, labels, rest) = match line.split_once('{') {
        Some((name, tail)) => {
            let end = closing_brace(tail)?;
            (name, &tail[..end], &tail[end + 1..])
        }
        None => {
            let (name, rest) = line.split_once(' ')?;
            (name, "", rest)
        }
    };
    let mut words = rest.split_ascii_whitespace();
    let value = words.next()?.parse().ok()?;
    let at = words.next().map(str::parse).transpose().ok()?;
    (!name.is_empty() && words.next().is_none()).then_some(Sample { name, labels, value, at })
}

/// The brace that ends the labels, not one inside a value.
fn closing_brace(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    text.bytes().position(|b| {
        let closes = b == b'}' && !quoted;
        if b == b'"' && !escaped {
            quoted = !quoted;
        }
        escaped = b == b'\\' && !escaped;
        closes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_bad_ones_counted() {
        let page = "# HELP x y\n# TYPE x counter\n\
            container_cpu_usage_seconds_total{container=\"c\",namespace=\"n\",pod=\"p\"} 1.5 1700000000123\n\
            up 1\n\
            tricky{a=\"}\\\"{\",pod=\"q\"} NaN\n\
            no_value{a=\"b\"}\n\
            {a=\"b\"} 1\n\
            words 1 2 3\n\
            open{a=\"b 1\n\
            text abc\n";
        let mut bad = 0;
        let found: Vec<_> = samples(page, &mut bad).collect();
        let shown: Vec<_> = found.iter().map(|s| (s.name, s.label("pod"), s.at)).collect();
        assert_eq!(
            shown,
            [
                ("container_cpu_usage_seconds_total", Some("p"), Some(1_700_000_000_123)),
                ("up", None, None),
                ("tricky", Some("q"), None)
            ]
        );
        assert_eq!(found[0].value, 1.5);
        drop(found);
        assert_eq!(bad, 5);
    }
}
