//! Which ranges nodes get.

use serde_json::json;

use super::*;

fn node(name: &str, cidr: Option<&str>) -> Arc<Node> {
    Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"podCIDR": cidr}})).unwrap())
}

fn assigned(action: Option<Action>) -> String {
    match action {
        Some(Action::Assign { cidr, .. }) => cidr,
        other => format!("{other:?}"),
    }
}

#[test]
fn what_is_no_cidr_is_refused() {
    for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/16", "x/16", "10.0.0.0/-1", "fd00::/129"] {
        assert_eq!(PodCidrs::new(text, 24), Err(CidrError::Syntax(text.to_owned())));
    }
    for (cluster, node) in [("10.244.0.0/16", 15), ("10.244.0.0/16", 33), ("10.0.0.0/8", 25)] {
        assert!(matches!(PodCidrs::new(cluster, node), Err(CidrError::Mask { .. })), "{cluster} in /{node}");
    }
    assert_eq!(PodCidrs::new("10.244.0.0/16", 24), Ok(PodCidrs::default()));
}

#[test]
fn every_node_gets_its_own_and_keeps_it() {
    let cidrs = PodCidrs::default();
    let mut memory = Memory::default();
    let mut nodes = vec![node("a", None), node("b", Some("10.244.1.0/24")), node("c", None)];
    assert_eq!(plan(&cidrs, &mut memory, &nodes, "b"), None);
    assert_eq!(assigned(plan(&cidrs, &mut memory, &nodes, "a")), "10.244.0.0/24");
    assert_eq!(
        assigned(plan(&cidrs, &mut memory, &nodes, "a")),
        "10.244.0.0/24",
        "the same when asked again"
    );
    assert_eq!(
        assigned(plan(&cidrs, &mut memory, &nodes, "c")),
        "10.244.2.0/24",
        "reserved, though not visible yet"
    );
    nodes[0] = node("a", Some("10.244.0.0/24"));
    assert_eq!(plan(&cidrs, &mut memory, &nodes, "a"), None);
    assert_eq!(plan(&cidrs, &mut memory, &nodes, "gone"), None);
}

#[test]
fn a_range_given_back_is_the_last_to_be_used_again() {
    let cidrs = PodCidrs::new("10.0.0.0/30", 32).unwrap();
    let mut memory = Memory::default();
    let mut nodes: Vec<Arc<Node>> = Vec::new();
    for (name, expected) in [("a", 0), ("b", 1), ("c", 2)] {
        nodes.push(node(name, None));
        let cidr = assigned(plan(&cidrs, &mut memory, &nodes, name));
        assert_eq!(cidr, format!("10.0.0.{expected}/32"));
        *nodes.last_mut().unwrap() = node(name, Some(&cidr));
    }
    nodes.retain(|n| n.metadata.name.as_deref() != Some("b"));
    for (name, expected) in [("d", "10.0.0.3/32"), ("e", "10.0.0.1/32")] {
        nodes.push(node(name, None));
        let cidr = assigned(plan(&cidrs, &mut memory, &nodes, name));
        assert_eq!(cidr, expected);
        *nodes.last_mut().unwrap() = node(name, Some(&cidr));
    }
    nodes.push(node("f", None));
    assert_eq!(plan(&cidrs, &mut memory, &nodes, "f"), Some(Action::Exhausted { node: "f".to_owned() }));
    nodes.remove(0);
    assert_eq!(assigned(plan(&cidrs, &mut memory, &nodes, "f")), "10.0.0.0/32");
}

#[test]
fn larger_and_foreign_ranges_count_for_what_they_cover() {
    let cidrs = PodCidrs::default();
    assert_eq!(cidrs.overlapping("10.244.4.0/22"), 4..8);
    assert_eq!(cidrs.overlapping("10.244.4.128/25"), 4..5);
    assert_eq!(cidrs.overlapping("10.0.0.0/8"), 0..256);
    assert_eq!(cidrs.overlapping("0.0.0.0/0"), 0..256);
    for none in ["192.168.0.0/16", "fd00::/64", "junk"] {
        assert_eq!(cidrs.overlapping(none), 0..0);
    }
    let six = PodCidrs::new("fd00:1::/48", 64).unwrap();
    assert_eq!(six.range(3), "fd00:1:0:3::/64");
    assert_eq!(six.overlapping("fd00:1:0:3::/64"), 3..4);
}
