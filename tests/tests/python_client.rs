//! The official Python client against the server: typed requests of each kind, and an informer that loses nothing.

use std::collections::BTreeMap;

use loadline_tests::{Cluster, Options, Python, repository, run};

async fn script(name: &str, more: &[&str]) -> Option<String> {
    let python = Python::with_client()?;
    let cluster = Cluster::start(Options::api()).await;
    let path = repository().join("tests/python").join(name).to_string_lossy().into_owned();
    let kubeconfig = cluster.kubeconfig().to_string_lossy().into_owned();
    let args = [&[path.as_str(), &kubeconfig], more].concat();
    let output = run(python, &args, &BTreeMap::new(), "").await;
    eprintln!("{}", output.stdout);
    Some(output.ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_through_its_typed_methods() {
    if let Some(said) = script("kinds.py", &[]).await {
        assert!(said.starts_with("21 kinds"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_informer_loses_none_of_a_thousand_changes() {
    if let Some(said) = script("informer.py", &["1000"]).await {
        assert!(said.starts_with("1000 changes"), "{said}");
    }
}
