//! Wrong manifests and wrong requests, as a table: each gets the Status that Kubernetes gives, and none harms the server.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, in its helpers as well")]

use std::sync::LazyLock;
use std::time::Duration;

use loadline_tests::{Answer, Cluster, Endpoint, Options, Request, eventually};
use serde_json::{Value, json};

const CM: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const HPAS: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
const POLICIES: &str = "/apis/autoscaling.loadline.io/v1alpha1/namespaces/default/scalingpolicies";

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const MERGE: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// What the server may hold on to after all of it, in MiB above what it had before; a debug build.
const MEMORY: u64 = 200;

const NONE: &str = "no reason";

struct Case {
    what: &'static str,
    request: Request,
    code: u16,
    /// Empty: the answer is something else than a Status. `NONE`: a Status without a reason.
    reason: &'static str,
    says: &'static str,
}

/// What the answer should be: code, reason, part of the message.
type Want = (u16, &'static str, &'static str);

fn case(what: &'static str, request: Request, (code, reason, says): Want) -> Case {
    Case { what, request, code, reason, says }
}

fn post(what: &'static str, path: &str, body: Value, want: Want) -> Case {
    case(what, Request::new("POST", path).body(JSON, body.to_string()), want)
}

fn text(what: &'static str, kind: &str, path: &str, body: impl Into<String>, want: Want) -> Case {
    case(what, Request::new("POST", path).body(kind, body.into()), want)
}

fn patch(what: &'static str, kind: &str, path: &str, body: impl Into<String>, want: Want) -> Case {
    case(what, Request::new("PATCH", path).body(kind, body.into()), want)
}

fn get(what: &'static str, path: &str, want: Want) -> Case {
    case(what, Request::new("GET", path), want)
}

fn config_map(extra: Value) -> Value {
    merged(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}), extra)
}

/// Puts `extra` over `object`, one level deep.
fn merged(mut object: Value, extra: Value) -> Value {
    object.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    object
}

fn named(name: impl Into<String>) -> Value {
    config_map(json!({"metadata": {"name": name.into()}}))
}

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})
}

fn container(extra: Value) -> Value {
    pod(json!({"containers": [merged(json!({"name": "c", "image": "i"}), extra)]}))
}

fn deployment(spec: Value) -> Value {
    let template =
        json!({"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let usual = json!({"selector": {"matchLabels": {"app": "d"}}, "template": template});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": merged(usual, spec)})
}

fn service(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec})
}

fn hpa(spec: Value) -> Value {
    let usual = json!({"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "maxReplicas": 3});
    json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": merged(usual, spec)})
}

fn policy(spec: Value) -> Value {
    let usual = json!({"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "maxReplicas": 3,
        "objectives": [{"resource": {"name": "cpu", "utilization": 50}}]});
    json!({"apiVersion": "autoscaling.loadline.io/v1alpha1", "kind": "ScalingPolicy", "metadata": {"name": "p"}, "spec": merged(usual, spec)})
}

/// Nine levels of ten aliases each: a billion nodes when written out.
fn alias_bomb() -> String {
    let mut text = String::from(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bomb}\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n",
    );
    for level in 1..9 {
        let before = format!("*a{}", level - 1);
        text.push_str(&format!("a{level}: &a{level} [{}]\n", vec![before; 10].join(",")));
    }
    text
}

static MIB_3: LazyLock<String> = LazyLock::new(|| "x".repeat((3 << 20) + 1000));
static MIB_2: LazyLock<String> = LazyLock::new(|| "x".repeat(2 << 20));

#[rustfmt::skip] // a table: one case on one line
fn manifests() -> Vec<Case> {
    let invalid = |says| (422, "Invalid", says);
    let bad = |says| (400, "BadRequest", says);
    let strict = |path: &str| format!("{path}?fieldValidation=Strict");
    vec![
        // Unknown and wrong fields.
        post("unknown field, strict", &strict(CM), config_map(json!({"dta": {}})), bad("unknown field \"dta\"")),
        post("unknown nested field, strict", &strict(DEPLOYMENTS), deployment(json!({"replcas": 1})), bad("unknown field \"spec.replcas\"")),
        text("duplicate key, strict", JSON, &strict(CM), r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"a":"1","a":"2"}}"#, bad("duplicate field \"data.a\"")),
        text("duplicate key in YAML, strict", YAML, &strict(CM), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: '1', a: '2'}\n", bad("already set in map")),
        post("number where text belongs", CM, config_map(json!({"data": {"a": 5}})), bad("cannot unmarshal number")),
        post("text where a number belongs", DEPLOYMENTS, deployment(json!({"replicas": "three"})), bad("cannot unmarshal string")),
        post("list where a map belongs", CM, config_map(json!({"metadata": []})), bad("cannot unmarshal array")),
        post("a number that fits no int32", DEPLOYMENTS, deployment(json!({"replicas": 3_000_000_000_u64})), bad("cannot unmarshal number")),
        post("a fraction of a replica", DEPLOYMENTS, deployment(json!({"replicas": 1.5})), bad("cannot unmarshal number")),
        post("binary data that is no base64", "/api/v1/namespaces/default/secrets", json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "%%%"}}), bad("illegal base64")),
        post("a wrong time", "/apis/coordination.k8s.io/v1/namespaces/default/leases", json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {"renewTime": "yesterday"}}), bad("parsing time")),
        post("a wrong quantity", PODS, container(json!({"resources": {"requests": {"cpu": "much"}}})), bad("quantities must match")),
        post("the kind of another resource", CM, json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c"}}), bad("Secret")),
        post("the version of another group", CM, json!({"apiVersion": "apps/v1", "kind": "ConfigMap", "metadata": {"name": "c"}}), bad("apps/v1")),
        // Names.
        post("no name", CM, config_map(json!({"metadata": {}})), invalid("name or generateName is required")),
        post("upper case", CM, named("Upper"), invalid("metadata.name")),
        post("..", CM, named(".."), invalid("metadata.name")),
        post("../../etc", CM, named("../../etc/passwd"), invalid("metadata.name")),
        post("a slash", CM, named("a/b"), invalid("metadata.name")),
        post("an encoded slash", CM, named("a%2fb"), invalid("metadata.name")),
        post("NUL", CM, named("a\0b"), invalid("metadata.name")),
        post("a line feed", CM, named("a\nb"), invalid("metadata.name")),
        post("254 letters", CM, named("x".repeat(254)), invalid("must be no more than 253")),
        post("a dot in a namespace", "/api/v1/namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a.b"}}), invalid("must not contain dots")),
        post("a service with a dot", SERVICES, merged(service(json!({"ports": [{"port": 80}]})), json!({"metadata": {"name": "a.b"}})), invalid("metadata.name")),
        post("generateName with upper case", CM, config_map(json!({"metadata": {"generateName": "Bad_"}})), invalid("generateName")),
        post("another namespace than the path's", CM, config_map(json!({"metadata": {"name": "c", "namespace": "other"}})), bad("namespace")),
        post("a namespace that is not there", "/api/v1/namespaces/nowhere/configmaps", named("c"), (404, "NotFound", "namespaces \"nowhere\" not found")),
        post("a wrong label", CM, config_map(json!({"metadata": {"name": "c", "labels": {"a b": "c"}}})), invalid("metadata.labels")),
        post("a label's value too long", CM, config_map(json!({"metadata": {"name": "c", "labels": {"a": "x".repeat(64)}}})), invalid("must be no more than 63")),
        post("a wrong finalizer", CM, config_map(json!({"metadata": {"name": "c", "finalizers": ["nothing"]}})), invalid("metadata.finalizers")),
        post("an owner without uid", CM, config_map(json!({"metadata": {"name": "c", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": ""}]}})), invalid("metadata.ownerReferences")),
        post("annotations too large", CM, config_map(json!({"metadata": {"name": "c", "annotations": {"a": "x".repeat(300_000)}}})), invalid("metadata.annotations")),
        post("a wrong key", CM, config_map(json!({"data": {"a/b": "c"}})), invalid("data[a/b]")),
        post("the key ..", CM, config_map(json!({"data": {"..": "c"}})), invalid("data[..]")),
        // Kinds.
        post("a pod without containers", PODS, pod(json!({"containers": []})), invalid("spec.containers")),
        post("two containers of one name", PODS, pod(json!({"containers": [{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]})), invalid("Duplicate value: \"c\"")),
        post("a port too high", PODS, container(json!({"ports": [{"containerPort": 70000}]})), invalid("must be between 1 and 65535")),
        post("more requested than allowed", PODS, container(json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}})), invalid("must be less than or equal to cpu limit")),
        post("less than nothing", PODS, container(json!({"resources": {"requests": {"memory": "-1Gi"}}})), invalid("must be greater than or equal to 0")),
        post("a mount of no volume", PODS, container(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})), invalid("volumeMounts[0].name")),
        post("a mount that leaves its volume", PODS, pod(json!({"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "../x"}]}], "volumes": [{"name": "v", "emptyDir": {}}]})), invalid("must not contain '..'")),
        post("two kinds of volume in one", PODS, pod(json!({"containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]})), invalid("may not specify more than 1 volume type")),
        post("a probe of two kinds", PODS, container(json!({"livenessProbe": {"exec": {"command": ["a"]}, "tcpSocket": {"port": 1}}})), invalid("may not specify more than 1 handler type")),
        post("an unknown restart policy", PODS, pod(json!({"restartPolicy": "Sometimes", "containers": [{"name": "c", "image": "i"}]})), invalid("Unsupported value: \"Sometimes\"")),
        post("a selector that misses its template", DEPLOYMENTS, deployment(json!({"selector": {"matchLabels": {"app": "other"}}})), invalid("`selector` does not match template `labels`")),
        post("fewer than no replicas", DEPLOYMENTS, deployment(json!({"replicas": -1})), invalid("must be greater than or equal to 0")),
        post("a rolling update that may not move", DEPLOYMENTS, deployment(json!({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}})), invalid("may not be 0 when `maxSurge` is 0")),
        post("a service without ports", SERVICES, service(json!({"selector": {"a": "b"}})), invalid("spec.ports")),
        post("a node port of somebody else", SERVICES, service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]})), invalid("provided port is not in the valid range")),
        post("an address outside the range", SERVICES, service(json!({"clusterIP": "8.8.8.8", "ports": [{"port": 80}]})), invalid("clusterIP")),
        post("no replicas at most", HPAS, hpa(json!({"maxReplicas": 0})), invalid("greater than 0")),
        post("more at least than at most", HPAS, hpa(json!({"minReplicas": 5})), invalid("must be greater than or equal to `minReplicas`")),
        post("a policy with more at least than at most", POLICIES, policy(json!({"minReplicas": 5})), invalid("spec.maxReplicas")),
        post("a policy with two targets in one", POLICIES, policy(json!({"objectives": [{"resource": {"name": "cpu", "utilization": 50, "averageValue": "1"}}]})), invalid("spec.objectives[0]")),
        post("a policy of an unknown mode", POLICIES, policy(json!({"mode": "Guess"})), invalid("spec.mode")),
    ]
}

#[rustfmt::skip] // a table: one case on one line
fn bodies() -> Vec<Case> {
    let bad = |says| (400, "BadRequest", says);
    let mut cut = pod(json!({"containers": []})).to_string();
    cut.truncate(30);
    vec![
        text("nothing", JSON, CM, "", bad("")),
        text("half of it", JSON, PODS, cut, bad("unexpected end of JSON input")),
        text("no JSON", JSON, CM, "kind of a map", bad("invalid character")),
        text("a list", JSON, CM, "[]", bad("")),
        text("null", JSON, CM, "null", (422, "Invalid", "name or generateName is required")),
        text("something after it", JSON, CM, "{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"c\"}} trailing", bad("")),
        case("no UTF-8", Request::new("POST", CM).body(JSON, b"{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"\xff\xfe\"}}".to_vec()), bad("invalid character")),
        text("deep lists in JSON", JSON, CM, format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"c"}},"x":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000)), bad("exceeded max depth")),
        text("deep maps in JSON", JSON, CM, format!("{}1{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000)), bad("exceeded max depth")),
        text("deep lists in YAML", YAML, CM, format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\nx: {}{}\n", "[".repeat(50_000), "]".repeat(50_000)), bad("")),
        text("deep maps in YAML", YAML, CM, (0..1_000).map(|i| format!("{}a:\n", " ".repeat(i))).collect::<String>(), bad("")),
        text("a bomb of aliases", YAML, CM, alias_bomb(), bad("")),
        text("YAML that is none", YAML, CM, "a: [", bad("yaml")),
        text("an alias of nothing", YAML, CM, "a: *nobody", bad("")),
        text("an alias of itself", YAML, CM, "a: &a [*a]", bad("")),
        text("a little over 3 MiB", JSON, CM, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": &**MIB_3}}).to_string(), (413, "RequestEntityTooLarge", "limit")),
        text("2 MiB", JSON, CM, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": &**MIB_2}}).to_string(), (422, "Invalid", "Too long")),
        text("text", "text/plain", CM, "x", (415, "UnsupportedMediaType", "unknown format")),
        text("XML", "application/xml", CM, "<x/>", (415, "UnsupportedMediaType", "unknown format")),
        text("a media type that is none", ";;;", CM, "{}", (415, "UnsupportedMediaType", "")),
        text("protobuf without its first bytes", PROTOBUF, CM, "not protobuf", (400, "BadRequest", "")),
        text("protobuf that ends too soon", PROTOBUF, CM, "k8s\0\u{a}\u{7f}abc", (400, "BadRequest", "")),
        text("protobuf with lengths that lie", PROTOBUF, CM, "k8s\0\u{12}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}", (400, "BadRequest", "")),
    ]
}

#[rustfmt::skip] // a table: one case on one line
fn requests() -> Vec<Case> {
    let bad = |says| (400, "BadRequest", says);
    let invalid = |says| (422, "Invalid", says);
    // Errors that Kubernetes lets through without a reason.
    let plain = |says| (500, NONE, says);
    let not_found = (404, "NotFound", "");
    let known = format!("{CM}/known");
    let with = |query: &str| format!("{CM}?{query}");
    let on_known = |query: &str| format!("{CM}/known?{query}");
    let put = |body: Value| Request::new("PUT", &format!("{CM}/known")).body(JSON, body.to_string());
    let known_map = |extra: Value| merged(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "known"}}), extra);
    vec![
        // Paths.
        get("no such object", &format!("{CM}/nothing"), (404, "NotFound", "configmaps \"nothing\" not found")),
        get("no such resource", "/api/v1/namespaces/default/gadgets", not_found),
        get("no such group", "/apis/nobody.example/v1/things", (404, "", "")),
        get("no such version", "/apis/apps/v9/deployments", (404, "", "")),
        get("no such subresource", &format!("{CM}/known/scale"), not_found),
        get("no such place", "/nothing/here", (404, "", "")),
        get(".. in the path", "/api/v1/namespaces/default/configmaps/../secrets", bad("segment")),
        get(".. as a name", "/api/v1/namespaces/../nodes", bad("segment")),
        get("an encoded .. as a name", &format!("{CM}/%2e%2e"), bad("segment")),
        get("an encoded slash in a name", &format!("{CM}/..%2f..%2fsecrets%2fx"), bad("segment")),
        get("NUL in a name", &format!("{CM}/a%00b"), bad("segment")),
        get("no UTF-8 in a name", &format!("{CM}/%ff%fe"), bad("segment")),
        get("two slashes", "//api//v1//namespaces", bad("segment")),
        get("a very long name", &format!("{CM}/{}", "x".repeat(5_000)), not_found),
        // Methods.
        case("an unknown method", Request::new("BREW", CM), (405, "MethodNotAllowed", "")),
        case("POST to an object", Request::new("POST", &known).body(JSON, known_map(json!({})).to_string()), (405, "MethodNotAllowed", "")),
        case("PUT to a collection", Request::new("PUT", CM).body(JSON, known_map(json!({})).to_string()), (405, "MethodNotAllowed", "")),
        case("all namespaces deleted at once", Request::new("DELETE", "/api/v1/namespaces"), (405, "MethodNotAllowed", "")),
        case("created in all namespaces", Request::new("POST", "/api/v1/configmaps").body(JSON, known_map(json!({})).to_string()), (405, "MethodNotAllowed", "")),
        // Who.
        case("nobody", Request { headers: Vec::new(), ..Request::new("GET", CM) }, (403, "Forbidden", "system:anonymous")),
        case("a wrong token", Request::new("GET", CM).header("authorization", "Bearer wrong"), (401, "Unauthorized", "Unauthorized")),
        // Parameters.
        get("a wrong limit", &with("limit=many"), bad("invalid syntax")),
        get("a wrong continue token", &with("continue=abc"), bad("continue key is not valid")),
        get("a continue token of nothing", &with("limit=1&continue=e30="), bad("continue")),
        get("a wrong label selector", &with("labelSelector=a%3D%3D%3Db"), bad("unable to parse requirement")),
        get("an open label selector", &with("labelSelector=a+in+(b"), bad("unable to parse")),
        get("a field that cannot be selected", &with("fieldSelector=data.a%3Db"), bad("is not a known field selector")),
        get("a wrong resourceVersion", &with("resourceVersion=abc"), bad("Invalid value: \"abc\"")),
        get("a resourceVersion below zero", &with("resourceVersion=-1"), bad("")),
        get("a match without a version", &with("resourceVersionMatch=Exact"), invalid("resourceVersionMatch")),
        get("an unknown match", &with("resourceVersion=1&resourceVersionMatch=Nearly"), invalid("resourceVersionMatch")),
        get("a watch from the future", &with("watch=true&resourceVersion=999999999999&timeoutSeconds=1"), (200, "", "Too large resource version")),
        get("a watch from nowhere", &with("watch=true&resourceVersion=abc"), plain("Invalid value: \"abc\"")),
        get("initial events without their match", &with("watch=true&sendInitialEvents=true&timeoutSeconds=1"), invalid("sendInitialEvents")),
        case("an Accept that nobody can serve", Request::new("GET", CM).header("accept", "image/png"), (406, "NotAcceptable", "")),
        post("an unknown dryRun", &with("dryRun=Some"), named("c"), invalid("dryRun")),
        post("an unknown fieldValidation", &with("fieldValidation=Bogus"), named("c"), invalid("fieldValidation")),
        post("a field manager too long", &with(&format!("fieldManager={}", "x".repeat(200))), named("c"), invalid("fieldManager")),
        // Conflicts and updates.
        post("what is there already", CM, named("known"), (409, "AlreadyExists", "configmaps \"known\" already exists")),
        post("a resourceVersion at creation", CM, config_map(json!({"metadata": {"name": "c", "resourceVersion": "5"}})), plain("resourceVersion should not be set on objects to be created")),
        case("a stale resourceVersion", put(known_map(json!({"metadata": {"name": "known", "resourceVersion": "1"}}))), (409, "Conflict", "the object has been modified")),
        case("a resourceVersion that is none", put(known_map(json!({"metadata": {"name": "known", "resourceVersion": "abc"}}))), plain("parsing \"abc\"")),
        case("another uid", put(known_map(json!({"metadata": {"name": "known", "uid": "00000000-0000-0000-0000-000000000000"}}))), (409, "Conflict", "UID")),
        case("another name than the path's", put(named("other")), bad("the name of the object")),
        case("an update of nothing", Request::new("PUT", &format!("{CM}/nothing")).body(JSON, named("nothing").to_string()), (404, "NotFound", "")),
        case("deleted under a wrong precondition", Request::new("DELETE", &known).body(JSON, json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}}).to_string()), (409, "Conflict", "the UID in the precondition")),
        case("deleted in an unknown way", Request::new("DELETE", &known).body(JSON, json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Sideways"}).to_string()), (422, "Invalid", "propagationPolicy")),
        case("deleted with no options at all", Request::new("DELETE", &known).body(JSON, "[1]"), bad("")),
        // Patches.
        patch("a patch of no type", JSON, &known, "{}", (415, "UnsupportedMediaType", "")),
        patch("a JSON patch that is no list", JSON_PATCH, &known, "{}", bad("")),
        patch("a JSON patch with an unknown operation", JSON_PATCH, &known, r#"[{"op":"bogus","path":"/data"}]"#, (422, "Invalid", "")),
        patch("a JSON patch of nothing", JSON_PATCH, &known, r#"[{"op":"remove","path":"/data/zz"}]"#, (422, "Invalid", "")),
        patch("a JSON patch whose test fails", JSON_PATCH, &known, r#"[{"op":"test","path":"/data/a","value":"9"}]"#, (422, "Invalid", "")),
        patch("a merge patch that is no JSON", MERGE, &known, "{", bad("")),
        patch("a merge patch of a list", MERGE, &known, "[]", bad("")),
        patch("a merge patch with a wrong type", MERGE, &known, r#"{"data":{"a":5}}"#, (422, "Invalid", "cannot unmarshal number")),
        patch("a patch of the name", MERGE, &known, r#"{"metadata":{"name":"other"}}"#, bad("the name of the object")),
        patch("a stale patch", MERGE, &known, r#"{"metadata":{"resourceVersion":"1"}}"#, (409, "Conflict", "the object has been modified")),
        patch("a strategic patch with an unknown directive", STRATEGIC, &known, r#"{"data":{"$patch":"bogus"}}"#, plain("unknown patch type")),
        patch("an apply without a manager", APPLY, &known, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: known}\n", invalid("fieldManager: Required value")),
        patch("an apply of another name", APPLY, &on_known("fieldManager=m"), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\n", bad("")),
        patch("an apply with managedFields", APPLY, &on_known("fieldManager=m"), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: known, managedFields: [{manager: x}]}\n", bad("managedFields")),
        patch("an apply in conflict", APPLY, &on_known("fieldManager=m"), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: known}\ndata: {a: other}\n", (409, "Conflict", "conflict")),
        patch("a patch of nothing there", MERGE, &format!("{CM}/nothing"), "{}", (404, "NotFound", "")),
        patch("more operations than anybody needs", JSON_PATCH, &known, format!("[{}]", vec![r#"{"op":"test","path":"/data/a","value":"1"}"#; 10_001].join(",")), (413, "RequestEntityTooLarge", "")),
        patch("copies of copies", JSON_PATCH, &known, copies(), invalid("")),
    ]
}

/// Doubles a value forty times over.
fn copies() -> String {
    let mut steps = vec![format!(r#"{{"op":"add","path":"/data/b0","value":"{}"}}"#, "x".repeat(1000))];
    steps.push(r#"{"op":"add","path":"/metadata/annotations","value":{}}"#.to_owned());
    steps.extend((0..40).map(|i| format!(r#"{{"op":"copy","from":"/data","path":"/data/b{}"}}"#, i + 1)));
    format!("[{}]", steps.join(","))
}

fn judge(case: &Case, answer: &Result<Answer, String>) -> Option<String> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Some(format!("{}: no answer: {error}", case.what)),
    };
    let status = answer.json();
    let mut wrong = Vec::new();
    if answer.code != case.code {
        wrong.push(format!("code {} instead of {}", answer.code, case.code));
    }
    if !case.reason.is_empty() {
        if status["kind"] != "Status" || status["status"] != "Failure" || status["code"] != answer.code {
            wrong.push("no proper Status".to_owned());
        }
        let reason = if case.reason == NONE { Value::Null } else { json!(case.reason) };
        if status["reason"] != reason {
            wrong.push(format!("reason {} instead of {}", status["reason"], case.reason));
        }
        if !status["message"].as_str().unwrap_or_default().contains(case.says) {
            wrong.push(format!("the message lacks {:?}", case.says));
        }
    } else if !answer.text().contains(case.says) {
        wrong.push(format!("the answer lacks {:?}", case.says));
    }
    if wrong.is_empty() {
        return None;
    }
    let text: String = answer.text().chars().take(400).collect();
    Some(format!("{}: {}\n    {text}", case.what, wrong.join(", ")))
}

async fn healthy(endpoint: &Endpoint) {
    eventually("/readyz is ok", Duration::from_secs(10), async || {
        let answer = endpoint.send(&Request::new("GET", "/readyz")).await?;
        if (answer.code, answer.text().as_str()) == (200, "ok") { Ok(()) } else { Err(answer.text()) }
    })
    .await;
}

async fn server() -> (Cluster, Endpoint) {
    let cluster = Cluster::start(Options::api()).await;
    let known =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "known"}, "data": {"a": "1"}});
    cluster.request("POST", CM, Some(&known)).await;
    // No controller runs here that would make it, and no pod is admitted without.
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    cluster.request("POST", "/api/v1/namespaces/default/serviceaccounts", Some(&account)).await;
    let endpoint = cluster.endpoint();
    (cluster, endpoint)
}

async fn check(cases: Vec<Case>, at_least: usize) {
    assert!(cases.len() >= at_least, "{} cases", cases.len());
    let (cluster, endpoint) = server().await;
    let before = cluster.process().memory_mib();
    let mut wrong = Vec::new();
    for case in &cases {
        let answer = endpoint.send(&case.request).await;
        wrong.extend(judge(case, &answer));
        if let Some(status) = cluster.process().has_ended() {
            panic!("{}: the server ended with {status}", case.what);
        }
    }
    healthy(&endpoint).await;
    assert!(
        wrong.is_empty(),
        "{} of {} are answered wrongly:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    let names: Vec<String> =
        cluster.list(CM).await.iter().map(|o| o["metadata"]["name"].to_string()).collect();
    assert_eq!(names, ["\"known\""], "something wrong was stored");
    assert!(!cluster.process().log().contains("panicked"), "a request made the server panic");
    let after = cluster.process().memory_mib();
    eprintln!("{} cases; {before} MiB before, {after} MiB after", cases.len());
    assert!(after < before + MEMORY, "{before} MiB before, {after} MiB after");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_manifests() {
    check(manifests(), 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bodies() {
    check(bodies(), 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests() {
    check(requests(), 50).await;
}

/// Bytes that are no HTTP, and requests that never end.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes() {
    let (cluster, endpoint) = server().await;
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let frame = |header: [u8; 9], payload: &[u8]| [http2.as_slice(), &header, payload].concat();
    let long = |line: &str| format!("GET /readyz HTTP/1.1\r\nhost: x\r\n{line}\r\n\r\n").into_bytes();
    let cases: Vec<(&str, &str, Vec<u8>)> = vec![
        ("no HTTP at all", "http/1.1", b"\x16\x03\x01hello\r\n\r\n".to_vec()),
        ("a request line of nothing", "http/1.1", b"GET\r\n\r\n".to_vec()),
        ("a header without end", "http/1.1", long(&format!("x: {}", "y".repeat(2 << 20)))),
        ("ten thousand headers", "http/1.1", long(&vec!["x: y"; 10_000].join("\r\n"))),
        ("two lengths", "http/1.1", b"POST /api/v1/namespaces HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_vec()),
        ("a length below zero", "http/1.1", b"POST /api/v1/namespaces HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n".to_vec()),
        ("chunks of no number", "http/1.1", b"POST /api/v1/namespaces HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_vec()),
        ("a broken preface", "h2", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec()),
        ("a frame of 16 MiB", "h2", frame([0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1], b"x")),
        ("an unknown stream", "h2", frame([0, 0, 4, 0, 0, 0, 0, 0, 99], b"data")),
        ("wrong settings", "h2", frame([0, 0, 5, 4, 0, 0, 0, 0, 0], b"12345")),
        ("headers that are none", "h2", frame([0, 0, 4, 1, 4, 0, 0, 0, 1], b"\xff\xff\xff\xff")),
    ];
    for (what, protocol, bytes) in &cases {
        let answer = endpoint.bytes(protocol, bytes, Duration::from_secs(2)).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.starts_with("HTTP/1.1 2"), "{what}: {text}");
        assert!(cluster.process().has_ended().is_none(), "{what}: the server ended");
    }
    // Bodies that never come, on many connections at once: others are served meanwhile.
    let mut slow = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let endpoint = endpoint.clone();
        let head = format!(
            "POST {CM} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: {JSON}\r\ncontent-length: 1000\r\n\r\n{{",
            loadline_tests::TOKEN
        );
        slow.spawn(async move { endpoint.bytes("http/1.1", head.as_bytes(), Duration::from_secs(3)).await });
    }
    for _ in 0..20 {
        healthy(&endpoint).await;
    }
    slow.join_all().await;
    assert!(!cluster.process().log().contains("panicked"));
    healthy(&endpoint).await;
}
