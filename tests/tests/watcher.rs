//! kube-rs's own watch machinery against the server: both ways to get the first list, a thousand changes, a restart in
//! the middle, and history that is gone.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, in its helpers as well")]

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, ResourceExt};
use loadline_store::{Embedded, EmbeddedOptions, Store};
use loadline_tests::{Cluster, Options, eventually};
use serde_json::json;

const CHANGES: usize = 1_000;
const LONG: Duration = Duration::from_secs(60);

fn config_map(name: &str, value: usize) -> ConfigMap {
    let object = json!({"metadata": {"name": name, "labels": {"test": "watch"}}, "data": {"value": value.to_string()}});
    serde_json::from_value(object).unwrap()
}

/// Creations, updates and deletions in turn over a hundred names.
async fn change(api: &Api<ConfigMap>, number: usize) {
    let name = format!("c-{}", number % 100);
    match number / 100 % 4 {
        0 => drop(api.create(&PostParams::default(), &config_map(&name, number)).await.unwrap()),
        3 => drop(api.delete(&name, &DeleteParams::default()).await.unwrap()),
        _ => {
            let patch = json!({"data": {"value": number.to_string()}});
            api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        }
    }
}

type Values = BTreeMap<String, (String, String)>;

fn values<'a>(objects: impl IntoIterator<Item = &'a ConfigMap>) -> Values {
    let one = |object: &ConfigMap| {
        let value = object.data.iter().flatten().next().map(|(_, v)| v.clone()).unwrap_or_default();
        (object.name_any(), (object.resource_version().unwrap_or_default(), value))
    };
    objects.into_iter().map(one).collect()
}

async fn listed(api: &Api<ConfigMap>) -> Values {
    values(&api.list(&ListParams::default()).await.unwrap().items)
}

async fn reflector_follows(config: watcher::Config) {
    // The client keeps its address: the restarted server has to come back on the same port.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut cluster = Cluster::start(Options::api().listen(&format!("127.0.0.1:{port}"))).await;
    let api: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    for number in 0..50 {
        api.create(&PostParams::default(), &config_map(&format!("before-{number}"), number)).await.unwrap();
    }

    let (reader, writer) = reflector::store();
    let stream = watcher(api.clone(), config).default_backoff().reflect(writer);
    let follow = tokio::spawn(stream.for_each(|event| async {
        if let Err(error) = event {
            eprintln!("the watcher recovers from: {error}");
        }
    }));
    reader.wait_until_ready().await.unwrap();
    assert_eq!(reader.len(), 50);

    for number in 0..CHANGES {
        if number == CHANGES / 2 {
            cluster.restart().await;
        }
        change(&api, number).await;
    }
    let want = listed(&api).await;
    assert_eq!(want.len(), 150);
    eventually("the reflector equals the list", LONG, async || {
        let state = reader.state();
        let have = values(state.iter().map(AsRef::as_ref));
        let differ: Vec<_> = want.iter().filter(|(k, v)| have.get(*k) != Some(*v)).take(3).collect();
        if have == want { Ok(()) } else { Err(format!("{} of {}, e.g. {differ:?}", have.len(), want.len())) }
    })
    .await;
    follow.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reflector_survives_a_restart_with_list_and_watch() {
    reflector_follows(watcher::Config::default().page_size(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reflector_survives_a_restart_with_streaming_lists() {
    reflector_follows(watcher::Config::default().streaming_lists()).await;
}

/// Every single change arrives, once and in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_loses_nothing() {
    let cluster = Cluster::start(Options::api()).await;
    let api: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let start = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let params = WatchParams::default().labels("test=watch");
    let mut events = api.watch(&params, &start).await.unwrap().boxed();

    let writer = tokio::spawn({
        let api = api.clone();
        async move {
            for number in 0..CHANGES {
                change(&api, number).await;
            }
        }
    });
    let (mut seen, mut last) = ([0; 3], 0);
    tokio::time::timeout(LONG, async {
        while seen.iter().sum::<usize>() < CHANGES {
            let event = events.try_next().await.unwrap().expect("the watch ended");
            let object = match &event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                    object
                }
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(error) => panic!("{error:?}"),
            };
            let revision: u64 = object.resource_version().unwrap().parse().unwrap();
            assert!(revision > last, "{revision} after {last}");
            last = revision;
            let what = match event {
                WatchEvent::Added(_) => 0,
                WatchEvent::Modified(_) => 1,
                _ => 2,
            };
            seen[what] += 1;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("only {seen:?} (added, modified, deleted) of {CHANGES}"));
    writer.await.unwrap();
    // Ten rounds over a hundred names: created, changed twice, deleted, and so on.
    assert_eq!(seen, [300, 500, 200]);
}

/// Compacts everything up to now while the server is away, as its own compaction does every five minutes.
async fn compact(cluster: &Cluster) {
    let store = Embedded::open(cluster.data_dir().join("store"), EmbeddedOptions::default()).unwrap();
    let now = store.revision().await.unwrap();
    store.compact(now).await.unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_that_is_gone_is_expired_and_watchers_list_again() {
    let mut cluster = Cluster::start(Options::api()).await;
    let api: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    api.create(&PostParams::default(), &config_map("old", 0)).await.unwrap();
    let page = api.list(&ListParams::default().limit(1)).await.unwrap();
    let old = page.metadata.resource_version.clone().unwrap();
    for number in 0..200 {
        change(&api, number).await;
    }
    let page_of_old = api.list(&ListParams::default().limit(1)).await.unwrap();
    let token = page_of_old.metadata.continue_.clone().unwrap();
    change(&api, 200).await;

    cluster.process().stop();
    compact(&cluster).await;
    cluster.again().await;
    let api: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");

    // A watch from then: 410, either as the answer or as the first event.
    let expired = match api.watch(&WatchParams::default(), &old).await {
        Err(kube::Error::Api(status)) => status.code,
        Err(error) => panic!("{error}"),
        Ok(stream) => match stream.boxed().try_next().await.unwrap() {
            Some(WatchEvent::Error(status)) => status.code,
            other => panic!("{other:?}"),
        },
    };
    assert_eq!(expired, 410);
    // A list at exactly that revision, and the next page of a list from then.
    let exact =
        format!("/api/v1/namespaces/default/configmaps?resourceVersion={old}&resourceVersionMatch=Exact");
    let next = format!("/api/v1/namespaces/default/configmaps?limit=1&continue={token}");
    for path in [exact, next] {
        match cluster.get(&path).await {
            Err(kube::Error::Api(status)) => {
                assert_eq!((status.code, status.reason.as_str()), (410, "Expired"), "{path}");
            }
            other => panic!("{path}: {other:?}"),
        }
    }
    // A watcher gets over it.
    let (reader, writer) = reflector::store();
    let stream = watcher(api.clone(), watcher::Config::default()).default_backoff().reflect(writer);
    let follow = tokio::spawn(stream.for_each(|_| async {}));
    let want = listed(&api).await;
    eventually("the reflector equals the list", LONG, async || {
        let state = reader.state();
        let have = values(state.iter().map(AsRef::as_ref));
        if have == want { Ok(()) } else { Err(format!("{} of {}", have.len(), want.len())) }
    })
    .await;
    follow.abort();
}
