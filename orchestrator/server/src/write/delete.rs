//! Delete: graceful where the kind is, held by finalizers where there are any, one by one for collections.

use axum::body::Body;
use axum::http::StatusCode;
use loadline_api::status::{ApiError, Details, Reason};
use loadline_store::{Expect, StoreError};
use serde_json::{Value, json};

use super::{Done, Step, Write, admission, delete_options};
use crate::app::Call;
use crate::cache::Object;
use crate::negotiate::Accepted;
use crate::object::{Meta as _, now_seconds, seconds, timestamp};
use crate::options::{DeleteOptions, ListOptions, Propagation};
use crate::respond::{Failure, HttpResponse, Result, Status, encoded};
use crate::shape::Shape;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Kinds whose deletion answers with the object.
const SHOWN: [&str; 7] = [
    "pods",
    "services",
    "serviceaccounts",
    "persistentvolumes",
    "persistentvolumeclaims",
    "podtemplates",
    "resourcequotas",
];

/// No pod gets more than three centuries to end: a longer time added to now is no date any more.
const LONGEST_GRACE: i64 = 10_000_000_000;

/// What the first look at an object to be deleted leads to.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Its deletion goes on as it is.
    Pending,
    /// Write this, and leave it.
    Mark(Value),
    /// Write this, then remove it.
    MarkAndRemove(Value),
    Remove,
}

impl Write<'_> {
    pub(super) async fn delete(&self, body: Body, accepted: Accepted) -> Result<HttpResponse> {
        let options = delete_options(self.app, self.call, body).await?;
        let (done, shown) = self.delete_one(&options).await?;
        if shown {
            return self.answer(StatusCode::OK, &done, accepted, &[]);
        }
        let uid = serde_json::from_slice::<Value>(&done.body).map(|v| v.uid().to_owned()).unwrap_or_default();
        let details = Details {
            name: self.call.path.name.clone(),
            group: self.resource.kind.group.to_owned(),
            kind: self.resource.kind.resource.to_owned(),
            uid,
            ..Details::default()
        };
        Ok(encoded(StatusCode::OK, Status::success(Some(&details), None).to_bytes(), accepted.encoding))
    }

    /// Deletes the object of this request; `true` if the answer is to show it.
    pub(crate) async fn delete_one(&self, options: &DeleteOptions) -> Result<(Done, bool)> {
        let namespaces = self.resource.is("", "namespaces");
        if namespaces && admission::IMMORTAL.contains(&self.call.path.name.as_str()) {
            let why = "this namespace may not be deleted";
            return Err(ApiError::forbidden("", "namespaces", &self.call.path.name, why).into());
        }
        let base = self.current().await?;
        if base.broken {
            return self.delete_broken(&base, options).await;
        }
        let mut marked = None;
        let mut remove = false;
        let done = self
            .change(base.clone(), options.dry_run, |old, _| {
                (marked, remove) = (None, false);
                self.check_preconditions(old, options)?;
                let verdict = if namespaces {
                    end_namespace(old, options, self.now)
                } else {
                    decide(self, old, options)
                };
                Ok(match verdict {
                    Verdict::Pending => {
                        marked = Some(false);
                        Step::Same
                    }
                    Verdict::Mark(new) => {
                        marked = Some(true);
                        Step::Put(new)
                    }
                    Verdict::MarkAndRemove(new) => {
                        marked = Some(true);
                        remove = true;
                        Step::Put(new)
                    }
                    Verdict::Remove => Step::Delete(old.clone()),
                })
            })
            .await?;
        let shows = SHOWN.contains(&self.resource.kind.resource);
        if remove && !options.dry_run {
            self.remove(&base.key, done.revision).await?;
            return Ok((done, shows));
        }
        match marked {
            Some(true) => Ok((done, !remove || shows)),
            _ => Ok((done, shows)),
        }
    }

    /// Removes what was just marked; that somebody else was faster is as good.
    async fn remove(&self, key: &str, revision: u64) -> Result<()> {
        let store_key = self.resource.cache.store_key(key);
        let mut expect = revision;
        loop {
            match self.app.store.delete(&store_key, Expect::Revision(expect)).await {
                Ok((revision, _)) => {
                    self.resource.cache.wrote(revision);
                    return Ok(());
                }
                Err(StoreError::Conflict { current: None }) => return Ok(()),
                Err(StoreError::Conflict { current: Some(entry) }) => {
                    let object = self.resource.cache.object(&entry);
                    let held = object.value().is_ok_and(|v| !v.finalizers().is_empty() || !v.deleting());
                    // A finalizer came in between, or the object was replaced: it stays.
                    if held || entry.create_revision > revision {
                        return Ok(());
                    }
                    expect = entry.mod_revision;
                }
                Err(other) => return Err(other.into()),
            }
        }
    }

    /// A value that cannot be read can still be got rid of.
    async fn delete_broken(&self, base: &Object, options: &DeleteOptions) -> Result<(Done, bool)> {
        let body = bytes::Bytes::from_static(b"{}");
        if !options.dry_run {
            let key = self.resource.cache.store_key(&base.key);
            let (revision, _) = self.app.store.delete(&key, Expect::Revision(base.revision)).await?;
            self.resource.cache.wrote(revision);
        }
        Ok((Done { body, revision: base.revision }, false))
    }

    fn check_preconditions(&self, old: &Value, options: &DeleteOptions) -> Result<()> {
        let kind = &self.resource.kind;
        let checks = [
            (
                "UID",
                options.uid.as_deref(),
                old.uid(),
                "The object might have been deleted and then recreated",
            ),
            (
                "ResourceVersion",
                options.version.as_deref(),
                old.meta_str("resourceVersion"),
                "The object might have been modified",
            ),
        ];
        for (what, wanted, is, hint) in checks {
            let Some(wanted) = wanted.filter(|w| *w != is) else { continue };
            let why = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({is}). {hint}"
            );
            // Kubernetes names the kind here, not the resource.
            return Err(ApiError::conflict(kind.group, kind.kind, old.name(), &why).into());
        }
        Ok(())
    }

    pub(super) async fn delete_collection(&self, body: Body, accepted: Accepted) -> Result<HttpResponse> {
        let options = delete_options(self.app, self.call, body).await?;
        let list = ListOptions::parse(&self.call.query)?;
        let page = crate::read::collect(self.app, self.resource, &self.call.path, &list).await?;
        let shape = Shape::list(self.resource, accepted, &self.call.query)?;
        let mut out = Vec::with_capacity(4096);
        shape.list_head(&mut out, page.view.revision, None, 0);
        let now = now_seconds();
        for (i, object) in page.view.objects.iter().enumerate() {
            let mut path = self.call.path.clone();
            path.name = object.name().to_owned();
            let call = Call {
                method: self.call.method.clone(),
                headers: axum::http::HeaderMap::new(),
                query: self.call.query.clone(),
                identity: self.call.identity.clone(),
                verb: "delete",
                path,
            };
            let one = Write { app: self.app, resource: self.resource, call: &call, now: self.now };
            match Box::pin(one.delete_one(&options)).await {
                Ok(_) => {}
                // Gone already is what was asked for.
                Err(Failure::Api(error)) if error.reason == Reason::NotFound => {}
                Err(other) => return Err(other),
            }
            if i > 0 {
                out.push(b',');
            }
            shape.item(&mut out, object, now)?;
        }
        out.extend_from_slice(b"]}");
        Ok(encoded(StatusCode::OK, out.into(), accepted.encoding))
    }
}

/// The rules of deletion for all kinds but Namespace.
fn decide(write: &Write<'_>, old: &Value, options: &DeleteOptions) -> Verdict {
    let graceful = write.resource.is("", "pods").then(|| pod_grace(old, options.grace));
    let orphans_by_default = write.resource.is("", "replicationcontrollers");
    plan(old, options, graceful, orphans_by_default, write.now)
}

/// `grace`: for kinds that end gracefully, how long this object gets.
fn plan(old: &Value, options: &DeleteOptions, grace: Option<i64>, orphans: bool, now: i64) -> Verdict {
    let mut new = old.clone();
    let mut marked = None;
    if let Some(grace) = grace {
        match (old.deleting(), old.grace()) {
            (false, _) => {
                new.set_meta("deletionTimestamp", timestamp(now + grace));
                new.set_meta("deletionGracePeriodSeconds", grace.into());
                bump(&mut new);
                marked = Some(grace);
            }
            (true, Some(present)) => {
                let asked = options.grace.map(|g| if g < 0 { 1 } else { g });
                // A grace period is only ever cut short.
                let Some(asked) = asked.filter(|a| *a < present) else { return Verdict::Pending };
                let began = seconds(old.meta_str("deletionTimestamp")).unwrap_or(now) - present;
                new.set_meta("deletionTimestamp", timestamp(began + asked));
                new.set_meta("deletionGracePeriodSeconds", asked.into());
                marked = Some(asked);
            }
            (true, None) => {}
        }
    }
    let finalizers = finalizers_for(old, options, orphans);
    let finalizers: Vec<&str> = finalizers.iter().map(String::as_str).collect();
    new.set_finalizers(&finalizers);
    match marked {
        Some(grace) if grace > 0 || !finalizers.is_empty() => Verdict::Mark(new),
        Some(_) => Verdict::MarkAndRemove(new),
        None if finalizers.is_empty() => Verdict::Remove,
        None => {
            if new.grace().is_none() {
                bump(&mut new);
            }
            let later = seconds(new.meta_str("deletionTimestamp")).is_none_or(|t| t > now);
            if later {
                new.set_meta("deletionTimestamp", timestamp(now));
            }
            new.set_meta("deletionGracePeriodSeconds", 0.into());
            Verdict::Mark(new)
        }
    }
}

/// `metadata.generation` grows when a deletion begins.
fn bump(new: &mut Value) {
    if new.generation() > 0 {
        super::metadata::next_generation(new);
    }
}

/// How long a pod gets: not at all when no kubelet has it or it has ended.
fn pod_grace(pod: &Value, asked: Option<i64>) -> i64 {
    let scheduled = pod["spec"]["nodeName"].as_str().is_some_and(|n| !n.is_empty());
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"));
    if !scheduled || ended {
        return 0;
    }
    let grace = asked.or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(0);
    if grace < 0 { 1 } else { grace.min(LONGEST_GRACE) }
}

/// The finalizers that say what becomes of dependents, as the options ask.
fn finalizers_for(old: &Value, options: &DeleteOptions, orphans_by_default: bool) -> Vec<String> {
    let present = old.finalizers();
    let orphan = match (options.orphan, options.propagation) {
        (Some(orphan), _) => orphan,
        (None, Some(policy)) => policy == Propagation::Orphan,
        (None, None) if present.contains(&ORPHAN) => true,
        (None, None) if present.contains(&FOREGROUND) => false,
        (None, None) => orphans_by_default,
    };
    let foreground = match (options.orphan, options.propagation) {
        (Some(_), _) => false,
        (None, Some(policy)) => policy == Propagation::Foreground,
        (None, None) => present.contains(&FOREGROUND) && !orphan,
    };
    let mut all: Vec<String> =
        present.into_iter().filter(|f| *f != ORPHAN && *f != FOREGROUND).map(str::to_owned).collect();
    if orphan {
        all.push(ORPHAN.to_owned());
    }
    if foreground {
        all.push(FOREGROUND.to_owned());
    }
    all
}

/// A Namespace ends when the controller has emptied it and taken the last of its `spec.finalizers`.
fn end_namespace(old: &Value, options: &DeleteOptions, now: i64) -> Verdict {
    let held = old["spec"]["finalizers"].as_array().is_some_and(|l| !l.is_empty());
    if old.deleting() {
        return if held || !old.finalizers().is_empty() { Verdict::Pending } else { Verdict::Remove };
    }
    let mut new = old.clone();
    new.set_meta("deletionTimestamp", timestamp(now));
    new["status"]["phase"] = json!("Terminating");
    let finalizers = finalizers_for(old, options, false);
    new.set_finalizers(&finalizers.iter().map(String::as_str).collect::<Vec<_>>());
    if held || !finalizers.is_empty() { Verdict::Mark(new) } else { Verdict::MarkAndRemove(new) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn pod(node: &str, more: Value) -> Value {
        let mut pod = json!({"metadata": {"name": "p", "generation": 1}, "spec": {"terminationGracePeriodSeconds": 30}});
        if !node.is_empty() {
            pod["spec"]["nodeName"] = json!(node);
        }
        if let Some(map) = more.as_object() {
            map.iter().for_each(|(k, v)| pod.set_meta(k, v.clone()));
        }
        pod
    }

    fn pod_verdict(pod: &Value, grace: Option<i64>) -> Verdict {
        let options = DeleteOptions { grace, ..DeleteOptions::default() };
        plan(pod, &options, Some(pod_grace(pod, grace)), false, NOW)
    }

    #[test]
    fn pods_end_gracefully() {
        let Verdict::Mark(marked) = pod_verdict(&pod("n", json!({})), None) else { panic!() };
        assert_eq!((marked.grace(), marked.generation()), (Some(30), 2));
        assert_eq!(marked.meta_str("deletionTimestamp"), timestamp(NOW + 30).as_str().unwrap());
        assert_eq!(pod_verdict(&marked, None), Verdict::Pending);
        assert_eq!(pod_verdict(&marked, Some(60)), Verdict::Pending);
        let Verdict::Mark(shorter) = pod_verdict(&marked, Some(5)) else { panic!() };
        assert_eq!((shorter.grace(), shorter.generation()), (Some(5), 2));
        assert_eq!(shorter.meta_str("deletionTimestamp"), timestamp(NOW + 5).as_str().unwrap());
        assert!(matches!(pod_verdict(&shorter, Some(0)), Verdict::MarkAndRemove(_)));
        assert!(matches!(pod_verdict(&pod("", json!({})), None), Verdict::MarkAndRemove(_)));
        let Verdict::Mark(long) = pod_verdict(&pod("n", json!({})), Some(i64::MAX)) else { panic!() };
        assert_eq!(long.grace(), Some(LONGEST_GRACE));
        assert_eq!(long.meta_str("deletionTimestamp"), timestamp(NOW + LONGEST_GRACE).as_str().unwrap());
        let Verdict::Mark(shorter) = pod_verdict(&long, Some(5)) else { panic!() };
        assert_eq!(shorter.meta_str("deletionTimestamp"), timestamp(NOW + 5).as_str().unwrap());
        let held = pod("", json!({"finalizers": ["a.b/c"]}));
        assert!(matches!(pod_verdict(&held, Some(0)), Verdict::Mark(_)));
    }

    #[test]
    fn finalizers_hold_objects() {
        let free = json!({"metadata": {"name": "a"}});
        let default = DeleteOptions::default();
        assert_eq!(plan(&free, &default, None, false, NOW), Verdict::Remove);
        let held = json!({"metadata": {"name": "a", "generation": 1, "finalizers": ["a.b/c"]}});
        let Verdict::Mark(marked) = plan(&held, &default, None, false, NOW) else { panic!() };
        assert_eq!((marked.grace(), marked.generation()), (Some(0), 2));
        let Verdict::Mark(again) = plan(&marked, &default, None, false, NOW + 9) else { panic!() };
        assert_eq!(again, marked);
        for (policy, finalizer) in [(Propagation::Foreground, FOREGROUND), (Propagation::Orphan, ORPHAN)] {
            let options = DeleteOptions { propagation: Some(policy), ..DeleteOptions::default() };
            let Verdict::Mark(marked) = plan(&free, &options, None, false, NOW) else { panic!() };
            assert_eq!(marked.finalizers(), [finalizer]);
        }
        let options =
            DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
        assert_eq!(plan(&free, &options, None, true, NOW), Verdict::Remove);
        assert!(matches!(plan(&free, &default, None, true, NOW), Verdict::Mark(_)));
    }

    #[test]
    fn namespaces_wait_for_their_finalizers() {
        let ns = json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        let default = DeleteOptions::default();
        let Verdict::Mark(ending) = end_namespace(&ns, &default, NOW) else { panic!() };
        assert_eq!(ending["status"]["phase"], "Terminating");
        assert!(ending.grace().is_none());
        assert_eq!(end_namespace(&ending, &default, NOW), Verdict::Pending);
        let mut empty = ending;
        empty["spec"] = json!({});
        assert_eq!(end_namespace(&empty, &default, NOW), Verdict::Remove);
    }
}
