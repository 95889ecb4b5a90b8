//! Waiting for the cluster without guessing how long: look again until it is so, and on giving up say what was seen.

use std::time::{Duration, Instant};

/// How often it looks again.
const AGAIN: Duration = Duration::from_millis(50);

/// Calls `look` until it returns `Ok`. Its error is what it saw instead; the last one is in the panic's message.
#[track_caller]
pub fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        loop {
            let left = within.saturating_sub(start.elapsed());
            let seen = match tokio::time::timeout(left.max(AGAIN), look()).await {
                Ok(Ok(value)) => return value,
                Ok(Err(seen)) => seen,
                Err(_) => "no answer in the time that was left".to_owned(),
            };
            assert!(start.elapsed() < within, "{place}: not within {within:?}: {what}\nlast seen: {seen}");
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Calls `look` for as long as `during`; its first error fails the test.
#[track_caller]
pub fn steadily(
    what: &str,
    during: Duration,
    mut look: impl AsyncFnMut() -> Result<(), String>,
) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        while start.elapsed() < during {
            if let Err(seen) = look().await {
                panic!("{place}: no longer so after {:?}: {what}\nseen: {seen}", start.elapsed());
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}
