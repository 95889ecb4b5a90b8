//! The end of a cluster: everything that carries its label goes, whatever node it belonged to.

use std::collections::HashMap;

use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};

use super::{errors, names};
use crate::{Result, RuntimeError};

/// Ends and removes every container of a cluster, and says how many there were.
pub async fn remove_cluster(socket: &str, cluster_id: &str) -> Result<usize> {
    let failed = |error| errors::classify("remove the cluster's containers", socket, error);
    let client = bollard::Docker::connect_with_unix(socket, 120, bollard::API_DEFAULT_VERSION)
        .map_err(failed)?
        .negotiate_version()
        .await
        .map_err(failed)?;
    let label = format!("{}={cluster_id}", names::CLUSTER);
    let filters = HashMap::from([("label".to_owned(), vec![label])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let found = client.list_containers(Some(options)).await.map_err(failed)?;
    for container in &found {
        let Some(id) = &container.id else { continue };
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match client.remove_container(id, Some(options)).await.map_err(failed) {
            Ok(()) | Err(RuntimeError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found.len())
}
