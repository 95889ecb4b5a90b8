//! Docker's byte streams: hijacked connections (exec, attach) and logs, and the frames inside them.
//!
//! The client library guesses from the first byte whether a stream has frames, and then loses terminal output that
//! begins with a small byte; it also knows log times to the second only. Here the caller says what the stream is.

use std::io;

use bollard::errors::Error;
use bytes::{Buf, Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use http_body_util::{BodyExt, BodyStream, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use hyper::http::request::Builder;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio_util::codec::{Decoder, FramedRead};
use tokio_util::io::StreamReader;

use crate::Output;

type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

/// Where the daemon listens, and the API version that was agreed on. Each stream has a connection of its own.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    socket: String,
    version: String,
}

impl Wire {
    pub(crate) fn new(socket: &str, version: bollard::ClientVersion) -> Self {
        Self {
            socket: socket.strip_prefix("unix://").unwrap_or(socket).to_owned(),
            version: version.to_string(),
        }
    }

    /// Posts `body` and takes the connection over: what the process writes, and its standard input.
    pub(crate) async fn hijack(
        &self,
        path: &str,
        body: String,
    ) -> Result<(ReadHalf<Upgraded>, WriteHalf<Upgraded>), Error> {
        let request = Request::post(format!("/v{}{path}", self.version))
            .header(HOST, "docker")
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "tcp")
            .body(Full::from(body))?;
        let response = self.send(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refusal(response).await);
        }
        let upgraded = hyper::upgrade::on(response).await?;
        Ok(tokio::io::split(TokioIo::new(upgraded)))
    }

    /// A body that may never end.
    pub(crate) async fn get(&self, path: &str) -> Result<impl AsyncRead + Send + Unpin + 'static, Error> {
        self.body(Request::get(format!("/v{}{path}", self.version))).await
    }

    /// Posts nothing but a header and reads the answer as it comes.
    pub(crate) async fn post(
        &self,
        path: &str,
        header: Option<(&str, String)>,
    ) -> Result<impl AsyncRead + Send + Unpin + 'static, Error> {
        let request = Request::post(format!("/v{}{path}", self.version));
        self.body(match header {
            Some((name, value)) => request.header(name, value),
            None => request,
        })
        .await
    }

    async fn body(&self, request: Builder) -> Result<impl AsyncRead + Send + Unpin + 'static, Error> {
        let response = self.send(request.header(HOST, "docker").body(Full::default())?).await?;
        if response.status() != StatusCode::OK {
            return Err(refusal(response).await);
        }
        let pieces = BodyStream::new(response.into_body())
            .try_filter_map(|frame| async { Ok(frame.into_data().ok()) });
        Ok(StreamReader::new(pieces.map_err(io::Error::other).boxed()))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
        let stream = UnixStream::connect(&self.socket).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the stream that it carries.
        tokio::spawn(async move {
            let _ = connection.with_upgrades().await;
        });
        Ok(sender.send_request(request).await?)
    }
}

/// Docker's error answers are `{"message": …}`.
async fn refusal(response: Response<Incoming>) -> Error {
    #[derive(serde::Deserialize)]
    struct Words {
        message: String,
    }
    let status_code = response.status().as_u16();
    let body = match response.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return error.into(),
    };
    let message = match serde_json::from_slice::<Words>(&body) {
        Ok(words) => words.message,
        Err(_) => String::from_utf8_lossy(&body).into_owned(),
    };
    Error::DockerResponseServerError { status_code, message }
}

/// Output pieces from a stream: frames, or with a terminal the bytes as they come.
pub(crate) fn output(
    stream: impl AsyncRead + Send + 'static,
    tty: bool,
) -> BoxStream<'static, Result<Output, io::Error>> {
    FramedRead::new(stream, Frames { tty }).boxed()
}

/// `[stream, 0, 0, 0, length: u32 big endian]` and then so many bytes; stream 2 is standard error.
struct Frames {
    tty: bool,
}

const HEADER: usize = 8;
/// Docker's own frames are at most 16 KiB and an exec's 32 KiB; anything huge is not a frame.
const LARGEST: usize = 64 << 20;

impl Decoder for Frames {
    type Item = Output;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<Output>> {
        if self.tty {
            return Ok((!bytes.is_empty()).then(|| Output::Stdout(bytes.split().freeze())));
        }
        let Some(header) = bytes.get(..HEADER) else { return Ok(None) };
        let (kind, length) =
            (header[0], u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize);
        if kind > 3 || length > LARGEST {
            let start = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
            return Err(io::Error::other(format!("no frame of a Docker stream: {start:?}")));
        }
        if bytes.len() < HEADER + length {
            bytes.reserve(HEADER + length - bytes.len());
            return Ok(None);
        }
        bytes.advance(HEADER);
        let content = bytes.split_to(length).freeze();
        match kind {
            // 3: the daemon's own complaint about the stream.
            3 => Err(io::Error::other(String::from_utf8_lossy(&content).into_owned())),
            2 => Ok(Some(Output::Stderr(content))),
            _ => Ok(Some(Output::Stdout(content))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn decoded(bytes: &[u8], tty: bool) -> Result<Vec<Output>, String> {
        let stream = output(io::Cursor::new(bytes.to_vec()), tty);
        stream.try_collect().await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn frames() {
        let two = b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x03err\x01\0\0\0\0\0\0\0";
        let expected =
            vec![Output::Stdout("out".into()), Output::Stderr("err".into()), Output::Stdout("".into())];
        assert_eq!(decoded(two, false).await, Ok(expected));
        assert_eq!(decoded(two, true).await, Ok(vec![Output::Stdout(Bytes::copy_from_slice(two))]));
        assert_eq!(decoded(b"", false).await, Ok(vec![]));
        for bad in
            [&b"plain text"[..], b"\x01\0\0\0\xff\xff\xff\xff", b"\x01\0\0\0\0\0\0\x09cut off", b"\x01\0"]
        {
            assert!(decoded(bad, false).await.is_err(), "{bad:?}");
        }
        assert_eq!(decoded(b"\x03\0\0\0\0\0\0\x04oops", false).await, Err("oops".into()));
    }
}
