//! The operations on every resource, in both dialects.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Dialect;
use super::schemas::{body_of, gvk};
use crate::kinds::{GroupVersion, Kind, Subresource};

const JSON_TYPES: &[&str] = &["application/json", "application/yaml"];
const PATCH_TYPES: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

type Parameter = (&'static str, &'static str, &'static str);

const PRETTY: Parameter = ("pretty", "string", "If 'true', the output is indented.");
const WRITES: &[Parameter] = &[
    ("dryRun", "string", "All: everything is done but the write."),
    ("fieldManager", "string", "The name of the actor that makes this change."),
    ("fieldValidation", "string", "What to do with unknown and duplicate fields: Ignore, Warn or Strict."),
];
const FORCE: &[Parameter] = &[("force", "boolean", "Apply takes fields over that other managers own.")];
const DELETES: &[Parameter] = &[
    ("dryRun", "string", "All: everything is done but the write."),
    ("gracePeriodSeconds", "integer", "How long the object may take to end."),
    ("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    ("propagationPolicy", "string", "What becomes of dependents: Orphan, Background or Foreground."),
];
const LISTS: &[Parameter] = &[
    ("allowWatchBookmarks", "boolean", "A watch may send events of type BOOKMARK."),
    ("continue", "string", "The token of the next page."),
    ("fieldSelector", "string", "Restricts the objects by their fields."),
    ("labelSelector", "string", "Restricts the objects by their labels."),
    ("limit", "integer", "The most objects to return."),
    ("resourceVersion", "string", "The version that the answer is based on."),
    ("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan."),
    ("sendInitialEvents", "boolean", "A watch begins with the present state."),
    ("timeoutSeconds", "integer", "How long the call may last."),
    ("watch", "boolean", "Watch for changes."),
];

/// One operation, before it is written in a dialect.
struct Operation<'a> {
    method: &'static str,
    /// `x-kubernetes-action`
    action: &'static str,
    /// The kind that the operation is about.
    gvk: Value,
    id: String,
    description: String,
    query: Vec<Parameter>,
    /// The schema of the body and its media types.
    body: Option<(String, &'static [&'static str])>,
    /// The schema of the answer; `None` for text.
    answer: Option<&'a str>,
    created: bool,
}

/// The paths of a group version.
pub(super) fn of(gv: &GroupVersion, dialect: Dialect) -> BTreeMap<String, Value> {
    let root = format!("/{}", super::path_of(gv.group, gv.version));
    let mut paths = BTreeMap::new();
    for kind in &gv.kinds {
        let resource = kind.resource;
        let base = if kind.namespaced {
            format!("{root}/namespaces/{{namespace}}/{resource}")
        } else {
            format!("{root}/{resource}")
        };
        let mut add = |path: String, operations: Vec<Operation<'_>>| {
            if !operations.is_empty() {
                paths.insert(path.clone(), item(&path, &operations, kind, dialect));
            }
        };
        add(base.clone(), collection(kind));
        add(format!("{base}/{{name}}"), object(kind));
        if kind.namespaced && kind.has_verb("list") {
            add(format!("{root}/{resource}"), vec![list(kind, "ForAllNamespaces")]);
        }
        for sub in kind.subresources {
            add(format!("{base}/{{name}}/{}", sub.name()), subresource(kind, *sub));
        }
    }
    paths
}

fn collection(kind: &Kind) -> Vec<Operation<'_>> {
    let mut operations = Vec::new();
    if kind.has_verb("list") {
        operations.push(list(kind, ""));
    }
    if kind.has_verb("create") {
        let mut create = operation(kind, "post", "post", "create", "");
        create.body = Some((kind.schema.name.clone(), JSON_TYPES));
        create.query = WRITES.to_vec();
        create.created = true;
        operations.push(create);
    }
    if kind.has_verb("deletecollection") {
        let mut delete = operation(kind, "delete", "deletecollection", "deleteCollection", "");
        delete.body = Some((DELETE_OPTIONS.to_owned(), JSON_TYPES));
        delete.query = [LISTS, DELETES].concat();
        delete.answer = Some(STATUS);
        operations.push(delete);
    }
    operations
}

fn list<'a>(kind: &'a Kind, suffix: &str) -> Operation<'a> {
    let mut list = operation(kind, "get", "list", "list", suffix);
    list.query = LISTS.to_vec();
    list
}

fn object(kind: &Kind) -> Vec<Operation<'_>> {
    let mut operations = Vec::new();
    if kind.has_verb("get") {
        operations.push(operation(kind, "get", "get", "read", ""));
    }
    operations.extend(writes(kind, &kind.schema.name, &|verb| kind.has_verb(verb), ""));
    if kind.has_verb("delete") {
        let mut delete = operation(kind, "delete", "delete", "delete", "");
        delete.body = Some((DELETE_OPTIONS.to_owned(), JSON_TYPES));
        delete.query = DELETES.to_vec();
        delete.answer = Some(STATUS);
        operations.push(delete);
    }
    operations
}

/// Update and patch.
fn writes<'a>(kind: &'a Kind, body: &str, has: &dyn Fn(&str) -> bool, suffix: &str) -> Vec<Operation<'a>> {
    let mut operations = Vec::new();
    if has("update") {
        let mut update = operation(kind, "put", "put", "replace", suffix);
        update.body = Some((body.to_owned(), JSON_TYPES));
        update.query = WRITES.to_vec();
        operations.push(update);
    }
    if has("patch") {
        let mut patch = operation(kind, "patch", "patch", "patch", suffix);
        patch.body = Some((PATCH.to_owned(), PATCH_TYPES));
        patch.query = [WRITES, FORCE].concat();
        operations.push(patch);
    }
    operations
}

fn subresource(kind: &Kind, sub: Subresource) -> Vec<Operation<'_>> {
    let suffix = camel(sub.name());
    let spoken = body_of(sub);
    let body = spoken.as_ref().map_or(&kind.schema.name, |s| &s.name);
    let mut operations = match sub {
        Subresource::Status | Subresource::Scale => {
            let mut all = vec![operation(kind, "get", "get", "read", &suffix)];
            all.extend(writes(kind, body, &|_| true, &suffix));
            all
        }
        Subresource::Other("binding" | "eviction") => {
            let mut create = operation(kind, "post", "post", "create", &suffix);
            create.body = Some((body.clone(), JSON_TYPES));
            create.query = WRITES.to_vec();
            create.created = true;
            vec![create]
        }
        Subresource::Other("finalize") => writes(kind, body, &|verb| verb == "update", &suffix),
        Subresource::Other("log") => {
            let mut log = operation(kind, "get", "get", "read", &suffix);
            log.answer = None;
            vec![log]
        }
        Subresource::Other(_) => ["get", "post"]
            .into_iter()
            .map(|method| {
                let mut connect =
                    operation(kind, method, "connect", &format!("connect{}", camel(method)), &suffix);
                connect.answer = None;
                connect
            })
            .collect(),
    };
    if let Some(spoken) = spoken {
        let gvk = match sub {
            Subresource::Scale => gvk("autoscaling", "v1", "Scale"),
            Subresource::Other("eviction") => gvk("policy", "v1", "Eviction"),
            _ => gvk("", "v1", spoken.short_name()),
        };
        for operation in &mut operations {
            operation.gvk = gvk.clone();
        }
    }
    operations
}

fn operation<'a>(
    kind: &'a Kind,
    method: &'static str,
    action: &'static str,
    verb: &str,
    suffix: &str,
) -> Operation<'a> {
    let group = kind.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
    let scope = if kind.namespaced && suffix != "ForAllNamespaces" { "Namespaced" } else { "" };
    Operation {
        method,
        action,
        gvk: gvk(kind.group, kind.version, kind.kind),
        id: format!("{verb}{}{}{scope}{}{suffix}", camel(group), camel(kind.version), kind.kind),
        description: format!("{verb} {}", kind.resource),
        query: Vec::new(),
        body: None,
        answer: Some(&kind.schema.name),
        created: false,
    }
}

fn camel(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// A path with its operations and the parameters that all of them have.
fn item(path: &str, operations: &[Operation<'_>], kind: &Kind, dialect: Dialect) -> Value {
    let mut item = Map::new();
    for operation in operations {
        item.insert(operation.method.to_owned(), written(operation, kind, dialect));
    }
    let mut parameters = Vec::new();
    for (name, description) in [("namespace", "The namespace."), ("name", "The name of the object.")] {
        if path.contains(&format!("{{{name}}}")) {
            parameters.push(parameter((name, "string", description), "path", dialect));
        }
    }
    parameters.push(parameter(PRETTY, "query", dialect));
    item.insert("parameters".to_owned(), Value::from(parameters));
    Value::Object(item)
}

fn written(operation: &Operation<'_>, kind: &Kind, dialect: Dialect) -> Value {
    let tag = format!(
        "{}_{}",
        kind.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core"),
        kind.version
    );
    let mut parameters: Vec<Value> =
        operation.query.iter().map(|p| parameter(*p, "query", dialect)).collect();
    let mut value = json!({
        "description": operation.description,
        "operationId": operation.id,
        "tags": [tag],
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": operation.gvk,
    });
    let Some(object) = value.as_object_mut() else { return value };
    if let Some((schema, types)) = &operation.body {
        // Only a delete may come without one.
        let required = operation.method != "delete";
        match dialect {
            Dialect::V2 => {
                object.insert("consumes".to_owned(), Value::from(*types));
                let schema = dialect.reference(schema);
                parameters
                    .push(json!({"name": "body", "in": "body", "required": required, "schema": schema}));
            }
            Dialect::V3 => {
                let body =
                    json!({"content": content(types, &dialect.reference(schema)), "required": required});
                object.insert("requestBody".to_owned(), body);
            }
        }
    }
    if dialect == Dialect::V2 {
        object.insert("produces".to_owned(), Value::from(JSON_TYPES));
        object.insert("schemes".to_owned(), json!(["https"]));
    }
    object.insert("parameters".to_owned(), Value::from(parameters));
    object.insert("responses".to_owned(), responses(operation, dialect));
    value
}

fn responses(operation: &Operation<'_>, dialect: Dialect) -> Value {
    let schema = match (operation.answer, operation.action) {
        (None, _) => json!({"type": "string"}),
        (Some(name), "list") => dialect.reference(&format!("{name}List")),
        (Some(name), _) => match &operation.body {
            // A write answers with what it took.
            Some((body, types)) if *types == JSON_TYPES && body != DELETE_OPTIONS => dialect.reference(body),
            _ => dialect.reference(name),
        },
    };
    let answer = |description: &str| match dialect {
        Dialect::V2 => json!({"description": description, "schema": schema}),
        Dialect::V3 => json!({"description": description, "content": content(JSON_TYPES, &schema)}),
    };
    let mut responses = json!({"200": answer("OK"), "401": {"description": "Unauthorized"}});
    if let Some(object) = responses.as_object_mut().filter(|_| operation.created) {
        object.insert("201".to_owned(), answer("Created"));
    }
    responses
}

fn content(types: &[&str], schema: &Value) -> Value {
    Value::Object(types.iter().map(|ty| ((*ty).to_owned(), json!({"schema": schema}))).collect())
}

fn parameter((name, ty, description): Parameter, place: &str, dialect: Dialect) -> Value {
    let mut value = json!({"name": name, "in": place, "description": description, "uniqueItems": true});
    if let Some(object) = value.as_object_mut() {
        match dialect {
            Dialect::V2 => object.insert("type".to_owned(), Value::from(ty)),
            Dialect::V3 => {
                object.remove("uniqueItems");
                object.insert("schema".to_owned(), json!({"type": ty, "uniqueItems": true}))
            }
        };
        if place == "path" {
            object.insert("required".to_owned(), Value::from(true));
        }
    }
    value
}
