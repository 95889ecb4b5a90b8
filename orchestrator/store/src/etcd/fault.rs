//! What an error of etcd or of the way to it means for the caller.

use std::error::Error as _;
use std::io::ErrorKind;

use etcd_client::Error;

use crate::StoreError;

#[derive(Debug)]
pub(super) enum Fault {
    Compacted,
    Future,
    /// The request never left: any member may be asked instead, even to write.
    Unsent(String),
    /// No answer, or none that settles it: a write may have happened.
    Lost(String),
    /// etcd will say no again: wrong credentials, no right, request too large.
    Refused(String),
}

impl Fault {
    pub(super) fn new(error: &Error) -> Self {
        let Error::GRpcStatus(status) = error else {
            return match error {
                Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => {
                    Fault::Refused(error.to_string())
                }
                // No channel, so nothing was sent.
                Error::TransportError(_) | Error::EndpointError(_) => Fault::Unsent(error.to_string()),
                _ => Fault::Lost(error.to_string()),
            };
        };
        let message = status.message();
        if message.contains("revision has been compacted") {
            return Fault::Compacted;
        }
        if message.contains("is a future revision") {
            return Fault::Future;
        }
        // The codes by number: their type belongs to a crate that we only use through this one.
        match i32::from(status.code()) {
            INVALID_ARGUMENT | PERMISSION_DENIED | FAILED_PRECONDITION | UNIMPLEMENTED | UNAUTHENTICATED => {
                Fault::Refused(message.to_owned())
            }
            _ if never_connected(status.source()) => Fault::Unsent(chain(message, status.source())),
            _ => Fault::Lost(chain(message, status.source())),
        }
    }

    pub(super) fn unavailable(self) -> StoreError {
        match self {
            Fault::Refused(why) => StoreError::Fatal(format!("etcd: {why}")),
            Fault::Unsent(why) | Fault::Lost(why) => StoreError::Unavailable(format!("etcd: {why}")),
            Fault::Compacted | Fault::Future => {
                StoreError::Unavailable("etcd: revision out of range".to_owned())
            }
        }
    }
}

const INVALID_ARGUMENT: i32 = 3;
const PERMISSION_DENIED: i32 = 7;
const FAILED_PRECONDITION: i32 = 9;
const UNIMPLEMENTED: i32 = 12;
const UNAUTHENTICATED: i32 = 16;

fn never_connected(mut cause: Option<&(dyn std::error::Error + 'static)>) -> bool {
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            let refused = [
                ErrorKind::ConnectionRefused,
                ErrorKind::HostUnreachable,
                ErrorKind::NetworkUnreachable,
                ErrorKind::AddrNotAvailable,
            ];
            if refused.contains(&error.kind()) {
                return true;
            }
        }
        cause = error.source();
    }
    false
}

fn chain(message: &str, mut cause: Option<&(dyn std::error::Error + 'static)>) -> String {
    let mut text = message.to_owned();
    while let Some(error) = cause {
        let step = error.to_string();
        if !text.contains(&step) {
            text = format!("{text}: {step}");
        }
        cause = error.source();
    }
    text
}
