//! `loadline rollout`: status, history, undo, restart, pause and resume of a Deployment.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::commands::MANAGER;
use crate::connect::{ConnectArgs, Connection};
use crate::load::parse_duration;
use crate::output::{self, Columns};

const REVISION: &str = "deployment.kubernetes.io/revision";
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  loadline rollout status deploy/web
  loadline rollout undo deploy/web --to-revision 3
  loadline rollout restart deploy/web")]
pub struct RolloutArgs {
    #[command(subcommand)]
    what: Rollout,
}

#[derive(Subcommand, Debug)]
enum Rollout {
    /// Wait until the newest revision runs, or has failed
    Status {
        deployment: String,
        #[arg(long, value_parser = |s: &str| parse_duration(s).ok_or("write a duration such as 2m"), default_value = "10m")]
        timeout: Duration,
    },
    /// The kept revisions
    History { deployment: String },
    /// Go back to the revision before, or to a named one
    Undo {
        deployment: String,
        #[arg(long, default_value_t = 0)]
        to_revision: i64,
    },
    /// Replace all pods, a few at a time
    Restart { deployment: String },
    /// Keep changes from being rolled out
    Pause { deployment: String },
    /// Roll out what has changed meanwhile
    Resume { deployment: String },
}

pub async fn run(connect: &ConnectArgs, args: RolloutArgs) -> Result<()> {
    let connection = connect.connect().await?;
    match args.what {
        Rollout::Status { deployment, timeout } => {
            let name = name(&deployment)?;
            tokio::time::timeout(timeout, status(&connection, name))
                .await
                .with_context(|| format!("deployment {name:?} was not rolled out within {timeout:?}"))?
        }
        Rollout::History { deployment } => history(&connection, name(&deployment)?).await,
        Rollout::Undo { deployment, to_revision } => undo(&connection, name(&deployment)?, to_revision).await,
        Rollout::Restart { deployment } => {
            let now = Timestamp::now().to_string();
            let template = json!({"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": now}}});
            change(&connection, name(&deployment)?, json!({"spec": {"template": template}}), "restarted")
                .await
        }
        Rollout::Pause { deployment } => {
            change(&connection, name(&deployment)?, json!({"spec": {"paused": true}}), "paused").await
        }
        Rollout::Resume { deployment } => {
            change(&connection, name(&deployment)?, json!({"spec": {"paused": null}}), "resumed").await
        }
    }
}

/// `deploy/web`, `deployment/web` or plain `web`.
fn name(word: &str) -> Result<&str> {
    match word.split_once('/') {
        None => Ok(word),
        Some(("deploy" | "deployment" | "deployments" | "deployment.apps" | "deployments.apps", name)) => {
            Ok(name)
        }
        Some((kind, _)) => bail!("{kind:?} has no rollouts here; name a deployment, e.g. deploy/web"),
    }
}

fn deployments(connection: &Connection) -> Api<Deployment> {
    Api::namespaced(connection.client.clone(), &connection.namespace)
}

async fn change(connection: &Connection, name: &str, patch: serde_json::Value, what: &str) -> Result<()> {
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    deployments(connection).patch(name, &params, &Patch::Merge(patch)).await?;
    output::print(&format!("deployment.apps/{name} {what}\n"))
}

async fn status(connection: &Connection, name: &str) -> Result<()> {
    let api = deployments(connection);
    let mut last = String::new();
    loop {
        let (text, done) = progress(&api.get(name).await?)?;
        if text != last {
            output::print(&format!("{text}\n"))?;
            last = text;
        }
        if done {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What is still to be done, and whether that is nothing.
fn progress(deployment: &Deployment) -> Result<(String, bool)> {
    let name = deployment.name_any();
    let spec = deployment.spec.clone().unwrap_or_default();
    let status = deployment.status.clone().unwrap_or_default();
    if status.observed_generation.unwrap_or(0) < deployment.metadata.generation.unwrap_or(0) {
        return Ok(("Waiting for deployment spec update to be observed...".to_owned(), false));
    }
    let failed = status.conditions.iter().flatten().find(|c| c.type_ == "Progressing");
    if failed.is_some_and(|c| c.reason.as_deref() == Some("ProgressDeadlineExceeded")) {
        bail!("deployment {name:?} exceeded its progress deadline");
    }
    let wanted = spec.replicas.unwrap_or(1);
    let (updated, all, available) = (
        status.updated_replicas.unwrap_or(0),
        status.replicas.unwrap_or(0),
        status.available_replicas.unwrap_or(0),
    );
    let waiting = |what: String| format!("Waiting for deployment {name:?} rollout to finish: {what}...");
    Ok(if updated < wanted {
        (waiting(format!("{updated} out of {wanted} new replicas have been updated")), false)
    } else if all > updated {
        (waiting(format!("{} old replicas are pending termination", all - updated)), false)
    } else if available < updated {
        (waiting(format!("{available} of {updated} updated replicas are available")), false)
    } else {
        (format!("deployment {name:?} successfully rolled out"), true)
    })
}

/// The Deployment's ReplicaSets with their revisions, oldest first.
async fn revisions(connection: &Connection, deployment: &Deployment) -> Result<Vec<(i64, ReplicaSet)>> {
    let uid = deployment.uid().unwrap_or_default();
    let api = Api::<ReplicaSet>::namespaced(connection.client.clone(), &connection.namespace);
    let mut found: Vec<(i64, ReplicaSet)> = api
        .list(&ListParams::default())
        .await?
        .into_iter()
        .filter(|r| r.owner_references().iter().any(|o| o.uid == uid && o.controller == Some(true)))
        .filter_map(|r| Some((r.annotations().get(REVISION)?.parse().ok()?, r)))
        .collect();
    found.sort_by_key(|(revision, _)| *revision);
    Ok(found)
}

async fn history(connection: &Connection, name: &str) -> Result<()> {
    let deployment = deployments(connection).get(name).await?;
    let mut columns = Columns::new(&["REVISION", "CHANGE-CAUSE"]);
    for (revision, set) in revisions(connection, &deployment).await? {
        let cause = set.annotations().get(CHANGE_CAUSE).cloned().unwrap_or_else(|| "<none>".to_owned());
        columns.row(vec![revision.to_string(), cause]);
    }
    output::print(&format!("deployment.apps/{name}\n{columns}"))
}

async fn undo(connection: &Connection, name: &str, to: i64) -> Result<()> {
    let deployment = deployments(connection).get(name).await?;
    if deployment.spec.as_ref().and_then(|s| s.paused) == Some(true) {
        bail!("deployment {name:?} is paused; resume it first: loadline rollout resume deploy/{name}");
    }
    let kept = revisions(connection, &deployment).await?;
    let known = || kept.iter().map(|(r, _)| r.to_string()).collect::<Vec<_>>().join(", ");
    let chosen = match to {
        0 => kept.iter().rev().nth(1).context("there is no revision before this one")?,
        to => kept.iter().find(|(r, _)| *r == to).with_context(|| {
            format!("revision {to} of deployment {name:?} is not kept; there are {}", known())
        })?,
    };
    let mut template = serde_json::to_value(chosen.1.spec.as_ref().and_then(|s| s.template.as_ref()))?;
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(|l| l.as_object_mut()) {
        labels.remove("pod-template-hash");
    }
    // The whole template is replaced, so that nothing of the newer one stays behind.
    let patch =
        serde_json::from_value(json!([{"op": "replace", "path": "/spec/template", "value": template}]))?;
    deployments(connection).patch(name, &PatchParams::default(), &Patch::Json::<()>(patch)).await?;
    output::print(&format!("deployment.apps/{name} rolled back\n"))
}
