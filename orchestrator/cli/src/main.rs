//! The `loadline` binary: parses the command line and hands over.

#![expect(unreachable_pub, reason = "a binary: nothing leaves it, and pub says what leaves a module")]

mod bench;
mod cluster;
mod commands;
mod connect;
mod demo;
mod load;
mod manifest;
mod output;
mod resources;
mod tls;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use connect::ConnectArgs;
use output::Format;

/// For children: the running program even when its file has been replaced meanwhile.
const THIS_BINARY: &str = "/proc/self/exe";

/// A Kubernetes-compatible orchestrator on Docker that keeps every workload at its load line.
#[derive(Parser, Debug)]
#[command(
    name = "loadline",
    version,
    max_term_width = 120,
    after_help = "Start with:
  loadline up --data-dir ./cluster
  export KUBECONFIG=./cluster/kubeconfig
  loadline apply -f examples/deployment.yaml
  loadline get pods -o wide"
)]
struct Cli {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a whole cluster in this process
    Up(cluster::up::UpArgs),
    /// Run a control plane without nodes
    Server(cluster::server::ServerArgs),
    /// Run one more node for a cluster on this machine
    Agent(cluster::agent::AgentArgs),
    /// Remove everything of a cluster from this machine
    Down(cluster::down::DownArgs),
    /// Show objects
    Get(commands::get::GetArgs),
    /// Show objects in detail, with their events
    Describe(commands::describe::DescribeArgs),
    /// Create or change objects as files say
    Apply(commands::apply::ApplyArgs),
    /// Delete objects
    Delete(commands::delete::DeleteArgs),
    /// Set the number of replicas
    Scale(commands::scale::ScaleArgs),
    /// Follow, list, undo, restart or pause roll-outs
    Rollout(commands::rollout::RolloutArgs),
    /// Show what containers print
    Logs(commands::logs::LogsArgs),
    /// Run a command in a container
    Exec(commands::exec::ExecArgs),
    /// Show what nodes and pods use
    Top(commands::top::TopArgs),
    /// Say why an autoscaler did what it did
    Explain(commands::explain::ExplainArgs),
    /// Show what happened
    Events(commands::events::EventsArgs),
    /// Send requests on a schedule and measure the answers
    Load(LoadArgs),
    /// Show it all on this machine: scaling, a killed container, a killed node
    Demo(demo::DemoArgs),
    /// Measure every figure that we promise, beside its baseline
    Bench(bench::BenchArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  loadline load http://127.0.0.1:8080/ --schedule 30s@50,1m@200,30s@50
  loadline load http://10.96.0.20/ --schedule 10s@100 -o json")]
struct LoadArgs {
    url: String,
    /// DURATION@RATE[,...], rates in requests a second
    #[arg(long, default_value = "10s@10")]
    schedule: load::Schedule,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    loadline_client::telemetry::init(match cli.command {
        Command::Up(_) | Command::Server(_) | Command::Agent(_) => "info,hickory_server=warn",
        // The demo prints a screen of its own.
        Command::Demo(_) => "error",
        _ => "warn",
    });
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("error: another TLS provider was installed first");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: starting the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", describe(&error));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode> {
    let connect = &cli.connect;
    match cli.command {
        Command::Up(args) => cluster::up::run(args).await?,
        Command::Server(args) => cluster::server::run(args).await?,
        Command::Agent(args) => cluster::agent::run(args).await?,
        Command::Down(args) => cluster::down::run(args).await?,
        Command::Get(args) => commands::get::run(connect, args).await?,
        Command::Describe(args) => commands::describe::run(connect, args).await?,
        Command::Apply(args) => commands::apply::run(connect, args).await?,
        Command::Delete(args) => commands::delete::run(connect, args).await?,
        Command::Scale(args) => commands::scale::run(connect, args).await?,
        Command::Rollout(args) => commands::rollout::run(connect, args).await?,
        Command::Logs(args) => commands::logs::run(connect, args).await?,
        Command::Exec(args) => {
            let code = commands::exec::run(connect, args).await?;
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
        }
        Command::Top(args) => commands::top::run(connect, args).await?,
        Command::Explain(args) => commands::explain::run(connect, args).await?,
        Command::Events(args) => commands::events::run(connect, args).await?,
        Command::Load(args) => run_load(args).await?,
        Command::Demo(args) => return demo::run(args).await,
        Command::Bench(args) => bench::run(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_load(args: LoadArgs) -> Result<()> {
    let json = args.output == Format::Json;
    let show = |report: &load::Report| {
        let line = if json { serde_json::to_string(report).unwrap_or_default() } else { report.to_string() };
        // Standard output going away ends the process inside.
        let _ = output::print(&(line + "\n"));
    };
    let whole = load::run(&args.url, &args.schedule, show).await?;
    if json {
        return output::print(&format!("{}\n", serde_json::to_string(&whole)?));
    }
    output::print(&format!("total {whole}\n"))
}

/// The server's own words, or the chain of causes.
fn describe(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        match cause.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) => {
                parts.push(format!("from server ({}): {}", status.reason, status.message));
                break;
            }
            Some(kube::Error::Service(_) | kube::Error::HyperError(_)) => {
                parts.push(
                    "the server of the kubeconfig does not answer; is it running (loadline up)?".to_owned(),
                );
            }
            _ => {
                let text = cause.to_string();
                if !parts.iter().any(|p| p.contains(&text)) {
                    parts.push(text);
                }
            }
        }
    }
    parts.join(": ")
}
