//! Images: pull policies, pulls shared by containers that want the same image, and their back-off.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};
use loadline_runtime::{RegistryAuth, Runtime, RuntimeError};
use serde_json::Value;

use crate::backoff::Backoff;
use crate::context::Node;
use crate::env::Objects;
use crate::names;
use crate::plan::{StartError, Waiting};

/// A failed pull is shown as such for a moment before the back-off's reason takes its place.
const SHOW_ERROR: SignedDuration = SignedDuration::from_secs(3);

#[derive(Default)]
pub(crate) struct Images {
    backoff: Mutex<Backoff>,
    /// One pull of an image at a time.
    pulling: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// The policy as the API server would have defaulted it.
pub(crate) fn policy(container: &Container) -> &str {
    if let Some(policy) = container.image_pull_policy.as_deref().filter(|p| !p.is_empty()) {
        return policy;
    }
    let image = container.image.as_deref().unwrap_or_default();
    let name = image.rsplit('/').next().unwrap_or_default();
    if name.contains('@') || name.split_once(':').is_some_and(|(_, tag)| tag != "latest") {
        "IfNotPresent"
    } else {
        "Always"
    }
}

/// Makes sure that a container's image is on the node.
pub(crate) async fn ensure(node: &Node, pod: &Pod, container: &Container) -> Result<(), StartError> {
    let image = container.image.as_deref().unwrap_or_default();
    let about = || names::container_reference(pod, &container.name);
    let policy = policy(container);
    let runtime = node.config.runtime.as_ref();
    let present = match runtime.image(image).await {
        Ok(found) => found.is_some(),
        Err(RuntimeError::Invalid(message)) => {
            let message = format!("Failed to apply default image tag {image:?}: {message}");
            node.events.warning(about(), "InspectFailed", "Pulling", message.clone());
            return Err(later("InvalidImageName", message, Duration::from_secs(60)));
        }
        Err(error) => {
            let message = format!("Failed to inspect image {image:?}: {error}");
            node.events.warning(about(), "Failed", "Pulling", message.clone());
            return Err(later("ImageInspectError", message, Duration::from_secs(10)));
        }
    };
    match (policy, present) {
        ("IfNotPresent" | "Never", true) => {
            let note = format!(
                "Container image {image:?} already present on machine and can be accessed by the pod"
            );
            node.events.normal(about(), "Pulled", "Pulling", note);
            Ok(())
        }
        ("Never", false) => {
            let message = format!("Container image {image:?} is not present with pull policy of Never");
            node.events.warning(about(), "ErrImageNeverPull", "Pulling", message.clone());
            Err(later("ErrImageNeverPull", message, Duration::from_secs(10)))
        }
        _ => pull(node, pod, container, image, policy == "IfNotPresent").await,
    }
}

fn later(reason: &str, message: String, delay: Duration) -> StartError {
    let delay = SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX);
    StartError { waiting: Waiting::new(reason, message), retry_at: Timestamp::now() + delay }
}

async fn pull(
    node: &Node,
    pod: &Pod,
    container: &Container,
    image: &str,
    local_is_enough: bool,
) -> Result<(), StartError> {
    let about = || names::container_reference(pod, &container.name);
    let key = format!("{}_{image}", names::uid(pod));
    let waiting = node.images.lock_backoff().until_since_update(&key, Timestamp::now());
    if let Some((until, _)) = waiting {
        let message = format!("Back-off pulling image {image:?}");
        node.events.normal(about(), "BackOff", "Pulling", message.clone());
        return Err(StartError { waiting: Waiting::new("ImagePullBackOff", message), retry_at: until });
    }
    let asked = tokio::time::Instant::now();
    let slot = node.images.slot(image);
    let _turn = slot.lock().await;
    let runtime = node.config.runtime.as_ref();
    // Another container may have pulled it while this one waited its turn.
    if local_is_enough && runtime.image(image).await.is_ok_and(|i| i.is_some()) {
        let note =
            format!("Container image {image:?} already present on machine and can be accessed by the pod");
        node.events.normal(about(), "Pulled", "Pulling", note);
        return Ok(());
    }
    node.events.normal(about(), "Pulling", "Pulling", format!("Pulling image {image:?}"));
    let began = tokio::time::Instant::now();
    let objects = node.objects.of(pod);
    match pull_with_secrets(runtime, pod, image, &objects).await {
        Ok(pulled) => {
            let note = format!(
                "Successfully pulled image {image:?} in {:.3}s ({:.3}s including waiting). Image size: {} bytes.",
                began.elapsed().as_secs_f64(),
                asked.elapsed().as_secs_f64(),
                pulled.size
            );
            node.events.normal(about(), "Pulled", "Pulling", note);
            node.images.lock_backoff().forget(&key);
            Ok(())
        }
        Err(error) => {
            let reason = match &error {
                RuntimeError::Pull { reason, .. } => reason.clone(),
                other => other.to_string(),
            };
            let message = format!("Failed to pull image {image:?}: {reason}");
            node.events.warning(about(), "Failed", "Pulling", message.clone());
            node.events.warning(about(), "Failed", "Pulling", "Error: ErrImagePull".to_owned());
            let now = Timestamp::now();
            node.images.lock_backoff().next(&key, now);
            Err(StartError { waiting: Waiting::new("ErrImagePull", reason), retry_at: now + SHOW_ERROR })
        }
    }
}

/// Tries the pod's pull secrets that fit the image's registry one by one, then without any.
async fn pull_with_secrets(
    runtime: &dyn Runtime,
    pod: &Pod,
    image: &str,
    objects: &dyn Objects,
) -> Result<loadline_runtime::Image, RuntimeError> {
    let references = pod.spec.as_ref().and_then(|s| s.image_pull_secrets.as_deref()).unwrap_or_default();
    let secrets = references.iter().filter_map(|r| objects.secret(&r.name));
    let fitting: Vec<RegistryAuth> = secrets.filter_map(|s| credentials(&s, image)).collect();
    let mut last = None;
    for auth in fitting {
        match runtime.pull(image, Some(&auth)).await {
            Ok(pulled) => return Ok(pulled),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error),
        None => runtime.pull(image, None).await,
    }
}

/// The entry of a `kubernetes.io/dockerconfigjson` secret that is for the image's registry.
fn credentials(secret: &k8s_openapi::api::core::v1::Secret, image: &str) -> Option<RegistryAuth> {
    let data = secret.data.as_ref()?.get(".dockerconfigjson")?;
    let config: Value = serde_json::from_slice(&data.0).ok()?;
    let entries = config.get("auths")?.as_object()?;
    let registry =
        image.split('/').next().filter(|h| image.contains('/') && (h.contains('.') || h.contains(':')));
    let fits = |key: &str| {
        let host = key.trim_start_matches("https://").trim_start_matches("http://");
        let host = host.split('/').next().unwrap_or_default();
        // Images without a registry come from the runtime's default one, whose entry is the only one with a path.
        registry.map_or_else(|| key.contains("/v1"), |r| r == host)
    };
    let entry = entries.iter().find(|(key, _)| fits(key)).map(|(_, v)| v)?;
    let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
    Some(RegistryAuth { username: text("username")?, password: text("password")? })
}

impl Images {
    fn lock_backoff(&self) -> std::sync::MutexGuard<'_, Backoff> {
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, image: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut pulling = self.pulling.lock().unwrap_or_else(PoisonError::into_inner);
        // Slots that nobody holds are not worth keeping.
        pulling.retain(|_, slot| Arc::strong_count(slot) > 1);
        pulling.entry(image.to_owned()).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn policies_default_by_tag() {
        let cases = [
            ("web", None, "Always"),
            ("web:latest", None, "Always"),
            ("web:1.2", None, "IfNotPresent"),
            ("registry.test:5000/web", None, "Always"),
            ("registry.test:5000/web:1", None, "IfNotPresent"),
            ("web@sha256:abc", None, "IfNotPresent"),
            ("web", Some("Never"), "Never"),
        ];
        for (image, given, expected) in cases {
            let container = Container {
                image: Some(image.to_owned()),
                image_pull_policy: given.map(str::to_owned),
                ..Container::default()
            };
            assert_eq!(policy(&container), expected, "{image}");
        }
    }

    #[test]
    fn credentials_are_for_their_registry() {
        let config =
            json!({"auths": {"https://registry.test": {"username": "u", "password": "p"}}}).to_string();
        let secret = k8s_openapi::api::core::v1::Secret {
            data: Some(
                [(".dockerconfigjson".to_owned(), k8s_openapi::ByteString(config.into_bytes()))].into(),
            ),
            ..Default::default()
        };
        assert_eq!(credentials(&secret, "registry.test/a:1").map(|a| a.username).as_deref(), Some("u"));
        assert!(credentials(&secret, "other.test/a:1").is_none());
        assert!(credentials(&secret, "a:1").is_none());
    }
}
