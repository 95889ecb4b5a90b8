//! `loadline bench`: every figure that we promise, measured now and on this machine, each beside its baseline.
//!
//! The baselines are what kube-apiserver 1.36 with etcd did on a machine of two cores, idle otherwise, doing the same
//! work; and the plain cost of the disk, measured in the same run.

mod api;
mod client;
mod cluster;
mod disk;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::output::{self, Columns, Format};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  loadline bench
  loadline bench --only api -o json")]
pub struct BenchArgs {
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Seconds for each throughput figure
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Where the manifests of the demo are
    #[arg(long, value_name = "DIR", default_value = "examples")]
    examples: PathBuf,
    /// Where the benched servers keep their data; the disk that is measured
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Start and idle memory
    Start,
    /// The API server's throughput and memory
    Api,
    /// Two hundred pods on twenty simulated nodes
    Pods,
    /// The demo on real containers: step, killed container, killed node (Docker and the example's image are needed)
    Demo,
}

/// One measured figure.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    /// What we promise, and whether the value has to be above or below it.
    pub goal: f64,
    pub goal_is_minimum: bool,
    /// kube-apiserver 1.36 with etcd, where it does such a thing.
    pub baseline: Option<f64>,
    pub baseline_is: &'static str,
}

pub const KUBERNETES: &str = "kube-apiserver 1.36 + etcd";

impl Figure {
    pub fn at_least(name: &str, value: f64, unit: &'static str, goal: f64, baseline: Option<f64>) -> Self {
        Self {
            name: name.to_owned(),
            value,
            unit,
            goal,
            goal_is_minimum: true,
            baseline,
            baseline_is: KUBERNETES,
        }
    }

    pub fn at_most(name: &str, value: f64, unit: &'static str, goal: f64, baseline: Option<f64>) -> Self {
        Self {
            name: name.to_owned(),
            value,
            unit,
            goal,
            goal_is_minimum: false,
            baseline,
            baseline_is: KUBERNETES,
        }
    }

    fn met(&self) -> bool {
        if self.goal_is_minimum { self.value >= self.goal } else { self.value <= self.goal }
    }

    /// How many times better than the baseline.
    fn ratio(&self) -> Option<f64> {
        let baseline = self.baseline?;
        Some(if self.goal_is_minimum { self.value / baseline } else { baseline / self.value })
    }
}

pub async fn run(args: BenchArgs) -> Result<()> {
    let dir = std::path::absolute(&args.dir)?;
    let wanted = |part| args.only.is_empty() || args.only.contains(&part);
    let mut figures = Vec::new();
    if wanted(Part::Start) {
        figures.extend(cluster::start(&dir).await?);
    }
    if wanted(Part::Api) {
        figures.extend(api::measure(&dir, std::time::Duration::from_secs(args.seconds)).await?);
    }
    if wanted(Part::Pods) {
        figures.extend(cluster::pods(&dir).await?);
    }
    if wanted(Part::Demo) {
        figures.extend(cluster::demo(&args.examples).await?);
    }
    show(&figures, args.output)
}

fn show(figures: &[Figure], format: Format) -> Result<()> {
    if format == Format::Json {
        return output::print(&format!("{}\n", serde_json::to_string_pretty(figures)?));
    }
    let mut columns = Columns::new(&["FIGURE", "MEASURED", "GOAL", "MET", "BASELINE", "RATIO"]);
    for f in figures {
        let number = |v: f64| if v.abs() < 10.0 { format!("{v:.2}") } else { format!("{v:.0}") };
        columns.row(vec![
            f.name.clone(),
            format!("{} {}", number(f.value), f.unit),
            format!("{} {}", if f.goal_is_minimum { ">=" } else { "<=" }, number(f.goal)),
            if f.met() { "yes" } else { "NO" }.to_owned(),
            f.baseline.map_or_else(|| "-".to_owned(), |b| format!("{} ({})", number(b), f.baseline_is)),
            f.ratio().map_or_else(|| "-".to_owned(), |r| format!("{r:.1}x")),
        ]);
    }
    output::print(&columns.to_string())
}
