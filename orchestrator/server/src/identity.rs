//! Who sends a request: client certificates, static tokens, in-process callers, or nobody. Never headers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

pub const MASTERS: &str = "system:masters";
pub const NODES: &str = "system:nodes";
pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const ANONYMOUS: &str = "system:anonymous";

/// A user and the groups it is in. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    inner: Arc<Inner>,
}

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    user: String,
    uid: String,
    groups: Vec<String>,
    masters: bool,
    anonymous: bool,
    node: Option<String>,
}

impl Identity {
    /// An authenticated user; `system:authenticated` is added.
    pub fn new(user: impl Into<String>, groups: &[&str]) -> Self {
        Self::build(user.into(), String::new(), groups.iter().map(|g| (*g).to_owned()).collect())
    }

    /// An in-process component with all rights, e.g. `system:kube-scheduler`.
    pub fn component(user: impl Into<String>) -> Self {
        Self::new(user, &[MASTERS])
    }

    pub fn anonymous() -> Self {
        let inner = Inner {
            user: ANONYMOUS.to_owned(),
            uid: String::new(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            masters: false,
            anonymous: true,
            node: None,
        };
        Self { inner: Arc::new(inner) }
    }

    fn build(user: String, uid: String, mut groups: Vec<String>) -> Self {
        if !groups.iter().any(|g| g == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        let masters = groups.iter().any(|g| g == MASTERS);
        let node = groups
            .iter()
            .any(|g| g == NODES)
            .then(|| user.strip_prefix("system:node:").map(str::to_owned))
            .flatten();
        Self { inner: Arc::new(Inner { user, uid, groups, masters, anonymous: false, node }) }
    }

    pub fn user(&self) -> &str {
        &self.inner.user
    }

    pub fn uid(&self) -> &str {
        &self.inner.uid
    }

    pub fn groups(&self) -> &[String] {
        &self.inner.groups
    }

    pub fn is_master(&self) -> bool {
        self.inner.masters
    }

    pub fn is_anonymous(&self) -> bool {
        self.inner.anonymous
    }

    /// The node's name, for a kubelet.
    pub fn node(&self) -> Option<&str> {
        self.inner.node.as_deref()
    }

    /// From a verified client certificate: common name and organizations.
    pub fn from_certificate(der: &[u8]) -> Option<Self> {
        let (_, cert) = X509Certificate::from_der(der).ok()?;
        let user = cert.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups =
            cert.subject().iter_organization().filter_map(|o| o.as_str().ok().map(str::to_owned)).collect();
        (!user.is_empty()).then(|| Self::build(user, String::new(), groups))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    #[error("read token file {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("token file {path}, line {line}: {why}")]
    Line { path: PathBuf, line: usize, why: &'static str },
}

/// Static bearer tokens. Only their digests are kept.
#[derive(Default)]
pub struct Tokens {
    entries: Vec<([u8; 32], Identity)>,
}

impl Tokens {
    /// Reads `token,user,uid,"group1,group2"` lines.
    pub fn read(path: &Path) -> Result<Self, TokenFileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| TokenFileError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|(line, why)| TokenFileError::Line { path: path.to_owned(), line, why })
    }

    fn parse(text: &str) -> Result<Self, (usize, &'static str)> {
        let mut entries = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fields = csv_fields(line).ok_or((number + 1, "a quoted field does not end"))?;
            let [token, user, uid, rest @ ..] = fields.as_slice() else {
                return Err((number + 1, "want at least token, user and uid"));
            };
            if token.is_empty() {
                return Err((number + 1, "the token is empty"));
            }
            if user.is_empty() {
                return Err((number + 1, "the user name is empty"));
            }
            let groups = rest
                .first()
                .map(|g| g.split(',').map(str::trim).filter(|g| !g.is_empty()).map(str::to_owned).collect())
                .unwrap_or_default();
            entries.push((digest(token), Identity::build(user.clone(), uid.clone(), groups)));
        }
        Ok(Self { entries })
    }

    /// Looks at every entry whatever it finds, and compares digests, so that time tells nothing of a token.
    pub fn find(&self, token: &str) -> Option<&Identity> {
        let wanted = digest(token);
        let mut found = None;
        for (known, identity) in &self.entries {
            let difference = known.iter().zip(&wanted).fold(0u8, |acc, (a, b)| acc | (a ^ b));
            if difference == 0 {
                found = Some(identity);
            }
        }
        found
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// One line of CSV; quotes may hold commas, a doubled quote is a quote.
fn csv_fields(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field).trim().to_owned()),
            c => field.push(c),
        }
    }
    fields.push(field.trim().to_owned());
    (!quoted).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_kube_apiserver_reads_them() {
        let tokens = Tokens::parse("s3cret,admin,1,\"system:masters,ops\"\n\nt,bob,2\n").unwrap();
        let admin = tokens.find("s3cret").unwrap();
        assert!(admin.is_master());
        assert_eq!(admin.groups(), ["system:masters", "ops", AUTHENTICATED]);
        assert_eq!(tokens.find("t").unwrap().groups(), [AUTHENTICATED]);
        assert!(tokens.find("").is_none());
        assert!(tokens.find("s3cre").is_none());
        for (bad, line) in [("a,b", 1), ("ok,u,1\n,u,1", 2), ("a,\"b,1", 1), ("a,,1", 1)] {
            assert_eq!(Tokens::parse(bad).err().map(|e| e.0), Some(line), "{bad}");
        }
    }

    #[test]
    fn only_a_kubelet_in_the_nodes_group_is_a_node() {
        assert_eq!(Identity::new("system:node:a", &[NODES]).node(), Some("a"));
        assert_eq!(Identity::new("system:node:a", &[]).node(), None);
        assert_eq!(Identity::new("bob", &[NODES]).node(), None);
    }
}
