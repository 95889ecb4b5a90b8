//! `/scale`: how many replicas there are and shall be, for whatever has replicas.

use axum::body::Body;
use axum::http::StatusCode;
use loadline_api::decode::Expected;
use loadline_api::field::FieldError;
use loadline_api::patch::apply::{self, Write as FieldWrite};
use loadline_api::patch::scale as managers;
use loadline_api::schema::{self, Struct};
use loadline_api::selector::Selector;
use loadline_api::status::ApiError;
use serde_json::{Value, json};
use std::sync::Arc;

use crate::cache::Object;
use crate::negotiate::{BodyType, Offer, accept, patch_body};
use crate::object::{Meta as _, timestamp};
use crate::options::{FieldValidation, WriteOptions};
use crate::respond::{Failure, HttpResponse, Result, encoded, warn};
use crate::write::{Part, Patch, Step, Write};

const VERSION: &str = "autoscaling/v1";

pub(crate) async fn serve(write: &Write<'_>, body: Body) -> Result<HttpResponse> {
    let call = write.call;
    let accepted = accept(&call.headers, Offer::Plain)?;
    let schema = schema::of("autoscaling", "v1", "Scale")
        .ok_or_else(|| Failure::Bare("the schema of Scale is missing".to_owned()))?;
    let (scale, warnings) = match call.verb {
        "get" => {
            let at = crate::options::get_at(&call.query)?;
            let object = crate::read::find(write.app, write.resource, &call.path, at).await?;
            (of(&write.resource.value(&object)?)?, Vec::new())
        }
        "update" => update(write, &schema, body).await?,
        "patch" => patch(write, &schema, body).await?,
        _ => return Err(Failure::method_not_allowed()),
    };
    let bytes = serde_json::to_vec(&scale).map_err(|e| Failure::Bare(e.to_string()))?;
    let mut response = encoded(StatusCode::OK, bytes.into(), accepted.encoding);
    warn(&mut response, &warnings);
    Ok(response)
}

/// The Scale of an object.
fn of(parent: &Value) -> Result<Value> {
    let mut meta = serde_json::Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = parent["metadata"].get(field) {
            meta.insert(field.to_owned(), value.clone());
        }
    }
    let mut spec = json!({});
    if let Some(replicas) = parent["spec"]["replicas"].as_i64().filter(|r| *r != 0) {
        spec["replicas"] = json!(replicas);
    }
    let mut status = json!({"replicas": parent["status"]["replicas"].as_i64().unwrap_or(0)});
    let selector = selector(&parent["spec"]["selector"])?;
    if !selector.is_empty() {
        status["selector"] = json!(selector);
    }
    Ok(json!({"kind": "Scale", "apiVersion": VERSION, "metadata": meta, "spec": spec, "status": status}))
}

/// The selector as text: of a LabelSelector, or of a ReplicationController's map.
fn selector(value: &Value) -> Result<String> {
    let labels = value.get("matchLabels").is_some_and(Value::is_object);
    let expressions = value.get("matchExpressions").is_some_and(Value::is_array);
    if labels || expressions {
        let parsed = Selector::from_value(Some(value)).map_err(|e| ApiError::bad_request(e.to_string()))?;
        return Ok(parsed.to_string());
    }
    let set = value.as_object().into_iter().flatten();
    Ok(Selector::from_set(set.filter_map(|(k, v)| Some((k.as_str(), v.as_str()?)))).to_string())
}

async fn update(write: &Write<'_>, schema: &Arc<Struct>, body: Body) -> Result<(Value, Vec<String>)> {
    let call = write.call;
    let options = WriteOptions::parse(&call.query, "UpdateOptions", false, call.user_agent())?;
    let bytes = crate::body::read(body, &write.app.limits).await?;
    let expected = Expected { group: "autoscaling", version: "v1", kind: "Scale", schema };
    let kinds = write.app.registry.snapshot();
    let decoded = crate::codec::body(&kinds, expected, &call.headers, &bytes, options.validation)?;
    check_name(write, &decoded.value)?;
    let scale = change(write, schema, &options, |_| Ok(decoded.value.clone())).await?;
    Ok((scale, decoded.warnings))
}

async fn patch(write: &Write<'_>, schema: &Arc<Struct>, body: Body) -> Result<(Value, Vec<String>)> {
    let call = write.call;
    let ty = patch_body(&call.headers)?;
    let options =
        WriteOptions::parse(&call.query, "PatchOptions", ty == BodyType::ApplyPatch, call.user_agent())?;
    let bytes = crate::body::read(body, &write.app.limits).await?;
    let (patch, _) = Patch::decode(ty, bytes)?;
    let mut warnings = Vec::new();
    let scale = change(write, schema, &options, |old| {
        let new = match &patch {
            Patch::Apply(applied) => {
                let now = timestamp(write.now);
                let mut new = apply::apply(
                    &field_write(schema, &options.manager, now.as_str().unwrap_or_default()),
                    Some(old),
                    applied,
                    options.force,
                )?;
                crate::codec::conform(schema, &mut new)?;
                new
            }
            other => {
                let mut found = Vec::new();
                let new = other.patched(schema, old, options.validation, &mut found)?;
                warnings = found;
                new
            }
        };
        check_name(write, &new)?;
        Ok(new)
    })
    .await?;
    if options.validation != FieldValidation::Warn {
        warnings.clear();
    }
    Ok((scale, warnings))
}

fn check_name(write: &Write<'_>, scale: &Value) -> Result<()> {
    let (name, own) = (&write.call.path.name, scale.name());
    if own != name {
        let message = format!("the name of the object ({own}) does not match the name on the URL ({name})");
        return Err(ApiError::bad_request(message).into());
    }
    Ok(())
}

fn field_write<'a>(schema: &'a Struct, manager: &'a str, now: &'a str) -> FieldWrite<'a> {
    FieldWrite { schema, api_version: VERSION, manager, subresource: "scale", now, convert: None }
}

/// Writes what `edit` makes of the Scale back into the object.
async fn change(
    write: &Write<'_>,
    schema: &Struct,
    options: &WriteOptions,
    mut edit: impl FnMut(&Value) -> Result<Value>,
) -> Result<Value> {
    let base = write.current().await?;
    let now = timestamp(write.now);
    let applies = write
        .call
        .headers
        .get("content-type")
        .is_some_and(|t| t.as_bytes().starts_with(b"application/apply-patch"));
    let plan = |old: &Value, _: &Object| {
        let mut before = of(old)?;
        let bad = |e: loadline_api::patch::managed::ManagedError| Failure::Bare(e.to_string());
        let record = old["metadata"].get("managedFields");
        if let Some(managed) = managers::to_scale(record).map_err(bad)? {
            before.set_meta("managedFields", managed);
        }
        let mut scale = edit(&before)?;
        check(write, &scale, &before)?;
        if !applies {
            apply::update(
                &field_write(schema, &options.manager, now.as_str().unwrap_or_default()),
                Some(&before),
                &mut scale,
            );
        }
        let mut new = old.clone();
        new["spec"]["replicas"] = json!(scale["spec"]["replicas"].as_i64().unwrap_or(0));
        let version = &write.resource.head.api_version;
        let managed =
            managers::to_parent(record, scale["metadata"].get("managedFields"), version).map_err(bad)?;
        match managed {
            Some(managed) => new.set_meta("managedFields", managed),
            None => {
                new.meta_mut().remove("managedFields");
            }
        }
        let deletes = write.settle(&mut new, old, &Part::Whole, &mut Vec::new())?;
        Ok(if deletes { Step::Delete(new) } else { Step::Put(new) })
    };
    let done = write.change(base, options.dry_run, plan).await?;
    let parent = serde_json::from_slice(&done.body).map_err(|e| Failure::Bare(e.to_string()))?;
    of(&parent)
}

fn check(write: &Write<'_>, scale: &Value, before: &Value) -> Result<()> {
    let name = before.name();
    let version = scale.meta_str("resourceVersion");
    let uid = scale.uid();
    if (!version.is_empty() && version != before.meta_str("resourceVersion"))
        || (!uid.is_empty() && uid != before.uid())
    {
        return Err(write.resource.modified(name).into());
    }
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        let error =
            FieldError::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0");
        return Err(ApiError::invalid("autoscaling", "Scale", name, &[error]).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_of_objects() {
        let deployment = json!({"metadata": {"name": "d", "namespace": "n", "uid": "u", "labels": {"x": "y"}},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"},
                "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]}}, "status": {"replicas": 1}});
        let scale = of(&deployment).unwrap();
        assert_eq!(scale["spec"]["replicas"], 2);
        assert_eq!(scale["status"], json!({"replicas": 1, "selector": "a=b,k in (v)"}));
        assert!(scale["metadata"].get("labels").is_none());
        let rc = json!({"metadata": {"name": "r"}, "spec": {"replicas": 0, "selector": {"a": "b"}}});
        let scale = of(&rc).unwrap();
        assert_eq!(
            (&scale["spec"], &scale["status"]),
            (&json!({}), &json!({"replicas": 0, "selector": "a=b"}))
        );
    }
}
