//! One cluster under test: the binary on a directory of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Output, Process, binary, run};
use crate::raw::Endpoint;

/// A bearer token of group system:masters that every cluster under test knows.
pub const TOKEN: &str = "a-token-for-tests";
/// A debug build on a busy machine is slow; what is measured is measured elsewhere.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    command: Vec<String>,
    listen: String,
    extra: Vec<String>,
}

/// Port 0: a free one.
const ANYWHERE: &str = "127.0.0.1:0";

impl Options {
    /// All in one, with simulated nodes.
    pub fn sim(nodes: usize) -> Self {
        let nodes = nodes.to_string();
        let command = ["up", "--runtime", "sim", "--nodes", &nodes];
        Self::of(&command)
    }

    /// All in one, with nodes on the local Docker Engine.
    pub fn docker(nodes: usize) -> Self {
        let nodes = nodes.to_string();
        Self::of(&["up", "--runtime", "docker", "--nodes", &nodes])
    }

    /// Nothing but the API server.
    pub fn api() -> Self {
        Self::of(&["server", "--roles", "api"])
    }

    fn of(command: &[&str]) -> Self {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        Self { command, listen: ANYWHERE.to_owned(), extra: Vec::new() }
    }

    /// At an address that stays the same when the cluster is restarted.
    pub fn listen(mut self, address: &str) -> Self {
        address.clone_into(&mut self.listen);
        self
    }

    /// With more flags.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.extra.extend(args.iter().map(|a| (*a).to_owned()));
        self
    }
}

/// A running cluster; it ends with this handle.
pub struct Cluster {
    // Before the directory: the process ends first.
    process: Process,
    pub client: kube::Client,
    pub url: String,
    options: Options,
    dir: TempDir,
}

impl Drop for Cluster {
    /// Containers, links and rules outlive the process; they must not outlive the test.
    fn drop(&mut self) {
        if !self.options.command.iter().any(|word| word == "docker") {
            return;
        }
        self.process.signal(Signal::SIGTERM);
        self.process.wait(Duration::from_secs(20));
        let data = self.data_dir();
        let mut down = std::process::Command::new(binary());
        down.args(["down", "--keep-data", "--data-dir"]).arg(data);
        if let Some(at) = self.options.extra.iter().position(|word| word == "--service-cidr") {
            down.args(&self.options.extra[at..at + 2]);
        }
        // The test's own failure matters more than this one.
        let _ = down.stdout(std::process::Stdio::null()).status();
    }
}

impl Cluster {
    /// Returns once it says `ready`.
    pub async fn start(options: Options) -> Self {
        let dir = tempfile::Builder::new().prefix("loadline-test-").tempdir().unwrap();
        std::fs::write(dir.path().join("tokens"), format!("{TOKEN},admin,1,\"system:masters\"\n")).unwrap();
        let process = Self::spawn(&options, dir.path());
        let (client, url) = Self::connect(&process, dir.path()).await;
        Self { process, client, url, options, dir }
    }

    fn spawn(options: &Options, dir: &Path) -> Process {
        Process::start("cluster", &binary(), &Self::arguments(options, dir), dir)
    }

    fn arguments(options: &Options, dir: &Path) -> Vec<String> {
        let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
        let mut args = options.command.clone();
        args.extend(["--data-dir".to_owned(), path("data"), "--listen".to_owned(), options.listen.clone()]);
        args.extend(["--token-auth-file".to_owned(), path("tokens")]);
        args.extend(options.extra.iter().cloned());
        args
    }

    async fn connect(process: &Process, dir: &Path) -> (kube::Client, String) {
        let line = process.ready(READY_WITHIN).await;
        let url = line.split_whitespace().nth(1).unwrap_or_else(|| panic!("no address: {line}")).to_owned();
        // A second call finds the provider already there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let file = Kubeconfig::read_from(dir.join("data/kubeconfig")).unwrap();
        let mut config =
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
        // A streaming list of a busy server in a debug build may take its time.
        config.read_timeout = Some(Duration::from_secs(300));
        (kube::Client::try_from(config).unwrap(), url)
    }

    /// A directory of this cluster's own for anything a test writes; it goes with the cluster.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir().join("kubeconfig")
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// SIGTERM, exit status 0, and the same command again.
    pub async fn restart(&mut self) {
        self.process.stop();
        self.again().await;
    }

    /// `kill -9`, and the same command again.
    pub async fn crash(&mut self) {
        self.process.kill();
        self.again().await;
    }

    /// Starts a cluster that was stopped; it may serve on another port.
    pub async fn again(&mut self) {
        self.process = Self::spawn(&self.options, self.dir.path());
        (self.client, self.url) = Self::connect(&self.process, self.dir.path()).await;
    }

    /// The same command once more, on the same directory, beside the one that runs or after it; it is expected to fail.
    pub fn second(&self, within: Duration) -> (std::process::ExitStatus, String) {
        let dir = tempfile::tempdir().unwrap();
        let process =
            Process::start("second", &binary(), &Self::arguments(&self.options, self.dir.path()), dir.path());
        let Some(status) = process.wait(within) else {
            process.signal(Signal::SIGKILL);
            panic!("it runs on: {}\n{}", process.stdout(), process.log());
        };
        (status, process.log())
    }

    /// One more node in a process of its own.
    pub async fn agent(&self, name: &str) -> Process {
        let data = self.data_dir().to_string_lossy().into_owned();
        let args = [
            "agent",
            "--cluster",
            &data,
            "--name",
            name,
            "--runtime",
            "sim",
            "--cpu",
            "8",
            "--memory",
            "32Gi",
        ];
        let process = Process::start(name, &binary(), &args.map(str::to_owned), self.dir.path());
        process.ready(READY_WITHIN).await;
        process
    }

    /// Runs one of the binary's own commands against this cluster.
    pub async fn loadline(&self, args: &[&str]) -> Output {
        self.loadline_with(args, "").await
    }

    pub async fn loadline_with(&self, args: &[&str], input: &str) -> Output {
        run(&binary(), args, &self.environment(), input).await
    }

    /// What tools need to find this cluster, and no other.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        BTreeMap::from([
            ("KUBECONFIG".to_owned(), text(self.kubeconfig())),
            ("HOME".to_owned(), text(self.dir.path().join("home"))),
            ("KUBECACHEDIR".to_owned(), text(self.dir.path().join("home/cache"))),
            ("NO_COLOR".to_owned(), "1".to_owned()),
        ])
    }

    /// For requests made by hand.
    pub fn endpoint(&self) -> Endpoint {
        let ca = std::fs::read(self.data_dir().join("pki/ca.crt")).unwrap();
        Endpoint::new(&self.url, &ca)
    }

    /// A request that should work; the panic says what the server answered instead.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> impl Future<Output = Value> {
        let place = std::panic::Location::caller();
        let (answer, what) = (self.ask(method, path, body), format!("{method} {path}"));
        async move { answer.await.unwrap_or_else(|error| panic!("{place}: {what}: {error}")) }
    }

    /// A request whose failure is an answer too.
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> impl Future<Output = kube::Result<Value>> + use<> {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = http::Request::builder().method(method).uri(path).header("content-type", kind);
        let request = request.body(body.map(|b| serde_json::to_vec(b).unwrap()).unwrap_or_default()).unwrap();
        let client = self.client.clone();
        async move { client.request(request).await }
    }

    pub async fn get(&self, path: &str) -> kube::Result<Value> {
        self.ask("GET", path, None).await
    }

    /// The objects of a collection.
    pub async fn list(&self, path: &str) -> Vec<Value> {
        let list = self.request("GET", path, None).await;
        list["items"].as_array().cloned().unwrap_or_else(|| panic!("no list: {list}"))
    }
}
