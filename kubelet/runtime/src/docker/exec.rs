//! Running commands in containers and attaching to them.

use std::time::Duration;

use async_trait::async_trait;
use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, ResizeExecOptions};
use bollard::query_parameters::{ResizeContainerTTYOptionsBuilder, WaitContainerOptions};
use futures::{StreamExt, TryStreamExt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncWrite;
use tracing::debug;

use super::{Core, errors, wire};
use crate::{ExecResult, Output, Result, RuntimeError, Session, SessionControl};

/// What a probe's result may hold, as in the kubelet.
const OUTPUT_LIMIT: usize = 10 * 1024;
/// How long Docker may take to write down an exit code after it closed the output.
const EXIT_CODE_PATIENCE: Duration = Duration::from_secs(5);

impl Core {
    pub(crate) async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecResult> {
        let exec_id = self.create_exec(id, command, false, false).await?;
        let run = async {
            let mut session = self.start_exec(&exec_id, false, false).await?;
            let mut output = Vec::new();
            while let Some(chunk) = session.output.try_next().await? {
                // What is beyond the limit is still read, or the process would block on its pipe.
                let (Output::Stdout(bytes) | Output::Stderr(bytes)) = chunk;
                let room = OUTPUT_LIMIT - output.len();
                output.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            let exit_code = session.control.exit_code().await?;
            Ok(ExecResult { exit_code, output })
        };
        match tokio::time::timeout(timeout, run).await {
            Ok(result) => result,
            Err(_) => {
                self.kill_exec(id, &exec_id).await;
                Err(RuntimeError::Timeout(timeout))
            }
        }
    }

    pub(crate) async fn exec(&self, id: &str, command: &[String], tty: bool, stdin: bool) -> Result<Session> {
        let exec_id = self.create_exec(id, command, tty, stdin).await?;
        self.start_exec(&exec_id, tty, stdin).await
    }

    async fn create_exec(&self, id: &str, command: &[String], tty: bool, stdin: bool) -> Result<String> {
        if command.is_empty() {
            return Err(RuntimeError::Invalid("exec needs a command".into()));
        }
        self.observe(id).await?;
        let options = CreateExecOptions {
            attach_stdin: Some(stdin),
            attach_stdout: Some(true),
            // A terminal has one output.
            attach_stderr: Some(!tty),
            tty: Some(tty),
            cmd: Some(command.to_vec()),
            ..CreateExecOptions::default()
        };
        let answer = self.client.create_exec(id, options).await;
        Ok(answer.map_err(|error| errors::classify("create exec", id, error))?.id)
    }

    async fn start_exec(&self, exec_id: &str, tty: bool, stdin: bool) -> Result<Session> {
        let body = format!(r#"{{"Detach":false,"Tty":{tty}}}"#);
        let control = ExecControl { client: self.client.clone(), exec_id: exec_id.to_owned() };
        self.session(&format!("/exec/{exec_id}/start"), body, "start exec", tty, stdin, Box::new(control))
            .await
    }

    async fn session(
        &self,
        path: &str,
        body: String,
        step: &'static str,
        tty: bool,
        stdin: bool,
        control: Box<dyn SessionControl>,
    ) -> Result<Session> {
        let answer = self.wire.hijack(path, body).await;
        let (read, write) = answer.map_err(|error| errors::classify(step, path, error))?;
        let subject = path.to_owned();
        let broken = move |error: std::io::Error| errors::classify(step, &subject, error.into());
        let output = wire::output(read, tty).map_err(broken).boxed();
        let stdin = stdin.then(|| Box::pin(write) as std::pin::Pin<Box<dyn AsyncWrite + Send>>);
        Ok(Session { output, stdin, control })
    }

    /// Docker has no call that ends an exec. Left alone, hung probes would pile up in the container.
    async fn kill_exec(&self, container: &str, exec_id: &str) {
        let pid = match self.client.inspect_exec(exec_id).await {
            Ok(answer) if answer.running == Some(true) => answer.pid.unwrap_or_default(),
            Ok(_) => return,
            Err(error) => {
                debug!(%error, exec_id, "exec that timed out could not be inspected");
                return;
            }
        };
        let Ok(pid) = i32::try_from(pid) else { return };
        // The number may be somebody else's by now, or belong to another process namespace than ours.
        let cgroups = tokio::fs::read_to_string(format!("/proc/{pid}/cgroup")).await.unwrap_or_default();
        if pid > 1
            && cgroups.contains(container)
            && let Err(error) = kill(Pid::from_raw(pid), Signal::SIGKILL)
        {
            debug!(%error, pid, "exec that timed out could not be killed");
        }
    }

    /// The container itself knows whether it has a terminal; `tty` is only what the caller believes.
    pub(crate) async fn attach(&self, id: &str, tty: bool, stdin: bool) -> Result<Session> {
        let has_tty = self.observe(id).await?.tty;
        if has_tty != tty {
            debug!(id, has_tty, "attach asks for another terminal mode than the container has");
        }
        let path = format!("/containers/{id}/attach?stream=1&stdout=1&stderr=1&stdin={stdin}");
        let control = AttachControl { client: self.client.clone(), id: id.to_owned() };
        self.session(&path, String::new(), "attach", has_tty, stdin, Box::new(control)).await
    }
}

struct ExecControl {
    client: bollard::Docker,
    exec_id: String,
}

#[async_trait]
impl SessionControl for ExecControl {
    async fn resize(&self, width: u16, height: u16) -> Result<()> {
        let answer = self.client.resize_exec(&self.exec_id, ResizeExecOptions { height, width }).await;
        answer.map_err(|error| errors::classify("resize exec", &self.exec_id, error))
    }

    async fn exit_code(&self) -> Result<i32> {
        let deadline = tokio::time::Instant::now() + EXIT_CODE_PATIENCE;
        let mut pause = Duration::from_millis(1);
        loop {
            let answer = self.client.inspect_exec(&self.exec_id).await;
            let exec = answer.map_err(|error| errors::classify("inspect exec", &self.exec_id, error))?;
            if let (Some(false), Some(code)) = (exec.running, exec.exit_code) {
                return Ok(i32::try_from(code).unwrap_or(-1));
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(RuntimeError::Timeout(EXIT_CODE_PATIENCE));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }
}

struct AttachControl {
    client: bollard::Docker,
    id: String,
}

#[async_trait]
impl SessionControl for AttachControl {
    async fn resize(&self, width: u16, height: u16) -> Result<()> {
        let size = ResizeContainerTTYOptionsBuilder::new().w(width.into()).h(height.into()).build();
        let answer = self.client.resize_container_tty(&self.id, size).await;
        answer.map_err(|error| errors::classify("resize", &self.id, error))
    }

    async fn exit_code(&self) -> Result<i32> {
        let mut wait = Box::pin(self.client.wait_container(&self.id, None::<WaitContainerOptions>));
        let code = match wait.next().await {
            Some(Ok(answer)) => answer.status_code,
            // The client library calls a status other than 0 an error.
            Some(Err(Error::DockerContainerWaitError { code, .. })) => code,
            Some(Err(error)) => return Err(errors::classify("wait", &self.id, error)),
            None => return Err(RuntimeError::NotFound(self.id.clone())),
        };
        Ok(i32::try_from(code).unwrap_or(-1))
    }
}
