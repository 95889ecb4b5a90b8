//! Field management: who owns which field after a write, and server-side apply.
//!
//! [`update`] keeps `metadata.managedFields` for creates, updates and the other patches; [`apply`] merges an applied
//! configuration into the live object, or says whose fields it would take. The rules are those of apimachinery's
//! managedfields and of structured-merge-diff. Never defaults or validates what it returns.

use std::sync::{Arc, LazyLock};

use serde_json::{Map, Value};

use crate::schema::Struct;
use crate::status::{ApiError, Cause, Reason};

use super::fields::Set;
use super::managed::{Entry, Managed, Operation};
use super::typed::{self, Comparison};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Owns what was there before the first apply, where nobody was recorded.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Converts an object to another of its kind's versions; `None` where that version does not exist.
pub type Convert<'a> = dyn Fn(&Value, &str) -> Option<(Value, Arc<Struct>)> + 'a;

/// One write as field management sees it.
#[derive(Clone, Copy)]
pub struct Write<'a> {
    pub schema: &'a Struct,
    /// Group and version of the request: `v1`, `apps/v1`.
    pub api_version: &'a str,
    /// As from [`manager_name`]; empty counts as `unknown`.
    pub manager: &'a str,
    /// Empty for the main resource.
    pub subresource: &'a str,
    /// RFC 3339 in UTC, whole seconds.
    pub now: &'a str,
    /// For kinds of several versions: how to see the object as another manager's version has it. Without it all
    /// versions are taken to have the same fields.
    pub convert: Option<&'a Convert<'a>>,
}

/// A field that somebody else owns with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// As in messages: `"one"`, `"kubectl" with subresource "status" using apps/v1`.
    pub manager: String,
    /// `.spec.containers[name="c"].image`
    pub path: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    #[error("{0}")]
    BadRequest(String),
    /// The applied object does not fit its schema. Kubernetes answers with a bare 500: no reason, only this message.
    #[error("{0}")]
    Invalid(String),
}

impl From<ApplyError> for ApiError {
    fn from(error: ApplyError) -> Self {
        let message = error.to_string();
        match error {
            ApplyError::Conflicts(conflicts) => {
                let mut e = ApiError::new(Reason::Conflict, message);
                e.details.causes = conflicts.iter().map(cause).collect();
                e
            }
            ApplyError::BadRequest(_) => ApiError::new(Reason::BadRequest, message),
            ApplyError::Invalid(_) => ApiError::new(Reason::InternalError, message),
        }
    }
}

fn cause(conflict: &Conflict) -> Cause {
    Cause {
        reason: "FieldManagerConflict".to_owned(),
        message: format!("conflict with {}", conflict.manager),
        field: Some(conflict.path.clone()),
    }
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, one.path);
    }
    let mut lines: Vec<String> = Vec::new();
    let mut last = None;
    for c in conflicts {
        if last != Some(&c.manager) {
            lines.push(format!("conflicts with {}:", c.manager));
            last = Some(&c.manager);
        }
        lines.push(format!("- {}", c.path));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// The manager of a write: the request's `fieldManager`, or the user agent up to the first slash.
pub fn manager_name(field_manager: &str, user_agent: &str) -> String {
    const LONGEST: usize = 128;
    if !field_manager.is_empty() {
        return field_manager.to_owned();
    }
    let mut name = String::new();
    for c in user_agent.split('/').next().unwrap_or_default().chars().filter(|c| !c.is_control()) {
        if name.len() + c.len_utf8() > LONGEST {
            break;
        }
        name.push(c);
    }
    name
}

/// Records in `new` what a create (`live` is `None`), an update or a patch has changed. `new` must be decoded and
/// defaulted, but not yet changed by admission or a strategy: what those set belongs to nobody. Objects that nobody
/// manages stay so.
pub fn update(write: &Write<'_>, live: Option<&Value>, new: &mut Value) {
    let given = take_managed(new);
    let mut managed = recorded(write, live, given.as_ref());
    if managed.is_empty() && live.is_some() {
        return;
    }
    let zero;
    let old = match live {
        Some(live) => live,
        None => {
            zero = write.schema.zero();
            &zero
        }
    };
    track(write, old, new, &mut managed);
    managed.cap();
    put_managed(new, managed);
}

/// Merges `applied` into the live object and records the applier as owner of its fields. What it owned before and no
/// longer sets is removed, unless somebody else owns it too. `force` takes fields from others instead of refusing.
/// Without a live object the result is a new one, without the metadata that the server gives.
pub fn apply(
    write: &Write<'_>,
    live: Option<&Value>,
    applied: &Value,
    force: bool,
) -> Result<Value, ApplyError> {
    check(write, applied)?;
    let mut old = live.cloned().unwrap_or_else(|| write.schema.zero());
    let record = take_managed(&mut old);
    let mut managed = Managed::decode(record.as_ref())
        .map_err(|e| ApplyError::Invalid(format!("failed to decode managed fields: {e}")))?;
    if managed.is_empty() && live.is_some() {
        let before = Write { manager: BEFORE_FIRST_APPLY, ..*write };
        track(&before, &write.schema.zero(), &old, &mut managed);
    }
    let outcome = merge(write, &old, applied, managed.clone(), force)
        .or_else(|disputed| settle(write, &old, disputed, || merge(write, &old, applied, managed, true)))
        .map_err(|disputed| ApplyError::Conflicts(conflicts(&disputed)))?;
    let (mut object, managed) = outcome;
    typed::drop_nulls(write.schema, &mut object);
    if write.manager == "kubectl" {
        renew_last_applied(&mut object, applied);
    }
    put_managed(&mut object, managed);
    Ok(object)
}

fn check(write: &Write<'_>, applied: &Value) -> Result<(), ApplyError> {
    let text = |name: &str| applied.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if api_version != write.api_version || kind != write.schema.short_name() {
        let gvk = shown_gvk(api_version, kind);
        return Err(ApplyError::BadRequest(format!("invalid object type: {gvk}")));
    }
    let meta = |name: &str| applied.get("metadata").and_then(|m| m.get(name));
    if meta("managedFields").is_some_and(Value::is_array) {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".to_owned()));
    }
    match typed::problems(write.schema, applied) {
        None => Ok(()),
        Some(problems) => {
            let name = |name: &str| meta(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (namespace, name) = (name("namespace"), name("name"));
            let gvk = shown_gvk(api_version, kind);
            let message =
                format!("failed to create typed patch object ({namespace}/{name}; {gvk}): {problems}");
            Err(ApplyError::Invalid(message))
        }
    }
}

/// Go's text of a GroupVersionKind: `/v1, Kind=Pod`.
fn shown_gvk(api_version: &str, kind: &str) -> String {
    let slash = if api_version.contains('/') { "" } else { "/" };
    format!("{slash}{api_version}, Kind={kind}")
}

// ---- who owns what ----

/// The managers that a write starts from: those that the request brings, or the live object's where it brings none.
fn recorded(write: &Write<'_>, live: Option<&Value>, given: Option<&Value>) -> Managed {
    let of_live = || Managed::decode(live.and_then(managed_of)).unwrap_or_default();
    if !write.subresource.is_empty() {
        return of_live();
    }
    // One empty entry is how clients ask to forget all managers.
    if given
        .and_then(Value::as_array)
        .is_some_and(|l| matches!(l.as_slice(), [Value::Object(m)] if m.is_empty()))
    {
        return Managed::default();
    }
    match Managed::decode(given) {
        Ok(managed) if !managed.is_empty() => managed,
        _ => of_live(),
    }
}

/// Gives the writer what differs between the objects, and takes it from everybody else.
fn track(write: &Write<'_>, old: &Value, new: &Value, managed: &mut Managed) {
    let mut difference = typed::compare(write.schema, old, new);
    difference.exclude(&reset_fields(write));
    if difference.is_empty() {
        return;
    }
    let others = Elsewhere::new(write, old, new, managed);
    let Comparison { added, modified, removed } = difference;
    let mut taken = modified;
    taken.extend(added);
    managed.entries.retain_mut(|entry| {
        match others.differences(&entry.api_version) {
            Seen::Same => {
                entry.fields.subtract(&taken);
                entry.fields.subtract(&removed);
            }
            Seen::Differs(d) => {
                entry.fields.subtract(&d.modified);
                entry.fields.subtract(&d.added);
                entry.fields.subtract(&d.removed);
            }
            Seen::Gone => return false,
        }
        !entry.fields.is_empty()
    });
    taken.subtract(&NEVER_MANAGED);
    if taken.is_empty() {
        return;
    }
    let mut own = writer(write, Operation::Update, taken);
    own.time = write.now.to_owned();
    if let Some(before) = managed.take(&own) {
        own.fields.extend(before.fields);
    }
    managed.entries.push(own);
}

fn writer(write: &Write<'_>, operation: Operation, fields: Set) -> Entry {
    let manager = if write.manager.is_empty() { "unknown" } else { write.manager };
    Entry {
        manager: manager.to_owned(),
        operation,
        api_version: write.api_version.to_owned(),
        subresource: write.subresource.to_owned(),
        time: String::new(),
        fields,
    }
}

/// The change as managers of other versions see it.
struct Elsewhere {
    versions: Vec<(String, Option<Comparison>)>,
}

enum Seen<'a> {
    Same,
    Differs(&'a Comparison),
    /// The version exists no more, so its managers own nothing.
    Gone,
}

impl Elsewhere {
    fn new(write: &Write<'_>, old: &Value, new: &Value, managed: &Managed) -> Self {
        let mut versions: Vec<(String, Option<Comparison>)> = Vec::new();
        let Some(convert) = write.convert else { return Self { versions } };
        for entry in &managed.entries {
            let version = &entry.api_version;
            if version == write.api_version || versions.iter().any(|(v, _)| v == version) {
                continue;
            }
            let seen = convert(old, version).zip(convert(new, version)).map(|((old, schema), (new, _))| {
                let mut difference = typed::compare(&schema, &old, &new);
                difference.exclude(&reset_fields(write));
                difference
            });
            versions.push((version.clone(), seen));
        }
        Self { versions }
    }

    fn differences(&self, version: &str) -> Seen<'_> {
        match self.versions.iter().find(|(v, _)| v == version) {
            None => Seen::Same,
            Some((_, Some(d))) => Seen::Differs(d),
            Some((_, None)) => Seen::Gone,
        }
    }
}

/// Identity, and what the server alone writes.
static NEVER_MANAGED: LazyLock<Set> = LazyLock::new(|| {
    let mut set = Set::of_fields(&["apiVersion"]);
    set.extend(Set::of_fields(&["kind"]));
    set.extend(Set::of_fields(&["metadata"]));
    for name in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ] {
        set.extend(Set::of_fields(&["metadata", name]));
    }
    set
});

static STATUS: LazyLock<Set> = LazyLock::new(|| Set::of_fields(&["status"]));
static SPEC: LazyLock<Set> = LazyLock::new(|| Set::of_fields(&["spec"]));

/// What a write to this endpoint cannot change, so nobody comes to own it there.
fn reset_fields(write: &Write<'_>) -> std::borrow::Cow<'static, Set> {
    use std::borrow::Cow;
    let with = |more: &[&[&str]]| {
        let mut set = SPEC.clone();
        more.iter().for_each(|path| set.extend(Set::of_fields(path)));
        Cow::Owned(set)
    };
    match (write.subresource, write.schema.name.as_str()) {
        ("", _) if write.schema.field("status").is_some() => Cow::Borrowed(&STATUS),
        ("status", "io.k8s.api.apps.v1.Deployment") => with(&[&["metadata", "labels"]]),
        ("status", "io.k8s.api.core.v1.Pod") => {
            with(&[&["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]])
        }
        ("status", _) => Cow::Borrowed(&SPEC),
        _ => Cow::Owned(Set::default()),
    }
}

// ---- apply ----

/// What each of the others would lose.
type Disputed = Vec<(Entry, Set)>;

fn merge(
    write: &Write<'_>,
    old: &Value,
    applied: &Value,
    mut managed: Managed,
    force: bool,
) -> Result<(Value, Managed), Disputed> {
    let reset = reset_fields(write);
    let mut fields = typed::field_set(write.schema, applied);
    fields.subtract_recursively(&reset);
    let mut own = writer(write, Operation::Apply, fields);
    let last = managed.take(&own);
    own.time = last.as_ref().map(|l| l.time.clone()).unwrap_or_default();

    let merged = typed::merge(write.schema, old, applied);
    let new = match &last {
        Some(last) if !last.fields.is_empty() => prune(write, merged, &last.fields, &own.fields, &managed),
        _ => merged,
    };
    let mut difference = typed::compare(write.schema, old, &new);
    difference.exclude(&reset);
    let others = Elsewhere::new(write, old, &new, &managed);
    let taken = difference.modified.union(&difference.added);

    let mut disputed: Disputed = Vec::new();
    managed.entries.retain_mut(|entry| {
        let (lost, removed) = match others.differences(&entry.api_version) {
            Seen::Same => (entry.fields.intersection(&taken), &difference.removed),
            Seen::Differs(d) => (entry.fields.intersection(&d.modified.union(&d.added)), &d.removed),
            Seen::Gone => return false,
        };
        entry.fields.subtract(&lost);
        entry.fields.subtract(removed);
        if !lost.is_empty() {
            disputed.push((Entry { fields: Set::default(), ..entry.clone() }, lost));
        }
        !entry.fields.is_empty()
    });
    if !force && !disputed.is_empty() {
        return Err(disputed);
    }
    let changed = new != *old;
    if changed {
        own.time = write.now.to_owned();
    }
    own.fields.subtract(&NEVER_MANAGED);
    if !own.fields.is_empty() {
        managed.entries.push(own);
    }
    Ok((if changed { new } else { old.clone() }, managed))
}

/// Takes out what the applier owned and sets no more, but leaves what anybody else owns and what nobody owned.
fn prune(write: &Write<'_>, merged: Value, last: &Set, own: &Set, others: &Managed) -> Value {
    let schema = write.schema;
    let named = |set: &Set| typed::with_named_fields(schema, set);
    let fields_of = |obj: &Value| named(&typed::field_set(schema, obj));
    let last = named(last);
    let all = fields_of(&merged);

    let pruned = typed::without(schema, &merged, &last);
    let mut kept = own.clone();
    others.entries.iter().for_each(|e| kept.extend(e.fields.clone()));
    let keep = fields_of(&pruned).union(&named(&kept));
    let pruned = typed::without(schema, &merged, &all.difference(&keep));

    let gone = all.difference(&fields_of(&pruned)).intersection(&last);
    typed::without(schema, &merged, &gone)
}

fn conflicts(disputed: &Disputed) -> Vec<Conflict> {
    let mut all: Vec<&(Entry, Set)> = disputed.iter().collect();
    all.sort_by(|(a, _), (b, _)| {
        (&a.manager, &a.api_version, &a.subresource).cmp(&(&b.manager, &b.api_version, &b.subresource))
    });
    let of = |(entry, set): &(Entry, Set)| {
        let manager = entry.shown();
        set.paths()
            .into_iter()
            .map(move |path| Conflict { manager: manager.clone(), path })
            .collect::<Vec<_>>()
    };
    all.into_iter().flat_map(of).collect()
}

// ---- the way over from client-side apply ----

/// `kubectl apply --server-side` on an object that client-side apply has made: fields that the last-applied annotation
/// still has with their live values are the user's own, whoever is recorded as their owner.
fn settle(
    write: &Write<'_>,
    old: &Value,
    disputed: Disputed,
    force: impl FnOnce() -> Result<(Value, Managed), Disputed>,
) -> Result<(Value, Managed), Disputed> {
    let allowed = match last_applied(old) {
        Some(last) if write.manager == "kubectl" => {
            let difference = typed::compare(write.schema, &last, old);
            let mut set = typed::field_set(write.schema, &last);
            set.subtract(&difference.modified);
            set.subtract(&difference.added);
            set.subtract(&difference.removed);
            set
        }
        _ => return Err(disputed),
    };
    let left = disputed.into_iter().map(|(entry, set)| (entry, set.difference(&allowed)));
    let left: Disputed = left.filter(|(_, set)| !set.is_empty()).collect();
    if left.is_empty() { force() } else { Err(left) }
}

fn annotation(obj: &Value) -> Option<&str> {
    obj.get("metadata")?.get("annotations")?.get(LAST_APPLIED)?.as_str()
}

fn last_applied(obj: &Value) -> Option<Value> {
    serde_json::from_str(annotation(obj)?).ok()
}

/// Keeps the annotation true for those who go back to client-side apply.
fn renew_last_applied(object: &mut Value, applied: &Value) {
    if annotation(object).is_none() {
        return;
    }
    let mut applied = applied.clone();
    if let Some(Value::Object(annotations)) =
        applied.get_mut("metadata").and_then(|m| m.get_mut("annotations"))
    {
        annotations.remove(LAST_APPLIED);
    }
    // Go's encoder escapes these in strings and ends with a new line.
    let text =
        applied.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026") + "\n";
    if let Some(slot) = object
        .get_mut("metadata")
        .and_then(|m| m.get_mut("annotations"))
        .and_then(|a| a.get_mut(LAST_APPLIED))
    {
        *slot = Value::String(text);
    }
}

// ---- metadata.managedFields ----

fn managed_of(obj: &Value) -> Option<&Value> {
    obj.get("metadata")?.get("managedFields")
}

fn take_managed(obj: &mut Value) -> Option<Value> {
    obj.get_mut("metadata")?.as_object_mut()?.remove("managedFields")
}

fn put_managed(obj: &mut Value, managed: Managed) {
    let Some(list) = managed.encode() else { return };
    let Some(obj) = obj.as_object_mut() else { return };
    let meta = obj.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if let Some(meta) = meta.as_object_mut() {
        meta.insert("managedFields".to_owned(), list);
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
