//! Get and list. Both are answered from the watch cache after making sure that it is as fresh as the client asks;
//! only pages and lists at a past revision go to the store.

use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use bytes::Bytes;
use futures::stream;
use loadline_api::patch::json_error;
use loadline_api::status::{ApiError, Reason};
use loadline_store::StoreError;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::cache::{Cache, Object, View};
use crate::filter::Filter;
use crate::negotiate::Encoding;
use crate::object::now_seconds;
use crate::options::{At, ListOptions};
use crate::request::{Query, ResourcePath};
use crate::respond::{Failure, HttpResponse, Result, encoded, json};
use crate::shape::Shape;
use crate::table::Resource;

/// Lists larger than this are streamed.
const WHOLE: usize = 512 * 1024;
const CHUNK: usize = 128 * 1024;
const STORE_PAGE: usize = 1_000;
/// As lenient as Go's decoder.
const TOKENS: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

/// The object of a path, as fresh as asked for.
pub(crate) async fn find(app: &App, resource: &Resource, path: &ResourcePath, at: At) -> Result<Arc<Object>> {
    match at {
        At::Latest | At::Exact(_) => app.feed.fresh().await?,
        At::Any => app.feed.any()?,
        At::NotOlderThan(n) => {
            app.feed.reach(n).await?;
            n
        }
    };
    let object = if path.namespace.is_empty() {
        resource.cache.get(&path.name)
    } else {
        resource.cache.get(&Cache::key(&path.namespace, &path.name))
    };
    object.ok_or_else(|| resource.not_found(&path.name).into())
}

pub(crate) async fn get(
    app: &App,
    shape: &Shape,
    path: &ResourcePath,
    query: &Query,
) -> Result<HttpResponse> {
    let object = find(app, &shape.resource, path, crate::options::get_at(query)?).await?;
    Ok(encoded(StatusCode::OK, shape.body(&object)?, shape.accepted.encoding))
}

/// Where the next page begins.
#[derive(Debug, Deserialize, Serialize)]
struct Cursor {
    v: String,
    /// -1: whatever is there now.
    rv: i64,
    /// The last key of the page before.
    start: String,
}

impl Cursor {
    fn token(revision: i64, after: &str) -> String {
        let cursor = Self { v: "meta.k8s.io/v1".to_owned(), rv: revision, start: after.to_owned() };
        TOKENS.encode(serde_json::to_vec(&cursor).unwrap_or_default())
    }

    fn parse(token: &str, prefix: &str) -> Result<Self> {
        let bad = |why: String| {
            Failure::from(ApiError::bad_request(format!(
                "invalid continue token: continue key is not valid: {why}"
            )))
        };
        let bytes =
            TOKENS.decode(token).map_err(|_| bad("illegal base64 data at input byte 0".to_owned()))?;
        let cursor: Self = serde_json::from_slice(&bytes).map_err(|e| bad(json_error(&bytes, &e)))?;
        if cursor.v != "meta.k8s.io/v1" {
            return Err(bad(format!("server does not recognize this encoded version {:?}", cursor.v)));
        }
        // A token cannot lead out of the list that it was given for.
        if !cursor.start.starts_with(prefix) || cursor.start.contains("..") || cursor.start.len() > 1024 {
            return Err(bad(format!("{:?}", cursor.start)));
        }
        Ok(cursor)
    }
}

pub(crate) async fn list(
    app: &App,
    shape: &Shape,
    path: &ResourcePath,
    query: &Query,
) -> Result<HttpResponse> {
    let options = ListOptions::parse(query)?;
    let page = collect(app, &shape.resource, path, &options).await?;
    let view = page.view;
    let cursor = view.more.then(|| {
        let last = view.objects.last().map(|o| &*o.key).unwrap_or_default();
        Cursor::token(page.inconsistent.map_or(i64::try_from(view.revision).unwrap_or(-1), |()| -1), last)
    });
    render(shape, view, cursor.as_deref())
}

/// One page of a list.
pub(crate) struct Page {
    pub(crate) view: View,
    /// The token that led here gave up consistency; so do the following ones.
    pub(crate) inconsistent: Option<()>,
}

/// The objects that a list is about.
pub(crate) async fn collect(
    app: &App,
    resource: &Arc<Resource>,
    path: &ResourcePath,
    options: &ListOptions,
) -> Result<Page> {
    let filter =
        Filter::new(resource, &path.namespace, &path.name, options.labels.clone(), options.fields.clone())?;
    if let Some(token) = &options.cursor {
        return resume(app, resource, &filter, token, options.limit).await;
    }
    let known = match options.at {
        At::Latest => app.feed.fresh().await?,
        At::Any => app.feed.any()?,
        At::NotOlderThan(n) => {
            app.feed.reach(n).await?;
            app.feed.any()?
        }
        At::Exact(n) => {
            app.feed.reach(n).await?;
            let view = at_revision(app, resource, &filter, None, options.limit, n).await?;
            return Ok(Page { view, inconsistent: None });
        }
    };
    Ok(Page { view: from_cache(resource, &filter, None, options.limit, known), inconsistent: None })
}

fn from_cache(resource: &Resource, filter: &Filter, after: Option<&str>, limit: usize, known: u64) -> View {
    let count = limit > 0 && !filter.selects();
    if !filter.selects() {
        return resource.cache.view(&filter.prefix, after, limit, count, known, |_| true);
    }
    let mut view = resource.cache.view(&filter.prefix, after, limit, false, known, |o| filter.selected(o));
    view.remaining = 0;
    view
}

async fn resume(app: &App, resource: &Resource, filter: &Filter, token: &str, limit: usize) -> Result<Page> {
    let cursor = Cursor::parse(token, &filter.prefix)?;
    let Ok(revision) = u64::try_from(cursor.rv) else {
        let known = app.feed.fresh().await?;
        let view = from_cache(resource, filter, Some(&cursor.start), limit, known);
        return Ok(Page { view, inconsistent: Some(()) });
    };
    app.feed.reach(revision).await?;
    let view = at_revision(app, resource, filter, Some(&cursor.start), limit, revision).await;
    match view {
        Ok(view) => Ok(Page { view, inconsistent: None }),
        Err(Failure::Api(error)) if error.reason == Reason::Expired => {
            Err(Failure::ExpiredToken(Cursor::token(-1, &cursor.start)))
        }
        Err(other) => Err(other),
    }
}

/// The list as it was at `revision`: from the cache while the kind has not changed since, else from the store.
async fn at_revision(
    app: &App,
    resource: &Resource,
    filter: &Filter,
    after: Option<&str>,
    limit: usize,
    revision: u64,
) -> Result<View> {
    let mut view = from_cache(resource, filter, after, limit, revision);
    // `view.revision` is the greater of what was asked for and the last change.
    if view.revision == revision {
        return Ok(view);
    }
    view = View { revision, ..View::default() };
    let cache = &resource.cache;
    let mut range = loadline_store::prefix_range(&cache.store_key(&filter.prefix));
    if let Some(after) = after {
        range.start = cache.store_key(&format!("{after}\0"));
    }
    loop {
        // One more than the page, to know whether there is a next one.
        let want = if limit > 0 && !filter.selects() {
            (limit + 1 - view.objects.len()).min(STORE_PAGE)
        } else {
            STORE_PAGE
        };
        let at = loadline_store::At::Revision(revision);
        let page = app.store.range(range.clone(), want, at).await.map_err(|e| match e {
            StoreError::Compacted { requested, oldest } => gone(requested, oldest),
            other => other.into(),
        })?;
        for entry in &page.entries {
            if limit > 0 && view.objects.len() == limit {
                view.more = true;
                view.remaining = if filter.selects() { 0 } else { remaining(&page, entry) };
                return Ok(view);
            }
            let object = cache.object(entry);
            if object.broken || !filter.selected(&object) {
                continue;
            }
            view.objects.push(Arc::new(object));
        }
        match page.entries.last() {
            Some(last) if page.more => range.start = format!("{}\0", last.key),
            _ => return Ok(view),
        }
    }
}

/// How many of a range are left from `entry` on.
fn remaining(page: &loadline_store::RangeResult, entry: &loadline_store::Entry) -> u64 {
    let before = page.entries.iter().take_while(|e| e.key != entry.key).count() as u64;
    page.count.saturating_sub(before)
}

fn gone(requested: u64, oldest: u64) -> Failure {
    crate::respond::expired(requested, oldest).into()
}

fn render(shape: &Shape, view: View, cursor: Option<&str>) -> Result<HttpResponse> {
    let mut head = Vec::with_capacity(256);
    shape.list_head(&mut head, view.revision, cursor, view.remaining);
    let size: usize = view.objects.iter().map(|o| shape.item_size(o) + 1).sum();
    if size <= WHOLE || shape.accepted.encoding != Encoding::Json {
        head.reserve(size + 2);
        let now = now_seconds();
        for (i, object) in view.objects.iter().enumerate() {
            if i > 0 {
                head.push(b',');
            }
            shape.item(&mut head, object, now)?;
        }
        head.extend_from_slice(b"]}");
        return Ok(encoded(StatusCode::OK, head.into(), shape.accepted.encoding));
    }
    Ok(json(StatusCode::OK, stream_list(shape.clone(), view.objects, head)))
}

/// Writes a long list piece by piece, so that it is never in memory twice.
fn stream_list(shape: Shape, objects: Vec<Arc<Object>>, head: Vec<u8>) -> Body {
    struct Left {
        shape: Shape,
        objects: std::vec::IntoIter<Arc<Object>>,
        buffer: Vec<u8>,
        first: bool,
        done: bool,
    }
    let left = Left { shape, objects: objects.into_iter(), buffer: head, first: true, done: false };
    Body::from_stream(stream::unfold(left, |mut left| async move {
        if left.done {
            return None;
        }
        let now = now_seconds();
        let mut chunk = std::mem::take(&mut left.buffer);
        chunk.reserve(CHUNK + CHUNK / 4);
        while chunk.len() < CHUNK {
            let Some(object) = left.objects.next() else {
                chunk.extend_from_slice(b"]}");
                left.done = true;
                break;
            };
            if !left.first {
                chunk.push(b',');
            }
            left.first = false;
            if let Err(error) = left.shape.item(&mut chunk, &object, now) {
                // The head is out; cutting the connection is the only way left to say that the list is not whole.
                return Some((Err(std::io::Error::other(error.to_string())), Left { done: true, ..left }));
            }
        }
        Some((Ok::<_, std::io::Error>(Bytes::from(chunk)), left))
    }))
}

/// The answer to a token whose revision is gone: with a token that gives up consistency.
pub(crate) fn expired_token_error() -> ApiError {
    ApiError::new(
        Reason::Expired,
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_stay_within_their_list() {
        let token = Cursor::token(7, "ns/a");
        let cursor = Cursor::parse(&token, "ns/").unwrap();
        assert_eq!((cursor.rv, cursor.start.as_str()), (7, "ns/a"));
        assert!(Cursor::parse(&token, "other/").is_err());
        assert!(Cursor::parse("garbage", "").is_err());
        assert!(Cursor::parse("x", "").unwrap_err().to_string().contains("illegal base64"));
        assert!(Cursor::parse(&Cursor::token(7, "ns/../x"), "ns/").is_err());
    }
}
