//! Container logs from Docker's json-file driver.

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;

use super::{Core, errors};
use crate::{LogOptions, Output, Result};

impl Core {
    pub(crate) async fn logs(
        &self,
        id: &str,
        options: &LogOptions,
    ) -> Result<BoxStream<'static, Result<Output>>> {
        // Docker answers for any container; we only for ours.
        self.observe(id).await?;
        // The client library knows whole seconds only; the rest of the second is cut off here, line by line.
        let fraction = options.since.filter(|since| since.subsec_nanosecond() != 0);
        let mut query = LogsOptionsBuilder::new()
            .stdout(true)
            .stderr(true)
            .follow(options.follow)
            .timestamps(options.timestamps || fraction.is_some());
        if let Some(tail) = options.tail {
            query = query.tail(&tail.to_string());
        }
        if let Some(since) = options.since {
            query = query.since(i32::try_from(since.as_second()).unwrap_or(i32::MAX));
        }
        let keep_times = options.timestamps;
        let subject = id.to_owned();
        let lines = self
            .client
            .logs(id, Some(query.build()))
            .map_err(move |error| errors::classify("read logs", &subject, error));
        let lines = lines.try_filter_map(move |line| async move {
            Ok(match fraction {
                Some(since) => since_instant(line, since, keep_times),
                None => Some(output(line)),
            })
        });
        // The first answer decides whether there is a stream at all, so wait for it unless it may never come.
        if options.follow {
            return Ok(lines.boxed());
        }
        let mut lines = Box::pin(lines.peekable());
        match lines.as_mut().peek().await {
            Some(Err(_)) => match lines.next().await {
                Some(Err(error)) => Err(error),
                _ => Ok(lines.boxed()),
            },
            _ => Ok(lines.boxed()),
        }
    }
}

pub(crate) fn output(line: LogOutput) -> Output {
    match line {
        LogOutput::StdErr { message } => Output::Stderr(message),
        LogOutput::StdOut { message } | LogOutput::StdIn { message } | LogOutput::Console { message } => {
            Output::Stdout(message)
        }
    }
}

/// A line that begins with its time: dropped when older, else with or without the time.
fn since_instant(line: LogOutput, since: Timestamp, keep_time: bool) -> Option<Output> {
    let line = output(line);
    let (Output::Stdout(bytes) | Output::Stderr(bytes)) = &line;
    let space = bytes.iter().position(|byte| *byte == b' ');
    let time = space.and_then(|at| std::str::from_utf8(&bytes[..at]).ok()?.parse::<Timestamp>().ok());
    let (Some(space), Some(time)) = (space, time) else { return Some(line) };
    if time < since {
        return None;
    }
    if keep_time {
        return Some(line);
    }
    let rest = bytes.slice(space + 1..);
    Some(match line {
        Output::Stdout(_) => Output::Stdout(rest),
        Output::Stderr(_) => Output::Stderr(rest),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_within_the_second() {
        let since: Timestamp = "2024-05-01T10:00:00.5Z".parse().unwrap();
        let line = |text: &'static str| LogOutput::StdErr { message: text.into() };
        let old = line("2024-05-01T10:00:00.400000000Z old\n");
        let new = line("2024-05-01T10:00:00.600000000Z new line\n");
        assert_eq!(since_instant(old, since, false), None);
        assert_eq!(since_instant(new.clone(), since, false), Some(Output::Stderr("new line\n".into())));
        let kept = Output::Stderr("2024-05-01T10:00:00.600000000Z new line\n".into());
        assert_eq!(since_instant(new, since, true), Some(kept));
    }
}
