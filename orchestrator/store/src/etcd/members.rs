//! The members of the etcd cluster and how they are called: one at a time, the next when it fails, each call within
//! a bounded time. Refuses answers whose revision is behind what was seen before the call.

use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, KvClient, TlsOptions, WatchClient};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::Config;
use super::fault::Fault;
use crate::{Result, Revision, StoreError};

/// How long one member may take to answer.
const ATTEMPT: Duration = Duration::from_secs(3);
/// How long a call may take with all its attempts.
const CALL: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(2);
/// Pings find a peer that vanished without a word. etcd drops clients that ping more often than every 5 s.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_ANSWER: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// May be asked again.
    Read,
    /// Is asked again only when it was surely not received.
    Write,
}

pub(super) struct Members {
    members: Vec<Member>,
    /// All calls go to one member while it answers: members may lag behind each other.
    current: AtomicUsize,
    /// The greatest revision that any answer had.
    seen: AtomicU64,
}

struct Member {
    url: String,
    options: ConnectOptions,
    clients: OnceCell<Clients>,
}

#[derive(Clone)]
pub(super) struct Clients {
    pub(super) kv: KvClient,
    pub(super) watch: WatchClient,
}

impl Members {
    /// Checks the configuration; connects to nobody yet.
    pub(super) fn new(config: &Config) -> Result<Self> {
        let wrong = |what: String| StoreError::Open(format!("etcd configuration: {what}"));
        if config.endpoints.is_empty() {
            return Err(wrong("no endpoint given; write etcd=http://HOST:2379[,…]".to_owned()));
        }
        let mut members = Vec::new();
        for url in &config.endpoints {
            let url = url.trim().trim_end_matches('/');
            let https = url.starts_with("https://");
            if !https && !url.starts_with("http://") {
                return Err(wrong(format!("endpoint {url:?} must start with http:// or https://")));
            }
            if https && config.tls.is_none() {
                return Err(wrong(format!("endpoint {url:?} needs a CA certificate")));
            }
            let options = connect_options(config, https);
            members.push(Member { url: url.to_owned(), options, clients: OnceCell::new() });
        }
        Ok(Members { members, current: AtomicUsize::new(0), seen: AtomicU64::new(0) })
    }

    /// The member in use and its number.
    pub(super) async fn current(&self) -> Result<(usize, Clients), Fault> {
        let number = self.current.load(Ordering::Relaxed) % self.members.len();
        Ok((number, self.members[number].clients().await?))
    }

    /// Turns to the next member, unless somebody else did.
    pub(super) fn failed(&self, number: usize) {
        let next = (number + 1) % self.members.len();
        let turned = self.current.compare_exchange(number, next, Ordering::Relaxed, Ordering::Relaxed);
        if turned.is_ok() && next != number {
            debug!(
                from = self.members[number].url,
                to = self.members[next].url,
                "turning to another etcd member"
            );
        }
    }

    /// Checks and notes the revision of an answer to a request sent when `seen` was the latest.
    pub(super) fn note(&self, before: Revision, revision: Revision) -> Result<(), Fault> {
        self.seen.fetch_max(revision, Ordering::Relaxed);
        if revision >= before {
            return Ok(());
        }
        warn!(revision, before, "etcd answered with an older revision; answer refused");
        Err(Fault::Lost(format!("answer at revision {revision} after revision {before} was seen: refused")))
    }

    pub(super) fn seen(&self) -> Revision {
        self.seen.load(Ordering::Relaxed)
    }

    /// `request` gives the answer and the revision in its header.
    pub(super) async fn call<T, F>(&self, kind: Kind, request: impl Fn(KvClient) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<(T, Option<i64>), Error>>,
    {
        let deadline = Instant::now() + CALL;
        // Each once, and the first again: it may only have closed an old connection.
        let mut attempts = self.members.len() + 1;
        loop {
            attempts -= 1;
            let number = self.current.load(Ordering::Relaxed) % self.members.len();
            let before = self.seen();
            let attempt = async {
                let clients = self.members[number].clients().await?;
                let (answer, revision) = request(clients.kv).await.map_err(|error| Fault::new(&error))?;
                self.note(before, header_revision(revision)?)?;
                Ok(answer)
            };
            let until = deadline.min(Instant::now() + ATTEMPT);
            let result = timeout_at(until, attempt).await;
            let result = result.unwrap_or_else(|_| Err(Fault::Lost(format!("no answer within {ATTEMPT:?}"))));
            let fault = match result {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            let again = match &fault {
                Fault::Unsent(_) => true,
                Fault::Lost(_) => kind == Kind::Read,
                Fault::Compacted | Fault::Future | Fault::Refused(_) => return Err(fault),
            };
            self.failed(number);
            if !again || attempts == 0 || Instant::now() >= deadline {
                return Err(self.name_member(number, fault));
            }
        }
    }

    fn name_member(&self, number: usize, fault: Fault) -> Fault {
        let url = &self.members[number].url;
        match fault {
            Fault::Unsent(why) => Fault::Unsent(format!("{url}: {why}")),
            Fault::Lost(why) => Fault::Lost(format!("{url}: {why}")),
            fault => fault,
        }
    }
}

pub(super) fn header_revision(revision: Option<i64>) -> Result<Revision, Fault> {
    revision
        .and_then(|revision| Revision::try_from(revision).ok())
        .filter(|revision| *revision > 0)
        .ok_or_else(|| Fault::Lost("answer without a revision".to_owned()))
}

impl Member {
    /// Connects in the background; with a user it authenticates first.
    async fn clients(&self) -> Result<Clients, Fault> {
        let connect = async {
            let client = Client::connect([&self.url], Some(self.options.clone())).await?;
            // Pages of large values and long histories exceed tonic's 4 MiB; etcd bounds them by what is asked for.
            let limit = i32::MAX as usize;
            let kv = client.kv_client().max_decoding_message_size(limit);
            let watch = client.watch_client().max_decoding_message_size(limit);
            Ok::<_, Error>(Clients { kv, watch })
        };
        self.clients.get_or_try_init(|| connect).await.cloned().map_err(|error| Fault::new(&error))
    }
}

fn connect_options(config: &Config, https: bool) -> ConnectOptions {
    let mut options = ConnectOptions::default()
        .with_connect_timeout(CONNECT)
        .with_keep_alive(PING_EVERY, PING_ANSWER)
        .with_keep_alive_while_idle(true)
        // A member without a leader says so instead of keeping us waiting.
        .with_require_leader(true)
        .with_auto_token_refresh(true);
    if let Some((name, password)) = &config.user {
        options = options.with_user(name, password);
    }
    if let Some(tls) = config.tls.as_ref().filter(|_| https) {
        let mut settings = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.ca));
        if let Some((certificate, key)) = &tls.client {
            settings = settings.identity(Identity::from_pem(certificate, key));
        }
        if let Some(name) = &tls.server_name {
            settings = settings.domain_name(name);
        }
        options = options.with_tls(settings);
    }
    options
}
