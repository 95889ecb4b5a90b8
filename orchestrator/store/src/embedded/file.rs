//! The directory of an embedded store: who may open it, and whether what lies there is ours and whole.
//!
//! A store directory holds `store.redb` and `lock`. A directory with anything else and no store is somebody else's
//! and stays untouched; a store that cannot be read is reported and left as it is, never replaced.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use redb::{Database, DatabaseError, ReadableDatabase, StorageError, TableDefinition, TableError};

use crate::{Result, Revision, StoreError};

/// Revision → `record::Record`.
pub(super) const EVENTS: TableDefinition<'static, Revision, &[u8]> = TableDefinition::new("events");
/// Name → number: `FORMAT_KEY`, `COMPACTED_KEY`.
pub(super) const META: TableDefinition<'static, &str, u64> = TableDefinition::new("loadline-store");

const FORMAT_KEY: &str = "format";
pub(super) const COMPACTED_KEY: &str = "compacted";
const FORMAT: u64 = 1;

const STORE: &str = "store.redb";
/// A store being made; nothing in it was ever acknowledged.
const UNFINISHED: &str = "store.redb.new";
const LOCK: &str = "lock";

const REDB_MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

/// An open store file; nobody else can open it while this lives.
#[derive(Debug)]
pub(super) struct StoreFile {
    // Fields drop in order: the file is closed before the lock goes.
    pub(super) database: Database,
    _lock: Option<File>,
}

impl StoreFile {
    pub(super) fn open(dir: &Path, cache_bytes: usize) -> Result<Self> {
        let failed = |error: std::io::Error| open_error(dir, &format!("cannot be used: {error}"));
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        refuse_foreign(dir)?;
        let lock = lock(dir)?;
        let path = dir.join(STORE);
        if !path.try_exists().map_err(failed)? {
            create(dir, cache_bytes)?;
        }
        check_magic(dir, &path)?;
        let database = builder(cache_bytes).open(&path).map_err(|error| explain(dir, error))?;
        check_format(dir, &database)?;
        Ok(StoreFile { database, _lock: Some(lock) })
    }

    /// On a backend of the caller's (fault tests).
    #[cfg(test)]
    pub(super) fn on_backend(backend: impl redb::StorageBackend) -> Self {
        let database = builder(1 << 20).create_with_backend(backend).unwrap();
        if read_format(&database).unwrap().is_none() {
            initialize(&database).unwrap();
        }
        StoreFile { database, _lock: None }
    }
}

pub(super) fn damaged(dir: &Path, what: &str) -> StoreError {
    open_error(
        dir,
        &format!(
            "the store is damaged ({what}) and was left as it is; restore {STORE} from a backup, \
             or move the directory away to start an empty cluster"
        ),
    )
}

fn open_error(dir: &Path, what: &str) -> StoreError {
    StoreError::Open(format!("store directory {}: {what}", dir.display()))
}

fn builder(cache_bytes: usize) -> redb::Builder {
    let mut builder = Database::builder();
    // The whole file is verified: a damaged page is found now, not in the middle of a read.
    builder.set_cache_size(cache_bytes).set_check_integrity_on_open(true);
    builder
}

fn refuse_foreign(dir: &Path) -> Result<()> {
    let failed = |error: std::io::Error| open_error(dir, &format!("cannot be read: {error}"));
    let mut foreign = None;
    for entry in dir.read_dir().map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        match name.to_str() {
            Some(STORE) => return Ok(()),
            Some(UNFINISHED | LOCK | "lost+found") => {}
            _ => foreign = Some(name),
        }
    }
    match foreign {
        None => Ok(()),
        Some(name) => Err(open_error(
            dir,
            &format!(
                "it holds {name:?} but no Loadline store; choose an empty or new directory (nothing was changed)"
            ),
        )),
    }
}

fn lock(dir: &Path) -> Result<File> {
    let failed = |error: std::io::Error| open_error(dir, &format!("cannot be locked: {error}"));
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.join(LOCK))
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(error)) => return Err(failed(error)),
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            let owner = match file.read_to_string(&mut owner) {
                Ok(_) if !owner.trim().is_empty() => format!("process {}", owner.trim()),
                _ => "another process".to_owned(),
            };
            return Err(open_error(
                dir,
                &format!("{owner} is using it; stop that one, or choose another data directory"),
            ));
        }
    }
    // Only information for the message above.
    file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

/// Makes an empty store under another name and moves it into place, so that a crash leaves no half-made one.
fn create(dir: &Path, cache_bytes: usize) -> Result<()> {
    let failed = |error: std::io::Error| open_error(dir, &format!("cannot create the store: {error}"));
    let unfinished = dir.join(UNFINISHED);
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let database = builder(cache_bytes).create(&unfinished).map_err(|error| explain(dir, error))?;
    initialize(&database).map_err(|error| open_error(dir, &format!("cannot create the store: {error}")))?;
    database.close().map_err(|error| explain(dir, error))?;
    File::open(&unfinished).and_then(|file| file.sync_all()).map_err(failed)?;
    std::fs::rename(&unfinished, dir.join(STORE)).map_err(failed)?;
    // The names must survive a power loss as the contents do.
    sync_directory(dir).map_err(failed)?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync_directory(parent).map_err(failed)?;
    }
    Ok(())
}

fn sync_directory(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

fn initialize(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert(FORMAT_KEY, FORMAT)?;
    transaction.open_table(EVENTS)?;
    transaction.commit()?;
    Ok(())
}

fn check_magic(dir: &Path, path: &Path) -> Result<()> {
    let failed = |error: std::io::Error| open_error(dir, &format!("{STORE} cannot be read: {error}"));
    let mut head = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(REDB_MAGIC.len() as u64).read_to_end(&mut head).map_err(failed)?;
    if head == REDB_MAGIC {
        return Ok(());
    }
    if head.len() < REDB_MAGIC.len() {
        return Err(damaged(dir, &format!("{STORE} is cut off after {} bytes", head.len())));
    }
    Err(open_error(
        dir,
        &format!(
            "{STORE} is not a Loadline store; it was left as it is, move it away or choose another directory"
        ),
    ))
}

fn check_format(dir: &Path, database: &Database) -> Result<()> {
    match read_format(database) {
        Ok(Some(FORMAT)) => Ok(()),
        Ok(Some(format)) if format > FORMAT => Err(open_error(
            dir,
            &format!(
                "written by a newer Loadline (store format {format}, this one reads up to {FORMAT}); \
                 upgrade Loadline to open it"
            ),
        )),
        Ok(Some(format)) => Err(damaged(dir, &format!("unknown store format {format}"))),
        Ok(None) => Err(open_error(
            dir,
            &format!("{STORE} is a redb database but not a Loadline store; choose another directory"),
        )),
        Err(error) => Err(damaged(dir, &error.to_string())),
    }
}

fn read_format(database: &Database) -> Result<Option<u64>, redb::Error> {
    let transaction = database.begin_read()?;
    match transaction.open_table(META) {
        Ok(table) => Ok(redb::ReadableTable::get(&table, FORMAT_KEY)?.map(|format| format.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn explain(dir: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            open_error(dir, &format!("another process has {STORE} open; stop that one"))
        }
        DatabaseError::UpgradeRequired(version) => open_error(
            dir,
            &format!(
                "{STORE} has file format {version}, which this Loadline does not read; use the version that wrote it"
            ),
        ),
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() != ErrorKind::InvalidData && error.kind() != ErrorKind::UnexpectedEof =>
        {
            open_error(dir, &format!("{STORE} cannot be opened: {error}"))
        }
        error => damaged(dir, &error.to_string()),
    }
}
