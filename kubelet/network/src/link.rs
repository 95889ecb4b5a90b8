//! Links, addresses and routes through netlink, in this network namespace or in a pod's.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::path::Path;

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use nix::sched::{CloneFlags, setns};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::pod_network::{NetworkError, Result};

const EEXIST: i32 = -17;

/// A netlink handle of the calling task's namespace; its connection runs as long as the handle lives.
pub(crate) fn open() -> Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(NetworkError::at("open netlink"))?;
    tokio::spawn(connection);
    Ok(handle)
}

/// Runs `work` on a thread of its own inside the network namespace at `netns`.
pub(crate) async fn inside<F, Fut>(netns: &Path, work: F) -> Result<()>
where
    F: FnOnce(Handle) -> Fut + Send + 'static,
    Fut: Future<Output = Result<()>>,
{
    let netns = netns.to_owned();
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("netns".to_owned())
        .spawn(move || {
            let outcome = enter_and_run(&netns, work);
            // Nobody waits any more when the caller was cancelled.
            let _ = done.send(outcome);
        })
        .map_err(NetworkError::at("start thread"))?;
    result.await.map_err(NetworkError::at("wait for the pod's namespace"))?
}

fn enter_and_run<F, Fut>(netns: &Path, work: F) -> Result<()>
where
    F: FnOnce(Handle) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let file = std::fs::File::open(netns).map_err(NetworkError::at("open the pod's network namespace"))?;
    setns(file, CloneFlags::CLONE_NEWNET).map_err(NetworkError::at("enter the pod's network namespace"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(NetworkError::at("start runtime"))?;
    runtime.block_on(async { work(open()?).await })
}

pub(crate) async fn index_of(handle: &Handle, name: &str) -> Result<Option<u32>> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    match links.try_next().await {
        Ok(link) => Ok(link.map(|l| l.header.index)),
        // ENODEV
        Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -19 => Ok(None),
        Err(e) => Err(NetworkError::at("find link")(e)),
    }
}

/// The names of all links that start with `prefix`.
pub(crate) async fn names(handle: &Handle, prefix: &str) -> Result<Vec<String>> {
    use rtnetlink::packet_route::link::LinkAttribute;
    let mut links = handle.link().get().execute();
    let mut found = Vec::new();
    while let Some(link) = links.try_next().await.map_err(NetworkError::at("list links"))? {
        for attribute in link.attributes {
            if let LinkAttribute::IfName(name) = attribute
                && name.starts_with(prefix)
            {
                found.push(name);
            }
        }
    }
    Ok(found)
}

pub(crate) async fn delete(handle: &Handle, name: &str) -> Result<()> {
    let Some(index) = index_of(handle, name).await? else { return Ok(()) };
    match handle.link().del(index).execute().await {
        Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -19 => Ok(()),
        other => other.map_err(NetworkError::at("delete link")),
    }
}

/// Makes the bridge if it is missing and gives it its addresses.
///
/// Its hardware address is set: otherwise a bridge takes the lowest one among its ports, and every pod that comes or
/// goes may change it, whereupon the others send to a gateway that nobody is until their neighbour entry times out.
pub(crate) async fn ensure_bridge(handle: &Handle, name: &str, address: Ipv4Addr, prefix: u8) -> Result<u32> {
    let index = match index_of(handle, name).await? {
        Some(index) => index,
        None => {
            existing_is_fine(handle.link().add(LinkBridge::new(name).build()).execute().await)
                .map_err(NetworkError::at("make bridge"))?;
            index_of(handle, name).await?.ok_or_else(|| NetworkError::at("make bridge")("it is not there"))?
        }
    };
    existing_is_fine(handle.address().add(index, IpAddr::V4(address), prefix).execute().await)
        .map_err(NetworkError::at("set the bridge's address"))?;
    handle
        .link()
        .set(LinkUnspec::new_with_index(index).address(hardware_address(address)).up().build())
        .execute()
        .await
        .map_err(NetworkError::at("bring the bridge up"))?;
    Ok(index)
}

/// Locally administered and made from the address, so that it is the same after every start.
fn hardware_address(address: Ipv4Addr) -> Vec<u8> {
    let [a, b, c, d] = address.octets();
    vec![0x0a, 0x58, a, b, c, d]
}

/// Makes a pair of links, one end on the bridge, the other in the namespace under the name `peer`.
pub(crate) async fn add_veth(
    handle: &Handle,
    name: &str,
    peer: &str,
    bridge: u32,
    netns: &Path,
) -> Result<()> {
    let step = "make the pod's links";
    handle.link().add(LinkVeth::new(name, peer).build()).execute().await.map_err(NetworkError::at(step))?;
    let host =
        index_of(handle, name).await?.ok_or_else(|| NetworkError::at(step)("the host's end is not there"))?;
    let pod =
        index_of(handle, peer).await?.ok_or_else(|| NetworkError::at(step)("the pod's end is not there"))?;
    let file = std::fs::File::open(netns).map_err(NetworkError::at("open the pod's network namespace"))?;
    handle
        .link()
        .set(LinkUnspec::new_with_index(pod).setns_by_fd(file.as_raw_fd()).build())
        .execute()
        .await
        .map_err(NetworkError::at("move a link into the pod"))?;
    attach(handle, host, bridge).await
}

/// Puts the host's end of a pair that was there before on the bridge, where a crash may have kept it from.
pub(crate) async fn attach_existing(handle: &Handle, name: &str, bridge: u32) -> Result<()> {
    let step = "find the pod's links";
    let host =
        index_of(handle, name).await?.ok_or_else(|| NetworkError::at(step)("the host's end is not there"))?;
    attach(handle, host, bridge).await
}

async fn attach(handle: &Handle, host: u32, bridge: u32) -> Result<()> {
    handle
        .link()
        .set(LinkUnspec::new_with_index(host).controller(bridge).up().build())
        .execute()
        .await
        .map_err(NetworkError::at("put a link on the bridge"))?;
    // Where the bridge's frames pass iptables (Docker turns that on), a pod that reaches itself through a Service is
    // sent back by the bridge rather than by routing, and a port does not return what came in through it unless told.
    handle
        .link()
        .set_port(LinkBridgePort::new(host).hairpin(true).build())
        .execute()
        .await
        .map_err(NetworkError::at("let the pod's link return frames"))
}

/// Inside the pod: loopback up, `peer` becomes `eth0` with the address, everything goes through the gateway.
///
/// The address is a /32 and even neighbours are reached through the gateway, so that every packet passes the host's
/// netfilter and a Service may lead back to a pod on the same bridge.
pub(crate) async fn configure_pod(
    handle: Handle,
    peer: String,
    address: Ipv4Addr,
    gateway: Ipv4Addr,
) -> Result<()> {
    if let Some(lo) = index_of(&handle, "lo").await? {
        handle
            .link()
            .set(LinkUnspec::new_with_index(lo).up().build())
            .execute()
            .await
            .map_err(NetworkError::at("bring loopback up"))?;
    }
    let index = match index_of(&handle, &peer).await? {
        Some(index) => {
            handle
                .link()
                .set(LinkUnspec::new_with_index(index).name("eth0").build())
                .execute()
                .await
                .map_err(NetworkError::at("name the pod's link"))?;
            index
        }
        None => index_of(&handle, "eth0")
            .await?
            .ok_or_else(|| NetworkError::at("find the pod's link")("neither end is in the namespace"))?,
    };
    existing_is_fine(handle.address().add(index, IpAddr::V4(address), 32).execute().await)
        .map_err(NetworkError::at("set the pod's address"))?;
    handle
        .link()
        .set(LinkUnspec::new_with_index(index).up().build())
        .execute()
        .await
        .map_err(NetworkError::at("bring the pod's link up"))?;
    let to_gateway = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(gateway, 32)
        .output_interface(index)
        .scope(RouteScope::Link)
        .build();
    existing_is_fine(handle.route().add(to_gateway).execute().await)
        .map_err(NetworkError::at("route to the gateway"))?;
    let default = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(Ipv4Addr::UNSPECIFIED, 0)
        .gateway(gateway)
        .output_interface(index)
        .build();
    existing_is_fine(handle.route().add(default).execute().await)
        .map_err(NetworkError::at("set the default route"))
}

/// The route that gives the host's own connections to Services a source address that pods can answer.
pub(crate) async fn route_through(handle: &Handle, to: Ipv4Net, index: u32, source: Ipv4Addr) -> Result<()> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(to.network(), to.prefix_len())
        .output_interface(index)
        .pref_source(source)
        .scope(RouteScope::Link)
        .build();
    existing_is_fine(handle.route().add(route).execute().await)
        .map_err(NetworkError::at("route the service range"))
}

/// Gives the loopback an address of the cluster, e.g. the DNS server's.
pub(crate) async fn add_local_address(handle: &Handle, address: Ipv4Addr) -> Result<()> {
    let lo =
        index_of(handle, "lo").await?.ok_or_else(|| NetworkError::at("find loopback")("there is none"))?;
    existing_is_fine(handle.address().add(lo, IpAddr::V4(address), 32).execute().await)
        .map_err(NetworkError::at("add a local address"))
}

pub(crate) async fn remove_local_address(handle: &Handle, address: Ipv4Addr) -> Result<()> {
    let Some(lo) = index_of(handle, "lo").await? else { return Ok(()) };
    let mut addresses =
        handle.address().get().set_link_index_filter(lo).set_address_filter(address.into()).execute();
    while let Some(found) = addresses.try_next().await.map_err(NetworkError::at("list addresses"))? {
        handle.address().del(found).execute().await.map_err(NetworkError::at("remove a local address"))?;
    }
    Ok(())
}

fn existing_is_fine(result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match result {
        Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == EEXIST => Ok(()),
        other => other,
    }
}
