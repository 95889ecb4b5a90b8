//! Watches: what changed after a revision, once and in order, for as long as the client listens.
//!
//! A watch is a position in the cache's ring. It takes what is new, shapes it, and waits; nothing is queued for it, so
//! a client that does not read costs nothing and is told `Expired` when its position is gone.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;
use futures::stream;
use loadline_api::status::ApiError;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::app::App;
use crate::cache::{CacheEvent, EventType, Object, TooOld};
use crate::feed::Feed;
use crate::filter::Filter;
use crate::metrics::Watching;
use crate::options::WatchOptions;
use crate::request::{Query, ResourcePath};
use crate::respond::{HttpResponse, Result, Status, expired, json, too_large};
use crate::shape::Shape;

const CHUNK: usize = 64 * 1024;
const EVENTS_AT_ONCE: usize = 512;
/// No watch lasts longer, whatever `timeoutSeconds` asks for: clocks cannot count to every number that fits a query.
const LONGEST_SECONDS: u64 = 24 * 3600;
/// A bookmark comes this long before `timeoutSeconds` ends.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

pub(crate) async fn watch(
    app: &Arc<App>,
    shape: Shape,
    path: &ResourcePath,
    query: &Query,
) -> Result<HttpResponse> {
    let options = WatchOptions::parse(query)?;
    let filter = Filter::new(
        &shape.resource,
        &path.namespace,
        &path.name,
        options.labels.clone(),
        options.fields.clone(),
    )?;
    let seconds =
        options.timeout_seconds.unwrap_or_else(|| rand::random_range(1800..3600)).min(LONGEST_SECONDS);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let start = match Start::find(app, &shape, &filter, &options).await {
        Ok(start) => start,
        Err(error) => return Ok(json(StatusCode::OK, error_event(&error))),
    };
    let every = app.limits.bookmark_every;
    let watcher = Watcher {
        changed: shape.resource.cache.subscribe(),
        stopping: app.stopping(),
        _counted: app.metrics.watching(&shape.resource.kind),
        feed: app.feed.clone(),
        shape,
        filter,
        initial: start.objects.into_iter(),
        initial_bookmark: start.bookmark,
        position: start.position,
        sent: start.revision,
        bookmarks: options.bookmarks,
        bookmark_at: if options.bookmarks { Instant::now() + every } else { deadline },
        bookmark_every: every,
        last_bookmark_due: options.bookmarks && Duration::from_secs(seconds) > LAST_BOOKMARK,
        deadline,
        first: true,
        ended: false,
    };
    let body = Body::from_stream(stream::unfold(watcher, |mut watcher| async move {
        let chunk = watcher.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), watcher))
    }));
    Ok(json(StatusCode::OK, body))
}

/// Where a watch begins.
struct Start {
    /// The present state, sent as synthetic additions.
    objects: Vec<Arc<Object>>,
    /// The revision of the bookmark that ends them.
    bookmark: Option<u64>,
    position: u64,
    revision: u64,
}

impl Start {
    async fn find(
        app: &App,
        shape: &Shape,
        filter: &Filter,
        options: &WatchOptions,
    ) -> std::result::Result<Self, ApiError> {
        let cache = &shape.resource.cache;
        let wants_state = match (options.send_initial_events, options.version) {
            (Some(wanted), _) => wanted,
            (None, version) => version.is_none_or(|v| v == 0),
        };
        let known = match options.version {
            None => app.feed.fresh().await?,
            Some(0) => app.feed.any()?,
            Some(n) => {
                let progress = app.feed.any()?;
                if n > progress && app.feed.reach(n).await.is_err() {
                    return Err(too_large(n, app.feed.progress()));
                }
                n
            }
        };
        if wants_state {
            let view = cache
                .view(&filter.prefix, None, 0, false, known.max(app.feed.progress()), |o| filter.selected(o));
            let bookmark =
                (options.send_initial_events == Some(true) && options.bookmarks).then_some(view.revision);
            return Ok(Self {
                objects: view.objects,
                bookmark,
                position: view.position,
                revision: view.revision,
            });
        }
        let from =
            if options.version.is_some_and(|v| v > 0) { known } else { known.max(cache.last_change()) };
        let position = cache.position_after(from).map_err(|TooOld(oldest)| expired(from, oldest))?;
        Ok(Self { objects: Vec::new(), bookmark: None, position, revision: from })
    }
}

struct Watcher {
    feed: Arc<Feed>,
    shape: Shape,
    filter: Filter,
    changed: watch::Receiver<u64>,
    stopping: watch::Receiver<bool>,
    _counted: Watching,
    initial: std::vec::IntoIter<Arc<Object>>,
    initial_bookmark: Option<u64>,
    position: u64,
    /// Everything up to this revision was sent or did not match.
    sent: u64,
    bookmarks: bool,
    bookmark_at: Instant,
    bookmark_every: Duration,
    last_bookmark_due: bool,
    deadline: Instant,
    first: bool,
    ended: bool,
}

impl Watcher {
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut out = Vec::new();
        if self.initial.len() > 0 || self.initial_bookmark.is_some() {
            self.initial_events(&mut out);
            return Some(out.into());
        }
        let mut events = Vec::new();
        loop {
            if *self.stopping.borrow() {
                return None;
            }
            self.changed.mark_unchanged();
            // Read before the ring: all events up to it are in the ring.
            let progress = self.feed.progress();
            let Ok(next) = self.shape.resource.cache.events_from(self.position, EVENTS_AT_ONCE, &mut events)
            else {
                self.ended = true;
                return Some(error_event(&expired(self.sent, self.shape.resource.cache.last_change())));
            };
            let full = events.len() == EVENTS_AT_ONCE;
            for event in events.drain(..) {
                self.event(&mut out, &event);
            }
            self.position = next;
            if !full {
                self.sent = self.sent.max(progress);
            }
            if !out.is_empty() {
                return Some(out.into());
            }
            if full {
                continue;
            }
            let timer = self.next_timer();
            tokio::select! {
                biased;
                changed = self.changed.changed() => if changed.is_err() { return None },
                _ = self.stopping.changed() => return None,
                () = tokio::time::sleep_until(timer) => {
                    if let Some(done) = self.timer(&mut out) {
                        return done;
                    }
                }
            }
        }
    }

    fn next_timer(&self) -> Instant {
        let last = if self.last_bookmark_due { self.deadline - LAST_BOOKMARK } else { self.deadline };
        if self.bookmarks { self.bookmark_at.min(last) } else { last }
    }

    /// `Some` when `next` is to return it.
    fn timer(&mut self, out: &mut Vec<u8>) -> Option<Option<Bytes>> {
        let now = Instant::now();
        if now >= self.deadline {
            return Some(None);
        }
        if !self.bookmarks {
            return None;
        }
        if self.last_bookmark_due && now >= self.deadline - LAST_BOOKMARK {
            self.last_bookmark_due = false;
            self.bookmark_at = self.deadline;
        } else {
            self.bookmark_at = now + self.bookmark_every;
        }
        self.bookmark(out, self.sent, false);
        Some(Some(std::mem::take(out).into()))
    }

    fn initial_events(&mut self, out: &mut Vec<u8>) {
        while out.len() < CHUNK {
            let Some(object) = self.initial.next() else {
                if let Some(revision) = self.initial_bookmark.take() {
                    self.bookmark(out, revision, true);
                }
                return;
            };
            self.write(out, "ADDED", &object, None);
        }
    }

    /// A change as this watch sees it: what enters or leaves its selection is added or deleted.
    fn event(&mut self, out: &mut Vec<u8>, event: &CacheEvent) {
        let now = event.ty != EventType::Deleted && self.filter.matches(&event.object);
        let before = event.previous.as_ref().filter(|p| self.filter.matches(p));
        match (before, now) {
            (None, true) => self.write(out, "ADDED", &event.object, None),
            (Some(_), true) => self.write(out, "MODIFIED", &event.object, None),
            (Some(_), false) if event.ty == EventType::Deleted => {
                self.write(out, "DELETED", &event.object, None)
            }
            (Some(previous), false) => self.write(out, "DELETED", previous, Some(event.revision)),
            (None, false) => {}
        }
    }

    fn write(&mut self, out: &mut Vec<u8>, ty: &str, object: &Object, revision: Option<u64>) {
        let resource = &self.shape.resource;
        let Ok(mut served) = resource.body(object) else { return };
        if let Some(revision) = revision {
            served = resource.head.with_revision(&served, revision);
        }
        let Ok(body) = self.shape.event_body(served, revision.unwrap_or(object.revision), self.first) else {
            return;
        };
        self.first = false;
        frame(out, ty, &body);
    }

    fn bookmark(&mut self, out: &mut Vec<u8>, revision: u64, ends_initial: bool) {
        let head = &self.shape.resource.head;
        let annotations =
            if ends_initial { r#","annotations":{"k8s.io/initial-events-end":"true"}"# } else { "" };
        let object = format!(
            r#"{{"kind":"{}","apiVersion":"{}","metadata":{{"resourceVersion":"{revision}"{annotations}}}}}"#,
            head.kind, head.api_version
        );
        if let Ok(body) = self.shape.event_body(object.into(), revision, self.first) {
            frame(out, "BOOKMARK", &body);
        }
    }
}

fn frame(out: &mut Vec<u8>, ty: &str, body: &[u8]) {
    out.reserve(body.len() + 40);
    out.extend_from_slice(br#"{"type":""#);
    out.extend_from_slice(ty.as_bytes());
    out.extend_from_slice(br#"","object":"#);
    out.extend_from_slice(body);
    out.extend_from_slice(b"}\n");
}

/// The event that says why a watch ends.
fn error_event(error: &ApiError) -> Bytes {
    let mut out = Vec::new();
    frame(&mut out, "ERROR", &Status::of(error).to_bytes());
    out.into()
}
