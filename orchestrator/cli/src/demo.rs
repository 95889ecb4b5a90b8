//! `loadline demo`: a cluster of three nodes on this machine's Docker, a service under load, and what happens when
//! things break. Everything that it shows is measured on real containers while it runs.

mod cluster;
mod observe;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cluster::stop_signal;
use crate::load::{self, Schedule};
use crate::output::{self, Format};
use cluster::DemoCluster;
use observe::{Observer, until};

/// Requests a second before the step, and at it.
const QUIET_RATE: u32 = 20;
const BUSY_RATE: u32 = 80;

#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Where the manifests are
    #[arg(long, value_name = "DIR", default_value = "examples")]
    examples: PathBuf,
    /// The cluster's directory; by default a new one under the system's temporary directory
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// `embedded`, or `etcd=URL[,URL...]`
    #[arg(long, default_value = "embedded")]
    store: String,
    /// Leave the cluster running and say how to use it
    #[arg(long)]
    keep: bool,
    /// How the measured times are printed; the live view goes to standard error
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

pub async fn run(args: DemoArgs) -> Result<ExitCode> {
    let mut cluster = DemoCluster::new(args.data_dir.clone(), &args.store)?;
    let outcome = tokio::select! {
        outcome = play(&mut cluster, &args) => outcome,
        stopped = stop_signal() => { stopped?; Err(anyhow::anyhow!("interrupted")) }
    };
    let summary = match outcome {
        Ok(summary) => summary,
        Err(error) => {
            eprintln!("\ndemo failed: {error:#}");
            cluster.show_log_tail();
            heading("cleaning up");
            cluster.remove().await?;
            return Ok(ExitCode::FAILURE);
        }
    };
    heading("summary");
    print_summary(&summary, args.output)?;
    if args.keep {
        cluster.leave_running()?;
    } else {
        heading("cleaning up");
        cluster.remove().await?;
    }
    Ok(ExitCode::SUCCESS)
}

fn heading(text: &str) {
    eprintln!("\n== {text}");
}

/// One line of the summary: what was measured, and what we promise.
struct Measured {
    what: &'static str,
    took: Duration,
    promised: Option<Duration>,
}

fn print_summary(summary: &[Measured], format: Format) -> Result<()> {
    if matches!(format, Format::Json | Format::Yaml) {
        let seconds = |d: Duration| d.as_secs_f64();
        let lines: Vec<_> = summary
            .iter()
            .map(|m| json!({"what": m.what, "seconds": seconds(m.took), "promisedSeconds": m.promised.map(seconds)}))
            .collect();
        return output::print_object(&Value::from(lines), format);
    }
    for line in summary {
        let promise =
            line.promised.map(|p| format!("   (promised: {:.0} s)", p.as_secs_f64())).unwrap_or_default();
        output::print(&format!("   {:<44} {:>7.2} s{promise}\n", line.what, line.took.as_secs_f64()))?;
    }
    Ok(())
}

async fn play(cluster: &mut DemoCluster, args: &DemoArgs) -> Result<Vec<Measured>> {
    let mut summary = Vec::new();
    heading("starting three nodes on Docker");
    let started = Instant::now();
    cluster.start().await?;
    summary.push(Measured { what: "cluster of three nodes ready", took: started.elapsed(), promised: None });
    eprintln!("   ready at {} (kubeconfig: {})", cluster.url(), cluster.kubeconfig().display());

    heading("applying the example service and its ScalingPolicy");
    let observer = Observer::start(cluster).await?;
    let applied = Instant::now();
    for file in ["deployment.yaml", "service.yaml", "scalingpolicy.yaml"] {
        cluster.cli(&["apply", "-f", &args.examples.join(file).to_string_lossy()]).await?;
    }
    let ready = until("the first pod to be Ready", Duration::from_secs(60), || observer.ready() >= 1).await?;
    summary.push(Measured { what: "first pod Ready after apply", took: ready - applied, promised: None });
    let address = observer.service_address().await?;

    heading("load: a quiet time, four times as much, quiet again");
    let schedule = format!("20s@{QUIET_RATE},40s@{BUSY_RATE},40s@{QUIET_RATE}");
    summary.extend(drive(&observer, &address, &schedule).await?);

    heading("killing one container (SIGKILL from outside)");
    let restarted = kill_container(cluster, &observer).await?;
    summary.push(Measured {
        what: "killed container running again",
        took: restarted,
        promised: Some(Duration::from_secs(2)),
    });

    heading("killing a whole node (its agent and all its containers)");
    let replaced = kill_node(cluster, &observer).await?;
    summary.push(Measured {
        what: "pods of the killed node Ready elsewhere",
        took: replaced,
        promised: Some(Duration::from_secs(15)),
    });

    heading("the last scaling decisions, explained");
    eprint!("{}", cluster.cli(&["explain", "scalingpolicy/web", "--last", "5"]).await?);

    Ok(summary)
}

/// Sends the load while a line a second shows what the cluster does about it.
async fn drive(observer: &Observer, address: &str, schedule: &str) -> Result<Vec<Measured>> {
    let schedule: Schedule = schedule.parse().map_err(anyhow::Error::msg)?;
    let step_after = schedule.0[0].duration;
    let url = format!("http://{address}/");
    let begin = Instant::now();
    eprintln!("   time   replicas  ready   CPU      requests      p50        p95        errors");
    let mut shown = observer.decisions_seen();
    let mut before_step = None;
    let whole = load::run(&url, &schedule, |report| {
        if report.seconds < step_after.as_secs_f64() {
            before_step = Some((observer.replicas(), observer.ready()));
        }
        let ms = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.0} ms"));
        let line = format!(
            "   {:>4.0}s   {:>8}  {:>5}   {:>5}    {:>6}/s     {:>7}    {:>7}    {}\n",
            report.seconds,
            observer.replicas(),
            observer.ready(),
            observer.cpu(),
            report.ok,
            ms(report.p50_ms),
            ms(report.p95_ms),
            report.errors,
        );
        eprint!("{line}");
        for text in observer.decisions_since(&mut shown) {
            eprintln!("          {text}");
        }
    })
    .await?;
    eprintln!("   {} requests answered, {} errors, {} not sent", whole.ok, whole.errors, whole.dropped);
    let (replicas, ready) = before_step.context("the load ended before its first second")?;
    let step = begin + step_after;
    let decided = observer.scaled_out_after(step, replicas).context("the step brought no new replica")?;
    let up = observer.ready_after(step, ready).context("no new pod became Ready after the step")?;
    if whole.ok == 0 {
        bail!("no request was answered");
    }
    Ok(vec![
        Measured {
            what: "step x4: first new replica decided",
            took: decided - step,
            promised: Some(Duration::from_secs(2)),
        },
        Measured {
            what: "step x4: first new pod Ready",
            took: up - step,
            promised: Some(Duration::from_secs(5)),
        },
    ])
}

async fn kill_container(cluster: &DemoCluster, observer: &Observer) -> Result<Duration> {
    let pod = observer.pods_on(None).into_iter().next().context("there is no pod to kill")?;
    let restarts = observer.restarts(&pod.name);
    let killed = Instant::now();
    let pid = cluster.kill_container_of(&pod.uid, &pod.node).await?;
    eprintln!("   killed process {pid} of pod {} on {}", pod.name, pod.node);
    let back = until("the container to run again", Duration::from_secs(30), || {
        observer.restarts(&pod.name) > restarts && observer.is_running(&pod.name)
    })
    .await?;
    Ok(back - killed)
}

async fn kill_node(cluster: &mut DemoCluster, observer: &Observer) -> Result<Duration> {
    cluster.cli(&["scale", "deployment/web", "--replicas", "3"]).await?;
    let node = cluster.doomed_node().to_owned();
    until("a pod on every node", Duration::from_secs(30), || {
        observer.ready() >= 1 && !observer.pods_on(Some(&node)).is_empty()
    })
    .await
    .context("no pod was placed on the node that is to be killed")?;
    let lost: Vec<String> = observer.pods_on(Some(&node)).into_iter().map(|p| p.name).collect();
    let killed = Instant::now();
    cluster.kill_node().await?;
    eprintln!("   {node} is gone, and with it {}", lost.join(", "));
    let back = until("replacements to be Ready", Duration::from_secs(60), || {
        observer.pods_on(Some(&node)).is_empty() && observer.ready() >= observer.replicas().max(1)
    })
    .await?;
    Ok(back - killed)
}
