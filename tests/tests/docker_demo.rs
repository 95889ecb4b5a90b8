//! The demo as a newcomer runs it, this time on a real etcd: load, scaling, a killed container, a killed node, and
//! nothing left behind.

use std::time::Duration;

use loadline_store::testing::EtcdCluster;
use loadline_tests::{binary, docker, repository, run, skipped};

const IMAGE: &str = "loadline/example-web:demo";

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_on_etcd_ends_well_and_leaves_nothing() {
    if !docker::available() {
        return;
    }
    if docker::run("docker", &["images", "--quiet", IMAGE]).is_empty() {
        return skipped("the demo", "its image is not built; ./run test does that");
    }
    let Some(etcd) = EtcdCluster::start(1) else { return };
    let store = format!("etcd={}", etcd.urls().join(","));
    let before =
        (docker::links(), docker::run("nft", &["list", "tables"]), docker::run("docker", &["ps", "-aq"]));
    let examples = repository().join("examples").to_string_lossy().into_owned();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("cluster").to_string_lossy().into_owned();
    let args = ["demo", "--examples", &examples, "--data-dir", &data, "--store", &store];
    let demo =
        tokio::time::timeout(Duration::from_secs(420), run(&binary(), &args, &Default::default(), "")).await;
    let demo = demo.expect("the demo ended in time");
    println!("{}\n{}", demo.stderr, demo.stdout);
    for line in ["explained", "0 errors", "cleaning up"] {
        assert!(demo.stderr.contains(line), "nothing about {line:?}");
    }
    let summary = demo.ok();
    for line in ["first new pod Ready", "killed container running again", "Ready elsewhere"] {
        assert!(summary.contains(line), "nothing about {line:?}");
    }
    let after =
        (docker::links(), docker::run("nft", &["list", "tables"]), docker::run("docker", &["ps", "-aq"]));
    assert_eq!(after, before, "something is left");
}
