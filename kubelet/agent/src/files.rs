//! The files that the kubelet writes into every container: `/etc/hosts`, `/etc/resolv.conf`, and the host name. Pure
//! texts; `volumes` writes them.

use std::fmt::Write;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

use crate::names;

/// What the cluster and the node say about names.
#[derive(Clone, Debug)]
pub(crate) struct Resolver<'a> {
    pub(crate) cluster_dns: &'a [IpAddr],
    pub(crate) cluster_domain: &'a str,
    /// The node's own resolv.conf.
    pub(crate) node: &'a str,
}

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;

/// `spec.hostname`, else the pod's name, cut to what a host name may have.
pub(crate) fn hostname(pod: &Pod, node_name: &str) -> String {
    let spec = pod.spec.as_ref();
    if names::host_network(pod) {
        return node_name.to_owned();
    }
    let wanted = spec
        .and_then(|s| s.hostname_override.as_deref().or(s.hostname.as_deref()))
        .filter(|h| !h.is_empty())
        .unwrap_or_else(|| names::name(pod));
    let cut: String = wanted.chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// `None` for pods on the host's network, which see the host's file.
pub(crate) fn hosts(pod: &Pod, ips: &[IpAddr], hostname: &str, cluster_domain: &str) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let spec = pod.spec.as_ref();
    let subdomain = spec.and_then(|s| s.subdomain.as_deref()).filter(|s| !s.is_empty());
    for ip in ips {
        let _ = match subdomain {
            Some(sub) => {
                let namespace = names::namespace(pod);
                writeln!(text, "{ip}\t{hostname}.{sub}.{namespace}.svc.{cluster_domain}\t{hostname}")
            }
            None => writeln!(text, "{ip}\t{hostname}"),
        };
    }
    let aliases = spec.and_then(|s| s.host_aliases.as_deref()).unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let _ =
                writeln!(text, "{}\t{}", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t"));
        }
    }
    text
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Dns {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

pub(crate) fn resolv_conf(pod: &Pod, resolver: &Resolver<'_>) -> String {
    let spec = pod.spec.as_ref();
    let policy = spec.and_then(|s| s.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let node = parse(resolver.node);
    let cluster = matches!(
        (policy, names::host_network(pod)),
        ("ClusterFirst", false) | ("ClusterFirstWithHostNet", _)
    );
    let mut dns = match policy {
        "None" => Dns::default(),
        _ if cluster && !resolver.cluster_dns.is_empty() => {
            let domain = resolver.cluster_domain;
            let mut searches = vec![
                format!("{}.svc.{domain}", names::namespace(pod)),
                format!("svc.{domain}"),
                domain.to_owned(),
            ];
            searches.extend(node.searches);
            Dns {
                servers: resolver.cluster_dns.iter().map(ToString::to_string).collect(),
                searches,
                options: vec!["ndots:5".to_owned()],
            }
        }
        _ => node,
    };
    if let Some(own) = spec.and_then(|s| s.dns_config.as_ref()) {
        dns.servers.extend(own.nameservers.iter().flatten().cloned());
        dns.searches.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            dns.options.retain(|o| o.split(':').next() != Some(name.as_str()));
            dns.options.push(match &option.value {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name,
            });
        }
    }
    print(dns)
}

fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.map(str::to_owned)),
            // The last one counts.
            Some("search") => dns.searches = words.map(|w| w.trim_end_matches('.').to_owned()).collect(),
            Some("options") => dns.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    dns
}

fn print(dns: Dns) -> String {
    let unique = |list: Vec<String>, max: usize| {
        let mut seen: Vec<String> = Vec::new();
        for item in list {
            if !item.is_empty() && !seen.contains(&item) && seen.len() < max {
                seen.push(item);
            }
        }
        seen
    };
    let mut text = String::new();
    let searches = unique(dns.searches, MAX_SEARCHES);
    if !searches.is_empty() {
        let _ = writeln!(text, "search {}", searches.join(" "));
    }
    for server in unique(dns.servers, MAX_NAMESERVERS) {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !dns.options.is_empty() {
        let _ = writeln!(text, "options {}", dns.options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web-1", "namespace": "shop"}, "spec": spec}))
            .unwrap()
    }

    #[test]
    fn resolvers_by_policy() {
        let dns = ["10.96.0.10".parse().unwrap()];
        let resolver = Resolver {
            cluster_dns: &dns,
            cluster_domain: "cluster.local",
            node: "nameserver 192.0.2.53\nsearch corp.example\noptions timeout:1\n",
        };
        let cluster = "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example\n\
                       nameserver 10.96.0.10\noptions ndots:5\n";
        let node = "search corp.example\nnameserver 192.0.2.53\noptions timeout:1\n";
        let cases = [
            (json!({"containers": []}), cluster),
            (json!({"containers": [], "dnsPolicy": "Default"}), node),
            (json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirst"}), node),
            (json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}), cluster),
            (
                json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"],
                    "searches": ["a.b"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
                "search a.b\nnameserver 1.1.1.1\noptions ndots:2 edns0\n",
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(resolv_conf(&pod(spec.clone()), &resolver), expected, "{spec}");
        }
    }

    #[test]
    fn hosts_and_hostname() {
        let pod = pod(json!({"containers": [], "hostname": "db", "subdomain": "sub",
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}));
        let name = hostname(&pod, "node");
        let text = hosts(&pod, &["10.1.1.1".parse().unwrap()], &name, "cluster.local");
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.contains("10.1.1.1\tdb.sub.shop.svc.cluster.local\tdb\n"), "{text}");
        assert!(text.ends_with("# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"));
        let long: Pod =
            serde_json::from_value(json!({"metadata": {"name": "a".repeat(62) + "-bcd"}})).unwrap();
        assert_eq!(hostname(&long, "node").len(), 62);
    }
}
