//! Which representation a client takes: the encoding (JSON, YAML), and the form (the object itself, a table, or
//! metadata alone).

use axum::http::{HeaderMap, header};
use loadline_api::protobuf;
use loadline_api::status::{ApiError, Reason};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encoding {
    #[default]
    Json,
    Yaml,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    #[default]
    Object,
    Table,
    Metadata,
    MetadataList,
    /// Aggregated discovery.
    DiscoveryList,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) encoding: Encoding,
    pub(crate) form: Form,
    /// The version asked for with [`Form::DiscoveryList`] is `v2beta1`, not `v2`.
    pub(crate) beta: bool,
}

/// Which forms an endpoint can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// Objects, tables and partial metadata.
    Objects,
    /// Plain documents (Status, Scale …).
    Plain,
    /// Discovery documents.
    Discovery,
}

/// Picks what to answer with. The client's order counts among equal qualities.
pub(crate) fn accept(headers: &HeaderMap, offer: Offer) -> Result<Accepted, ApiError> {
    let Some(value) = headers.get(header::ACCEPT) else {
        return Ok(Accepted::default());
    };
    let bytes = value.as_bytes();
    if matches!(bytes, b"application/json" | b"*/*" | b"") {
        return Ok(Accepted::default());
    }
    let text = value.to_str().unwrap_or_default();
    let mut clauses: Vec<Clause<'_>> = text.split(',').filter_map(Clause::parse).collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    let mut binary = false;
    for clause in &clauses {
        if let Some(accepted) = clause.accept(offer) {
            return Ok(accepted);
        }
        binary |= clause.media == protobuf::MEDIA_TYPE;
    }
    // Clients that only name protobuf look at the reply's Content-Type and read JSON as well.
    if binary || clauses.is_empty() {
        return Ok(Accepted::default());
    }
    Err(ApiError::new(
        Reason::NotAcceptable,
        "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, \
         application/json;stream=watch",
    ))
}

struct Clause<'a> {
    media: &'a str,
    quality: f32,
    form: Option<&'a str>,
    group: Option<&'a str>,
    version: Option<&'a str>,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().filter(|m| !m.is_empty())?;
        let mut clause = Clause { media, quality: 1.0, form: None, group: None, version: None };
        for part in parts {
            let Some((name, value)) = part.split_once('=') else { continue };
            match name.trim() {
                "q" => clause.quality = value.trim().parse().unwrap_or(0.0),
                "as" => clause.form = Some(value.trim()),
                "g" => clause.group = Some(value.trim()),
                "v" => clause.version = Some(value.trim()),
                _ => {}
            }
        }
        (clause.quality > 0.0).then_some(clause)
    }

    fn accept(&self, offer: Offer) -> Option<Accepted> {
        let encoding = match self.media {
            "application/json" | "*/*" | "application/*" => Encoding::Json,
            "application/yaml" => Encoding::Yaml,
            _ => return None,
        };
        let form = match (self.form, self.group, self.version, offer) {
            (None, ..) => Form::Object,
            (Some("Table"), Some("meta.k8s.io"), Some("v1"), Offer::Objects) => Form::Table,
            (Some("PartialObjectMetadata"), Some("meta.k8s.io"), Some("v1"), Offer::Objects) => {
                Form::Metadata
            }
            (Some("PartialObjectMetadataList"), Some("meta.k8s.io"), Some("v1"), Offer::Objects) => {
                Form::MetadataList
            }
            (
                Some("APIGroupDiscoveryList"),
                Some("apidiscovery.k8s.io"),
                Some("v2" | "v2beta1"),
                Offer::Discovery,
            ) => Form::DiscoveryList,
            _ => return None,
        };
        Some(Accepted { encoding, form, beta: self.version == Some("v2beta1") })
    }
}

/// How a request body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyType {
    Json,
    Yaml,
    Protobuf,
    JsonPatch,
    MergePatch,
    StrategicMergePatch,
    ApplyPatch,
}

/// The body's media type for create, update and delete; absent means JSON.
pub(crate) fn object_body(headers: &HeaderMap) -> Result<BodyType, ApiError> {
    match content_type(headers).as_str() {
        "" | "application/json" | "*/*" => Ok(BodyType::Json),
        "application/yaml" => Ok(BodyType::Yaml),
        protobuf::MEDIA_TYPE => Ok(BodyType::Protobuf),
        _ => Err(unknown_format(true)),
    }
}

/// The refusal of a body's media type; `protobuf` says whether that one would have been taken.
pub(crate) fn unknown_format(protobuf: bool) -> ApiError {
    let more = if protobuf { ", application/vnd.kubernetes.protobuf" } else { "" };
    let head = "the body of the request was in an unknown format - accepted media types include";
    let message = format!("{head}: application/json, application/yaml{more}");
    ApiError::new(Reason::UnsupportedMediaType, message)
}

/// The patch's media type.
pub(crate) fn patch_body(headers: &HeaderMap) -> Result<BodyType, ApiError> {
    match content_type(headers).as_str() {
        "application/json-patch+json" => Ok(BodyType::JsonPatch),
        "application/merge-patch+json" => Ok(BodyType::MergePatch),
        "application/strategic-merge-patch+json" => Ok(BodyType::StrategicMergePatch),
        "application/apply-patch+yaml" => Ok(BodyType::ApplyPatch),
        _ => Err(ApiError::new(Reason::UnsupportedMediaType, "415: Unsupported Media Type")),
    }
}

fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match value.split(';').next().unwrap_or_default().trim() {
        // Parameters of nothing: a type that nobody knows, other than none at all.
        "" => value.trim().to_owned(),
        media => media.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(value: &str, offer: Offer) -> Result<(Encoding, Form), Reason> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, value.parse().unwrap());
        accept(&headers, offer).map(|a| (a.encoding, a.form)).map_err(|e| e.reason)
    }

    #[test]
    fn table() {
        use Encoding::{Json, Yaml};
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let discovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        let cases = [
            ("application/json", Offer::Objects, Ok((Json, Form::Object))),
            ("application/json, */*", Offer::Objects, Ok((Json, Form::Object))),
            ("application/yaml;q=0.5, */*", Offer::Objects, Ok((Json, Form::Object))),
            ("application/yaml", Offer::Objects, Ok((Yaml, Form::Object))),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Offer::Objects,
                Ok((Json, Form::Object)),
            ),
            ("application/vnd.kubernetes.protobuf", Offer::Objects, Ok((Json, Form::Object))),
            (kubectl, Offer::Objects, Ok((Json, Form::Table))),
            (kubectl, Offer::Plain, Ok((Json, Form::Object))),
            (discovery, Offer::Discovery, Ok((Json, Form::DiscoveryList))),
            (
                "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
                Offer::Objects,
                Ok((Json, Form::Metadata)),
            ),
            ("application/xml", Offer::Objects, Err(Reason::NotAcceptable)),
            ("application/json;as=Table;v=v9;g=meta.k8s.io", Offer::Objects, Err(Reason::NotAcceptable)),
        ];
        for (value, offer, want) in cases {
            assert_eq!(ask(value, offer), want, "{value}");
        }
    }
}
