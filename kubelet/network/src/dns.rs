//! Cluster DNS: Services and their endpoints by name, everything else from the host's own name servers. It answers
//! from its caches, so names stay while the API is away.

mod names;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::Duration;

use hickory_server::Server;
use hickory_server::net::runtime::{Time, TokioRuntimeProvider};
use hickory_server::proto::op::{Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use hickory_server::resolver::Resolver;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use loadline_client::Scope;
use prometheus::{IntCounterVec, register_int_counter_vec};
use tokio::net::{TcpListener, UdpSocket};
use tracing::{debug, info, warn};

use crate::link;
use crate::pod_network::{NetworkError, Result};
use crate::services::Services;
use names::{Answer, Zone};

/// Seconds for which a client may keep a cluster name; short, because endpoints come and go.
const TTL: u32 = 5;
const TCP_TIMEOUT: Duration = Duration::from_secs(10);
const TCP_BUFFER: usize = 32;

#[expect(clippy::unwrap_used, reason = "names are constant and registered once")]
static REQUESTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    register_int_counter_vec!("loadline_dns_requests_total", "Questions answered.", &["zone", "rcode"])
        .unwrap()
});

#[derive(Clone, Debug)]
pub struct Config {
    /// Where pods ask; added to the loopback of this network namespace.
    pub address: Ipv4Addr,
    pub port: u16,
    /// `cluster.local`
    pub domain: String,
}

/// Binds, then answers until the scope ends.
pub async fn start(scope: &Scope, services: Services, config: Config) -> Result<()> {
    if !config.address.is_loopback() {
        link::add_local_address(&link::open()?, config.address).await?;
    }
    let at = SocketAddr::new(IpAddr::V4(config.address), config.port);
    let udp = UdpSocket::bind(at).await.map_err(NetworkError::at("bind the DNS server's UDP socket"))?;
    let tcp = TcpListener::bind(at).await.map_err(NetworkError::at("bind the DNS server's TCP socket"))?;
    let upstream = match Resolver::builder_tokio().and_then(|builder| builder.build()) {
        Ok(resolver) => Some(resolver),
        Err(error) => {
            warn!(%error, "the host has no usable name servers, only cluster names will resolve");
            None
        }
    };
    info!(address = %at, domain = config.domain, "cluster DNS serves");
    let handler = Handler { zone: Zone::new(services, &config.domain), upstream };
    let mut server = Server::new(handler);
    server.register_socket(udp);
    server.register_listener(tcp, TCP_TIMEOUT, TCP_BUFFER);
    scope.spawn("dns", async move {
        if let Err(error) = server.block_until_done().await {
            warn!(%error, "cluster DNS ended");
        }
    });
    Ok(())
}

/// Takes the address off the loopback again.
pub async fn remove_address(address: Ipv4Addr) -> Result<()> {
    link::remove_local_address(&link::open()?, address).await
}

struct Handler {
    zone: Zone,
    upstream: Option<Resolver<TokioRuntimeProvider>>,
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let (records, code, zone) = self.answer(request).await;
        REQUESTS.with_label_values(&[zone, &code.to_str().to_lowercase()]).inc();
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = code;
        metadata.authoritative = zone == "cluster";
        metadata.recursion_available = self.upstream.is_some();
        let message =
            MessageResponseBuilder::from_message_request(request).build(metadata, records.iter(), [], [], []);
        match response.send_response(message).await {
            Ok(info) => info,
            Err(error) => {
                debug!(%error, client = %request.src(), "answer not sent");
                let mut failed = Metadata::new(request.metadata.id, MessageType::Response, OpCode::Query);
                failed.response_code = ResponseCode::ServFail;
                ResponseInfo::from(Header { metadata: failed, counts: HeaderCounts::default() })
            }
        }
    }
}

impl Handler {
    async fn answer(&self, request: &Request) -> (Vec<Record>, ResponseCode, &'static str) {
        let Ok(info) = request.request_info() else { return (Vec::new(), ResponseCode::FormErr, "none") };
        if request.metadata.op_code != OpCode::Query {
            return (Vec::new(), ResponseCode::NotImp, "none");
        }
        let (name, kind) = (info.query.name(), info.query.query_type());
        match self.zone.answer(&name.to_string(), kind) {
            Answer::Records(data) => {
                let mut records = owned(info.query.original().name(), data);
                self.follow(&mut records, kind).await;
                (records, ResponseCode::NoError, "cluster")
            }
            Answer::NoSuchName => (Vec::new(), ResponseCode::NXDomain, "cluster"),
            Answer::NotYet => (Vec::new(), ResponseCode::ServFail, "cluster"),
            Answer::NotOurs => {
                let (records, code) = self.forward(&name.to_string(), kind).await;
                (records, code, "upstream")
            }
        }
    }

    /// What an alias leads to belongs into the same answer: the resolvers of C libraries do not ask again.
    async fn follow(&self, records: &mut Vec<Record>, kind: RecordType) {
        let target = match records.first().map(|r| &r.data) {
            Some(RData::CNAME(alias)) if kind != RecordType::CNAME => alias.0.clone(),
            _ => return,
        };
        match self.zone.answer(&target.to_string(), kind) {
            Answer::Records(data) => records.extend(owned(&target, data)),
            Answer::NotOurs => records.extend(self.forward(&target.to_string(), kind).await.0),
            Answer::NoSuchName | Answer::NotYet => {}
        }
    }

    async fn forward(&self, name: &str, kind: RecordType) -> (Vec<Record>, ResponseCode) {
        let Some(upstream) = &self.upstream else { return (Vec::new(), ResponseCode::Refused) };
        match upstream.lookup(name, kind).await {
            Ok(found) => (found.answers().to_vec(), ResponseCode::NoError),
            Err(error) if error.is_nx_domain() => (Vec::new(), ResponseCode::NXDomain),
            Err(error) if error.is_no_records_found() => (Vec::new(), ResponseCode::NoError),
            Err(error) => {
                debug!(%error, name, "upstream name server failed");
                (Vec::new(), ResponseCode::ServFail)
            }
        }
    }
}

fn owned(name: &Name, data: Vec<RData>) -> Vec<Record> {
    data.into_iter().map(|d| Record::from_rdata(name.clone(), TTL, d)).collect()
}
