//! Deployments, ReplicaSets, ReplicationControllers and ControllerRevisions.

use serde_json::Value;

use super::cell::{NONE, containers, created, flag, labels, list, name, number, selector, text};

const TEMPLATE: &str = "/spec/template/spec/containers";

pub fn deployment(obj: &Value, now: i64) -> Vec<Value> {
    let [names, images] = containers(obj, TEMPLATE);
    vec![
        name(obj),
        Value::from(format!("{}/{}", number(obj, "/status/readyReplicas"), number(obj, "/spec/replicas"))),
        Value::from(number(obj, "/status/updatedReplicas")),
        Value::from(number(obj, "/status/availableReplicas")),
        created(obj, now),
        names,
        images,
        Value::from(selector(obj, "/spec/selector")),
    ]
}

pub fn replica_set(obj: &Value, now: i64) -> Vec<Value> {
    replicas(obj, now, selector(obj, "/spec/selector"))
}

pub fn replication_controller(obj: &Value, now: i64) -> Vec<Value> {
    replicas(obj, now, labels(obj, "/spec/selector"))
}

fn replicas(obj: &Value, now: i64, selector: String) -> Vec<Value> {
    let [names, images] = containers(obj, TEMPLATE);
    vec![
        name(obj),
        Value::from(number(obj, "/spec/replicas")),
        Value::from(number(obj, "/status/replicas")),
        Value::from(number(obj, "/status/readyReplicas")),
        created(obj, now),
        names,
        images,
        Value::from(selector),
    ]
}

pub fn controller_revision(obj: &Value, now: i64) -> Vec<Value> {
    let owner = list(obj, "/metadata/ownerReferences").iter().find(|o| flag(o, "/controller"));
    let controller = owner.map_or_else(|| NONE.to_owned(), controller_name);
    vec![name(obj), Value::from(controller), Value::from(number(obj, "/revision")), created(obj, now)]
}

/// `statefulset.apps/web`
fn controller_name(owner: &Value) -> String {
    let (group, _) = crate::kinds::split_api_version(text(owner, "/apiVersion"));
    let kind = crate::status::qualified(group, text(owner, "/kind"));
    format!("{}/{}", kind.to_lowercase(), text(owner, "/name"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn workloads() {
        let template =
            json!({"spec": {"containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "i:2"}]}});
        let obj = json!({
            "metadata": {"name": "d"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "a"}}, "template": template},
            "status": {"replicas": 2, "readyReplicas": 1, "updatedReplicas": 2},
        });
        let want = json!(["d", "1/3", 2, 0, "<unknown>", "a,b", "i:1,i:2", "app=a"]);
        assert_eq!(Value::from(deployment(&obj, 0)), want);
        assert_eq!(
            Value::from(replica_set(&obj, 0)),
            json!(["d", 3, 2, 1, "<unknown>", "a,b", "i:1,i:2", "app=a"])
        );
        let obj = json!({"metadata": {"name": "d"}, "spec": {"selector": {"b": "2", "a": "1"}, "template": template}});
        let want = json!(["d", 0, 0, 0, "<unknown>", "a,b", "i:1,i:2", "a=1,b=2"]);
        assert_eq!(Value::from(replication_controller(&obj, 0)), want);
    }

    #[test]
    fn revisions_name_their_controller() {
        let mut obj = json!({"metadata": {"name": "r"}, "revision": 4});
        assert_eq!(Value::from(controller_revision(&obj, 0)), json!(["r", "<none>", 4, "<unknown>"]));
        obj["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": true}]);
        assert_eq!(controller_revision(&obj, 0)[1], "statefulset.apps/web");
    }
}
