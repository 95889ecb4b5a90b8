//! Container logs from Docker's json-file driver.

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use super::{Core, errors, wire};
use crate::{LogOptions, Output, Result};

impl Core {
    pub(crate) async fn logs(
        &self,
        id: &str,
        options: &LogOptions,
    ) -> Result<BoxStream<'static, Result<Output>>> {
        // Docker answers for any container; we only for ours.
        let tty = self.observe(id).await?.tty;
        let failed = |error| errors::classify("read logs", id, error);
        let stream =
            self.wire.get(&format!("/containers/{id}/logs?{}", query(options))).await.map_err(failed)?;
        let subject = id.to_owned();
        let broken = move |error: std::io::Error| errors::classify("read logs", &subject, error.into());
        Ok(wire::output(stream, tty).map_err(broken).boxed())
    }
}

fn query(options: &LogOptions) -> String {
    let mut query = format!("stdout=1&stderr=1&follow={}&timestamps={}", options.follow, options.timestamps);
    if let Some(tail) = options.tail {
        query.push_str(&format!("&tail={tail}"));
    }
    if let Some(since) = options.since.filter(|since| since.as_second() >= 0) {
        query.push_str(&format!("&since={}.{:09}", since.as_second(), since.subsec_nanosecond()));
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let options = LogOptions {
            follow: true,
            tail: Some(5),
            since: "2024-05-01T10:00:00.5Z".parse().ok(),
            timestamps: true,
        };
        let expected = "stdout=1&stderr=1&follow=true&timestamps=true&tail=5&since=1714557600.500000000";
        assert_eq!(query(&options), expected);
        assert_eq!(query(&LogOptions::default()), "stdout=1&stderr=1&follow=false&timestamps=false");
    }
}
