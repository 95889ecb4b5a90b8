//! The pod network on the real kernel: what a pod's link must be like, and that a half-made one is mended. Needs root
//! and iproute2; says so and passes where they are missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use loadline_network::bridge::{Config, remove_all};
use loadline_network::{BridgeNetwork, PodNetwork, PodRef};

fn ip(arguments: &[&str]) -> String {
    let output =
        Command::new("ip").args(arguments).output().unwrap_or_else(|e| panic!("ip {arguments:?}: {e}"));
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn read(link: &str, file: &str) -> String {
    std::fs::read_to_string(format!("/sys/class/net/{link}/{file}")).unwrap_or_default().trim().to_owned()
}

#[tokio::test]
async fn links_return_frames_stay_at_one_gateway_and_are_mended() {
    let name = format!("ll-links-{}", std::process::id());
    if !Command::new("ip").args(["netns", "add", &name]).status().is_ok_and(|s| s.success()) {
        eprintln!("skipped: network namespaces cannot be made here (root and iproute2 are needed)");
        return;
    }
    let namespace = Namespace(name.clone());
    let dir = tempfile::tempdir().unwrap();
    let network = BridgeNetwork::new(Config {
        cluster_id: name.clone(),
        node: "node-1".to_owned(),
        data_dir: dir.path().to_owned(),
        service_cidr: "10.234.0.0/24".parse().unwrap(),
    })
    .unwrap();
    network.set_pod_cidr("10.233.7.0/24".parse().unwrap()).await.unwrap();
    let pod = PodRef { namespace: "n".to_owned(), name: "p".to_owned(), uid: "u".to_owned() };
    let netns: PathBuf = Path::new("/var/run/netns").join(&name);
    let addresses = network.add(&pod, Some(&netns)).await.unwrap();
    assert_eq!(addresses, ["10.233.7.2".parse::<std::net::IpAddr>().unwrap()]);

    let bridge = ip(&["-o", "address", "show", "to", "10.233.7.1"]);
    let bridge = bridge.split_whitespace().nth(1).unwrap().to_owned();
    let ports = ip(&["-o", "link", "show", "master", &bridge]);
    let port = ports.split_whitespace().nth(1).unwrap().split('@').next().unwrap().to_owned();
    assert_eq!(read(&port, "brport/hairpin_mode"), "1");
    // With a port on it, and not the port's own.
    assert_eq!(read(&bridge, "address"), "0a:58:0a:e9:07:01");

    ip(&["link", "set", &port, "nomaster"]);
    ip(&["link", "set", &port, "down"]);
    assert_eq!(network.add(&pod, Some(&netns)).await.unwrap(), addresses);
    assert_eq!(read(&port, "brport/hairpin_mode"), "1", "back on the bridge");
    assert_eq!(read(&port, "operstate"), "up");

    network.remove("u").await.unwrap();
    remove_all(&name).await.unwrap();
    assert!(!Path::new("/sys/class/net").join(&bridge).exists());
    drop(namespace);
}
