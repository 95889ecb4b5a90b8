//! Images: inspect, list, pull, import from an archive, and the pause image.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use bollard::errors::Error;
use bollard::models::{ImageInspect, ImageSummary};
use bollard::query_parameters::{CreateImageOptionsBuilder, ListImagesOptions};
use bytes::Bytes;
use futures::TryStreamExt;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{Core, errors, pause, spec};
use crate::tar::Archive;
use crate::{Image, RegistryAuth, Result, RuntimeError};

impl Core {
    pub(crate) async fn image(&self, reference: &str) -> Result<Option<Image>> {
        match self.client.inspect_image(reference).await {
            Ok(answer) => Ok(Some(from_inspect(answer))),
            Err(error) if errors::status(&error) == Some(404) => Ok(None),
            Err(error) => Err(errors::classify("inspect image", reference, error)),
        }
    }

    pub(crate) async fn images(&self) -> Result<Vec<Image>> {
        let answer = self.client.list_images(None::<ListImagesOptions>).await;
        let list = answer.map_err(|error| errors::classify("list images", "images", error))?;
        Ok(list.into_iter().map(from_summary).collect())
    }

    pub(crate) async fn pull(&self, reference: &str, auth: Option<&RegistryAuth>) -> Result<Image> {
        let failed = |error| errors::classify_pull(reference, error);
        let (name, tag) = split_reference(reference);
        let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        let path = format!("/images/create?fromImage={}&tag={}", encoded(name), encoded(tag));
        let header = auth.map(|auth| ("X-Registry-Auth", auth_header(auth)));
        let progress = self.wire.post(&path, header).await.map_err(failed)?;
        let mut lines = BufReader::new(progress).lines();
        while let Some(line) = lines.next_line().await.map_err(|error| failed(error.into()))? {
            if let Some(error) = pull_error(&line) {
                return Err(failed(Error::DockerStreamError { error }));
            }
        }
        self.image(reference).await?.ok_or_else(|| RuntimeError::Pull {
            image: reference.to_owned(),
            reason: "the pull ended without an error, but the image is not there".into(),
        })
    }

    /// Makes an image of one layer out of a tar archive. `changes` are Dockerfile lines such as
    /// `ENTRYPOINT ["/app"]`.
    pub(crate) async fn import(&self, reference: &str, archive: Bytes, changes: Vec<String>) -> Result<()> {
        let (name, tag) = split_reference(reference);
        let options =
            CreateImageOptionsBuilder::new().from_src("-").repo(name).tag(tag).changes(changes).build();
        let progress = self.client.create_image(Some(options), Some(bollard::body_full(archive)), None);
        progress
            .try_for_each(|_| async { Ok(()) })
            .await
            .map_err(|error| errors::classify("import image", reference, error))
    }

    /// The pause image's reference; makes the image when it is not there.
    pub(crate) async fn pause_image(&self) -> Result<String> {
        // One import at a time, however many pods start at once.
        let _guard = self.pause.lock().await;
        let Some(program) = pause::program(&self.architecture) else {
            return Err(RuntimeError::Invalid(format!(
                "no pause program for architecture {:?}: x86_64 and aarch64 are supported",
                self.architecture
            )));
        };
        let reference = format!("{}:{}", self.config.pause_image, pause::tag(&program));
        if self.image(&reference).await?.is_none() {
            let mut archive = Archive::new();
            let name = spec::PAUSE_PATH.trim_start_matches('/');
            archive.file(name, 0o755, &program).map_err(|error| RuntimeError::Failed {
                step: "build the pause image",
                reason: error.to_string(),
            })?;
            self.import(&reference, archive.finish(), Vec::new()).await?;
        }
        Ok(reference)
    }

    /// What a pod's `imageID` shows: a digest that a registry knows, else Docker's own id. Asked once per image.
    pub(crate) async fn image_id(&self, id: &str) -> String {
        if let Some(known) = self.image_ids().get(id) {
            return known.clone();
        }
        match self.image(id).await {
            Ok(Some(image)) => {
                let name = image.digests.into_iter().next().unwrap_or(image.id);
                self.image_ids().insert(id.to_owned(), name.clone());
                name
            }
            Ok(None) | Err(_) => id.to_owned(),
        }
    }
}

/// Docker reads the URL-safe alphabet only (and takes anything else for "no credentials"), which is why the client
/// library's pull is not used.
fn auth_header(auth: &RegistryAuth) -> String {
    let json = serde_json::json!({ "username": auth.username, "password": auth.password });
    URL_SAFE.encode(json.to_string())
}

/// A pull that fails on the way still answers 200, and says so in a line of its progress.
fn pull_error(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let words = line.pointer("/errorDetail/message").or_else(|| line.get("error"))?;
    words.as_str().map(str::to_owned)
}

/// Without a tag Docker would pull all of them.
fn split_reference(reference: &str) -> (&str, &str) {
    if reference.contains('@') {
        return (reference, "");
    }
    let path_start = reference.rfind('/').map_or(0, |slash| slash + 1);
    match reference[path_start..].rfind(':') {
        Some(colon) => (&reference[..path_start + colon], &reference[path_start + colon + 1..]),
        None => (reference, "latest"),
    }
}

fn from_inspect(answer: ImageInspect) -> Image {
    Image {
        id: answer.id.unwrap_or_default(),
        tags: named(answer.repo_tags.unwrap_or_default()),
        digests: named(answer.repo_digests.unwrap_or_default()),
        size: answer.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
    }
}

fn from_summary(summary: ImageSummary) -> Image {
    Image {
        id: summary.id,
        tags: named(summary.repo_tags),
        digests: named(summary.repo_digests),
        size: u64::try_from(summary.size).unwrap_or_default(),
    }
}

/// Docker writes `<none>:<none>` for "has no name".
fn named(names: Vec<String>) -> Vec<String> {
    names.into_iter().filter(|name| !name.starts_with("<none>")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_progress() {
        let cases = [
            (r#"{"status":"Downloading","progressDetail":{"current":1}}"#, None),
            (r#"{"errorDetail":{"message":"no space"},"error":"no space left"}"#, Some("no space")),
            (r#"{"error":"toomanyrequests"}"#, Some("toomanyrequests")),
            ("", None),
        ];
        for (line, expected) in cases {
            assert_eq!(pull_error(line).as_deref(), expected, "{line}");
        }
        // In the common alphabet this has a slash and a plus.
        let auth = RegistryAuth { username: "a".into(), password: "??>>~~".into() };
        assert!(!auth_header(&auth).contains(['+', '/']));
    }

    #[test]
    fn references() {
        let cases = [
            ("web", ("web", "latest")),
            ("web:1.2", ("web", "1.2")),
            ("localhost:5000/web", ("localhost:5000/web", "latest")),
            ("localhost:5000/team/web:1", ("localhost:5000/team/web", "1")),
            ("web@sha256:00ff", ("web@sha256:00ff", "")),
        ];
        for (reference, expected) in cases {
            assert_eq!(split_reference(reference), expected, "{reference}");
        }
    }
}
