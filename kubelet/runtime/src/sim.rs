//! A runtime whose containers exist only in memory, with programmable start times, CPU use and failures.
//!
//! For `--runtime sim`, tests, and clusters of a thousand hollow nodes. It follows the contract of the real one and
//! says that it is simulated wherever a process would have spoken: no command is run and no log line is made up.
//! All time is tokio's, so it works under a paused clock; there is no task per container, only one per simulator,
//! and that one from the first planned exit on.

mod behaviour;
mod world;

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use tokio::io::AsyncWrite;
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;
use tokio_stream::wrappers::BroadcastStream;

pub use behaviour::{Behaviour, CpuCurve, PREFIX};
use world::{ImageState, World};

use crate::{
    Container, ContainerConfig, ContainerStats, ExecResult, Image, LogOptions, Output, RegistryAuth, Result,
    Runtime, RuntimeError, RuntimeEvent, Sandbox, SandboxConfig, Session, SessionControl,
};

const EVENT_BACKLOG: usize = 1024;

#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Goes into the ids, so that those of two nodes differ.
    pub node: String,
    /// How long a sandbox takes to start.
    pub sandbox_delay: Duration,
    /// How long a container takes to start unless its behaviour says otherwise.
    pub start_delay: Duration,
    /// How long a pull of an image that is declared missing takes.
    pub pull_delay: Duration,
    /// For images and pods that nothing else is said about.
    pub behaviour: Behaviour,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            node: "sim".into(),
            sandbox_delay: Duration::ZERO,
            start_delay: Duration::ZERO,
            pull_delay: Duration::ZERO,
            behaviour: Behaviour::default(),
        }
    }
}

/// The runtime and the handle to program it; clones are the same node.
#[derive(Clone)]
pub struct Sim {
    shared: Arc<Shared>,
}

struct Shared {
    config: SimConfig,
    began: Instant,
    world: Mutex<World>,
    events: broadcast::Sender<RuntimeEvent>,
    /// Wakes the task that lets planned exits happen.
    alarm: Arc<Notify>,
    has_alarm: AtomicBool,
}

impl Sim {
    pub fn new(config: SimConfig) -> Self {
        let world = World::new(&config.node, Timestamp::now(), config.start_delay, config.behaviour.clone());
        let shared = Shared {
            config,
            began: Instant::now(),
            world: Mutex::new(world),
            events: broadcast::channel(EVENT_BACKLOG).0,
            alarm: Arc::default(),
            has_alarm: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Sets the CPU demand of each container of a pod, from now on. `pod`: its uid or `namespace/name`. Tells whether
    /// there is such a pod.
    pub fn set_cpu(&self, pod: &str, millis: u64) -> bool {
        self.set_cpu_curve(pod, CpuCurve::constant(millis))
    }

    /// The same with steps, counted from now.
    pub fn set_cpu_curve(&self, pod: &str, curve: CpuCurve) -> bool {
        self.each_of(pod, |world, id, now| world.set_cpu(id, &curve, now))
    }

    /// Sets the memory of each container of a pod; above its limit is an OOM kill.
    pub fn set_memory(&self, pod: &str, bytes: u64) -> bool {
        self.each_of(pod, |world, id, now| world.set_memory(id, bytes, now))
    }

    /// Whether commands run in the pod's containers exit with 0 (exec probes).
    pub fn set_ready(&self, pod: &str, ready: bool) -> bool {
        self.each_of(pod, |world, id, _| world.set_ready(id, ready))
    }

    /// Ends one container, by its id, with this exit code.
    pub fn crash(&self, container: &str, exit_code: i32) {
        self.shared.with(|world, now| world.crash(container, exit_code, now));
    }

    /// Ends all containers of a pod.
    pub fn crash_pod(&self, pod: &str, exit_code: i32) -> bool {
        self.each_of(pod, |world, id, now| world.crash(id, exit_code, now))
    }

    /// As if the machine had been restarted: everything is dead, nothing is gone.
    pub fn kill_all(&self) {
        self.shared.with(|world, now| world.kill_all(now));
    }

    /// The next start of any container fails with this message.
    pub fn fail_next_start(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.shared.with(|world, _| world.fail_next_start = Some(reason));
    }

    /// While not available, every call fails as if the daemon were away; containers go on.
    pub fn set_available(&self, available: bool) {
        let back = self.shared.with(|world, _| {
            let back = available && world.unavailable;
            world.unavailable = !available;
            back
        });
        if back {
            let _ = self.shared.events.send(RuntimeEvent::Lost);
        }
    }

    /// How containers of this image behave, unless annotations say otherwise.
    pub fn set_image(&self, reference: impl Into<String>, behaviour: Behaviour) {
        let reference = reference.into();
        self.shared.with(|world, _| world.by_image.insert(reference, behaviour));
    }

    /// Not on this node until it is pulled.
    pub fn declare_missing(&self, reference: impl Into<String>) {
        let reference = reference.into();
        self.shared.with(|world, _| world.images.insert(reference, ImageState::Missing));
    }

    /// Not on this node, and pulling it fails with these words.
    pub fn declare_unpullable(&self, reference: impl Into<String>, reason: impl Into<String>) {
        let (reference, state) = (reference.into(), ImageState::Unpullable(reason.into()));
        self.shared.with(|world, _| world.images.insert(reference, state));
    }

    fn each_of(&self, pod: &str, mut change: impl FnMut(&mut World, &str, Duration)) -> bool {
        self.shared.with(|world, now| {
            let ids = world.of_pod(pod);
            ids.iter().for_each(|id| change(world, id, now));
            !ids.is_empty()
        })
    }
}

impl Shared {
    /// The world as it is now, then its events to whoever listens.
    fn with<T>(self: &Arc<Self>, act: impl FnOnce(&mut World, Duration) -> T) -> T {
        let (result, outbox, next, before) = {
            let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
            let now = self.began.elapsed();
            let before = world.next_deadline();
            world.settle(now);
            let result = act(&mut world, now);
            (result, std::mem::take(&mut world.outbox), world.next_deadline(), before)
        };
        for event in outbox {
            // No listener is no error.
            let _ = self.events.send(event);
        }
        if next != before && next.is_some() {
            self.set_alarm();
        }
        result
    }

    /// As `with`, for what a daemon that is away could not answer.
    fn call<T>(self: &Arc<Self>, act: impl FnOnce(&mut World, Duration) -> Result<T>) -> Result<T> {
        self.with(|world, now| {
            if world.unavailable {
                return Err(RuntimeError::Unavailable("simulated: declared unavailable".into()));
            }
            act(world, now)
        })
    }

    fn set_alarm(self: &Arc<Self>) {
        if !self.has_alarm.swap(true, Ordering::Relaxed) {
            tokio::spawn(alarm(Arc::downgrade(self), self.alarm.clone()));
        }
        self.alarm.notify_one();
    }

    /// Waits until the container has ended (or is gone: `None`) and returns its exit code.
    async fn ended(self: &Arc<Self>, id: &str) -> Option<i32> {
        let mut events = self.events.subscribe();
        loop {
            let seen = self.with(|world, _| world.get(id).ok().map(|one| (one.ended(), one.shown.exit_code)));
            match seen {
                Some((false, _)) => {}
                Some((true, code)) => return Some(code),
                None => return None,
            }
            // Lagging is waking up too; closed cannot be while `self` lives.
            let _ = events.recv().await;
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.alarm.notify_one();
    }
}

/// Lets planned exits happen when they are due. Ends with the simulator.
async fn alarm(shared: Weak<Shared>, woken: Arc<Notify>) {
    loop {
        let next = match shared.upgrade() {
            Some(shared) => shared.with(|world, _| world.next_deadline()).map(|at| shared.began + at),
            None => return,
        };
        match next {
            Some(at) => {
                tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = woken.notified() => {}
                }
            }
            None => woken.notified().await,
        }
    }
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

#[async_trait]
impl Runtime for Sim {
    async fn version(&self) -> Result<String> {
        self.shared.call(|_, _| Ok(format!("sim://{}", env!("CARGO_PKG_VERSION"))))
    }

    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<Sandbox> {
        pause(self.shared.config.sandbox_delay).await;
        self.shared.call(|world, now| Ok(world.run_sandbox(config, now)))
    }

    async fn stop_sandbox(&self, id: &str) -> Result<()> {
        self.shared.call(|world, now| {
            world.stop_sandbox(id, now);
            Ok(())
        })
    }

    async fn remove_sandbox(&self, id: &str) -> Result<()> {
        self.shared.call(|world, now| {
            world.remove_sandbox(id, now);
            Ok(())
        })
    }

    async fn sandboxes(&self) -> Result<Vec<Sandbox>> {
        self.shared.call(|world, _| Ok(world.sandboxes()))
    }

    async fn create_container(&self, sandbox: &Sandbox, config: &ContainerConfig) -> Result<String> {
        self.shared.call(|world, now| world.create_container(&sandbox.id, config, now))
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let Some(delay) = self.shared.call(|world, _| world.start_delay(id))? else { return Ok(()) };
        pause(delay).await;
        self.shared.call(|world, now| world.start_container(id, now))
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let running = self.shared.call(|world, now| {
            world.stop_container(id, grace, now);
            Ok(world.get(id).is_ok_and(|container| container.running()))
        })?;
        if running {
            self.shared.ended(id).await;
        }
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        self.shared.call(|world, _| {
            world.remove_container(id);
            Ok(())
        })
    }

    async fn containers(&self, pod_uid: Option<&str>) -> Result<Vec<Container>> {
        self.shared.call(|world, _| Ok(world.containers(pod_uid)))
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>> {
        self.shared.call(|world, _| Ok(world.image(reference)))
    }

    async fn images(&self) -> Result<Vec<Image>> {
        self.shared.call(|world, _| Ok(world.images()))
    }

    async fn pull(&self, reference: &str, _auth: Option<&RegistryAuth>) -> Result<Image> {
        pause(self.shared.config.pull_delay).await;
        self.shared.call(|world, _| {
            if let Some(ImageState::Unpullable(reason)) = world.images.get(reference) {
                return Err(RuntimeError::Pull { image: reference.to_owned(), reason: reason.clone() });
            }
            world.images.insert(reference.to_owned(), ImageState::Present);
            world.image(reference).ok_or_else(|| RuntimeError::NotFound(reference.to_owned()))
        })
    }

    async fn exec_sync(&self, id: &str, command: &[String], _timeout: Duration) -> Result<ExecResult> {
        self.shared.call(|world, now| {
            let container = world.get_running("exec", id)?;
            let (exit_code, word) =
                if container.answers_probes(now) { (0, "ready") } else { (1, "not ready") };
            let output = format!("simulated container, {word}: {command:?} was not run\n").into_bytes();
            Ok(ExecResult { exit_code, output })
        })
    }

    async fn exec(&self, id: &str, command: &[String], _tty: bool, stdin: bool) -> Result<Session> {
        let result = self.exec_sync(id, command, Duration::ZERO).await?;
        let output = stream::iter([Ok(Output::Stdout(result.output.into()))]);
        let control = Control::Known(result.exit_code);
        Ok(Session { output: output.boxed(), stdin: stdin.then(sink), control: Box::new(control) })
    }

    async fn attach(&self, id: &str, _tty: bool, stdin: bool) -> Result<Session> {
        self.shared.call(|world, _| world.get_running("attach", id).map(|_| ()))?;
        let (shared, id) = (self.shared.clone(), id.to_owned());
        let word = Output::Stdout(Bytes::from_static(b"simulated container: it neither writes nor reads\n"));
        let end = {
            let (shared, id) = (shared.clone(), id.clone());
            stream::once(async move { shared.ended(&id).await }).filter_map(|_| async { None })
        };
        let output = stream::iter([Ok(word)]).chain(end);
        let control = Control::Container(shared, id);
        Ok(Session { output: output.boxed(), stdin: stdin.then(sink), control: Box::new(control) })
    }

    async fn logs(&self, id: &str, options: &LogOptions) -> Result<BoxStream<'static, Result<Output>>> {
        let events = self.shared.events.subscribe();
        let written = self.shared.call(|world, _| Ok(world.get(id)?.log_from(0).len()))?;
        let tail = options.tail.map_or(written, |tail| usize::try_from(tail).unwrap_or(usize::MAX));
        let reader = LogReader {
            shared: self.shared.clone(),
            id: id.to_owned(),
            options: options.clone(),
            next: written.saturating_sub(tail),
            events,
        };
        Ok(stream::unfold(reader, LogReader::step).flat_map(stream::iter).boxed())
    }

    async fn stats(&self) -> Result<Vec<(String, ContainerStats)>> {
        self.shared.call(|world, now| Ok(world.stats(now)))
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        let events = BroadcastStream::new(self.shared.events.subscribe());
        events.map(|event| event.unwrap_or(RuntimeEvent::Lost)).boxed()
    }
}

fn sink() -> Pin<Box<dyn AsyncWrite + Send>> {
    Box::pin(tokio::io::sink())
}

enum Control {
    Known(i32),
    Container(Arc<Shared>, String),
}

#[async_trait]
impl SessionControl for Control {
    async fn resize(&self, _width: u16, _height: u16) -> Result<()> {
        Ok(())
    }

    async fn exit_code(&self) -> Result<i32> {
        match self {
            Self::Known(code) => Ok(*code),
            Self::Container(shared, id) => {
                shared.ended(id).await.ok_or_else(|| RuntimeError::NotFound(id.clone()))
            }
        }
    }
}

struct LogReader {
    shared: Arc<Shared>,
    id: String,
    options: LogOptions,
    next: usize,
    events: broadcast::Receiver<RuntimeEvent>,
}

impl LogReader {
    /// The lines that are there and not yet read; waits for some when following.
    async fn step(mut self) -> Option<(Vec<Result<Output>>, Self)> {
        loop {
            let (lines, read, more) = self.shared.with(|world, _| {
                let container = world.get(&self.id).ok()?;
                let new = container.log_from(self.next);
                let lines: Vec<Result<Output>> = new
                    .iter()
                    .map(|(at, line)| (world.timestamp(*at), line))
                    .filter(|(at, _)| self.options.since.is_none_or(|since| *at >= since))
                    .map(|(at, line)| Ok(Output::Stdout(self.line(at, line).into())))
                    .collect();
                Some((lines, new.len(), self.options.follow && !container.ended()))
            })?;
            self.next += read;
            if !lines.is_empty() {
                return Some((lines, self));
            }
            if read == 0 && !more {
                return None;
            }
            if read == 0 {
                let _ = self.events.recv().await;
            }
        }
    }

    fn line(&self, at: Timestamp, line: &str) -> String {
        if self.options.timestamps { format!("{at:.9} {line}\n") } else { format!("{line}\n") }
    }
}

#[cfg(test)]
mod tests;
