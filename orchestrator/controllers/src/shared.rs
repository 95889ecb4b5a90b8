//! The caches that all controllers share: one watch per kind.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, Pod, ReplicationController, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher;
use kube::{Api, Client};
use loadline_client::{Cache, Scope};

use crate::endpointslice::plan::SERVICE_NAME;
use crate::index::Index;
use crate::meta::{Key, labels, namespace};
use crate::pods;

pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) pods: Cache<Pod>,
    pub(crate) pods_by_namespace: Index<Pod>,
    /// Pods without a node are in the group of the empty name.
    pub(crate) pods_by_node: Index<Pod>,
    pub(crate) nodes: Cache<Node>,
    pub(crate) namespaces: Cache<Namespace>,
    /// Those of kubelets only.
    pub(crate) leases: Cache<Lease>,
    pub(crate) services: Cache<Service>,
    pub(crate) services_by_namespace: Index<Service>,
    pub(crate) slices: Cache<EndpointSlice>,
    /// By `namespace/service`.
    pub(crate) slices_by_service: Index<EndpointSlice>,
    pub(crate) endpoints: Cache<Endpoints>,
    pub(crate) deployments: Cache<Deployment>,
    pub(crate) deployments_by_namespace: Index<Deployment>,
    pub(crate) replica_sets: Cache<ReplicaSet>,
    pub(crate) replica_sets_by_namespace: Index<ReplicaSet>,
    pub(crate) replication_controllers: Cache<ReplicationController>,
    pub(crate) replication_controllers_by_namespace: Index<ReplicationController>,
}

impl Shared {
    /// Indexes are made before any controller listens, so they are never behind what a controller is woken for.
    pub(crate) fn start(scope: &Scope, client: Client) -> Self {
        let config = watcher::Config::default;
        let pods = Cache::start(scope, Api::<Pod>::all(client.clone()), config());
        let services = Cache::start(scope, Api::<Service>::all(client.clone()), config());
        let slices = Cache::start(scope, Api::<EndpointSlice>::all(client.clone()), config());
        let deployments = Cache::start(scope, Api::<Deployment>::all(client.clone()), config());
        let replica_sets = Cache::start(scope, Api::<ReplicaSet>::all(client.clone()), config());
        let replication_controllers =
            Cache::start(scope, Api::<ReplicationController>::all(client.clone()), config());
        Self {
            pods_by_namespace: Index::by_namespace(&pods),
            pods_by_node: Index::new(&pods, |p: &Pod| pods::node_name(p).to_owned()),
            pods,
            namespaces: Cache::start(scope, Api::all(client.clone()), config()),
            nodes: Cache::start(scope, Api::all(client.clone()), config()),
            leases: Cache::start(scope, Api::namespaced(client.clone(), "kube-node-lease"), config()),
            services_by_namespace: Index::by_namespace(&services),
            services,
            slices_by_service: Index::new(&slices, |s: &EndpointSlice| {
                let service = labels(&s.metadata).get(SERVICE_NAME).map(String::as_str).unwrap_or_default();
                Key::new(namespace(&s.metadata), service).to_string()
            }),
            slices,
            endpoints: Cache::start(scope, Api::all(client.clone()), config()),
            deployments_by_namespace: Index::by_namespace(&deployments),
            deployments,
            replica_sets_by_namespace: Index::by_namespace(&replica_sets),
            replica_sets,
            replication_controllers_by_namespace: Index::by_namespace(&replication_controllers),
            replication_controllers,
            client,
        }
    }
}
