//! The recorded answers of a real Kubernetes API server, replayed on ours.
//!
//! The recordings are not part of the repository; without them the test says that it is skipped.

use std::collections::BTreeSet;
use std::path::PathBuf;

use loadline_tests::{Cluster, Options, Python, TOKEN, repository, run, skipped};

/// Kinds that we do not serve yet: their scenarios are left out.
const NOT_SERVED: &str = "podtemplates limitranges resourcequotas statefulsets daemonsets jobs cronjobs \
    poddisruptionbudgets ingresses networkpolicies roles rolebindings";

/// Answers whose status code is known to differ, and why.
const KNOWN: &[(&str, &str)] = &[
    // Kubernetes keeps `data` as the bytes that were sent and compares them with what a patch makes of them, so that a
    // revision that was sent with blanks in its JSON cannot be patched at all. We compare values.
    ("life/controllerrevisions step 8", "data is compared as a value, not as bytes"),
    ("life/controllerrevisions step 9", "data is compared as a value, not as bytes"),
];

/// Writes the scenarios of the kinds that we serve to the file named last.
const FILTER: &str = r#"
import sys, yaml
skip = set(sys.argv[3].split())
scenarios = yaml.safe_load(open(sys.argv[1]))
served = [s for s in scenarios if s["name"].split("/")[-1] not in skip]
yaml.safe_dump(served, open(sys.argv[2], "w"))
"#;

fn recordings() -> Option<PathBuf> {
    let dir =
        std::env::var_os("LOADLINE_WIRE").map_or_else(|| repository().join("../shared/wire"), PathBuf::from);
    let found = dir.join("wirecheck.py").exists();
    if !found {
        skipped(
            "the recorded answers",
            "no shared/wire beside the repository; $LOADLINE_WIRE can name the folder",
        );
    }
    found.then_some(dir)
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_like_kubernetes() {
    let (Some(dir), Some(python)) = (recordings(), Python::with_yaml()) else { return };
    let cluster = Cluster::start(Options::api()).await;
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let (all, served) = (text(dir.join("scenarios.yaml")), text(cluster.dir().join("scenarios.yaml")));
    let env = std::collections::BTreeMap::new();
    run(&python, &["-c", FILTER, &all, &served, NOT_SERVED], &env, "").await.ok();

    let (check, answers) = (text(dir.join("wirecheck.py")), text(dir.join("answers.json")));
    let args = [&check, "--server", &cluster.url, "--token", TOKEN, &served, "--against", &answers, "-v"];
    let output = run(&python, &args, &env, "").await;
    let last = output.stdout.lines().last().unwrap_or_default();
    eprintln!("{last}");
    // "63 of 67 scenarios equal; 642 of 648 answers equal (634 to the word); 646 status codes equal"
    let numbers: Vec<usize> =
        last.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    let [_, _, equal, of, _, codes] = numbers[..] else { panic!("no result: {output}") };

    let hard = output.stdout.lines().filter(|line| line.contains(" step ") && !line.contains(" (wording)"));
    let different: BTreeSet<&str> =
        hard.map(|line| line.split('/').take(2).collect::<Vec<_>>().join("/").leak() as &str).collect();
    for line in output.stdout.lines().filter(|line| line.contains(" step ")) {
        eprintln!("  {line}");
    }
    let known = KNOWN.iter().filter(|(step, why)| {
        let differs = different.contains(step);
        eprintln!("{}: {step}: {why}", if differs { "known difference" } else { "no longer different" });
        differs
    });
    let known = known.count();
    assert_eq!(codes + known, of, "status codes differ; see above");
    assert!(equal * 10 >= of * 9, "{equal} of {of} answers are equal; 9 of 10 have to be");
}
