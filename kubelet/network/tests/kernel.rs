//! The plans against a real kernel: every transaction must be accepted, and any sequence of updates must end in the
//! same table as a fresh start. Runs in a network namespace of its own; needs root and nft.

#![expect(clippy::unwrap_used, reason = "tests: a panic with its place is the message")]

use std::collections::BTreeSet;
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use loadline_network::proxy::plan::{Rules, ServiceRules, replace, update};

struct Namespace(String);

impl Namespace {
    fn new(name: &str) -> Option<Self> {
        let name = format!("{name}-{}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).status().is_ok_and(|s| s.success());
        if !made {
            eprintln!("skipped: network namespaces cannot be made here (root and iproute2 are needed)");
        }
        made.then_some(Self(name))
    }

    fn nft(&self, arguments: &[&str], script: &str) -> Result<String, String> {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.0, "nft"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap())
        } else {
            Err(format!("{}\n--- script\n{script}", String::from_utf8_lossy(&output.stderr)))
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// A small generator, so that a failure comes back with the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn some_rules(dice: &mut Dice) -> Rules {
    let mut rules = Rules::new();
    for i in 0..4_u8 {
        if dice.roll(4) == 0 {
            continue;
        }
        let endpoints: BTreeSet<_> = (0..dice.roll(4) as u8)
            .map(|_| (Ipv4Addr::new(10, 244, i, 2 + dice.roll(3) as u8), 8080))
            .collect();
        let id = format!("svc_{i}-tcp-80-{i:08x}");
        rules.insert(
            id.clone(),
            ServiceRules {
                id,
                comment: format!("test/svc-{i}:http"),
                protocol: if i == 3 { "udp" } else { "tcp" },
                frontends: vec![(Ipv4Addr::new(10, 96, 0, 10 + i), 80)],
                node_port: (dice.roll(2) == 0).then_some(30_000 + u16::from(i)),
                endpoints,
                affinity: (dice.roll(2) == 0).then_some(60 + 60 * dice.roll(2) as u32),
            },
        );
    }
    rules
}

#[test]
fn updates_are_accepted_and_end_where_a_fresh_start_ends() {
    let Some(ns) = Namespace::new("ll-nft") else { return };
    let listed = |table: &str| {
        let mut lines: Vec<String> = ns
            .nft(&["list", "table", "ip", table], "")
            .unwrap()
            .replace(table, "TABLE")
            .lines()
            .map(|l| l.trim().to_owned())
            .collect();
        lines.sort();
        lines
    };
    for seed in 0..12 {
        let mut dice = Dice(seed);
        let mut old = Rules::new();
        ns.nft(&["-f", "-"], &replace("walked", "10.244.0.0/16", &old)).unwrap();
        for step in 0..8 {
            let new = some_rules(&mut dice);
            let script = update("walked", &old, &new);
            if let Err(error) = ns.nft(&["-f", "-"], &script) {
                panic!("seed {seed}, step {step}: {error}\nfrom {old:#?}\nto {new:#?}");
            }
            old = new;
        }
        ns.nft(&["-f", "-"], &replace("fresh", "10.244.0.0/16", &old)).unwrap();
        assert_eq!(listed("walked"), listed("fresh"), "seed {seed}");
    }
}
