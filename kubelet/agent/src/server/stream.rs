//! Exec and attach over WebSocket, in the framing of `v4.channel.k8s.io` and `v5.channel.k8s.io`: the first byte of
//! every message names the channel. Version 5 adds a message that closes a channel, which gives stdin an end.

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use loadline_runtime::{Output, RuntimeError, Session, SessionControl};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tracing::debug;

use super::{Api, refuse};

const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Only in version 5: the second byte names the channel that ends.
const CLOSE: u8 = 255;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Options {
    command: Vec<String>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

/// The kubelet's names (`input=1`) and the API server's (`stdin=true`) for the same.
fn options(query: &str) -> Options {
    let mut options = Options::default();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, "true"));
        let value = decode(value);
        let on = matches!(value.as_str(), "1" | "true");
        match name {
            "command" => options.command.push(value),
            "input" | "stdin" => options.stdin = on,
            "output" | "stdout" => options.stdout = on,
            "error" | "stderr" => options.stderr = on,
            "tty" => options.tty = on,
            _ => {}
        }
    }
    // A terminal has one output.
    options.stderr &= !options.tty;
    options
}

fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let hex =
            text.get(i + 1..i + 3).filter(|_| bytes[i] == b'%').and_then(|h| u8::from_str_radix(h, 16).ok());
        match (bytes[i], hex) {
            (_, Some(byte)) => {
                out.push(byte);
                i += 2;
            }
            (b'+', None) => out.push(b' '),
            (byte, None) => out.push(byte),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

pub(super) async fn not_websocket() -> Response {
    refuse(StatusCode::BAD_REQUEST, "unable to upgrade: only WebSocket is supported".to_owned())
}

pub(super) async fn exec(
    State(api): State<Api>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    let options = options(&query.unwrap_or_default());
    if options.command.is_empty() {
        return refuse(StatusCode::BAD_REQUEST, "you must specify at least 1 of command".to_owned());
    }
    open(api, (namespace, pod, container), options, headers, upgrade, true).await
}

pub(super) async fn attach(
    State(api): State<Api>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    let options = options(&query.unwrap_or_default());
    open(api, (namespace, pod, container), options, headers, upgrade, false).await
}

async fn open(
    api: Api,
    (namespace, pod, container): (String, String, String),
    options: Options,
    headers: HeaderMap,
    upgrade: Upgrade,
    exec: bool,
) -> Response {
    let Ok(upgrade) = upgrade else { return not_websocket().await };
    let offered =
        headers.get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let chosen = offered.split(',').map(str::trim).find(|p| PROTOCOLS.contains(p)).map(str::to_owned);
    let Some(chosen) = chosen else {
        let message = format!("unable to upgrade: this server speaks {}", PROTOCOLS.join(" and "));
        return refuse(StatusCode::BAD_REQUEST, message);
    };
    if !options.stdin && !options.stdout && !options.stderr {
        return refuse(
            StatusCode::BAD_REQUEST,
            "you must specify at least 1 of stdin, stdout, stderr".to_owned(),
        );
    }
    let id = match api.running(&namespace, &pod, &container) {
        Ok(id) => id,
        Err(answer) => return answer,
    };
    let version_5 = chosen == PROTOCOLS[0];
    upgrade.protocols([chosen]).on_upgrade(move |socket| async move {
        let runtime = &api.node.config.runtime;
        let session = if exec {
            runtime.exec(&id, &options.command, options.tty, options.stdin).await
        } else {
            runtime.attach(&id, options.tty, options.stdin).await
        };
        serve(socket, session, options, version_5).await;
    })
}

async fn serve(socket: WebSocket, session: Result<Session, RuntimeError>, options: Options, version_5: bool) {
    let (mut sink, stream) = socket.split();
    // Tells the client that the connection stands, as upstream does.
    let first = if options.stdout {
        STDOUT
    } else if options.stderr {
        STDERR
    } else {
        ERROR
    };
    if sink.send(Message::Binary(Bytes::copy_from_slice(&[first]))).await.is_err() {
        return;
    }
    let status = match session {
        Ok(session) => match pump(&mut sink, stream, session, &options, version_5).await {
            Some(status) => status,
            None => return,
        },
        Err(error) => failure(&error),
    };
    let _ = sink.send(message(ERROR, status.to_string().as_bytes())).await;
    let normal = CloseFrame { code: axum::extract::ws::close_code::NORMAL, reason: "".into() };
    let _ = sink.send(Message::Close(Some(normal))).await;
    let _ = sink.flush().await;
}

/// Copies both ways until the process ends; `None` when the client went first.
async fn pump(
    sink: &mut SplitSink<WebSocket, Message>,
    mut stream: SplitStream<WebSocket>,
    session: Session,
    options: &Options,
    version_5: bool,
) -> Option<Value> {
    let Session { mut output, mut stdin, control } = session;
    // Each way is a future of its own: a process that waits for its output to be read does not read its input.
    let outwards = async {
        while let Some(item) = output.next().await {
            let sent = match item {
                Ok(Output::Stdout(data)) if options.stdout => sink.send(message(STDOUT, &data)).await,
                Ok(Output::Stderr(data)) if options.stderr => sink.send(message(STDERR, &data)).await,
                Ok(_) => Ok(()),
                Err(error) => return Some(Err(error)),
            };
            sent.ok()?;
        }
        Some(Ok(()))
    };
    let inwards = async {
        loop {
            match stream.next().await {
                Some(Ok(Message::Binary(data))) => {
                    input(&data, &mut stdin, control.as_ref(), version_5).await;
                }
                Some(Ok(Message::Text(text))) => {
                    input(text.as_bytes(), &mut stdin, control.as_ref(), version_5).await;
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            }
        }
    };
    let ended = tokio::select! {
        ended = outwards => ended?,
        () = inwards => return None,
    };
    if let Err(error) = ended {
        return Some(failure(&error));
    }
    Some(match control.exit_code().await {
        Ok(code) => exit_status(&options.command, code),
        Err(error) => failure(&error),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

async fn input(
    data: &[u8],
    stdin: &mut Option<std::pin::Pin<Box<dyn AsyncWrite + Send>>>,
    control: &dyn SessionControl,
    version_5: bool,
) {
    match data {
        [STDIN, rest @ ..] => {
            let Some(writer) = stdin else { return };
            let written = async {
                writer.write_all(rest).await?;
                writer.flush().await
            };
            if let Err(error) = written.await {
                debug!(%error, "process no longer reads its input");
                *stdin = None;
            }
        }
        [RESIZE, rest @ ..] => {
            if let Ok(size) = serde_json::from_slice::<Size>(rest)
                && let Err(error) = control.resize(size.width, size.height).await
            {
                debug!(%error, "terminal not resized");
            }
        }
        [CLOSE, STDIN] if version_5 => {
            if let Some(mut writer) = stdin.take() {
                let _ = writer.shutdown().await;
            }
        }
        _ => {}
    }
}

fn message(channel: u8, data: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(data.len() + 1);
    bytes.put_u8(channel);
    bytes.put_slice(data);
    Message::Binary(bytes.freeze())
}

fn exit_status(command: &[String], code: i32) -> Value {
    if code == 0 {
        return json!({ "metadata": {}, "status": "Success" });
    }
    let command = command.join(" ");
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: error executing command [{command}], exit code {code}"),
        "reason": "NonZeroExitCode",
        "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
    })
}

fn failure(error: &RuntimeError) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: {error}"),
        "reason": "InternalError",
        "details": { "causes": [{ "message": error.to_string() }] },
        "code": 500,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_of_both_kinds() {
        let kubelet =
            options("command=sh&command=-c&command=echo+a%20%26b%3D%25&input=1&output=1&error=1&tty=1");
        assert_eq!(kubelet.command, ["sh", "-c", "echo a &b=%"]);
        assert!(kubelet.stdin && kubelet.stdout && kubelet.tty && !kubelet.stderr);
        let server = options("stdin=false&stdout=true&stderr=true&command=ls");
        assert_eq!(
            server,
            Options { command: vec!["ls".into()], stdout: true, stderr: true, ..Default::default() }
        );
        assert_eq!(decode("%zz%4"), "%zz%4");
        assert_eq!(decode("%C3%A9"), "é");
    }

    #[test]
    fn statuses() {
        assert_eq!(exit_status(&[], 0)["status"], "Success");
        let failed = exit_status(&["sh".into(), "-c".into()], 3);
        assert_eq!(failed["details"]["causes"][0]["message"], "3");
        assert_eq!(failed["reason"], "NonZeroExitCode");
    }
}
