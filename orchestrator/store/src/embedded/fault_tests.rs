//! Disks that fail and power that goes: the store on a redb backend that can do both.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use redb::{BackendError, StorageBackend};

use super::*;
use crate::feed::locked;

/// A file in memory that knows what a disk would still have after a power loss.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Platters>>);

#[derive(Debug, Default)]
struct Platters {
    written: Vec<u8>,
    synced: Vec<u8>,
    /// Writes since the last sync; a power loss may keep any of them.
    loose: Vec<(u64, Vec<u8>)>,
    syncs: usize,
    /// Fails this sync and all after it.
    fail_from: Option<usize>,
    fail_writes: bool,
}

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        Ok(locked(&self.0).written.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        let disk = locked(&self.0);
        let start = offset as usize;
        let found = disk.written.get(start..start + out.len()).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        let mut disk = locked(&self.0);
        disk.written.resize(len as usize, 0);
        // As a journalling file system: the size is kept with the next sync, or before.
        let grown = disk.synced.len().max(len as usize);
        disk.synced.resize(grown, 0);
        Ok(())
    }

    fn sync_data(&self) -> std::io::Result<()> {
        let mut disk = locked(&self.0);
        disk.syncs += 1;
        if disk.fail_from.is_some_and(|first| disk.syncs >= first) {
            return Err(std::io::Error::other("the disk is gone"));
        }
        disk.synced = disk.written.clone();
        disk.loose.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        let mut disk = locked(&self.0);
        if disk.fail_writes {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        let start = offset as usize;
        disk.written[start..start + data.len()].copy_from_slice(data);
        disk.loose.push((offset, data.to_vec()));
        Ok(())
    }

    fn try_lock_range(&self, _: std::ops::Bound<u64>, _: std::ops::Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _: std::ops::Bound<u64>, _: std::ops::Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}

impl Disk {
    /// What may be left if the power goes now: everything synced, and those later writes that `keep` picks, each cut
    /// at a sector.
    fn after_power_loss(&self, mut keep: impl FnMut() -> u64) -> Disk {
        let disk = locked(&self.0);
        let mut left = disk.synced.clone();
        for (offset, data) in &disk.loose {
            let sectors = data.len().div_ceil(512) as u64;
            let kept = (keep() % (2 * sectors)).min(sectors) as usize * 512;
            let data = &data[..kept.min(data.len())];
            left[*offset as usize..*offset as usize + data.len()].copy_from_slice(data);
        }
        Disk(Arc::new(Mutex::new(Platters { written: left.clone(), synced: left, ..Platters::default() })))
    }

    fn open(&self) -> Embedded {
        let file = StoreFile::on_backend(self.clone());
        let (state, garbage) = load_state(&file).unwrap();
        Embedded::new(file, state, garbage, &Options::default())
    }
}

async fn all(store: &Embedded) -> BTreeMap<String, Bytes> {
    let found = store.range(crate::prefix_range(""), 0, At::Latest).await.unwrap();
    found.entries.into_iter().map(|entry| (entry.key.to_string(), entry.value)).collect()
}

fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 8
    }
}

/// At every moment: what was acknowledged is there afterwards, and what is there was written.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn power_loss_keeps_what_was_acknowledged() {
    let disk = Disk::default();
    let store = Arc::new(disk.open());
    let acknowledged: Arc<Mutex<BTreeMap<String, Bytes>>> = Arc::default();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (store, acknowledged) = (store.clone(), acknowledged.clone());
            tokio::spawn(async move {
                let mut next = random(writer + 7);
                for number in 0..150 {
                    let key = format!("{writer}/{number}");
                    let value = Bytes::from(vec![number as u8; next() as usize % 3000]);
                    store.put(&key, value.clone(), Expect::Absent).await.unwrap();
                    locked(&acknowledged).insert(key, value);
                    if number % 40 == 39 && writer == 0 {
                        store.compact(store.revision().await.unwrap()).await.unwrap();
                    }
                }
            })
        })
        .collect();
    let mut next = random(42);
    let mut losses = 0;
    while writers.iter().any(|writer| !writer.is_finished()) || losses < 20 {
        let expected = locked(&acknowledged).clone();
        let survivor = disk.after_power_loss(&mut next).open();
        let found = all(&survivor).await;
        for (key, value) in expected {
            assert!(found.get(&key) == Some(&value), "{key} is lost in power loss {losses}");
        }
        let more = survivor.put("more", "v".into(), Expect::Absent).await.unwrap();
        assert!(more.mod_revision > found.len() as u64);
        losses += 1;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    eprintln!("{losses} power losses");
}

#[tokio::test]
async fn after_a_failed_commit_nothing_is_acknowledged() {
    for fail_writes in [false, true] {
        let disk = Disk::default();
        let store = disk.open();
        let before = store.put("before", "v".into(), Expect::Any).await.unwrap();
        {
            let mut platters = locked(&disk.0);
            platters.fail_from = Some(platters.syncs + 1);
            platters.fail_writes = fail_writes;
        }
        // Many at once: those that wait behind the failing commit are refused as well.
        let puts =
            futures::future::join_all((0..50).map(|_| store.put("lost", "v".into(), Expect::Any))).await;
        for result in puts {
            assert!(matches!(result, Err(StoreError::Fatal(_))), "{result:?}");
        }
        // Healthy again, it seems; but what is on it nobody knows before a restart.
        {
            let mut platters = locked(&disk.0);
            platters.fail_from = None;
            platters.fail_writes = false;
        }
        let put = store.put("later", "v".into(), Expect::Any).await;
        let delete = store.delete("before", Expect::Any).await;
        let compact = store.compact(2).await;
        let ready = store.ready().await;
        for result in [put.map(drop), delete.map(drop), compact, ready] {
            let said = result.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(said.contains("restart to recover"), "{said}");
        }
        assert_eq!(store.revision().await.unwrap(), before.mod_revision);
        assert_eq!(store.get("lost", At::Latest).await.unwrap().0, None);
        store.close().await;

        let again = disk.after_power_loss(|| 0).open();
        assert_eq!(again.get("before", At::Latest).await.unwrap().0, Some(before));
        again.put("later", "v".into(), Expect::Absent).await.unwrap();
    }
}

/// A runtime that ends with writes in flight must not leave callers of the next one waiting.
#[test]
fn a_runtime_that_ends_leaves_the_store_usable() {
    let disk = Disk::default();
    let store = disk.open();
    for round in 0..20 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let put = store.put("a", "v".into(), Expect::Any);
            let _ = futures::poll!(std::pin::pin!(put));
        });
        runtime.shutdown_background();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let put = runtime.block_on(store.put("b", "v".into(), Expect::Any));
        assert!(put.is_ok() || matches!(put, Err(StoreError::Unavailable(_))), "round {round}: {put:?}");
        let put = runtime.block_on(store.put("b", "v".into(), Expect::Any));
        assert!(put.is_ok(), "round {round}: {put:?}");
    }
}
