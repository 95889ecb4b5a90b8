//! Services, Endpoints and EndpointSlices.

use serde_json::Value;

use super::cell::{NONE, UNKNOWN, UNSET, created, labels, list, name, number, or, present, shortened, text};

const MAX_ENDPOINTS: usize = 3;

pub fn service(obj: &Value, now: i64) -> Vec<Value> {
    let ports: Vec<String> = list(obj, "/spec/ports").iter().map(port).collect();
    let ip = list(obj, "/spec/clusterIPs").first().and_then(Value::as_str).unwrap_or(NONE);
    vec![
        name(obj),
        Value::from(text(obj, "/spec/type")),
        Value::from(or(ip, NONE)),
        Value::from(external(obj)),
        Value::from(or(&ports.join(","), NONE)),
        created(obj, now),
        Value::from(labels(obj, "/spec/selector")),
    ]
}

/// `80/TCP`, or `80:30080/TCP` with a node port.
fn port(port: &Value) -> String {
    let (number_, protocol) = (number(port, "/port"), text(port, "/protocol"));
    match number(port, "/nodePort") {
        0 => format!("{number_}/{protocol}"),
        node_port => format!("{number_}:{node_port}/{protocol}"),
    }
}

fn external(obj: &Value) -> String {
    let ips: Vec<&str> = list(obj, "/spec/externalIPs").iter().filter_map(Value::as_str).collect();
    match text(obj, "/spec/type") {
        "ClusterIP" | "NodePort" => or(&ips.join(","), NONE).to_owned(),
        "LoadBalancer" => {
            let ingress = list(obj, "/status/loadBalancer/ingress").iter();
            let mut balancers: Vec<&str> =
                ingress.map(|i| or(text(i, "/ip"), text(i, "/hostname"))).filter(|a| !a.is_empty()).collect();
            balancers.sort_unstable();
            balancers.dedup();
            let all = [ips, balancers].concat();
            or(&all.join(","), "<pending>").to_owned()
        }
        "ExternalName" => text(obj, "/spec/externalName").to_owned(),
        _ => UNKNOWN.to_owned(),
    }
}

pub fn endpoints(obj: &Value, now: i64) -> Vec<Value> {
    let subsets = list(obj, "/subsets");
    let shown = if subsets.is_empty() {
        NONE.to_owned()
    } else {
        let all: Vec<String> = subsets.iter().flat_map(subset).collect();
        shortened(&all, MAX_ENDPOINTS, ",")
    };
    vec![name(obj), Value::from(shown), created(obj, now)]
}

fn subset(subset: &Value) -> Vec<String> {
    let ips = list(subset, "/addresses").iter().map(|a| text(a, "/ip"));
    let ports = list(subset, "/ports");
    if ports.is_empty() {
        return ips.map(str::to_owned).collect();
    }
    ports.iter().flat_map(|p| ips.clone().map(|ip| host_port(ip, number(p, "/port")))).collect()
}

fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

pub fn endpoint_slice(obj: &Value, now: i64) -> Vec<Value> {
    let port = |p: &Value| present(p, "/port").map_or_else(|| "*".to_owned(), Value::to_string);
    let ports: Vec<String> = list(obj, "/ports").iter().map(port).collect();
    let addresses: Vec<String> = list(obj, "/endpoints")
        .iter()
        .flat_map(|e| list(e, "/addresses"))
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    vec![
        name(obj),
        Value::from(text(obj, "/addressType")),
        Value::from(or(&shortened(&ports, MAX_ENDPOINTS, ","), UNSET)),
        Value::from(or(&shortened(&addresses, MAX_ENDPOINTS, ","), UNSET)),
        created(obj, now),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn services() {
        for (spec, status, want) in [
            (
                json!({"type": "ClusterIP", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 80, "protocol": "TCP"}], "selector": {"a": "b"}}),
                json!({}),
                json!(["ClusterIP", "10.96.0.1", "<none>", "80/TCP", "a=b"]),
            ),
            (
                json!({"type": "NodePort", "clusterIPs": ["None"], "externalIPs": ["1.2.3.4"],
                    "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}, {"port": 53, "protocol": "UDP"}]}),
                json!({}),
                json!(["NodePort", "None", "1.2.3.4", "80:30080/TCP,53/UDP", "<none>"]),
            ),
            (
                json!({"type": "LoadBalancer"}),
                json!({}),
                json!(["LoadBalancer", "<none>", "<pending>", "<none>", "<none>"]),
            ),
            (
                json!({"type": "LoadBalancer"}),
                json!({"loadBalancer": {"ingress": [{"ip": "5.5.5.5"}, {"hostname": "a.example"}]}}),
                json!(["LoadBalancer", "<none>", "5.5.5.5,a.example", "<none>", "<none>"]),
            ),
            (
                json!({"type": "ExternalName", "externalName": "x.example"}),
                json!({}),
                json!(["ExternalName", "<none>", "x.example", "<none>", "<none>"]),
            ),
        ] {
            let mut row = service(&json!({"metadata": {"name": "s"}, "spec": spec, "status": status}), 0);
            row.remove(5);
            row.remove(0);
            assert_eq!(Value::from(row), want);
        }
    }

    #[test]
    fn endpoints_and_slices() {
        let addresses = json!([{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]);
        for (subsets, want) in [
            (json!([]), "<none>"),
            (json!([{"addresses": addresses}]), "10.0.0.1,10.0.0.2"),
            (json!([{"addresses": [{"ip": "fd00::1"}], "ports": [{"port": 80}]}]), "[fd00::1]:80"),
            (
                json!([{"addresses": addresses, "ports": [{"port": 80}, {"port": 81}]}]),
                "10.0.0.1:80,10.0.0.2:80,10.0.0.1:81 + 1 more...",
            ),
        ] {
            assert_eq!(endpoints(&json!({"subsets": subsets}), 0)[1], want);
        }
        let slice = json!({"addressType": "IPv4", "ports": [{"port": 80}, {}], "endpoints": [{"addresses": ["10.0.0.1"]}]});
        assert_eq!(Value::from(&endpoint_slice(&slice, 0)[1..4]), json!(["IPv4", "80,*", "10.0.0.1"]));
        let empty = json!({"addressType": "IPv4", "ports": null, "endpoints": null});
        assert_eq!(Value::from(&endpoint_slice(&empty, 0)[1..4]), json!(["IPv4", "<unset>", "<unset>"]));
    }
}
