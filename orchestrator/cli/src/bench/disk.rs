//! What the disk alone can do: the baseline of every durable write.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Small appends, each synced, per second.
pub fn synced_appends(dir: &Path, seconds: Duration) -> Result<f64> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join("fsync-baseline");
    let mut file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
    let block = [0x5a_u8; 4096];
    let started = Instant::now();
    let mut count = 0_u32;
    while started.elapsed() < seconds {
        file.write_all(&block)?;
        file.sync_data()?;
        count += 1;
    }
    let rate = f64::from(count) / started.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    Ok(rate)
}
