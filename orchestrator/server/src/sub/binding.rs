//! `pods/binding`: the scheduler puts a pod on a node, once.

use axum::body::Body;
use axum::http::StatusCode;
use loadline_api::field::FieldError;
use loadline_api::status::ApiError;
use serde_json::{Value, json};

use crate::cache::Object;
use crate::negotiate::{Offer, accept};
use crate::object::{Meta as _, timestamp};
use crate::options::WriteOptions;
use crate::respond::{HttpResponse, Result, Status, encoded};
use crate::write::{Step, Write};

pub(crate) async fn create(write: &Write<'_>, body: Body) -> Result<HttpResponse> {
    let call = write.call;
    let accepted = accept(&call.headers, Offer::Plain)?;
    let options = WriteOptions::parse(&call.query, "CreateOptions", false, call.user_agent())?;
    let bytes = crate::body::read(body, &write.app.limits).await?;
    let binding = crate::codec::plain(&call.headers, &bytes, "", "v1", "Binding")?;
    let name = if call.path.name.is_empty() { binding.name().to_owned() } else { call.path.name.clone() };
    check(&binding, &name, &call.path.namespace)?;
    write.app.feed.fresh().await?;
    let key = crate::cache::Cache::key(&call.path.namespace, &name);
    let base = write.resource.cache.get(&key).ok_or_else(|| write.resource.not_found(&name))?;
    let plan = |old: &Value, _: &Object| bind(old, &binding, write.now).map(Step::Put);
    write.change(base, options.dry_run, plan).await?;
    let status = Status::success(None, Some(StatusCode::CREATED));
    Ok(encoded(StatusCode::CREATED, status.to_bytes(), accepted.encoding))
}

fn check(binding: &Value, name: &str, namespace: &str) -> Result<()> {
    let own = binding.name();
    if own != name || name.is_empty() {
        let message = format!("name in URL does not match name in Binding object: {name}, {own}");
        return Err(ApiError::bad_request(message).into());
    }
    let own = binding.meta_str("namespace");
    if !own.is_empty() && own != namespace {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(ApiError::bad_request(message).into());
    }
    let target = &binding["target"];
    let mut errors = Vec::new();
    let kind = target["kind"].as_str().unwrap_or_default();
    if !kind.is_empty() && kind != "Node" {
        errors.push(FieldError::not_supported("target.kind", &json!(kind), &["Node", "<empty>"]));
    }
    if target["name"].as_str().unwrap_or_default().is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("", "Binding", name, &errors).into()) }
}

/// The pod on its node, or why not.
fn bind(old: &Value, binding: &Value, now: i64) -> Result<Value> {
    let conflict = |why: String| ApiError::conflict("", "pods/binding", old.name(), &why);
    let wanted = binding.uid();
    if !wanted.is_empty() && wanted != old.uid() {
        let why =
            format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {}", old.uid());
        return Err(conflict(why).into());
    }
    if old.deleting() {
        return Err(
            conflict(format!("pod {} is being deleted, cannot be assigned to a host", old.name())).into()
        );
    }
    if let Some(node) = old["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
        return Err(conflict(format!("pod {} is already assigned to node {node:?}", old.name())).into());
    }
    if old["spec"]["schedulingGates"].as_array().is_some_and(|g| !g.is_empty()) {
        return Err(conflict(format!("pod {} has non-empty .spec.schedulingGates", old.name())).into());
    }
    let mut new = old.clone();
    new["spec"]["nodeName"] = binding["target"]["name"].clone();
    for field in ["labels", "annotations"] {
        let Some(more) = binding["metadata"][field].as_object().filter(|m| !m.is_empty()) else { continue };
        let mut all = new["metadata"][field].as_object().cloned().unwrap_or_default();
        all.extend(more.iter().map(|(k, v)| (k.clone(), v.clone())));
        new.set_meta(field, Value::Object(all));
    }
    scheduled(&mut new, now);
    Ok(new)
}

/// Sets the condition PodScheduled to true.
fn scheduled(pod: &mut Value, now: i64) {
    let condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": timestamp(now)});
    let status = &mut pod["status"];
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|c| c["type"] == "PodScheduled") {
        Some(present) => *present = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_bound_once() {
        let pod = json!({"metadata": {"name": "p", "uid": "u"}, "spec": {}, "status": {"phase": "Pending"}});
        let to = |node: &str| json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}});
        let bound = bind(&pod, &to("n1"), 0).unwrap();
        assert_eq!(bound["spec"]["nodeName"], "n1");
        assert_eq!(bound["status"]["conditions"][0]["status"], "True");
        let error = bind(&bound, &to("n2"), 0).err().unwrap().to_string();
        assert!(error.ends_with("pod p is already assigned to node \"n1\""), "{error}");
        let mut ending = pod;
        ending["metadata"]["deletionTimestamp"] = json!("2001-01-01T00:00:00Z");
        assert!(bind(&ending, &to("n"), 0).is_err());
    }

    #[test]
    fn bad_bindings() {
        for (binding, text) in [
            (json!({"metadata": {"name": "q"}, "target": {"name": "n"}}), "does not match name"),
            (json!({"metadata": {"name": "p"}, "target": {}}), "target.name: Required value"),
            (
                json!({"metadata": {"name": "p"}, "target": {"kind": "Pod", "name": "n"}}),
                "target.kind: Unsupported",
            ),
        ] {
            let error = check(&binding, "p", "ns").err().unwrap().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
