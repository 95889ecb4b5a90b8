//! `loadline exec`

use std::io::IsTerminal;

use anyhow::{Context, Result, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;

use crate::connect::ConnectArgs;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  loadline exec web-1 -- cat /etc/hosts
  loadline exec -it web-1 -- sh
  tar c . | loadline exec -i web-1 -- tar x -C /tmp")]
pub struct ExecArgs {
    /// The pod
    pod: String,
    /// The container; by default the first
    #[arg(short, long)]
    container: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Returns the command's own exit code.
pub async fn run(connect: &ConnectArgs, args: ExecArgs) -> Result<i32> {
    let connection = connect.connect().await?;
    let api = Api::<Pod>::namespaced(connection.client, &connection.namespace);
    let tty = args.tty && std::io::stdin().is_terminal();
    let mut params = AttachParams::default().stdin(args.stdin).stdout(true).stderr(!tty).tty(tty);
    if let Some(container) = &args.container {
        params = params.container(container);
    }
    let pod = args.pod.strip_prefix("pod/").unwrap_or(&args.pod);
    let mut process =
        api.exec(pod, &args.command, &params).await.with_context(|| format!("exec in pod {pod:?}"))?;
    let _raw = if tty { Some(RawTerminal::new()?) } else { None };
    if let Some(mut remote) = process.stdin() {
        tokio::spawn(async move {
            let mut local = tokio::io::stdin();
            // The other side may end first; then there is nobody to send to.
            let _ = tokio::io::copy(&mut local, &mut remote).await;
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut remote).await;
        });
    }
    let copy = |from: Option<_>| async move {
        match from {
            Some(mut from) => tokio::io::copy(&mut from, &mut tokio::io::stdout()).await.map(|_| ()),
            None => Ok(()),
        }
    };
    let stderr = process.stderr();
    let errors = async move {
        match stderr {
            Some(mut from) => tokio::io::copy(&mut from, &mut tokio::io::stderr()).await.map(|_| ()),
            None => Ok(()),
        }
    };
    let status = process.take_status();
    let (out, err) = tokio::join!(copy(process.stdout()), errors);
    out.and(err).context("reading the command's output")?;
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    let Some(status) = status else { bail!("the connection ended before the command did") };
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let code = status
        .details
        .iter()
        .flat_map(|d| d.causes.iter().flatten())
        .find(|c| c.reason.as_deref() == Some("ExitCode"))
        .and_then(|c| c.message.as_deref()?.parse().ok());
    match code {
        Some(code) => Ok(code),
        None => bail!("{}", status.message.unwrap_or_else(|| "the command could not be run".to_owned())),
    }
}

/// The local terminal passes keys on as they are until this is dropped.
struct RawTerminal(nix::sys::termios::Termios);

impl RawTerminal {
    fn new() -> Result<Self> {
        use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
        let before = tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(std::io::stdin(), SetArg::TCSANOW, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        use nix::sys::termios::{SetArg, tcsetattr};
        // Nothing more can be done for a terminal that is gone.
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0);
    }
}
