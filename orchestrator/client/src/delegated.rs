//! API resources that a component answers itself, behind the server's authentication and authorization.

/// What the server must know to announce and route to it. Requests arrive with their full path.
#[derive(Clone)]
pub struct Delegated {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    /// The plural, as in URLs.
    pub resource: &'static str,
    pub singular: &'static str,
    pub subresource: Option<&'static str>,
    pub namespaced: bool,
    pub verbs: &'static [&'static str],
    pub router: axum::Router,
}
