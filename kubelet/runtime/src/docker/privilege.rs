//! What the daemon itself may do: lowering an OOM score below one's own takes CAP_SYS_RESOURCE.
//!
//! A daemon without it (in a container or a confined unit) makes runc fail at start with a message that names
//! another reason. So the capability is looked up beforehand, and scores are raised to what is possible.

use std::io;

use tokio::net::UnixStream;

/// Bit of capabilities(7).
const CAP_SYS_RESOURCE: u32 = 24;

/// The lowest OOM score that the daemon can give; `None`: any.
pub(crate) async fn oom_floor(socket: &str) -> io::Result<Option<i64>> {
    let path = socket.strip_prefix("unix://").unwrap_or(socket);
    let peer = UnixStream::connect(path).await?.peer_cred()?;
    let Some(pid) = peer.pid() else { return Ok(None) };
    let status = tokio::fs::read_to_string(format!("/proc/{pid}/status")).await?;
    if may_lower(&status) {
        return Ok(None);
    }
    let own = tokio::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).await?;
    Ok(own.trim().parse().ok())
}

fn may_lower(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    bits.is_none_or(|bits| bits & (1 << CAP_SYS_RESOURCE) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_capability() {
        let cases = [
            ("Name:\tdockerd\nCapEff:\t000001ffffffffff\n", true),
            ("CapEff:\t000001fffeffffff\n", false),
            ("CapEff:\t0000000000000000\n", false),
            // Unknown: let the daemon try.
            ("Name:\tdockerd\n", true),
        ];
        for (status, expected) in cases {
            assert_eq!(may_lower(status), expected, "{status}");
        }
    }
}
