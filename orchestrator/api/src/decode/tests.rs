//! Wrong and odd bodies, and what decoding says to them.

use serde_json::json;

use super::*;
use crate::kinds::Registry;
use crate::schema;

fn of(group: &str, version: &str, kind: &str) -> std::sync::Arc<Struct> {
    schema::of(group, version, kind).expect("a schema")
}

/// Decodes a body sent to the deployments' URL.
fn deployment(body: &Value) -> Result<Decoded> {
    sent("apps", "Deployment", body.to_string().as_bytes())
}

fn sent(group: &str, kind: &str, bytes: &[u8]) -> Result<Decoded> {
    let kinds = Registry::builtin().snapshot();
    let row = kinds.kind(group, "v1", kind).expect("a row");
    body(&kinds, Expected::from(&**row), bytes)
}

fn with_spec(spec: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
}

fn container(container: &Value) -> Value {
    json!({"template": {"spec": {"containers": [container]}}})
}

#[test]
fn type_errors_speak_go() {
    let head = "Deployment in version \"v1\" cannot be handled as a Deployment: ";
    for (spec, want) in [
        (
            json!({"replicas": "three"}),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"selector": []}),
            "json: cannot unmarshal array into Go struct field DeploymentSpec.spec.selector of type v1.LabelSelector",
        ),
        (
            json!({"template": "x"}),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.template of type v1.PodTemplateSpec",
        ),
        (
            json!({"replicas": 1.5}),
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"replicas": 3_000_000_000_u64}),
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!("no"),
            "json: cannot unmarshal string into Go struct field Deployment.spec of type v1.DeploymentSpec",
        ),
        (
            json!(7),
            "json: cannot unmarshal number into Go struct field Deployment.spec of type v1.DeploymentSpec",
        ),
        (
            container(&json!({"name": 5})),
            "json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.name of type string",
        ),
        (
            container(&json!("c")),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.template.spec.containers of type v1.Container",
        ),
        (
            container(&json!({"imagePullPolicy": 1})),
            "json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.imagePullPolicy of type v1.PullPolicy",
        ),
        (
            json!({"template": {"spec": {"containers": "c"}}}),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            json!({"template": {"metadata": {"labels": {"a": 1}}}}),
            "json: cannot unmarshal number into Go struct field ObjectMeta.spec.template.metadata.labels of type string",
        ),
        (
            json!({"template": {"metadata": {"labels": []}}}),
            "json: cannot unmarshal array into Go struct field ObjectMeta.spec.template.metadata.labels of type map[string]string",
        ),
        (
            json!({"strategy": {"rollingUpdate": {"maxSurge": true}}}),
            "json: cannot unmarshal bool into Go value of type int32",
        ),
        (
            container(&json!({"resources": {"limits": {"cpu": "lots"}}})),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            container(&json!({"tty": "yes"})),
            "json: cannot unmarshal string into Go struct field Container.spec.template.spec.containers.tty of type bool",
        ),
    ] {
        let error = deployment(&with_spec(&spec)).expect_err("refused");
        assert_eq!(error.message, format!("{head}{want}"));
    }
    let error = deployment(&json!({"metadata": {"name": 5}})).expect_err("refused");
    assert_eq!(
        error.message,
        format!(
            "{head}json: cannot unmarshal number into Go struct field ObjectMeta.metadata.name of type string"
        )
    );
}

#[test]
fn kinds_that_do_not_belong() {
    for (body, want) in [
        (
            json!({"apiVersion": "apps/v2", "kind": "Deployment"}),
            "Deployment in version \"v2\" cannot be handled as a Deployment: no kind \"Deployment\" is registered for version \"apps/v2\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
        ),
        (
            json!({"apiVersion": "apps/v1", "kind": "Pod"}),
            "Pod in version \"v1\" cannot be handled as a Deployment: no kind \"Pod\" is registered for version \"apps/v1\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Pod", "spec": 5}),
            "Pod in version \"v1\" cannot be handled as a Deployment: converting (v1.Pod) to (apps.Deployment): unknown conversion",
        ),
        (json!({"apiVersion": "a/b/c", "kind": "Pod"}), "unexpected GroupVersion string: a/b/c"),
    ] {
        assert_eq!(deployment(&body).expect_err("refused").message, want);
    }
    let kinds = Registry::builtin().snapshot();
    let row = kinds.kind("autoscaling", "v2", "HorizontalPodAutoscaler").expect("a row");
    let other = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler"}).to_string();
    let error = body(&kinds, Expected::from(&**row), other.as_bytes()).expect_err("refused");
    let want = "the API version in the data (autoscaling/v1) does not match the expected API version (autoscaling/v2)";
    assert_eq!(error.message, want);
}

#[test]
fn a_body_may_leave_its_type_out() {
    for body in
        [json!({}), json!(null), json!({"kind": "Deployment"}), json!({"apiVersion": "apps/v1", "kind": ""})]
    {
        let decoded = deployment(&body).expect("accepted");
        assert_eq!(
            (&decoded.value["apiVersion"], &decoded.value["kind"]),
            (&json!("apps/v1"), &json!("Deployment"))
        );
    }
}

#[test]
fn malformed_bodies() {
    let head = "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: ";
    let meta = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    for (body, want) in [
        ("{", "unexpected end of JSON input ({)".to_owned()),
        ("", "unexpected end of JSON input (<empty>)".to_owned()),
        ("[]", format!("json: cannot unmarshal array into Go value of type {meta} (5b5d)")),
        ("\"x\"", format!("json: cannot unmarshal string into Go value of type {meta} (227822)")),
        ("{\"a\" 1}", "invalid character '1' after object key ({\"a\" 1})".to_owned()),
        ("{a: 1}", "invalid character 'a' looking for beginning of object key string ({a: 1})".to_owned()),
        ("{} x", "invalid character 'x' after top-level value ({} x)".to_owned()),
        ("{\"a\":1 2}", "invalid character '2' after object key:value pair ({\"a\":1 2})".to_owned()),
    ] {
        let error = sent("", "ConfigMap", body.as_bytes()).expect_err("refused");
        assert_eq!(error.message, format!("{head}{want}"), "{body}");
    }
    let deep = format!("{{\"data\":{}{}}}", "[".repeat(1000), "]".repeat(1000));
    let error = sent("apps", "ControllerRevision", deep.as_bytes()).expect_err("refused");
    assert!(error.message.ends_with(": exceeded max depth"), "{error}");
    // In a field that nobody knows, too; brackets in strings are none.
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{{\"x\":{}1{}}}", open.repeat(20_000), close.repeat(20_000));
        let error = sent("", "ConfigMap", deep.as_bytes()).expect_err("refused");
        assert!(error.message.contains(": exceeded max depth"), "{error}");
        assert_eq!(parse(deep.as_bytes()).expect_err("refused").message, "exceeded max depth");
    }
    let text = format!("{{\"data\":{{\"a\":\"{}\"}}}}", "[\\\"{".repeat(20_000));
    sent("", "ConfigMap", text.as_bytes()).expect("accepted");
}

#[test]
fn unknown_and_duplicate_fields_in_the_order_of_the_document() {
    let body = br#"{"metadata":{"name":"s"},"spec":{"template":{"spec":{"containers":[{"name":"c","imag":"x"}]},"x":2},
        "bogus":1,"replicas":1,"replicas":2,"template":{"metadata":{"labels":{"a":"1","a":"2"}}}},"Spec":{}}"#;
    let decoded = sent("apps", "Deployment", body).expect("accepted");
    let want = [
        "unknown field \"spec.template.spec.containers[0].imag\"",
        "unknown field \"spec.template.x\"",
        "unknown field \"spec.bogus\"",
        "duplicate field \"spec.replicas\"",
        "duplicate field \"spec.template\"",
        "duplicate field \"spec.template.metadata.labels.a\"",
        "unknown field \"Spec\"",
    ];
    assert_eq!(decoded.strict, want);
    assert_eq!(decoded.value["spec"]["replicas"], 2);
    assert!(decoded.value["spec"].get("bogus").is_none());
    let kinds = Registry::builtin().snapshot();
    let row = kinds.kind("", "v1", "ConfigMap").expect("a row");
    let error = strict_error(Expected::from(&**row), &["duplicate field \"data.a\"".to_owned()]);
    let want = "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: duplicate field \"data.a\"";
    assert_eq!(error.message, want);
}

#[test]
fn zero_values_as_go_writes_them() {
    let spec = json!({
        "replicas": 0, "paused": false, "minReadySeconds": 0, "selector": {"matchLabels": {}},
        "template": {"metadata": {"labels": {"a": null}, "annotations": {}}, "spec": {
            "automountServiceAccountToken": false, "hostNetwork": false, "nodeSelector": {}, "securityContext": {},
            "terminationGracePeriodSeconds": 0, "volumes": [], "containers": [{"name": "c", "image": "", "env": null}],
        }},
    });
    let decoded = deployment(&with_spec(&spec)).expect("accepted");
    let want = json!({
        "replicas": 0, "selector": {}, "strategy": {},
        "template": {"metadata": {"labels": {"a": ""}}, "spec": {
            "automountServiceAccountToken": false, "securityContext": {}, "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "resources": {}}],
        }},
    });
    assert_eq!(decoded.value["spec"], want);
    assert_eq!(decoded.value["status"], json!({}));
    assert!(decoded.strict.is_empty());
}

#[test]
fn kinds_that_always_write_some_fields() {
    let event = sent("", "Event", br#"{"involvedObject":{"kind":"Pod"},"count":2}"#).expect("accepted");
    let want = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {}, "count": 2, "involvedObject": {"kind": "Pod"}, "source": {},
        "eventTime": null, "firstTimestamp": null, "lastTimestamp": null, "reportingComponent": "", "reportingInstance": "",
    });
    assert_eq!(event.value, want);
    let service = sent("", "Service", br#"{"spec":{"ports":[{"port":80}]}}"#).expect("accepted");
    assert_eq!(service.value["status"], json!({"loadBalancer": {}}));
    assert_eq!(service.value["spec"]["ports"], json!([{"port": 80, "targetPort": 0}]));
}

#[test]
fn scalars_become_canonical() {
    let pod =
        br#"{"metadata":{"creationTimestamp":"2026-01-01T01:00:00+01:00"},"spec":{"containers":[{"name":"c",
        "resources":{"requests":{"cpu":0.05,"memory":"1048576Ki"},"limits":{"cpu":2,"memory":"1.5Gi"}},
        "livenessProbe":{"httpGet":{"port":"http"}}}]}}"#;
    let decoded = sent("", "Pod", pod).expect("accepted").value;
    assert_eq!(decoded["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");
    let want =
        json!({"requests": {"cpu": "50m", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1536Mi"}});
    assert_eq!(decoded["spec"]["containers"][0]["resources"], want);
    let secret = sent("", "Secret", br#"{"data":{"a":"!"}}"#).expect_err("refused").message;
    assert_eq!(
        secret,
        "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 0"
    );
}

#[test]
fn parsed_values_walk_the_same_way() {
    let mut value = json!({"kind": "ConfigMap", "metadata": {"name": "a", "bogus": 1}, "data": {"a": "b"}, "immutable": false});
    let unknown = object(&of("", "v1", "ConfigMap"), &mut value).expect("accepted");
    assert_eq!(unknown, ["unknown field \"metadata.bogus\""]);
    assert_eq!(
        value,
        json!({"kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "b"}, "immutable": false})
    );
    let mut wrong = json!({"data": {"a": {}}});
    let error = object(&of("", "v1", "ConfigMap"), &mut wrong).expect_err("refused");
    assert_eq!(
        error.message,
        "json: cannot unmarshal object into Go struct field ConfigMap.data of type string"
    );
    let mut list = json!([]);
    let error = object(&of("", "v1", "ConfigMap"), &mut list).expect_err("refused");
    assert_eq!(error.message, "json: cannot unmarshal array into Go value of type v1.ConfigMap");
}

#[test]
fn untyped_documents_report_their_duplicates() {
    let (value, duplicates) = parse(br#"{"a":{"b":1,"b":2},"l":[{"x":null,"x":1}]}"#).expect("parsed");
    assert_eq!(value, json!({"a": {"b": 2}, "l": [{"x": 1}]}));
    assert_eq!(duplicates, ["a.b", "l[0].x"]);
    assert_eq!(parse(b"{").expect_err("refused").message, "unexpected end of JSON input");
}

#[test]
fn yaml_bodies() {
    let kinds = Registry::builtin().snapshot();
    let row = kinds.kind("", "v1", "ConfigMap").expect("a row");
    let sent = |text: &str| yaml_body(&kinds, Expected::from(&**row), text.as_bytes());
    let error = sent("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: y}\n").expect_err("refused").message;
    let want = "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.name of type string";
    assert_eq!(error, want);
    let decoded = sent("metadata: {name: a}\ndata:\n  a: x\n  a: z\nfoo: 1\n").expect("accepted");
    assert_eq!(
        decoded.strict,
        ["yaml: unmarshal errors:\n  line 4: key \"a\" already set in map", "unknown field \"foo\""]
    );
    assert_eq!(decoded.value["data"]["a"], "z");
    let head = "the object provided is unrecognized (must be of type ConfigMap): yaml: line 1: ";
    let error = sent("a: [").expect_err("refused").message;
    assert!(error.starts_with(head) && error.ends_with(" (613a205b)"), "{error}");
}

#[test]
fn what_a_strategy_removed_comes_back() {
    let mut value = json!({"metadata": {"name": "r"}, "spec": {}});
    complete(&of("apps", "v1", "ReplicaSet"), &mut value);
    assert_eq!(value["status"], json!({"replicas": 0}));
}

#[test]
fn no_struct_has_more_fields_than_the_walk_marks() {
    for name in schema::names() {
        assert!(schema::definition(name).expect(name).fields.len() <= 256, "{name}");
    }
}
