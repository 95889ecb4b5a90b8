//! Group commit. Whoever submits a write while nobody writes starts the writer; it commits what waits, and again
//! what came meanwhile, until nothing waits. So a lone write goes to disk at once and many share one fsync. Answers
//! leave after the fsync. After the first failed commit nothing is written or acknowledged any more.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use redb::{ReadableTable, Table};
use tokio::sync::oneshot;
use tracing::error;

use super::Shared;
use super::file::{COMPACTED_KEY, EVENTS, META};
use super::index::Version;
use super::record::Record;
use crate::feed::locked;
use crate::{Entry, Event, Expect, Result, Revision, StoreError};

/// One commit takes at most this much, so that no writer waits long behind a flood.
const BATCH_JOBS: usize = 1024;
const BATCH_BYTES: usize = 8 << 20;
/// Compacted records removed with each commit.
const BATCH_GARBAGE: usize = 512;

pub(super) enum Job {
    Put { key: Arc<str>, value: Bytes, expect: Expect, reply: oneshot::Sender<Result<Entry>> },
    Delete { key: Arc<str>, expect: Expect, reply: oneshot::Sender<Result<(Revision, Entry)>> },
    Compact { revision: Revision, reply: oneshot::Sender<Result<()>> },
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Job::Put { key, value, .. } => key.len() + value.len(),
            Job::Delete { .. } | Job::Compact { .. } => 0,
        }
    }
}

/// An answer that waits for the commit.
enum Answer {
    Put(oneshot::Sender<Result<Entry>>, Result<Entry>),
    Delete(oneshot::Sender<Result<(Revision, Entry)>>, Result<(Revision, Entry)>),
    Compact(oneshot::Sender<Result<()>>, Result<()>),
}

impl Answer {
    fn send(self) {
        match self {
            Answer::Put(reply, answer) => drop(reply.send(answer)),
            Answer::Delete(reply, answer) => drop(reply.send(answer)),
            Answer::Compact(reply, answer) => drop(reply.send(answer)),
        }
    }
}

#[derive(Default)]
pub(super) struct Queue {
    jobs: VecDeque<Job>,
    writing: bool,
    /// Revisions whose records compaction no longer needs.
    garbage: VecDeque<Revision>,
    stopped: Option<Stopped>,
}

#[derive(Clone)]
enum Stopped {
    Closed,
    Failed(String),
}

impl Stopped {
    fn error(&self) -> StoreError {
        match self {
            Stopped::Closed => StoreError::Unavailable("the store was closed".to_owned()),
            Stopped::Failed(why) => StoreError::Fatal(why.clone()),
        }
    }
}

impl Queue {
    pub(super) fn with_garbage(garbage: Vec<Revision>) -> Self {
        Queue { garbage: garbage.into(), ..Queue::default() }
    }

    /// The writer, which is the caller, takes it with its next commits.
    pub(super) fn add_garbage(&mut self, garbage: Vec<Revision>) {
        self.garbage.extend(garbage);
    }

    pub(super) fn check(&self) -> Result<()> {
        self.stopped.as_ref().map_or(Ok(()), |stopped| Err(stopped.error()))
    }

    fn stop(&mut self, stopped: Stopped) -> Vec<Job> {
        self.stopped.get_or_insert(stopped);
        self.garbage.clear();
        self.jobs.drain(..).collect()
    }

    fn take(&mut self) -> Option<(Vec<Job>, Vec<Revision>)> {
        let mut bytes = 0;
        let fits = |job: &&Job| {
            bytes += job.bytes();
            bytes <= BATCH_BYTES
        };
        // At least one, however large.
        let count = self.jobs.iter().take(BATCH_JOBS).take_while(fits).count().max(1).min(self.jobs.len());
        let jobs: Vec<Job> = self.jobs.drain(..count).collect();
        let garbage = self.garbage.len().min(BATCH_GARBAGE);
        let garbage: Vec<Revision> = self.garbage.drain(..garbage).collect();
        (!jobs.is_empty() || !garbage.is_empty()).then_some((jobs, garbage))
    }
}

/// Needs a tokio runtime: the writer runs on its blocking pool, which also keeps a paused clock from running ahead
/// of a commit. A job that is dropped unanswered tells its caller by the closed reply channel.
pub(super) fn submit(shared: &Arc<Shared>, job: Job) -> Result<()> {
    let mut queue = locked(&shared.queue);
    queue.check()?;
    queue.jobs.push_back(job);
    if !queue.writing {
        queue.writing = true;
        let writer = Writer { shared: shared.clone(), finished: false };
        tokio::task::spawn_blocking(move || writer.run());
    }
    Ok(())
}

/// Refuses all later writes and those that wait; the running commit finishes.
pub(super) fn close(queue: &Mutex<Queue>) {
    let jobs = locked(queue).stop(Stopped::Closed);
    drop(jobs);
}

struct Writer {
    shared: Arc<Shared>,
    finished: bool,
}

impl Drop for Writer {
    /// The runtime may end before the writer ran, and it may panic half way: nobody must wait for ever.
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let mut queue = locked(&self.shared.queue);
        queue.writing = false;
        let jobs = if std::thread::panicking() {
            queue.stop(Stopped::Failed("the writer panicked".to_owned()))
        } else {
            queue.jobs.drain(..).collect()
        };
        drop(queue);
        drop(jobs);
    }
}

impl Writer {
    fn run(mut self) {
        loop {
            let next = {
                let mut queue = locked(&self.shared.queue);
                let next = queue.take();
                // Under the lock that submit looks under, so that no job is left behind.
                queue.writing = next.is_some();
                self.finished = next.is_none();
                next
            };
            let Some((jobs, garbage)) = next else { return };
            self.write(jobs, &garbage);
        }
    }

    fn write(&self, jobs: Vec<Job>, garbage: &[Revision]) {
        let mut answers = Vec::with_capacity(jobs.len());
        match self.commit(jobs, garbage, &mut answers) {
            Ok(changes) => {
                self.shared.publish(changes);
                answers.into_iter().for_each(Answer::send);
            }
            Err(error) => {
                let why = format!("writing to the store failed, restart to recover: {error}");
                error!(%error, "store commit failed; no write is accepted any more");
                let jobs = locked(&self.shared.queue).stop(Stopped::Failed(why));
                drop((jobs, answers));
            }
        }
    }

    fn commit(
        &self,
        jobs: Vec<Job>,
        garbage: &[Revision],
        answers: &mut Vec<Answer>,
    ) -> Result<Changes, redb::Error> {
        let file = self.shared.file.read().unwrap_or_else(PoisonError::into_inner);
        // Closed meanwhile; the reply channels say so.
        let Some(file) = file.as_ref() else { return Ok(Changes::default()) };
        let transaction = file.database.begin_write()?;
        let changes = {
            let mut table = transaction.open_table(EVENTS)?;
            for revision in garbage {
                table.remove(revision)?;
            }
            let mut batch = Batch::new(&self.shared, table);
            for job in jobs {
                let answer = batch.apply(job)?;
                answers.push(answer);
            }
            batch.changes
        };
        if let Some(revision) = changes.compacted {
            transaction.open_table(META)?.insert(COMPACTED_KEY, revision)?;
        }
        if changes.events.is_empty() && changes.compacted.is_none() && garbage.is_empty() {
            transaction.abort()?;
        } else {
            transaction.commit()?;
        }
        Ok(changes)
    }
}

/// What a commit did, to be published once it is on disk.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) events: Vec<Event>,
    pub(super) compacted: Option<Revision>,
}

/// One transaction's work. Each job sees what the jobs before it did.
struct Batch<'a> {
    shared: &'a Shared,
    table: Table<'a, Revision, &'static [u8]>,
    revision: Revision,
    /// Keys that this batch wrote; `None`: deleted.
    written: HashMap<Arc<str>, Option<Version>>,
    changes: Changes,
}

impl<'a> Batch<'a> {
    fn new(shared: &'a Shared, table: Table<'a, Revision, &'static [u8]>) -> Self {
        let revision = shared.state().revision;
        Batch { shared, table, revision, written: HashMap::new(), changes: Changes::default() }
    }

    fn apply(&mut self, job: Job) -> Result<Answer, redb::Error> {
        Ok(match job {
            Job::Put { key, value, expect, reply } => Answer::Put(reply, self.put(key, value, expect)?),
            Job::Delete { key, expect, reply } => Answer::Delete(reply, self.delete(key, expect)?),
            Job::Compact { revision, reply } => Answer::Compact(reply, self.compact(revision)),
        })
    }

    fn put(&mut self, key: Arc<str>, value: Bytes, expect: Expect) -> Result<Result<Entry>, redb::Error> {
        let (key, current) = self.current(key)?;
        if !holds(expect, current.as_ref()) {
            return Ok(Err(StoreError::Conflict { current }));
        }
        self.revision += 1;
        let created = current.as_ref().map_or(self.revision, |entry| entry.create_revision);
        let previous = current.as_ref().map_or(0, |entry| entry.mod_revision);
        self.insert(&Record { key: &key, created, previous, value: &value })?;
        self.written.insert(key.clone(), Some(Version { modified: self.revision, created }));
        let entry = Entry { key, value, create_revision: created, mod_revision: self.revision };
        self.changes.events.push(Event::Put { entry: entry.clone(), previous: current });
        Ok(Ok(entry))
    }

    fn delete(&mut self, key: Arc<str>, expect: Expect) -> Result<Result<(Revision, Entry)>, redb::Error> {
        let (key, current) = self.current(key)?;
        let Some(entry) = current.clone().filter(|_| holds(expect, current.as_ref())) else {
            return Ok(Err(StoreError::Conflict { current }));
        };
        self.revision += 1;
        self.insert(&Record { key: &key, created: 0, previous: entry.mod_revision, value: &[] })?;
        self.written.insert(key.clone(), None);
        self.changes.events.push(Event::Delete { key, revision: self.revision, previous: current });
        Ok(Ok((self.revision, entry)))
    }

    fn compact(&mut self, requested: Revision) -> Result<()> {
        let oldest = self.changes.compacted.unwrap_or(self.shared.state().compacted);
        if requested > self.revision {
            return Err(StoreError::Future { requested, current: self.revision });
        }
        if requested <= oldest {
            return Err(StoreError::Compacted { requested, oldest });
        }
        self.changes.compacted = Some(requested);
        Ok(())
    }

    /// The key, shared with the index where it is known, and what it holds.
    fn current(&self, key: Arc<str>) -> Result<(Arc<str>, Option<Entry>), redb::Error> {
        let (key, version) = match self.written.get_key_value(&key) {
            Some((key, version)) => (key.clone(), *version),
            None => {
                let state = self.shared.state();
                let version = state.index.latest(&key);
                (state.index.key(&key).cloned().unwrap_or(key), version)
            }
        };
        let entry = version.map(|version| load(&self.table, &key, version)).transpose()?;
        Ok((key, entry))
    }

    fn insert(&mut self, record: &Record<'_>) -> Result<(), redb::Error> {
        let mut row = self.table.insert_reserve(self.revision, record.encoded_len())?;
        record.encode(row.as_mut());
        Ok(())
    }
}

fn holds(expect: Expect, current: Option<&Entry>) -> bool {
    match expect {
        Expect::Any => true,
        Expect::Absent => current.is_none(),
        Expect::Revision(revision) => current.is_some_and(|entry| entry.mod_revision == revision),
    }
}

/// The entry that the index says is there.
pub(super) fn load(
    table: &impl ReadableTable<Revision, &'static [u8]>,
    key: &Arc<str>,
    version: Version,
) -> Result<Entry, redb::Error> {
    let row = table.get(version.modified)?;
    let record =
        row.as_ref().and_then(|row| Record::decode(row.value())).filter(|record| record.key == &**key);
    let Some(record) = record else {
        return Err(redb::Error::Corrupted(format!("no record of {key} at revision {}", version.modified)));
    };
    Ok(Entry {
        key: key.clone(),
        value: Bytes::copy_from_slice(record.value),
        create_revision: version.created,
        mod_revision: version.modified,
    })
}
