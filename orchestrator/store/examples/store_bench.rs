//! Durable puts per second of the embedded store for 1, 32 and 128 writers, with the disk's own fsync rate beside it.
//!
//! `cargo run --release -p loadline-store --example store_bench [-- DIR [SECONDS]]`; DIR should be on the disk that
//! counts (default: the current directory). Makes a directory of its own there and removes it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use loadline_store::{Embedded, EmbeddedOptions, Expect, Store};

/// About a small ConfigMap as JSON.
const VALUE_BYTES: usize = 500;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().map_or_else(|| PathBuf::from("."), PathBuf::from);
    let time = Duration::from_secs_f64(arguments.next().map_or(Ok(3.0), |seconds| seconds.parse())?);
    let dir = parent.join(format!("store-bench-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let result = run(&dir, time).await;
    std::fs::remove_dir_all(&dir)?;
    result
}

async fn run(dir: &Path, time: Duration) -> Result<(), Box<dyn std::error::Error>> {
    let (rate, p99) = fsyncs(dir, time)?;
    println!("baseline: 4 KiB append + fdatasync   {rate:>8.0}/s  p99 {p99:>7.3} ms");
    let mut total = 0;
    let store_dir = dir.join("store");
    {
        let store: Arc<dyn Store> = Arc::new(Embedded::open(&store_dir, EmbeddedOptions::default())?);
        for writers in [1, 32, 128] {
            let (count, mut took) = puts(&store, writers, time).await?;
            took.sort_unstable();
            let p99 = took[took.len() * 99 / 100].as_secs_f64() * 1e3;
            let rate = count as f64 / time.as_secs_f64();
            println!(
                "create {VALUE_BYTES} B, {writers:>3} writers          {rate:>8.0}/s  p99 {p99:>7.3} ms"
            );
            total += count;
        }
    }
    let file = std::fs::metadata(store_dir.join("store.redb"))?.len();
    let started = Instant::now();
    let store = loop {
        // The runtime may still hold the last writer for an instant.
        match Embedded::open(&store_dir, EmbeddedOptions::default()) {
            Ok(store) => break store,
            Err(_) if started.elapsed() < Duration::from_secs(1) => tokio::task::yield_now().await,
            Err(error) => return Err(error.into()),
        }
    };
    println!(
        "open with {total} objects ({} MiB)      {:>8.3} s   resident {} MiB",
        file >> 20,
        started.elapsed().as_secs_f64(),
        resident_bytes()? >> 20,
    );
    let started = Instant::now();
    let page = store.range(String::new()..String::new(), 0, Default::default()).await?;
    println!(
        "range over all {} objects        {:>8.3} s",
        page.entries.len(),
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

fn fsyncs(dir: &Path, time: Duration) -> std::io::Result<(f64, f64)> {
    let file = File::create(dir.join("fsync"))?;
    let page = [7; 4096];
    let (started, mut took) = (Instant::now(), Vec::new());
    while started.elapsed() < time {
        let one = Instant::now();
        file.write_all_at(&page, took.len() as u64 * 4096)?;
        file.sync_data()?;
        took.push(one.elapsed());
    }
    took.sort_unstable();
    let p99 = took[took.len() * 99 / 100].as_secs_f64() * 1e3;
    Ok((took.len() as f64 / started.elapsed().as_secs_f64(), p99))
}

async fn puts(
    store: &Arc<dyn Store>,
    writers: usize,
    time: Duration,
) -> Result<(usize, Vec<Duration>), Box<dyn std::error::Error>> {
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    let deadline = Instant::now() + time;
    let tasks = (0..writers).map(|writer| {
        let (store, value) = (store.clone(), value.clone());
        tokio::spawn(async move {
            let mut took = Vec::new();
            while Instant::now() < deadline {
                let key = format!("/registry/configmaps/default/{writers}-{writer}-{}", took.len());
                let started = Instant::now();
                store.put(&key, value.clone(), Expect::Absent).await?;
                took.push(started.elapsed());
            }
            Ok::<_, loadline_store::StoreError>(took)
        })
    });
    let mut all = Vec::new();
    for task in futures::future::join_all(tasks.collect::<Vec<_>>()).await {
        all.extend(task??);
    }
    Ok((all.len(), all))
}

fn resident_bytes() -> std::io::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    Ok(pages * 4096)
}
